"""Whether a blueprint hangs together: everything that keeps it from running as drawn."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from nodes.agents import AgentNode, is_attachment
from nodes.base import Loop, PortType, class_ports, fits
from nodes.blueprint import Edge
from nodes.catalog import BadSettings
from nodes.check.calls import read_calls
from nodes.check.findings import Findings, Operation, asked, listed
from nodes.check.reading import Reading
from nodes.check.routes import BY_TRIGGER
from nodes.graph import Problem
from nodes.listen import Chat, Form, Webhook

_WRONG_EDGES: Final = frozenset({"edge.no_port", "edge.types", "loop.result", "agent.two", "tool.shared"})
_SPACE: Final = 280.0
"""How far a step that a repair adds stands from the next one."""


def read_structure(reading: Reading, findings: Findings) -> None:
    """All of the tier but formulas."""
    _read_problems(reading, findings)
    _read_triggers(reading, findings)
    _read_ports(reading, findings)
    _read_ways(reading, findings)
    _read_loops(reading, findings)
    _read_agents(reading, findings)
    _read_addresses(reading, findings)
    _read_names(reading, findings)
    _read_groups(reading, findings)
    _read_variables(reading, findings)
    _read_references(reading, findings)
    read_calls(reading, findings)


def _read_problems(reading: Reading, findings: Findings) -> None:
    for problem in reading.graph.problems:
        repair = (
            [_without(problem.edge)] if problem.code in _WRONG_EDGES and problem.edge else _forgotten(reading, problem)
        )
        path = _circle(reading, problem.node) if problem.code == "graph.circle" else ()
        findings.add(
            "error",
            problem.code,
            problem.sentence,
            problem.fix or "Delete it, or set it up anew.",
            node=problem.node,
            field=problem.field,
            edge=problem.edge,
            path=path,
            repair=repair,
        )


def _circle(reading: Reading, start: str) -> list[str]:
    """The shortest way from a step back to itself."""
    came: dict[str, str] = {}
    todo = [start]
    for id_ in todo:
        for edge in reading.routes.out[id_]:
            if edge.target == start:
                way = [start, id_] if id_ != start else [start]
                while (id_ := came.get(id_, start)) != start:
                    way.append(id_)
                return [way[0], *reversed(way[1:]), start]
            if edge.target not in came:
                came[edge.target] = id_
                todo.append(edge.target)
    return [start]


def _read_triggers(reading: Reading, findings: Findings) -> None:
    graph, routes = reading.graph, reading.routes
    if not graph.placed:
        findings.add(
            "error",
            "graph.empty",
            "There is nothing here yet.",
            "Drag a trigger from the left, then what it should do.",
        )
        return
    if not routes.triggers:
        findings.add(
            "error",
            "graph.no_trigger",
            "Nothing starts this agent: it has no trigger.",
            "Add a trigger, such as “Webhook”, “Schedule” or “Run by hand”.",
            repair=_started(reading),
        )
    off = [id_ for id_ in routes.triggers if graph.placed[id_].disabled]
    for id_ in off:
        alone = len(off) == len(routes.triggers)
        findings.add(
            "error" if alone else "warning",
            "graph.trigger_off",
            f"{reading.name(id_)} is switched off, so it starts nothing"
            + (", and there is no other trigger." if alone else "."),
            "Switch it on, or delete it.",
            node=id_,
            repair=[{"op": "set", "id": id_, "patch": {"disabled": False}}],
        )
    hung = {edge.source for edge in graph.agents.edges}
    for id_ in graph.placed:
        if id_ in routes.from_trigger or routes.into[id_] or graph.placed[id_].disabled or not routes.triggers:
            continue
        if id_ in graph.agents.agent_of:
            continue  # its agent decides when it runs
        if is_attachment(graph.nodes.get(id_)):
            if id_ not in hung:
                findings.add(
                    "warning",
                    "agent.loose_part",
                    f"{reading.name(id_)} is connected to no agent, so it does nothing.",
                    "Connect it with an “Agent”, or delete it.",
                    node=id_,
                )
            continue
        if any(port.required and not port.back for port in graph.inputs[id_].values()):
            continue  # that it gets nothing to work on says enough
        if not routes.out[id_] and not routes.gives_to[id_]:
            findings.add(
                "warning",
                "graph.loose",
                f"{reading.name(id_)} is connected to nothing; it would run at the start of every run.",
                "Connect it, or delete it.",
                node=id_,
            )
        else:
            findings.add(
                "hint",
                "graph.own_start",
                f"No trigger leads to {reading.name(id_)}: it runs at the start of every run, whatever started it.",
                "Connect it behind a trigger if it should wait for one.",
                node=id_,
            )


def _started(reading: Reading) -> list[Operation]:
    """Put a trigger that is pressed by hand before the first steps that wait for nothing."""
    graph, type_ = reading.graph, "trigger.manual"
    if type_ not in reading.types:
        return []
    starts = [id_ for id_ in graph.placed if not reading.routes.into[id_] and graph.inputs[id_]][:20]
    first = graph.placed[starts[0]] if starts else next(iter(graph.placed.values()))
    id_ = _free("start", reading.ids)
    port = next((port.name for port in class_ports(reading.types.get(type_))[1]), "value")
    operations: list[Operation] = [
        {"op": "add_node", "node": {"id": id_, "type": type_, "x": first.x - _SPACE, "y": first.y}}
    ]
    taken = {edge.id for edge in reading.blueprint.edges}
    for start in starts:
        into = next(
            (name for name, into in graph.inputs[start].items() if not into.back and fits(PortType.ANY, into.type)), ""
        )
        if into:
            edge = _free(f"{id_}-{start}"[:60], taken)
            taken.add(edge)
            operations.append(_edge(edge, id_, port, start, into))
    return operations


def _read_ports(reading: Reading, findings: Findings) -> None:
    graph, routes = reading.graph, reading.routes
    for id_, _ in reading.working():
        fed: dict[str, list[Edge]] = defaultdict(list)
        for edge in routes.into[id_]:
            fed[edge.target_port].append(edge)
        for name, port in graph.inputs[id_].items():
            if port.required and not port.back and name not in fed and id_ not in graph.agents.agent_of:
                findings.add(
                    "error",
                    "port.unfed",
                    f"{reading.name(id_)} gets no {port.label}: nothing is connected to it."
                    if len(graph.inputs[id_]) > 1
                    else f"{reading.name(id_)} gets nothing to work on: no step is connected to it.",
                    f"Draw a connection from an earlier step to {reading.name(id_)}.",
                    node=id_,
                )
            if len(fed[name]) > 1 and not port.many and not port.back:
                _read_shared(reading, findings, id_, fed[name])


def _read_shared(reading: Reading, findings: Findings, id_: str, edges: list[Edge]) -> None:
    """Several edges lead into one port, which takes one value."""
    node = reading.graph.nodes[id_]
    if asked(node.join_here, "all") == "first":
        return
    if len(edges) > 60:  # all pairs of so many would take long, and so many hardly exclude each other
        both = (edges[0], edges[1])
    else:
        pairs = ((one, other) for number, one in enumerate(edges) for other in edges[:number])
        found = next(((other, one) for one, other in pairs if reading.routes.may_meet(one, other)), None)
        if found is None:
            return
        both = found
    names = listed(dict.fromkeys(reading.graph.title(edge.source) for edge in both))
    findings.add(
        "warning",
        "port.shared",
        f"{names} can both give a value to {reading.label(id_, edges[0].target_port, out=False)} of {reading.name(id_)} "
        "in the same run; only one of them is taken."
        if len({edge.source for edge in both}) > 1
        else f"{names} gives several values to {reading.label(id_, edges[0].target_port, out=False)} of {reading.name(id_)}; "
        "only one of them is taken.",
        "Put “Merge” before it to get all of them, or remove a connection.",
        node=id_,
        edge=both[1].id,
        path=(both[0].source, both[1].source, id_),
    )


def _read_ways(reading: Reading, findings: Findings) -> None:
    graph, routes = reading.graph, reading.routes
    for id_, decision in routes.contradictions.items():
        if graph.placed[id_].disabled:
            continue
        if decision == BY_TRIGGER:
            sentence = f"{reading.name(id_)} never runs: it waits for steps of different triggers, and only one trigger starts a run."
        else:
            sentence = f"{reading.name(id_)} never runs: it waits for different ways of {reading.name(decision)}, and only one of them is taken."
        findings.add(
            "error",
            "graph.never_runs",
            sentence,
            "Lead these ways into one port, or into “Merge”, which takes what comes.",
            node=id_,
            path=(decision, id_) if decision else (),
        )
    for id_, edges in routes.cut.items():
        if graph.placed[id_].disabled:
            continue
        off = edges[0].source
        findings.add(
            "warning",
            "graph.behind_off",
            f"{reading.name(id_)} never runs: {reading.name(off)} is switched off and passes its input on by another way.",
            f"Switch {reading.name(off)} on, or connect {reading.name(id_)} elsewhere.",
            node=id_,
            edge=edges[0].id,
            repair=[{"op": "set", "id": off, "patch": {"disabled": False}}],
        )


def _read_loops(reading: Reading, findings: Findings) -> None:
    graph, routes = reading.graph, reading.routes
    for loop in routes.loops:
        if graph.placed[loop].disabled:
            continue
        body = routes.bodies[loop]
        if not body and not routes.results[loop]:
            findings.add(
                "warning",
                "loop.empty",
                f"{reading.name(loop)} repeats nothing.",
                "Connect “item” with the first step to do for each item.",
                node=loop,
            )
            continue
        node = graph.nodes[loop]
        if isinstance(node, Loop) and node.rounds:
            if not routes.results[loop]:
                findings.add(
                    "warning",
                    "loop.same_rounds",
                    f"{reading.name(loop)} begins every round with the same value, for nothing is connected with its “result”.",
                    "Connect the last of the repeated steps with “result”.",
                    node=loop,
                    repair=_collected(reading, loop, body),
                )
            continue
        done = next((edge for edge in routes.out[loop] if edge.source_port != "item"), None)
        if not routes.results[loop] and done is not None:
            findings.add(
                "hint",
                "loop.not_collected",
                f"{reading.name(loop)} does not collect what its steps give: {reading.name(done.target)} gets the items as they were.",
                "Connect the last repeated step with “result” of the loop if its results are wanted.",
                node=loop,
                edge=done.id,
                repair=_collected(reading, loop, body),
            )


def _collected(reading: Reading, loop: str, body: list[str]) -> list[Operation]:
    graph, routes = reading.graph, reading.routes
    ends = [id_ for id_ in body if not routes.out[id_] and graph.scope[id_] == loop]
    back = next((name for name, port in graph.inputs[loop].items() if port.back), "")
    if len(ends) != 1 or not back or not graph.outputs[ends[0]]:
        return []
    edge = _free(f"{ends[0]}-{loop}"[:60], {edge.id for edge in reading.blueprint.edges})
    return [_edge(edge, ends[0], next(iter(graph.outputs[ends[0]])), loop, back)]


def _read_agents(reading: Reading, findings: Findings) -> None:
    graph, parts = reading.graph, reading.graph.agents
    for id_, node in reading.working():
        if not isinstance(node, AgentNode):
            continue
        tools = [head for head in parts.heads.get(id_, ()) if not graph.placed[head].disabled]
        if not tools:
            findings.add(
                "hint",
                "agent.no_tools",
                f"{reading.name(id_)} has no tools: it can only answer from what it is told.",
                "Connect “tool” of a step with its “tools”. For a single answer “Ask a model” is enough.",
                node=id_,
            )
        for port, other in parts.attached.get(id_, {}).items():
            if graph.placed[other].disabled:
                findings.add(
                    "hint",
                    "agent.part_off",
                    f"{reading.name(other)} is switched off, so {reading.name(id_)} works without it.",
                    "Switch it on, or delete it.",
                    node=other,
                    repair=[{"op": "set", "id": other, "patch": {"disabled": False}}] if port else [],
                )


def _read_addresses(reading: Reading, findings: Findings) -> None:
    first: dict[str, str] = {}
    for id_, node in reading.working():
        listens = asked(node.listens, None)
        if not isinstance(listens, Webhook | Form | Chat):
            continue
        path = listens.path
        if path not in first:
            first[path] = id_
            continue
        free = _free(path[:90], {*first, path})
        first[free] = id_
        findings.add(
            "error",
            "trigger.same_address",
            f"{reading.name(first[path])} and {reading.name(id_)} have the same address “{path}”.",
            "Give one of them another address.",
            node=id_,
            field="path",
            repair=[{"op": "set", "id": id_, "patch": {"settings": {"path": free}}}]
            if "path" in type(node).model_fields
            else [],
        )


def _read_names(reading: Reading, findings: Findings) -> None:
    named: dict[str, list[str]] = defaultdict(list)
    for id_, placed in reading.graph.placed.items():
        if placed.name.strip():
            named[placed.name.strip().lower()].append(id_)
    taken = set(named)
    for ids in named.values():
        for number, id_ in enumerate(ids[1:], 2):
            name = reading.graph.placed[id_].name.strip()
            while f"{name} {number}".lower() in taken:
                number += 1
            taken.add(f"{name} {number}".lower())
            findings.add(
                "hint",
                "node.same_name",
                f"{len(ids)} steps are called {reading.name(id_)}; formulas tell them apart by a number only.",
                "Give each step a name of its own.",
                node=id_,
                repair=[{"op": "set", "id": id_, "patch": {"name": f"{name[:110]} {number}"}}],
            )


def _read_groups(reading: Reading, findings: Findings) -> None:
    for group in reading.blueprint.groups:
        here = [id_ for id_ in group.nodes if id_ in reading.graph.placed]
        if len(here) < len(group.nodes):
            findings.add(
                "hint",
                "group.missing",
                f"The group “{group.title or group.id}” names steps that are not here any more.",
                "Take them out of the group.",
                repair=[{"op": "set_group", "id": group.id, "patch": {"nodes": here}}],
            )


def _read_variables(reading: Reading, findings: Findings) -> None:
    variables = reading.blueprint.variables
    seen: set[str] = set()
    text = "\n".join(text.text for texts in reading.texts.values() for text in texts if "vars" in text.text)
    unclear = "vars[" in text or any(id_ not in reading.graph.nodes for id_ in reading.graph.placed)
    for number, variable in enumerate(variables):
        others = [other.model_dump() for place, other in enumerate(variables) if place != number]
        repair = [{"op": "set_blueprint", "patch": {"variables": others}}]
        if variable.name in seen:
            findings.add(
                "error",
                "variable.twice",
                f"There are two variables called “{variable.name}”; only the last one counts.",
                "Delete one of them, or give it another name.",
                field=variable.name,
                repair=repair,
            )
        elif not unclear and f"vars.{variable.name}" not in text and "vars |" not in text:
            findings.add(
                "hint",
                "variable.unused",
                f"No step uses the variable “{variable.name}”.",
                f"Use it in a formula as `vars.{variable.name}`, or delete it.",
                field=variable.name,
                repair=repair,
            )
        seen.add(variable.name)


def _read_references(reading: Reading, findings: Findings) -> None:
    """Secrets, files and other agents that settings name."""
    around = reading.around
    if around is None:
        return
    for id_, _ in reading.working():
        for text in reading.texts[id_]:
            name = text.text.strip()
            if not name or "{{" in name:
                continue
            if text.format == "secret" and name not in around.secrets:
                there = name in around.elsewhere
                findings.add(
                    "warning",
                    "secret.missing",
                    f"{reading.name(id_)} uses the secret “{name[:60]}”, which "
                    + (f"has no value in {around.environment} yet." if there else "does not exist yet."),
                    f"Set “{name[:60]}” for {around.environment}, or for both, under Settings → Secrets."
                    if there
                    else f"Add “{name[:60]}” under Settings → Secrets, or choose another one.",
                    node=id_,
                    field=text.field,
                )
            elif text.format == "file" and around.files is not None and name not in around.files:
                findings.add(
                    "warning",
                    "file.missing",
                    f"{reading.name(id_)} reads the file “{name[:60]}”, which was not uploaded yet.",
                    "Upload it, or choose another file.",
                    node=id_,
                    field=text.field,
                )
            elif text.format == "blueprint" and around.own_id and name == around.own_id:
                findings.add(
                    "error",
                    "blueprint.calls_itself",
                    f"{reading.name(id_)} calls the agent that it is a part of, which would never end.",
                    "Choose another agent, or use “For each” to repeat steps.",
                    node=id_,
                    field=text.field,
                )
            elif text.format == "blueprint" and name not in around.blueprints:
                findings.add(
                    "error",
                    "blueprint.missing",
                    f"{reading.name(id_)} calls an agent that does not exist (any more).",
                    "Choose another agent.",
                    node=id_,
                    field=text.field,
                )


# --- operations --------------------------------------------------------------------------------------------------------


def _forgotten(reading: Reading, problem: Problem) -> list[Operation]:
    """A setting that the node type does not know, such as of a drawing made elsewhere, can be left out."""
    placed = reading.graph.placed.get(problem.node)
    if problem.code != BadSettings.code or placed is None or problem.field not in placed.settings:
        return []
    known = reading.types.get(placed.type).model_fields
    return [] if problem.field in known else [{"op": "set", "id": placed.id, "patch": {}, "unset": [problem.field]}]


def _without(edge: str) -> Operation:
    return {"op": "remove_edge", "id": edge}


def _edge(id_: str, source: str, source_port: str, target: str, target_port: str) -> Mapping[str, Any]:
    return {
        "op": "add_edge",
        "edge": {
            "id": id_,
            "source": source,
            "source_port": source_port,
            "target": target,
            "target_port": target_port,
        },
    }


def _free(wanted: str, taken: set[str]) -> str:
    """An id like this one that nobody has."""
    id_, number = wanted, 2
    while id_ in taken:
        id_, number = f"{wanted}-{number}", number + 1
    return id_
