"""Cases over HTTP: inputs that were kept for an agent with what is expected; all have to pass before it goes live."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from app.api.contract import Editor, Listed, Posted, Runner, Shown, Viewer, refuses, resource
from app.permissions import TheFactory

router = resource("blueprints/{id}/cases", tag="Cases")


class CaseShown(Shown):
    """One case."""

    id: str = Field(examples=["case_01k9x2m4c7q8"])
    blueprint_id: str
    name: str = Field(examples=["A large order"])
    trigger: str
    input: JsonValue
    expects: Literal["succeeded", "failed"]
    formula: str
    pretend: dict[str, JsonValue]
    updated_at: float
    updated_by: str


class NewCase(Posted):
    """What comes in, and what is expected of it."""

    name: str = Field(min_length=1, max_length=80, examples=["A large order"])
    input: JsonValue
    trigger: str = Field(default="", max_length=64, description="The id of the trigger; the first if empty.")
    expects: Literal["succeeded", "failed"] = "succeeded"
    formula: str = Field(
        default="",
        max_length=2000,
        description="Has to be true of the result. It knows `output`, its fields, and `input`.",
        examples=["total == input.body.total * 2"],
    )
    pretend: dict[str, JsonValue] = Field(
        default_factory=dict, description="What people would answer, by node.", examples=[{"n4": {"approved": False}}]
    )


class ResultShown(Shown):
    """How one case went."""

    id: str
    name: str
    passed: bool
    why: str = Field(description="In a sentence, when it failed.")
    run_id: str = Field(description="Its test run, which `/runs/{id}` knows while this process lives.")
    seconds: float


class ReportShown(Shown):
    """How all went."""

    passed: bool
    results: list[ResultShown]


@router.get("", response_model=Listed[CaseShown], responses=refuses(404), summary="List an agent's cases")
async def listed(id: str, who: Viewer, factory: TheFactory) -> Any:
    """Oldest first."""
    await factory.blueprints.get(who, id)
    return {"items": await factory.cases.list(who, id)}


@router.post("", status_code=201, response_model=CaseShown, responses=refuses(404, 415), summary="Keep a case")
async def keep(id: str, who: Editor, factory: TheFactory, posted: NewCase) -> Any:
    """From now on it has to pass before the agent goes live."""
    return await factory.cases.put(who, id, **posted.model_dump())


@router.put("/{case}", response_model=CaseShown, responses=refuses(404, 415), summary="Change a case")
async def change(id: str, case: str, who: Editor, factory: TheFactory, posted: NewCase) -> Any:
    """All of it is replaced."""
    return await factory.cases.put(who, id, id=case, **posted.model_dump())


@router.delete("/{case}", status_code=204, responses=refuses(404), summary="Forget a case")
async def delete(id: str, case: str, who: Editor, factory: TheFactory) -> None:
    """It is asked no more."""
    await factory.blueprints.get(who, id)
    await factory.cases.delete(who, case)


@router.post("/run", response_model=ReportShown, responses=refuses(404), summary="Run an agent's cases")
async def run(id: str, who: Runner, factory: TheFactory) -> Any:
    """On the draft, in the sandbox: what it would do outside is told instead of done."""
    await factory.blueprints.get(who, id)
    report = await factory.cases.run(who, id)
    return {"passed": not report.failing, "results": report.results}
