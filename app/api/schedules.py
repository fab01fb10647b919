"""Schedules over HTTP: what comes next, what came, and holding one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import Field

from app.api.contract import Deployer, Listed, Shown, Viewer, refuses, resource
from app.permissions import TheFactory

router = resource("schedules", tag="Schedules")


class FiringShown(Shown):
    """One time that it came round."""

    due_at: float
    fired_at: float
    late_by: float = Field(description="Seconds after the moment.")
    run_id: str | None = Field(description="What it started; null when it was let pass.")


class ScheduleShown(Shown):
    """A schedule of a deployment. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["sch_01k9x2m4c7q8"])
    deployment_id: str
    blueprint_id: str
    node: str
    words: str = Field(examples=["Every day at 09:00, Berlin time"])
    time_zone: str
    jitter: int = Field(description="Seconds that a start may come later.")
    held: bool = Field(description="Somebody stopped this one.")
    paused: bool = Field(description="It rests because its deployment does.")
    next_due: float | None
    upcoming: list[str] = Field(description="The next ten times in words, on the clock of its time zone.")
    history: list[FiringShown]


@router.get("", response_model=Listed[ScheduleShown], summary="List schedules")
async def listed(
    who: Viewer,
    factory: TheFactory,
    deployment: Annotated[str | None, Query(max_length=64, description="Only those of this deployment.")] = None,
) -> Any:
    """Soonest first, each with its next and its last times."""
    return {"items": await factory.schedules.list(who, deployment_id=deployment)}


@router.post("/{id}/hold", response_model=ScheduleShown, responses=refuses(404), summary="Hold a schedule")
async def hold(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Stop this one, whatever its deployment does."""
    return await factory.schedules.hold(who, id)


@router.post("/{id}/resume", response_model=ScheduleShown, responses=refuses(404), summary="Resume a schedule")
async def resume(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Let it go on; what it missed is made up for as it says."""
    return await factory.schedules.go_on(who, id)
