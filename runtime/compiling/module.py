"""Plan → Python: a blueprint as one module that runs without the factory, with a function for each step.

`run` holds the wiring as straight code: what a decision chooses is an `if`, a loop is a `for`, a step that the engine would
skip stands behind a condition. The same plan is read as the engine reads, so both come to the same result. What differs:
branches run one after the other, formulas have no budget, and the limits of the factory do not apply.
"""

import ast
import re
from collections import defaultdict

from nodes.base import Loop, PortType
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.compiling import CannotCompile, Library, Writer, identifier, literal, quoted, statement
from nodes.compiling.carry import RESERVED
from nodes.compiling.layout import docstring, words_in
from nodes.errors import FactoryError
from runtime.compiling.order import check_order
from runtime.compiling.steps import Fired, Function, arguments
from runtime.compiling.text import closing, opening
from runtime.compiling.wiring import Wiring
from runtime.plan import Plan, Step, compile_plan

_SUB_PORTS = frozenset({PortType.MODEL, PortType.TOOL, PortType.MEMORY})
_OWN = {
    "run",
    "main",
    "World",
    "VARIABLES",
    "RUN",
    "event",
    "trigger",
    "world",
    "steps",
    "replies",
    "variables",
    "ends",
    "item",
    "index",
    "error",
}
"""Names that the wiring itself uses."""
_RETURNS = {
    "value": "Any",
    "ports": "dict[str, Any]",
    "some": "dict[str, Any]",
    "yes_no": "bool",
    "way": "str",
    "ways": "list[str]",
    "nothing": "None",
}


def compile_python(blueprint: Blueprint, types: Catalog) -> str:
    """The blueprint as the text of a Python module. Raises PlanError, or CannotCompile naming the node and why."""
    return Module(compile_plan(blueprint, types)).text()


class Module:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.library = Library()
        self.library.taken |= _OWN
        self.names: dict[str, str] = {}
        for step in plan.steps.values():
            self.names[step.id] = identifier(step.key, self.library.taken | RESERVED)
            self.library.taken |= {self.names[step.id], f"from_{self.names[step.id]}"}
        self.sources: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
        for edge in plan.graph.edges:
            self.sources[edge.target][edge.target_port].append((edge.source, edge.source_port))
        self.functions: dict[str, Function] = {}
        self.texts: dict[str, str] = {}
        self.outs: dict[tuple[str, str], Fired] = {}
        self.covers: list[tuple[frozenset[str], str]] = []
        """Conditions of which one is always true where the other condition is."""
        self.named: set[str] = set()
        """The steps that formulas ask for by name."""
        self.replies = False
        self.waits = False
        self.sets = any(step.sets and not step.placed.disabled for step in plan.steps.values())
        """Whether a step sets a variable of the run."""
        self.readers: set[str] = set()
        """The steps whose formulas read variables."""

    def text(self) -> str:
        """The module."""
        for step in self.plan.steps.values():
            if not step.placed.disabled:
                self._function(step)
        if self.sets:
            check_order(self)
        wiring = Wiring(self).whole()
        self.library.need("from typing import Any")
        end = closing(self.library, waits=self.waits)
        parts = [wiring, *self.texts.values(), *end[:-1]]
        constants = self._constants()
        head = opening(self.plan.blueprint, self.plan.content_hash, self.library, self.names.values())
        top = "\n\n".join([*head, "\n".join(constants)] if constants else head)
        text = "\n\n\n".join([top, *parts, *self.library.texts, end[-1]]) + "\n"
        ast.parse(text)
        return text

    def _constants(self) -> list[str]:
        code = "\n".join(self.texts.values())
        found = []
        if "VARIABLES" in words_in(code):
            values = literal(dict(self.plan.variables))
            found.append("\n".join(statement(values, "VARIABLES: dict[str, Any] = ")))
        if "RUN" in words_in(code):
            for line in ("import time", "import uuid"):
                self.library.need(line)
            about = f'{{"id": uuid.uuid4().hex, "started_at": time.time(), "sandbox": False, "agent": {quoted(self.plan.blueprint.name)}}}'
            found.append("\n".join(statement(about, "RUN: dict[str, Any] = ", "  # fmt: skip")))
        return found

    def ports_of(self, step: Step) -> list[str]:
        """The ports by which values leave a step."""
        ports = self.plan.graph.outputs[step.id].values()
        return [port.name for port in ports if port.type not in _SUB_PORTS]

    def certain(self, step: Step, port: str) -> bool:
        """Whether something arrives at a port whenever the step runs."""
        return port in step.required or (not step.required and len(self.sources[step.id]) == 1)

    # --- a function for each step -----------------------------------------------------------------------------------------

    def _function(self, step: Step) -> None:
        fed = tuple(port for port in self.plan.graph.inputs[step.id] if port in self.sources[step.id])
        blank = tuple(step.blank)
        ports = ("event",) if step.is_trigger else tuple(dict.fromkeys((*fed, *blank)))
        main = "" if step.is_trigger or step.first_input not in ports else step.first_input
        fixed = {"input": main or "None", "steps": "steps", "run": "RUN"}
        fixed["vars"] = "variables" if self.sets else "VARIABLES"
        if step.scope.loop is not None:
            fixed |= {"item": "item", "index": "index"}
        zone = self.plan.blueprint.time_zone
        writer = Writer(self.library, ports, main, time_zone=zone, fixed=fixed)
        if step.is_trigger:
            # A trigger's formulas, if it had any, would know nothing.
            writer.formulas.scope.ports = {}
        try:
            if isinstance(step.node, Loop) and step.node.rounds:
                raise CannotCompile(f"“{step.node.title}” decides after each round whether another follows.", fix="")
            step.node.as_python(writer)
        except FactoryError as error:
            raise CannotCompile(
                f"“{step.name}” cannot be compiled: {error.message}",
                fix=error.fix or "Run this agent in the factory, or put other steps in its place.",
                where={"node": step.id},
            ) from None
        used = writer.formulas.used
        extras: list[str] = [name for name in ("item", "index") if name in used and name in fixed]
        extras += ["steps"] if "steps" in used else []
        extras += ["variables"] if "vars" in used and self.sets else []
        extras += ["replies"] if writer.answers else []
        extras += ["world"] if writer.outside else []
        self.readers |= {step.id} if "vars" in used else set()
        self.replies = self.replies or writer.answers
        body = "\n".join(writer.lines)
        found = Function(self.names[step.id], writer.gave, "await " in body, extras, ports)
        self.waits = self.waits or writer.outside
        self.functions[step.id] = found
        typed = {"steps": "dict[str, Any]", "replies": "list[Any]", "world": "World", "index": "int"}
        typed["variables"] = "dict[str, Any]"
        given = [f"{name}: {typed.get(name, 'Any')}" for name in dict.fromkeys((*ports, *extras))]
        about = step.node.describe()
        said = _sentence(f"{step.node.title}: {about}" if about else step.node.title)
        if step.placed.name and step.placed.name != step.node.title:
            said = f"{_sentence(step.placed.name)} {said}"
        head = f"{'async ' if found.waits else ''}def {found.name}("
        signature = statement(arguments(head, given), "", f" -> {_RETURNS[found.gives]}:")
        self.texts[step.id] = "\n".join([*signature, docstring(said, 1), *writer.lines])
        for text in re.findall(r'\bsteps, "steps", "(\w+)"', body):
            self.named.add(text)
        if "steps" in used and not re.search(r'\bsteps, "steps", "', body):
            self.named.update(step.key for step in self.plan.steps.values())


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."
