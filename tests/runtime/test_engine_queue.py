"""Runs that wait for their turn: whose it is, how many may wait, and what a crash leaves of the line."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodes.errors import TooMany
from tests.runtime.engines import TENANT, WHO, Rig, open_rig
from tests.runtime.small_nodes import drawn, world


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    world.calls.clear()
    world.hold = asyncio.Event()
    world.fail_times = world.at_once = world.most_at_once = 0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(f"sqlite:///{tmp_path}/f.db") as rig:
        yield rig


def held(**more: object) -> "object":
    return drawn({"s": "start", "e": ("effect", {"hold": True})}, "s.value > e.value", **more)


async def quiet(rig: Rig, working: int, waiting: int) -> None:
    async with asyncio.timeout(10):
        while rig.engine.queue.counts(TENANT) != (working, waiting):
            await asyncio.sleep(0.002)


async def test_an_agents_own_limit_holds_whatever_the_team_may_have(rig: Rig) -> None:
    blueprint = drawn({"s": "start", "r": ("read", {"seconds": 0.01})}, "s.value > r.value", concurrency=2)
    started = [await rig.begin(blueprint, n) for n in range(8)]
    assert [(await rig.ended(ex.id)).output for ex in started] == list(range(8))
    assert world.most_at_once <= 2


async def test_more_than_may_wait_are_refused_and_told_when_to_come_again(rig: Rig) -> None:
    rig.engine.set_limits(TENANT, concurrent=1, depth=2)
    started = [await rig.begin(held(), n) for n in range(3)]
    with pytest.raises(TooMany) as caught:
        await rig.begin(held(), 3)
    assert caught.value.status == 429 and caught.value.where["retry_after"] > 0
    assert len(await rig.runs.list(WHO)) == 3, "what is refused leaves nothing behind"
    world.hold.set()
    assert {(await rig.ended(ex.id)).info.state for ex in started} == {"succeeded"}
    await rig.begin(held(), 4)


async def test_of_a_hundred_at_once_exactly_those_are_accepted_for_whom_there_is_room(rig: Rig) -> None:
    rig.engine.set_limits(TENANT, concurrent=3, depth=10)
    said = await asyncio.gather(*(rig.begin(held(), n) for n in range(100)), return_exceptions=True)
    refused = [each for each in said if isinstance(each, TooMany)]
    assert len(refused) == 87
    world.hold.set()
    accepted = [each for each in said if not isinstance(each, BaseException)]
    assert {(await rig.ended(ex.id)).info.state for ex in accepted} == {"succeeded"}


async def test_a_run_that_could_not_be_kept_gives_its_place_back(rig: Rig) -> None:
    rig.engine.set_limits(TENANT, concurrent=1, depth=1)
    real = rig.engine.journal.save

    async def lost(ex: object) -> None:
        raise OSError("the disk is gone")

    rig.engine.save = lost  # type: ignore[assignment]
    for _ in range(5):
        with pytest.raises(OSError, match="the disk"):
            await rig.begin(held())
    rig.engine.save = real
    await rig.begin(held())


async def test_a_called_run_is_not_refused_when_the_line_is_full(tmp_path: Path) -> None:
    caller = drawn({"s": "start", "c": ("call", {"blueprint": "bp2"})}, "s.value > c.value")
    called = drawn({"s": "start", "r": ("read", {})}, "s.value > r.value")
    async with open_rig(f"sqlite:///{tmp_path}/f.db", bp2=called) as rig:
        rig.engine.set_limits(TENANT, concurrent=1, depth=0)
        ex = await rig.begin(caller, 7)
        assert (await rig.ended(ex.id)).output == 7


async def test_a_run_that_waits_for_its_turn_can_be_cancelled_at_once(rig: Rig) -> None:
    rig.engine.set_limits(TENANT, concurrent=1, depth=10)
    first, second, third = [await rig.begin(held(), n) for n in range(3)]
    await quiet(rig, 1, 2)
    await rig.runs.cancel(WHO, second.id)
    assert (await rig.runs.get(WHO, second.id)).info.state == "cancelled"
    world.hold.set()
    assert [(await rig.ended(ex.id)).info.state for ex in (first, third)] == ["succeeded"] * 2
    assert world.calls == [0, 2]


async def test_the_order_of_those_who_wait_survives_a_crash(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    async with open_rig(url) as rig:
        rig.engine.set_limits(TENANT, concurrent=1, depth=100)
        ids = [(await rig.begin(held(), n)).id for n in range(20)]
        await quiet(rig, 1, 19)
    world.calls.clear()
    world.hold.set()
    blueprint_order = sorted(range(20), key=lambda n: ids[n])
    async with open_rig(url) as rig:
        rig.engine.set_limits(TENANT, concurrent=1, depth=100)
        for id_ in ids:
            assert (await rig.ended(id_)).info.state == "succeeded"
    assert world.calls == blueprint_order


async def test_a_server_that_lets_all_go_keeps_no_place(rig: Rig) -> None:
    rig.engine.set_limits(TENANT, concurrent=2, depth=10)
    for n in range(5):
        await rig.begin(held(), n)
    await rig.engine.let_all_go()
    await quiet(rig, 0, 0)
    assert rig.engine.queue.working == 0


async def test_an_agent_with_a_high_priority_does_not_wait_for_one_with_many(rig: Rig) -> None:
    rig.engine.set_limits(TENANT, concurrent=1, depth=100)
    plan = rig.plans.of(TENANT, held())
    from nodes.ids import new_id
    from runtime.execution import Order

    many = [await rig.begin(held(), f"many {n}") for n in range(30)]
    urgent_plan = rig.plans.of(TENANT, held(priority="high"))
    urgent = [
        await rig.engine.accept(Order(new_id("run"), TENANT, urgent_plan, "s", f"urgent {n}", blueprint_id="bp_urgent"))
        for n in range(5)
    ]
    assert plan is not urgent_plan
    world.hold.set()
    for ex in many + urgent:
        await rig.ended(ex.id)
    places = [number for number, call in enumerate(world.calls) if str(call).startswith("urgent")]
    assert len(places) == 5 and places[-1] <= 10
