"""Cases: an input that was kept for an agent, and what is expected to come of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Index, Text, delete, func
from sqlmodel import Field, col, select

from storage.columns import Json
from storage.tenancy import Owned, TenantSession


class Case(Owned, table=True):
    """One case of an agent. `expects` is the state its run has to end in; `formula` is asked of the result, if any."""

    __tablename__ = "agent_case"
    __table_args__ = (Index("case_of_blueprint", "tenant_id", "blueprint_id", "id"),)

    id: str = Field(primary_key=True)
    blueprint_id: str
    name: str
    trigger: str = ""
    input: Any = Field(default=None, sa_column=Column(Json))
    expects: str = "succeeded"
    formula: str = Field(default="", sa_column=Column(Text, nullable=False))
    pretend: Any = Field(default=None, sa_column=Column(Json))
    updated_at: float
    updated_by: str = ""


def put(session: TenantSession, id: str, values: dict[str, Any]) -> None:
    """Keep or replace a case."""
    session.upsert(Case, {"id": id}, values)


def get(session: TenantSession, id: str) -> Case | None:
    """The case."""
    return session.find(Case, id)


def listed(session: TenantSession, blueprint_id: str) -> Sequence[Case]:
    """The cases of an agent, oldest first."""
    return session.exec(select(Case).where(Case.blueprint_id == blueprint_id).order_by(col(Case.id))).all()


def count(session: TenantSession, blueprint_id: str) -> int:
    """How many cases an agent has."""
    query = select(func.count()).select_from(Case).where(Case.blueprint_id == blueprint_id)
    return session.exec(query).one()


def remove(session: TenantSession, id: str) -> bool:
    """Forget a case."""
    return session.change(delete(Case).where(col(Case.id) == id)) == 1
