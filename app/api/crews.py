"""Crews over HTTP: agents that are assembled together, watched, changed while they run, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import Header, Path, Query, Response
from nicegui import background_tasks
from pydantic import Field
from pydantic_core import to_json
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from app.api.contract import PREFIX, Limit, Listed, Runner, Shown, Viewer, json_answer, refuses, resource
from app.api.following import while_signed_in
from app.forms import TheAuth
from app.permissions import TheFactory, TheVisit
from app.problems import explain
from runtime.crews.manifest import CrewManifest, MemberSpec

router = resource("crews", tag="Crews")

HEARTBEAT_SECONDS = 15
State = Literal["assembling", "running", "paused", "finished", "failed", "stopped"]
MemberId = Annotated[str, Path(max_length=64)]


class VitalShown(Shown):
    """The vital figures of a worker: processors, bytes, and how many processes."""

    cpu: float
    memory: int
    processes: int
    at: float


class MemberShown(Shown):
    """One member. `worker_state` and `vital` are its worker's, while it has one."""

    id: str = Field(examples=["m1"])
    role: str
    kind: Literal["code", "blueprint"]
    tier: str
    state: Literal["starting", "running", "done", "failed", "stopped"]
    why: str
    since: float
    restarts: int
    worker: str | None
    worker_state: str | None
    vital: VitalShown | None
    run_id: str | None
    result: Any


class SaidShown(Shown):
    """How many messages, requests and tasks went from one member to another."""

    source: str
    target: str
    count: int


class SpentShown(Shown):
    """What of its budgets the crew has used."""

    seconds: float
    messages: int
    calls: int
    bytes: int


class EndpointsShown(Shown):
    """Where it is looked at and ended."""

    status: str
    events: str
    members: str
    stop: str
    pause: str
    resume: str


class CrewShown(Shown):
    """A crew. `health` is ok, degraded or down while it lives, and empty after that. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["crew_01k9x2m4c7q8"])
    name: str
    state: State
    health: Literal["ok", "degraded", "down", ""]
    why: str
    by: str
    created_at: float
    ended_at: float | None
    epoch: int = Field(description="How often it was assembled.")
    bus: str
    members: list[MemberShown]
    said: list[SaidShown]
    spent: SpentShown
    budgets: dict[str, int]
    network: list[str]
    endpoints: EndpointsShown | None = None


class EventShown(Shown):
    """Something that was done to a crew, or happened to it."""

    at: float
    by: str
    what: str
    member: str | None
    why: str


def shown(view: Any) -> CrewShown:
    """A crew with its addresses."""
    at = f"{PREFIX}/crews/{view.id}"
    crew = CrewShown.model_validate(view)
    crew.endpoints = EndpointsShown(
        status=f"{at}/status",
        events=f"{at}/events",
        members=f"{at}/members",
        stop=f"{at}/stop",
        pause=f"{at}/pause",
        resume=f"{at}/resume",
    )
    return crew


STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of events called `status`, each with the whole status as JSON.",
        "content": {"text/event-stream": {"example": 'event: status\ndata: {"id":"crew_1","state":"running"}\n\n'}},
    }
}


@router.get("", response_model=Listed[CrewShown], summary="List crews")
async def listed(
    who: Viewer, factory: TheFactory, limit: Limit = 50, before: Annotated[str | None, Query(max_length=64)] = None
) -> Any:
    """Those at work and those that have ended, newest first."""
    found = [shown(view) for view in await factory.crews.list(who, limit=limit, before=before)]
    return {"items": found, "next": found[-1].id if len(found) == limit else None}


@router.get("/schema", summary="The JSON Schema of a manifest")
async def schema(who: Viewer) -> dict[str, Any]:
    """What `assemble` takes."""
    return CrewManifest.model_json_schema()


@router.post(
    "/assemble",
    response_model=CrewShown,
    status_code=201,
    responses={**refuses(404, 409, 415), **STREAM},
    summary="Assemble a crew",
)
async def assemble(
    posted: CrewManifest,
    who: Runner,
    factory: TheFactory,
    auth: TheAuth,
    visit: TheVisit,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """All members at the same time; when one cannot be had nothing is left of the others.

    The answer comes when the crew is at work. With `Accept: text/event-stream` it is a stream: events called `status` while it
    is being assembled, then one called `assembled`, or `failed` with what went wrong.
    """
    if "text/event-stream" not in accept:
        view = await factory.crews.assemble(who, posted)
        return json_answer(shown(view), CrewShown, status=201)
    crew, work = await factory.crews.begin(who, posted)
    session = visit.session
    assert session is not None
    pictures: Any = factory.crews.follow(who, crew.id)
    first = await anext(pictures)

    async def told() -> AsyncIterator[ServerSentEvent]:
        until: Any = _until_assembled(pictures, work)
        async for view in while_signed_in(until, first, lambda: auth.live(session.id) is not None):
            yield _event("status", shown(view))
        if not work.done():
            return
        try:
            await factory.crews.outcome(work)
            yield _event("assembled", shown(await factory.crews.status(who, crew.id)))
        except Exception as problem:
            yield _event("failed", {"error": explain(problem, place="assembling a crew").as_dict()})

    return _stream(told())


async def _until_assembled(pictures: AsyncGenerator[Any, None], work: asyncio.Task[None]) -> AsyncGenerator[Any, None]:
    """The pictures that come while the crew is being assembled."""
    waiting: asyncio.Task[Any] | None = None
    try:
        while not work.done():
            waiting = background_tasks.create(_next(pictures), name="crew", handle_exceptions=False)
            await asyncio.wait((waiting, work), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and (view := waiting.result()) is not None:
                yield view
            elif waiting.done():
                await asyncio.wait((work,))
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await pictures.aclose()


async def _next(pictures: AsyncGenerator[Any, None]) -> Any:
    return await anext(pictures, None)


@router.get("/{id}/status", response_model=CrewShown, responses=refuses(404), summary="Look how a crew is doing")
async def status(id: str, who: Viewer, factory: TheFactory) -> Any:
    """Its members with their workers, what they said to each other, what they have used up, and its health in one word."""
    return shown(await factory.crews.status(who, id))


@router.get(
    "/{id}/events",
    response_class=EventSourceResponse,
    responses={**refuses(404), **STREAM},
    summary="Follow how a crew is doing",
)
async def events(id: str, who: Viewer, factory: TheFactory, auth: TheAuth, visit: TheVisit) -> Response:
    """Its status now, and again after each change; ends with the crew. A comment comes every 15 seconds."""
    session = visit.session
    assert session is not None
    pictures: Any = factory.crews.follow(who, id)
    first = await anext(pictures)

    async def told() -> AsyncIterator[ServerSentEvent]:
        async for view in while_signed_in(pictures, first, lambda: auth.live(session.id) is not None):
            yield _event("status", shown(view))

    return _stream(told())


@router.get(
    "/{id}/history", response_model=Listed[EventShown], responses=refuses(404), summary="What was done to a crew"
)
async def history(id: str, who: Viewer, factory: TheFactory) -> Any:
    """By whom, when and why, newest first."""
    return {"items": await factory.crews.history(who, id)}


@router.post("/{id}/stop", response_model=CrewShown, responses=refuses(404), summary="Stop a crew")
async def stop(id: str, who: Runner, factory: TheFactory) -> Any:
    """End it with everything in it: its code, its runs, its messages. One that has ended stays as it is."""
    return shown(await factory.crews.stop_crew(who, id))


@router.post("/{id}/pause", response_model=CrewShown, responses=refuses(404, 409), summary="Pause a crew")
async def pause(id: str, who: Runner, factory: TheFactory) -> Any:
    """Nothing that its members say or call gets through until it goes on; it waits, and its time goes on."""
    return shown(await factory.crews.pause(who, id))


@router.post("/{id}/resume", response_model=CrewShown, responses=refuses(404, 409), summary="Resume a crew")
async def resume(id: str, who: Runner, factory: TheFactory) -> Any:
    """What waited goes on."""
    return shown(await factory.crews.resume(who, id))


@router.post(
    "/{id}/members",
    response_model=CrewShown,
    status_code=201,
    responses=refuses(404, 409, 415),
    summary="Add members to a crew",
)
async def add(id: str, posted: MemberSpec, who: Runner, factory: TheFactory) -> Any:
    """While it runs; all of `count` or none."""
    return shown(await factory.crews.add(who, id, posted))


@router.put(
    "/{id}/members/{member}",
    response_model=CrewShown,
    responses=refuses(404, 409, 415),
    summary="Give a member another role",
)
async def rerole(id: str, member: MemberId, posted: MemberSpec, who: Runner, factory: TheFactory) -> Any:
    """Its work ends and the new one begins, in the same worker if that has the right size."""
    return shown(await factory.crews.rerole(who, id, member, posted))


@router.delete(
    "/{id}/members/{member}", response_model=CrewShown, responses=refuses(404, 409), summary="Let a member go"
)
async def dismiss(id: str, member: MemberId, who: Runner, factory: TheFactory) -> Any:
    """Its work ends; the others go on."""
    return shown(await factory.crews.dismiss(who, id, member))


def _event(name: str, told: Any) -> ServerSentEvent:
    return ServerSentEvent(data=to_json(told).decode(), event=name, sep="\n")


def _stream(told: AsyncIterator[ServerSentEvent]) -> EventSourceResponse:
    return EventSourceResponse(
        told,
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        sep="\n",
    )
