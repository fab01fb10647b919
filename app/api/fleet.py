"""The fleet over HTTP: workers, pools and engines at a glance, what workers did, and what may be done to them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.api.contract import Admin, ApiRoute, Limit, Listed, Shown, Viewer, refuses, resource
from app.metrics import exposition
from app.permissions import TheFactory

router = APIRouter()
fleet = resource("fleet", tag="Workers")
metrics = APIRouter(tags=["Metrics"], route_class=ApiRoute, responses=refuses(401, 403))


class VitalShown(Shown):
    """The vital figures of a worker."""

    cpu: float = Field(description="In processors: 0.5 is half of one.")
    memory: int = Field(description="In bytes.")
    processes: int
    at: float


class WorkerShown(Shown):
    """One worker. Times are seconds since 1970, UTC."""

    id: str
    profile: str
    host: str
    state: str = Field(examples=["ready"])
    crew: str | None
    member: str | None
    since: float = Field(description="When it came into this state.")
    jobs: int
    restarts: int
    vital: VitalShown | None


class PoolLevels(Shown):
    """The workers of one profile."""

    profile: str
    target: int
    floor: int
    ceiling: int
    ready: int
    busy: int
    held: int = Field(description="Held by members of crews.")
    starting: int
    hibernating: int
    waiting: int = Field(description="Jobs that wait for a worker.")
    jobs: int
    lost: int
    hit_rate: float = Field(description="The share of jobs that found a warm worker at once.")
    demand: float = Field(description="Jobs a second.")
    starts_p50: float | None = Field(description="Milliseconds from nothing to ready.")
    starts_p95: float | None
    problem: str | None


class HostShown(Shown):
    """One engine that workers run on."""

    name: str
    state: str
    cpus: float
    memory: int
    reserved_cpus: float
    reserved_memory: int
    workers: int


class FleetShown(Shown):
    """Everything at this moment. Workers of other teams are counted in their pools and not listed."""

    workers: list[WorkerShown]
    pools: list[PoolLevels]
    hosts: list[HostShown]
    problem: str | None


class MoveShown(Shown):
    """A worker went from one state to another; `by` is the person who asked for it, if anybody did."""

    at: float
    worker: str
    profile: str
    host: str
    before: str = Field(description="Empty for its first move.")
    after: str
    crew: str | None
    why: str
    by: str | None


@fleet.get("", response_model=FleetShown, summary="The fleet at a glance")
async def view(who: Viewer, factory: TheFactory) -> Any:
    """Workers, pools and engines."""
    return factory.fleet_desk.view(who)


@fleet.get("/moves", response_model=Listed[MoveShown], summary="What workers did")
async def moves(who: Viewer, factory: TheFactory, limit: Limit = 100, worker: str | None = None) -> Any:
    """Newest first."""
    return {"items": await factory.fleet_desk.lately(who, worker=worker, limit=limit)}


@fleet.get("/workers/{id}/logs", response_model=Listed[str], responses=refuses(404), summary="What a worker said")
async def logs(id: str, who: Viewer, factory: TheFactory) -> Any:
    """The last lines that it wrote about itself."""
    return {"items": await factory.fleet_desk.logs(who, id)}


@fleet.post("/workers/{id}/drain", status_code=204, responses=refuses(404), summary="Drain a worker")
async def drain(id: str, who: Admin, factory: TheFactory) -> None:
    """It ends its job and is removed."""
    await factory.fleet_desk.drain(who, id)


@fleet.post("/workers/{id}/restart", status_code=204, responses=refuses(404), summary="Restart a worker")
async def restart(id: str, who: Admin, factory: TheFactory) -> None:
    """It ends with its job, and another one takes its place."""
    await factory.fleet_desk.restart(who, id)


@fleet.post("/workers/{id}/hibernate", status_code=204, responses=refuses(404, 409), summary="Put a worker to sleep")
async def hibernate(id: str, who: Admin, factory: TheFactory) -> None:
    """It rests until it is wanted."""
    await factory.fleet_desk.hibernate(who, id)


@fleet.delete("/workers/{id}", status_code=204, responses=refuses(404), summary="Remove a worker")
async def remove(id: str, who: Admin, factory: TheFactory) -> None:
    """It ends with its job."""
    await factory.fleet_desk.remove(who, id)


@fleet.get("/hosts/plan", response_model=Listed[str], summary="What more or fewer engines would do")
async def plan(who: Admin, factory: TheFactory, count: Annotated[int, Query(ge=0, le=100)]) -> Any:
    """In sentences. Nothing is done. For the team that runs the installation."""
    return {"items": await factory.fleet_desk.plan_engines(who, count)}


@fleet.get(
    "/hosts/{name}/plan", response_model=Listed[str], responses=refuses(404), summary="What draining an engine would do"
)
async def plan_drain(name: str, who: Admin, factory: TheFactory) -> Any:
    """In sentences. Nothing is done. For the team that runs the installation."""
    return {"items": await factory.fleet_desk.plan_drain_engine(who, name)}


@fleet.post("/hosts/{name}/drain", status_code=204, responses=refuses(404, 409), summary="Drain an engine")
async def drain_host(name: str, who: Admin, factory: TheFactory) -> None:
    """Nothing new is placed on it, and its workers leave when their jobs have ended. For the team that runs the installation."""
    await factory.fleet_desk.drain_engine(who, name)


@fleet.post("/hosts/{name}/reopen", status_code=204, responses=refuses(404), summary="Take an engine back into use")
async def reopen_host(name: str, who: Admin, factory: TheFactory) -> None:
    """Workers are placed on it again. For the team that runs the installation."""
    await factory.fleet_desk.reopen_engine(who, name)


@metrics.get("/metrics", summary="Figures for Prometheus", response_class=Response, include_in_schema=False)
async def figures(who: Viewer, factory: TheFactory) -> Response:
    """Workers, pools and engines in the text format of Prometheus. Give it a token of the team to read with."""
    text, kind = exposition(factory, who)
    return Response(text, media_type=kind)


router.include_router(fleet)
router.include_router(metrics)
