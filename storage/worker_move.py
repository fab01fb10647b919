"""What became of workers: each move of their lives and what people did to them, kept for a while to be looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Index, delete
from sqlmodel import Field, Session, col, or_, select

from storage.server import EVERYBODY
from storage.tenancy import Owned


class WorkerMove(Owned, table=True):
    """One move. The tenant is that of the worker, or everybody's while it has none; `by` is who asked for it, if anybody did."""

    __tablename__ = "worker_move"
    __table_args__ = (Index("worker_move_of_worker", "worker", "id"), Index("worker_move_at", "at"))

    id: str = Field(primary_key=True)
    at: float
    worker: str
    profile: str
    host: str
    before: str
    after: str
    crew: str | None = None
    why: str = ""
    by: str | None = None


def add_all(session: Session, rows: Iterable[WorkerMove]) -> None:
    """Keep them; through Database.write_all, because workers of several tenants move in one moment."""
    session.add_all(rows)
    session.flush()


def newest(session: Session, tenant: str, limit: int, worker: str | None = None) -> Sequence[WorkerMove]:
    """Moves of the tenant's workers and of those that are nobody's yet, newest first; through Database.read_all."""
    query = select(WorkerMove).where(or_(col(WorkerMove.tenant_id) == tenant, col(WorkerMove.tenant_id) == EVERYBODY))
    if worker is not None:
        query = query.where(WorkerMove.worker == worker)
    return session.exec(query.order_by(col(WorkerMove.at).desc(), col(WorkerMove.id).desc()).limit(limit)).all()


def forget(session: Session, before: float) -> None:
    """Drop what is older; through Database.write_all."""
    session.exec(delete(WorkerMove).where(col(WorkerMove.at) < before))
