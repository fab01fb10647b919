"""Failed runs as letters: which are there, how they are counted, and that each is dealt with once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from storage import dead_letter
from storage.database import Database
from storage.records import RunRecord
from storage.tenancy import TenantSession

New = Callable[..., RunRecord]


@pytest.fixture
async def failed(ready: Database, new: New) -> Database:
    """Six failed runs of two agents, a called one, one of another tenant, and one that went well."""
    for n in range(6):
        category = "timeout" if n % 3 else "input"
        ready.record(
            new(f"run_{n}", state="failed", blueprint_id=f"bp_{n % 2}", category=category, finished_at=float(n))
        )
    ready.record(new("run_7", state="running", parent_run="run_1"))
    ready.record(RunRecord("run_7", "a", update={"state": "failed", "category": "input", "handled": "told"}))
    ready.record(new("run_8", state="succeeded"))
    await ready.record(new("run_9", tenant="b", state="failed", category="bug"))
    return ready


async def ids(db: Database, **given: Any) -> list[str]:
    return [run.id for run, _ in await db.read("a", lambda session: dead_letter.listed(session, **given))]


async def settle(db: Database, id: str, to: str = "dismissed", **more: Any) -> bool:
    return await db.write("a", lambda s: dead_letter.settle(s, id, to=to, by="Ada", at=10.0, **more))


async def test_open_ones_are_newest_first_filtered_and_in_pages(failed: Database) -> None:
    assert await ids(failed) == ["run_5", "run_4", "run_3", "run_2", "run_1", "run_0"]
    assert await ids(failed, category="input") == ["run_3", "run_0"]
    assert await ids(failed, blueprint_id="bp_1", before="run_5") == ["run_3", "run_1"]
    assert await ids(failed, limit=2, before="run_3") == ["run_2", "run_1"]
    assert await failed.read("a", dead_letter.waiting) == 6
    assert await failed.read("b", dead_letter.waiting) == 1
    assert await failed.read("a", lambda s: dead_letter.get(s, "run_9")) is None


async def test_they_are_counted_by_category_and_agent(failed: Database) -> None:
    found: Sequence[Any] = await failed.read("a", dead_letter.tally)
    assert sorted(found) == [
        ("input", "bp_0", "Orders", 1),
        ("input", "bp_1", "Orders", 1),
        ("timeout", "bp_0", "Orders", 2),
        ("timeout", "bp_1", "Orders", 2),
    ]


async def test_one_without_a_category_counts_as_unforeseen(ready: Database, new: New) -> None:
    await ready.record(new("run_1", state="failed"))
    assert await ids(ready, category="bug") == ["run_1"]


async def test_each_is_dealt_with_once_until_it_is_opened_again(failed: Database) -> None:
    assert await settle(failed, "run_2", reason="Known.")
    assert not await settle(failed, "run_2", to="retried", retry_run="run_x")
    assert "run_2" not in await ids(failed)
    assert await ids(failed, state="dismissed") == ["run_2"]
    assert not await failed.write("a", lambda s: dead_letter.reopen(s, "run_2", "retried"))
    assert await failed.write("a", lambda s: dead_letter.reopen(s, "run_2", "dismissed"))
    assert "run_2" in await ids(failed)
    assert await settle(failed, "run_2", to="retried", retry_run="run_x")
    found = await failed.read("a", lambda s: dead_letter.get(s, "run_2"))
    assert found is not None and found[1] is not None
    assert (found[1].state, found[1].reason, found[1].retry_run) == ("retried", "", "run_x")
    assert await failed.read("a", lambda s: dead_letter.retry_of(s, "run_x")) == "run_2"
    assert await failed.read("b", lambda s: dead_letter.retry_of(s, "run_x")) is None


@pytest.mark.parametrize("id", ["run_7", "run_8", "run_9", "run_none"])
async def test_only_failed_runs_of_the_tenant_that_nobody_called_can_be_dealt_with(failed: Database, id: str) -> None:
    assert not await settle(failed, id)


async def test_retries_that_may_not_have_begun_are_found_until_they_are_known_to_have(failed: Database) -> None:
    await settle(failed, "run_1", to="retried", retry_run="run_8")
    await settle(failed, "run_2", to="retried", retry_run="run_never")
    await settle(failed, "run_3")
    assert await failed.read_all(lambda s: dead_letter.unsure(s, 11.0)) == [("a", "run_1", True), ("a", "run_2", False)]
    assert await failed.read_all(lambda s: dead_letter.unsure(s, 10.0)) == []
    await failed.write("a", lambda s: dead_letter.begun(s, ["run_1"], 12.0))
    assert await failed.read_all(lambda s: dead_letter.unsure(s, 11.0)) == [("a", "run_2", False)]


async def test_alarms_that_are_owed_are_found_until_they_are_given(ready: Database, new: New) -> None:
    ready.record(new("run_1", state="waiting", wake_at=5.0))
    ready.record(new("run_2", state="failed", wake_at=6.0))
    await ready.record(new("run_3", state="failed"))
    assert await ready.read_all(dead_letter.unannounced) == [("a", "run_2")]

    def give(session: TenantSession) -> None:
        for id in ("run_1", "run_2"):
            dead_letter.announced(session, id)

    await ready.write("a", give)
    assert await ready.read_all(dead_letter.unannounced) == []
