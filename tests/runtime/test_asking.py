"""“Ask a person first”: a step has no effect before somebody said yes, wherever the server dies, and it has it once."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from runtime.compiling import compile_python
from runtime.execution import Order
from runtime.forks import Past, reuse
from runtime.views import ApprovalInfo, RunView
from storage.errors import lost
from tests.runtime.engines import TENANT, WHO, Rig, open_rig, outputs, states
from tests.runtime.small_nodes import drawn, world
from tests.runtime.test_compiling import imported


@pytest.fixture(autouse=True)
def _fresh() -> None:
    world.__init__()  # type: ignore[misc]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(f"sqlite:///{tmp_path}/f.db") as opened:
        yield opened


def asking(type_: str = "effect", settings: dict[str, Any] | None = None, **policy: Any) -> Blueprint:
    """`start → step → end`, and what the step fails of goes to `wrong` where the policy has an error port."""
    wires = ["s.value > it.value", "it.value > end.value"]
    nodes: dict[str, Any] = {
        "s": "start",
        "it": (type_, settings or {}, {"ask_first": True} | policy),
        "end": "compute",
    }
    if policy.get("on_error") == "port":
        nodes["wrong"] = "compute"
        wires.append("it.error > wrong.value")
    return drawn(nodes, *wires)


async def question(rig: Rig, run_id: str) -> ApprovalInfo:
    await rig.waiting(run_id)
    [found] = await rig.approvals.list(WHO)
    return found


def step(view: RunView, node: str = "it") -> Any:
    return next(one for one in view.steps if one.node == node)


async def test_nothing_happens_before_somebody_says_yes_and_then_it_happens_once(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(asking(), {"order": 7})
        asked = await question(rig, ex.id)
        assert (asked.title, asked.choices) == ("May “Effect” go ahead?", ("Yes, do it", "No"))
        assert asked.details["What came in"] == {"order": 7}
        assert asked.details["What it would do"] == "Would send {'order': 7}"
        assert asked.expires_at is not None
        assert not world.calls
    async with open_rig(database_url) as rig:
        assert not rig.engine.active, "it is only rows"
        await rig.approvals.decide(WHO, asked.id, approve=True)
        assert outputs(await rig.ended(ex.id))["end"] == {"value": {"order": 7}}
    assert len(world.calls) == 1


async def test_a_person_is_shown_the_settings_as_they_are_filled_in(rig: Rig) -> None:
    ex = await rig.begin(asking("compute", {"formula": "input.a + 1"}), {"a": 1})
    assert (await question(rig, ex.id)).details["Settings"] == {"formula": "input.a + 1"}
    await rig.engine.cancel(TENANT, ex.id)
    assert [one.state for one in await rig.approvals.list(WHO, pending=False)] == ["cancelled"]


async def test_a_no_is_a_failure_of_the_step_that_says_who_and_why(rig: Rig) -> None:
    ex = await rig.begin(asking(retries=3, retry_on=["input"]), "x")
    await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=False, note="too dear")
    view = await rig.ended(ex.id)
    assert view.info.state == "failed"
    error = step(view).error
    assert (error["code"], error["message"]) == ("step.rejected", "Ada said no to “Effect”: too dear.")
    assert error["details"] == {"by": "Ada", "note": "too dear"}
    assert (error["category"], step(view).attempt) == ("input", 1), "asking again would be asking the same"
    assert not world.calls


async def test_a_no_goes_where_the_failures_of_the_step_go(rig: Rig) -> None:
    for policy, node, output in (
        ({"on_error": "port"}, "wrong", "step.rejected"),
        ({"on_error": "continue", "on_error_value": "else"}, "end", "else"),
    ):
        ex = await rig.begin(asking(**policy), "x")
        await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=False)
        view = await rig.ended(ex.id)
        given = outputs(view)[node]["value"]
        assert (given["code"] if isinstance(given, dict) else given) == output
        assert view.info.state == "succeeded"
    assert not world.calls


async def test_who_says_nothing_in_time_has_not_said_yes(rig: Rig) -> None:
    ex = await rig.begin(asking(ask_hours=0.00005), "x")
    view = await rig.ended(ex.id)
    assert (view.info.state, step(view).error["code"]) == ("failed", "step.not_allowed_in_time")
    assert [one.state for one in await rig.approvals.list(WHO, pending=False)] == ["expired"]
    assert not world.calls


async def test_one_yes_counts_for_all_attempts(rig: Rig) -> None:
    world.fail_times = 2
    ex = await rig.begin(asking(retries=2, first_delay=0), "x")
    await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=True)
    assert (await rig.ended(ex.id)).info.state == "succeeded"
    assert len(world.calls) == 3
    assert len(await rig.approvals.list(WHO, pending=False)) == 1


async def test_after_a_crash_a_step_that_was_allowed_is_repeated_under_its_key_and_nobody_is_asked_again(
    database_url: str,
) -> None:
    async with open_rig(database_url) as rig:
        ex = await rig.begin(asking(settings={"hold": True}), "x")
        await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=True)
        async with asyncio.timeout(15):
            while not world.calls:
                await asyncio.sleep(0.005)
    world.hold.set()
    async with open_rig(database_url) as rig:
        assert (await rig.ended(ex.id)).info.state == "succeeded"
        assert not await rig.approvals.list(WHO)
        facts = (await rig.engine.journal.load(TENANT, ex.id))[2]
        assert [fact["kind"] for fact in facts].count("step.waiting") == 1
    assert list(world.keys.values()) == [2]


async def test_wherever_the_facts_end_a_yes_leads_to_the_effect_and_a_no_never_does(tmp_path: Path) -> None:
    """A crash after any fact; the decision that was kept is delivered at the next start."""
    for approve in (True, False):
        whole: list[Any] = []
        cut = 0
        while cut == 0 or cut < len(whole) - 1:
            world.__init__()  # type: ignore[misc]
            path = tmp_path / f"{approve}{cut}.db"
            async with open_rig(f"sqlite:///{path}") as rig:
                ex = await rig.begin(asking("unkeyed", at_most=5, on_error="continue"), "x")
                await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=approve)
                await rig.ended(ex.id)
                whole = (await rig.engine.journal.load(TENANT, ex.id))[2]
                calls = len(world.calls)
            cut += 1
            _cut(path, whole[:cut])
            async with open_rig(f"sqlite:///{path}") as rig:
                pending = await _end(rig, ex.id)
                assert calls == approve
                begun = "step.started" in [fact["kind"] for fact in whole[:cut] if fact.get("node") == "it"]
                done = "step.succeeded" in [fact["kind"] for fact in whole[:cut] if fact.get("node") == "it"]
                assert pending == ["“Unkeyed” happen"] * (begun and not done), "only a doubt is asked about"
                assert len(world.calls) == (calls + (not begun) if approve else 0)


def _cut(path: Path, facts: list[Any]) -> None:
    """Leave only these facts of the run, as if the server had died there; the decision is in a row of its own."""
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM journal WHERE seq > 1")
        database.execute("UPDATE journal SET facts = ?", (json.dumps(facts),))
        database.execute("UPDATE run SET state = 'running', finished_at = NULL, wake_at = NULL")


async def _end(rig: Rig, run_id: str) -> list[str]:
    """Let the run end; a doubt is answered with: it happened."""
    found = []
    async with asyncio.timeout(15):
        while (await rig.runs.get(WHO, run_id)).info.state in ("accepted", "running", "waiting"):
            for asked in await rig.approvals.list(WHO):
                found.append(asked.title[4:20])
                await rig.approvals.decide(WHO, asked.id, approve=True, choice="It happened: go on")
            await asyncio.sleep(0.005)
    return found


async def test_a_yes_of_before_a_crash_is_not_taken_for_the_answer_that_the_step_waits_for_now(
    database_url: str,
) -> None:
    asking_call = drawn(
        {"s": "start", "it": ("call", {"blueprint": "other"}, {"ask_first": True})}, "s.value > it.value"
    )
    other = drawn({"s": "start", "wait": "ask"}, "s.value > wait.value")
    async with open_rig(database_url, other=other) as rig:
        ex = await rig.begin(asking_call, "x")
        await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=True)
        async with asyncio.timeout(15):
            while not (pending := await rig.approvals.list(WHO)):
                await asyncio.sleep(0.005)
        await rig.waiting(pending[0].run_id)
    async with open_rig(database_url, other=other) as rig:
        await rig.approvals.decide(WHO, pending[0].id, approve=True)
        assert (await rig.ended(ex.id)).output == "x"


async def test_each_item_of_a_loop_is_asked_about(rig: Rig) -> None:
    blueprint = drawn(
        {"s": "start", "each": "each", "it": ("effect", {}, {"ask_first": True, "on_error": "continue"}), "end": "compute"},
        "s.value > each.items", "each.item > it.value", "it.value > each.result", "each.done > end.value",
    )  # fmt: skip
    ex = await rig.begin(blueprint, ["a", "b"])
    for approve in (True, False):
        await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=approve)
        async with asyncio.timeout(15):
            while await rig.approvals.list(WHO, pending=False) == []:
                await asyncio.sleep(0.005)
    assert (await rig.ended(ex.id)).output == ["a", None]
    assert world.calls == ["a"]


async def test_trying_again_asks_again(rig: Rig) -> None:
    ex = await rig.begin(asking(), "x")
    await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=False)
    await rig.ended(ex.id)
    _, plan, facts = await rig.engine.journal.load(TENANT, ex.id)
    taken = reuse(Past(ex.id, plan, facts), plan)
    again = await rig.engine.accept(
        Order("run_again", TENANT, plan, "s", "x", blueprint_id="bp", fork=taken.told, seed=taken.facts)
    )
    assert not world.calls
    await rig.approvals.decide(WHO, (await question(rig, again.id)).id, approve=True)
    assert (await rig.ended(again.id)).info.state == "succeeded"


@pytest.mark.parametrize("yes", [True, False])
async def test_a_test_says_whom_it_would_ask_and_goes_on_with_the_answer_that_was_chosen(rig: Rig, yes: bool) -> None:
    blueprint = asking(on_error="continue", on_error_value="no")
    run_id = await rig.sandbox.start(WHO, blueprint, "x", pretend={"it": {"approved": yes}})
    view = await rig.ended(run_id)
    said = "yes" if yes else "no"
    assert view.effects[0] == f"would ask a person first: “May “Effect” go ahead?”; the sandbox says {said}"
    assert outputs(view)["end"] == {"value": "sent x" if yes else "no"}
    assert not world.calls
    assert not await rig.approvals.list(WHO)


async def test_a_debugged_test_is_held_before_the_step_and_asks_after(rig: Rig) -> None:
    run_id = await rig.sandbox.start(WHO, asking(), "x", breakpoints=["it"])
    async with asyncio.timeout(15):
        while rig.sandbox.held(WHO, run_id) is None:
            await asyncio.sleep(0.005)
    assert not (await rig.runs.get(WHO, run_id)).effects
    rig.sandbox.go_on(WHO, run_id, "continue")
    view = await rig.ended(run_id)
    assert [effect.partition(":")[0] for effect in view.effects] == ["would ask a person first", "would send x"]


async def test_what_is_pinned_or_switched_off_does_nothing_and_so_asks_nobody(rig: Rig) -> None:
    blueprint = asking()
    blueprint.nodes[1].pinned = {"value": "pinned"}
    view = await rig.ended(await rig.sandbox.start(WHO, blueprint, "x"))
    assert (outputs(view)["end"], view.effects) == ({"value": "pinned"}, [])
    blueprint = asking()
    blueprint.nodes[1].disabled = True
    assert states(await rig.run(blueprint, "x"))["it"] == "succeeded"
    assert not await rig.approvals.list(WHO)


class Person:
    """Says at a terminal what it was told to say, and remembers what it was asked."""

    def __init__(self, approved: bool) -> None:
        self.approved = approved
        self.asked: list[tuple[Any, ...]] = []

    async def ask(self, *question: Any) -> dict[str, Any]:
        self.asked.append(question)
        return {"approved": self.approved, "note": "not today", "by": "Ann"}


class Web:
    """Fails once with an error after which it helps to try again."""

    def __init__(self, module: Any) -> None:
        self.calls = 0
        self.module = module

    async def request(self, method: str, url: str, **_: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise self.module.NodeError("not now", retry=True, category="remote")
        return self.module.HttpReply(200, {}, b"{}", url)


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("approved", [True, False])
async def test_a_module_asks_at_the_terminal_once_for_all_tries(tmp_path: Path, approved: bool, retries: int) -> None:
    policy = {"ask_first": True, "retries": retries, "first_delay": 0, "on_error": "port"}
    place = {"url": "https://api.example.com", "method": "GET"}
    document = {
        "allowed_hosts": ["api.example.com"],
        "nodes": [
            {"id": "go", "type": "trigger.manual"},
            {"id": "it", "name": "Get it", "type": "context.http_request", "policy": policy, "settings": place},
        ],
        "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "it", "target_port": "value"}],
    }
    module = imported(compile_python(Blueprint.parse(document), catalog()), tmp_path)
    person, web, world = Person(approved), Web(module), module.World()
    world.people, world.http = person, web
    given = await module.run({"id": 7}, world=world)
    assert [one[:2] for one in person.asked] == [("May “Get it” go ahead?", {"value": {"id": 7}})]
    assert web.calls == (0 if not approved else 1 + min(retries, 1))
    error = given if "message" in (given or {}) else None
    assert (error is None) is (approved and retries > 0)
    if not approved:
        assert error["message"] == "Ann said no to “Get it”: not today."


async def test_a_question_waits_for_a_database_that_is_away(rig: Rig) -> None:
    write, refused = rig.db.write, []

    async def away(tenant: str, work: Any) -> Any:
        if len(refused) < 2 and "_prepare_question" in work.__qualname__:
            refused.append(work)
            raise lost()
        return await write(tenant, work)

    rig.db.write = away  # type: ignore[method-assign, assignment]
    ex = await rig.begin(asking(), "x")
    await rig.approvals.decide(WHO, (await question(rig, ex.id)).id, approve=True)
    assert (await rig.ended(ex.id)).info.state == "succeeded"
    assert len(refused) == 2
