"""The workers over HTTP: the pool at a glance."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.contract import Problem, Shown, Viewer, resource
from app.permissions import TheFactory

router = resource("workers", tag="Workers")


class PoolShown(Shown):
    """Isolated workers, counted by what they do. `jobs` and `lost` count since the start."""

    ready: int
    busy: int
    starting: int
    size: int
    waiting: int
    jobs: int
    lost: int
    problem: str | None


class WorkersShown(Shown):
    """`pool` is null while there are no workers; `problem` then says why, unless they are only being started."""

    pool: PoolShown | None = Field(default=None)
    problem: Problem | None = Field(default=None)


@router.get("", response_model=WorkersShown, summary="The workers at a glance")
async def stats(who: Viewer, factory: TheFactory) -> Any:
    """How many are ready, busy and starting."""
    problem = factory.fleet.problem
    return {"pool": factory.fleet.stats(), "problem": problem.as_dict() if problem else None}
