"""How a blueprint hangs together: its nodes with their ports, the order they can run in, and which steps each loop repeats.

Read once and shared by the checks and by the plan, so that what the canvas warns of is exactly what the engine would refuse.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args

import networkx as nx
from pydantic import BaseModel

from nodes.agents import SUB_TYPES, TOOL_PORT, AgentNode, Parts
from nodes.base import Loop, Node, Port, PortType, fits
from nodes.blueprint import Blueprint, Edge, Placed
from nodes.catalog import BadSettings, Catalog, UnknownNode, ports_of
from nodes.plain import EMPTY, STRANGE, in_words


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a blueprint cannot run: a code, the node it is about, a sentence and a fix."""

    code: str
    node: str
    sentence: str
    fix: str
    field: str = ""
    edge: str = ""


@dataclass(slots=True)
class Graph:
    """The readable part of a blueprint. `problems` holds everything that keeps it from running."""

    blueprint: Blueprint
    placed: dict[str, Placed] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    inputs: dict[str, dict[str, Port]] = field(default_factory=dict)
    outputs: dict[str, dict[str, Port]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    """Edges between ports that exist and fit, in document order; edges that close a loop are in `back` instead."""
    back: list[Edge] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    scope: dict[str, str | None] = field(default_factory=dict)
    """The loop or agent whose body a node belongs to; None outside all of them."""
    agents: Parts = field(default_factory=Parts)
    problems: list[Problem] = field(default_factory=list)

    def title(self, id_: str) -> str:
        """What a person calls the node."""
        placed = self.placed[id_]
        node = self.nodes.get(id_)
        return placed.name or (node.title if node else placed.type)

    def loops_around(self, id_: str) -> list[str]:
        """The loops that a node is inside of, innermost first."""
        around = []
        loop = self.scope.get(id_)
        while loop is not None:
            around.append(loop)
            loop = self.scope.get(loop)
        return around


def read_graph(blueprint: Blueprint, types: Catalog) -> Graph:
    """Resolve node types and ports, sort out the edges, find the order and the loops. Never raises: see `problems`."""
    graph = Graph(blueprint)
    for placed in blueprint.nodes:
        _read_node(graph, placed, types)
    _read_edges(graph)
    forward: nx.DiGraph[str] = nx.DiGraph()
    forward.add_nodes_from(graph.placed)
    forward.add_edges_from((edge.source, edge.target) for edge in graph.edges)
    # A tool runs while its agent does, so it stands behind whatever the agent waits for.
    forward.add_edges_from((agent, head) for head, agent in graph.agents.agent_of.items())
    try:
        # Ties go by place in the document, so that the same blueprint always runs in the same order.
        place = {id_: number for number, id_ in enumerate(graph.placed)}
        graph.order = list(nx.lexicographical_topological_sort(forward, key=place.__getitem__))
    except nx.NetworkXUnfeasible:
        _name_circle(graph, forward)
        graph.order = list(graph.placed)
        graph.scope = dict.fromkeys(graph.placed)
        return graph
    _find_scopes(graph, forward)
    return graph


def _read_node(graph: Graph, placed: Placed, types: Catalog) -> None:
    graph.placed[placed.id] = placed
    inputs, outputs = ports_of(placed, types)
    graph.inputs[placed.id] = {port.name: port for port in inputs}
    graph.outputs[placed.id] = {port.name: port for port in outputs}
    try:
        graph.nodes[placed.id] = types.build(placed)
    except UnknownNode as error:
        graph.problems.append(Problem(error.code, placed.id, error.message, error.fix or ""))
    except BadSettings as error:
        for name, said in error.problems.items():
            title = placed.name or types.get(placed.type).title
            shown = _label(types.get(placed.type), name)
            plain = in_words(said)
            fix = {EMPTY: f"Fill in “{shown}”.", STRANGE: f"Take “{shown}” out of its settings."}.get(plain)
            problem = f"“{title}”: {shown}: {plain}"
            graph.problems.append(
                Problem(error.code, placed.id, problem, fix or f"Look at “{shown}” in its settings.", field=name)
            )


def _label(model: type[BaseModel] | None, path: str) -> str:
    """The place of a setting as its form shows it: `values.0.name` is “Values 1, Field”."""
    words: list[str] = []
    for step in path.split("."):
        if step.isdecimal() and words:
            words[-1] += f" {int(step) + 1}"
            continue
        field = model.model_fields.get(step) if model else None
        words.append((field.title if field and field.title else step).strip())
        model = _inside(field.annotation) if field else None
    return ", ".join(words)


def _inside(annotation: Any) -> type[BaseModel] | None:
    """The kind of record that a setting holds, also as a list of them."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _read_edges(graph: Graph) -> None:
    for edge in graph.blueprint.edges:
        source, target = edge.source, edge.target
        out, into = graph.outputs[source].get(edge.source_port), graph.inputs[target].get(edge.target_port)
        if out and into and {out.type, into.type} <= SUB_TYPES and out.type is into.type:
            _read_sub_edge(graph, edge, into)
        elif not {source, target} <= graph.nodes.keys():
            # An end is unknown or not set up, which is a problem of its own; the edge still counts for order and scopes.
            (graph.back if into and into.back else graph.edges).append(edge)
        elif out is None or into is None:
            end, port = (source, edge.source_port) if out is None else (target, edge.target_port)
            graph.problems.append(
                Problem(
                    "edge.no_port",
                    end,
                    f"A connection uses the port “{port}”, which “{graph.title(end)}” does not have.",
                    "Delete the connection, or change the node so that it has this port again.",
                    edge=edge.id,
                )
            )
        elif not fits(out.type, into.type):
            graph.problems.append(
                Problem(
                    "edge.types",
                    target,
                    f"“{graph.title(source)}” gives {out.type.value} by “{out.label}”, "
                    f"but “{graph.title(target)}” takes {into.type.value} at “{into.label}”.",
                    "Put a step between them that turns one into the other.",
                    edge=edge.id,
                )
            )
        elif into.back:
            graph.back.append(edge)
        else:
            graph.edges.append(edge)


def _read_sub_edge(graph: Graph, edge: Edge, into: Port) -> None:
    """A model, memory or tool of an agent."""
    parts, agent = graph.agents, edge.target
    parts.edges.append(edge)
    if agent in graph.nodes and not isinstance(graph.nodes[agent], AgentNode):
        return
    if into.type is not PortType.TOOL:
        attached = parts.attached.setdefault(agent, {})
        if edge.target_port in attached:
            names = f"“{graph.title(attached[edge.target_port])}” and “{graph.title(edge.source)}”"
            graph.problems.append(
                Problem(
                    "agent.two",
                    agent,
                    f"{names} are both connected to “{into.label}” of “{graph.title(agent)}”, which takes one.",
                    "Remove one of the connections.",
                    edge=edge.id,
                )
            )
        attached.setdefault(edge.target_port, edge.source)
    elif parts.agent_of.setdefault(edge.source, agent) == agent:
        heads = parts.heads.setdefault(agent, [])
        if edge.source not in heads:
            heads.append(edge.source)
    else:
        graph.problems.append(
            Problem(
                "tool.shared",
                edge.source,
                f"“{graph.title(edge.source)}” is a tool of “{graph.title(parts.agent_of[edge.source])}” "
                f"and of “{graph.title(agent)}”.",
                "Give each agent a copy of its own.",
                edge=edge.id,
            )
        )


def _name_circle(graph: Graph, forward: "nx.DiGraph[str]") -> None:
    circle = [source for source, _ in nx.find_cycle(forward)]
    names = " → ".join(f"“{graph.title(id_)}”" for id_ in (*circle, circle[0]))
    graph.problems.append(
        Problem(
            "graph.circle",
            circle[0],
            f"These steps wait for each other in a circle: {names}.",
            "Remove one of the connections. To repeat steps, use “For each” or “Repeat until”.",
        )
    )


def _find_scopes(graph: Graph, forward: "nx.DiGraph[str]") -> None:
    starts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for edge in graph.edges:
        if isinstance(graph.nodes.get(edge.source), Loop):
            starts[edge.source, edge.source_port].append(edge.target)

    def behind(loop: str, port: str) -> set[str]:
        found = set(starts[loop, port])
        for start in starts[loop, port]:
            found |= nx.descendants(forward, start)
        return found

    bodies = {id_: behind(id_, "item") for id_, node in graph.nodes.items() if isinstance(node, Loop)}
    for agent, heads in graph.agents.heads.items():
        bodies[agent] = set(heads).union(*(nx.descendants(forward, head) for head in heads))
    graph.scope = dict.fromkeys(graph.placed)
    for id_ in graph.placed:
        around = [loop for loop, body in bodies.items() if id_ in body]
        around.sort(key=lambda loop: len(bodies[loop]))
        for inner, outer in pairwise(around):
            if inner not in bodies[outer]:
                graph.problems.append(
                    Problem(
                        "loop.shared",
                        id_,
                        f"“{graph.title(id_)}” is inside two loops at once: “{graph.title(inner)}” and “{graph.title(outer)}”.",
                        "Give each loop its own steps, and join them after “done”.",
                    )
                )
        graph.scope[id_] = around[0] if around else None
    if graph.agents.edges:
        _find_tools(graph, forward, bodies)
    for loop, body in bodies.items():
        for id_ in sorted(body & behind(loop, "done")):
            graph.problems.append(
                Problem(
                    "loop.leaks",
                    id_,
                    f"“{graph.title(id_)}” would run for each item of “{graph.title(loop)}” and also after all of them.",
                    "Connect the end of the repeated steps to “result” of the loop, and go on from “done”.",
                )
            )
    for edge in graph.back:
        if graph.scope[edge.source] != edge.target:
            graph.problems.append(
                Problem(
                    "loop.result",
                    edge.source,
                    f"“{graph.title(edge.source)}” gives its result to “{graph.title(edge.target)}”, but is not one of the steps it repeats.",
                    "Connect “result” with the last step behind “item” of the same loop.",
                    edge=edge.id,
                )
            )


def _find_tools(graph: Graph, forward: "nx.DiGraph[str]", bodies: dict[str, set[str]]) -> None:
    """Which tool each step of an agent belongs to: its first step, and all that follows from it."""
    parts = graph.agents
    for agent, heads in parts.heads.items():
        for head in heads:
            for id_ in sorted({head} | nx.descendants(forward, head)):
                if graph.scope[id_] == agent and parts.tool_of.setdefault(id_, head) != head:
                    names = f"“{graph.title(parts.tool_of[id_])}” and “{graph.title(head)}”"
                    graph.problems.append(
                        Problem(
                            "tool.joined",
                            id_,
                            f"“{graph.title(id_)}” follows from two tools of “{graph.title(agent)}”, {names}.",
                            "Give each tool its own steps: the agent calls one tool at a time.",
                        )
                    )
        after = {edge.target for edge in graph.edges if edge.source == agent}
        for id_ in sorted(bodies[agent] & after.union(*(nx.descendants(forward, start) for start in after))):
            graph.problems.append(
                Problem(
                    "tool.leaks",
                    id_,
                    f"“{graph.title(id_)}” would run whenever “{graph.title(agent)}” uses a tool, and also after it has ended.",
                    "Take one of the connections away: what a tool gives goes to the agent.",
                )
            )


def step_keys(graph: Graph) -> dict[str, str]:
    """How formulas call each step in `steps.<key>`: its name in lower case with underscores, numbered when taken."""
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for id_ in graph.placed:
        base = re.sub(r"[^a-z0-9]+", "_", graph.title(id_).lower()).strip("_") or "step"
        if base[0].isdigit():
            base = f"step_{base}"
        key, number = base, 2
        while key in taken:
            key, number = f"{base}_{number}", number + 1
        taken.add(key)
        keys[id_] = key
    return keys


def up_to(blueprint: Blueprint, node: str) -> Blueprint:
    """The part of a blueprint that leads up to a node, itself included: what has to run to see what it gives.

    A tool runs when its agent does, so it needs the agent.
    """
    sources: dict[str, list[str]] = defaultdict(list)
    for edge in blueprint.edges:
        sources[edge.target].append(edge.source)
        if edge.source_port == TOOL_PORT.name:
            sources[edge.source].append(edge.target)
    wanted, todo = {node}, [node]
    while todo:
        for source in sources[todo.pop()]:
            if source not in wanted:
                wanted.add(source)
                todo.append(source)
    nodes = [placed for placed in blueprint.nodes if placed.id in wanted]
    edges = [edge for edge in blueprint.edges if edge.source in wanted and edge.target in wanted]
    return blueprint.model_copy(update={"nodes": nodes, "edges": edges, "groups": []})
