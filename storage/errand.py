"""Errands: what one server asks of a run that another one has in hand, such as the answer to a question or its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Index, and_, delete, or_
from sqlmodel import Field, Session, col, select

from storage.columns import Json
from storage.run import Run
from storage.tenancy import Owned, TenantSession


class Errand(Owned, table=True):
    """One thing to do to a run; `kind` is answer or cancel. It is there until it is done, whoever has the run by then."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "run_id"], ["run.tenant_id", "run.id"], ondelete="CASCADE"),
        Index("errand_of_run", "run_id"),
    )

    id: str = Field(primary_key=True)
    run_id: str
    kind: str
    node: str = ""
    iteration: str = ""
    data: Any = Field(default=None, sa_column=Column(Json))
    created_at: float


def add(session: TenantSession, row: Errand) -> None:
    """A new errand."""
    session.add(row)
    session.flush()


def done(session: TenantSession, id: str) -> None:
    """It is done, or there is nothing left to do it to."""
    session.change(delete(Errand).where(col(Errand.id) == id))


def waiting(session: Session, server: str, limit: int = 500) -> Sequence[Errand]:
    """What this server can do: errands of its runs and of runs that nobody has; oldest first, through Database.read_all."""
    return session.exec(
        select(Errand)
        .join(Run, and_(col(Run.tenant_id) == col(Errand.tenant_id), col(Run.id) == col(Errand.run_id)))
        .where(or_(col(Run.server_id) == server, col(Run.server_id).is_(None), col(Run.finished_at).is_not(None)))
        .order_by(col(Errand.id))
        .limit(limit)
    ).all()
