"""What agents remember between runs: a value of plain JSON under a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, delete
from sqlmodel import Field, col, select

from storage.columns import Json
from storage.tenancy import Owned, TenantSession


class Memory(Owned, table=True):
    """One remembered value."""

    key: str = Field(primary_key=True, max_length=500)
    value: Any = Field(default=None, sa_column=Column(Json))
    updated_at: float


def remember(session: TenantSession, key: str, value: Any, at: float) -> None:
    """Keep or replace a value."""
    session.upsert(Memory, {"key": key}, {"value": value, "updated_at": at})


def recall(session: TenantSession, key: str) -> tuple[bool, Any]:
    """Whether there is a value, and the value."""
    row = session.find(Memory, key)
    return (False, None) if row is None else (True, row.value)


def add(session: TenantSession, key: str, amount: int | float, at: float) -> int | float:
    """Count up, from nothing or from the number that is there; the new number. Two at once both count.

    Raises ValueError when something else than a number is remembered under the key.
    """
    row = _held(session, key, 0, at)
    if isinstance(row.value, bool) or not isinstance(row.value, int | float):
        raise ValueError(f"what is remembered as {key!r} is not a number")
    row.value = row.value + amount
    row.updated_at = at
    session.flush()
    new: int | float = row.value
    return new


def append(session: TenantSession, key: str, item: Any, longest: int, at: float) -> list[Any]:
    """Add to the end of the list that is there, or of a new one, and keep its last items; the new list. Two at once both add.

    Raises ValueError when something else than a list is remembered under the key.
    """
    row = _held(session, key, [], at)
    if not isinstance(row.value, list):
        raise ValueError(f"what is remembered as {key!r} is not a list")
    new = [*row.value, item][-longest:]
    row.value = new
    row.updated_at = at
    session.flush()
    return new


def forget(session: TenantSession, key: str) -> bool:
    """Remove a value."""
    return session.change(delete(Memory).where(col(Memory.key) == key)) == 1


def listed(session: TenantSession, prefix: str = "", limit: int = 1_000) -> Sequence[Memory]:
    """What is remembered, by key."""
    query = select(Memory).order_by(col(Memory.key)).limit(limit)
    if prefix:
        query = query.where(col(Memory.key).startswith(prefix, autoescape=True))
    return session.exec(query).all()


def _held(session: TenantSession, key: str, first: Any, at: float) -> Memory:
    """The value to change, made if there is none; nobody else changes it until this transaction ends."""
    session.put_once(Memory, {"key": key}, {"value": first, "updated_at": at})
    return session.exec(select(Memory).where(Memory.key == key).with_for_update()).one()
