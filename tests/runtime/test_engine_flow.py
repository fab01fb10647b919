"""How values flow: branches, joins, loops, errors, retries and limits."""

from collections.abc import AsyncIterator

import pytest

from nodes.blueprint import Blueprint
from runtime.plan import PlanError
from tests.runtime.engines import Rig, open_rig, outputs, states
from tests.runtime.small_nodes import drawn, world


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    world.__init__()  # type: ignore[misc]
    async with open_rig(database_url) as rig:
        yield rig


BRANCHES = drawn(
    {"s": "start", "b": ("branch", {"formula": "n > 5"}), "big": ("compute", {"formula": "n * 2"}), "small": "compute", "g": "gather"},
    "s.value > b.value", "b.yes > big.value", "b.no > small.value", "big.value > g.values", "small.value > g.values",
)  # fmt: skip


async def test_a_branch_runs_one_side_and_skips_the_other(rig: Rig) -> None:
    view = await rig.run(BRANCHES, {"n": 7})
    assert view.info.state == "succeeded"
    assert states(view) == {
        "s": "succeeded",
        "b": "succeeded",
        "big": "succeeded",
        "small": "skipped",
        "g": "succeeded",
    }
    assert view.output == [14]


async def test_a_step_whose_required_input_is_dead_is_skipped(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "b": ("branch", {"formula": "false"}), "both": "both"},
        "s.value > b.value", "b.yes > both.a", "s.value > both.b",
    )  # fmt: skip
    assert states(await rig.run(blueprint, 1))["both"] == "skipped"


async def test_two_sides_join_in_document_order(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "slow": ("read", {"seconds": 0.05}), "fast": "read", "g": "gather"},
        "s.value > slow.value", "s.value > fast.value", "slow.value > g.values", "fast.value > g.values",
    )  # fmt: skip
    assert (await rig.run(blueprint, "x")).output == ["x", "x"]
    assert world.most_at_once == 2


async def test_first_of_goes_on_with_the_first_value(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "slow": ("read", {"seconds": 0.2}), "fast": "compute", "f": "first", "end": "compute"},
        "s.value > slow.value", "s.value > fast.value", "slow.value > f.values", "fast.value > f.values", "f.value > end.value",
    )  # fmt: skip
    view = await rig.run(blueprint, "x")
    assert outputs(view)["f"] == {"value": "x"}
    assert [step.node for step in view.steps if step.state == "succeeded"].count("end") == 1


async def test_formulas_see_the_input_earlier_steps_and_variables(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "c": ("compute", {"formula": "n + steps.start.value.n + vars.add + input.n"})},
        "s.value > c.value",
        variables=[{"name": "add", "value": 100}],
    )
    assert (await rig.run(blueprint, {"n": 1})).output == 103


async def test_a_field_goes_before_a_port_of_its_name_and_our_names_before_both(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "c": ("compute", {"formula": "[value, input.value, index, vars.n, input.vars]"})},
        "s.value > c.value",
        variables=[{"name": "n", "value": 100}],
    )
    given = {"value": 1, "index": 2, "vars": 3}
    assert (await rig.run(blueprint, given)).output == [1, 1, 2, 100, 3]


async def test_without_such_a_field_the_port_is_meant(rig: Rig) -> None:
    blueprint = drawn({"s": "start", "c": ("compute", {"formula": "value"})}, "s.value > c.value")
    assert (await rig.run(blueprint, {"n": 1})).output == {"n": 1}
    assert (await rig.run(blueprint, "x")).output == "x"


async def test_in_a_loop_item_and_index_are_those_of_the_loop(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": "each", "c": ("compute", {"formula": "[item.index, index]"})},
        "s.value > each.items", "each.item > c.value", "c.value > each.result",
    )  # fmt: skip
    view = await rig.run(blueprint, [{"item": "a", "index": 7}])
    assert outputs(view)["each"] == {"done": [[7, 0]]}


LOOP = drawn(
    {"s": "start", "each": ("each", {"parallel": 3}), "c": ("compute", {"formula": "item * 10 + index"}), "end": "compute"},
    "s.value > each.items", "each.item > c.value", "c.value > each.result", "each.done > end.value",
)  # fmt: skip


async def test_for_each_collects_in_order(rig: Rig) -> None:
    assert (await rig.run(LOOP, list(range(40)))).output == [n * 11 for n in range(40)]


async def test_for_each_over_nothing_gives_nothing(rig: Rig) -> None:
    assert (await rig.run(LOOP, [])).output == []


async def test_for_each_never_works_on_more_items_than_allowed(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": ("each", {"parallel": 4}), "r": ("read", {"seconds": 0.01})},
        "s.value > each.items", "each.item > r.value", "r.value > each.result",
    )  # fmt: skip
    view = await rig.run(blueprint, list(range(20)))
    assert outputs(view)["each"] == {"done": list(range(20))}
    assert world.most_at_once == 4


async def test_loops_nest_and_see_values_from_outside(rig: Rig) -> None:
    blueprint = drawn(
        {
            "s": "start", "outer": "each", "inner": "each", "sum": ("compute", {"formula": "input * 2"}),
            "both": "both", "k": ("compute", {"formula": "7"}),
        },
        "k.value > both.b",
        "s.value > outer.items", "outer.item > inner.items", "inner.item > sum.value", "sum.value > both.a",
        "both.value > inner.result", "inner.done > outer.result",
    )  # fmt: skip
    view = await rig.run(blueprint, [[1, 2], [], [3]])
    assert outputs(view)["outer"] == {"done": [[[2, 7], [4, 7]], [], [[6, 7]]]}
    assert outputs(view)["sum/0.1"] == {"value": 4}


async def test_items_that_are_filtered_out_do_not_come_back(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": "each", "b": ("branch", {"formula": "item > 2"}), "c": "compute"},
        "s.value > each.items", "each.item > b.value", "b.yes > c.value", "c.value > each.result",
    )  # fmt: skip
    assert outputs(await rig.run(blueprint, [1, 2, 3, 4]))["each"] == {"done": [3, 4]}


@pytest.mark.parametrize(("policy", "done"), [("continue", [1, None, 3]), ("drop", [1, 3])])
async def test_a_failing_item_is_left_out_or_replaced(rig: Rig, policy: str, done: list[object]) -> None:
    blueprint = drawn(
        {"s": "start", "each": ("each", {"on_item_error": policy}), "c": ("compute", {"formula": "input + 0"}), "d": "compute"},
        "s.value > each.items", "each.item > c.value", "c.value > d.value", "d.value > each.result",
    )  # fmt: skip
    view = await rig.run(blueprint, [1, "two", 3])
    assert outputs(view)["each"] == {"done": done}


async def test_a_failing_item_ends_the_loop_and_names_itself(rig: Rig) -> None:
    view = await rig.run(
        drawn(
            {"s": "start", "each": ("each", {"parallel": 2}), "c": ("compute", {"formula": "input + 0"})},
            "s.value > each.items", "each.item > c.value", "c.value > each.result",
        ),
        [1, "two", 3],
    )  # fmt: skip
    assert view.info.state == "failed"
    assert view.info.error and view.info.error["message"].startswith("Item 2 of “Each” failed")


async def test_a_loop_can_send_its_failure_out_of_the_error_port(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": ("each", {}, {"on_error": "port"}), "c": ("compute", {"formula": "nope"}), "e": "compute"},
        "s.value > each.items", "each.item > c.value", "c.value > each.result", "each.error > e.value",
    )  # fmt: skip
    view = await rig.run(blueprint, [1])
    assert view.info.state == "succeeded" and view.output["message"].startswith("Item 1")


async def test_too_many_items_are_refused_in_words(rig: Rig) -> None:
    view = await rig.run(LOOP, list(range(1_001)))
    assert view.info.error and view.info.error["code"] == "limit.loop_items" and "1,001" in view.info.error["message"]


async def test_a_retry_can_rescue_a_step(rig: Rig) -> None:
    world.fail_times = 2
    blueprint = drawn(
        {"s": "start", "e": ("effect", {}, {"retries": 3, "first_delay": 0.01})}, "s.value > e.value"
    )  # fmt: skip
    view = await rig.run(blueprint, "x")
    assert view.info.state == "succeeded"
    assert view.steps[-1].attempt == 3
    assert list(world.keys.values()) == [3], "every attempt uses the same key"


async def test_what_cannot_get_better_is_not_tried_again(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "e": ("effect", {"fail": True}, {"retries": 3, "first_delay": 0.01})}, "s.value > e.value"
    )
    view = await rig.run(blueprint, "x")
    assert view.info.state == "failed" and len(world.calls) == 1
    assert view.info.error == {
        "code": "step.remote", "message": "it said no", "fix": "ask again", "where": {"node": "e"}, "category": "remote",
    }  # fmt: skip


@pytest.mark.parametrize(("on_error", "expected"), [("continue", None), ("port", "it said no")])
async def test_a_run_can_go_on_after_an_error(rig: Rig, on_error: str, expected: object) -> None:
    port = "value" if on_error == "continue" else "error"
    formula = "input" if on_error == "continue" else "input.message"
    blueprint = drawn(
        {"s": "start", "e": ("effect", {"fail": True}, {"on_error": on_error}), "c": ("compute", {"formula": formula})},
        "s.value > e.value", f"e.{port} > c.value",
    )  # fmt: skip
    view = await rig.run(blueprint, "x")
    assert (view.info.state, view.output) == ("succeeded", expected)


async def test_a_step_that_takes_too_long_is_stopped(rig: Rig) -> None:
    blueprint = drawn({"s": "start", "e": ("read", {"seconds": 5}, {"timeout": 0.05})}, "s.value > e.value")
    view = await rig.run(blueprint, "x")
    assert view.info.error and view.info.error["code"] == "step.timeout"


async def test_an_unforeseen_failure_says_so_without_its_inside(rig: Rig) -> None:
    view = await rig.run(drawn({"s": "start", "b": "bug"}, "s.value > b.value"), "x")
    assert view.info.error and view.info.error["code"] == "step.bug"
    assert "secret detail" not in str(view.info.error)


async def test_a_step_that_is_switched_off_passes_its_input_on(rig: Rig) -> None:
    raw = drawn({"s": "start", "e": "effect", "c": "compute"}, "s.value > e.value", "e.value > c.value").model_dump()
    raw["nodes"][1]["disabled"] = True
    view = await rig.run(Blueprint.parse(raw), "x")
    assert view.output == "x" and not world.calls


async def test_the_response_is_the_output(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "r": "respond", "c": ("compute", {"formula": "1"})}, "s.value > r.value", "r.value > c.value"
    )
    assert (await rig.run(blueprint, "hello")).output == "hello"


async def test_a_thousand_steps_in_a_row_and_a_thousand_skipped_ones(rig: Rig) -> None:
    nodes = {"s": "start", "b": ("branch", {"formula": "input"})} | {f"n{i}": "compute" for i in range(990)}
    wires = ["s.value > b.value", "b.yes > n0.value"] + [f"n{i}.value > n{i + 1}.value" for i in range(989)]
    blueprint = drawn(nodes, *wires)
    assert set(states(await rig.run(blueprint, True)).values()) == {"succeeded"}
    assert states(await rig.run(blueprint, False))["n989"] == "skipped"


def test_a_circle_is_refused_with_the_names_on_it() -> None:
    blueprint = drawn({"s": "start", "a": "compute", "b": "compute"}, "a.value > b.value", "b.value > a.value")
    from runtime.plan import compile_plan
    from tests.runtime.small_nodes import TYPES

    with pytest.raises(PlanError, match="in a circle: “Compute” → “Compute”"):
        compile_plan(blueprint, TYPES)
