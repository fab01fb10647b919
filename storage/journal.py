"""The journal: what happened in each run, as JSON facts in the order they happened. Rows are only ever added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Column, ForeignKeyConstraint, Text
from sqlmodel import Field, col, select

from storage.tenancy import Owned, TenantSession


class Journal(Owned, table=True):
    """Facts that became durable together: a JSON array, under the number of its first fact."""

    # Without a rowid the table is its own index: one tree less to write at every commit.
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "run_id"], ["run.tenant_id", "run.id"]),
        {"sqlite_with_rowid": False},
    )

    run_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    facts: str = Field(sa_column=Column(Text, nullable=False))


def facts(session: TenantSession, run_id: str) -> list[dict[str, Any]]:
    """Every fact of a run, in order."""
    rows = session.exec(select(Journal.facts).where(Journal.run_id == run_id).order_by(col(Journal.seq)))
    return [fact for row in rows for fact in orjson.loads(row)]


def facts_of(session: TenantSession, run_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The facts of several runs, by run."""
    query = select(Journal.run_id, Journal.facts).where(col(Journal.run_id).in_(run_ids))
    found: dict[str, list[dict[str, Any]]] = {}
    for run_id, row in session.exec(query.order_by(col(Journal.run_id), col(Journal.seq))):
        found.setdefault(run_id, []).extend(orjson.loads(row))
    return found


def first(session: TenantSession, run_id: str) -> dict[str, Any] | None:
    """The first fact of a run: how it was accepted, with its input."""
    row = session.exec(
        select(Journal.facts).where(Journal.run_id == run_id).order_by(col(Journal.seq)).limit(1)
    ).first()
    return None if row is None else orjson.loads(row)[0]
