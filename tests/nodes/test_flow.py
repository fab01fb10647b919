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
