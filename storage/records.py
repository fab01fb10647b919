"""The journal's fast lane: many runs' rows and facts as few statements, folded so that each run's row is written once.

A statement per group and not per row matters twice: it is less work, and each call into SQLite gives the interpreter lock
away, which a busy event loop hands back milliseconds later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from storage import errors
from storage.columns import json_text
from storage.errors import LostRace, StorageError
from storage.run import COLUMNS

_KNOWN = frozenset(COLUMNS)
_FIXED = frozenset({"tenant_id", "id"})
_row: Callable[[dict[str, Any]], tuple[Any, ...]] = itemgetter(*COLUMNS)


@dataclass(slots=True)
class RunRecord:
    """One thing to keep about a run: its new row, a change of its row, facts for its journal, or several of these.

    `insert` is what `run.values()` makes. `update` names columns to change; the row must exist and, if `expected` names states,
    be in one of them and, if `server` names one, in its hand: else the record fails with LostRace and none of it is kept.
    `facts` is the text of a JSON array whose first fact has number `seq`.
    """

    run_id: str
    tenant: str
    seq: int = 0
    facts: bytes = b""
    insert: dict[str, Any] | None = None
    update: dict[str, Any] | None = None
    expected: tuple[str, ...] = ()
    server: str | None = None
    """The server that must have the run in hand for its row to be changed; None when there is only one server."""


class Unfoldable(Exception):
    """These records cannot be written together; one at a time each gets its own answer."""


Shape = tuple[tuple[str, ...], tuple[str, ...], str | None]
"""What makes updates alike: the names of their columns, the states that are expected, and whose the run must be."""


class Fold(NamedTuple):
    """What a group of records comes to: new rows, changes by shape as (tenant, id, values…), and journal rows."""

    runs: list[tuple[Any, ...]]
    changes: dict[Shape, list[tuple[Any, ...]]]
    facts: list[tuple[str, str, int, str]]


def fold(records: Iterable[RunRecord]) -> Fold:
    """Fold the records in order. Raises Unfoldable when one of them must fail, or may."""
    inserts: dict[tuple[str, str], dict[str, Any]] = {}
    updates: dict[tuple[str, str], tuple[dict[str, Any], tuple[str, ...], str | None]] = {}
    facts: list[tuple[str, str, int, str]] = []
    noted: set[tuple[str, str]] = set()
    for record in records:
        key = (record.tenant, record.run_id)
        new = record.insert
        if new is not None:
            if key in inserts or key in updates or key in noted or (new.get("tenant_id"), new.get("id")) != key:
                raise Unfoldable
            inserts[key] = new
        change = record.update
        if change:
            if not _KNOWN.issuperset(change) or not _FIXED.isdisjoint(change):
                raise Unfoldable
            if (row := inserts.get(key)) is not None:
                if record.expected and row["state"] not in record.expected:
                    raise Unfoldable
                if record.server is not None and row["server_id"] != record.server:
                    raise Unfoldable
                inserts[key] = {**row, **change}
            elif (pending := updates.get(key)) is not None:
                before, expected, server = pending
                if record.expected and before.get("state") not in record.expected:
                    raise Unfoldable
                if record.server is not None and before.get("server_id", server) != record.server:
                    raise Unfoldable
                updates[key] = ({**before, **change}, expected, server)
            else:
                updates[key] = (change, record.expected, record.server)
        if record.facts:
            noted.add(key)
            facts.append((record.tenant, record.run_id, record.seq, record.facts.decode()))
    changes: dict[Shape, list[tuple[Any, ...]]] = {}
    for (tenant, run_id), (change, expected, server) in updates.items():
        names = tuple(sorted(change))
        values = (tenant, run_id, *(_plain(name, change[name]) for name in names))
        changes.setdefault((names, expected, server), []).append(values)
    return Fold([_row_values(row) for row in inserts.values()], changes, facts)


def _row_values(row: dict[str, Any]) -> tuple[Any, ...]:
    if row.get("error") is not None:
        row = {**row, "error": json_text(row["error"])}
    try:
        return _row(row)
    except KeyError:
        raise Unfoldable from None


def _plain(name: str, value: Any) -> Any:
    return json_text(value) if name == "error" else value


def problem(record: RunRecord) -> str:
    """Why a record alone cannot be folded: what is wrong in how it was made."""
    change = record.update or {}
    if wrong := sorted((set(change) - _KNOWN) | (set(change) & _FIXED)):
        return f"a run's {', '.join(wrong)} cannot be changed"
    if record.insert is not None:
        if missing := sorted(_KNOWN - set(record.insert)):
            return f"a new run lacks {', '.join(missing)}"
        return "a new run does not match the record it is in"
    return "the record is not valid"


def sized(rows: Sequence[tuple[Any, ...]], largest: int = 128) -> Iterable[Sequence[tuple[Any, ...]]]:
    """Cut rows into pieces of 128, 64, … 1, so that few different statements are ever prepared."""
    start, size = 0, largest
    left = len(rows)
    while left:
        while size > left:
            size //= 2
        yield rows[start : start + size]
        start += size
        left -= size


def explained(error: BaseException, record: RunRecord) -> BaseException:
    """Why this one record was not kept."""
    if isinstance(error, Unfoldable):
        return StorageError(f"The run could not be kept: {problem(record)}.", code="storage.record", status=500)
    if isinstance(error, LostRace):
        wanted = f" in state {' or '.join(record.expected)}" if record.expected else ""
        return LostRace(f"There is no run {record.run_id}{wanted}: it ended or changed in the meantime.")
    known = errors.explained(error)
    if isinstance(known, StorageError):
        return known
    return StorageError(f"The run could not be kept: {error}.", code="storage.record", status=500)
