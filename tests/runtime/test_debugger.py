"""Test runs that are held: at breakpoints, step by step, with outputs written by hand; and that others never are."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.errors import Conflict, Denied, FactoryError, NotFound, TooMany
from runtime.debugger import Held
from runtime.policy import Role
from runtime.sandbox import MAX_HELD
from tests.runtime.engines import WHO, Rig, open_rig, outputs, states
from tests.runtime.small_nodes import drawn, world

CHAIN = ("s.value > a.value", "a.value > b.value", "b.value > c.value")


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    world.__init__()  # type: ignore[misc]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'factory.db'}"


def chain(a: Any = "compute", b: Any = "compute", c: Any = "compute") -> Blueprint:
    return drawn({"s": "start", "a": a, "b": b, "c": c}, *CHAIN)


async def held(rig: Rig, run_id: str, after: Held | None = None) -> Held:
    """Where the run is held, once it is, and not where it was before."""
    async with asyncio.timeout(10):
        while (found := rig.sandbox.held(WHO, run_id)) is None or found == after:
            await asyncio.sleep(0)
    return found


async def test_a_run_is_held_before_a_breakpoint_with_what_comes_in(url: str) -> None:
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, chain(), 7, breakpoints={"b"})
        assert await held(rig, run) == Held("b", "", 7, "breakpoint")
        view = await rig.runs.get(WHO, run)
        assert {step.node: step.state for step in view.steps} == {"s": "succeeded", "a": "succeeded", "b": "waiting"}
        assert view.steps[-1].input == 7
        rig.sandbox.go_on(WHO, run, "continue")
        assert (await rig.ended(run)).output == 7
        assert rig.sandbox.held(WHO, run) is None


async def test_step_by_step_every_step_is_held(url: str) -> None:
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, chain(b="read"), 7, step=True)
        seen, now = [], None
        for _ in range(4):
            now = await held(rig, run, now)
            seen.append((now.node, now.why))
            rig.sandbox.go_on(WHO, run, "step")
        assert seen == [(id_, "step") for id_ in "sabc"]
        assert (await rig.ended(run)).info.state == "succeeded"


async def test_a_held_step_can_be_told_what_it_gives(url: str) -> None:
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, chain(b="bug"), 7, breakpoints={"b"})
        await held(rig, run)
        rig.sandbox.put(WHO, run, "b", {"value": 70})
        rig.sandbox.go_on(WHO, run, "continue")
        view = await rig.ended(run)
        assert (view.info.state, view.output) == ("succeeded", 70)
        assert {step.node: step.note for step in view.steps}["b"] == "gave what you wrote"


async def test_what_is_written_decides_which_way_it_goes(url: str) -> None:
    drawing = drawn(
        {"s": "start", "way": "branch", "yes": "compute", "no": "compute"},
        "s.value > way.value", "way.yes > yes.value", "way.no > no.value",
    )  # fmt: skip
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, drawing, 7, breakpoints={"way"})
        await held(rig, run)
        rig.sandbox.put(WHO, run, "way", {"no": 1})
        rig.sandbox.go_on(WHO, run, "continue")
        assert states(await rig.ended(run)) == {
            "s": "succeeded",
            "way": "succeeded",
            "yes": "skipped",
            "no": "succeeded",
        }


async def test_a_whole_loop_can_be_written(url: str) -> None:
    drawing = drawn(
        {"s": "start", "each": "each", "inner": "bug", "end": "compute"},
        "s.value > each.items", "each.item > inner.value", "inner.value > each.result", "each.done > end.value",
    )  # fmt: skip
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, drawing, [1, 2], breakpoints={"each"})
        await held(rig, run)
        with pytest.raises(FactoryError):
            rig.sandbox.put(WHO, run, "each", {"item": 1})
        rig.sandbox.put(WHO, run, "each", {"done": ["x"]})
        rig.sandbox.go_on(WHO, run, "continue")
        assert (await rig.ended(run)).output == ["x"]


async def test_a_breakpoint_inside_a_loop_holds_each_item(url: str) -> None:
    drawing = drawn(
        {"s": "start", "each": "each", "inner": "compute"},
        "s.value > each.items", "each.item > inner.value", "inner.value > each.result",
    )  # fmt: skip
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, drawing, ["x", "y"], breakpoints={"inner"})
        first = await held(rig, run)
        rig.sandbox.go_on(WHO, run, "continue")
        second = await held(rig, run, first)
        assert first == Held("inner", "0", "x", "breakpoint")
        assert second == Held("inner", "1", "y", "breakpoint")
        rig.sandbox.break_at(WHO, run, ())
        rig.sandbox.go_on(WHO, run, "continue")
        assert (await rig.ended(run)).output == ["x", "y"]


async def test_when_nobody_looks_any_more_nothing_is_held(url: str) -> None:
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, chain(), 7, step=True)
        await held(rig, run)
        rig.sandbox.leave(WHO, run)
        assert (await rig.ended(run)).info.state == "cancelled"


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_held_run_can_be_ended(url: str, how: str) -> None:
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, chain(), 7, breakpoints={"b"})
        await held(rig, run)
        if how == "stop":
            rig.sandbox.go_on(WHO, run, "stop")
        else:
            await rig.runs.cancel(WHO, run)
        view = await rig.ended(run)
        assert view.info.state == "cancelled"
        assert {step.node: step.state for step in view.steps}["b"] == "cancelled"


async def test_a_failure_elsewhere_ends_a_held_run(url: str) -> None:
    drawing = drawn(
        {"s": "start", "a": ("effect", {"hold": True, "fail": True}), "b": "compute"},
        "s.value > a.value",
        "s.value > b.value",
    )
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, drawing, 7, breakpoints={"b"}, allow=frozenset({"a"}))
        await held(rig, run)
        world.hold.set()
        assert (await rig.ended(run)).info.state == "failed"


async def test_held_and_gone_on_with_from_a_step(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(b="bug"), 7)
        past = await rig.runs.past(WHO, first.info.id)
        seen = await rig.sandbox.preview(WHO, chain(), past)
        assert (seen.kept, seen.runs) == (("s", "a"), ("b", "c"))
        run = await rig.sandbox.start(WHO, chain(), reuse_of=past, step=True)
        assert (await held(rig, run)).node == "b", "what is used again is not held"
        rig.sandbox.go_on(WHO, run, "continue")
        assert outputs(await rig.ended(run)) == {id_: {"value": 7} for id_ in "sabc"}


async def test_nobody_else_can_move_a_held_run(url: str) -> None:
    async with open_rig(url) as rig:
        run = await rig.sandbox.start(WHO, chain(), 7, breakpoints={"b"})
        await held(rig, run)
        with pytest.raises(NotFound):
            rig.sandbox.go_on(replace(WHO, tenant="others"), run, "continue")
        with pytest.raises(Denied):
            rig.sandbox.put(replace(WHO, role=Role.VIEWER), run, "b", {})
        with pytest.raises(Conflict):
            rig.sandbox.put(WHO, run, "c", {"value": 1})
        with pytest.raises(FactoryError):
            rig.sandbox.put(WHO, run, "b", {"nothing": 1})
        rig.sandbox.go_on(WHO, run, "continue")
        await rig.ended(run)
        with pytest.raises(Conflict):
            rig.sandbox.go_on(WHO, run, "continue")


async def test_only_so_many_are_held_at_once(url: str) -> None:
    async with open_rig(url) as rig:
        runs = [await rig.sandbox.start(WHO, chain(), 7, breakpoints={"a"}) for _ in range(MAX_HELD)]
        for run in runs:
            await held(rig, run)
        with pytest.raises(TooMany):
            await rig.sandbox.start(WHO, chain(), 7, breakpoints={"a"})
        assert (await rig.ended(await rig.sandbox.start(WHO, chain(), 7))).info.state == "succeeded"


async def test_a_live_run_knows_no_breakpoints(url: str) -> None:
    async with open_rig(url) as rig:
        ex = await rig.begin(chain(), 7)
        assert ex.order.debug is None
        await rig.ended(ex.id)
        with pytest.raises(NotFound):
            rig.sandbox.held(WHO, ex.id)
