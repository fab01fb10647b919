"""The journal's fast lane: however records are grouped and folded, the result is as if each had been written alone, in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import approval, document, journal, run
from storage.database import Database
from storage.errors import Clash, LostRace, StorageError
from storage.records import RunRecord, Unfoldable, fold, sized

New = Callable[..., RunRecord]


def facts(*numbers: int) -> bytes:
    return orjson.dumps([{"seq": number, "kind": "step.succeeded", "text": "é🙂"} for number in numbers])


async def test_a_run_and_its_facts_are_there_when_the_record_is_confirmed(ready: Database, new: New) -> None:
    await ready.record(new("run_1", seq=1, facts=facts(1, 2), error={"code": "x", "message": "ü"}))
    row = await ready.read("a", lambda session: run.get(session, "run_1"))
    assert row is not None
    assert (row.state, row.blueprint_name, row.error) == ("accepted", "Orders", {"code": "x", "message": "ü"})
    assert [f["seq"] for f in await ready.read("a", lambda session: journal.facts(session, "run_1"))] == [1, 2]
    assert await ready.read("a", lambda session: journal.first(session, "run_1")) == orjson.loads(facts(1))[0]
    assert await ready.read("b", lambda session: run.get(session, "run_1")) is None
    assert await ready.read("b", lambda session: journal.facts(session, "run_1")) == []


async def test_many_runs_at_once_all_arrive(ready: Database, new: New) -> None:
    await asyncio.gather(*[ready.record(new(f"run_{n:04}", seq=1, facts=facts(1))) for n in range(777)])
    assert await ready.read("a", run.counts) == {"accepted": 777}
    await asyncio.gather(
        *[
            ready.record(
                RunRecord(f"run_{n:04}", "a", 2, facts(2), update={"state": "succeeded", "finished_at": 2.0 + n})
            )
            for n in range(777)
        ]
    )
    assert await ready.read("a", run.counts) == {"succeeded": 777}
    last = await ready.read("a", lambda session: run.get(session, "run_0776"))
    assert last is not None
    assert last.finished_at == 778.0


async def test_a_run_that_begins_and_ends_in_one_group_is_written_once_as_it_ended(ready: Database, new: New) -> None:
    await asyncio.gather(
        ready.record(new("run_1", seq=1, facts=facts(1))),
        ready.record(RunRecord("run_1", "a", 2, facts(2), update={"state": "running"}, expected=("accepted",))),
        ready.record(
            RunRecord("run_1", "a", 3, update={"state": "failed", "error": {"code": "e"}, "finished_at": 9.0})
        ),
        ready.record(RunRecord("run_1", "a", 3, facts(3, 4))),
    )
    row = await ready.read("a", lambda session: run.get(session, "run_1"))
    assert row is not None
    assert (row.state, row.error, row.finished_at) == ("failed", {"code": "e"}, 9.0)
    assert [f["seq"] for f in await ready.read("a", lambda session: journal.facts(session, "run_1"))] == [1, 2, 3, 4]


@pytest.mark.parametrize("together", [True, False])
async def test_a_lost_race_keeps_nothing_of_the_record(ready: Database, new: New, together: bool) -> None:
    first = ready.record(new("run_1", state="cancelled", finished_at=2.0))
    if not together:
        await first
    late = RunRecord("run_1", "a", 5, facts(5), update={"state": "succeeded"}, expected=("accepted", "running"))
    others = [ready.record(new(f"run_o{n}")) for n in range(3)]
    with pytest.raises(LostRace, match="run_1 in state accepted or running"):
        await ready.record(late)
    await asyncio.gather(first, *others)
    row = await ready.read("a", lambda session: run.get(session, "run_1"))
    assert row is not None
    assert row.state == "cancelled"
    assert await ready.read("a", lambda session: journal.facts(session, "run_1")) == []
    assert await ready.read("a", run.counts) == {"cancelled": 1, "accepted": 3}


async def test_a_change_of_a_run_that_is_not_there_fails(ready: Database, new: New) -> None:
    with pytest.raises(LostRace):
        await ready.record(RunRecord("run_1", "a", update={"state": "running"}))
    await ready.record(new("run_1", tenant="b"))
    with pytest.raises(LostRace):
        await ready.record(RunRecord("run_1", "a", update={"state": "running"}))


async def test_bad_records_fail_alone(ready: Database, new: New, row: Callable[..., dict[str, Any]]) -> None:
    lacking = row("run_2")
    del lacking["trigger"]
    results = await asyncio.gather(
        ready.record(new("run_1", seq=1, facts=facts(1))),
        ready.record(new("run_1")),
        ready.record(RunRecord("run_2", "a", insert=lacking)),
        ready.record(RunRecord("run_3", "a", insert=row("run_3", tenant="b"))),
        ready.record(RunRecord("run_1", "a", update={"nonsense": 1})),
        ready.record(RunRecord("run_1", "a", update={"tenant_id": "b"})),
        ready.record(RunRecord("run_1", "a", 1, facts(1))),
        ready.record(RunRecord("run_9", "a", 1, facts(1))),
        ready.record(new("run_4", document_hash="f" * 64)),
        ready.record(RunRecord("run_1", "a", 1, b"\xff")),
        ready.record(new("run_5")),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    assert kinds == [type(None), Clash, StorageError, StorageError, StorageError, StorageError, Clash, Clash, Clash,
                     StorageError, type(None)]  # fmt: skip
    assert "lacks trigger" in str(results[2])
    assert "nonsense" in str(results[4])
    assert await ready.read("a", run.counts) == {"accepted": 2}
    assert await ready.read("b", run.counts) == {}


async def test_records_and_writes_keep_their_order(ready: Database, new: New) -> None:
    def ask(session: Any) -> bool:
        assert run.get(session, "run_1") is not None
        return approval.put(session, "apr_1", {
            "run_id": "run_1", "node": "n", "blueprint_id": "bp_1", "blueprint_name": "", "title": "?", "created_at": 1.0,
        })  # fmt: skip

    recorded = ready.record(new("run_1"))
    assert await ready.write("a", ask)
    await recorded


# --- folding as such: the same as one by one --------------------------------------------------------------------------

states = st.sampled_from(["accepted", "running", "waiting", "succeeded"])
changes = st.fixed_dictionaries(
    {},
    optional={
        "state": states,
        "wake_at": st.floats(0, 9),
        "error": st.just({"code": "e"}),
        "server_id": st.sampled_from([None, "srv_1", "srv_2"]),
    },
)


servers = st.sampled_from([None, "srv_1", "srv_2"])


@st.composite
def sequences(draw: st.DrawFn) -> list[RunRecord]:
    """Records of a few runs, some new here and some already in the database, right ones and wrong ones."""
    made = []
    for at in range(draw(st.integers(1, 12))):
        id = draw(st.sampled_from(["run_old", "run_1", "run_2"]))
        record = RunRecord(id, draw(st.sampled_from(["a", "a", "a", "b"])))
        if draw(st.booleans()):
            record.seq, record.facts = at, orjson.dumps([{"seq": at}])
        if draw(st.integers(0, 2)) == 0:
            record.insert = run.values(
                record.tenant, id, blueprint_id="bp", blueprint_name="", document_hash="0" * 64, trigger="n",
                state=draw(states), accepted_at=1.0, server_id=draw(servers),
            )  # fmt: skip
        else:
            record.update = draw(changes)
            record.expected = tuple(draw(st.lists(states, max_size=2, unique=True)))
            record.server = draw(servers)
        made.append(record)
    return made


class Model:
    """What the records mean, one after the other."""

    def __init__(self) -> None:
        old = {
            "tenant_id": "a",
            "id": "run_old",
            "state": "running",
            "wake_at": None,
            "error": None,
            "server_id": "srv_1",
        }
        self.rows: dict[tuple[str, str], dict[str, Any]] = {("a", "run_old"): old}
        self.facts: dict[tuple[str, str, int], bytes] = {}

    def take(self, record: RunRecord) -> bool:
        key = (record.tenant, record.run_id)
        rows = dict(self.rows)
        if record.insert is not None:
            if key in rows:
                return False
            rows[key] = record.insert
        if record.update:
            if key not in rows or (record.expected and rows[key]["state"] not in record.expected):
                return False
            if record.server is not None and rows[key]["server_id"] != record.server:
                return False
            rows[key] = {**rows[key], **record.update}
        if record.facts:
            if key not in rows:
                return False
            self.facts[(*key, record.seq)] = record.facts
        self.rows = rows
        return True

    def seen(self) -> tuple[Any, Any]:
        names = ("state", "wake_at", "error", "server_id")
        return {key: tuple(row[name] for name in names) for key, row in self.rows.items()}, self.facts


@given(st.data())
def test_fold_never_accepts_what_one_by_one_would_refuse(data: st.DataObject) -> None:
    """Whatever folds is, written at once, what the records mean one by one; whatever does not fold is written one by one."""
    records = data.draw(sequences())
    model = Model()
    taken = [model.take(record) for record in records]
    try:
        runs, moved, kept = fold(records)
    except Unfoldable:
        return
    folded = Model()
    for values in runs:
        row = dict(zip(run.COLUMNS, values, strict=True))
        folded.rows[row["tenant_id"], row["id"]] = {**row, "error": row["error"] and orjson.loads(row["error"])}
    lost = False
    for (names, expected, server), rows in moved.items():
        for tenant, id, *values in rows:
            before = Model().rows.get((tenant, id))
            theirs = before is not None and server is not None and before["server_id"] != server
            if before is None or theirs or (expected and before["state"] not in expected):
                lost = True
                continue
            change = dict(zip(names, values, strict=True))
            if change.get("error"):
                change["error"] = orjson.loads(change["error"])
            folded.rows[tenant, id] = {**before, **change}
    folded.facts = {(tenant, id, seq): text.encode() for tenant, id, seq, text in kept}
    orphans = any((tenant, id) not in folded.rows for tenant, id, _, _ in kept)
    again = any((record.tenant, record.run_id) == ("a", "run_old") and record.insert for record in records)
    if lost or orphans or again:  # the database refuses the group: these are written one by one, too
        assert not all(taken)
        return
    assert all(taken)
    assert folded.seen() == model.seen()


@given(st.integers(0, 1_000))
def test_pieces_are_powers_of_two_and_complete(count: int) -> None:
    rows = [(n,) for n in range(count)]
    pieces = list(sized(rows))
    assert [row for piece in pieces for row in piece] == rows
    assert {len(piece) for piece in pieces} <= {1, 2, 4, 8, 16, 32, 64, 128}


async def test_random_records_end_as_one_by_one(ready: Database) -> None:
    """The same with the real database: random sequences, queued at once, against the model."""
    for number in range(40):
        chosen = random.Random(number)
        tenant = f"t{number}"
        await ready.write(tenant, lambda session: document.put(session, "0" * 64, "{}", 1.0))
        records, model = [], Model()
        model.rows = {}
        for at in range(chosen.randint(2, 15)):
            id = chosen.choice(["run_1", "run_2", "run_3"])
            record = RunRecord(id, tenant)
            if chosen.random() < 0.6:
                record.seq, record.facts = at, orjson.dumps([{"seq": at}])
            state = chosen.choice(["accepted", "running", "succeeded"])
            if chosen.random() < 0.4:
                record.insert = run.values(
                    tenant, id, blueprint_id="bp", blueprint_name="", document_hash="0" * 64, trigger="n", state=state,
                    accepted_at=1.0, server_id="srv_1",
                )  # fmt: skip
            else:
                record.update = {"state": state, "wake_at": float(at)}
                record.server = chosen.choice([None, "srv_1", "srv_1", "srv_2"])
                record.expected = tuple(chosen.sample(["accepted", "running", "succeeded"], chosen.randint(0, 2)))
            records.append(record)
        done = await asyncio.gather(*[ready.record(record) for record in records], return_exceptions=True)
        assert [result is None for result in done] == [model.take(record) for record in records]
        rows = await ready.read(tenant, run.listed)
        assert {
            (row.tenant_id, row.id): (row.state, row.wake_at, row.error, row.server_id) for row in rows
        } == model.seen()[0]
        for row in rows:
            found = await ready.read(tenant, lambda session, id=row.id: journal.facts(session, id))  # type: ignore[misc]
            assert found == [orjson.loads(text)[0] for (_, id, _), text in sorted(model.facts.items()) if id == row.id]
