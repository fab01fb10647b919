"""Loops of rounds, joins of the first few, and variables of a run: live, after a crash, and in the story."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.ids import new_id
from runtime.events import Fact
from runtime.execution import Execution, Order
from runtime.story import Story
from runtime.views import RunView
from tests.runtime.engines import TENANT, WHO, Rig, open_rig, outputs, states
from tests.runtime.small_nodes import drawn, world


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    world.__init__()  # type: ignore[misc]
    async with open_rig(f"sqlite:///{tmp_path}/factory.db") as rig:
        yield rig


def rounds(body: str = "item + 1", **settings: Any) -> Blueprint:
    return drawn(
        {"s": "start", "again": ("again", {"until": "result >= 3"} | settings), "c": ("compute", {"formula": body}), "end": "compute"},
        "s.value > again.value", "again.item > c.value", "c.value > again.result", "again.done > end.value",
    )  # fmt: skip


async def facts_of(rig: Rig, run_id: str) -> list[Fact]:
    return (await rig.engine.journal.load(TENANT, run_id))[2]


async def taken_up(rig: Rig, blueprint: Blueprint, facts: list[Fact]) -> RunView:
    """A run that goes on from these facts, told from its own."""
    plan = rig.plans.of(TENANT, blueprint)
    ex = Execution(rig.engine, Order(new_id("test"), TENANT, plan, None, None, sandbox=True))
    ex.replay(facts)
    rig.engine.launch(ex)
    await ex.ended.wait()
    story = Story(plan)
    for fact in facts + ex.history:
        story.tell(fact)
    info = (await rig.runs.list(WHO, limit=1))[0]
    return story.view(replace(info, state=ex.state.value, error=ex.error))


async def test_steps_repeat_with_the_last_result_until_the_condition_holds(rig: Rig) -> None:
    view = await rig.run(rounds(), 0)
    assert view.output == 3
    assert outputs(view) | {"s": None} == {
        "s": None, "c/0": {"value": 1}, "c/1": {"value": 2}, "c/2": {"value": 3}, "again": {"done": 3}, "end": {"value": 3},
    }  # fmt: skip
    assert next(step for step in view.steps if step.node == "again").note == "3 rounds"


async def test_the_steps_run_at_least_once(rig: Rig) -> None:
    assert (await rig.run(rounds(until="true"), 5)).output == 6


async def test_a_loop_without_steps_gives_what_arrived(rig: Rig) -> None:
    blueprint = drawn({"s": "start", "again": ("again", {"until": "false"})}, "s.value > again.value")
    assert (await rig.run(blueprint, 5)).output == 5


async def test_a_round_that_gives_nothing_leaves_the_value(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "again": ("again", {"until": "index == 3"}), "b": ("branch", {"formula": "index == 1"}),
         "c": ("compute", {"formula": "item * 10"})},
        "s.value > again.value", "again.item > b.value", "b.yes > c.value", "c.value > again.result",
    )  # fmt: skip
    assert (await rig.run(blueprint, 4)).output == 40


async def test_rounds_that_never_suffice_end_in_words_and_may_leave_by_the_error_port(rig: Rig) -> None:
    view = await rig.run(rounds(until="false", most=20), 0)
    assert view.info.error and view.info.error["code"] == "step.limit" and view.info.error["where"] == {"node": "again"}
    blueprint = drawn(
        {"s": "start", "again": ("again", {"until": "nope > 1"}, {"on_error": "port"}), "c": "compute", "e": "compute"},
        "s.value > again.value", "again.item > c.value", "c.value > again.result", "again.error > e.value",
    )  # fmt: skip
    assert "nope" in (await rig.run(blueprint, 0)).output["message"]


@pytest.mark.parametrize(("drop", "state"), [(True, "succeeded"), (False, "failed")])
async def test_a_failing_round_ends_the_loop_or_counts_as_one_without_result(rig: Rig, drop: bool, state: str) -> None:
    view = await rig.run(rounds("item + (1 if index != 1 else 'x')", drop=drop), 0)
    assert view.info.state == state
    if drop:
        assert view.output == 3 and world.asked == [0, 1, 2, 3]
    else:
        assert view.info.error and view.info.error["message"].startswith("Round 2 of “Again” failed")


async def test_rounds_nest_in_loops_and_loops_in_rounds(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": "each", "again": ("again", {"until": "result | length > 2"}),
         "inner": "each", "c": ("compute", {"formula": "item + 1"}), "all": ("compute", {"formula": "input + [0]"})},
        "s.value > each.items", "each.item > again.value", "again.item > inner.items", "inner.item > c.value",
        "c.value > inner.result", "inner.done > all.value", "all.value > again.result", "again.done > each.result",
    )  # fmt: skip
    assert (await rig.run(blueprint, [[5], [7, 8]])).output == [[7, 1, 0], [8, 9, 0]]


async def test_wherever_a_crash_cuts_the_rounds_they_come_to_the_same_end(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "again": ("again", {"until": "vars.seen >= 3"}), "c": ("compute", {"formula": "item + 1"}),
         "n": ("note", {"name": "seen", "formula": "vars.seen + 1"}), "end": ("compute", {"formula": "[input, vars.seen]"})},
        "s.value > again.value", "again.item > c.value", "c.value > n.value", "n.value > again.result", "again.done > end.value",
        variables=[{"name": "seen", "value": 0}],
    )  # fmt: skip
    view = await rig.run(blueprint, 10)
    assert view.output == [13, 3]
    facts = await facts_of(rig, view.info.id)
    for cut in range(1, len(facts)):
        again = await taken_up(rig, blueprint, facts[:cut])
        assert again.output == [13, 3], cut
        assert outputs(again) == outputs(view), cut


async def test_whether_another_round_follows_is_decided_once(rig: Rig) -> None:
    view = await rig.run(rounds(), 0)
    facts = await facts_of(rig, view.info.id)
    world.asked.clear()
    assert (await taken_up(rig, rounds(), facts[:-3])).output == 3
    assert world.asked == [2], "the first two decisions are facts"


async def test_the_first_few_values_are_enough(rig: Rig) -> None:
    world.__init__()  # type: ignore[misc]
    blueprint = drawn(
        {"s": "start", "a": "compute", "b": "compute", "slow": ("effect", {"hold": True}), "two": "two", "end": "respond"},
        "s.value > a.value", "s.value > b.value", "s.value > slow.value",
        "a.value > two.values", "b.value > two.values", "slow.value > two.values", "two.value > end.value",
    )  # fmt: skip
    ex = await rig.begin(blueprint, "x")
    async for fact in rig.runs.watch(WHO, ex.id):
        if fact["kind"] == "run.responded":
            break
    assert fact["body"] == ["x", "x"]
    world.hold.set()
    assert outputs(await rig.ended(ex.id))["two"] == {"value": ["x", "x"]}


async def test_if_fewer_values_come_it_goes_on_with_those(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "b": ("branch", {"formula": "false"}), "two": "two", "none": "two"},
        "s.value > b.value", "b.yes > two.values", "b.no > two.values", "b.yes > none.values",
    )  # fmt: skip
    view = await rig.run(blueprint, 1)
    assert outputs(view)["two"] == {"value": [1]} and states(view)["none"] == "skipped"


async def test_a_variable_of_a_run_goes_before_the_agents_and_is_gone_with_the_run(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "a": ("compute", {"formula": "vars.x"}), "n": ("note", {"name": "x", "formula": "vars.x + input"}),
         "b": ("compute", {"formula": "vars.x"})},
        "s.value > a.value", "a.value > n.value", "n.value > b.value",
        variables=[{"name": "x", "value": 2}],
    )  # fmt: skip
    for _ in range(2):
        view = await rig.run(blueprint, 5)
        assert outputs(view)["a"] == {"value": 2} and outputs(view)["b"] == {"value": 4}
