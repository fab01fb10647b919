"""A compiled module gives what the engine gives: random graphs of small steps, of real steps, and random formulas."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from nodes.base import NodeError
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from nodes.compiling import CannotCompile, Library, Writer, quoted, statement
from nodes.formula import HELP, FormulaError, compile_formula
from nodes.formula.python import Formulas, Scope
from runtime.compiling import compile_python
from runtime.journal import Plans
from tests.nodes.test_formula_properties import FORMULAS, SCOPES
from tests.runtime import test_engine_properties as small
from tests.runtime.engines import open_rig
from tests.runtime.test_engine_properties import Drawing, Painter, another, digest, members, plain

GRAPHS = int(os.environ.get("FACTORY_SOAK_GRAPHS", "0")) or 40
# Runs of a real engine are too slow to look for the smallest example that fails.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
many = settings(max_examples=GRAPHS, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
numbers = count()


def module_of(text: str, folder: Path) -> Any:
    """A compiled module, imported as anybody would who has only the file."""
    path = folder / f"compiled_{next(numbers)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def on_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Catalog, Blueprint, Any], Any]]:
    """Run a blueprint on one real engine, whose types are changed for each; gives how it ended, and its output."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        rig = runner.run(
            stack.enter_async_context(open_rig(f"sqlite:///{tmp_path_factory.mktemp('engine') / 'factory.db'}"))
        )

        async def run(types: Catalog, blueprint: Blueprint, event: Any, **called: Blueprint) -> tuple[str, Any, Any]:
            rig.called = called
            rig.plans = rig.engine.plans = rig.engine.journal.plans = Plans(rig.db, types)
            view = await rig.run(blueprint, event)
            return str(view.info.state), view.output, view.info.error

        yield lambda types, blueprint, event, **called: runner.run(run(types, blueprint, event, **called))
        runner.run(stack.aclose())


def outcome(module: Any, event: Any) -> tuple[str, Any]:
    """How a compiled module ends, and what it gives."""
    try:
        found = module.run(event)
        return "succeeded", plain(asyncio.run(found) if asyncio.iscoroutine(found) else found)
    except Exception as error:
        assert type(error).__name__ in ("NodeError", "FormulaError", "Missing"), repr(error)
        return "failed", None


# --- small steps, as a package of one's own brings them ----------------------------------------------------------------------


def mixed(values: dict[str, Any], salt: int, fails: int) -> int:
    """A small number out of what arrives, or a failure."""
    found = digest(plain(values), salt)
    if found % 10 < fails:
        raise NodeError("it said no")
    return found


def is_even(value: Any, salt: int) -> bool:
    """Which way to go."""
    return digest(plain(value), salt) % 2 == 0


def members_of(value: Any, salt: int) -> list[Any]:
    """What a loop goes through."""
    return members(plain(value), salt)


class Begin(small.Begin):
    def as_python(self, w: Writer) -> None:
        w.give("event")


class Mix(small.Mix):
    def as_python(self, w: Writer) -> None:
        values = f'{{"a": {w.arrived("a")}, "b": {w.arrived("b")}, "c": {w.arrived("c")}}}'
        w.give(w.use(mixed, values, str(self.salt), str(self.fails)))


class Look(small.Look):
    as_python = Mix.as_python  # type: ignore[assignment]


class Choose(small.Choose):
    def as_python(self, w: Writer) -> None:
        w.decide(w.use(is_even, w.arrived("a"), str(self.salt)))


class All(small.All):
    def as_python(self, w: Writer) -> None:
        w.give(w.arrived("a"))


class Any1(small.Any1):
    def as_python(self, w: Writer) -> None:
        w.give(quoted("arrived"))


class Each(small.Each):
    def as_python(self, w: Writer) -> None:
        w.give(w.use(members_of, w.arrived("items"), str(self.salt)))


def enough(result: Any, index: int, salt: int) -> bool:
    """Whether a loop of rounds is at its end."""
    return not another(plain(result), index, salt)


class Again(small.Again):
    def as_python(self, w: Writer) -> None:
        w.give(w.use(plain, w.arrived("items")))

    def until_as_python(self, w: Writer) -> None:
        w.decide(w.use(enough, "result", "index", str(self.salt)))


SMALL = Catalog([Begin, Mix, Look, Choose, All, Any1, Each, Again])


@st.composite
def drawings(draw: Any) -> Drawing:
    painter = Painter(draw, pure=True)
    painter.kinds = [kind for kind in painter.kinds if f"p.{kind}" in SMALL] + ["again", "again"]
    return painter.whole()


@many
@given(drawing=drawings())
def test_a_random_graph_gives_the_same_compiled(on_engine: Callable[..., Any], folder: Path, drawing: Drawing) -> None:
    blueprint = drawing.blueprint()
    state, output, _ = on_engine(SMALL, blueprint, drawing.input)
    module = module_of(compile_python(blueprint, SMALL), folder)
    assert outcome(module, drawing.input) == (state, plain(output) if state == "succeeded" else None)


# --- formulas ----------------------------------------------------------------------------------------------------------------


def formula_module(texts: list[str], folder: Path) -> Any:
    """A module with a function `f0`, `f1`… for each formula."""
    library = Library()
    library.need("from typing import Any")
    translated = Formulas(library, Scope(main="value"))
    functions = []
    for number, text in enumerate(texts):
        body = statement(translated.formula(text), "return ", depth=1)
        functions.append("\n".join([f"def f{number}(value: Any) -> Any:", *body]))
    head = "\n".join(["from __future__ import annotations", *library.import_lines()])
    return module_of("\n\n".join([head, *functions, *library.texts]), folder)


def worked_out(formula: Callable[[], Any]) -> tuple[str, Any]:
    """What comes of a formula: its value, or the code of its error."""
    try:
        return "value", formula()
    except Exception as error:
        return "error", getattr(error, "code", type(error).__name__)


SAME_AS_BUDGET = ("formula.budget", "formula.internal")
"""Errors of the engine that compiled modules do not have: they count no steps."""


@many
@given(text=FORMULAS, scopes=st.lists(SCOPES, min_size=3, max_size=6))
def test_a_random_formula_gives_the_same_compiled(folder: Path, text: str, scopes: list[dict[str, Any]]) -> None:
    try:
        compiled = compile_formula(text)
    except FormulaError:
        assume(False)
    assume("now" not in text and "today" not in text)
    module = formula_module([text], folder)
    for scope in scopes:
        expected = worked_out(lambda scope=scope: compiled.evaluate(scope))
        if expected[1] not in SAME_AS_BUDGET:
            assert repr(worked_out(lambda scope=scope: module.f0(scope))) == repr(expected), (text, scope)


def test_every_function_of_formulas_gives_its_example_compiled(folder: Path) -> None:
    shown = [entry for entry in HELP if "now(" not in entry.example and "today(" not in entry.example]
    module = formula_module([entry.example for entry in shown], folder)
    for number, entry in enumerate(shown):
        assert getattr(module, f"f{number}")({}) == entry.result, entry.name


# --- real steps --------------------------------------------------------------------------------------------------------------

CONDITIONS = (
    "total > 10",
    "kind == 'b'",
    "items | length > 1",
    "not (total > 5 and kind in 'ab')",
    "steps.s.value.total < 9",
)
VALUES = (
    "total * 2",
    "items | map('n') | sum",
    "kind ~ '!'",
    "input | keys | length",
    "missing | default(total)",
    "total / n",
)
TEXTS = (
    "{{ kind }} has {{ total }}",
    "{{ items | map('n') | join(', ') }}",
    "plain",
    "{{ total }}",
    "{{ vars.v }} {{ vars.w }}",
)
SETS = ("", "vars.v ~ 'x'", "vars.v", "total", "vars.w ~ input.kind", "[vars.v, vars.w] | length")
MEMBERS = ("n > 2", "index > 0", "item.n is even and total is defined")
RECORDS = st.fixed_dictionaries(
    {
        "total": st.integers(0, 20) | st.floats(0, 20),
        "kind": st.sampled_from(["a", "b", "x"]),
        "items": st.lists(st.fixed_dictionaries({"n": st.integers(0, 4)}), max_size=3),
        "n": st.integers(0, 2),
    }
)


UNTIL = (
    "total > 30",
    "index == 1",
    "result.n == 0 or index > 2",
    "vars.v == 'x'",
    "kind == 'b'",
    "input.total > index",
)
GIVEN = ("", '{"total": "{{ total }}", "kind": "b", "items": [], "n": 1}', '{"n": "{{ n }}"}')
BEGINS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("trigger.manual", {}),
    (
        "trigger.called",
        {"fields": [{"name": "n", "kind": "number"}, {"name": "total", "kind": "any", "required": False}]},
    ),
    ("trigger.called", {"returns": [{"name": "total", "kind": "number"}]}),
)


@st.composite
def agents(draw: Any, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """A drawing of real steps, in which loops go over the items of what arrives, and others are called."""
    begin, fields = draw(st.sampled_from(BEGINS)) if others else BEGINS[0]
    nodes: list[dict[str, Any]] = [{"id": "s", "type": begin, "name": "s", "settings": fields}]
    edges: list[dict[str, Any]] = []

    def pick(*options: Any) -> Any:
        return draw(st.sampled_from(options))

    def add(type_: str, settings: dict[str, Any], *wires: tuple[str, str, str]) -> str:
        id_ = f"n{len(nodes)}"
        on_error = pick("stop", "stop", "continue", "port")
        policy = {"on_error": on_error} if type_ not in ("flow.for_each", "flow.repeat") else {}
        node = {"id": id_, "type": type_, "settings": settings, "policy": policy, "disabled": pick(*[False] * 9, True)}
        nodes.append(node)
        for source, out, into in wires:
            edge = {"id": f"e{len(edges)}", "source": source, "source_port": out, "target": id_, "target_port": into}
            edges.append(edge)
        return id_

    def body(loop: str, inside: int) -> None:
        inner = [(loop, "item")]
        for _ in range(pick(1, 2, 3, 0)):
            step(inner, inside + 1)
        if inner[1:]:
            back = pick(*inner[1:])
            edge = {"id": f"e{len(edges)}", "source": back[0], "source_port": back[1]}
            edges.append(edge | {"target": loop, "target_port": "result"})

    def step(near: list[tuple[str, str]], inside: int) -> None:
        kinds = [
            "set",
            "transform",
            "decide",
            "switch",
            "merge",
            "filter",
            "aggregate",
            "split",
            "text",
            "each",
            "repeat",
            "repeat",
            "note",
        ]
        kind = pick(*kinds, *(["call", "call", "start"] if others else []))
        fitting = [one for one in near if kind not in ("filter", "aggregate") or one not in records]
        if not fitting:
            return
        source = pick(*fitting)
        wire = (*source, "value")
        outs = {"decide": ("yes", "no"), "switch": ("big", "small", "otherwise"), "filter": ("kept",)}
        outs["note"] = ("value", "variable")
        if kind == "set":
            rows = [{"name": pick("total", "new", "a.b"), "value": pick(*VALUES), "kind": "formula"}]
            made = add("context.set_values", {"values": rows, "keep": pick(True, True, False)}, wire)
        elif kind == "transform":
            rows = [{"name": "total", "formula": pick(*VALUES)}]
            made = add("action.transform", {"fields": rows, "keep": pick(True, False), "leave_out": ["n"]}, wire)
        elif kind == "decide":
            made = add("validation.decide", {"condition": pick(*CONDITIONS)}, wire)
        elif kind == "switch":
            cases = [{"name": "big", "condition": pick(*CONDITIONS)}, {"name": "small", "condition": pick(*CONDITIONS)}]
            made = add("validation.switch", {"cases": cases, "take": pick("first", "all")}, wire)
        elif kind == "merge":
            wires = [(*one, "values") for one in draw(st.lists(st.sampled_from(near), min_size=1, max_size=3))]
            made = add("flow.merge", {"combine": pick("one", "list", "lists", "records")}, *wires)
        elif kind == "filter":
            made = add("validation.filter_list", {"condition": pick(*MEMBERS)}, (*source, "items"))
        elif kind == "aggregate":
            results = [
                {"name": "total", "do": pick("sum", "count", "max", "collect"), "of": pick("n", "item", "n * 2")}
            ]
            made = add("action.aggregate", {"results": results, "group_by": pick("", "n")}, (*source, "items"))
        elif kind == "split":
            made = add("action.split_list", {"what": pick("items", "input"), "size": 2}, wire)
        elif kind == "note":
            made = add("flow.set_variable", {"name": pick("v", "w"), "to": pick(*SETS)}, wire)
        elif kind == "text":
            made = add("action.text_template", {"template": pick(*TEXTS)}, wire)
        elif kind == "call":
            made = add("flow.call_blueprint", {"blueprint": pick(*others), "input": pick(*GIVEN)}, wire)
        elif kind == "start":
            began = add("flow.start_blueprint", {"blueprint": pick(*others), "input": pick(*GIVEN)}, wire)
            if pick(True, False):
                return
            made = add("flow.await_run", {}, (began, "run", "value"))
        elif inside > 1:
            return
        elif kind == "repeat":
            until = {"until": pick(*UNTIL), "most": pick(1, 3, 4), "at_most": pick("stop", "go on")}
            made = add("flow.repeat", {**until, "on_round_error": pick("stop", "again")}, wire)
            body(made, inside)
            outs["repeat"] = ("done",)
        else:
            failing = {"on_item_error": pick("stop", "continue", "drop"), "parallel": pick(1, 2)}
            made = add("flow.for_each", {"over": pick("items", ""), **failing}, (*source, "items"))
            body(made, inside)
            outs["each"] = ("done",)
        single = {"split": ("parts",), "text": ("text",)}
        if kind in ("set", "text"):
            records.update((made, out) for out in ("value", "text"))
        near.extend((made, out) for out in outs.get(kind, single.get(kind, ("value",))))
        if nodes[int(made[1:])]["policy"].get("on_error") == "port":
            near.append((made, "error"))
            records.add((made, "error"))

    records: set[tuple[str, str]] = {("s", "value")} if begin == "trigger.called" else set()
    near = [("s", "value")]
    for _ in range(draw(st.integers(1, 7))):
        step(near, 0)
    variables = [{"name": name, "value": name} for name in "vw"]
    return {"name": "Random", "nodes": nodes, "edges": edges, "variables": variables}


@st.composite
def teams(draw: Any) -> list[dict[str, Any]]:
    """An agent, and others that call each other, also in circles."""
    others = tuple(f"bp_{number}" for number in range(draw(st.integers(1, 2))))
    return [draw(agents(others)) for _ in range(len(others) + 1)]


def compared(
    on_engine: Callable[..., Any], folder: Path, agent: dict[str, Any], event: Any, *others: dict[str, Any]
) -> None:
    """Run an agent in both worlds, unless it is one that cannot be compiled."""
    types = catalog()
    blueprint, called = Blueprint.parse(agent), {f"bp_{i}": Blueprint.parse(one) for i, one in enumerate(others)}
    try:
        text = compile_python(blueprint, types, called)
    except CannotCompile as refused:
        assert "no wire says" in refused.message or "several items at once" in refused.message
        return
    state, output, error = on_engine(types, blueprint, event, **called)
    module = module_of(text, folder)
    assert outcome(module, event) == (state, plain(output) if state == "succeeded" else None), error


@many
@given(agent=agents(), event=RECORDS)
def test_a_random_agent_of_real_steps_gives_the_same_compiled(
    on_engine: Callable[..., Any], folder: Path, agent: dict[str, Any], event: dict[str, Any]
) -> None:
    compared(on_engine, folder, agent, event)


@many
@given(team=teams(), event=RECORDS)
def test_random_agents_that_call_each_other_give_the_same_compiled(
    on_engine: Callable[..., Any], folder: Path, team: list[dict[str, Any]], event: dict[str, Any]
) -> None:
    compared(on_engine, folder, team[0], event, *team[1:])
