"""Which ways a run can take through a graph: what runs before what, what never meets, what can never run."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Final

from nodes.base import Family, Loop, Node
from nodes.blueprint import Edge
from nodes.check.findings import asked
from nodes.graph import Graph

Ways = frozenset[str]
Needs = Mapping[str, Ways]
"""For a decision by id (for triggers: `""`) the ways of it on which something happens; missing ones do not matter."""

NORMAL: Final = "0"
ERROR: Final = "error"
BY_TRIGGER: Final = ""


def ways(node: Node) -> tuple[tuple[str, ...], ...]:
    """The groups of ports of which a decision uses one."""
    nothing: tuple[tuple[str, ...], ...] = ()
    return asked(node.ways, nothing)


class Routes:
    """Read once for all tiers. Works on any graph; in one with circles nothing is said about order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.place = {id_: number for number, id_ in enumerate(graph.placed)}
        self.triggers = [
            id_
            for id_, placed in graph.placed.items()
            if ((node := graph.nodes.get(id_)) is not None and node.family is Family.TRIGGER)
            or (node is None and placed.type.startswith(f"{Family.TRIGGER.value}."))
        ]
        self._starts = frozenset(self.triggers)
        self.into: dict[str, list[Edge]] = defaultdict(list)
        self.out: dict[str, list[Edge]] = defaultdict(list)
        self.results: dict[str, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self.into[edge.target].append(edge)
            self.out[edge.source].append(edge)
        self.gives_to: dict[str, list[str]] = defaultdict(list)
        for edge in graph.back:
            self.results[edge.target].append(edge)
            self.gives_to[edge.source].append(edge.target)
        self.with_agent = {
            node: agent for agent, ports in graph.agents.attached.items() for node in ports.values() if node != agent
        } | graph.agents.agent_of
        """Steps that do their part while an agent runs: the first of its tools, its model, its memory."""
        self.order, self.acyclic = self._order()
        self.doors = {id_: self._doors(id_) for id_ in graph.placed}
        self.when: dict[str, Needs | None] = {}
        """On which ways each step runs; None: never."""
        self.contradictions: dict[str, str] = {}
        """Steps that wait for two ways of one decision, with that decision."""
        self.cut: dict[str, list[Edge]] = {}
        """Steps that only hang on ports that a switched-off step never uses."""
        for id_ in self.order:
            self.when[id_] = self._when(id_) if self.acyclic else {}

    # --- order ---------------------------------------------------------------------------------------------------------

    def _order(self) -> tuple[list[str], bool]:
        """Every step behind those it waits for, and what follows a loop behind the steps that the loop repeats."""
        after: dict[str, list[str]] = defaultdict(list)
        waits = dict.fromkeys(self.graph.placed, 0)
        for edge in self.graph.edges:
            after[edge.source].append(edge.target)
            waits[edge.target] += 1
        for loop, edges in self.results.items():
            done = [edge.target for edge in self.out[loop] if edge.source_port != "item"]
            for edge in edges:
                if edge.source != loop:
                    after[edge.source] += done
                    for target in done:
                        waits[target] += 1
        for id_, agent in self.with_agent.items():
            after[agent].append(id_)
            waits[id_] += 1
        ready = [self.place[id_] for id_, count in waits.items() if not count]
        heapify(ready)
        names = list(self.graph.placed)
        order: list[str] = []
        while ready:
            id_ = names[heappop(ready)]
            order.append(id_)
            for target in after[id_]:
                waits[target] -= 1
                if not waits[target]:
                    heappush(ready, self.place[target])
        if len(order) == len(names):
            return order, True
        return names, False

    @cached_property
    def before(self) -> dict[str, int]:
        """The steps that lead to each step, as bits by place in the document."""
        found: dict[str, int] = {}
        for id_ in self.order:
            # Before a tool ran what ran before its agent.
            bits = found.get(self.with_agent.get(id_, ""), 0)
            for edge in self.into[id_]:
                bits |= found.get(edge.source, 0) | 1 << self.place[edge.source]
            found[id_] = bits
        return found

    @cached_property
    def surely_before(self) -> dict[str, int]:
        """The steps without which each step does not run, as bits by place in the document."""
        found: dict[str, int] = {}
        for id_ in self.order:
            bits = found.get(self.with_agent.get(id_, ""), 0)
            for edges in self._needed(id_):
                some = -1
                for edge in edges:
                    if self.when.get(edge.source) is not None:
                        some &= found.get(edge.source, 0) | 1 << self.place[edge.source]
                bits |= 0 if some == -1 else some
            found[id_] = bits
        return found

    def ids(self, bits: int) -> list[str]:
        """Bits as node ids, in document order."""
        return [id_ for id_, number in self.place.items() if bits >> number & 1]

    @cached_property
    def from_trigger(self) -> frozenset[str]:
        """The steps that a trigger leads to, triggers included."""
        return frozenset(self.behind(self.triggers))

    def behind(self, starts: Iterable[str]) -> set[str]:
        """These steps and all that they lead to."""
        found = set(starts)
        todo = list(found)
        heads = self.graph.agents.heads
        while todo:
            id_ = todo.pop()
            for target in (*(edge.target for edge in self.out[id_]), *heads.get(id_, ())):
                if target not in found:
                    found.add(target)
                    todo.append(target)
        return found

    # --- what happens when ---------------------------------------------------------------------------------------------

    def _doors(self, id_: str) -> dict[str, Ways]:
        """For each output port the ways on which it fires."""
        placed, node = self.graph.placed[id_], self.graph.nodes.get(id_)
        groups = ways(node) if node is not None else ()
        names = [str(number) for number in range(len(groups))] or [NORMAL]
        doors = dict.fromkeys(self.graph.outputs[id_], frozenset(names))
        for name, ports in zip(names, groups, strict=False):
            doors |= dict.fromkeys(ports, frozenset({name}))
        if placed.policy.on_error == "port":
            doors["error"] = frozenset({ERROR})
        return doors

    def ways_of(self, id_: str) -> Ways:
        """All ways that a step can take."""
        if id_ == BY_TRIGGER:
            return frozenset(self.triggers)
        return frozenset().union(*self.doors[id_].values()) if self.doors[id_] else frozenset()

    def along(self, edge: Edge) -> Needs | None:
        """On which ways a value comes along an edge; None: never."""
        needs = self.when.get(edge.source)
        if needs is None:
            return None
        placed = self.graph.placed[edge.source]
        if placed.disabled and edge.source not in self._starts:
            first = next(iter(self.graph.outputs[edge.source]), edge.source_port)
            return needs if edge.source_port == first else None
        door = self.doors[edge.source].get(edge.source_port)
        if door is None or door == self.ways_of(edge.source):
            return needs
        return {**needs, edge.source: door}

    def _needed(self, id_: str) -> list[list[Edge]]:
        """Groups of edges: a step runs when at least one edge of each group brings a value."""
        edges, node = self.into[id_], self.graph.nodes.get(id_)
        if not edges:
            return []
        if node is not None and asked(node.join_here, "all") == "all":
            ports = self.graph.inputs[id_]
            required: dict[str, list[Edge]] = defaultdict(list)
            for edge in edges:
                port = ports.get(edge.target_port)
                if port is None or (port.required and not port.back):
                    required[edge.target_port].append(edge)
            if required:
                return list(required.values())
        return [edges]

    def _when(self, id_: str) -> Needs | None:
        if id_ in self._starts:
            return None if self.graph.placed[id_].disabled else {BY_TRIGGER: frozenset({id_})}
        groups = self._needed(id_)
        if not groups and (agent := self.with_agent.get(id_)) is not None:
            return self.when.get(agent)
        found: dict[str, Ways] = {}
        for edges in groups:
            some = self._either([needs for edge in edges if (needs := self.along(edge)) is not None])
            if some is None:
                if all(self.when.get(edge.source) is not None for edge in edges):
                    self.cut[id_] = edges
                return None
            if len(groups) == 1:
                return some
            for decision, taken in some.items():
                both = found[decision] & taken if decision in found else taken
                if not both:
                    self.contradictions[id_] = decision
                    return None
                found[decision] = both
        return found

    def _either(self, options: list[Needs]) -> Needs | None:
        if len(options) < 2:
            return options[0] if options else None
        shared = set(options[0]).intersection(*options[1:])
        found = {decision: frozenset().union(*(option[decision] for option in options)) for decision in shared}
        return {decision: taken for decision, taken in found.items() if taken != self.ways_of(decision)}

    def may_meet(self, one: Edge, other: Edge) -> bool:
        """Whether both edges can bring a value in the same run."""
        first, second = self.along(one), self.along(other)
        if first is None or second is None:
            return False
        return all(taken & second[decision] for decision, taken in first.items() if decision in second)

    # --- loops ---------------------------------------------------------------------------------------------------------

    @cached_property
    def loops(self) -> list[str]:
        """The loops, in document order."""
        return [id_ for id_ in self.graph.placed if isinstance(self.graph.nodes.get(id_), Loop)]

    @cached_property
    def bodies(self) -> dict[str, list[str]]:
        """The steps that each loop repeats, those of loops inside it included."""
        found: dict[str, list[str]] = {loop: [] for loop in self.loops}
        for id_ in self.graph.placed:
            for loop in self.graph.loops_around(id_):
                if loop in found:
                    found[loop].append(id_)
        return found
