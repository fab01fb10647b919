"""What leads runs along: repeating, bringing together, waiting, calling."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from nodes.base import Loop, NodeError, Pause, PortType
from nodes.formula import FormulaError
from tests.nodes.fakes import NOW, FakeContext, make, outcome_of, run

# --- for each ----------------------------------------------------------------------------------------------------------


def items(arrived: Any, **settings: Any) -> list[Any]:
    node, context = make("flow.for_each", **settings), FakeContext()
    assert isinstance(node, Loop)
    context.bind(node, {"items": arrived})
    return node.items_of(context, arrived)


def test_a_loop_has_the_ports_that_the_engine_knows() -> None:
    node = make("flow.for_each")
    assert [(port.name, port.back) for port in node.inputs()] == [("items", False), ("result", True)]
    assert [port.name for port in node.outputs()] == ["item", "done"]


@pytest.mark.parametrize("arrived", [None, {"a": [1]}, "abc", 5])
def test_what_is_no_list_cannot_be_gone_through(arrived: Any) -> None:
    with pytest.raises(NodeError, match="needs a list"):
        items(arrived)


def test_the_list_can_be_a_part_or_a_calculation() -> None:
    assert items({"lines": [3, 1]}, over="lines | sort") == [1, 3]


def test_a_loop_has_a_bound() -> None:
    with pytest.raises(NodeError, match="3 items"):
        items([1, 2, 3], most=2)


# --- merge -------------------------------------------------------------------------------------------------------------


async def merged(*values: Any, **settings: Any) -> Any:
    return (await run(make("flow.merge", **settings), {"values": list(values)}))["value"]


def test_any_kind_can_be_connected_often() -> None:
    port = make("flow.merge").inputs()[0]
    assert port.many
    assert port.type == PortType.ANY


def test_the_setting_says_what_to_wait_for() -> None:
    assert make("flow.merge").join_here() == "all"
    assert make("flow.merge", mode="first").join_here() == "first"


async def test_ways_of_putting_values_together() -> None:
    assert await merged(1, 2) == 1
    assert await merged(1, 2, combine="list") == [1, 2]
    assert await merged([1], None, 2, combine="lists") == [1, 2]
    assert await merged({"a": 1, "b": 1}, None, {"b": 2}, combine="records") == {"a": 1, "b": 2}


async def test_what_is_no_record_does_not_become_part_of_one() -> None:
    with pytest.raises(NodeError, match="a text arrived"):
        await merged({"a": 1}, "x", combine="records")


async def test_merging_leaves_what_arrived_alone() -> None:
    first = {"a": 1}
    await merged(first, {"a": 2}, combine="records")
    assert first == {"a": 1}


PEOPLE = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bo"}, {"id": None, "name": "Cy"}]
SCORES = [{"id": 2.0, "score": 7}, {"id": 2, "score": 8}, {"id": 3, "score": 9}, {"id": None, "score": 0}]
BO = [{"id": 2.0, "name": "Bo", "score": 7}, {"id": 2, "name": "Bo", "score": 8}]


@pytest.mark.parametrize(
    ("keep", "value"),
    [
        ("both", BO),
        ("first", [PEOPLE[0], *BO, PEOPLE[2]]),
        ("all", [PEOPLE[0], *BO, PEOPLE[2], SCORES[2], SCORES[3]]),
    ],
)
async def test_lists_are_joined_by_a_key_and_nothing_is_no_key(keep: str, value: Any) -> None:
    assert await merged(PEOPLE, SCORES, combine="key", key="id", keep=keep) == value


async def test_the_key_may_be_a_formula_and_differ_in_the_other_lists() -> None:
    made = await merged([{"a": {"x": "K"}}], [{"k": "k"}], combine="key", key="a.x | lower", other_key="item.k")
    assert made == [{"a": {"x": "K"}, "k": "k"}]


@pytest.mark.parametrize(
    ("keep", "value"), [("both", [["a", 1]]), ("first", [["a", 1], "b"]), ("all", [["a", 1], "b"])]
)
async def test_lists_are_put_together_by_position(keep: str, value: Any) -> None:
    assert await merged(["a", "b"], [1], combine="position", keep=keep) == value


async def test_the_longer_list_may_be_any_of_them() -> None:
    assert await merged(["a"], [1, 2], combine="position", keep="first") == [["a", 1]]
    assert await merged(["a"], [1, 2], combine="position", keep="all") == [["a", 1], 2]


async def test_what_is_no_list_cannot_be_put_together_by_items() -> None:
    with pytest.raises(NodeError, match="Only lists"):
        await merged([1], {"a": 1}, combine="position")
    with pytest.raises(NodeError, match="key of an item of list 2"):
        await merged([{"id": 1}], [{"no": 1}], combine="key", key="id")
    with pytest.raises(ValidationError):
        make("flow.merge", combine="key")


async def test_a_key_that_all_share_does_not_fill_the_memory() -> None:
    alike = [{"id": 1}] * 400
    with pytest.raises(NodeError, match="same key"):
        await merged(alike, alike, combine="key", key="id")


def test_some_of_the_ways_may_be_enough() -> None:
    assert make("flow.merge").enough() == 0
    assert make("flow.merge", mode="first").enough() == 1
    some = make("flow.merge", mode="some", count=3)
    assert (some.enough(), some.join_here()) == (3, "first")


# --- repeat, variables, batches ------------------------------------------------------------------------------------------


def more(result: Any, index: int, **settings: Any) -> bool:
    node, context = make("flow.repeat", **settings), FakeContext()
    assert isinstance(node, Loop)
    context.bind(node, {"value": {"goal": 3}})
    return node.again(context, result, index)


def test_a_condition_knows_the_result_its_fields_and_the_round() -> None:
    assert more({"n": 2}, 0, until="n >= goal")
    assert not more({"n": 3}, 0, until="result.n >= input.goal")
    assert not more(None, 4, until="index == 4")


def test_rounds_have_an_end() -> None:
    with pytest.raises(NodeError, match="After 3 rounds"):
        more({"n": 2}, 2, until="n > 9", most=3)
    assert not more({"n": 2}, 2, until="n > 9", most=3, at_most="go on")
    with pytest.raises(ValidationError):
        make("flow.repeat", until="n > 9", most=1_001)
    with pytest.raises(ValidationError):
        make("flow.repeat", until="  ")


async def test_a_variable_is_what_a_formula_gives_or_what_arrives() -> None:
    given = {"vars": {"total": 2}}
    made = await run(
        make("flow.set_variable", name="total", to="vars.total + n"), {"value": {"n": 1}}, FakeContext(given)
    )
    assert made == {"value": {"n": 1}, "variable": 3}
    assert await run(make("flow.set_variable", name="x"), {"value": 1}) == {"value": 1, "variable": 1}


def test_a_list_can_be_gone_through_in_batches() -> None:
    assert items([1, 2, 3, 4, 5], batch=2) == [[1, 2], [3, 4], [5]]
    assert items([], batch=2) == []


# --- wait --------------------------------------------------------------------------------------------------------------


async def waiting(value: Any = None, given: dict[str, Any] | None = None, **settings: Any) -> Any:
    return await outcome_of(make("flow.wait", **settings), {"value": value}, FakeContext(given))


async def test_a_while_is_counted_from_now() -> None:
    pause = await waiting(amount=1.5, unit="hours")
    assert pause == Pause("until", NOW.timestamp() + 5400)


async def test_a_moment_without_time_is_midnight_in_the_agents_time_zone() -> None:
    pause = await waiting({"due": "2026-03-05"}, {"time_zone": "Europe/Berlin"}, mode="until", until="due")
    assert datetime.fromtimestamp(pause.until, UTC) == datetime(2026, 3, 4, 23, tzinfo=UTC)


@pytest.mark.parametrize("settings", [{"amount": 0}, {"mode": "until", "until": "'2026-03-02T09:00:00Z'"}])
async def test_what_has_passed_is_not_waited_for(settings: dict[str, Any]) -> None:
    assert not isinstance(await waiting(**settings), Pause)


async def test_a_moment_far_away_is_refused() -> None:
    with pytest.raises(NodeError, match="year"):
        await waiting(mode="until", until="'2030-01-01'")


async def test_what_is_no_moment_is_said() -> None:
    with pytest.raises(FormulaError):
        await waiting("soon", mode="until", until="input")


@pytest.mark.parametrize("settings", [{"mode": "until"}, {"amount": -1}, {"amount": 400, "unit": "days"}])
def test_an_impossible_wait_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make("flow.wait", **settings)


# --- call a blueprint --------------------------------------------------------------------------------------------------


async def test_another_agent_is_called_with_what_arrives_or_with_an_input_made_here() -> None:
    context = FakeContext()
    plain = await outcome_of(make("flow.call_blueprint", blueprint="bp_1"), {"value": {"n": 1}}, context)
    assert plain == Pause("call", None, {"blueprint": "bp_1", "input": {"n": 1}})
    own = make("flow.call_blueprint", blueprint="bp_1", input='{"m": "{{ n }}"}')
    made = await outcome_of(own, {"value": {"n": 1}}, context)
    assert made.data["input"] == {"m": 1}


def test_a_call_needs_somebody_to_call_and_an_input_that_can_be_read() -> None:
    for settings in ({"blueprint": ""}, {"blueprint": "bp_1", "input": "{"}):
        with pytest.raises(ValidationError):
            make("flow.call_blueprint", **settings)


async def test_a_called_agent_that_was_cancelled_stops_the_caller() -> None:
    node = make("flow.call_blueprint", blueprint="bp_1")
    with pytest.raises(NodeError, match="cancelled") as caught:
        await run(node, {"value": 1}, answer={"run": "run_9", "state": "cancelled", "output": None, "error": None})
    assert caught.value.details == {"run": "run_9"}
