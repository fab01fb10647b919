"""Dead letters: live runs that failed for good. They are read from the runs themselves, so none can be missing.

A failed run is open until somebody retries or dismisses it; what they did stands in a row of its own, and the run says so.
Runs that another run called and waited for are none: their failure was told to the caller, who may have dealt with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Index, Text, and_, delete, func, literal_column, text
from sqlmodel import Field, Session, col, select, update

from storage.run import Run
from storage.tenancy import Owned, TenantSession


class DeadLetter(Owned, table=True):
    """What was done about a failed run, and by whom. `state` is retried or dismissed."""

    __tablename__ = "dead_letter"
    __table_args__ = (
        Index("dead_letter_retry", "retry_run"),
        Index(
            "dead_letter_unsure",
            "done_at",
            sqlite_where=text("state = 'retried' AND begun_at IS NULL"),
            postgresql_where=text("state = 'retried' AND begun_at IS NULL"),
        ),
    )

    run_id: str = Field(primary_key=True)
    state: str
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    done_by: str = ""
    done_at: float
    retry_run: str | None = None
    begun_at: float | None = None
    """When it was seen that the retry had begun; until then a crash may have prevented it."""


Letter = tuple[Run, DeadLetter | None]


def listed(
    session: TenantSession,
    *,
    state: str = "open",
    category: str | None = None,
    blueprint_id: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> Sequence[Letter]:
    """Newest run first; `before` is the id of the last run of the page before."""
    query = (
        select(Run, DeadLetter)
        .outerjoin(DeadLetter, _same_run())
        .where(_failed(), _in(state))
        .order_by(col(Run.id).desc())
        .limit(limit)
    )
    if category is not None:
        query = query.where(func.coalesce(Run.category, "bug") == category)
    if blueprint_id is not None:
        query = query.where(Run.blueprint_id == blueprint_id)
    if before is not None:
        query = query.where(col(Run.id) < before)
    return [(run, letter) for run, letter in session.exec(query).all()]


def get(session: TenantSession, run_id: str) -> Letter | None:
    """The failed run with what was done about it."""
    found = session.exec(
        select(Run, DeadLetter).outerjoin(DeadLetter, _same_run()).where(Run.id == run_id, _failed())
    ).first()
    return (found[0], found[1]) if found is not None else None


def tally(session: TenantSession, state: str = "open") -> Sequence[tuple[str, str, str, int]]:
    """How many there are: (category, blueprint id, blueprint name, number)."""
    category, name = func.coalesce(Run.category, "bug"), func.max(Run.blueprint_name)
    query = (
        select(category, Run.blueprint_id, name, func.count())
        .where(_failed(), _in(state))
        .group_by(category, col(Run.blueprint_id))
    )
    return [tuple(row) for row in session.exec(query).all()]  # type: ignore[misc]


def waiting(session: TenantSession) -> int:
    """How many are open."""
    return session.exec(select(func.count()).select_from(Run).where(_failed(), _in("open"))).one()


def settle(session: TenantSession, run_id: str, *, to: str, by: str, at: float, **more: Any) -> bool:
    """Note what is done about an open one. False: it is not open, nothing changed."""
    own = update(Run).where(col(Run.id) == run_id, _failed(), _in("open"))
    if session.change(own.values(handled=to)) != 1:
        return False
    session.upsert(DeadLetter, {"run_id": run_id}, {"state": to, "done_by": by, "done_at": at, **_blank(), **more})
    return True


def reopen(session: TenantSession, run_id: str, expected: str) -> bool:
    """Take back what was done. False: it is not in the expected state, nothing changed."""
    own = update(Run).where(col(Run.id) == run_id, _failed(), col(Run.handled) == expected)
    if session.change(own.values(handled=None)) != 1:
        return False
    session.change(delete(DeadLetter).where(col(DeadLetter.run_id) == run_id))
    return True


def retry_of(session: TenantSession, run_id: str) -> str | None:
    """The failed run that this run is a retry of."""
    return session.exec(select(DeadLetter.run_id).where(DeadLetter.retry_run == run_id)).first()


# --- over all tenants, through Database.read_all ---------------------------------------------------------------------------


def unsure(session: Session, before: float, limit: int = 500) -> Sequence[tuple[str, str, bool]]:
    """(tenant, run id, whether the retry has begun) of those whose retry was noted before then, and not seen to begin yet."""
    retry = select(Run.id).where(
        col(Run.tenant_id) == col(DeadLetter.tenant_id), col(Run.id) == col(DeadLetter.retry_run)
    )
    began = retry.correlate(DeadLetter).exists()
    query = select(DeadLetter.tenant_id, DeadLetter.run_id, began).where(_unsure(), col(DeadLetter.done_at) < before)
    rows = session.exec(query.order_by(col(DeadLetter.done_at)).limit(limit)).all()
    return [(tenant, run_id, bool(began)) for tenant, run_id, began in rows]


def begun(session: TenantSession, run_ids: Sequence[str], at: float) -> None:
    """The retries of these runs have begun."""
    session.change(update(DeadLetter).where(col(DeadLetter.run_id).in_(run_ids), _unsure()).values(begun_at=at))


def unannounced(session: Session, limit: int = 200) -> Sequence[tuple[str, str]]:
    """(tenant, run id) of failed runs whose error agent has not begun yet."""
    return session.exec(
        select(Run.tenant_id, Run.id)
        .where(col(Run.wake_at).is_not(None), col(Run.wake_at) > 0, func.coalesce(Run.state, "") == "failed")
        .order_by(col(Run.wake_at))
        .limit(limit)
    ).all()


def announced(session: TenantSession, run_id: str) -> None:
    """The error agent of this run has begun, or there is none to begin."""
    session.change(update(Run).where(col(Run.id) == run_id, col(Run.state) == "failed").values(wake_at=None))


def _failed() -> ColumnElement[bool]:
    # Written out and not bound, so that the planner sees that the index of open ones fits.
    return and_(col(Run.state) == literal_column("'failed'"), func.coalesce(Run.handled, "") != "told")


def _in(state: str) -> ColumnElement[bool]:
    return col(Run.handled).is_(None) if state == "open" else col(Run.handled) == state


def _same_run() -> ColumnElement[bool]:
    return and_(col(DeadLetter.tenant_id) == col(Run.tenant_id), col(DeadLetter.run_id) == col(Run.id))


def _unsure() -> ColumnElement[bool]:
    return and_(col(DeadLetter.state) == literal_column("'retried'"), col(DeadLetter.begun_at).is_(None))


def _blank() -> dict[str, Any]:
    return {"reason": "", "retry_run": None, "begun_at": None}
