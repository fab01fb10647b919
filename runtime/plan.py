"""Blueprint → Plan: what the engine executes. Compiled once per document, immutable, shared by all its runs."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodes.agents import SUB_TYPES, AgentNode, MemoryNode, ModelNode, is_attachment
from nodes.base import Effect, Family, Loop, Node
from nodes.blueprint import Blueprint, Edge, Placed, Policy
from nodes.catalog import Catalog
from nodes.categories import Category
from nodes.check.arguments import Arguments
from nodes.check.tools import tools_of
from nodes.errors import FactoryError
from nodes.graph import Graph, read_graph, step_keys
from nodes.listen import Called, CalledField


class PlanError(FactoryError):
    """The blueprint cannot run; `problems` lists every reason, the message is the first."""

    code = "plan.invalid"
    status = 422
    category = Category.CONFIGURATION

    def __init__(self, message: str, *, fix: str, where: dict[str, Any], problems: list[dict[str, str]]) -> None:
        super().__init__(message, fix=fix, where=where)
        self.problems = problems

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"problems": self.problems}


@dataclass(frozen=True, slots=True)
class Link:
    """One edge as the engine follows it: to which step of the same scope, into which port, in which order of preference."""

    target: "Step"
    port: str
    many: bool
    order: int


@dataclass(slots=True, eq=False)
class Step:
    """One node of the plan. `index` is its place within its scope."""

    id: str
    name: str
    key: str
    type: str
    node: Node
    placed: Placed
    policy: Policy
    effect: Effect
    inline: bool
    is_trigger: bool
    scope: "Scope"
    index: int
    first_input: str
    required: tuple[str, ...] = ()
    """Required input ports that have at least one edge: the step is skipped if none of these edges fires."""
    blank: dict[str, Any] = field(default_factory=dict)
    """What ports get that nothing is connected to and that have no default."""
    plain: bool = False
    """Whether each of its ports has one edge at most and it waits for all of them: what arrives is what the ports get."""
    stands_in: bool = False
    """Whether something may stand in for its execution: it is switched off, or has pinned data."""
    incoming: int = 0
    out: dict[str, tuple[Link, ...]] = field(default_factory=dict)
    out_ports: tuple[str, ...] = ()
    """The first is the one by which a step goes on that has nothing of its own to give; of a loop that is `done`."""
    body: "Scope | None" = None
    toolbox: "Toolbox | None" = None
    """Agents: what hangs on their sub-ports."""
    enough: int = 0
    """How many values that arrive are enough to run; 0: it waits until all its edges are resolved."""
    sets: str = ""
    """The variable of the run that it sets."""
    collects: bool = False
    """Loops: whether something is connected to `result`."""


@dataclass(slots=True, eq=False)
class Scope:
    """The steps that run together: the whole blueprint, or the body of one loop."""

    loop: Step | None
    steps: list[Step] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """For each step the number of edges that must be resolved before it can run."""
    outer: list[tuple[Step, str, Link]] = field(default_factory=list)
    """Edges that come in from a scope further out: resolved at the start of every iteration."""
    sources: list[Step] = field(default_factory=list)
    """Steps that wait for nothing: triggers and readers at the start of a run."""


@dataclass(slots=True, eq=False)
class Tool:
    """One tool of an agent: its steps, the first of which is `head`, and what a model must know to call it."""

    name: str
    head: Step
    scope: Scope
    description: str
    arguments: Arguments


@dataclass(slots=True, eq=False)
class Toolbox:
    """What an agent has: tools by the name that the model calls them by, its model and its memory."""

    tools: dict[str, Tool] = field(default_factory=dict)
    model: ModelNode | None = None
    memory: MemoryNode | None = None


@dataclass(slots=True, eq=False)
class Plan:
    """The compiled blueprint."""

    blueprint: Blueprint
    content_hash: str
    root: Scope
    steps: dict[str, Step]
    variables: Mapping[str, Any]
    graph: Graph
    only_computes: bool
    """Whether no step of it ever waits for anything."""
    returns: Mapping[str, tuple[CalledField, ...]] = field(default_factory=dict)
    """What callers were promised, by the trigger that they come in by."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """How many isolated workers its steps want at the same time, by their size."""

    def triggers(self) -> list[Step]:
        """The trigger steps, in document order."""
        return [step for step in self.root.steps if step.is_trigger]

    def forecast_seconds(self) -> float:
        """About how long a run takes: the slowest path, loops counted ten times (nothing is known of their length)."""
        return _forecast(self.root)


def compile_plan(blueprint: Blueprint, types: Catalog) -> Plan:
    """Compile a blueprint. Raises PlanError naming the first node that keeps it from running, and all the others."""
    graph = read_graph(blueprint, types)
    if graph.problems:
        first = graph.problems[0]
        raise PlanError(
            first.sentence,
            fix=first.fix,
            where={"node": first.node, "field": first.field} if first.field else {"node": first.node},
            problems=[{"code": p.code, "node": p.node, "message": p.sentence, "fix": p.fix} for p in graph.problems],
        )
    return _Compiler(graph).plan()


class _Compiler:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.root = Scope(loop=None)
        self.steps: dict[str, Step] = {}
        self.links: dict[str, dict[str, list[Link]]] = defaultdict(lambda: defaultdict(list))
        self.fed: dict[str, Counter[str]] = defaultdict(Counter)
        """How many edges lead to each input port, by node."""
        self.tools: dict[str, Scope] = {}
        """The scope of each tool, by its first step."""

    def plan(self) -> Plan:
        keys = step_keys(self.graph)
        for id_ in self.graph.order:
            if not is_attachment(self.graph.nodes[id_]):
                self._add_step(id_, keys[id_])
        for number, edge in enumerate(self.graph.edges):
            self._add_edge(edge, number)
        for number, edge in enumerate(self.graph.back):
            # A loop's result does not count as an edge to wait for: it is read when an iteration has ended.
            loop = self.steps[edge.target]
            loop.collects = True
            self.links[edge.source][edge.source_port].append(Link(loop, edge.target_port, True, number))
        for id_, step in self.steps.items():
            step.out = {port: tuple(links) for port, links in self.links[id_].items()}
            ports = self.graph.inputs[id_]
            step.required = tuple(name for name in self.fed[id_] if ports[name].required and not ports[name].back)
            step.blank = {
                name: [] if port.many else None
                for name, port in ports.items()
                if port.required and not port.back and name not in self.fed[id_]
            }
            # The first step of a tool gets its arguments as well.
            step.plain = not (step.enough or id_ in self.tools or any(port.many for port in ports.values()))
            step.plain = step.plain and max(self.fed[id_].values(), default=0) <= 1
            if step.toolbox is not None:
                self._add_tools(step, step.toolbox, keys)
        for scope in {id(s.scope): s.scope for s in self.steps.values()}.values():
            scope.counts = [step.incoming for step in scope.steps]
            scope.sources = [step for step in scope.steps if not step.incoming]
        blueprint = self.graph.blueprint
        variables = {variable.name: variable.value for variable in blueprint.variables}
        only_computes = all(
            (step.inline or step.body is not None) and not step.policy.retries for step in self.steps.values()
        )
        listening = {id_: step.node.listens() for id_, step in self.steps.items() if step.is_trigger}
        returns = {id_: said.returns for id_, said in listening.items() if isinstance(said, Called) and said.returns}
        return Plan(
            blueprint,
            blueprint.content_hash,
            self.root,
            self.steps,
            variables,
            self.graph,
            only_computes,
            returns,
            self._workers(),
        )

    def _workers(self) -> dict[str, int]:
        """Steps that are as far from the start as each other may run at the same time; the rounds of a loop too."""
        sizes = {id_: size for id_, step in self.steps.items() if (size := step.node.worker_size())}
        if not sizes:
            return {}
        depth: Counter[str] = Counter()
        abreast: Counter[tuple[str, int]] = Counter()
        for id_ in self.graph.order:
            for links in self.steps[id_].out.values() if id_ in self.steps else ():
                for link in links:
                    depth[link.target.id] = max(depth[link.target.id], depth[id_] + 1)
            if id_ in sizes and not self.steps[id_].placed.disabled:
                loop, times = self.steps[id_].scope.loop, 1
                while loop is not None:
                    times *= int(getattr(loop.node, "parallel", 1))
                    loop = loop.scope.loop
                abreast[sizes[id_], depth[id_]] += times
        return {size: max(n for (one, _), n in abreast.items() if one == size) for size, _ in abreast}

    def _add_step(self, id_: str, key: str) -> None:
        placed, node = self.graph.placed[id_], self.graph.nodes[id_]
        loop = self.graph.scope[id_]
        scope = self.root if loop is None else self.steps[loop].body or self._tool_scope(self.steps[loop], id_)
        inputs = self.graph.inputs[id_]
        effect = node.effect_here()
        step = Step(
            id=id_,
            name=self.graph.title(id_),
            key=key,
            type=placed.type,
            node=node,
            placed=placed,
            policy=placed.policy,
            effect=effect,
            is_trigger=node.family is Family.TRIGGER,
            inline=effect is Effect.E0
            and not isinstance(node, Loop)
            and type(node).resume is Node.resume
            and not placed.policy.at_most
            and not placed.policy.ask_first,
            enough=node.enough(),
            stands_in=placed.disabled or placed.pinned is not None,
            sets=node.sets_variable(),
            scope=scope,
            index=len(scope.steps),
            first_input=next(iter(inputs), ""),
            out_ports=tuple(name for name, port in self.graph.outputs[id_].items() if port.type not in SUB_TYPES),
        )
        if isinstance(node, Loop):
            step.body = Scope(loop=step)
            step.out_ports = tuple(sorted(step.out_ports, key="done".__ne__))
        elif isinstance(node, AgentNode):
            step.toolbox = self._toolbox(id_)
            if step.toolbox.memory is not None:
                step.effect = max(effect, Effect.E2)
        scope.steps.append(step)
        self.steps[id_] = step

    def _toolbox(self, id_: str) -> Toolbox:
        hung = {port: node for port, node in self.graph.agents.attached.get(id_, {}).items() if not self._is_off(node)}
        found = {port: self.graph.nodes[node] for port, node in hung.items()}
        model = next((node for node in found.values() if isinstance(node, ModelNode)), None)
        memory = next((node for node in found.values() if isinstance(node, MemoryNode)), None)
        return Toolbox(model=model, memory=memory)

    def _is_off(self, id_: str) -> bool:
        return self.graph.placed[id_].disabled

    def _tool_scope(self, agent: Step, id_: str) -> Scope:
        """The steps of the tool that a step belongs to."""
        head = self.graph.agents.tool_of[id_]
        if head == id_:
            scope = Scope(loop=agent)
            self.tools[head] = scope
        return self.tools[head]

    def _add_tools(self, agent: Step, toolbox: Toolbox, keys: Mapping[str, str]) -> None:
        """The tools that are switched on, with what the model is told of each."""
        for told in tools_of(self.graph, agent.id, keys):
            scope = self.tools[told.head]
            toolbox.tools[told.name] = Tool(told.name, self.steps[told.head], scope, told.description, told.arguments)

    def _add_edge(self, edge: Edge, number: int) -> None:
        if edge.source not in self.steps:
            return  # a model or a memory is never run, so nothing follows from it
        source, target = self.steps[edge.source], self.steps[edge.target]
        many = self.graph.inputs[edge.target][edge.target_port].many
        link = Link(target, edge.target_port, many, number)
        target.incoming += 1
        self.fed[edge.target][edge.target_port] += 1
        # What a loop gives by `item` exists inside its body; everything else where the step itself stands.
        origin = source.body if source.body is not None and edge.source_port == "item" else source.scope
        if origin is target.scope:
            self.links[edge.source][edge.source_port].append(link)
            return
        # The value comes from further out: the loop on its level waits for it, every iteration reads it.
        target.scope.outer.append((source, edge.source_port, link))
        loop = target.scope.loop
        while loop is not None and loop.scope is not origin:
            loop = loop.scope.loop
        assert loop is not None
        loop.incoming += 1
        self.links[edge.source][edge.source_port].append(Link(loop, "", False, number))


def _forecast(scope: Scope) -> float:
    ends: dict[Step, float] = defaultdict(float)
    longest = 0.0
    for step in scope.steps:
        own = step.node.forecast_seconds()
        if step.body is not None:
            own += 10 * _forecast(step.body)
        ends[step] += own
        longest = max(longest, ends[step])
        for links in step.out.values():
            for link in links:
                if link.target.scope is scope:
                    ends[link.target] = max(ends[link.target], ends[step])
    return longest
