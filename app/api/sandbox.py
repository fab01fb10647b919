"""Test runs over HTTP: a stored draft, executed in the sandbox."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Response
from pydantic import Field, JsonValue

from app.api.contract import Made, Posted, Runner, json_answer, refuses, resource
from app.permissions import TheFactory

router = resource("sandbox", tag="Runs")


class TestRun(Posted):
    """What to try out. Only a stored draft can be run: this takes its id, never a document."""

    blueprint: str = Field(max_length=64, description="The agent's id.", examples=["bp_01k9x2m4c7q8"])
    input: JsonValue = Field(default=None, description="What the trigger gets; its own sample if empty.")
    trigger: str | None = Field(default=None, max_length=64, description="The id of the trigger; the first if empty.")
    until: str | None = Field(default=None, max_length=64, description="Run only what leads up to this node.")
    allow: list[str] = Field(
        default_factory=list,
        max_length=1000,
        description="The ids of nodes that may really do outside what they do. All others only tell it.",
    )
    pretend: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What people would answer, and whether the events that steps wait for arrive, by node.",
        examples=[{"n4": {"approved": False}, "n7": {"arrived": True, "value": {"paid": True}}}],
    )
    environment: Literal["live", "test"] = Field(default="live", description="Whose variables and secrets it uses.")


@router.post("", status_code=202, response_model=Made, responses=refuses(404, 415), summary="Try a draft out")
async def start(who: Runner, factory: TheFactory, posted: TestRun) -> Response:
    """Starts a test run: nothing of it is kept, and what it would do outside is told instead of done.

    Its id works with `/runs/{id}`, `/runs/{id}/events` and `/runs/{id}/cancel` while this process lives.
    """
    draft = await factory.blueprints.get(who, posted.blueprint)
    run: Any = await factory.sandbox.start(
        who,
        draft.blueprint,
        posted.input,
        trigger=posted.trigger,
        until=posted.until,
        allow=frozenset(posted.allow),
        pretend=posted.pretend,
        environment=posted.environment,
    )
    return json_answer({"id": run}, Made, status=202, headers={"Location": f"/api/v1/runs/{run}"})
