"""What survives: crashes, waits, people who decide later, and answers that come while nobody is there."""

import asyncio
import time

import pytest

from nodes.errors import Conflict
from runtime.execution import Execution
from runtime.progress import Progress
from tests.runtime.engines import TENANT, WHO, open_rig, outputs, states
from tests.runtime.small_nodes import drawn, world


@pytest.fixture(autouse=True)
def new_world() -> None:
    world.__init__()  # type: ignore[misc]


async def until(what: str, holds: "object") -> None:
    """Wait until something is so."""
    async with asyncio.timeout(15):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.005)


CHAIN = drawn(
    {"s": "start", "first": "effect", "second": ("effect", {"hold": True}), "end": "compute"},
    "s.value > first.value", "first.value > second.value", "second.value > end.value",
)  # fmt: skip


async def test_a_run_goes_on_after_a_crash_from_its_last_durable_step(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(CHAIN, "x")
        await until("the second step has begun", lambda: len(world.calls) == 2)
    world.hold.set()
    async with open_rig(database_url) as rig:
        view = await rig.ended(ex.id)
    assert (view.info.state, view.output) == ("succeeded", "x")
    assert sorted(world.keys.values()) == [1, 2], "the first step acted once, the second again under the same key"


async def test_an_accepted_run_that_never_began_begins_after_a_crash(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        rig.engine.launch = lambda ex: None  # type: ignore[method-assign, assignment]
        ex = await rig.begin(CHAIN, "x")
    world.hold.set()
    async with open_rig(database_url) as rig:
        assert (await rig.ended(ex.id)).info.state == "succeeded"


async def test_an_effect_without_a_key_asks_a_person_after_a_crash(database_url: str) -> None:
    blueprint = drawn({"s": "start", "u": ("unkeyed", {"hold": True})}, "s.value > u.value")
    async with open_rig(database_url) as rig:
        ex = await rig.begin(blueprint, "x")
        await until("the step has begun", lambda: world.calls)
    world.hold.set()
    async with open_rig(database_url) as rig:
        view = await rig.waiting(ex.id)
        assert states(view)["u"] == "in doubt" and len(world.calls) == 1
        [question] = await rig.approvals.list(WHO)
        assert "Did “Unkeyed” happen?" in question.title
        await rig.approvals.decide(WHO, question.id, approve=True, choice="It happened: go on")
        assert (await rig.ended(ex.id)).info.state == "succeeded"
        assert len(world.calls) == 1


@pytest.mark.parametrize(("choice", "state", "calls"), [("Do it again", "succeeded", 2), ("Stop the run", "failed", 1)])
async def test_a_person_can_have_a_doubtful_step_repeated_or_the_run_stopped(
    tmp_path: object, choice: str, state: str, calls: int
) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    blueprint = drawn({"s": "start", "u": ("unkeyed", {"hold": True})}, "s.value > u.value")
    async with open_rig(url) as rig:
        ex = await rig.begin(blueprint, "x")
        await until("the step has begun", lambda: world.calls)
    world.hold.set()
    async with open_rig(url) as rig:
        await rig.waiting(ex.id)
        [question] = await rig.approvals.list(WHO)
        await rig.approvals.decide(WHO, question.id, approve=True, choice=choice)
        assert (await rig.ended(ex.id)).info.state == state
    assert len(world.calls) == calls


ASKING = drawn(
    {"s": "start", "ask": "ask", "yes": "effect", "no": "compute"},
    "s.value > ask.value", "ask.yes > yes.value", "ask.no > no.value",
)  # fmt: skip


async def test_a_run_that_waits_for_a_person_is_only_rows(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(ASKING, "launch")
        view = await rig.waiting(ex.id)
        assert view.info.state == "waiting" and not rig.engine.active
    async with open_rig(database_url) as rig:
        assert not rig.engine.active
        [question] = await rig.approvals.list(WHO)
        assert question.title == "May launch?"
        decided = await rig.approvals.decide(WHO, question.id, approve=True, note="fine")
        assert (decided.state, decided.decided_by) == ("approved", "Ada")
        assert outputs(await rig.ended(ex.id))["yes"] == {"value": "launch"}


async def test_a_decision_is_made_once(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(ASKING, "launch")
        await rig.waiting(ex.id)
        [question] = await rig.approvals.list(WHO)
        done = await asyncio.gather(
            *(rig.approvals.decide(WHO, question.id, approve=bool(n % 2)) for n in range(8)), return_exceptions=True
        )
        assert sum(not isinstance(one, Exception) for one in done) == 1
        assert sum(isinstance(one, Conflict) for one in done) == 7
        assert (await rig.ended(ex.id)).info.state == "succeeded"


async def test_a_decision_that_was_kept_but_not_delivered_is_delivered_at_the_next_start(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(ASKING, "launch")
        await rig.waiting(ex.id)
        [question] = await rig.approvals.list(WHO)

        async def nobody(*_: object) -> None: ...

        rig.engine.answer = nobody  # type: ignore[method-assign, assignment]
        await rig.approvals.decide(WHO, question.id, approve=False)
    async with open_rig(database_url) as rig:
        assert states(await rig.ended(ex.id))["no"] == "succeeded"


async def test_a_question_nobody_answers_expires_as_no(database_url: str) -> None:
    blueprint = drawn(
        {"s": "start", "ask": ("ask", {"expires": time.time() + 0.3}), "no": "compute"},
        "s.value > ask.value",
        "ask.no > no.value",
    )
    async with open_rig(database_url) as rig:
        ex = await rig.begin(blueprint, "x")
        view = await rig.ended(ex.id)
        assert view.output["expired"] is True
        assert [one.state for one in await rig.approvals.list(WHO, pending=False)] == ["expired"]


async def test_a_dispatcher_is_given_nothing_but_the_id_of_a_run_whose_time_has_come(database_url: str) -> None:
    given = []

    class Elsewhere:
        async def submit(self, tenant: str, run_id: str) -> None:
            given.append((tenant, run_id))

    blueprint = drawn({"s": "start", "z": ("sleep", {"until": time.time() + 3_600})}, "s.value > z.value")
    async with open_rig(database_url) as rig:
        ex = await rig.begin(blueprint, "x")
        await rig.waiting(ex.id)
        rig.engine.clock = lambda: time.time() + 3_601
        rig.engine.dispatcher = Elsewhere()
        await rig.engine.tick()
        assert given == [(TENANT, ex.id)]
        await rig.engine.submit(*given[0])
        assert (await rig.ended(ex.id)).info.state == "succeeded"


async def test_a_run_sleeps_as_a_row_and_wakes_in_time(database_url: str) -> None:
    blueprint = drawn({"s": "start", "z": ("sleep", {"until": time.time() + 3_600})}, "s.value > z.value")
    async with open_rig(database_url) as rig:
        ex = await rig.begin(blueprint, "x")
        await rig.waiting(ex.id)
    async with open_rig(database_url) as rig:
        await rig.engine.tick()
        assert (await rig.runs.get(WHO, ex.id)).info.state == "waiting"
        rig.engine.clock = lambda: time.time() + 3_601
        await rig.engine.tick()
        assert (await rig.ended(ex.id)).output == "x"


async def test_one_agent_calls_another_and_gets_its_output(database_url: str) -> None:
    child = drawn({"s": "start", "c": ("compute", {"formula": "input * 2"})}, "s.value > c.value")
    parent = drawn({"s": "start", "call": ("call", {"blueprint": "child"})}, "s.value > call.value")
    async with open_rig(database_url, child=child) as rig:
        assert (await rig.run(parent, 21)).output == 42


async def test_a_caller_hears_of_its_child_after_a_crash(database_url: str) -> None:
    child = drawn({"s": "start", "e": ("effect", {"hold": True})}, "s.value > e.value")
    parent = drawn({"s": "start", "call": ("call", {"blueprint": "child"})}, "s.value > call.value")
    async with open_rig(database_url, child=child) as rig:
        ex = await rig.begin(parent, "x")
        await until("the child has begun", lambda: world.calls)
    world.hold.set()
    async with open_rig(database_url, child=child) as rig:
        assert (await rig.ended(ex.id)).output == "x"


async def test_agents_that_call_themselves_are_stopped(database_url: str) -> None:
    parent = drawn({"s": "start", "call": ("call", {"blueprint": "self"})}, "s.value > call.value")
    async with open_rig(database_url, self=parent) as rig:
        view = await rig.run(parent, 1)
        assert view.info.error and "5 levels" in view.info.error["message"]


async def test_cancelling_stops_what_runs_and_what_waits(database_url: str) -> None:
    child = drawn({"s": "start", "ask": "ask"}, "s.value > ask.value")
    parent = drawn({"s": "start", "call": ("call", {"blueprint": "child"})}, "s.value > call.value")
    async with open_rig(database_url, child=child) as rig:
        running = await rig.begin(CHAIN, "x")
        waiting = await rig.begin(parent, "x")
        await until("it holds", lambda: len(world.calls) == 2)
        await until("it waits", lambda: not {waiting.id} & rig.engine.active.keys())
        await rig.runs.cancel(WHO, running.id)
        await rig.runs.cancel(WHO, waiting.id)
        for id_ in (running.id, waiting.id):
            assert (await rig.runs.get(WHO, id_)).info.state == "cancelled"
        assert not await rig.approvals.list(WHO)
        assert {info.state for info in await rig.runs.list(WHO)} == {"cancelled"}


async def test_another_tenant_sees_and_ends_nothing(database_url: str) -> None:
    from nodes.errors import NotFound
    from runtime.policy import Actor, Role

    other = Actor("others", "usr_2", "Eve", Role.ADMIN)
    async with open_rig(database_url) as rig:
        ex = await rig.begin(CHAIN, "x")
        await until("it holds", lambda: len(world.calls) == 2)
        for call in (rig.runs.get, rig.runs.cancel, rig.runs.retry):
            with pytest.raises(NotFound):
                await call(other, ex.id)
        with pytest.raises(NotFound):
            await anext(rig.runs.watch(other, ex.id))
        assert not await rig.runs.list(other)


async def test_a_follower_sees_every_fact_once_and_in_order(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(CHAIN, "x")
        seen: list[int] = []
        async for fact in rig.runs.watch(WHO, ex.id):
            if fact["kind"] != "step.skipped":
                seen.append(fact["seq"])
            if len(seen) == 4:
                world.hold.set()
        assert seen == list(range(1, len(seen) + 1))
        again = [fact["seq"] async for fact in rig.runs.watch(WHO, ex.id)]
        assert again == seen


async def test_any_prefix_of_the_facts_leads_to_the_same_end(tmp_path: object) -> None:
    """A crash can cut the journal anywhere: folding what is there and going on gives what would have been."""
    blueprint = drawn(
        {
            "s": "start", "each": ("each", {"parallel": 2}), "b": ("branch", {"formula": "item % 2 == 0"}),
            "c": ("compute", {"formula": "item * item"}), "inner": "each", "d": ("compute", {"formula": "input + 1"}),
            "l": ("compute", {"formula": "[item, index]"}), "end": ("compute", {"formula": "input"}),
        },
        "s.value > each.items", "each.item > b.value", "b.yes > c.value", "c.value > each.result",
        "b.no > l.value", "l.value > inner.items", "inner.item > d.value", "d.value > inner.result", "inner.done > each.result",
        "each.done > end.value",
    )  # fmt: skip
    async with open_rig(f"sqlite:///{tmp_path}/f.db") as rig:
        whole = await rig.run(blueprint, [0, 1, 2, 3, 4])
        _, _, facts = await rig.engine.journal.load(TENANT, whole.info.id)
        assert whole.output == [0, [2, 2], 4, [4, 4], 16]
        for cut in range(1, len(facts)):
            again = await rig.begin(blueprint, None)
            await rig.ended(again.id)
            ex = Execution(rig.engine, again.order)
            ex.sandbox = True
            ex.replay(facts[:cut])
            await ex.drive()
            assert (ex.error, ex.output) == (None, whole.output), f"after {cut} facts"


def test_facts_about_what_is_settled_change_nothing() -> None:
    from runtime.plan import compile_plan
    from tests.runtime.small_nodes import TYPES

    plan = compile_plan(drawn({"s": "start", "c": "compute"}, "s.value > c.value"), TYPES)
    progress = Progress(plan)
    accepted = {"seq": 1, "at": 0.0, "kind": "run.accepted", "trigger": "s", "input": 1}
    done = {"seq": 2, "at": 0.0, "kind": "step.succeeded", "node": "s", "iteration": "", "output": {"value": 1}}
    for fact in (accepted, done, done, done):
        progress.apply(fact)
    assert progress.root.left == 1


async def test_more_runs_than_may_go_on_at_once_wait_for_their_turn(tmp_path: object) -> None:
    blueprint = drawn({"s": "start", "r": ("read", {"seconds": 0.02})}, "s.value > r.value")
    async with open_rig(f"sqlite:///{tmp_path}/f.db") as rig:
        rig.engine.set_limits(TENANT, concurrent=3, depth=100)
        started = [await rig.begin(blueprint, n) for n in range(12)]
        ended = [await rig.ended(ex.id) for ex in started]
    assert [view.output for view in ended] == list(range(12))
    assert world.most_at_once <= 3


async def test_a_full_disk_holds_a_run_and_lets_it_go_on_when_there_is_space(tmp_path: object) -> None:
    from storage.errors import full

    async with open_rig(f"sqlite:///{tmp_path}/f.db") as rig:
        ex = await rig.begin(CHAIN, "x")
        await until("it holds", lambda: len(world.calls) == 2)
        real, refused = rig.db.record, 0

        def record(batch: object) -> "asyncio.Future[None]":
            nonlocal refused
            if refused < 3:
                refused += 1
                ex.emit("step.logged", "second", message="meanwhile", data={}, attempt=1)
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                future.set_exception(full())
                return future
            return real(batch)  # type: ignore[arg-type]

        rig.db.record = record  # type: ignore[method-assign, assignment]
        world.hold.set()
        assert (await rig.ended(ex.id)).info.state == "succeeded"
        assert refused == 3
        _, _, facts = await rig.engine.journal.load(TENANT, ex.id)
        assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1)), "no gap"
        assert [fact["kind"] for fact in facts].count("step.logged") == 3, "they follow what was held"


async def test_a_full_disk_refuses_a_new_run_in_words(tmp_path: object) -> None:
    from storage.errors import StorageError, full

    async with open_rig(f"sqlite:///{tmp_path}/f.db") as rig:
        await rig.plans.keep(TENANT, rig.plans.of(TENANT, CHAIN))

        def record(batch: object) -> "asyncio.Future[None]":
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(full())
            return future

        rig.db.record = record  # type: ignore[method-assign, assignment]
        with pytest.raises(StorageError, match="disk that holds the database is full"):
            await rig.begin(CHAIN, "x")
        assert not rig.engine.active
