"""Agents that start others and wait for them later; typed inputs of called agents; what a crash in between leaves is made up for."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from runtime.execution import Execution, Order
from tests.runtime.engines import TENANT, WHO, Rig, outputs
from tests.runtime.test_engine_events import START, drawn, open_real

DOUBLE = drawn(
    {
        "c": ("trigger.called", {"fields": [{"name": "n", "kind": "number"}]}),
        "d": ("flow.set_variable", {"name": "twice", "to": "n * 2"}),
        "r": ("action.respond", {"body": "json", "json_body": '{"twice": "{{ vars.twice }}"}'}),
    },
    "c.value > d.value", "d.value > r.value",
)  # fmt: skip
SLOW = drawn(
    {"m": START, "c": ("trigger.called", {}), "w": ("flow.wait_event", {"event": "go", "amount": 2})},
    "m.value > w.value", "c.value > w.value",
)  # fmt: skip


def starts(target: str, **awaiting: Any) -> Blueprint:
    return drawn(
        {
            "s": START,
            "go": ("flow.start_blueprint", {"blueprint": target}),
            "p": ("flow.wait", {"amount": 0}),
            "w": ("flow.await_run", {"run_id": "steps.start_an_agent.run"} | awaiting),
        },
        "s.value > go.value", "go.value > p.value", "p.value > w.value",
    )  # fmt: skip


def calls(target: str) -> Blueprint:
    return drawn({"s": START, "call": ("flow.call_blueprint", {"blueprint": target})}, "s.value > call.value")


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    async with open_real(database_url, double=DOUBLE, slow=SLOW, waits=starts("slow")) as rig:
        yield rig


async def let_go(rig: Rig, value: Any) -> None:
    assert await rig.engine.waits.publish(TENANT, "live", "go", "", value, f"go {value}") >= 1


async def test_a_started_agent_is_awaited_later(rig: Rig) -> None:
    view = await rig.run(starts("double"), {"n": 4})
    assert outputs(view)["w"] == {"value": {"twice": 8}}
    child = await rig.runs.get(WHO, outputs(view)["go"]["run"])
    assert child.info.state == "succeeded" and child.info.trigger == "c"


async def test_what_is_started_goes_on_by_itself_and_tells_its_end_when_it_ends(rig: Rig) -> None:
    ex = await rig.begin(starts("slow"), {"n": 4})
    view = await rig.waiting(ex.id)
    child = outputs(view)["go"]["run"]
    await rig.waiting(child)
    await let_go(rig, "done")
    assert outputs(await rig.ended(ex.id))["w"] == {"value": "done"}


async def test_what_takes_too_long_goes_another_way_and_is_left_alone(rig: Rig) -> None:
    ex = await rig.begin(starts("slow", amount=1, unit="hours"), {"n": 4})
    child = outputs(await rig.waiting(ex.id))["go"]["run"]
    now = rig.engine.clock()
    rig.engine.clock = lambda: now + 4_000
    await rig.engine.tick()
    assert outputs(await rig.ended(ex.id))["w"] == {"too_late": {"n": 4}}
    assert (await rig.runs.get(WHO, child)).info.state == "waiting"


async def test_only_the_run_that_started_another_can_wait_for_it(rig: Rig) -> None:
    other = (await rig.run(starts("double"), {"n": 4})).info.id
    blueprint = drawn({"s": START, "w": ("flow.await_run", {})}, "s.value > w.value")
    for wanted in (other, "run_made_up"):
        view = await rig.run(blueprint, wanted)
        assert view.info.error and "not a run that this run has started" in view.info.error["message"]


async def test_a_wrong_input_is_refused_in_words(rig: Rig) -> None:
    for given, said in (({}, "“n” is missing"), ({"n": "4"}, "“n” has to be a number, not a text"), ("4", "a text")):
        view = await rig.run(calls("double"), given)
        assert view.info.error and said in view.info.error["message"]
    assert outputs(await rig.run(calls("double"), {"n": 4}))["call"] == {"value": {"twice": 8}}


@pytest.mark.parametrize(("kind", "state"), [("number", "succeeded"), ("text", "failed")])
async def test_a_called_agent_gives_back_what_it_says(rig: Rig, kind: str, state: str) -> None:
    settings = {"fields": [{"name": "n", "kind": "number"}], "returns": [{"name": "twice", "kind": kind}]}
    placed = [
        node.model_copy(update={"settings": settings}) if node.type == "trigger.called" else node
        for node in DOUBLE.nodes
    ]
    rig.called["double"] = DOUBLE.model_copy(update={"nodes": placed})
    view = await rig.run(calls("double"), {"n": 4})
    assert view.info.state == state
    if state == "failed":
        assert view.info.error and "“twice” has to be a text, not a number" in view.info.error["message"]


async def test_a_child_that_a_crash_kept_from_starting_is_started(database_url: str) -> None:
    called = {"slow": SLOW}
    async with open_real(database_url, **called) as rig:
        ex = await rig.begin(starts("slow"), {"n": 4})
        await rig.waiting(ex.id)
        facts = (await rig.engine.journal.load(TENANT, ex.id))[2]
        plan = rig.plans.of(TENANT, starts("slow"))
    cut = next(n for n, fact in enumerate(facts) if fact["kind"] == "step.waiting") + 1
    async with open_real(database_url, **called) as rig:
        left = await _left_behind(rig, plan, facts[:cut])
        assert await rig.runs.list(WHO, limit=50)
    async with open_real(database_url, **called) as rig:
        view = await rig.waiting(left)
        child = outputs(view)["go"]["run"]
        await rig.waiting(child)
        await let_go(rig, "late")
        assert outputs(await rig.ended(left))["w"] == {"value": "late"}


async def _left_behind(rig: Rig, plan: Any, facts: list[dict[str, Any]]) -> str:
    """The rows of a run as a crash right after these facts leaves them."""
    ex = Execution(rig.engine, Order("run_left_behind", TENANT, plan, "s", None, blueprint_id="bp"))
    for fact in facts:
        data = {name: value for name, value in fact.items() if name not in ("seq", "at", "kind", "node", "iteration")}
        if "run" in (data.get("data") or {}):
            data["data"] = data["data"] | {"run": "run_never_started"}
        ex.emit(fact["kind"], fact.get("node", ""), fact.get("iteration", ""), **data)
    await ex.flush()
    return ex.id


async def test_the_sandbox_starts_and_awaits_agents_in_the_sandbox(rig: Rig) -> None:
    view = await rig.ended(await rig.sandbox.start(WHO, starts("double"), {"n": 4}))
    assert outputs(view)["w"] == {"value": {"twice": 8}}
    assert await rig.runs.list(WHO) == []


async def test_agents_that_start_each_other_have_an_end(rig: Rig) -> None:
    async def itself(tenant: str, id_: str, environment: str = "live") -> Any:
        return rig.plans.of(tenant, starts("self")), id_, 1

    rig.engine.find_blueprint = itself  # type: ignore[assignment]
    view = await rig.run(starts("self"), {"n": 1})
    assert view.info.error and "levels" in str(view.info.error)
