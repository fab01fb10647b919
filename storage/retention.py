"""Forgetting: runs that ended long ago go, with everything that belongs to them, unless something still needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, or_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from storage.approval import Approval
from storage.dead_letter import DeadLetter
from storage.errand import Errand
from storage.event_wait import EventWait
from storage.journal import Journal
from storage.run import FINISHED, UNFINISHED, Run, first_id
from storage.spending import LIFE, Spending
from storage.tenancy import TenantSession


class Look(NamedTuple):
    """Some of the oldest runs: which of them may go, and the last one that was looked at; None when these were all."""

    ids: Sequence[str]
    last: str | None


def look(session: TenantSession, before: float, after: str = "", limit: int = 200) -> Look:
    """Which runs that ended before then may go, from the id `after` on."""
    may_go = _may_go(before).label("may_go")
    query = select(Run.id, may_go).where(col(Run.id) > after, col(Run.id) < first_id(before))
    rows = session.exec(query.order_by(col(Run.id)).limit(limit)).all()
    return Look([id for id, may in rows if may], rows[-1][0] if len(rows) == limit else None)


def remove(session: TenantSession, ids: Sequence[str], before: float) -> int:
    """Remove those of these runs that still may go, with their facts, questions, waits and letters; how many."""
    gone = session.exec(select(Run.id).where(col(Run.id).in_(ids), _may_go(before))).all()
    if not gone:
        return 0
    for belongs in (Journal, Approval, EventWait, DeadLetter):
        session.change(delete(belongs).where(col(belongs.run_id).in_(gone)))
    session.change(delete(Spending).where(col(Spending.period) == LIFE, col(Spending.subject).in_(gone)))
    return session.change(delete(Run).where(col(Run.id).in_(gone)))


def _may_go(before: float) -> ColumnElement[bool]:
    """It ended before then, nothing is owed for it, and nothing that is still open leads to it."""
    parent, child, again = aliased(Run), aliased(Run), aliased(Run)
    caller = select(parent.id).where(parent.tenant_id == Run.tenant_id, parent.id == Run.parent_run, _open(parent))
    called = select(child.id).where(child.tenant_id == Run.tenant_id, child.parent_run == Run.id, _open(child))
    retry = (
        select(DeadLetter.run_id)
        .join(again, and_(col(again.tenant_id) == DeadLetter.tenant_id, col(again.id) == DeadLetter.retry_run))
        .where(DeadLetter.tenant_id == Run.tenant_id, DeadLetter.run_id == Run.id, _open(again))
    )
    errand = select(Errand.id).where(Errand.tenant_id == Run.tenant_id, Errand.run_id == Run.id)
    return and_(
        col(Run.state).in_(FINISHED),
        func.coalesce(Run.finished_at, before) < before,
        col(Run.wake_at).is_(None),
        or_(col(Run.state) != "failed", col(Run.handled).is_not(None)),
        *(~needed.correlate(Run).exists() for needed in (caller, called, retry, errand)),
    )


def _open(of: type[Run]) -> ColumnElement[bool]:
    """It goes on, or failed and nobody has dealt with that."""
    return or_(col(of.state).in_(UNFINISHED), and_(col(of.state) == "failed", col(of.handled).is_(None)))


def next_tenant(session: Session, after: str = "") -> str | None:
    """The next tenant that has runs; through Database.read_all."""
    return session.exec(select(func.min(Run.tenant_id)).where(col(Run.tenant_id) > after)).first()
