"""Going on from a former run: what is used again, what runs, under which key, and that it comes to the same end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.blueprint import Blueprint
from nodes.errors import Conflict, Denied, NotFound
from nodes.ids import new_id
from runtime.execution import Order
from runtime.forks import Past, Start, reuse
from runtime.policy import Role
from runtime.views import RunView
from tests.runtime.engines import TENANT, WHO, Rig, open_rig, outputs, states
from tests.runtime.small_nodes import drawn, world
from tests.runtime.test_engine_properties import (
    GRAPHS,
    Drawing,
    Work,
    compare,
    drawings,
    on_engine,
    plain,
    random_graphs,
    taken_up,
)

__all__ = ["on_engine"]

fewer_graphs = settings(random_graphs, max_examples=max(GRAPHS // 2, 40))
CHAIN = ("s.value > a.value", "a.value > b.value", "b.value > c.value")


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    world.__init__()  # type: ignore[misc]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'factory.db'}"


def chain(a: Any = "effect", b: Any = "effect", c: Any = "effect") -> Blueprint:
    return drawn({"s": "start", "a": a, "b": b, "c": c}, *CHAIN)


async def past_of(rig: Rig, run_id: str) -> Past:
    return await rig.runs.past(WHO, run_id)


async def forked(rig: Rig, run_id: str, node: str | None = None, **options: Any) -> RunView:
    return await rig.ended(await rig.runs.fork(WHO, run_id, node, **options))


# --- any graph, any step ---------------------------------------------------------------------------------------------------


@fewer_graphs
@given(drawing=drawings(), data=st.data())
def test_a_fork_from_any_step_comes_to_the_end_of_a_whole_run(
    on_engine: Callable[[Work], None], drawing: Drawing, data: st.DataObject
) -> None:
    async def act(rig: Rig) -> None:
        whole = await rig.run(drawing.blueprint(), drawing.input)
        node = data.draw(st.sampled_from(sorted(drawing.steps)))
        again = await forked(rig, whole.info.id, node)
        compare(again, drawing)
        if whole.info.state == "succeeded":
            assert plain(again.output) == plain(whole.output)
        # A fork is a run like any other: it can be forked again.
        compare(await forked(rig, again.info.id, data.draw(st.sampled_from(sorted(drawing.steps)))), drawing)

    on_engine(act)


@fewer_graphs
@given(drawing=drawings(), turns=st.integers(0, 30))
def test_what_was_left_undone_is_made_up_for(on_engine: Callable[[Work], None], drawing: Drawing, turns: int) -> None:
    async def act(rig: Rig) -> None:
        ex = await rig.begin(drawing.blueprint(), drawing.input)
        for _ in range(turns):
            await asyncio.sleep(0)
        await rig.engine.cancel(TENANT, ex.id)
        if (await rig.runs.get(WHO, ex.id)).info.state == "succeeded":
            with pytest.raises(Conflict):
                await rig.runs.retry(WHO, ex.id, from_failed=True)
        else:
            compare(await rig.ended(await rig.runs.retry(WHO, ex.id, from_failed=True)), drawing)

    on_engine(act)


@fewer_graphs
@given(drawing=drawings(), data=st.data())
def test_on_a_changed_drawing_it_comes_to_what_the_changed_drawing_gives(
    on_engine: Callable[[Work], None], drawing: Drawing, data: st.DataObject
) -> None:
    async def act(rig: Rig) -> None:
        whole = await rig.run(drawing.blueprint(), drawing.input)
        changed = Drawing({id_: replace(step) for id_, step in drawing.steps.items()}, drawing.input)
        for id_ in data.draw(st.lists(st.sampled_from(sorted(drawing.steps)), max_size=2)):
            step = changed.steps[id_]
            step.settings = {**step.settings, **({"salt": 77} if "salt" in step.settings else {})}
            if "fails" in step.settings:
                step.settings["fails"] = 0
        past = await past_of(rig, whole.info.id)
        start = data.draw(st.sampled_from([Start.FAILURE, *sorted(drawing.steps)]))
        plan = rig.plans.of(TENANT, changed.blueprint())
        try:
            taken = reuse(past, plan, start)
        except Conflict:
            assert start == Start.FAILURE and whole.info.state == "succeeded"
            assert plan.content_hash == past.plan.content_hash
            return
        order = Order(new_id("run"), TENANT, plan, "s", drawing.input, fork=taken.told, seed=taken.facts)
        compare(await rig.ended((await rig.engine.accept(order)).id), changed)

    on_engine(act)


@fewer_graphs
@given(drawing=drawings(pure=True), data=st.data())
def test_a_fork_that_is_taken_up_anywhere_comes_to_the_same_end(
    on_engine: Callable[[Work], None], drawing: Drawing, data: st.DataObject
) -> None:
    async def act(rig: Rig) -> None:
        whole = await rig.run(drawing.blueprint(), drawing.input)
        again = await forked(rig, whole.info.id, data.draw(st.sampled_from(sorted(drawing.steps))))
        _, _, facts = await rig.engine.journal.load(TENANT, again.info.id)
        # What is taken over is durable together with the acceptance, so no crash comes in between.
        first = 1 + sum(fact["kind"] == "step.reused" for fact in facts)
        point = data.draw(st.integers(first, max(first, len(facts) - 1)))
        compare(await taken_up(rig, drawing.blueprint(), facts[:point]), drawing)

    on_engine(act)


# --- the rules one by one ------------------------------------------------------------------------------------------------------


async def test_only_the_step_and_what_is_behind_it_run_again(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(), 7)
        world.calls.clear()
        again = await forked(rig, first.info.id, "b")
        assert world.calls == [7, 7]
        assert outputs(again) == outputs(first)
        assert [step.from_run for step in again.steps] == [first.info.id, first.info.id, "", ""]
        assert again.fork == {"run": first.info.id, "start": "b", "keys": {}}
        assert again.steps[1].note == "used the result of an earlier run"


async def test_the_result_remembers_the_run_that_really_gave_it(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(), 7)
        second = await forked(rig, first.info.id, "c")
        third = await forked(rig, second.info.id, "c")
        assert {step.node: step.from_run for step in third.steps}["b"] == first.info.id


async def test_what_will_happen_is_known_before_it_happens(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(c="compute"), 7)
        seen = await rig.runs.preview(WHO, first.info.id, "b")
        assert (seen.kept, seen.runs) == (("s", "a"), ("b", "c"))
        assert seen.again == ("b",), "it acted, and will act once more"


async def test_from_the_failure_an_effect_keeps_its_key_so_that_it_happens_once(url: str) -> None:
    async with open_rig(url) as rig:
        world.fail_times = 2
        first = await rig.run(chain(a="compute"), 7)
        second = await rig.ended(await rig.runs.retry(WHO, first.info.id, from_failed=True))
        third = await rig.ended(await rig.runs.retry(WHO, second.info.id, from_failed=True))
        assert [run.info.state for run in (first, second, third)] == ["failed", "failed", "succeeded"]
        assert sorted(world.keys.values()) == [1, 3], "three tries of b with one key, one of c"
        assert third.steps[-1].node == "c"


async def test_a_step_run_again_on_purpose_acts_anew(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(), 7)
        await forked(rig, first.info.id, "c")
        assert sorted(world.keys.values()) == [1, 1, 1, 1]


async def test_a_changed_step_has_a_key_of_its_own(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(b=("effect", {"fail": True})), 7)
        past = await past_of(rig, first.info.id)
        same, fixed = reuse(past, past.plan), reuse(past, rig.plans.of(TENANT, chain()))
        assert (same.keys, same.again, same.changed) == ({"b": first.info.id}, (), ())
        assert (fixed.keys, fixed.again, fixed.changed) == ({}, ("b",), ("b",))
        assert fixed.kept == ("s", "a")


async def test_what_knows_no_keys_is_told_as_happening_again(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(b=("unkeyed", {"fail": True})), 7)
        assert (await rig.runs.preview(WHO, first.info.id, Start.FAILURE)).again == ("b",)


async def test_other_branches_keep_their_results(url: str) -> None:
    drawing = drawn(
        {"s": "start", "a": "effect", "b": "effect", "both": "both"},
        "s.value > a.value", "s.value > b.value", "a.value > both.a", "b.value > both.b",
    )  # fmt: skip
    async with open_rig(url) as rig:
        first = await rig.run(drawing, 1)
        world.calls.clear()
        again = await forked(rig, first.info.id, "b")
        assert (world.calls, again.output) == ([1], [1, 1])


async def test_a_branch_that_was_not_taken_is_not_taken_again(url: str) -> None:
    drawing = drawn(
        {"s": "start", "way": ("branch", {"formula": "false"}), "yes": "effect", "no": "effect"},
        "s.value > way.value", "way.yes > yes.value", "way.no > no.value",
    )  # fmt: skip
    async with open_rig(url) as rig:
        first = await rig.run(drawing, 1)
        again = await forked(rig, first.info.id, "no")
        assert (
            states(again)
            == states(first)
            == {"s": "succeeded", "way": "succeeded", "yes": "skipped", "no": "succeeded"}
        )


def looped(inner: Any, **settings: Any) -> Blueprint:
    return drawn(
        {"s": "start", "each": ("each", settings), "inner": inner, "end": "compute"},
        "s.value > each.items", "each.item > inner.value", "inner.value > each.result", "each.done > end.value",
    )  # fmt: skip


async def test_a_step_inside_a_loop_stands_for_its_loop(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(looped("effect"), [1, 2])
        world.calls.clear()
        seen = await rig.runs.preview(WHO, first.info.id, "inner")
        again = await forked(rig, first.info.id, "inner")
        assert (seen.runs, seen.again) == (("each", "end"), ("inner",))
        assert (world.calls, again.output) == ([1, 2], [1, 2])


async def test_behind_a_loop_its_results_are_used_as_a_whole(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(looped("effect"), [1, 2])
        world.calls.clear()
        again = await forked(rig, first.info.id, "end")
        assert (world.calls, again.output) == ([], [1, 2])
        assert [step.node for step in again.steps] == ["s", "each", "end"]


async def test_a_loop_that_failed_goes_on_at_the_items_that_are_not_done(url: str) -> None:
    async with open_rig(url) as rig:
        world.fail_at = 3
        first = await rig.run(looped("effect"), [1, 2, 3, 4])
        assert (first.info.state, world.calls) == ("failed", [1, 2, 3])
        world.fail_at = None
        seen = await rig.runs.preview(WHO, first.info.id, Start.FAILURE)
        assert (seen.partly, seen.runs) == (("each",), ("each", "end"))
        again = await rig.ended(await rig.runs.retry(WHO, first.info.id, from_failed=True))
        assert world.calls == [1, 2, 3, 3, 4]
        assert again.output == [1, 2, 3, 4]
        assert sorted(world.keys.values()) == [1, 1, 1, 2], "the item that failed keeps its key"


async def test_items_that_were_given_up_stay_given_up(url: str) -> None:
    drawing = drawn(
        {"s": "start", "outer": ("each", {}), "each": ("each", {"on_item_error": "drop"}), "inner": "effect", "then": "both"},
        "s.value > outer.items", "outer.item > each.items", "each.item > inner.value", "inner.value > each.result",
        "each.done > then.a", "outer.item > then.b", "then.value > outer.result",
    )  # fmt: skip
    async with open_rig(url) as rig:
        world.fail_at = 2
        first = await rig.run(drawing, [[1, 2], 5])
        assert first.info.state == "failed", "5 is no list"
        world.fail_at = None
        seen = await rig.runs.preview(WHO, first.info.id, Start.FAILURE)
        assert [fact["output"] for fact in seen.facts if fact.get("node") == "each"] == [{"done": [1]}]
        assert (await rig.ended(await rig.runs.retry(WHO, first.info.id, from_failed=True))).info.state == "failed"
        assert world.calls == [1, 2]


async def test_what_the_caller_was_answered_is_taken_over(url: str) -> None:
    drawing = drawn({"s": "start", "a": "respond", "b": "compute"}, "s.value > a.value", "a.value > b.value")
    async with open_rig(url) as rig:
        first = await rig.run(drawing, "hello")
        assert (await forked(rig, first.info.id, "b")).output == first.output == "hello"


async def test_on_another_input_everything_runs(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(), 7)
        again = await rig.ended(await rig.runs.retry(WHO, first.info.id, input=8))
        assert (again.input, again.output) == (8, 8)
        with pytest.raises(Conflict):
            await rig.runs.fork(WHO, first.info.id, "b", input=8)


async def test_what_is_taken_over_is_there_after_a_crash(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(), 7)
        past = await past_of(rig, first.info.id)
        taken = reuse(past, past.plan, "c")
        order = Order(new_id("run"), TENANT, past.plan, "s", 7, fork=taken.told, seed=taken.facts)
        ex = rig.engine.begin(order)
        await ex.flush()
    world.calls.clear()
    async with open_rig(url) as rig:
        again = await rig.ended(order.run_id)
        assert (again.info.state, world.calls, again.fork) == (
            "succeeded",
            [7],
            {"run": first.info.id, "start": "c", "keys": {}},
        )


async def test_who_may_not_run_may_not_fork_and_strangers_find_nothing(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.run(chain(), 7)
        with pytest.raises(Denied):
            await rig.runs.fork(replace(WHO, role=Role.VIEWER), first.info.id, "b")
        with pytest.raises(NotFound):
            await rig.runs.fork(replace(WHO, tenant="others"), first.info.id, "b")
        with pytest.raises(NotFound):
            await rig.runs.fork(WHO, first.info.id, "nowhere")


async def test_a_run_that_goes_on_is_not_forked(url: str) -> None:
    async with open_rig(url) as rig:
        ex = await rig.begin(chain(b=("effect", {"hold": True})), 7)
        with pytest.raises(Conflict):
            await rig.runs.fork(WHO, ex.id, "b")
        world.hold.set()
        await rig.ended(ex.id)


async def test_a_test_run_goes_on_in_the_sandbox(url: str) -> None:
    async with open_rig(url) as rig:
        first = await rig.ended(await rig.sandbox.start(WHO, chain(), 7))
        with pytest.raises(Conflict):
            await rig.runs.fork(WHO, first.info.id, "b")
        past = await past_of(rig, first.info.id)
        again = await rig.ended(await rig.sandbox.start(WHO, chain(), reuse_of=past, start="c"))
        assert outputs(again) == outputs(first)
        assert again.effects == ["would send sent sent 7"]


async def test_a_called_agent_that_failed_is_gone_on_with_too(url: str) -> None:
    calling = drawn({"s": "start", "call": ("call", {"blueprint": "inner"})}, "s.value > call.value")
    async with open_rig(url, inner=chain()) as rig:
        world.fail_at = 7
        world.fail_times = 0
        first = await rig.run(calling, 7)
        assert (first.info.state, world.calls) == ("failed", [7])
        world.fail_at = None
        second = await rig.ended(await rig.runs.retry(WHO, first.info.id, from_failed=True))
        assert (second.info.state, second.output) == ("succeeded", 7)
        assert sorted(world.keys.values()) == [1, 1, 2], "the step that failed keeps its key in the called agent too"
        third = await forked(rig, first.info.id, "call")
        assert third.info.state == "succeeded"
        assert len(world.keys) == 6, "called again on purpose, everything in it acts anew"
