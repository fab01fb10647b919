"""Variables of a run need an order: a module runs one way after the other, a run of the factory several at once.

A step that sets a variable compiles where wires say what comes before and after it, or where only one of two ways is taken.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from nodes.base import Loop
from nodes.compiling import CannotCompile
from nodes.flow.send_event import SendEvent
from nodes.flow.wait_event import WaitEvent
from runtime.compiling.steps import steps_in
from runtime.plan import Step

if TYPE_CHECKING:
    from runtime.compiling.drawing import Drawing

_FIX = "Connect the steps so that one comes after the other, or run this agent in the factory."


def check_order(drawing: Drawing) -> None:
    """Raises CannotCompile where the factory might set a variable earlier or later than the module would."""
    order = _Order(drawing)
    steps = [step for step in drawing.plan.steps.values() if not step.placed.disabled]
    for setter in (step for step in steps if step.sets):
        around = _around(setter)
        for loop in around[1:]:
            if loop.toolbox is not None:
                why = f"it sets a variable as part of a tool of “{loop.name}”, which may use several at once."
                raise _refused(setter, why, "Set the variable behind the agent, or run this agent in the factory.")
            if isinstance(loop.node, Loop) and not loop.node.rounds and loop.node.at_once() > 1:
                why = f"it sets a variable inside of “{loop.name}”, which works on several items at once."
                raise _refused(
                    setter, why, "Let the loop work on one item at a time, or run this agent in the factory."
                )
        for other in steps:
            if other is setter or other in around or order.settled(setter, other):
                continue
            if other.id in drawing.readers or other.sets == setter.sets:
                raise _refused(setter, f"no wire says whether “{other.name}” comes before or after it.", _FIX)
            if set(around[1:]) & set(_around(other)[1:]):
                # Whether it still runs when the other one fails is a matter of which is first.
                why = f"no wire says whether “{other.name}” in the same loop comes before or after it."
                raise _refused(setter, why, _FIX)


def check_events(drawing: Drawing) -> None:
    """Raises CannotCompile where an agent waits for what a step of its own would send: one comes after the other."""
    steps = [step for step in drawing.plan.steps.values() if not step.placed.disabled]
    sent = {step.node.event: step for step in steps if isinstance(step.node, SendEvent)}
    for step in steps:
        if isinstance(step.node, WaitEvent) and step.node.mode == "event" and step.node.event.strip() in sent:
            sender = sent[step.node.event.strip()]
            if step.node.before and sender.id in _Order(drawing).before(step):
                continue
            why = f"“{sender.name}” of the same agent sends what it waits for."
            fix = "A module does one step after the other: let another agent wait, or run this one in the factory."
            raise _refused(step, why, fix)


def _refused(step: Step, why: str, fix: str) -> CannotCompile:
    return CannotCompile(f"“{step.name}” cannot be compiled: {why}", fix=fix, where={"node": step.id})


def _around(step: Step) -> list[Step]:
    """A step and the loops around it, from the inside out."""
    found, loop = [step], step.scope.loop
    while loop is not None:
        found.append(loop)
        loop = loop.scope.loop
    return found


class _Order:
    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.steps = drawing.plan.steps
        self.earlier: dict[str, set[str]] = {}
        self.needs: dict[str, set[tuple[str, str]]] = {}

    def settled(self, one: Step, other: Step) -> bool:
        """Whether one always comes before the other, or never runs where the other does."""
        ones, others = ({step.scope: step for step in _around(step)} for step in (one, other))
        scope = next(scope for scope in ones if scope in others)
        here, there = ones[scope], others[scope]
        return there.id in self.before(here) or here.id in self.before(there) or self.exclusive(one, other)

    def before(self, step: Step) -> set[str]:
        """The steps of the same scope that have ended when this one begins."""
        if step.id not in self.earlier:
            self.earlier[step.id] = set()
            todo, sources = [step], set()
            while todo:
                inside = todo.pop()
                wires = [wire for ports in self.drawing.sources[inside.id].values() for wire in ports]
                # What goes on with the first values that arrive does not wait for the others, if there can be others.
                if not inside.enough or all(self.apart(*pair) for pair in combinations(wires, 2)):
                    sources |= {one for one, _ in wires}
                todo += steps_in(inside)
            direct = [self.steps[one] for one in sources if self.steps[one].scope is step.scope and one != step.id]
            self.earlier[step.id] = {one.id for one in direct}.union(*(self.before(one) for one in direct))
        return self.earlier[step.id]

    def exclusive(self, one: Step, other: Step) -> bool:
        """Whether some step takes one way for the first and another way for the second."""
        return self.never_both(self.needed(one), self.needed(other))

    def apart(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        """Whether only one of two ports fires."""
        return self.never_both(self.common([one]), self.common([other]))

    def never_both(self, ones: set[tuple[str, str]], others: set[tuple[str, str]]) -> bool:
        """Whether ports cannot all have fired."""
        for source, port in ones:
            for again, way in others:
                if source == again and port != way and (self.one_way(source) or "error" in (port, way)):
                    return True
                if source != again and self.steps[source].is_trigger and self.steps[again].is_trigger:
                    return True
        return False

    def one_way(self, id_: str) -> bool:
        function = self.drawing.functions.get(id_)
        return function is not None and function.gives in ("yes_no", "way")

    def needed(self, step: Step) -> set[tuple[str, str]]:
        """The ports that have fired whenever the step runs."""
        if step.id not in self.needs:
            self.needs[step.id] = set()
            ports = self.drawing.sources[step.id]
            back = {(edge.source, edge.source_port) for edge in self.drawing.plan.graph.back if edge.target == step.id}
            each = {port: [one for one in ports[port] if one not in back] for port in ports}
            certain = {port: self.common(sources) for port, sources in each.items() if sources}
            wanted = [found for port, found in certain.items() if port in step.required]
            found = set().union(*wanted) if wanted else set.intersection(*certain.values()) if certain else set()
            if step.scope.loop is not None:
                found |= self.needed(step.scope.loop)
            self.needs[step.id] = found
        return self.needs[step.id]

    def common(self, sources: list[tuple[str, str]]) -> set[tuple[str, str]]:
        return set.intersection(*({one} | self.needed(self.steps[one[0]]) for one in sources))
