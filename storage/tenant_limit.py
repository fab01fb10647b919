"""Limits that a tenant set lower than the product's own."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, delete
from sqlmodel import Field, Session, col, select

from storage.tenancy import Owned, TenantSession


class TenantLimit(Owned, table=True):
    """One limit, in the unit that the product declares for it."""

    __tablename__ = "tenant_limit"

    name: str = Field(primary_key=True, max_length=64)
    value: int = Field(sa_column=Column(BigInteger, nullable=False))
    set_at: float
    set_by: str = ""


def put(session: TenantSession, name: str, value: int, *, at: float, by: str) -> None:
    """Set a limit."""
    session.upsert(TenantLimit, {"name": name}, {"value": value, "set_at": at, "set_by": by})


def remove(session: TenantSession, name: str) -> bool:
    """Back to the product's own. False: it was not set."""
    return session.change(delete(TenantLimit).where(col(TenantLimit.name) == name)) == 1


def of(session: TenantSession) -> Sequence[TenantLimit]:
    """What the tenant set, by name."""
    return session.exec(select(TenantLimit).order_by(col(TenantLimit.name))).all()


def every(session: Session) -> Sequence[TenantLimit]:
    """What every tenant set; through Database.read_all."""
    return session.exec(select(TenantLimit)).all()
