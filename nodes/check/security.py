"""Whether a blueprint can be misused: secrets in the open, calls to anywhere, and the Rule of Two."""

from collections.abc import Iterable
from typing import Any, Final

from nodes.base import Effect, Label, Loop, Node
from nodes.check.findings import Findings, Operation, asked, listed
from nodes.check.leaks import leaks, named_leak, texts
from nodes.check.reading import Reading
from nodes.listen import Webhook

_NONE: Final[frozenset[Label]] = frozenset()
_BOTH: Final = frozenset({Label.UNTRUSTED, Label.PRIVATE})
_STORE: Final = "Store it under Settings → Secrets and choose it by name. If others have seen it, make a new one."


def read_security(reading: Reading, findings: Findings) -> None:
    """All of the tier."""
    _read_secrets(reading, findings)
    _read_hosts(reading, findings)
    _read_rule_of_two(reading, findings)
    _read_open_doors(reading, findings)


# --- secrets in texts --------------------------------------------------------------------------------------------------


def _read_secrets(reading: Reading, findings: Findings) -> None:
    graph, blueprint = reading.graph, reading.blueprint
    for id_, placed in graph.placed.items():
        by_name = {text.field for text in reading.texts.get(id_, ()) if text.format == "secret"}
        _read_texts(findings, texts(placed.settings), f"{reading.name(id_)} holds", id_, by_name)
        _read_texts(
            findings, texts(placed.pinned or {}, "pinned"), f"The pinned data of {reading.name(id_)} holds", id_
        )
        _read_texts(findings, [("name", "", placed.name)], f"The name of {reading.name(id_)} holds", id_)
    for variable in blueprint.variables:
        found = texts(variable.value, variable.name, variable.name)
        _read_texts(findings, found, f"The variable “{variable.name}” holds")
    for note in blueprint.notes:
        _read_texts(findings, [("", "", note.text)], "A note holds")
    _read_texts(findings, [("description", "", blueprint.description)], "The description holds")


def _read_texts(
    findings: Findings,
    found: Iterable[tuple[str, str, str]],
    where: str,
    node: str = "",
    by_name: set[str] | frozenset[str] = frozenset(),
) -> None:
    for place, name, text in found:
        kinds = list(dict.fromkeys(leaks(text)))
        if not kinds and name and place not in by_name and (kind := named_leak(name, text)):
            kinds = [kind]
        for kind in kinds[:1]:
            findings.add(
                "error",
                "secret.in_text",
                f"{where} {kind}, which everybody who can see this agent can read.",
                _STORE,
                node=node,
                field=place,
            )


# --- where calls go ----------------------------------------------------------------------------------------------------


def _read_hosts(reading: Reading, findings: Findings) -> None:
    allowed = [host.strip().lower() for host in reading.blueprint.allowed_hosts if host.strip()]
    calls: list[tuple[str, str]] = []
    for id_, node in reading.working():
        calls += [(id_, host.lower()) for host in asked(node.hosts, None) or ()]
    named = list(dict.fromkeys(host for _, host in calls if host))
    for id_, host in calls:
        if host and not allowed:
            findings.add(
                "warning",
                "host.no_list",
                f"{reading.name(id_)} calls {host}, and this agent has no list of hosts that it may call.",
                f"List the hosts it may call: {', '.join(named[:5])}. Then nothing that arrives can send data elsewhere.",
                node=id_,
                repair=_allow(named),
            )
        elif host and not any(_fits(host, pattern) for pattern in allowed):
            findings.add(
                "error",
                "host.not_allowed",
                f"{reading.name(id_)} calls {host}, which is not on this agent's list of allowed hosts.",
                f"Add {host} to the allowed hosts, or call one that is on the list.",
                node=id_,
                repair=_allow([*reading.blueprint.allowed_hosts, host]),
            )
        elif not host and not allowed:
            findings.add(
                "warning",
                "host.unknown",
                f"Only a run can tell which host {reading.name(id_)} calls, and this agent has no list of hosts that it may call.",
                "List the hosts that it may call, under “Allowed hosts” of the agent.",
                node=id_,
                repair=_allow(named) if named else (),
            )


def _allow(hosts: list[str]) -> list[Operation]:
    return [{"op": "set_blueprint", "patch": {"allowed_hosts": hosts[:200]}}]


def _fits(host: str, pattern: str) -> bool:
    name = pattern.partition(":")[0] if pattern.count(":") == 1 else pattern
    return host.endswith(name[1:]) and len(host) > len(name) - 1 if name.startswith("*.") else host == name


# --- the Rule of Two ---------------------------------------------------------------------------------------------------


def _labels(node: Node) -> frozenset[Label]:
    return asked(node.labels, _NONE)


def _read_rule_of_two(reading: Reading, findings: Findings) -> None:
    """What a step reads colours all that it gives; where both colours meet an effect outside, a person must decide first.

    A secret that a step only signs in with colours what comes back, not what the step sends: its value never reaches a node.
    """
    routes, graph = reading.routes, reading.graph
    if not routes.acyclic:
        return
    own = {id_: _labels(node) for id_, node in reading.working()}
    arriving = dict.fromkeys(graph.placed, _NONE)
    leaving = dict.fromkeys(graph.placed, _NONE)
    came: dict[Label, dict[str, tuple[int, str]]] = {label: {} for label in _BOTH}
    origins = _sources(reading)
    # What a tool gives colours its agent, and so what all its tools are given: with agents it takes more than one pass.
    going = True
    while going:
        before = dict(leaving)
        for id_ in routes.order:
            for source in origins[id_]:
                arriving[id_] |= leaving[source]
                for label in leaving[source]:
                    far = 0 if label in own.get(source, _NONE) else came[label][source][0] + 1
                    if id_ not in came[label] or far < came[label][id_][0]:
                        came[label][id_] = far, source
            node = graph.nodes.get(id_)
            gate = node is not None and node.gate and not graph.placed[id_].disabled
            leaving[id_] = _NONE if gate else arriving[id_] | (own.get(id_, _NONE) & _BOTH)
        going = bool(graph.agents.heads) and before != leaving
    for id_, labels in own.items():
        if Label.EXTERNAL not in labels or not arriving[id_] >= _BOTH or graph.placed[id_].policy.ask_first:
            continue
        untrusted = _way(came[Label.UNTRUSTED], id_, Label.UNTRUSTED, own)
        private = _way(came[Label.PRIVATE], id_, Label.PRIVATE, own)
        one, other = reading.name(untrusted[0]), reading.name(private[0])
        sources = (
            f"{one} brings in what others wrote, {other} reads private data"
            if one != other
            else f"{one} brings in what others wrote together with private data"
        )
        findings.add(
            "error",
            "rule_of_two.broken",
            f"{sources}, and {reading.name(id_)} acts outside on both: what others wrote could make it give private data away.",
            f"Let {reading.name(id_)} ask a person first, put an “Approval” before it, or take one of the three away.",
            node=id_,
            path=dict.fromkeys((*untrusted, *private)),
            repair=_approved(reading, id_),
        )


def _sources(reading: Reading) -> dict[str, list[str]]:
    """From which steps something reaches each step, agents and what hangs on them included."""
    routes, graph = reading.routes, reading.graph
    parts = graph.agents
    found: dict[str, list[str]] = {}
    for id_ in routes.order:
        found[id_] = []
        for edge in routes.into[id_]:
            results = routes.results[edge.source] if edge.source_port != "item" else ()
            found[id_] += [edge.source, *(result.source for result in results)]
    for agent, heads in parts.heads.items():
        found[agent] += [
            id_ for id_, head in parts.tool_of.items() if head in heads and not graph.placed[head].disabled
        ]
        for head in heads:
            found[head].append(agent)
    for agent, ports in parts.attached.items():
        found[agent] += ports.values()
    return found


def _way(came: dict[str, tuple[int, str]], target: str, label: Label, own: dict[str, frozenset[Label]]) -> list[str]:
    """The shortest way on which a colour reaches a step without a person's decision."""
    way = [target, came[target][1]]
    while label not in own.get(way[-1], _NONE):
        way.append(came[way[-1]][1])
    return way[::-1]


def _approved(reading: Reading, id_: str) -> list[Operation]:
    """Put an approval into the only connection of a step; where there is none such, let the step ask by itself."""
    type_, graph = "validation.approve", reading.graph
    edges = reading.routes.into[id_]
    if type_ not in reading.types or len(edges) != 1:
        return [{"op": "set", "id": id_, "patch": {"policy": {"ask_first": True}}}]
    edge, placed = edges[0], graph.placed[id_]
    taken = reading.ids | {other.id for other in reading.blueprint.edges}
    new = next(name for number in range(len(taken) + 1) if (name := f"approval-{number + 1}") not in taken)
    into, out = f"{new}-in", f"{new}-out"
    if {into, out} & taken:
        return []
    beside: dict[str, Any] = {"id": new, "type": type_, "x": placed.x, "y": placed.y}
    ends = [
        (into, edge.source, edge.source_port, new, "value"),
        (out, new, "approved", id_, edge.target_port),
    ]
    return [
        {"op": "remove_edge", "id": edge.id},
        {"op": "add_node", "node": beside},
        {"op": "move", "pos": {id_: [placed.x + 280, placed.y]}},
        *(
            {
                "op": "add_edge",
                "edge": {
                    "id": name,
                    "source": source,
                    "source_port": source_port,
                    "target": target,
                    "target_port": target_port,
                },
            }
            for name, source, source_port, target, target_port in ends
        ),
    ]


# --- open doors --------------------------------------------------------------------------------------------------------


def _read_open_doors(reading: Reading, findings: Findings) -> None:
    routes, graph = reading.routes, reading.graph
    for trigger in routes.triggers:
        node = graph.nodes.get(trigger)
        listens = asked(node.listens, None) if node is not None else None
        if not isinstance(listens, Webhook) or listens.secret or graph.placed[trigger].disabled:
            continue
        reached = routes.behind([trigger])
        acting = [
            id_
            for id_, node in reading.working()
            if id_ in reached and not isinstance(node, Loop) and asked(node.effect_here, Effect.E4) >= Effect.E3
        ]
        if acting:
            names = listed(graph.title(id_) for id_ in acting)
            findings.add(
                "hint",
                "webhook.open",
                f"Whoever knows the address of {reading.name(trigger)} can make {names} happen: calls are not signed.",
                "Choose a secret in “Signed with” if the caller can sign.",
                node=trigger,
                field="secret" if node is not None and "secret" in type(node).model_fields else "",
            )
