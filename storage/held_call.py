"""Calls that came while an agent was paused and that wait for it to go on, in the order they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Index, delete, func
from sqlmodel import Field, Session, col, select

from storage.columns import Json
from storage.tenancy import Owned, TenantSession


class HeldCall(Owned, table=True):
    """One call. Its id is that of the run that it will start, so that it cannot start two; ids sort by time of making."""

    __tablename__ = "held_call"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "deployment_id"], ["deployment.tenant_id", "deployment.id"]),
        Index("held_call_of_deployment", "tenant_id", "deployment_id", "id"),
    )

    id: str = Field(primary_key=True)
    deployment_id: str
    node: str
    event: Any = Field(default=None, sa_column=Column(Json))
    at: float


def add(session: TenantSession, row: HeldCall) -> None:
    """Keep a call."""
    session.add(row)
    session.flush()


def get(session: TenantSession, id: str) -> HeldCall | None:
    """The call."""
    return session.find(HeldCall, id)


def count(session: TenantSession, deployment_id: str) -> int:
    """How many wait."""
    query = select(func.count()).select_from(HeldCall).where(HeldCall.deployment_id == deployment_id)
    return session.exec(query).one()


def first(session: TenantSession, deployment_id: str, limit: int = 100) -> Sequence[HeldCall]:
    """Those that came first."""
    query = select(HeldCall).where(HeldCall.deployment_id == deployment_id).order_by(col(HeldCall.id)).limit(limit)
    return session.exec(query).all()


def remove(session: TenantSession, id: str) -> None:
    """It has become a run."""
    session.change(delete(HeldCall).where(col(HeldCall.id) == id))


def clear(session: TenantSession, deployment_id: str) -> int:
    """Throw away all that wait for a deployment."""
    return session.change(delete(HeldCall).where(col(HeldCall.deployment_id) == deployment_id))


def waiting(session: Session) -> Sequence[tuple[str, str]]:
    """(tenant, deployment) with calls that wait; through Database.read_all."""
    return session.exec(select(HeldCall.tenant_id, HeldCall.deployment_id).distinct()).all()
