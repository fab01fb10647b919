"""Dead letters over HTTP: live runs that failed for good, their story, trying them again and dismissing them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from app.api.contract import Limit, Listed, Made, Posted, Runner, Shown, Viewer, refuses, resource
from app.api.runs import RunShown
from app.permissions import TheFactory
from nodes.categories import Category
from runtime.dead_letters import MAX_REASON, MOST_AT_ONCE
from runtime.runs import SAME_INPUT

router = resource("dead-letters", tag="Dead letters")

State = Literal["open", "retried", "dismissed"]
Start = Literal["failure", "beginning"]
Version = Literal["same", "newest"]
RunId = Annotated[str, Field(max_length=64)]


class DeadLetterShown(Shown):
    """A failed run and what was done about it. `state` is open until somebody tries it again or dismisses it."""

    run: RunShown
    category: Category
    environment: str
    state: State
    reason: str
    done_by: str
    done_at: float | None
    retry_run: str | None
    retry_state: str | None


class WaysShown(Shown):
    """What trying again from the failed step would do, by the names of steps."""

    kept: list[str] = Field(description="Keep the results that they had.")
    runs: list[str] = Field(description="Run, as far as they are needed.")
    again: list[str] = Field(description="Act outside a second time.")


class DeadLetterWhole(Shown):
    """A failed run with its story and what can be done about it."""

    info: DeadLetterShown
    story: list[str]
    input: Any
    node: str
    name: str
    step_input: dict[str, Any] | None = Field(description="What the failed step got, by port, where it can be changed.")
    ways: WaysShown | None = Field(description="Null when it can only be tried again from the start.")
    newest: int | None
    newer: bool
    told_run: str | None = Field(description="The run of the error agent.")
    retry_of: str | None


class AgentTally(Shown):
    """How many an agent has."""

    id: str
    name: str
    number: int


class TallyShown(Shown):
    """How many there are."""

    total: int
    categories: dict[Category, int]
    agents: list[AgentTally]


class Retry(Posted):
    """How to try again. `input` only from the beginning, `step_input` (by port) only from the failure."""

    start: Start = "failure"
    version: Version = "same"
    input: Any = None
    step_input: dict[str, Any] | None = None


class RetryMany(Posted):
    """Several at once, in the same way."""

    runs: list[RunId] = Field(min_length=1, max_length=MOST_AT_ONCE)
    start: Start = "failure"
    version: Version = "same"


class TriedShown(Shown):
    """What came of one of several: the new run, or why there is none."""

    run_id: str
    new_run: str | None
    error: dict[str, Any] | None


class Dismissal(Posted):
    """Which ones need nothing any more, and why."""

    runs: list[RunId] = Field(min_length=1, max_length=MOST_AT_ONCE)
    reason: str = Field(min_length=1, max_length=MAX_REASON)


class Dismissed(Shown):
    """How many of them were open."""

    dismissed: int


@router.get("", response_model=Listed[DeadLetterShown], summary="List failed runs")
async def listed(
    who: Viewer,
    factory: TheFactory,
    state: Annotated[State, Query(description="Open ones, or what was done about them.")] = "open",
    category: Annotated[Category | None, Query(description="Only failures of this kind.")] = None,
    blueprint: Annotated[str | None, Query(max_length=64, description="Only runs of this agent.")] = None,
    limit: Limit = 50,
    before: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> Any:
    """Newest first, page by page."""
    found = await factory.dead_letters.list(
        who, state=state, category=category, blueprint_id=blueprint, limit=min(limit + 1, 200), before=before
    )
    more = len(found) > limit or len(found) == MOST_AT_ONCE
    return {"items": found[:limit], "next": found[:limit][-1].run.id if more else None}


@router.get("/tally", response_model=TallyShown, summary="Count failed runs")
async def tally(who: Viewer, factory: TheFactory, state: State = "open") -> Any:
    """By category and by agent."""
    found = await factory.dead_letters.tally(who, state)
    agents = [{"id": id_, "name": name, "number": number} for id_, name, number in found.agents]
    return {"total": found.total, "categories": found.categories, "agents": agents}


@router.post("/retry", response_model=Listed[TriedShown], responses=refuses(415), summary="Try several again")
async def retry_many(who: Runner, factory: TheFactory, posted: RetryMany) -> Any:
    """One after the other; each is told what came of it."""
    came = await factory.dead_letters.retry_many(who, posted.runs, start=posted.start, version=posted.version)
    return {"items": came}


@router.post("/dismiss", response_model=Dismissed, responses=refuses(415), summary="Dismiss some")
async def dismiss(who: Runner, factory: TheFactory, posted: Dismissal) -> Any:
    """They are kept with the reason, and can be opened again."""
    return {"dismissed": await factory.dead_letters.dismiss(who, posted.runs, posted.reason)}


@router.get("/{id}", response_model=DeadLetterWhole, responses=refuses(404), summary="Get a failed run")
async def get(id: str, who: Viewer, factory: TheFactory) -> Any:
    """Its story in words, what came in, and what trying again would do. `id` is the run's."""
    return await factory.dead_letters.get(who, id)


@router.post(
    "/{id}/retry", status_code=202, response_model=Made, responses=refuses(404, 409, 415), summary="Try one again"
)
async def retry(id: str, who: Runner, factory: TheFactory, posted: Retry) -> Any:
    """From what failed or from the beginning, on the version it ran on or the newest, also on other data."""
    given = posted.input if "input" in posted.model_fields_set else SAME_INPUT
    new_run = await factory.dead_letters.retry(
        who, id, start=posted.start, version=posted.version, input=given, step_input=posted.step_input
    )
    return {"id": new_run}


@router.post("/{id}/open", status_code=204, responses=refuses(404, 409), summary="Take a dismissal back")
async def open_again(id: str, who: Runner, factory: TheFactory) -> None:
    """It needs attention again."""
    await factory.dead_letters.undo(who, id)
