"""Settings of a tenant: plain JSON under a key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, delete
from sqlmodel import Field, col, select

from storage.columns import Json
from storage.tenancy import Owned, TenantSession


class Setting(Owned, table=True):
    """One setting."""

    key: str = Field(primary_key=True, max_length=120)
    value: Any = Field(default=None, sa_column=Column(Json))
    updated_at: float
    updated_by: str = ""


def put(session: TenantSession, key: str, value: Any, *, at: float, by: str = "") -> None:
    """Keep or replace a setting."""
    session.upsert(Setting, {"key": key}, {"value": value, "updated_at": at, "updated_by": by})


def get(session: TenantSession, key: str, default: Any = None) -> Any:
    """The value, or the default when it was never set."""
    row = session.find(Setting, key)
    return default if row is None else row.value


def every(session: TenantSession) -> dict[str, Any]:
    """All settings by key."""
    return {row.key: row.value for row in session.exec(select(Setting).order_by(col(Setting.key)))}


def remove(session: TenantSession, key: str) -> bool:
    """Back to the default."""
    return session.change(delete(Setting).where(col(Setting.key) == key)) == 1
