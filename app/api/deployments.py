"""Deployments over HTTP: what is live and in test, pausing, resuming, rolling back and stopping it, and how it is doing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import Response
from pydantic import Field
from pydantic_core import to_json
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from app.api.contract import Deployer, Listed, Posted, Shown, Viewer, refuses, resource
from app.api.following import while_signed_in
from app.forms import TheAuth
from app.permissions import TheFactory, TheVisit

router = resource("deployments", tag="Deployments")

HEARTBEAT_SECONDS = 15


class DeploymentShown(Shown):
    """A version in use in an environment. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["dep_01k9x2m4c7q8"])
    blueprint_id: str
    blueprint_name: str
    environment: Literal["live", "test"] = "live"
    version: int
    previous: int | None
    state: Literal["active", "paused", "stopped"]
    hold: bool = Field(default=False, description="While paused: calls are kept and run when it goes on.")
    held: int = Field(default=0, description="Calls that wait for it to go on.")
    clocks: bool = Field(default=True, description="Whether its schedules run.")
    waiver: str = Field(default="", description="Why it was deployed although a case failed.")
    deployed_at: float
    deployed_by: str
    addresses: list[str] = Field(description="Paths that the outside calls.", examples=[["/hooks/orders"]])
    schedules: list[str] = Field(description="Its schedules in words.", examples=[["Every day at 09:00"]])
    events: list[str] = Field(description="What else starts it inside the product, in words.")


class StatusShown(Shown):
    """How a deployment is doing. Numbers of runs are of the last hour unless they say otherwise."""

    id: str
    blueprint_id: str
    environment: Literal["live", "test"]
    version: int
    previous: int | None
    state: Literal["active", "paused", "stopped"]
    hold: bool
    clocks: bool
    runs: int
    succeeded: int
    failed: int
    success_share: float | None = Field(description="Of those that ended; null when none has.", examples=[0.98])
    in_flight: int = Field(description="Runs that are worked on now.")
    queue: int = Field(description="Runs that were accepted and wait for their turn.")
    waiting: int = Field(description="Runs that wait for a person, a moment or another run.")
    held: int = Field(description="Calls that wait for it to go on.")
    last_error: str
    last_error_at: float | None
    last_error_run: str
    next_due: float | None = Field(description="When a schedule starts it next.")
    at: float


class Pausing(Posted):
    """What becomes of calls in the meantime."""

    hold: bool = Field(default=False, description="Keep them and run them when it goes on, instead of refusing them.")


class Stopping(Posted):
    """What becomes of calls that were kept."""

    drop_held: bool = Field(
        default=False, description="Throw them away. Without it, stopping is refused while any wait."
    )


class Clocks(Posted):
    """Whether schedules run."""

    on: bool


@router.get("", response_model=Listed[DeploymentShown], summary="List what is deployed")
async def listed(who: Viewer, factory: TheFactory) -> Any:
    """In any environment, last deployed first."""
    return {"items": await factory.deployments.list(who)}


@router.get("/{id}", response_model=DeploymentShown, responses=refuses(404), summary="Get a deployment")
async def get(id: str, who: Viewer, factory: TheFactory) -> Any:
    """With its addresses, and its schedules in words."""
    return await factory.deployments.get(who, id)


@router.post(
    "/{id}/pause", response_model=DeploymentShown, responses=refuses(404, 409, 415), summary="Pause a deployment"
)
async def pause(id: str, who: Deployer, factory: TheFactory, posted: Pausing | None = None) -> Any:
    """Take no new runs; those that go on go on. Calls get 503, or with `hold` 202 and run when it goes on."""
    return await factory.deployments.pause(who, id, hold=posted is not None and posted.hold)


@router.post("/{id}/resume", response_model=DeploymentShown, responses=refuses(404, 409), summary="Resume a deployment")
async def resume(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Take runs again, first those of the calls that were held, in their order."""
    return await factory.deployments.resume(who, id)


@router.post("/{id}/rollback", response_model=DeploymentShown, responses=refuses(404, 409), summary="Roll back")
async def rollback(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Go back to the version that was in use before."""
    return await factory.deployments.rollback(who, id)


@router.post(
    "/{id}/clocks", response_model=DeploymentShown, responses=refuses(404, 409, 415), summary="Switch its schedules"
)
async def clocks(id: str, who: Deployer, factory: TheFactory, posted: Clocks) -> Any:
    """Schedules of a test deployment run only when they were switched on."""
    return await factory.deployments.set_clocks(who, id, posted.on)


@router.post(
    "/{id}/stop", response_model=DeploymentShown, responses=refuses(404, 409, 415), summary="Stop a deployment"
)
async def stop(id: str, who: Deployer, factory: TheFactory, posted: Stopping | None = None) -> Any:
    """Give up its addresses and schedules. 409 `deploy.held` while calls wait that would be lost."""
    return await factory.deployments.stop(who, id, drop_held=posted is not None and posted.drop_held)


# --- how it is doing -----------------------------------------------------------------------------------------------


@router.get("/{id}/status", response_model=StatusShown, responses=refuses(404), summary="Look how it is doing")
async def status(id: str, who: Viewer, factory: TheFactory) -> Any:
    """Its version and state, what ran in the last hour, what waits, and when it starts next."""
    return await factory.statuses.get(who, id)


@router.get(
    "/{id}/events",
    response_class=EventSourceResponse,
    responses={
        **refuses(404),
        200: {
            "description": "A stream of events called `status`, each with the whole status as JSON.",
            "content": {"text/event-stream": {"example": 'event: status\ndata: {"id":"dep_1","state":"active"}\n\n'}},
        },
    },
    summary="Follow how it is doing",
)
async def events(id: str, who: Viewer, factory: TheFactory, auth: TheAuth, visit: TheVisit) -> Response:
    """Its status now, and again whenever that changed; ends when it is stopped. A comment comes every 15 seconds."""
    session = visit.session
    assert session is not None
    pictures: Any = factory.statuses.watch(who, id)
    first = await anext(pictures)

    async def told() -> AsyncIterator[ServerSentEvent]:
        async for picture in while_signed_in(pictures, first, lambda: auth.live(session.id) is not None):
            shown = StatusShown.model_validate(picture)
            yield ServerSentEvent(data=to_json(shown).decode(), event="status", sep="\n")

    return EventSourceResponse(
        told(),
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        sep="\n",
    )
