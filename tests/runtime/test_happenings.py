"""Agents that start by what happens inside: another agent's end, a row, a file. Nothing is lost, nothing comes twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.blueprint import Blueprint
from nodes.errors import FactoryError
from nodes.listen import fits
from runtime.factory import Factory
from runtime.views import RunInfo
from storage import happening
from tests.runtime.factories import ADMIN, STRANGER, agent, new_factory


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path}/f.db") as factory:
        yield factory


def first() -> Blueprint:
    """An agent that succeeds with what it is given, or fails."""
    return agent(
        {"go": "trigger.manual", "check": ("validation.decide", {"condition": "input.ok"}), "end": "action.respond"},
        "go.value > check.value",
        "check.yes > end.value",
        name="First",
    )


def second(blueprint: str, *states: str) -> Blueprint:
    return agent({"in": ("trigger.run_ended", {"blueprint": blueprint, "states": list(states) or ["succeeded"]})})


def on_row(table: str = "orders") -> Blueprint:
    return agent({"in": ("trigger.row_added", {"table": table})})


def writer(table: str = "orders") -> Blueprint:
    """An agent that adds a row whenever it starts."""
    return agent(
        {"go": "trigger.manual", "row": ("action.write_row", {"table": table})}, "go.value > row.value", name="Writer"
    )


async def deployed(factory: Factory, blueprint: Blueprint) -> str:
    """The agent's id."""
    draft = await factory.blueprints.create(ADMIN, blueprint)
    await factory.deployments.deploy(ADMIN, draft.id)
    return draft.id


async def runs_of(factory: Factory, blueprint_id: str, count: int) -> list[RunInfo]:
    """The agent's runs when there are so many, ended, and nothing is on its way any more."""
    async with asyncio.timeout(20):
        while True:
            await factory.happenings.start()
            found = await factory.runs.list(ADMIN, blueprint_id=blueprint_id)
            ended = [run for run in found if run.finished_at is not None]
            if len(ended) >= count and not factory.engine.active:
                return list(found)
            await asyncio.sleep(0.005)


async def input_of(factory: Factory, run: RunInfo) -> Any:
    return (await factory.runs.get(ADMIN, run.id)).input


# --- another agent's end -----------------------------------------------------------------------------------------------------


async def test_an_agents_end_starts_another_with_what_came_of_it(factory: Factory) -> None:
    one = await deployed(factory, first())
    two = await deployed(factory, second(one))
    run = await factory.runs.start(ADMIN, one, {"ok": True, "total": 7})
    [follower] = await runs_of(factory, two, 1)
    told = await input_of(factory, follower)
    assert (told["run"], told["agent"], told["state"]) == (run, one, "succeeded")
    assert told["output"] == {"ok": True, "total": 7} and told["error"] is None


@pytest.mark.parametrize(("states", "started"), [(["succeeded"], 0), (["failed"], 1), (["succeeded", "failed"], 1)])
async def test_only_the_chosen_ends_count(factory: Factory, states: list[str], started: int) -> None:
    one = await deployed(factory, first())
    two = await deployed(factory, second(one, *states))
    await factory.runs.start(ADMIN, one, {"other": 1})
    found = await runs_of(factory, two, started)
    await runs_of(factory, one, 1)
    assert len(found) == started
    if found:
        told = await input_of(factory, found[0])
        assert told["state"] == "failed" and told["error"]["message"]


async def test_the_sandbox_and_other_tenants_start_nothing(factory: Factory) -> None:
    one = await deployed(factory, first())
    two = await deployed(factory, second(one))
    theirs = await factory.blueprints.create(STRANGER, second(one))
    with pytest.raises(FactoryError, match="does not exist"):
        await factory.deployments.deploy(STRANGER, theirs.id)
    test = await factory.sandbox.start(ADMIN, first(), {"ok": True})
    await factory.runs.wait(ADMIN, test, 10)
    assert await runs_of(factory, two, 0) == []
    await factory.runs.start(ADMIN, one, {"ok": True})
    assert len(await runs_of(factory, two, 1)) == 1


async def test_an_end_that_a_crash_kept_quiet_is_told_at_the_next_start(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        one = await deployed(factory, first())
        two = await deployed(factory, second(one))
        factory.engine.on_ended = lambda ex: None
        await factory.runs.start(ADMIN, one, {"ok": True})
        await runs_of(factory, one, 1)
        assert await factory.runs.list(ADMIN, blueprint_id=two) == []
    for _ in range(2):
        async with new_factory(database_url, ticking=True) as factory:
            assert len(await runs_of(factory, two, 1)) == 1


async def test_what_happened_before_an_agent_listened_is_not_told(factory: Factory) -> None:
    one = await deployed(factory, first())
    await factory.runs.start(ADMIN, one, {"ok": True})
    await runs_of(factory, one, 1)
    two = await deployed(factory, second(one))
    await factory.happenings.recover()
    assert await runs_of(factory, two, 0) == []


# --- rows and files ----------------------------------------------------------------------------------------------------------


async def test_rows_that_a_step_adds_start_an_agent(factory: Factory) -> None:
    adds = await deployed(factory, writer())
    hears = await deployed(factory, on_row())
    await deployed(factory, on_row("others"))
    await factory.runs.start(ADMIN, adds, {"name": "Ada"})
    [run] = await runs_of(factory, hears, 1)
    told = await input_of(factory, run)
    assert told["table"] == "orders" and len(told["rows"]) == 1
    assert len(await factory.runs.list(ADMIN)) == 2


async def test_rows_that_come_together_start_it_once(factory: Factory) -> None:
    hears = await deployed(factory, on_row())
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": n} for n in range(5)])
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [])
    [run] = await runs_of(factory, hears, 1)
    assert [row["n"] for row in (await input_of(factory, run))["rows"]] == list(range(5))


async def test_of_very_many_rows_the_last_are_handed_on(factory: Factory) -> None:
    hears = await deployed(factory, on_row())
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": n, "text": "x" * 100_000} for n in range(30)])
    [run] = await runs_of(factory, hears, 1)
    told = await input_of(factory, run)
    assert told["count"] == 30 and [row["n"] for row in told["rows"]] == list(range(20, 30))


async def test_a_file_starts_those_who_wait_for_such_a_name(factory: Factory) -> None:
    hears = await deployed(factory, agent({"in": ("trigger.file_arrived", {"file": "prices-*.csv"})}))
    await factory.shelves.put_file(ADMIN, "other.csv", b"x", "text/csv")
    await factory.shelves.put_file(ADMIN, "prices-may.csv", b"a,b", "text/csv")
    [run] = await runs_of(factory, hears, 1)
    told = await input_of(factory, run)
    assert (told["name"], told["size"], told["media_type"]) == ("prices-may.csv", 3, "text/csv")
    await factory.shelves.put_file(ADMIN, "prices-may.csv", b"a,b", "text/csv")
    assert len(await runs_of(factory, hears, 2)) == 2


async def test_what_happened_in_the_transaction_is_started_after_a_crash(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        hears = await deployed(factory, on_row())
        factory.shelves.on_kept = lambda: None
        await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": 1}])
    async with new_factory(database_url, ticking=True) as factory:
        assert len(await runs_of(factory, hears, 1)) == 1
        await factory.happenings.recover()
        assert len(await runs_of(factory, hears, 1)) == 1


async def test_a_run_that_is_there_already_is_not_started_again(factory: Factory) -> None:
    hears = await deployed(factory, on_row())
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": 1}])
    [run] = await runs_of(factory, hears, 1)

    def forget_that_it_was_done(session: Any) -> None:
        [row] = happening.recent(session, deployments[0].id)
        row.done_at, row.event = None, {"table": "orders", "rows": [{"n": 1}]}
        session.add(row)

    deployments = await factory.deployments.list(ADMIN)
    await factory.db.write(ADMIN.tenant, forget_that_it_was_done)
    await factory.happenings.start()
    assert [one.id for one in await runs_of(factory, hears, 1)] == [run.id]


# --- when it cannot be started now ---------------------------------------------------------------------------------------------


async def test_a_full_line_makes_it_wait_and_loses_nothing(factory: Factory) -> None:
    hears = await deployed(factory, on_row())
    factory.engine.set_limits(ADMIN.tenant, concurrent=1, depth=0)
    assert factory.engine.queue.reserve(ADMIN.tenant)
    for n in range(3):
        await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": n}])
    await factory.happenings.start()
    assert factory.happenings.owes and await factory.runs.list(ADMIN) == []
    factory.engine.queue.withdraw(ADMIN.tenant)
    factory.engine.set_limits(ADMIN.tenant, concurrent=5, depth=5)
    assert len(await runs_of(factory, hears, 3)) == 3
    assert not factory.happenings.owes


@pytest.mark.parametrize(("hold", "runs"), [(True, 1), (False, 0)])
async def test_a_paused_agent_hears_afterwards_or_not_as_was_chosen(factory: Factory, hold: bool, runs: int) -> None:
    hears = await deployed(factory, on_row())
    [live] = await factory.deployments.list(ADMIN)
    await factory.deployments.pause(ADMIN, live.id, hold=hold)
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": 1}])
    await factory.happenings.start()
    assert await factory.runs.list(ADMIN) == []
    await factory.deployments.resume(ADMIN, live.id)
    assert len(await runs_of(factory, hears, runs)) == runs


async def test_an_agent_that_is_stopped_hears_nothing(factory: Factory) -> None:
    await deployed(factory, on_row())
    [live] = await factory.deployments.list(ADMIN)
    await factory.deployments.stop(ADMIN, live.id)
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": 1}])
    await factory.happenings.start()
    assert await factory.runs.list(ADMIN) == []


async def test_agents_that_start_each_other_in_a_circle_are_stopped(factory: Factory) -> None:
    await factory.limits.set(ADMIN, "chain_depth", 3)
    circle = agent(
        {"in": ("trigger.row_added", {"table": "orders"}), "row": ("action.write_row", {"table": "orders"})},
        "in.row > row.value",
    )
    hears = await deployed(factory, circle)
    await factory.shelves.append_rows(ADMIN.tenant, "orders", [{"n": 1}])
    assert len(await runs_of(factory, hears, 3)) == 3
    [live] = await factory.deployments.list(ADMIN)
    last = (await factory.db.read(ADMIN.tenant, lambda session: happening.recent(session, live.id)))[0]
    assert "3 agents have started each other" in last.note


# --- names ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "yes"),
    [
        ("*", "", True),
        ("*", "anything", True),
        ("prices-*.csv", "prices-may.csv", True),
        ("prices-*.csv", "PRICES-.CSV", True),
        ("prices-*.csv", "prices-may.csv.bak", False),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("[a].txt", "a.txt", False),
        ("", "a", False),
    ],
)
def test_a_name_fits_its_pattern(pattern: str, name: str, yes: bool) -> None:
    assert fits(pattern, name) is yes


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=14))
def test_patterns_mean_what_they_do_elsewhere(pattern: str, name: str) -> None:
    from fnmatch import fnmatchcase

    assert fits(pattern, name) == fnmatchcase(name, pattern)
