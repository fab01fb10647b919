"""Runs over HTTP: look at them, follow them live, cancel and repeat them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Response
from nicegui import background_tasks
from pydantic import Field, JsonValue
from pydantic_core import to_json
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from app.api.contract import Limit, Listed, Made, Posted, Runner, Shown, Viewer, json_answer, refuses, resource
from app.forms import TheAuth
from app.permissions import TheFactory, TheVisit
from nodes.blueprint import Blueprint
from runtime.events import Fact
from runtime.prices import MICRO
from runtime.runs import SAME_INPUT, Version
from runtime.states import RunState

router = resource("runs", tag="Runs")

HEARTBEAT_SECONDS = 15.0
SIGNED_OUT_SECONDS = 2.0
"""How soon a stream ends after its session did."""
_SCAN_SECONDS = 5.0


class RunShown(Shown):
    """One execution. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["run_01k9x2m4c7q8"])
    blueprint_id: str
    blueprint_name: str
    version: int | None
    environment: Literal["live", "test"] = "live"
    trigger: str
    state: RunState
    started_at: float
    finished_at: float | None
    seconds: float | None
    error: dict[str, Any] | None


class StepShown(Shown):
    """One node's execution in a run; `iteration` says which round of which loop."""

    node: str
    name: str
    type: str
    iteration: str
    attempt: int
    state: str
    started_at: float
    finished_at: float | None
    seconds: float | None
    input: Any
    output: Any
    error: dict[str, Any] | None
    log: list[dict[str, Any]]
    note: str


class WholeRun(RunShown):
    """A run with everything that happened in it."""

    input: Any
    output: Any
    steps: list[StepShown]
    cost: float | None = Field(
        description="What its models cost so far, in US dollars, with every try; null when it asked none."
    )
    effects: list[str] = Field(description="Test runs only: what would have been done outside, in sentences.")
    blueprint: Blueprint | None = None


@router.get("", response_model=Listed[RunShown], summary="List runs")
async def listed(
    who: Viewer,
    factory: TheFactory,
    blueprint: Annotated[str | None, Query(max_length=64, description="Only runs of this agent.")] = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
    limit: Limit = 50,
    before: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> Any:
    """Newest first, page by page."""
    found = await factory.runs.list(
        who, blueprint_id=blueprint, state=state.value if state else None, limit=limit + 1, before=before
    )
    return {"items": found[:limit], "next": found[limit - 1].id if len(found) > limit else None}


@router.get("/{id}", response_model=WholeRun, responses=refuses(404), summary="Get a run")
async def get(
    id: str,
    who: Viewer,
    factory: TheFactory,
    document: Annotated[bool, Query(description="With the document that it executes.")] = False,
) -> Any:
    """A run, or a test run of this process, with every step's input, output, log and error."""
    view = await factory.runs.get(who, id)
    info = {name: getattr(view.info, name) for name in RunShown.model_fields}
    whole = {name: getattr(view, name) for name in ("input", "output", "steps", "effects")}
    cost = await factory.ledger.of_run(who, id)
    more = {"cost": cost.spent / MICRO if cost is not None else None, "blueprint": view.blueprint if document else None}
    return info | whole | more


@router.post("/{id}/cancel", status_code=204, responses=refuses(404), summary="Cancel a run")
async def cancel(id: str, who: Runner, factory: TheFactory) -> None:
    """End a run that goes on or waits; one that has ended stays as it is."""
    await factory.runs.cancel(who, id)


class Retry(Posted):
    """How a run is done again."""

    from_failed: bool = Field(
        default=False,
        description="Only what failed or was left undone runs; every other step keeps its result. Otherwise from the start.",
    )
    version: Version = Field(default="same", description="The document it ran on, or what is deployed now.")
    input: JsonValue = Field(
        default=None, description="Another input; then it begins at the start. As it was if left out."
    )


class Fork(Posted):
    """Where a new run goes on from this one."""

    node: str | None = Field(
        default=None, max_length=64, description="The step to begin with; the start if empty.", examples=["n4"]
    )
    version: Version = Field(default="same", description="The document it ran on, or what is deployed now.")


@router.post("/{id}/retry", status_code=202, response_model=Made, responses=refuses(404, 409), summary="Run again")
async def retry(id: str, who: Runner, factory: TheFactory, posted: Retry | None = None) -> Response:
    """A new run of the same document on the same input, unless the body says otherwise. 409 while it goes on.

    From the failure, steps that had begun keep their idempotency keys: who honours them does it once.
    """
    wanted = posted or Retry()
    given = wanted.input if "input" in wanted.model_fields_set else SAME_INPUT
    run = await factory.runs.retry(who, id, from_failed=wanted.from_failed, version=wanted.version, input=given)
    return json_answer({"id": run}, Made, status=202, headers={"Location": f"{router.prefix}/{run}"})


@router.post("/{id}/fork", status_code=202, response_model=Made, responses=refuses(404, 409), summary="Fork a run")
async def fork(id: str, who: Runner, factory: TheFactory, posted: Fork) -> Response:
    """A new run from a step of one that has ended: that step and all behind it run, every other step keeps its result.

    A step inside a loop stands for its loop. Steps that are not what they were run too.
    """
    run = await factory.runs.fork(who, id, posted.node, version=posted.version)
    return json_answer({"id": run}, Made, status=202, headers={"Location": f"{router.prefix}/{run}"})


# --- following ---------------------------------------------------------------------------------------------------


@router.get(
    "/{id}/events",
    response_class=EventSourceResponse,
    responses={
        **refuses(404),
        200: {
            "description": "A stream of events. Each has the fact's kind as `event`, its number as `id`, and itself as JSON.",
            "content": {
                "text/event-stream": {
                    "example": 'id: 1\nevent: run.accepted\ndata: {"seq":1,"at":1764000000.0,"kind":"run.accepted"}\n\n'
                }
            },
        },
        204: {"description": "The run has ended and everything was seen: do not come back."},
    },
    summary="Follow a run",
)
async def events(
    id: str,
    who: Viewer,
    factory: TheFactory,
    auth: TheAuth,
    visit: TheVisit,
    last_event_id: Annotated[str | None, Header(description="The id of the last event seen; goes on after it.")] = None,
) -> Response:
    """What happened and what happens, as server-sent events; ends with the run. A comment comes every 15 seconds."""
    session = visit.session
    assert session is not None
    facts: Any = factory.runs.watch(who, id)
    first: Fact | None = await anext(facts)
    seen = _number(last_event_id)
    if seen:
        try:
            async with asyncio.timeout(_SCAN_SECONDS):
                while first is not None and first["seq"] < seen:
                    first = await anext(facts, None)
        except TimeoutError:  # there never was such a number: tell the whole story
            facts, seen = factory.runs.watch(who, id), 0
            first = await anext(facts)
        if first is None or (first["seq"] == seen and first["kind"] == "run.finished"):
            await facts.aclose()
            return Response(status_code=204)
    return EventSourceResponse(
        _stream(facts, first, seen, alive=lambda: auth.live(session.id) is not None),
        ping=int(HEARTBEAT_SECONDS),
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        sep="\n",
    )


async def _stream(facts: Any, first: Fact | None, seen: int, *, alive: Any) -> AsyncIterator[ServerSentEvent]:
    """The facts after `seen` as events, as long as the one who asked is signed in."""
    waiting: asyncio.Task[Fact | None] | None = None
    fact = first
    try:
        while fact is not None and alive():
            if fact["seq"] > seen:
                data = to_json(fact, fallback=str).decode()
                yield ServerSentEvent(data=data, event=fact["kind"], id=str(fact["seq"]), sep="\n")
            waiting = background_tasks.create(_next(facts), name="follow a run", handle_exceptions=False)
            while not waiting.done() and alive():
                await asyncio.wait({waiting}, timeout=SIGNED_OUT_SECONDS)
            if not waiting.done():
                return
            fact = waiting.result()
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        await facts.aclose()


async def _next(facts: AsyncIterator[Fact]) -> Fact | None:
    return await anext(facts, None)


def _number(event_id: str | None) -> int:
    text = (event_id or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
