"""Schedules: when each comes due next, and every time it fired, which can happen only once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, ForeignKeyConstraint, Index, and_, delete, false, func, text
from sqlmodel import Field, Session, col, select, update

from storage.columns import Json
from storage.run import Run
from storage.tenancy import Owned, TenantSession


class Schedule(Owned, table=True):
    """One schedule trigger of a deployment. `spec` is what the node says; `next_due` is None when it never comes again."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "deployment_id"], ["deployment.tenant_id", "deployment.id"]),
        Index("schedule_of_deployment", "tenant_id", "deployment_id"),
        Index(
            "schedule_due",
            "next_due",
            sqlite_where=text("next_due IS NOT NULL"),
            postgresql_where=text("next_due IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    deployment_id: str
    blueprint_id: str
    node: str
    spec: dict[str, Any] = Field(sa_column=Column(Json, nullable=False))
    next_due: float | None = None
    paused: bool = False
    held: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Whether somebody stopped this one schedule, whatever its deployment does."""


class Firing(Owned, table=True):
    """A schedule fired for a moment; the key makes a second time impossible."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "schedule_id"], ["schedule.tenant_id", "schedule.id"], ondelete="CASCADE"),
        Index("firing_at", "fired_at"),
    )

    schedule_id: str = Field(primary_key=True)
    due_at: float = Field(primary_key=True)
    fired_at: float
    run_id: str | None = None


def replace(session: TenantSession, deployment_id: str, rows: Iterable[Schedule]) -> None:
    """The schedules of a deployment from now on; one whose node and spec stay keeps its id, its due time and its history."""
    before = {(row.node, _text(row.spec)): row for row in of(session, deployment_id)}
    for row in rows:
        kept = before.pop((row.node, _text(row.spec)), None)
        if kept is None:
            session.add(row)
        else:
            kept.paused = row.paused
    gone = [row.id for row in before.values()]
    if gone:
        session.change(delete(Schedule).where(col(Schedule.id).in_(gone)))
    session.flush()


def of(session: TenantSession, deployment_id: str) -> Sequence[Schedule]:
    """The schedules of a deployment."""
    return session.exec(
        select(Schedule).where(Schedule.deployment_id == deployment_id).order_by(col(Schedule.id))
    ).all()


def listed(session: TenantSession) -> Sequence[Schedule]:
    """Every schedule of the tenant, soonest first."""
    return session.exec(select(Schedule).order_by(col(Schedule.next_due).nulls_last(), col(Schedule.id))).all()


def set_paused(session: TenantSession, deployment_id: str, paused: bool) -> int:
    """Pause or resume all of a deployment."""
    return session.change(update(Schedule).where(col(Schedule.deployment_id) == deployment_id).values(paused=paused))


def get(session: TenantSession, id: str) -> Schedule | None:
    """The schedule."""
    return session.find(Schedule, id)


def hold(session: TenantSession, id: str, held: bool) -> bool:
    """Stop one schedule, or let it go on; what it missed is then made up for as it says."""
    return session.change(update(Schedule).where(col(Schedule.id) == id).values(held=held)) == 1


def set_next(session: TenantSession, id: str, next_due: float | None) -> bool:
    """When it comes due next, whatever it said before."""
    return session.change(update(Schedule).where(col(Schedule.id) == id).values(next_due=next_due)) == 1


def fire(
    session: TenantSession, id: str, *, due_at: float, next_due: float | None, at: float, run_id: str | None
) -> bool:
    """Claim a due moment and move on to the next. False: somebody else has it, so do nothing.

    `run_id` is None for a moment that is let pass.
    """
    claimed = session.put_once(Firing, {"schedule_id": id, "due_at": due_at}, {"fired_at": at, "run_id": run_id})
    session.change(
        update(Schedule).where(col(Schedule.id) == id, col(Schedule.next_due) == due_at).values(next_due=next_due)
    )
    return claimed


def fire_all(
    session: TenantSession,
    id: str,
    moments: Iterable[tuple[float, str | None]],
    *,
    due_at: float,
    next_due: float | None,
    at: float,
) -> list[tuple[float, str]]:
    """Claim several moments at once, each with the run that it starts or None; returns those that are ours to start.

    Nothing is claimed unless the schedule still is at `due_at`: then another server was faster.
    """
    moved = session.change(
        update(Schedule).where(col(Schedule.id) == id, col(Schedule.next_due) == due_at).values(next_due=next_due)
    )
    if not moved:
        return []
    ours = []
    for moment, run_id in moments:
        claimed = session.put_once(Firing, {"schedule_id": id, "due_at": moment}, {"fired_at": at, "run_id": run_id})
        if claimed and run_id is not None:
            ours.append((moment, run_id))
    return ours


def firings(session: TenantSession, id: str, limit: int = 50) -> Sequence[Firing]:
    """When it fired, newest first."""
    return session.exec(
        select(Firing).where(Firing.schedule_id == id).order_by(col(Firing.due_at).desc()).limit(limit)
    ).all()


def forget(session: Session, before: float) -> int:
    """Forget when schedules fired before then; through Database.write_all."""
    return session.exec(delete(Firing).where(col(Firing.fired_at) < before)).rowcount


def due(session: Session, now: float, limit: int = 1_000) -> Sequence[Schedule]:
    """What is due, over all tenants, the longest overdue first; through Database.read_all."""
    return session.exec(
        select(Schedule)
        .where(col(Schedule.next_due).is_not(None), col(Schedule.next_due) <= now, _runs())
        .order_by(col(Schedule.next_due))
        .limit(limit)
    ).all()


def next_due(session: Session) -> float | None:
    """When the next schedule comes due, over all tenants; through Database.read_all."""
    return session.exec(select(func.min(Schedule.next_due)).where(col(Schedule.next_due).is_not(None), _runs())).first()


def _runs() -> ColumnElement[bool]:
    return and_(col(Schedule.paused).is_(False), col(Schedule.held).is_(False))


def _text(spec: Any) -> str:
    return repr(sorted(spec.items())) if isinstance(spec, dict) else repr(spec)


class Unstarted(NamedTuple):
    """A moment that was claimed for a run which is not there."""

    schedule: Schedule
    due_at: float
    run_id: str


def unstarted(session: Session, since: float) -> Sequence[Unstarted]:
    """Moments claimed since then whose run a crash prevented, over all tenants; through Database.read_all."""
    rows = session.exec(
        select(Schedule, Firing.due_at, Firing.run_id)
        .join(Firing, and_(col(Firing.tenant_id) == Schedule.tenant_id, col(Firing.schedule_id) == Schedule.id))
        .outerjoin(Run, and_(col(Run.tenant_id) == Firing.tenant_id, col(Run.id) == Firing.run_id))
        .where(col(Firing.fired_at) >= since, col(Firing.run_id).is_not(None), col(Run.id).is_(None))
        .order_by(col(Firing.due_at))
    )
    return [Unstarted(*row) for row in rows]
