"""Variables of a tenant: values by name that differ between environments, read by formulas as `vars.name`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Text, delete
from sqlmodel import Field, Session, col, select

from storage.columns import Json
from storage.tenancy import Owned, TenantSession


class Variable(Owned, table=True):
    """A name in an environment and its value. The empty environment is shared by all of them."""

    environment: str = Field(default="", primary_key=True, max_length=20)
    name: str = Field(primary_key=True, max_length=64)
    value: Any = Field(default=None, sa_column=Column(Json))
    description: str = Field(default="", sa_column=Column(Text, nullable=False))
    updated_at: float
    updated_by: str = ""


def put(
    session: TenantSession, environment: str, name: str, *, value: Any, description: str, at: float, by: str
) -> None:
    """Keep or replace a variable."""
    session.upsert(
        Variable,
        {"environment": environment, "name": name},
        {"value": value, "description": description, "updated_at": at, "updated_by": by},
    )


def listed(session: TenantSession) -> Sequence[Variable]:
    """All, by name and environment."""
    return session.exec(select(Variable).order_by(col(Variable.name), col(Variable.environment))).all()


def remove(session: TenantSession, environment: str, name: str) -> bool:
    """Forget a variable in one environment."""
    statement = delete(Variable).where(col(Variable.environment) == environment, col(Variable.name) == name)
    return session.change(statement) == 1


def every(session: Session) -> Sequence[Variable]:
    """All of all tenants; through Database.read_all."""
    return session.exec(select(Variable)).all()
