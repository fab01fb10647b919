"""An agent step in a compiled module talks as it does in a run: same questions, same tools, same end."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.base import LlmReply, ToolCall
from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from nodes.compiling import CannotCompile
from runtime.compiling import compile_python
from runtime.journal import Plans
from tests.fakes.openai_server import KEY, OpenAiServer
from tests.nodes.fakes import FakeMemory
from tests.runtime.engines import open_rig
from tests.runtime.test_compiling import checked, imported, ran
from tests.runtime.test_compiling_loops_and_calls import drawn
from tests.runtime.test_compiling_properties import many

TYPES = catalog()


class Scripted:
    """A model that says what is written down, and then that it has ended; notes what it was asked."""

    def __init__(self, *script: LlmReply) -> None:
        self.script = list(script)
        self.asked: list[Any] = []

    async def ask(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> LlmReply:
        said = {name: value for name, value in settings.items() if value not in (None, "")}
        self.asked.append(json.loads(json.dumps([messages, said])))
        return self.script.pop(0) if self.script else LlmReply('{"n": 0}', "scripted", 1, 1)


class Doors:
    """The ways out of a run."""

    def __init__(self, llm: Scripted, memory: Any) -> None:
        self.llm, self._memory = llm, memory

    def memory(self, key: str) -> Any:
        return self._memory


def using(*calls: tuple[str, Any], text: str = "", tokens: int = 1) -> LlmReply:
    """What a model says that wants tools; arguments that are a text are what it sent."""
    found = []
    for name, args in calls:
        raw = args if isinstance(args, str) else json.dumps(args)
        found.append(ToolCall("x", name, args if isinstance(args, dict) else None, raw))
    return LlmReply(text, "scripted", tokens, tokens, calls=tuple(found))


TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "shout": ("action.text_template", {"template": "{{ args.what | upper }} {{ steps.start.value.who }}"}),
    "look": ("validation.decide", {"condition": "args.what == 'a'"}),
    "found": ("action.text_template", {"template": "found {{ args.what }}"}),
    "missing": ("validation.stop_error", {"message": "There is no {{ args.what }}."}),
    "count": ("action.aggregate", {"results": [{"name": "n", "do": "count"}]}),
    "keep": ("context.remember", {"key": "last", "value": "{{ args.value | default('none') }}"}),
}
TOOL_WIRES = (
    "start.value > clerk.value", "shout.tool > clerk.tools", "look.tool > clerk.tools", "count.tool > clerk.tools",
    "keep.tool > clerk.tools", "look.yes > found.value", "look.no > missing.value",
)  # fmt: skip


def desk(**settings: Any) -> Blueprint:
    """An agent with tools of one step and of several, and a memory."""
    clerk = {"task": "Help {{ who }}", "role": "You help.", **settings}
    steps = {
        "start": ("trigger.manual", {}),
        "clerk": ("action.agent", clerk),
        **{k: (t, dict(s)) for k, (t, s) in TOOLS.items()},
    }
    steps["memory"] = ("context.memory", {"name": "{{ who }}", "exchanges": 2})
    return drawn(steps, *TOOL_WIRES, "memory.memory > clerk.memory")


Both = Callable[[Blueprint, Any, Sequence[LlmReply]], tuple[Any, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Run an agent with a script in both worlds; each gives how it ended, what was asked, and what is remembered."""
    folder = tmp_path_factory.mktemp("agents")
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        rig = runner.run(stack.enter_async_context(open_rig(f"sqlite:///{folder}/factory.db")))
        rig.plans = rig.engine.plans = rig.engine.journal.plans = Plans(rig.db, TYPES)

        async def act(blueprint: Blueprint, event: Any, script: Sequence[LlmReply]) -> tuple[Any, Any]:
            model, memory = Scripted(*script), FakeMemory({})
            rig.engine.open_doors = lambda _: Doors(model, memory)  # type: ignore[assignment, return-value]
            view = await rig.run(blueprint, event)
            first = view.output if view.info.error is None else view.info.error["message"], model.asked, dict(memory)
            module = imported(compile_python(blueprint, TYPES), folder)
            world, model = module.World(), Scripted(*script)
            world.llm, world.memory = model, (other := FakeMemory({}))
            try:
                end: Any = await ran(module, event, world)
            except module.FactoryError as error:
                end = error.message
            return first, (end, model.asked, dict(other))

        yield lambda blueprint, event, script: runner.run(act(blueprint, event, script))
        runner.run(stack.aclose())


ARGS = st.sampled_from(
    [{"what": "a"}, {"what": "b"}, {"what": 3}, {"what": ["x"]}, {}, {"odd": 1}, {"items": [1, 2]}, {"items": "x"},
     {"value": "v"}, "[1]", "{", ""]
)  # fmt: skip
CALLS = st.tuples(st.sampled_from(["shout", "look", "count", "keep", "other tool"]), ARGS)
WORDS = st.sampled_from(["", "ok", '{"n": 1}', '{"n": "x"}', '```json\n{"n": 2}\n```', 'n is {"n": 3} so'])
ANSWERED = st.builds(
    LlmReply, WORDS, st.just("scripted"), st.integers(0, 60), st.integers(0, 9), st.just(0.5),
    st.sampled_from(["stop", "stop", "length"]),
)  # fmt: skip
WANTED = st.builds(
    lambda calls, text, tokens: using(*calls, text=text, tokens=tokens),
    st.lists(CALLS, min_size=1, max_size=3), st.sampled_from(["", "Let me see."]), st.integers(0, 20),
)  # fmt: skip
SAID = st.one_of(WANTED, WANTED, ANSWERED)
LIMITS = st.fixed_dictionaries(
    {
        "max_turns": st.sampled_from([6, 4, 2, 1]),
        "max_calls": st.sampled_from([30, 4, 2, 0]),
        "max_total": st.sampled_from([50_000, 50_000, 100]),
        "at_limit": st.sampled_from(["answer", "stop"]),
        "answer": st.sampled_from(["text", "fields"]),
    }
)


@many
@given(limits=LIMITS, script=st.lists(SAID, min_size=1, max_size=6), retries=st.integers(0, 1))
def test_a_random_conversation_goes_the_same_compiled(
    both: Both, limits: dict[str, Any], script: list[LlmReply], retries: int
) -> None:
    fields = {"fields": [{"name": "n", "kind": "number"}]} if limits["answer"] == "fields" else {}
    agent = desk(**limits, **fields, policy={"retries": retries, "first_delay": 0})
    run, module = both(agent, {"who": "Ada"}, script)
    assert module == run


def test_the_model_uses_tools_that_are_steps_and_remembers(both: Both) -> None:
    script = [using(("shout", {"what": "hello"}), ("look", {"what": "b"})), LlmReply("Done.", "scripted", 1, 1)]
    run, module = both(desk(), {"who": "Ada"}, script)
    assert module == run
    ended, asked, remembered = module
    assert ended == "Done."
    said = [message["content"] for message in asked[1][0][-2:]]
    assert said == ["HELLO Ada", '{"error":"There is no b. Look at the steps before this one."}']
    assert remembered == {"conversation Ada": [{"said": "Help Ada", "answered": "Done."}]}


def test_tools_inside_of_a_loop_know_its_item(both: Both) -> None:
    agent = drawn(
        {"start": ("trigger.manual", {}), "each": ("flow.for_each", {"over": "names"}),
         "clerk": ("action.agent", {"task": "{{ item }}", "role": ""}),
         "tell": ("action.text_template", {"template": "{{ index }} {{ item }} {{ args.what }}"})},
        "start.value > each.items", "each.item > clerk.value", "tell.tool > clerk.tools", "clerk.steps > each.result",
    )  # fmt: skip
    script = [using(("tell", {"what": "x"})), LlmReply("A", "scripted"), using(("tell", {"what": "y"}))]
    run, module = both(agent, {"names": ["Ada", "Bo"]}, script)
    assert module == run
    assert [uses[0]["result"] for uses in module[0]] == ["0 Ada x", "1 Bo y"]


@pytest.mark.parametrize("fields", [False, True])
async def test_the_model_is_asked_as_its_provider_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: bool
) -> None:
    settings = {"answer": "fields", "fields": [{"name": "n", "kind": "number"}]} if fields else {}
    agent = drawn(
        {"start": ("trigger.manual", {}), "clerk": ("action.agent", {"task": "{{ input }}", **settings}),
         "echo": ("action.text_template", {"template": "{{ args.what | upper }}"})},
        "start.value > clerk.value", "echo.tool > clerk.tools",
    )  # fmt: skip
    module = imported(compile_python(agent, TYPES), tmp_path)
    end = '#say {"n": 3}' if fields else "#tools"
    async with OpenAiServer() as server:
        for name, value in {
            "OPENAI_API_BASE": server.base_url,
            "OPENAI_API_KEY": KEY,
            "MODEL": "openai/gpt-4o",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        said = await module.run(f'#turns #call echo {{"what": "hi"}} #then {end}')
        assert said == ({"n": 3} if fields else "HI")
        assert [tool["function"]["name"] for tool in server.bodies[0]["tools"]] == ["echo"]
        assert server.bodies[1]["messages"][-1] == {"role": "tool", "tool_call_id": "call_0", "content": "HI"}


def test_a_tool_that_sets_a_variable_is_refused() -> None:
    agent = drawn(
        {"start": ("trigger.manual", {}), "clerk": ("action.agent", {"task": "x"}),
         "note": ("flow.set_variable", {"name": "v", "to": "args.what"}), "say": ("action.text_template", {"template": "x"})},
        "start.value > clerk.value", "say.tool > clerk.tools", "say.text > note.value",
    )  # fmt: skip
    with pytest.raises(CannotCompile, match="as part of a tool of “clerk”"):
        compile_python(agent, TYPES)


def test_modules_with_agents_are_formatted_linted_and_typed(tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    fields = {"answer": "fields", "fields": [{"name": "n", "kind": "number"}], "policy": {"retries": 2}}
    for name, agent in {"desk": desk(), "fields": desk(**fields)}.items():
        (folder / f"{name}.py").write_text(compile_python(agent, TYPES))
    assert checked("ruff", "format", "--isolated", "--no-cache", "--line-length=120", "--diff", str(folder)) == ""
    rules = ("--ignore=E501", "--select=E,F,W,I,UP")
    assert checked("ruff", "check", "--isolated", "--no-cache", *rules, str(folder)) == ""
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = True\n[mypy-litellm.*]\nfollow_imports = skip\n")
    assert checked("mypy", f"--config-file={settings}", f"--cache-dir={tmp_path}", str(folder)) == ""
