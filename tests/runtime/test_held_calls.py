"""Pausing: calls are refused or kept, chosen by whoever pauses; what is kept runs in order, once, whatever happens meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.blueprint import Blueprint
from nodes.errors import Conflict, TooMany
from runtime import held
from runtime.factory import Factory
from runtime.triggers import BadCall
from runtime.views import RunInfo
from storage import held_call
from tests.runtime.factories import ADMIN, agent, new_factory


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}") as factory:
        yield factory


def keeper(respond: str = "now", word: str = "one") -> Blueprint:
    return agent(
        {
            "in": ("trigger.webhook", {"path": "orders", "respond": respond}),
            "note": ("context.set_values", {"values": [{"name": "seen", "value": word}]}),
        },
        "in.body > note.value",
    )


async def call(factory: Factory, number: int) -> tuple[int, dict[str, Any]]:
    raw = json.dumps({"number": number}).encode()
    reply = await factory.hooks.handle("orders", "POST", [(b"content-type", b"application/json")], raw)
    return reply.status, json.loads(reply.body)


async def deployed(factory: Factory, blueprint: Blueprint) -> str:
    draft = await factory.blueprints.create(ADMIN, blueprint)
    return (await factory.deployments.deploy(ADMIN, draft.id)).id


async def settled(factory: Factory, id_: str, runs: int) -> Sequence[RunInfo]:
    """The runs, oldest first, when so many have ended and no call waits any more."""
    async with asyncio.timeout(20):
        while True:
            found = await factory.runs.list(ADMIN, limit=200)
            waiting = (await factory.deployments.get(ADMIN, id_)).held
            if not waiting and len(found) >= runs and all(one.finished_at for one in found):
                return sorted(found, key=lambda one: one.id)
            await asyncio.sleep(0.01)


async def numbers(factory: Factory, runs: Sequence[RunInfo]) -> list[int]:
    return [(await factory.runs.get(ADMIN, run.id)).input["body"]["number"] for run in runs]


async def test_calls_of_a_paused_agent_run_in_order_when_it_goes_on(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        id_ = await deployed(factory, keeper())
        paused = await factory.deployments.pause(ADMIN, id_, hold=True)
        assert (paused.state, paused.hold) == ("paused", True)
        promised = []
        for number in range(5):
            status, said = await call(factory, number)
            assert (status, said["state"]) == (202, "held")
            promised.append(said["run"])
        assert (await factory.deployments.get(ADMIN, id_)).held == 5
        assert await factory.runs.list(ADMIN) == []
        resumed = await factory.deployments.resume(ADMIN, id_)
        assert (resumed.state, resumed.hold) == ("active", False)
        runs = await settled(factory, id_, 5)
        assert [run.id for run in runs] == promised, "the id that the caller was told is the run's"
        assert await numbers(factory, runs) == [0, 1, 2, 3, 4]
        assert {run.state for run in runs} == {"succeeded"}


async def test_whoever_waits_for_an_answer_is_told_that_it_is_held(factory: Factory) -> None:
    id_ = await deployed(factory, keeper("end"))
    await factory.deployments.pause(ADMIN, id_, hold=True)
    status, said = await call(factory, 1)
    assert (status, said["state"]) == (202, "held")
    await factory.deployments.resume(ADMIN, id_)
    assert [run.id for run in await settled(factory, id_, 1)] == [said["run"]]


async def test_rejecting_stays_what_it_was_and_can_be_changed_to_holding(factory: Factory) -> None:
    id_ = await deployed(factory, keeper())
    await factory.deployments.pause(ADMIN, id_)
    with pytest.raises(BadCall) as refused:
        await call(factory, 1)
    assert refused.value.status == 503
    await factory.deployments.pause(ADMIN, id_, hold=True)
    assert (await call(factory, 2))[0] == 202
    await factory.deployments.pause(ADMIN, id_, hold=False)
    with pytest.raises(BadCall):
        await call(factory, 3)
    with pytest.raises(Conflict):
        await factory.deployments.pause(ADMIN, id_)
    await factory.deployments.resume(ADMIN, id_)
    assert await numbers(factory, await settled(factory, id_, 1)) == [2]


async def test_held_calls_survive_the_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    async with new_factory(url) as factory:
        id_ = await deployed(factory, keeper())
        await factory.deployments.pause(ADMIN, id_, hold=True)
        await call(factory, 1)
    async with new_factory(url) as factory:
        assert (await call(factory, 2))[1]["state"] == "held"
        assert (await factory.deployments.get(ADMIN, id_)).held == 2
        await factory.deployments.resume(ADMIN, id_)
        assert await numbers(factory, await settled(factory, id_, 2)) == [1, 2]


async def test_a_call_whose_run_began_before_a_crash_is_not_started_again(tmp_path: Path) -> None:
    """The server went between the start of the run and the end of the wait: the run's id tells."""
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    async with new_factory(url) as factory:
        id_ = await deployed(factory, keeper())
        _, said = await call(factory, 7)
        await settled(factory, id_, 1)
        left = held_call.HeldCall(id=said["run"], deployment_id=id_, node="in", event={"body": {"number": 7}}, at=1.0)
        await factory.db.write(ADMIN.tenant, lambda session: held_call.add(session, left))
    async with new_factory(url) as factory:
        assert len(await settled(factory, id_, 1)) == 1


async def test_held_calls_run_on_the_version_that_is_live_when_they_start(factory: Factory) -> None:
    draft = await factory.blueprints.create(ADMIN, keeper(word="one"))
    id_ = (await factory.deployments.deploy(ADMIN, draft.id)).id
    await factory.deployments.pause(ADMIN, id_, hold=True)
    await call(factory, 1)
    await factory.blueprints.save(ADMIN, draft.id, keeper(word="two"), revision=1)
    assert (await factory.deployments.deploy(ADMIN, draft.id)).state == "active", "deploying goes on with it"
    [run] = await settled(factory, id_, 1)
    assert run.version == 2
    assert (await factory.runs.get(ADMIN, run.id)).output["seen"] == "two"


async def test_more_calls_than_can_be_kept_are_told_to_come_back(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "MAX_HELD", 2)
    id_ = await deployed(factory, keeper())
    await factory.deployments.pause(ADMIN, id_, hold=True)
    assert [(await call(factory, number))[0] for number in (1, 2)] == [202, 202]
    with pytest.raises(TooMany) as full:
        await call(factory, 3)
    assert (full.value.status, full.value.code) == (429, "limit.held")
    await factory.deployments.resume(ADMIN, id_)
    assert await numbers(factory, await settled(factory, id_, 2)) == [1, 2]


async def test_stopping_throws_no_call_away_unless_it_is_said(factory: Factory) -> None:
    id_ = await deployed(factory, keeper())
    await factory.deployments.pause(ADMIN, id_, hold=True)
    await call(factory, 1)
    with pytest.raises(Conflict, match="1 call would be lost"):
        await factory.deployments.stop(ADMIN, id_)
    assert (await factory.deployments.stop(ADMIN, id_, drop_held=True)).held == 0


async def test_nothing_is_lost_or_refused_while_versions_change_and_agents_pause(database_url: str) -> None:
    """Callers knock all the time; meanwhile it is deployed, rolled back, paused with holding, and resumed."""
    async with new_factory(database_url) as factory:
        draft = await factory.blueprints.create(ADMIN, keeper())
        id_ = (await factory.deployments.deploy(ADMIN, draft.id)).id
        told: dict[int, str] = {}
        busy = True

        async def knock(first: int) -> None:
            number = first
            while busy:
                status, said = await call(factory, number)
                assert status == 202
                told[number] = said["run"]
                number += 4

        knocking = [asyncio.ensure_future(knock(first)) for first in range(4)]
        for turn in range(3):
            now = await factory.blueprints.get(ADMIN, draft.id)
            await factory.blueprints.save(ADMIN, draft.id, keeper(word=f"turn {turn}"), revision=now.revision)
            await factory.deployments.deploy(ADMIN, draft.id)
            await factory.deployments.pause(ADMIN, id_, hold=True)
            await asyncio.sleep(0)
            await factory.deployments.rollback(ADMIN, id_)
            await factory.deployments.resume(ADMIN, id_)
        busy = False
        await asyncio.gather(*knocking)
        async with asyncio.timeout(30):
            while (await factory.deployments.get(ADMIN, id_)).held or factory.engine.active:
                await asyncio.sleep(0.01)
        counts = await factory.runs.counts(ADMIN)
        assert counts == {"succeeded": len(told)}
        for number, run_id in list(told.items())[:: max(1, len(told) // 20)]:
            assert (await factory.runs.get(ADMIN, run_id)).input["body"] == {"number": number}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from(["call", "hold", "reject", "resume", "restart"]), max_size=12))
async def test_whatever_people_do_each_call_that_was_taken_runs_once(acts: list[str], tmp_path_factory: Any) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('held') / 'factory.db'}"
    taken: list[int] = []
    factory = new_factory(url)
    await factory.start()
    try:
        id_ = await deployed(factory, keeper())
        for number, act in enumerate(acts):
            if act == "call":
                try:
                    await call(factory, number)
                    taken.append(number)
                except BadCall:
                    assert (await factory.deployments.get(ADMIN, id_)).state == "paused"
            elif act == "restart":
                await factory.stop()
                factory = new_factory(url)
                await factory.start()
            else:
                try:
                    if act == "resume":
                        await factory.deployments.resume(ADMIN, id_)
                    else:
                        await factory.deployments.pause(ADMIN, id_, hold=act == "hold")
                except Conflict:
                    pass
        if (await factory.deployments.get(ADMIN, id_)).state == "paused":
            await factory.deployments.resume(ADMIN, id_)
        runs = await settled(factory, id_, len(taken))
        assert sorted(await numbers(factory, runs)) == taken
    finally:
        await factory.stop()


@pytest.mark.postgres
async def test_a_call_that_another_server_kept_too_late_is_started_when_it_learns_of_it(postgres_url: str) -> None:
    """The agent went on at one server while the other still held its calls."""
    async with new_factory(postgres_url) as one, new_factory(postgres_url) as other:
        id_ = await deployed(one, keeper())
        await one.deployments.pause(ADMIN, id_, hold=True)
        await other._refresh()
        await call(other, 1)
        await one.deployments.resume(ADMIN, id_)
        assert (await call(other, 2))[1]["state"] == "held"
        await other._refresh()
        assert (await call(other, 3))[1]["state"] == "accepted"
        assert sorted(await numbers(one, await settled(one, id_, 3))) == [1, 2, 3]
