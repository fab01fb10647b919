"""Agent steps: a model that works in turns over a real HTTP server, with tools that are steps of the run."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from nodes.ids import new_id
from runtime.events import Fact
from runtime.execution import Order
from runtime.factory import Factory, Options
from runtime.forks import Start, reuse
from runtime.limits import in_dollars
from runtime.llm_sample import MARK
from runtime.policy import Actor, Role
from runtime.prices import micro
from runtime.states import RunState
from runtime.story import Story
from runtime.views import RunView
from tests.databases import laid_out
from tests.fakes.openai_server import KEY, OpenAiServer
from tests.runtime.small_nodes import TYPES as SMALL
from tests.runtime.small_nodes import world

TENANT = "team"
WHO = Actor(TENANT, "usr_1", "Ada", Role.DEVELOPER)
TYPES = Catalog([*catalog(), *SMALL])
ECHO = ("t.compute", {"formula": "args.what | upper"})
"""A tool that gives its argument in capitals."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    world.calls.clear()
    world.keys.clear()
    world.fail_times = 0
    world.most_at_once = 0
    world.hold = asyncio.Event()


@pytest.fixture
async def server() -> AsyncIterator[OpenAiServer]:
    async with OpenAiServer() as opened:
        yield opened


@asynccontextmanager
async def opened(folder: Path, server: OpenAiServer | None) -> AsyncIterator[Factory]:
    """An installation on this folder until the end of the block; what is going on then is left as a crash leaves it."""
    model = {"model": "openai/gpt-4o-mini", "model_base_url": server.base_url, "model_key": KEY} if server else {}
    options = Options(
        laid_out(f"sqlite:///{folder}/factory.db"), b"k" * 32, home="t", pool_size=0, ticking=False, **model
    )
    async with Factory(options, types=TYPES) as factory:
        yield factory


@pytest.fixture
async def factory(tmp_path: Path, server: OpenAiServer) -> AsyncIterator[Factory]:
    async with opened(tmp_path, server) as found:
        yield found


def drawn(agent: Mapping[str, Any], tools: Mapping[str, Any] | None = None, *wires: str, **more: Any) -> Blueprint:
    """`start → agent → end` with these tools, each `(type, settings, policy)`; wires say what else there is."""
    placed = [
        {"id": "start", "type": "t.start"},
        {"id": "agent", "type": "action.agent", "settings": {"task": "{{ input }}"} | dict(agent)},
        {"id": "end", "type": "t.compute", "settings": {"formula": "input"}},
    ]
    wires = ("start.value > agent.value", "agent.value > end.value", *wires)
    for id_, (type_, *rest) in (tools or {}).items():
        settings, policy = (*rest, {}, {})[:2]
        placed.append({"id": id_, "type": type_, "name": id_.title(), "settings": settings, "policy": policy})
        if not any(wire.split(" > ")[1].startswith(f"{id_}.") or wire.startswith(f"{id_}.") for wire in wires):
            wires = (*wires, f"{id_}.tool > agent.tools")
    edges = []
    for number, wire in enumerate(wires):
        (source, out), (target, into) = (end.strip().split(".") for end in wire.split(">"))
        edges.append({"id": f"e{number}", "source": source, "source_port": out, "target": target, "target_port": into})
    return Blueprint.parse({"name": "Small", "nodes": placed, "edges": edges, **more})


async def begun(factory: Factory, blueprint: Blueprint, task: str) -> str:
    plan = factory.plans.of(TENANT, blueprint)
    return (await factory.engine.accept(Order(new_id("run"), TENANT, plan, "start", task, blueprint_id="bp"))).id


async def run(factory: Factory, blueprint: Blueprint, task: str) -> RunView:
    return await factory.runs.wait(WHO, await begun(factory, blueprint, task), 20)


async def ended(factory: Factory, run_id: str) -> RunView:
    async with asyncio.timeout(20):
        async for fact in factory.runs.watch(WHO, run_id):
            if fact["kind"] == "run.finished":
                break
    return await factory.runs.get(WHO, run_id)


async def facts(factory: Factory, run_id: str) -> list[Fact]:
    return (await factory.engine.journal.load(TENANT, run_id))[2]


def steps(view: RunView, node: str) -> list[Any]:
    return [step for step in view.steps if step.node == node]


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


# --- turns and tools --------------------------------------------------------------------------------------------------


async def test_an_agent_without_tools_answers_in_one_turn(factory: Factory, server: OpenAiServer) -> None:
    view = await run(factory, drawn({"role": "Be brief."}), "#turns Nine o'clock.")
    assert view.output == "Nine o'clock."
    assert "tools" not in server.bodies[0]
    system = server.bodies[0]["messages"][0]
    assert system["content"].startswith("Be brief.\n\n")
    usage = steps(view, "agent")[0].output["usage"]
    assert (usage["turns"], usage["calls"], usage["model"], usage["sample"]) == (1, 0, "gpt-4o-mini", False)
    assert usage["tokens_in"] > 0
    assert usage["tokens_out"] == 2


async def test_each_call_of_a_tool_is_a_step_of_the_run_with_its_arguments(
    factory: Factory, server: OpenAiServer
) -> None:
    script = '#turns #call echo {"what": "oslo"} #call echo {"what": "rome"} #then #call echo {"what": "bonn"} #then Seen: #tools.'
    view = await run(factory, drawn({}, {"echo": ECHO}), script)
    assert view.output == "Seen: OSLO; ROME; BONN."
    assert [(step.iteration, step.output) for step in steps(view, "echo")] == [
        ("0", {"value": "OSLO"}), ("1", {"value": "ROME"}), ("2", {"value": "BONN"})
    ]  # fmt: skip
    done = steps(view, "agent")[0].output["steps"]
    assert [(step["turn"], step["args"]["what"], step["result"], step["failed"]) for step in done] == [
        (1, "oslo", "OSLO", False), (1, "rome", "ROME", False), (2, "bonn", "BONN", False)
    ]  # fmt: skip
    told = server.bodies[0]["tools"][0]["function"]
    assert told["name"] == "echo"
    assert told["parameters"]["required"] == ["what"]


async def test_what_a_tool_does_not_give_is_not_part_of_the_flow(factory: Factory) -> None:
    view = await run(factory, drawn({}, {"echo": ECHO}), "#turns Nothing to do.")
    assert view.info.state == "succeeded"
    assert not steps(view, "echo")


async def test_tools_of_one_turn_run_together(factory: Factory) -> None:
    blueprint = drawn({}, {"read": ("t.read", {"hold": True})})
    run_id = await begun(
        factory, blueprint, '#turns #call read {"input": 1} #call read {"input": 1} #call read {"input": 1} #then Done.'
    )
    await until(lambda: world.at_once == 3)
    world.hold.set()
    assert (await factory.runs.wait(WHO, run_id, 20)).output == "Done."


async def test_a_tool_may_be_several_steps_and_use_what_came_before(factory: Factory) -> None:
    blueprint = drawn(
        {},
        {"first": ("t.compute", {"formula": "args.a ~ vars.mark"}), "then": ("t.compute", {"formula": "input ~ args.b ~ steps.start.value | length"})},
        "first.tool > agent.tools",
        "first.value > then.value",
        variables=[{"name": "mark", "value": "-"}],
    )  # fmt: skip
    script = '#turns #call first {"a": "x", "b": "y"} #then #tools'
    view = await run(factory, blueprint, script)
    assert view.output == f"x-y{len(script)}"
    assert [step.iteration for step in steps(view, "then")] == ["0"]


@pytest.mark.parametrize("given", [True, False])
async def test_an_agent_that_only_its_tools_are_given_something_runs_when_that_has_come(
    factory: Factory, given: bool
) -> None:
    nodes = [
        {"id": "start", "type": "t.start"},
        {"id": "way", "type": "t.branch", "settings": {"formula": "input"}},
        {
            "id": "agent",
            "type": "action.agent",
            "settings": {"task": '#turns #call both {"input": 1} #then Both: #tools'},
        },
        {"id": "both", "type": "t.both", "name": "Both"},
    ]
    wires = ["start.value > way.value", "way.yes > both.b", "both.tool > agent.tools"]
    edges = []
    for number, wire in enumerate(wires):
        (source, out), (target, into) = (end.split(".") for end in wire.split(" > "))
        edges.append({"id": f"e{number}", "source": source, "source_port": out, "target": target, "target_port": into})
    view = await run(factory, Blueprint.parse({"name": "Small", "nodes": nodes, "edges": edges}), given)  # type: ignore[arg-type]
    assert view.info.state == "succeeded"
    assert steps(view, "agent")[0].state == ("succeeded" if given else "skipped")
    if given:
        assert steps(view, "agent")[0].output["value"] == "Both: [1,true]"


async def test_an_agent_can_be_the_tool_of_another(factory: Factory) -> None:
    clerk = {"task": '#turns #call echo {"what": "hi"} #then Clerk: #tools', "max_calls": 5}
    tools = {"clerk": ("action.agent", clerk), "echo": ECHO}
    blueprint = drawn({}, tools, "clerk.tool > agent.tools", "echo.tool > clerk.tools")
    view = await run(factory, blueprint, "#turns #call clerk {} #then Boss: #tools")
    assert view.output.startswith('Boss: {"value":"Clerk: HI","steps":[{"turn":1,"tool":"Echo"')
    assert [(step.node, step.iteration) for step in view.steps if step.node in tools] == [
        ("clerk", "0"),
        ("echo", "0.0"),
    ]


async def test_in_a_loop_each_item_has_a_conversation_of_its_own(factory: Factory) -> None:
    document = drawn(
        {"task": '#turns #call echo {"what": "{{ item }}"} #then #tools'},
        {"echo": ("t.compute", {"formula": "args.what ~ item"})},
    )
    wires = {
        "e0": ("each", "item", "agent", "value"),
        "e1": ("agent", "value", "each", "result"),
        "e9": ("start", "value", "each", "items"),
        "e8": ("each", "done", "end", "value"),
    }
    edges = [edge.model_dump() for edge in document.edges if edge.id not in wires]
    edges += [
        {"id": id_, "source": a, "source_port": b, "target": c, "target_port": d} for id_, (a, b, c, d) in wires.items()
    ]
    each = {"id": "each", "type": "t.each", "settings": {"parallel": 3}}
    blueprint = Blueprint.parse(
        document.model_dump() | {"nodes": [*document.model_dump()["nodes"], each], "edges": edges}
    )
    view = await run(factory, blueprint, ["a", "b", "c"])  # type: ignore[arg-type]
    assert view.output == ["aa", "bb", "cc"]
    assert sorted(step.iteration for step in steps(view, "echo")) == ["0.0", "1.0", "2.0"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_unknown_tools_and_wrong_arguments_are_told_to_the_model(factory: Factory) -> None:
    script = '#turns #call nothing {} #call echo {"whta": "x"} #call echo {} #call echo [1] #call echo {"what": ["a"]} #then #tools'
    view = await run(factory, drawn({}, {"echo": ECHO}), script)
    assert view.info.state == "succeeded"
    for said in (
        "There is no tool `nothing`; there are: `echo`.",
        "There is no argument `whta`; there are: `what`.",
        "The argument `what` is missing.",
        "The arguments are not a JSON object.",
        "The argument `what` must be a text, not a list.",
    ):
        assert said in view.output
    assert not steps(view, "echo")
    assert all(step["failed"] for step in steps(view, "agent")[0].output["steps"])


async def test_what_providers_would_refuse_is_not_said_again_to_them(factory: Factory, server: OpenAiServer) -> None:
    long = "x" * 120_000
    script = f'#turns #call nöt/there {{"a": 1}} #call echo {{"what": "{long}"}} #then #tools'
    view = await run(factory, drawn({"max_total": 100_000}, {"echo": ECHO}), script)
    assert "The arguments are longer than 100,000 characters." in view.output
    said = [call["function"] for call in server.bodies[1]["messages"][-3]["tool_calls"]]
    assert said == [{"name": "n_t_there", "arguments": '{"a": 1}'}, {"name": "echo", "arguments": "{}"}]


async def test_a_tool_that_fails_is_told_to_the_model_and_the_run_goes_on(factory: Factory) -> None:
    blueprint = drawn({}, {"effect": ("t.effect", {"fail": True})})
    view = await run(factory, blueprint, '#turns #call effect {"input": 1} #then #tools')
    assert view.output == '{"error":"it said no ask again"}'
    assert steps(view, "effect")[0].state == "failed"
    assert view.info.error is None


async def test_a_tool_is_retried_as_any_step(factory: Factory) -> None:
    world.fail_times = 2
    blueprint = drawn({}, {"effect": ("t.effect", {}, {"retries": 3, "first_delay": 0})})
    view = await run(factory, blueprint, '#turns #call effect {"input": 1} #then fine')
    assert view.output == "fine"
    assert steps(view, "effect")[0].attempt == 3
    assert len(world.keys) == 1, "all tries have one key"


async def test_each_call_has_an_idempotency_key_of_its_own(factory: Factory) -> None:
    view = await run(
        factory,
        drawn({}, {"effect": ("t.effect",)}),
        '#turns #call effect {"input": 1} #call effect {"input": 1} #then fine',
    )
    assert view.info.state == "succeeded"
    assert sorted(world.keys.values()) == [1, 1]


async def test_a_model_that_fails_is_asked_again_as_the_policy_says(factory: Factory, server: OpenAiServer) -> None:
    document = drawn({}).model_dump()
    document["nodes"][1]["policy"] |= {"retries": 1, "first_delay": 0}
    view = await run(factory, Blueprint.parse(document), "#503")
    assert (view.info.state, view.info.error["category"]) == ("failed", "remote")
    assert len(server.bodies) == 2


# --- limits -----------------------------------------------------------------------------------------------------------

ENDLESS = '#turns #call echo {"what": "again"}'


async def test_at_the_last_turn_the_model_must_answer_without_tools(factory: Factory, server: OpenAiServer) -> None:
    view = await run(factory, drawn({"max_turns": 3}, {"echo": ECHO}), ENDLESS)
    assert view.output == "Nothing to call with."
    assert len(server.bodies) == 3
    assert "tools" not in server.bodies[2]
    assert server.bodies[2]["messages"][-1]["content"].startswith("You can use no more tools.")


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"max_turns": 2}, "limit.turns", "no answer after 2 turns; 2 are allowed"),
        ({"max_calls": 3}, "limit.calls", "no answer after 3 uses of tools; 3 are allowed"),
        ({"max_total": 100}, "limit.tokens", "tokens; 100 are allowed"),
    ],
)
async def test_a_limit_may_also_end_the_run(factory: Factory, settings: dict[str, Any], code: str, said: str) -> None:
    view = await run(factory, drawn(settings | {"at_limit": "stop"}, {"echo": ECHO}), ENDLESS)
    assert view.info.state == "failed"
    assert (view.info.error["code"], view.info.error["category"]) == (code, "limit")
    assert said in view.info.error["message"]
    assert view.info.error["fix"]


async def test_calls_beyond_the_limit_are_not_made(factory: Factory) -> None:
    view = await run(
        factory,
        drawn({"max_calls": 1}, {"effect": ("t.effect",)}),
        '#turns #call effect {"input": 1} #call effect {"input": 1} #then ok',
    )
    assert view.output == "ok"
    assert len(world.calls) == 1
    assert "no more tools" in steps(view, "agent")[0].output["steps"][1]["result"]["error"]


async def test_what_the_models_of_a_run_take_has_an_end(factory: Factory) -> None:
    factory.llms.limits._lowered[TENANT, "model_run_tokens"] = 50
    view = await run(factory, drawn({}, {"echo": ECHO}), ENDLESS)
    assert (view.info.state, view.info.error["code"]) == ("failed", "limit.tokens")
    assert "up to 50 may be used in one run" in view.info.error["message"]


# --- the answer -------------------------------------------------------------------------------------------------------

FIELDS = {"answer": "fields", "fields": [{"name": "city"}, {"name": "days", "kind": "number"}]}


async def test_an_answer_with_fields_is_a_record(factory: Factory) -> None:
    script = '#turns #call echo {"what": "oslo"} #then {"city": "#tools", "days": 2}'
    view = await run(factory, drawn(FIELDS, {"echo": ECHO}), script)
    assert view.output == {"city": "OSLO", "days": 2}


async def test_an_answer_that_does_not_fit_is_sent_back_once(factory: Factory, server: OpenAiServer) -> None:
    view = await run(factory, drawn(FIELDS), '#turns Two days in Oslo. #then {"city": "Oslo", "days": 2}')
    assert view.output == {"city": "Oslo", "days": 2}
    assert server.prompts[1].startswith("That does not fit: It is not JSON.")
    view = await run(factory, drawn(FIELDS), "#turns Two days in Oslo.")
    assert (view.info.state, view.info.error["category"]) == ("failed", "model")


async def test_a_model_node_says_how_the_model_is_asked(factory: Factory, server: OpenAiServer) -> None:
    model = ("context.model", {"model": "openai/gpt-4o", "temperature": 0.5, "max_tokens": 99})
    view = await run(factory, drawn({}, {"model": model}, "model.model > agent.model"), "#turns ok")
    assert view.output == "ok"
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o", 0.5, 99)
    assert not steps(view, "model"), "a model is not a step"


async def test_a_memory_lets_the_next_run_know_what_was_said(factory: Factory, server: OpenAiServer) -> None:
    memory = ("context.memory", {"name": "talk {{ 1 + 1 }}", "exchanges": 2})
    blueprint = drawn({}, {"memory": memory}, "memory.memory > agent.memory")
    answers = [(await run(factory, blueprint, task)).output for task in ("one", "two", "three", "four")]
    said = [message["content"] for message in server.bodies[3]["messages"][1:]]
    assert said == ["two", answers[1], "three", answers[2], "four"]


# --- people and crashes -----------------------------------------------------------------------------------------------

ASKED = {"ask": ("t.ask",), "effect": ("t.effect",)}
ASKED_WIRES = ("ask.tool > agent.tools", "ask.yes > effect.value")


@pytest.mark.parametrize("approved", [True, False])
async def test_an_approval_before_a_tool_holds_the_model_back(
    tmp_path: Path, server: OpenAiServer, approved: bool
) -> None:
    blueprint = drawn({}, ASKED, *ASKED_WIRES)
    async with opened(tmp_path, server) as factory:
        run_id = await begun(factory, blueprint, '#turns #call ask {"input": "pay 5"} #then #tools')
        await until(lambda: run_id not in factory.engine.active)
        assert not world.calls
    async with opened(tmp_path, server) as factory:
        pending = await factory.approvals.list(WHO)
        assert [found.title for found in pending] == ["May pay 5?"]
        await factory.approvals.decide(WHO, pending[0].id, approve=approved)
        view = await ended(factory, run_id)
    assert view.info.state == "succeeded"
    assert world.calls == (["pay 5"] if approved else [])
    assert len(server.bodies) == 2, "no turn was paid for twice"
    if not approved:
        assert '"approved":false' in view.output


@pytest.mark.parametrize("approved", [True, False])
async def test_a_tool_can_ask_a_person_first_and_the_agent_is_told_what_they_said(
    tmp_path: Path, server: OpenAiServer, approved: bool
) -> None:
    blueprint = drawn({}, {"pay": ("t.effect", {}, {"ask_first": True})})
    async with opened(tmp_path, server) as factory:
        run_id = await begun(factory, blueprint, '#turns #call pay {"input": "5 €"} #then #tools')
        await until(lambda: run_id not in factory.engine.active)
        assert not world.calls
    async with opened(tmp_path, server) as factory:
        [asked] = await factory.approvals.list(WHO)
        assert asked.title == "May “Agent” use “Pay”?"
        assert asked.details["What the agent asks for"] == {"input": "5 €"}
        await factory.approvals.decide(WHO, asked.id, approve=approved, note="not today")
        view = await ended(factory, run_id)
    assert view.info.state == "succeeded"
    assert world.calls == (["5 €"] if approved else [])
    assert len(server.bodies) == 2, "no turn was paid for twice"
    if not approved:
        assert "Ada said no to “Pay”: not today. Do not try the same again." in view.output


async def test_after_a_crash_the_conversation_goes_on_where_it_was(tmp_path: Path, server: OpenAiServer) -> None:
    blueprint = drawn({}, {"echo": ECHO, "effect": ("t.effect", {"hold": True})})
    async with opened(tmp_path, server) as factory:
        script = '#turns #call echo {"what": "a"} #then #call echo {"what": "b"} #call effect {"input": 1} #then #tools'
        run_id = await begun(factory, blueprint, script)
        await until(lambda: world.calls)
    assert len(server.bodies) == 2
    world.hold.set()
    async with opened(tmp_path, server) as factory:
        view = await ended(factory, run_id)
        assert view.info.error is None
        assert view.output == "A; B; 1"
        assert len(server.bodies) == 3, "answers that are in the journal are not paid for again"
        assert set(world.keys.values()) == {2}, "the effect was repeated under its key"
        kinds = [fact["kind"] for fact in await facts(factory, run_id)]
        assert kinds.count("agent.turn") == 3
        assert kinds.count("agent.started") == 1


async def test_an_effect_that_may_have_happened_asks_a_person(tmp_path: Path, server: OpenAiServer) -> None:
    blueprint = drawn({}, {"unkeyed": ("t.unkeyed", {"hold": True})})
    async with opened(tmp_path, server) as factory:
        run_id = await begun(factory, blueprint, '#turns #call unkeyed {"input": 1} #then fine')
        await until(lambda: world.calls)
    async with opened(tmp_path, server) as factory:
        async with asyncio.timeout(20):
            while not (asked := await factory.approvals.list(WHO)):
                await asyncio.sleep(0.005)
        view = await factory.runs.get(WHO, run_id)
        assert steps(view, "unkeyed")[0].state == "in doubt"
        await factory.approvals.decide(WHO, asked[0].id, approve=True, choice="It happened: go on")
        assert (await ended(factory, run_id)).output == "fine"
    assert len(world.calls) == 1


async def test_wherever_the_facts_end_the_run_comes_to_the_same_end(tmp_path: Path, server: OpenAiServer) -> None:
    """A crash after any fact: what is in the journal counts, the rest is done again, and the model repeats no turn."""
    blueprint = drawn({}, {"echo": ECHO, "effect": ("t.effect",)})
    script = '#turns #call echo {"what": "a"} #call effect {"input": 1} #call nope {} #then #call echo {"what": "b"} #then #tools'
    async with opened(tmp_path, server) as factory:
        whole = await run(factory, blueprint, script)
        written = await facts(factory, whole.info.id)
        plan = factory.plans.of(TENANT, blueprint)
        for length in range(1, len(written)):
            before, turns = len(server.bodies), [fact for fact in written[:length] if fact["kind"] == "agent.turn"]
            order = Order(
                new_id("run"),
                TENANT,
                plan,
                "start",
                script,
                blueprint_id="bp",
                sandbox=True,
                allow=frozenset({"effect"}),
            )
            ex = factory.engine.begin(order)
            ex.progress.__init__(plan)  # type: ignore[misc]
            ex.replay(written[:length])
            await ex.drive()
            assert (ex.state, ex.output) == (RunState.SUCCEEDED, whole.output), written[length - 1]["kind"]
            assert len(server.bodies) - before == 3 - len(turns)


async def test_a_run_that_was_cut_goes_on_in_the_middle_of_its_conversation(
    factory: Factory, server: OpenAiServer
) -> None:
    blueprint = drawn(
        {}, {"effect": ("t.effect",), "bad": ("t.effect", {"fail": True}), "read": ("t.read", {"hold": True})}
    )
    script = '#turns #call effect {"input": 1} #call bad {"input": 2} #then #call read {"input": 3} #then #tools'
    run_id = await begun(factory, blueprint, script)
    await until(lambda: len(world.calls) == 3)
    await factory.engine.cancel(TENANT, run_id)
    world.hold.set()
    again = await ended(factory, await factory.runs.fork(WHO, run_id, Start.FAILURE))
    assert again.output == '1; {"error":"it said no ask again"}; 3'
    assert len(server.bodies) == 3, "two turns were known already"
    assert world.calls == [1, 2, 3, 3], "only the tool that was cut ran again"


async def test_an_agent_that_failed_begins_anew_on_other_data_and_goes_on_with_the_same(
    factory: Factory, server: OpenAiServer
) -> None:
    blueprint = drawn({"max_turns": 1, "at_limit": "stop"}, {"echo": ECHO})
    script = '#turns #call echo {"what": "oslo"} #then #tools'
    run_id = await begun(factory, blueprint, script)
    assert (await ended(factory, run_id)).info.state == "failed"
    assert len(server.bodies) == 1
    assert (await factory.dead_letters.get(WHO, run_id)).step_input == {"value": script}
    same = await ended(factory, await factory.dead_letters.retry(WHO, run_id))
    assert (same.info.state, len(server.bodies)) == ("failed", 1), "it knows that its turns are used up"
    new = await factory.dead_letters.retry(WHO, same.info.id, step_input={"value": "#turns Fine."})
    assert (await ended(factory, new)).output == "Fine."
    assert not steps(await factory.runs.get(WHO, new), "echo"), "what was said of the old data is forgotten"


async def test_a_result_of_an_agent_is_used_again_unless_what_hangs_on_it_changed(
    factory: Factory, server: OpenAiServer
) -> None:
    model = ("context.model", {"temperature": 1})
    blueprint = drawn({}, {"model": model, "echo": ECHO}, "model.model > agent.model")
    first = await run(factory, blueprint, '#turns #call echo {"what": "a"} #then #tools')
    again = await ended(factory, await factory.runs.fork(WHO, first.info.id, "end"))
    assert again.output == "A"
    assert len(server.bodies) == 2
    document = blueprint.model_dump()
    next(node for node in document["nodes"] if node["id"] == "model")["settings"]["temperature"] = 0
    past = await factory.runs.past(WHO, first.info.id)
    plan = factory.plans.of(TENANT, Blueprint.parse(document))
    assert "agent" in reuse(past, plan, "end").runs


# --- the story --------------------------------------------------------------------------------------------------------


async def test_the_story_tells_each_turn_with_its_tokens(factory: Factory) -> None:
    script = '#turns #call echo {"what": "oslo"} #call echo {"what": "rome"} #then Done.'
    view = await run(factory, drawn({}, {"echo": ECHO}), script)
    agent = steps(view, "agent")[0]
    assert [entry["message"] for entry in agent.log] == ["Turn 1: uses “Echo”", "Turn 2: answers"]
    assert [call["args"] for call in agent.log[0]["data"]["calls"]] == [{"what": "oslo"}, {"what": "rome"}]
    usage = agent.output["usage"]
    assert (
        agent.note
        == f"2 turns, {usage['tokens_in'] + usage['tokens_out']:,} tokens, {in_dollars(micro(usage['cost']))}"
    )
    story = Story(factory.plans.of(TENANT, view.blueprint))
    for fact in await facts(factory, view.info.id):
        story.tell(fact)
    assert story.calls == {("agent", "0"): (1, "Echo"), ("agent", "1"): (1, "Echo")}


# --- the sandbox ------------------------------------------------------------------------------------------------------


async def test_without_a_model_the_sandbox_shows_how_it_would_go(tmp_path: Path) -> None:
    blueprint = drawn({}, {"echo": ECHO, "effect": ("t.effect",)})
    async with opened(tmp_path, None) as factory:
        view = await factory.runs.wait(WHO, await factory.sandbox.start(WHO, blueprint, "Help"), 20)
    assert view.info.state == "succeeded"
    assert view.output.startswith(MARK)
    assert steps(view, "echo")[0].output == {"value": "(SAMPLE WHAT)"}
    assert view.effects == ["would send (sample input)"]
    assert steps(view, "agent")[0].output["usage"]["sample"] is True
    assert not world.calls


async def test_a_test_up_to_a_tool_runs_its_agent_and_nothing_behind_it(tmp_path: Path) -> None:
    blueprint = drawn({}, {"echo": ECHO})
    async with opened(tmp_path, None) as factory:
        run_id = await factory.sandbox.start(WHO, blueprint, "Help", until="echo")
        view = await factory.runs.wait(WHO, run_id, 20)
    assert {step.node for step in view.steps} == {"start", "agent", "echo"}


async def test_without_a_model_a_live_run_says_where_to_set_one_up(tmp_path: Path) -> None:
    async with opened(tmp_path, None) as factory:
        view = await run(factory, drawn({}), "Help")
    assert (view.info.state, view.info.error["code"]) == ("failed", "model.missing")
