"""What the engine does when a step fails: after which failures it tries again, how long it waits, what it goes on with."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.base import NodeError
from nodes.blueprint import Blueprint, Policy
from nodes.catalog import catalog
from nodes.categories import Category
from nodes.check import known_at
from runtime.outcomes import helps_to_repeat, retry_in
from runtime.plan import Step, compile_plan
from tests.runtime.engines import Rig, open_rig, outputs
from tests.runtime.small_nodes import TYPES, drawn, world

CATEGORIES = st.sampled_from(list(Category))


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    world.__init__()  # type: ignore[misc]
    async with open_rig(database_url) as rig:
        yield rig


def failing(times: int, **policy: Any) -> Any:
    """A step that fails so many times with a fault of the other side, which says that trying again can help."""
    world.fail_times = times
    return drawn({"s": "start", "r": ("read", {}, {"first_delay": 0, **policy})}, "s.value > r.value")


async def test_a_step_is_tried_again_after_the_chosen_failures_only(rig: Rig) -> None:
    assert (await rig.run(failing(1, retries=2, retry_on=["remote"]), 1)).info.state == "succeeded"
    view = await rig.run(failing(1, retries=2, retry_on=["timeout", "rate_limit"]), 1)
    assert (view.info.state, view.steps[-1].attempt) == ("failed", 1)
    assert view.info.error is not None
    assert view.info.error["category"] == "remote"


async def test_with_none_chosen_the_error_itself_decides(rig: Rig) -> None:
    assert (await rig.run(failing(1, retries=1), 1)).info.state == "succeeded"


async def test_after_the_last_try_the_run_goes_on_with_the_value_that_was_given(rig: Rig) -> None:
    blueprint = failing(9, retries=1, on_error="continue", on_error_value={"total": 0})
    view = await rig.run(blueprint, 1)
    assert (view.info.state, view.output) == ("succeeded", {"total": 0})
    assert view.steps[-1].note == "failed, and the run went on"


async def test_without_a_value_it_goes_on_with_nothing(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "r": ("read", {}, {"on_error": "continue"}), "g": "gather"},
        "s.value > r.value",
        "r.value > g.values",
    )
    world.fail_times = 9
    assert outputs(await rig.run(blueprint, 1))["g"] == {"value": [None]}


def test_formulas_know_that_a_value_may_stand_in_for_what_was_expected() -> None:
    def kinds(**policy: Any) -> str:
        nodes = [
            {"id": "m", "type": "trigger.manual"},
            {"id": "a", "type": "action.text_template", "settings": {"template": "x"}, "policy": policy},
            {"id": "b", "type": "context.set_values"},
        ]
        ends = [("m", "value", "a", "value"), ("a", "text", "b", "value")]
        edges = [
            {"id": f"{a}{b}", "source": a, "source_port": out, "target": b, "target_port": into}
            for a, out, b, into in ends
        ]
        return known_at(Blueprint.parse({"nodes": nodes, "edges": edges}), catalog(), "b").fields["input"].kind

    assert kinds() == kinds(on_error="continue", on_error_value="none") == "text"
    assert kinds(on_error="continue", on_error_value=5) != "text"


def step_with(**policy: Any) -> Step:
    plan = compile_plan(drawn({"s": "start", "r": ("read", {}, policy)}, "s.value > r.value"), TYPES)
    return plan.steps["r"]


@given(
    first=st.floats(0, 3600), most=st.floats(0, 86_400), attempt=st.integers(1, 5), after=st.none() | st.floats(0, 1e6)
)
def test_pauses_double_up_to_the_longest_and_are_a_bit_shorter_by_chance(
    first: float, most: float, attempt: int, after: float | None
) -> None:
    step = step_with(retries=5, first_delay=first, max_delay=most)
    pause = retry_in(step, NodeError("No.", retry=True, after=after), attempt)
    assert pause is not None
    assert 0 <= pause <= most
    if after is None:
        assert pause >= min(most, first * 2 ** (attempt - 1)) / 2
    else:
        assert pause == min(after, most)


@given(CATEGORIES, st.lists(CATEGORIES, unique=True), st.booleans())
def test_what_is_tried_again_is_what_was_chosen_or_else_what_the_error_says(
    category: Category, chosen: list[Category], says: bool
) -> None:
    policy = Policy(retries=1, retry_on=chosen)
    helps = helps_to_repeat(NodeError("No.", category=category, retry=says), policy)
    assert helps is (category in chosen if chosen else says)
    assert helps_to_repeat(ZeroDivisionError(), policy) is (Category.BUG in chosen)


@given(st.integers(0, 5))
def test_no_step_is_tried_more_often_than_it_may(retries: int) -> None:
    step = step_with(retries=retries, first_delay=0)
    error = NodeError("No.", retry=True)
    tries = [attempt for attempt in range(1, 8) if retry_in(step, error, attempt) is not None]
    assert tries == list(range(1, retries + 1))
