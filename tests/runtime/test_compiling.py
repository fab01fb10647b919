"""Each node type compiles its examples to what they say, and all templates compile to readable, typed, formatted modules."""

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.assets import asset_path
from nodes.agents import AgentNode
from nodes.base import Context, Effect, Example, Family, Node, Port, Value
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from nodes.compiling import CannotCompile, Writer, literal
from runtime.compiling import compile_python
from runtime.factory import Factory, Options
from runtime.policy import Actor, Role
from tests.databases import laid_out
from tests.nodes.fakes import FakeContext, outcome_of

BUILT_IN = list(catalog())
PARTS = {"context.memory", "context.model"}
"""Parts of an agent step, which run nothing by themselves."""
TOGETHER = {"flow.call_blueprint", "flow.start_blueprint", "flow.await_run"}
"""Steps that need another agent: tests of their own compile them with one."""
EXAMPLES = [
    pytest.param(cls, example, id=f"{cls.type}: {example.title}")
    for cls in BUILT_IN
    if cls.type not in {*PARTS, *TOGETHER}
    for example in cls.examples
    # These are refused, and tested with their reason elsewhere.
    if example.settings.get("language") != "javascript" and "keeps" not in example.settings
]
FOLDER = asset_path("templates")
INDEX = json.loads((FOLDER / "index.json").read_bytes())["templates"]
COMPILED = [entry["name"] for entry in INDEX]
PRINTS = {"Count words": "6\n"}
"""What the code of an example really prints: the stand-in of its worker runs none."""
numbers = count()


class Given(Node):
    """Begins with a value for each port."""

    type = "t.given"
    family, title, effect = Family.TRIGGER, "Given", Effect.E0
    values: dict[str, Any] = {}

    def outputs(self) -> tuple[Port, ...]:
        return tuple(Port(name) for name in self.values)

    async def run(self, ctx: Context, event: Any) -> Mapping[str, Any]:
        return self.values

    def as_python(self, w: Writer) -> None:
        w.gives(**{name: literal(value) for name, value in self.values.items()})


class Keep(Node):
    """What a port gave."""

    type = "t.keep"
    family, title, effect = Family.ACTION, "Keep", Effect.E0

    async def run(self, ctx: Context, value: Any) -> Value:
        return Value(value)

    def as_python(self, w: Writer) -> None:
        w.give("value")


class Silent(Keep):
    """A type of one's own that nobody wrote Python for."""

    type = "t.silent"
    title = "Silent"
    as_python = Node.as_python


TYPES = Catalog([*BUILT_IN, Given, Keep, Silent])


class World(FakeContext):
    """The stand-ins of node tests, with a person and a clock."""

    def __init__(self, example: Example) -> None:
        super().__init__(example.given)
        self.answer = example.answer
        self.people = self.clock = self
        self.events.wait = self.events.wait_at = self.came  # type: ignore[attr-defined]

    async def ask(self, title: str, details: Any, yes: str, no: str) -> Any:
        return self.answer

    async def came(self, *which: Any) -> Any:
        return self.answer

    async def wait_until(self, moment: datetime) -> None:
        """No time passes."""


def of_example(cls: type[Node], example: Example) -> Blueprint:
    """A blueprint with just this step, whose outputs are the results of steps of the same names."""
    node = cls.model_validate(dict(example.settings))
    step = {"id": "x", "type": cls.type, "name": "The step", "settings": dict(example.settings)}
    nodes, edges = [step], []
    if cls.family is not Family.TRIGGER:
        values, wires = {}, []
        for port, value in example.inputs.items():
            many = next(one for one in node.inputs() if one.name == port).many
            for number, part in enumerate(value if many else [value]):
                values[f"{port}_{number}"] = part
                wires.append((f"{port}_{number}", port))
        nodes.append({"id": "g", "type": "t.given", "settings": {"values": values}})
        edges += [("g", source, "x", target) for source, target in wires]
    for port in example.out:
        if port != "item":
            nodes.append({"id": f"k_{port}", "type": "t.keep", "name": port})
            edges.append(("x", port, f"k_{port}", "value"))
    wired = [
        {"id": f"e{i}", "source": a, "source_port": b, "target": c, "target_port": d}
        for i, (a, b, c, d) in enumerate(edges)
    ]
    variables = [{"name": name, "value": value} for name, value in example.given.get("vars", {}).items()]
    return Blueprint.parse({"name": "Example", "nodes": nodes, "edges": wired, "variables": variables})


def imported(text: str, folder: Path) -> Any:
    """A compiled module, imported as anybody would who has only the file."""
    path = folder / f"module_{next(numbers)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


async def ran(module: Any, event: Any, world: Any) -> Any:
    """The result of a compiled module."""
    takes = inspect.signature(module.run).parameters
    found = module.run(event, world=world) if "world" in takes else module.run(event)
    return await found if inspect.isawaitable(found) else found


@pytest.mark.parametrize(("cls", "example"), EXAMPLES)
async def test_an_example_gives_the_same_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type[Node], example: Example
) -> None:
    for name in re.findall(r'"(?:secret|address|sign_with)": ?"(\w[\w-]*)"', json.dumps(example.settings, default=str)):
        monkeypatch.setenv(f"SECRET_{re.sub('[^A-Z0-9]', '_', name.upper())}", f"[{name}]")
    module = imported(compile_python(of_example(cls, example), TYPES), tmp_path)
    event, world = example.inputs.get("event"), World(example)
    if example.error:
        with pytest.raises(Exception, match=re.escape(example.error)):
            await ran(module, event, world)
        return
    expected: Any = {port: value for port, value in example.out.items() if port != "item"}
    if example.title in PRINTS:
        expected["printed"] = PRINTS[example.title]
    expected = next(iter(expected.values())) if len(expected) == 1 else expected
    if cls.type == "action.respond":
        node, context = cls.model_validate(dict(example.settings)), FakeContext(example.given)
        await outcome_of(node, example.inputs, context)
        expected = context.responses[0]["body"]
    assert await ran(module, event, world) == expected


def test_a_type_without_python_says_so_and_where() -> None:
    with pytest.raises(CannotCompile) as caught:
        compile_python(of_example(Silent, Example("One", {}, {"value": 1}, {})), TYPES)
    assert caught.value.where["node"] == "x"
    assert "“The step” cannot be compiled: “Silent” has no Python of its own" in caught.value.message
    assert caught.value.fix


def test_only_parts_of_agents_have_no_python() -> None:
    without = {cls.type for cls in BUILT_IN if cls.as_python is Node.as_python and not issubclass(cls, AgentNode)}
    assert without == PARTS


def template(name: str) -> Blueprint:
    return Blueprint.parse((FOLDER / f"{name}.json").read_bytes())


# --- whole agents ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compiled module of each template and of each type's first example."""
    folder = tmp_path_factory.mktemp("modules")
    for name in COMPILED:
        (folder / f"{name.replace('-', '_')}.py").write_text(compile_python(template(name), TYPES))
    for cls in BUILT_IN:
        if cls.type not in {*PARTS, *TOGETHER}:
            text = compile_python(of_example(cls, cls.examples[0]), TYPES)
            (folder / f"{cls.type.replace('.', '_')}.py").write_text(text)
    return folder


def checked(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=110)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_modules_are_formatted(modules: Path) -> None:
    assert (
        checked("ruff", "format", "--isolated", "--no-cache", "--line-length=120", "--check", "--diff", str(modules))
        == ""
    )


def test_modules_have_no_lint(modules: Path) -> None:
    rules = "--select=E,F,W,I,UP"
    assert checked("ruff", "check", "--isolated", "--no-cache", "--ignore=E501", rules, str(modules)) == ""


def test_modules_are_typed(modules: Path, tmp_path: Path) -> None:
    # The library of the models is typed too, and takes longer to look through than all modules.
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = True\n[mypy-litellm.*]\nfollow_imports = skip\n")
    found = checked("mypy", f"--config-file={settings}", f"--cache-dir={tmp_path}", str(modules))
    assert found == ""


@pytest.mark.parametrize("name", COMPILED)
def test_a_module_needs_nothing_of_the_factory(modules: Path, name: str) -> None:
    text = (modules / f"{name.replace('-', '_')}.py").read_text()
    imports = re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
    assert {"nodes", "runtime", "app", "storage", "jinja2", "pydantic"} & set(imports) == set()


WATCH = {
    "name": "Watch",
    "nodes": [
        {"id": "s", "type": "trigger.manual"},
        {"id": "each", "type": "flow.for_each", "name": "Each site", "settings": {"parallel": 3}},
        {
            "id": "ask",
            "type": "context.http_request",
            "name": "Ask",
            "settings": {"url": "https://{{ item }}.example.com/"},
            "policy": {"retries": 2, "first_delay": 0, "on_error": "port"},
        },
        {"id": "said", "type": "action.text_template", "settings": {"template": "{{ index }} {{ input.message }}"}},
    ],
    "edges": [
        {"id": "e1", "source": "s", "source_port": "value", "target": "each", "target_port": "items"},
        {"id": "e2", "source": "each", "source_port": "item", "target": "ask", "target_port": "value"},
        {"id": "e3", "source": "ask", "source_port": "error", "target": "said", "target_port": "value"},
        {"id": "e4", "source": "ask", "source_port": "body", "target": "each", "target_port": "result"},
        {"id": "e5", "source": "said", "source_port": "text", "target": "each", "target_port": "result"},
    ],
}


async def test_members_go_side_by_side_and_failing_calls_are_tried_again(tmp_path: Path) -> None:
    module = imported(compile_python(Blueprint.parse(WATCH), TYPES), tmp_path)
    asked: list[str] = []

    class Sites:
        async def request(self, method: str, url: str, **settings: Any) -> Any:
            asked.append(url)
            if "//b." in url:
                raise module.NodeError("It does not answer.", retry=True, category="remote")
            return module.HttpReply(200, {"content-type": "application/json"}, b'{"ok": true}', url)

    world = module.World()
    world.http = Sites()
    said = await ran(module, ["a", "b", "c"], world)
    assert said == [{"ok": True}, "1 It does not answer.", {"ok": True}]
    assert sorted(asked) == [f"https://{name}.example.com/" for name in "abbbc"]


async def sandboxed(blueprint: Blueprint, event: Any, folder: Path) -> Any:
    options = Options(
        laid_out(f"sqlite:///{folder}/factory.db"), b"k" * 32, home=folder.name[-24:], pool_size=0, ticking=False
    )
    async with Factory(options) as factory:
        who = Actor("team", "usr_1", "Ada", Role.DEVELOPER)
        view = await factory.runs.wait(who, await factory.sandbox.start(who, blueprint, event), 60)
    assert view.info.error is None
    return view.output


async def test_templates_that_need_no_outside_give_what_a_run_gives(tmp_path: Path) -> None:
    modules = {name: imported(compile_python(template(name), TYPES), tmp_path) for name in COMPILED}
    alone = {name: module for name, module in modules.items() if not hasattr(module, "World")}
    assert alone
    for name, module in alone.items():
        sample = next(entry["sample"] for entry in INDEX if entry["name"] == name)
        for event in (sample, {}):
            assert await ran(module, event, None) == await sandboxed(template(name), event, tmp_path)


async def test_the_variables_of_the_team_go_along(tmp_path: Path) -> None:
    agent = noted("s.value > t.value")
    options = Options(
        laid_out(f"sqlite:///{tmp_path}/factory.db"),
        b"k" * 32,
        home=f"test-{uuid4().hex[:12]}",
        pool_size=0,
        ticking=False,
    )
    async with Factory(options) as factory:
        who = Actor("team", "usr_1", "Ada", Role.DEVELOPER)
        await factory.variables.put(who, "seen", 12)
        await factory.variables.put(who, "other", "not asked for")
        text = await factory.blueprints.python(who, agent)
    assert 'VARIABLES: dict[str, Any] = {"seen": 12}' in text
    assert imported(text, tmp_path).run({}) == "12"


async def test_each_trigger_starts_its_own_way(tmp_path: Path) -> None:
    nodes = [
        {"id": "a", "type": "trigger.manual", "name": "By hand"},
        {"id": "b", "type": "trigger.webhook", "name": "By hook", "settings": {"path": "p"}},
        {"id": "m", "type": "flow.merge"},
        {
            "id": "t",
            "type": "action.text_template",
            "name": "Only hook",
            "settings": {"template": "{{ input.method }}"},
        },
    ]
    wires = [("a", "value", "m", "values"), ("b", "body", "m", "values"), ("b", "body", "t", "value")]
    edges = [
        {"id": f"e{i}", "source": a, "source_port": b, "target": c, "target_port": d}
        for i, (a, b, c, d) in enumerate(wires)
    ]
    module = imported(compile_python(Blueprint.parse({"name": "Two", "nodes": nodes, "edges": edges}), TYPES), tmp_path)
    assert module.run(5) == 5
    assert module.run({"body": {"method": "x"}}, trigger="by_hook") == {"merge": {"method": "x"}, "only_hook": "x"}


ODD = (
    'a"b',
    '"""',
    "it's",
    "back\\slash",
    "日本語",
    "new\nline",
    "class",
    "print",
    "x" * 110,
    "a\u2028b",
    "run",
    "event",
    "field",
    "RUN",
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules of agents with names and texts that Python has its own ideas about."""
    folder = tmp_path_factory.mktemp("odd")
    for number, text in enumerate(ODD):
        nodes = [
            {"id": "s", "type": "trigger.manual", "name": text},
            {"id": "t", "type": "action.text_template", "name": text, "settings": {"template": text + "{{ vars.v }}"}},
            {
                "id": "r",
                "type": "context.set_values",
                "settings": {"values": [{"name": "at", "value": "{{ run.agent }}"}]},
            },
        ]
        edges = [
            {"id": "1", "source": "s", "source_port": "value", "target": "t", "target_port": "value"},
            {"id": "2", "source": "s", "source_port": "value", "target": "r", "target_port": "value"},
        ]
        variables = [{"name": "v", "value": text}]
        agent = {"name": text, "description": text, "nodes": nodes, "edges": edges, "variables": variables}
        (folder / f"odd_{number}.py").write_text(compile_python(Blueprint.parse(agent), TYPES))
    return folder


@pytest.mark.parametrize("number", range(len(ODD)))
def test_no_name_breaks_a_module(odd: Path, number: int, tmp_path: Path) -> None:
    text = ODD[number]
    ends = imported((odd / f"odd_{number}.py").read_text(), tmp_path).run({})
    assert text * 2 in ends.values()
    assert {"at": text} in ends.values()


def test_odd_modules_are_formatted(odd: Path) -> None:
    assert checked("ruff", "format", "--isolated", "--no-cache", "--line-length=120", "--check", str(odd)) == ""


def noted(*wires: str, each: int = 1) -> Blueprint:
    """Steps by the first letters of their names: `n` sets a variable, `d` decides, `e` repeats, `t` says it, `m` merges."""
    about: dict[str, tuple[str, dict[str, Any]]] = {
        "s": ("trigger.manual", {}),
        "n": ("flow.set_variable", {"name": "seen", "to": "vars.seen + 1"}),
        "d": ("validation.decide", {"condition": "total > 1"}),
        "e": ("flow.for_each", {"over": "items", "parallel": each}),
        "t": ("action.text_template", {"template": "{{ vars.seen }}"}),
        "m": ("flow.merge", {}),
    }
    ends = [end.strip().split(".") for wire in wires for end in wire.split(">")]
    nodes = [
        {"id": name, "name": name, "type": about[name[0]][0], "settings": about[name[0]][1]}
        for name in dict.fromkeys(name for name, _ in ends)
    ]
    edges = [
        {"id": f"w{i}", "source": a, "source_port": b, "target": c, "target_port": d}
        for i, ((a, b), (c, d)) in enumerate(zip(ends[::2], ends[1::2], strict=True))
    ]
    variables = [{"name": "seen", "value": 0}]
    return Blueprint.parse({"name": "Noted", "nodes": nodes, "edges": edges, "variables": variables})


CHAIN = ("s.value > n.value", "n.value > n2.value", "n2.value > t.value")
LOOP = ("s.value > e.items", "e.item > n.value", "n.variable > e.result", "e.done > t.value")
BRANCHES = ("s.value > d.value", "d.yes > n.value", "d.no > n2.value", "n2.value > n3.value", "n.value > m.values",
            "n3.value > m.values", "m.value > t.value")  # fmt: skip


@pytest.mark.parametrize("wires", [CHAIN, LOOP, BRANCHES])
async def test_a_run_variable_is_what_it_is_in_a_run(tmp_path: Path, wires: tuple[str, ...]) -> None:
    agent = noted(*wires)
    module = imported(compile_python(agent, TYPES), tmp_path)
    for total in (1, 2):
        event = {"total": total, "items": [1, 2, 3]}
        assert module.run(event) == module.run(event) == await sandboxed(agent, event, tmp_path)


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        (noted("s.value > n.value", "s.value > t.value"), "no wire says whether “t” comes before or after it"),
        (noted("s.value > n.value", "s.value > n2.value"), "no wire says whether “n2” comes before or after it"),
        (noted(*LOOP[:3], "e.item > d.value"), "no wire says whether “d” in the same loop"),
        (noted(*LOOP, each=2), "inside of “e”, which works on several items at once"),
    ],
)
def test_a_run_variable_without_an_order_is_refused(agent: Blueprint, why: str) -> None:
    with pytest.raises(CannotCompile) as caught:
        compile_python(agent, TYPES)
    assert why in caught.value.message
    assert caught.value.where["node"] == "n"
    assert caught.value.fix
