"""Runs that failed for good are there, with their story, and can be tried again or dismissed."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.base import Effect, Family, Node, Value
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from nodes.categories import Category
from nodes.errors import Conflict, Denied, FactoryError, NotFound
from nodes.ids import new_id
from runtime.alarms import alarm_id
from runtime.events import Fact
from runtime.factory import Factory
from runtime.views import RunView
from storage import dead_letter, run
from tests.runtime.factories import ADMIN, DEVELOPER, STRANGER, VIEWER, agent, new_factory

DONE: list[str] = []


class Act(Node):
    """Does something outside, under a key that the other side knows."""

    type, family, title, effect = "action.act", Family.ACTION, "Act", Effect.E3
    keyed = True

    async def run(self, ctx: Any, value: Any) -> Value:
        DONE.append(ctx.idempotency_key)
        return Value(value)


class Gate(Node):
    """Waits until the test lets it go on."""

    type, family, title, effect = "context.gate", Family.CONTEXT, "Gate", Effect.E1

    async def run(self, ctx: Any, value: Any) -> Value:
        await GATES[0].wait()
        return Value(value)


GATES: list[asyncio.Event] = []
TYPES = Catalog([*catalog(), Act, Gate])
SLOW = agent(
    {
        "start": ("trigger.manual", {}),
        "gate": "context.gate",
        "stop": ("validation.stop_error", {"message": "No."}),
    },
    "start.value > gate.value", "gate.value > stop.value",
)  # fmt: skip

DOUBLE = agent(
    {
        "start": ("trigger.manual", {}),
        "act": "action.act",
        "double": ("context.set_values", {"values": [{"name": "total", "value": "{{ (input.total - 0) * 2 }}"}]}),
        "say": ("action.text_template", {"template": "Total {{ steps.double.value.total }}"}),
    },
    "start.value > act.value", "act.value > double.value", "double.value > say.value",
    name="Doubler",
)  # fmt: skip


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    DONE.clear()
    async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}", types=TYPES) as factory:
        yield factory


@pytest.fixture
async def either(database_url: str) -> AsyncIterator[Factory]:
    """The same on both kinds of database, where what is written at once counts."""
    DONE.clear()
    async with new_factory(database_url, types=TYPES) as factory:
        yield factory


async def made(factory: Factory, blueprint: Blueprint = DOUBLE) -> str:
    """A new agent with this drawing."""
    return (await factory.blueprints.create(DEVELOPER, blueprint)).id


async def ended(factory: Factory, run_id: str) -> RunView:
    async with asyncio.timeout(20):
        async for fact in factory.runs.watch(DEVELOPER, run_id):
            if fact["kind"] == "run.finished":
                break
    return await factory.runs.get(DEVELOPER, run_id)


async def failed(factory: Factory, agent_id: str, given: Any = None) -> str:
    """A run that has failed."""
    run_id = await factory.runs.start(DEVELOPER, agent_id, {"total": "x"} if given is None else given)
    assert (await ended(factory, run_id)).info.state == "failed"
    return run_id


async def test_a_run_that_failed_for_good_needs_attention_and_one_that_succeeded_does_not(factory: Factory) -> None:
    id_ = await made(factory)
    bad = await failed(factory, id_)
    good = await factory.runs.start(DEVELOPER, id_, {"total": 2})
    assert (await ended(factory, good)).info.state == "succeeded"
    found = await factory.dead_letters.list(VIEWER)
    assert [(one.run.id, one.state) for one in found] == [(bad, "open")]
    assert await factory.dead_letters.count(VIEWER) == 1
    tally = await factory.dead_letters.tally(VIEWER)
    assert (tally.total, tally.agents) == (1, ((id_, "Doubler", 1),))
    assert tally.categories == {found[0].category: 1}


async def test_its_story_is_told_in_words(factory: Factory) -> None:
    letter = await factory.dead_letters.get(VIEWER, await failed(factory, await made(factory)))
    assert letter.story[0] == "“start” started a run of the draft."
    assert letter.story[1] == "“act” did what it was set up to do."
    assert "did outside is done, and was not taken back" in letter.story[2]
    assert letter.story[3].startswith("Then “double” failed: ")
    assert letter.story[4] == "So “say” did not run."
    assert letter.input == {"total": "x"}
    assert (letter.node, letter.name, letter.step_input) == ("double", "double", {"value": {"total": "x"}})
    assert letter.ways is not None
    assert (letter.ways.kept, letter.ways.runs, letter.ways.again) == (("act",), ("double", "say"), ())


async def test_tried_again_from_the_failed_step_on_other_data_everything_before_keeps_its_result(
    either: Factory,
) -> None:
    id_ = await made(either)
    bad = await failed(either, id_)
    again = await either.dead_letters.retry(DEVELOPER, bad, step_input={"value": {"total": 21}})
    view = await ended(either, again)
    assert (view.info.state, view.output) == ("succeeded", "Total 42")
    assert len(DONE) == 1
    assert await either.dead_letters.count(VIEWER) == 0
    (letter,) = await either.dead_letters.list(VIEWER, state="retried")
    assert (letter.retry_run, letter.retry_state, letter.done_by) == (again, "succeeded", DEVELOPER.name)


async def test_tried_again_from_the_start_everything_runs_on_the_data_that_is_given(factory: Factory) -> None:
    bad = await failed(factory, await made(factory))
    again = await factory.dead_letters.retry(DEVELOPER, bad, start="beginning", input={"total": 4})
    view = await ended(factory, again)
    assert (view.input, view.output) == ({"total": 4}, "Total 8")
    assert len(set(DONE)) == 2


async def test_tried_again_on_the_newest_version_the_repaired_step_runs(factory: Factory) -> None:
    id_ = await made(factory)
    bad = await failed(factory, id_)
    draft = await factory.blueprints.get(DEVELOPER, id_)
    document = draft.blueprint.model_dump(mode="json")
    document["nodes"][2]["settings"] = {"values": [{"name": "total", "value": "{{ input.total }}!"}]}
    await factory.blueprints.save(DEVELOPER, id_, Blueprint.parse(document), revision=draft.revision)
    assert (await factory.dead_letters.get(VIEWER, bad)).newer
    view = await ended(factory, await factory.dead_letters.retry(DEVELOPER, bad, version="newest"))
    assert (view.info.state, view.output, len(DONE)) == ("succeeded", "Total x!", 1)


async def test_a_retry_that_fails_needs_attention_itself_and_knows_where_it_came_from(factory: Factory) -> None:
    bad = await failed(factory, await made(factory))
    again = await factory.dead_letters.retry(DEVELOPER, bad)
    assert (await ended(factory, again)).info.state == "failed"
    assert [one.run.id for one in await factory.dead_letters.list(VIEWER)] == [again]
    assert (await factory.dead_letters.get(VIEWER, again)).retry_of == bad


async def test_of_two_who_try_again_at_once_one_is_told_that_it_was_done(either: Factory) -> None:
    bad = await failed(either, await made(either))
    tries = [either.dead_letters.retry(who, bad) for who in (DEVELOPER, ADMIN)]
    came = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(one).__name__ for one in came) == ["Conflict", "str"]
    await ended(either, next(one for one in came if isinstance(one, str)))


async def test_a_run_that_is_run_again_elsewhere_needs_no_attention_any_more(factory: Factory) -> None:
    id_ = await made(factory)
    bad = await failed(factory, id_)
    again = await factory.runs.retry(DEVELOPER, bad, input={"total": 3})
    await ended(factory, again)
    (letter,) = await factory.dead_letters.list(VIEWER, state="retried")
    assert (letter.run.id, letter.retry_run) == (bad, again)
    await ended(factory, await factory.runs.retry(DEVELOPER, bad, input={"total": 3}))
    assert (await factory.dead_letters.list(VIEWER, state="retried"))[0].retry_run == again


async def test_a_dismissal_has_a_reason_and_can_be_taken_back(factory: Factory) -> None:
    bad = await failed(factory, await made(factory))
    with pytest.raises(FactoryError, match="Say why"):
        await factory.dead_letters.dismiss(DEVELOPER, [bad], "  ")
    assert await factory.dead_letters.dismiss(DEVELOPER, [bad, bad], "The customer cancelled.") == 1
    (letter,) = await factory.dead_letters.list(VIEWER, state="dismissed")
    assert (letter.reason, letter.done_by) == ("The customer cancelled.", DEVELOPER.name)
    with pytest.raises(Conflict):
        await factory.dead_letters.retry(DEVELOPER, bad)
    await factory.dead_letters.undo(DEVELOPER, bad)
    assert await factory.dead_letters.count(VIEWER) == 1
    with pytest.raises(Conflict):
        await factory.dead_letters.undo(DEVELOPER, bad)


async def test_many_are_tried_again_at_once_and_each_is_told_what_came_of_it(factory: Factory) -> None:
    id_ = await made(factory)
    bad = [await failed(factory, id_) for _ in range(3)]
    await factory.dead_letters.dismiss(DEVELOPER, bad[:1], "Old.")
    came = await factory.dead_letters.retry_many(DEVELOPER, bad, start="beginning")
    assert [one.error is None for one in came] == [False, True, True]
    assert came[0].error is not None and "dismissed" in came[0].error["message"]
    for one in came[1:]:
        await ended(factory, one.new_run or "")
    with pytest.raises(FactoryError, match="201"):
        await factory.dead_letters.retry_many(DEVELOPER, ["run"] * 201)


async def test_the_list_is_filtered_by_category_and_agent_and_read_page_by_page(factory: Factory) -> None:
    one, other = await made(factory), await made(factory, DOUBLE.model_copy(update={"name": "Other"}))
    runs = [await failed(factory, id_) for id_ in (one, one, other)]
    letters = factory.dead_letters
    assert [each.run.id for each in await letters.list(VIEWER, blueprint_id=one)] == [runs[1], runs[0]]
    category = (await letters.list(VIEWER))[0].category
    assert len(await letters.list(VIEWER, category=category)) == 3
    assert await letters.list(VIEWER, category=Category.CREDENTIAL) == []
    assert [each.run.id for each in await letters.list(VIEWER, limit=1, before=runs[2])] == [runs[1]]


async def test_who_may_not_run_may_only_look_and_strangers_see_nothing(factory: Factory) -> None:
    bad = await failed(factory, await made(factory))
    for call in (
        factory.dead_letters.retry(VIEWER, bad),
        factory.dead_letters.dismiss(VIEWER, [bad], "No."),
        factory.dead_letters.undo(VIEWER, bad),
        factory.dead_letters.retry_many(VIEWER, [bad]),
    ):
        with pytest.raises(Denied):
            await call
    assert await factory.dead_letters.list(STRANGER) == []
    assert await factory.dead_letters.dismiss(STRANGER, [bad], "Mine.") == 0
    for look in (factory.dead_letters.get, factory.dead_letters.retry):
        with pytest.raises(NotFound):
            await look(STRANGER, bad)


async def test_a_called_run_that_failed_is_a_matter_of_its_caller(factory: Factory) -> None:
    inner = await made(factory)
    caller = agent(
        {"start": ("trigger.manual", {}), "call": ("flow.call_blueprint", {"blueprint": inner})},
        "start.value > call.value",
    )
    outer = await made(factory, caller)
    run_id = await failed(factory, outer)
    assert [one.run.id for one in await factory.dead_letters.list(VIEWER)] == [run_id]


async def test_a_run_that_was_started_without_waiting_needs_attention_itself_also_after_a_restart(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    GATES[:] = [asyncio.Event()]
    async with new_factory(url, types=TYPES) as factory:
        inner = await made(factory, SLOW)
        starter = agent(
            {"start": ("trigger.manual", {}), "go": ("flow.start_blueprint", {"blueprint": inner})},
            "start.value > go.value",
        )
        run_id = await factory.runs.start(DEVELOPER, await made(factory, starter), {"total": "x"})
        assert (await ended(factory, run_id)).info.state == "succeeded"
    async with new_factory(url, types=TYPES) as factory:
        (child,) = [one for one in await factory.runs.list(VIEWER) if one.blueprint_id == inner]
        GATES[0].set()
        assert (await ended(factory, child.id)).info.state == "failed"
        assert [one.run.id for one in await factory.dead_letters.list(VIEWER)] == [child.id]


async def test_whoever_watches_is_told(factory: Factory) -> None:
    told: list[Fact] = []
    factory.bus.subscribe("team", ("dead-letters",), told.append)
    bad = await failed(factory, await made(factory))
    await factory.dead_letters.dismiss(DEVELOPER, [bad], "Known.")
    assert [(one["run"], one["state"]) for one in told] == [(bad, "open"), (bad, "dismissed")]


async def test_a_retry_that_was_noted_and_never_began_is_open_again(factory: Factory) -> None:
    bad = await failed(factory, await made(factory))

    def note(session: Any) -> None:
        dead_letter.settle(session, bad, to="retried", by="Ada", at=time.time() - 600, retry_run="run_never")

    await factory.db.write("team", note)
    assert await factory.dead_letters.count(VIEWER) == 0
    await factory.alarms.catch_up()
    assert await factory.dead_letters.count(VIEWER) == 1


# --- error agents -----------------------------------------------------------------------------------------------------------

TELL = agent(
    {"told": ("trigger.manual", {}), "say": ("action.text_template", {"template": "{{ input.agent }}: {{ input.node }}"})},
    "told.value > say.value",
    name="Teller",
)  # fmt: skip


async def alarmed(factory: Factory, run_id: str) -> RunView:
    """The run of the error agent, when it has ended."""
    async with asyncio.timeout(20):
        while (told := (await factory.dead_letters.get(VIEWER, run_id)).told_run) is None:
            await asyncio.sleep(0.005)
    return await ended(factory, told)


async def test_the_error_agent_is_started_once_with_what_it_needs(either: Factory) -> None:
    teller = await made(either, TELL)
    bad = await failed(either, await made(either, DOUBLE.model_copy(update={"on_failure": teller})))
    view = await alarmed(either, bad)
    assert (view.info.state, view.output, view.info.blueprint_id) == ("succeeded", "Doubler: double", teller)
    assert view.input["run"] == bad
    assert view.input["input"] == {"total": "x"}
    assert view.input["error"]["category"] in set(Category)
    await either.alarms.catch_up()
    runs = await either.runs.list(VIEWER, blueprint_id=teller)
    assert [one.id for one in runs] == [view.info.id]


async def test_an_alarm_that_a_crash_kept_from_being_given_is_given_at_the_next_start(database_url: str) -> None:
    DONE.clear()
    async with new_factory(database_url, types=TYPES) as factory:
        teller = await made(factory, TELL)
        id_ = await made(factory, DOUBLE.model_copy(update={"on_failure": teller}))
        factory.engine.on_failed = lambda tenant, run_id, owes: None
        bad = await failed(factory, id_)
        assert (await factory.dead_letters.get(VIEWER, bad)).told_run is None
    async with new_factory(database_url, types=TYPES) as factory:
        assert (await alarmed(factory, bad)).info.state == "succeeded"
    async with new_factory(database_url, types=TYPES) as factory:
        assert len(await factory.runs.list(VIEWER, blueprint_id=teller)) == 1
        assert await factory.db.read_all(dead_letter.unannounced) == []


async def test_an_error_agent_that_fails_starts_nothing(factory: Factory) -> None:
    other = await made(factory, TELL)
    broken = await made(factory, DOUBLE.model_copy(update={"name": "Broken", "on_failure": other}))
    bad = await failed(factory, await made(factory, DOUBLE.model_copy(update={"on_failure": broken})))
    view = await alarmed(factory, bad)
    assert view.info.state == "failed"
    await factory.alarms.catch_up()
    assert await factory.runs.list(VIEWER, blueprint_id=other) == []
    assert {one.run.id for one in await factory.dead_letters.list(VIEWER)} == {bad, view.info.id}


async def test_an_error_agent_that_is_gone_is_not_asked_for_again(factory: Factory) -> None:
    bad = await failed(factory, await made(factory, DOUBLE.model_copy(update={"on_failure": "bp_gone"})))
    async with asyncio.timeout(20):
        while await factory.db.read_all(dead_letter.unannounced):
            await asyncio.sleep(0.005)
    assert (await factory.dead_letters.get(VIEWER, bad)).told_run is None


def test_ids_of_alarms_follow_from_the_failed_run_and_sort_by_the_time_of_the_failure() -> None:
    run_id, now = new_id("run"), time.time()
    assert alarm_id(run_id, now) == alarm_id(run_id, now) != alarm_id(new_id("run"), now)
    assert len(alarm_id(run_id, now)) == len(run_id)
    assert run.first_id(now) <= alarm_id(run_id, now) < run.first_id(now + 1)


async def test_a_run_whose_document_cannot_run_any_more_is_there_too(tmp_path: Path) -> None:
    """Such as after a package of node types was taken out."""
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    async with new_factory(url, types=TYPES) as factory:
        bad = await failed(factory, await made(factory))
    async with new_factory(url, types=Catalog(list(catalog()))) as factory:
        letter = await factory.dead_letters.get(VIEWER, bad)
        assert letter.ways is None
        assert letter.input == {"total": "x"}
        assert letter.story == (letter.info.run.error["message"],)  # type: ignore[index]


async def test_through_stops_at_any_moment_every_failure_is_there_and_its_error_agent_ran_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    GATES[:] = [asyncio.Event()]
    started: list[str] = []
    async with new_factory(url, types=TYPES) as factory:
        teller = await made(factory, TELL)
        id_ = await made(factory, SLOW.model_copy(update={"on_failure": teller}))
    for life in range(5):
        async with new_factory(url, types=TYPES) as factory:
            started += [await factory.runs.start(DEVELOPER, id_, {}) for _ in range(4)]
            if life == 1:
                GATES[0].set()
            for _ in range(3 * life):  # a little further in each life
                await asyncio.sleep(0)
    async with new_factory(url, types=TYPES) as factory:
        for run_id in started:
            assert (await alarmed(factory, run_id)).info.state == "succeeded"
        assert {one.run.id for one in await factory.dead_letters.list(VIEWER, limit=200)} == set(started)
        told = [
            (await factory.runs.get(VIEWER, one.id)).input["run"]
            for one in await factory.runs.list(VIEWER, blueprint_id=teller, limit=200)
        ]
        assert sorted(told) == sorted(started)


# --- inside loops and agents ----------------------------------------------------------------------------------------------

EACH = agent(
    {
        "start": ("trigger.manual", {}),
        "each": ("flow.for_each", {}),
        "act": "action.act",
        "double": ("context.set_values", {"values": [{"name": "n", "value": "{{ (input - 0) * 2 }}"}]}),
        "say": ("action.text_template", {"template": "{{ input | map('n') | join(' ') }}"}),
    },
    "start.value > each.items", "each.item > act.value", "act.value > double.value", "double.value > each.result",
    "each.done > say.value",
)  # fmt: skip


async def test_the_item_of_a_loop_that_failed_is_mended_and_the_others_keep_their_results(factory: Factory) -> None:
    bad = await failed(factory, await made(factory, EACH), [1, "x", 3])
    letter = await factory.dead_letters.get(VIEWER, bad)
    assert (letter.node, letter.step_input) == ("double", {"value": "x"})
    new = await factory.dead_letters.retry(DEVELOPER, bad, step_input={"value": 2})
    view = await ended(factory, new)
    assert (view.info.state, view.output) == ("succeeded", "2 4 6")
    assert len(DONE) == 3, "what each item had done outside was not done again"


async def test_the_item_itself_is_mended_where_the_step_that_failed_is_the_first_one(factory: Factory) -> None:
    drawing = EACH.model_copy(
        update={"edges": [edge for edge in EACH.edges if "act" not in (edge.source, edge.target)]}
    )
    drawing = Blueprint.parse(
        drawing.model_dump() | {"nodes": [one.model_dump() for one in EACH.nodes if one.id != "act"]}
        | {"edges": [one.model_dump() for one in drawing.edges]
           + [{"id": "new", "source": "each", "source_port": "item", "target": "double", "target_port": "value"}]}
    )  # fmt: skip
    bad = await failed(factory, await made(factory, drawing), ["y", 2])
    assert (await factory.dead_letters.get(VIEWER, bad)).step_input == {"value": "y"}
    again = await factory.dead_letters.retry(DEVELOPER, bad, step_input={"value": "z"})
    assert (await ended(factory, again)).info.state == "failed"
    assert (await factory.dead_letters.get(VIEWER, again)).step_input == {"value": "z"}
    view = await ended(factory, await factory.dead_letters.retry(DEVELOPER, again, step_input={"value": 1}))
    assert (view.info.state, view.output) == ("succeeded", "2 4")


async def test_a_failure_that_a_loop_went_on_after_is_not_the_one_that_is_mended(factory: Factory) -> None:
    nodes = {
        "start": ("trigger.manual", {}),
        "each": ("flow.for_each", {"on_item_error": "drop"}),
        "double": ("context.set_values", {"values": [{"name": "n", "value": "{{ (input - 0) * 2 }}"}]}),
        "then": ("context.set_values", {"values": [{"name": "n", "value": "{{ input.total - 0 }}"}]}),
    }
    drawing = agent(
        nodes,
        "start.value > each.items",
        "each.item > double.value",
        "double.value > each.result",
        "each.done > then.value",
    )
    bad = await failed(factory, await made(factory, drawing), [1, "x"])
    letter = await factory.dead_letters.get(VIEWER, bad)
    assert (letter.node, letter.step_input) == ("then", {"value": [{"value": 1, "n": 2}]})


async def test_what_a_later_round_began_with_is_mended_and_the_rounds_before_keep_their_results(
    factory: Factory,
) -> None:
    nodes = {
        "start": ("trigger.manual", {}),
        "until": ("flow.repeat", {"until": "result.n is number and result.n > 8"}),
        "double": ("context.set_values", {"values": [{"name": "n", "value": "{{ 'x' if n == 2 else (n - 0) * 2 }}"}]}),
        "act": "action.act",
        "say": ("action.text_template", {"template": "{{ input.n }}"}),
    }
    drawing = agent(
        nodes,
        "start.value > until.value",
        "until.item > double.value",
        "double.value > act.value",
        "act.value > until.result",
        "until.done > say.value",
    )
    bad = await failed(factory, await made(factory, drawing), {"n": 1})
    assert (await factory.dead_letters.get(VIEWER, bad)).step_input == {"value": {"n": "x"}}
    again = await factory.dead_letters.retry(DEVELOPER, bad, step_input={"value": {"n": "y"}})
    assert (await ended(factory, again)).info.state == "failed"
    assert (await factory.dead_letters.get(VIEWER, again)).step_input == {"value": {"n": "y"}}
    # A retry of the retry takes over what a person put there.
    same = await factory.dead_letters.retry(DEVELOPER, again)
    assert (await ended(factory, same)).info.state == "failed"
    assert (await factory.dead_letters.get(VIEWER, same)).step_input == {"value": {"n": "y"}}
    view = await ended(factory, await factory.dead_letters.retry(DEVELOPER, same, step_input={"value": {"n": 5}}))
    assert (view.info.state, view.output) == ("succeeded", "10")
    assert len(DONE) == 3, "two rounds were not done again"
