"""Tenants: who owns everything else."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from storage.tenancy import Owned, TenantSession


class Tenant(Owned, table=True):
    """One team; its key is its id."""

    name: str
    created_at: float


def add(session: Session, id: str, *, name: str, at: float) -> Tenant:
    """A new tenant, through Database.write_all: nobody belongs to it yet."""
    row = Tenant(tenant_id=id, name=name, created_at=at)
    session.add(row)
    session.flush()
    return row


def get(session: TenantSession) -> Tenant | None:
    """The session's own."""
    return session.find(Tenant)


def every(session: Session) -> Sequence[Tenant]:
    """All tenants, oldest first; through Database.read_all."""
    return session.exec(select(Tenant).order_by(col(Tenant.created_at), col(Tenant.tenant_id))).all()
