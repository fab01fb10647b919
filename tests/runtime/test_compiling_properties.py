"""A compiled module gives what the engine gives: random graphs of small steps, of real steps, and random formulas."""

import asyncio
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nodes.base import NodeError
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.compiling import Library, Writer, quoted, statement
from nodes.formula import HELP, FormulaError, compile_formula
from nodes.formula.python import Formulas, Scope
from runtime.compiling import compile_python
from runtime.journal import Plans
from tests.nodes.test_formula_properties import FORMULAS, SCOPES
from tests.runtime import test_engine_properties as small
from tests.runtime.engines import open_rig
from tests.runtime.test_engine_properties import Drawing, Painter, digest, members, plain

GRAPHS = int(os.environ.get("FACTORY_SOAK_GRAPHS", "0")) or 60
many = settings(max_examples=GRAPHS, deadline=None, suppress_health_check=list(HealthCheck))
numbers = count()


def module_of(text: str, folder: Path) -> Any:
    """A compiled module, imported as anybody would who has only the file."""
    path = folder / f"compiled_{next(numbers)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
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

        async def run(types: Catalog, blueprint: Blueprint, event: Any) -> tuple[str, Any, Any]:
            rig.plans = rig.engine.plans = rig.engine.journal.plans = Plans(rig.db, types)
            view = await rig.run(blueprint, event)
            return str(view.info.state), view.output, view.info.error

        yield lambda types, blueprint, event: runner.run(run(types, blueprint, event))
        runner.run(stack.aclose())


def outcome(module: Any, event: Any) -> tuple[str, Any]:
    """How a compiled module ends, and what it gives."""
    try:
        return "succeeded", plain(module.run(event))
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


SMALL = Catalog([Begin, Mix, Look, Choose, All, Any1, Each])


@st.composite
def drawings(draw: Any) -> Drawing:
    painter = Painter(draw, pure=True)
    painter.kinds = [kind for kind in painter.kinds if f"p.{kind}" in SMALL]
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
