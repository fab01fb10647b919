"""A database of each kind, and the few rows that most tests begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from storage import document, run
from storage.database import Database
from storage.records import RunRecord

HASH = "0" * 64


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """An open, empty database."""
    async with Database(database_url) as database:
        yield database


@pytest.fixture
async def ready(db: Database) -> Database:
    """The same, with the document that runs of the tenants `a` and `b` point to."""
    for tenant in ("a", "b"):
        await db.write(tenant, lambda session: document.put(session, HASH, "{}", 1.0))
    return db


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """Makes the values of a new run."""

    def values(id: str, tenant: str = "a", **changes: Any) -> dict[str, Any]:
        given = {"blueprint_id": "bp_1", "blueprint_name": "Orders", "trigger": "n1", "state": "accepted"}
        return run.values(tenant, id, **{"document_hash": HASH, "accepted_at": 100.0, **given, **changes})

    return values


@pytest.fixture
def new(row: Callable[..., dict[str, Any]]) -> Callable[..., RunRecord]:
    """Makes the record of a new run."""

    def record(id: str, tenant: str = "a", seq: int = 0, facts: bytes = b"", **changes: Any) -> RunRecord:
        return RunRecord(id, tenant, seq, facts, row(id, tenant, **changes))

    return record
