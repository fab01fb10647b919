"""Plan → Python: a blueprint as one module that runs without the factory, with a function for each step.

`run` holds the wiring as straight code: what a decision chooses is an `if`, a loop is a `for`, a step that the engine would
skip stands behind a condition. The same plan is read as the engine reads, so both come to the same result. What differs:
branches run one after the other, formulas have no budget, and the limits of the factory do not apply.

Agents that are called become functions of the same module, each once, with functions for their own steps.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from nodes.blueprint import Blueprint
from nodes.called import Calling
from nodes.catalog import Catalog
from nodes.compiling import CannotCompile, Library, identifier
from nodes.compiling.carry import RESERVED
from nodes.errors import FactoryError
from runtime.compiling.drawing import Drawing
from runtime.compiling.order import check_events, check_order
from runtime.compiling.text import closing, opening
from runtime.compiling.wiring import Wiring
from runtime.plan import Plan, compile_plan

_OWN = {
    "run",
    "main",
    "World",
    "VARIABLES",
    "event",
    "trigger",
    "world",
    "calls",
    "about",
    "args",
    "tools",
    "result",
    "steps",
    "replies",
    "heard",
    "variables",
    "ends",
    "item",
    "index",
    "error",
    *(f"{name}_{number}" for name in ("item", "index") for number in range(2, 20)),
    *(f"steps{'_inside' * number}" for number in range(1, 20)),
}
"""Names that the wiring itself uses."""


def compile_python(
    blueprint: Blueprint,
    types: Catalog,
    called: Mapping[str, Blueprint] | None = None,
    variables: Callable[[Plan], Mapping[str, Any]] = lambda plan: {},
) -> str:
    """The blueprint as the text of a Python module; `called` are the agents that it calls, by their ids.

    `variables` are those of the team that a plan reads, which go before its own. Raises PlanError, or CannotCompile naming the node and why.
    """
    return Module(compile_plan(blueprint, types), types, called or {}, variables).text()


def called_by(blueprint: Blueprint, types: Catalog) -> set[str]:
    """The ids of the agents that steps of a blueprint call or start."""
    calling = [one for one in blueprint.nodes if one.type in types and issubclass(types.get(one.type), Calling)]
    return {str(one.settings["blueprint"]) for one in calling if one.settings.get("blueprint")}


class Module:
    """What becomes one module: the drawing, and the drawings that it calls."""

    def __init__(
        self,
        plan: Plan,
        types: Catalog,
        called: Mapping[str, Blueprint],
        variables: Callable[[Plan], Mapping[str, Any]],
    ) -> None:
        self.types = types
        self.called = called
        self.variables = variables
        self.library = Library()
        self.library.taken |= _OWN
        self.main = Drawing(self, plan)
        self.agents: dict[str, Drawing] = {}
        """The agents that are called, by their ids."""
        self.waits = False
        self.starts = False
        """Whether an agent is started that nobody may wait for."""

    def agent(self, id_: str) -> str:
        """The function that another agent becomes."""
        if id_ not in self.agents:
            blueprint = self.called.get(id_)
            if blueprint is None:
                raise CannotCompile(
                    f"the agent that it calls ({id_}) is not here.",
                    fix="Compile it where that agent is: in the studio, or with `--agent ID=FILE` on the command line.",
                )
            try:
                plan = compile_plan(blueprint, self.types)
            except FactoryError as error:
                raise CannotCompile(
                    f"the agent that it calls, “{blueprint.name}”, cannot run: {error.message}", fix=error.fix
                ) from None
            name = identifier(blueprint.name, self.library.taken | RESERVED)
            self.library.taken.add(name)
            self.agents[id_] = Drawing(self, plan, name)
        return self.agents[id_].entry

    def text(self) -> str:
        """The module."""
        done = [self.main]
        self._read(self.main)
        while waiting := [one for one in self.agents.values() if one not in done]:
            for agent in waiting:
                try:
                    self._read(agent)
                except CannotCompile as error:
                    raise self._from_inside(agent, error) from None
                done.append(agent)
        bodies = [text for one in done for text in (Wiring(one).whole(), *one.texts.values())]
        self.library.need("from typing import Any")
        self.library.finish()
        end = closing(self.library, waits=self.waits)
        constants = [line for one in done for line in one.constants()]
        names = [name for one in done for name in one.names.values()]
        head = opening(self.main.plan.blueprint, self.main.plan.content_hash, self.library, names)
        top = "\n\n".join([*head, "\n".join(constants)] if constants else head)
        text = "\n\n\n".join([top, *bodies, *end[:-1], *self.library.texts, end[-1]]) + "\n"
        ast.parse(text)
        return text

    @staticmethod
    def _read(drawing: Drawing) -> None:
        drawing.read()
        check_events(drawing)
        if drawing.sets:
            check_order(drawing)

    def _from_inside(self, agent: Drawing, error: CannotCompile) -> CannotCompile:
        """What is wrong in an agent that is called is said of the step of the main drawing that leads there."""
        way = next(iter(self.main.calls_to(agent)), None)
        where = {"node": way} if way is not None else {}
        return CannotCompile(f"In “{agent.plan.blueprint.name}”: {error.message}", fix=error.fix, where=where)
