"""What a deployment does: its runs counted, its last failure, its next moment, the calls that wait for it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import col, select

from storage import held_call
from storage.deployment import Deployment
from storage.run import Run, first_id
from storage.schedule import Schedule
from storage.tenancy import TenantSession


class Activity(NamedTuple):
    """One look at it."""

    counts: dict[str, int]
    """Runs accepted since then, by state."""
    waiting: int
    """Runs, however old, that wait for a person, a moment or another run."""
    failed: Run | None
    next_due: float | None
    held: int


def of(session: TenantSession, row: Deployment, since: float) -> Activity:
    """Read it. The index of an agent's runs by id keeps it to those made since then."""
    counted = (
        select(Run.state, func.count())
        .where(Run.blueprint_id == row.blueprint_id, col(Run.id) >= first_id(since), Run.deployment_id == row.id)
        .group_by(Run.state)
    )
    waiting = (
        select(func.count())
        .select_from(Run)
        .where(Run.state == "waiting", Run.blueprint_id == row.blueprint_id, Run.deployment_id == row.id)
    )
    failed = (
        select(Run)
        .where(
            Run.blueprint_id == row.blueprint_id,
            col(Run.id) >= first_id(since),
            Run.deployment_id == row.id,
            Run.state == "failed",
        )
        .order_by(col(Run.id).desc())
        .limit(1)
    )
    due = select(func.min(Schedule.next_due)).where(
        Schedule.deployment_id == row.id, col(Schedule.paused).is_(False), col(Schedule.held).is_(False)
    )
    return Activity(
        dict(session.exec(counted).all()),
        session.exec(waiting).one(),
        session.exec(failed).first(),
        session.exec(due).first(),
        held_call.count(session, row.id),
    )
