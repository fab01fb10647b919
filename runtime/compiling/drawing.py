"""One drawing of a compiled module: its steps as functions, and what the wiring must know of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from nodes.base import Loop
from nodes.compiling import CannotCompile, Writer, atom, call, identifier, led, literal, quoted, statement
from nodes.compiling.carry import RESERVED
from nodes.compiling.layout import docstring, words_in
from nodes.consent import NO, YES, must_be_yes, question
from nodes.errors import FactoryError
from nodes.listen import Called
from runtime.compiling.agents import feeds_of, write_agent
from runtime.compiling.steps import (
    SUB_PORTS,
    Fired,
    Function,
    agent_around,
    arguments,
    loop_around,
    record_of,
    tried_again,
    tries,
)
from runtime.plan import Plan, Step

if TYPE_CHECKING:
    from runtime.compiling.module import Module

_RETURNS = {
    "value": "Any",
    "ports": "dict[str, Any]",
    "some": "dict[str, Any]",
    "yes_no": "bool",
    "way": "str",
    "ways": "list[str]",
    "nothing": "None",
}
_MADE = frozenset({"from", "runs", "members_of", "results_of", "one_of", "use", "until", "heard_by"})
"""How names begin that the wiring makes of the names of steps."""
_TYPED = {
    "about": "dict[str, Any]",
    "steps": "dict[str, Any]",
    "variables": "dict[str, Any]",
    "replies": "list[Any]",
    "heard": "set[float]",
    "calls": "Calls",
    "world": "World",
    "index": "int",
    "args": "dict[str, Any]",
    "tools": "dict[str, Callable[[dict[str, Any]], Awaitable[Any]]]",
}


class Drawing:
    """A blueprint in a module. `entry` is the function that it becomes; the main drawing is `run`."""

    def __init__(self, module: Module, plan: Plan, entry: str = "run") -> None:
        self.module = module
        self.plan = plan
        self.entry = entry
        self.library = module.library
        self.names = {step.id: self._name(step) for step in plan.steps.values()}
        own = f"variables_of_{entry}"
        self.values = "VARIABLES" if self.is_main else identifier(own, self.library.taken).upper()
        """The constant with the variables."""
        self.variables = {**plan.variables, **module.variables(plan)}
        self.sources: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
        for edge in plan.graph.edges:
            self.sources[edge.target][edge.target_port].append((edge.source, edge.source_port))
        self.feeds: dict[str, dict[str, Fired]] = {}
        """What a model gives the first step of a tool, by its ports."""
        for tools in (step.toolbox.tools.values() for step in plan.steps.values() if step.toolbox is not None):
            for tool in tools:
                self.feeds[tool.head.id] = feeds_of(tool)
        self.functions: dict[str, Function] = {}
        self.untils: dict[str, Function] = {}
        """The functions that say whether a loop's rounds are at their end."""
        self.texts: dict[str, str] = {}
        self.outs: dict[tuple[str, str], Fired] = {}
        self.covers: list[tuple[frozenset[str], str]] = []
        """Conditions of which one is always true where the other condition is."""
        self.named: set[str] = set()
        """The steps that formulas ask for by name."""
        self.about = False
        """Whether a formula asks for something of the run."""
        self.replies = False
        self.waits = not self.is_main
        self.calls: dict[str, set[str]] = {}
        """Which other agents each step calls or starts."""
        self.sets = any(step.sets and not step.placed.disabled for step in plan.steps.values())
        """Whether a step sets a variable of the run."""
        self.readers: set[str] = set()
        """The steps whose formulas read variables."""

    def _name(self, step: Step) -> str:
        """What the function of a step is called. The names that the wiring makes of it are nobody else's."""
        taken = self.library.taken
        gathers = {f"{port.name}_of" for port in self.plan.graph.inputs[step.id].values() if port.many}
        used = taken | RESERVED
        while True:
            name = identifier(step.key, used)
            made = {f"{prefix}_{name}" for prefix in gathers | _MADE}
            if not made & taken:
                taken |= {name, *made}
                return name
            used = used | {name}

    @property
    def is_main(self) -> bool:
        """Whether it is the one that the module is made of, and not one that it calls."""
        return self.entry == "run"

    def read(self) -> None:
        """Write the functions of its steps."""
        for step in self.plan.steps.values():
            if not step.placed.disabled and not self._never_used(step):
                self._step(step)
        self.module.waits = self.module.waits or self.waits

    def first_trigger(self) -> Step | None:
        """The trigger that it begins with unless another one is asked for; called agents have one made for that."""
        triggers = self.plan.triggers()
        made = [] if self.is_main else [step for step in triggers if isinstance(step.node.listens(), Called)]
        return next(iter(made or triggers), None)

    def constants(self) -> list[str]:
        """The lines with its variables, where formulas read them."""
        if self.values not in words_in("\n".join(self.texts.values())):
            return []
        return ["\n".join(statement(literal(self.variables), f"{self.values}: dict[str, Any] = "))]

    def ports_of(self, step: Step) -> list[str]:
        """The ports by which values leave a step."""
        ports = self.plan.graph.outputs[step.id].values()
        return [port.name for port in ports if port.type not in SUB_PORTS]

    def certain(self, step: Step, port: str) -> bool:
        """Whether something arrives at a port whenever the step runs."""
        return port in step.required or (not step.required and len(self.sources[step.id]) == 1)

    def calls_to(self, agent: Drawing) -> Iterator[str]:
        """The steps from which calls lead to another agent, also through others."""
        for step, ids in self.calls.items():
            seen: set[str] = set()
            todo = list(ids)
            while todo:
                id_ = todo.pop()
                if self.module.agents[id_] is agent:
                    yield step
                    break
                if id_ not in seen:
                    seen.add(id_)
                    todo += [one for more in self.module.agents[id_].calls.values() for one in more]

    # --- a function for each step -----------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        fed = tuple(
            port
            for port in self.plan.graph.inputs[step.id]
            if port in self.sources[step.id] or port in self.feeds.get(step.id, {})
        )
        ports = ("event",) if step.is_trigger else tuple(dict.fromkeys((*fed, *step.blank)))
        about = step.node.describe()
        said = _sentence(f"{step.node.title}: {about}" if about else step.node.title)
        if step.placed.name and step.placed.name != step.node.title:
            said = f"{_sentence(step.placed.name)} {said}"
        write = step.node.as_python if step.toolbox is None else partial(write_agent, step)
        self.functions[step.id] = self._function(step, self.names[step.id], ports, said, write)
        if isinstance(step.node, Loop) and step.node.rounds and step.body is not None and step.body.steps:
            name = f"until_{self.names[step.id]}"
            said = _sentence(f"Whether “{' '.join(step.name.split())}” is at its end: {about or 'it says so itself'}")
            write = step.node.until_as_python
            self.untils[step.id] = self._function(step, name, ports, said, write, ("result", "index"))

    def _never_used(self, step: Step) -> bool:
        """Whether it belongs to a tool that is switched off."""
        scope = step.scope
        while (around := scope.loop) is not None:
            if around.toolbox is not None and all(tool.scope is not scope for tool in around.toolbox.tools.values()):
                return True
            scope = around.scope
        return False

    def _function(
        self,
        step: Step,
        name: str,
        ports: tuple[str, ...],
        said: str,
        write: Callable[[Writer], Any],
        after: tuple[str, ...] = (),
    ) -> Function:
        """A function of a step; `after` are parameters of a round that has ended."""
        writer = self._writer(step, ports)
        try:
            write(writer)
        except FactoryError as error:
            raise CannotCompile(
                f"“{step.name}” cannot be compiled: {error.message}",
                fix=error.fix or "Run this agent in the factory, or put other steps in its place.",
                where={"node": step.id},
            ) from None
        itself: list[str] = []
        if step.policy.ask_first and not after:
            itself, writer.lines = writer.lines, self._question(step, writer, ports)
            if not tried_again(step, "await " in "\n".join(itself)):
                itself, writer.lines = [], writer.lines + itself
        used, body = writer.formulas.used, "\n".join(writer.lines + itself)
        if after:
            ports = tuple(port for port in ports if port in words_in(body))
        fixed = writer.formulas.scope.fixed
        extras: list[str] = [
            one for one in ("item", "index", "args") if one in used and one in fixed and one not in after
        ]
        extras += ["steps"] if "steps" in used else []
        extras += ["variables"] if "vars" in used and self.sets else []
        extras += ["about"] if "run" in used else []
        extras += ["replies"] if writer.answers else []
        extras += ["heard"] if writer.hears else []
        extras += ["calls"] if writer.called else []
        extras += ["tools"] if step.toolbox is not None and step.toolbox.tools else []
        extras += ["world"] if writer.outside and "world" in words_in(body) else []
        self.readers |= {step.id} if "vars" in used else set()
        self.about = self.about or "run" in used
        self.replies = self.replies or writer.answers
        self.waits = self.waits or writer.outside
        self.module.starts = self.module.starts or writer.starts
        if writer.called:
            self.calls.setdefault(step.id, set()).update(writer.called - {""})
        if "steps" in used:
            by_name = re.findall(r'\bsteps\)?, "steps", "(\w+)"', body)
            self.named.update(by_name or (one.key for one in self.plan.steps.values()))
        found = Function(name, writer.gave, "await " in body, extras, ports)
        given = [f"{one}: {_TYPED.get(one, 'Any')}" for one in dict.fromkeys((*ports, *after, *extras))]
        returns = _RETURNS[found.gives]
        if itself:
            # A yes counts for all tries, so what is tried again is a function of its own.
            inner = identifier(f"{name}_itself", self.library.taken)
            self.library.taken.add(inner)
            self._write(inner, given, returns, said, itself, waits=True)
            names = [one.partition(":")[0] for one in given]
            again = tries(step, writer.kit, call(inner, *map(atom, names)))
            writer.line(led("await ", again), "return ")
            returns = "Any"
        self._write(name, given, returns, said, writer.lines, waits=found.waits)
        return found

    def _write(self, name: str, given: list[str], returns: str, said: str, lines: list[str], *, waits: bool) -> None:
        head = f"{'async ' if waits else ''}def {name}("
        signature = statement(arguments(head, given), "", f" -> {returns}:")
        self.texts[name] = "\n".join([*signature, docstring(said, 1), *lines])

    def _question(self, step: Step, writer: Writer, ports: tuple[str, ...]) -> list[str]:
        """The line that asks whoever sits at the terminal before the step does anything."""
        writer.note(f"“{step.name}” asks whoever sits at the terminal before it does anything.")
        agent = agent_around(step)
        tools = agent.toolbox.tools.values() if agent is not None and agent.toolbox is not None else ()
        title = question(step.name, agent.name if agent and any(tool.head is step for tool in tools) else "")
        came = record_of({port: atom(port) for port in ports})
        before, writer.lines = writer.lines, []
        said = writer.world("people.ask", quoted(title), came, quoted(YES), quoted(NO))
        writer.line(writer.use(must_be_yes, said, quoted(step.name), str(agent is not None)))
        lines, writer.lines = writer.lines, before
        return lines

    def _writer(self, step: Step, ports: tuple[str, ...]) -> Writer:
        main = "" if step.is_trigger or step.first_input not in ports else step.first_input
        fixed = {"input": main or "None", "steps": "steps", "run": "about"}
        fixed["vars"] = "variables" if self.sets else self.values
        if loop_around(step) is not None:
            fixed |= {"item": "item", "index": "index"}
        if agent_around(step) is not None:
            fixed["args"] = "args"
        writer = Writer(self.library, ports, main, time_zone=self.plan.blueprint.time_zone, fixed=fixed)
        writer.agents = self.module.agent
        if step.is_trigger:
            # A trigger's formulas, if it had any, would know nothing.
            writer.formulas.scope.ports = {}
        return writer


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."
