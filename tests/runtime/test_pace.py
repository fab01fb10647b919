"""Steps that may start only so often: never more in any span of time, across runs, and long waits as rows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.blueprint import Blueprint
from runtime.pace import Pace
from tests.runtime.engines import TENANT, WHO, Rig, open_rig, outputs
from tests.runtime.small_nodes import drawn, world


@given(
    at_most=st.integers(1, 5),
    per=st.floats(1, 100),
    steps=st.lists(st.floats(0, 60), min_size=1, max_size=40),
)
def test_no_span_of_time_has_more_starts_than_allowed(at_most: int, per: float, steps: list[float]) -> None:
    pace, now, starts = Pace(), 1_000.0, []
    for pause in steps:
        now += pause
        starts.append(now + pace.pretend(("lane",), at_most, per, now))
    assert starts == sorted(starts)
    for first, last in zip(starts, starts[at_most:], strict=False):
        assert last - first >= per * (1 - 1e-9)


def test_nobody_waits_while_there_is_room() -> None:
    pace = Pace()
    assert [pace.pretend(("a",), 2, 10, 0.0) for _ in range(5)] == [0, 0, 10, 10, 20]
    assert pace.pretend(("b",), 2, 10, 0.0) == 0
    assert pace.pretend(("a",), 2, 10, 100.0) == 0


def paced(at_most: int, per: float) -> Blueprint:
    return drawn(
        {"s": "start", "e": ("unkeyed", {}, {"at_most": at_most, "per": per})}, "s.value > e.value"
    )  # fmt: skip


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    world.__init__()  # type: ignore[misc]
    async with open_rig(f"sqlite:///{tmp_path}/factory.db") as rig:
        yield rig


async def test_a_long_wait_for_its_turn_is_rows_only_and_over_in_time(rig: Rig) -> None:
    blueprint = paced(1, 3_600)
    assert (await rig.run(blueprint, "first")).info.state == "succeeded"
    ex = await rig.begin(blueprint, "second")
    view = await rig.waiting(ex.id)
    assert world.calls == ["first"]
    assert next(step for step in view.steps if step.node == "e").note.startswith("waits for its turn")
    now = rig.engine.clock()
    rig.engine.clock = lambda: now + 3_601
    await rig.engine.tick()
    assert outputs(await rig.ended(ex.id))["e"] == {"value": "second"}
    assert world.calls == ["first", "second"]


async def test_a_short_wait_is_waited_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    blueprint = paced(1, 1)
    now = rig.engine.clock()
    rig.engine.clock = lambda: now
    await rig.run(blueprint, "first")
    rig.engine.clock = lambda: now + 0.75
    with monkeypatch.context() as patch:
        patch.setattr("runtime.steps.asyncio.sleep", note)
        view = await rig.run(blueprint, "second")
    assert view.info.state == "succeeded"
    assert any(0.24 < seconds < 0.26 for seconds in waited)


async def test_each_agent_and_each_tenant_has_a_pace_of_its_own(rig: Rig) -> None:
    await rig.run(paced(1, 3_600), "first")
    now = rig.engine.clock()
    for tenant, agent, wait in ((TENANT, "other", False), ("other", "bp", False), (TENANT, "bp", True)):
        moment = await rig.engine.pace.turn(tenant, agent, "e", "another", at_most=1, per=3_600, now=now)
        assert (moment > now + 3_000) is wait


async def test_a_restart_does_not_forget_what_was_started(tmp_path: Path) -> None:
    world.__init__()  # type: ignore[misc]
    blueprint = paced(1, 3_600)
    for value, state in (("first", "succeeded"), ("second", "waiting")):
        async with open_rig(f"sqlite:///{tmp_path}/factory.db") as rig:
            ex = await rig.begin(blueprint, value)
            view = await (rig.ended(ex.id) if state == "succeeded" else rig.waiting(ex.id))
            assert view.info.state == state
    assert world.calls == ["first"]


async def test_the_sandbox_says_how_long_it_would_wait(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": "each", "e": ("compute", {}, {"at_most": 2, "per": 60})},
        "s.value > each.items", "each.item > e.value", "e.value > each.result",
    )  # fmt: skip
    view = await rig.ended(await rig.sandbox.start(WHO, blueprint, [1, 2, 3]))
    assert outputs(view)["each"] == {"done": [1, 2, 3]}
    assert view.effects == ["would wait 60 seconds for its turn; the sandbox goes on at once"]


async def test_a_crash_after_its_turn_still_asks_about_what_may_have_happened(tmp_path: Path) -> None:
    world.__init__()  # type: ignore[misc]
    blueprint = drawn(
        {"s": "start", "e": ("unkeyed", {"hold": True}, {"at_most": 1, "per": 3_600})}, "s.value > e.value"
    )  # fmt: skip
    async with open_rig(f"sqlite:///{tmp_path}/factory.db") as rig:
        await rig.engine.pace.turn(TENANT, "bp", "e", "another", at_most=1, per=3_600, now=rig.engine.clock())
        ex = await rig.begin(blueprint, "x")
        await rig.waiting(ex.id)
        now = rig.engine.clock()
        rig.engine.clock = lambda: now + 3_601
        await rig.engine.tick()
        async with asyncio.timeout(20):
            while not world.calls:
                await asyncio.sleep(0.005)
    async with open_rig(f"sqlite:///{tmp_path}/factory.db") as rig:
        view: Any = await rig.waiting(ex.id)
        assert next(step for step in view.steps if step.node == "e").state == "in doubt"
