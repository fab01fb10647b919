"""What can arrive at each step: shapes carried along the edges, and so the names that its formulas know."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from nodes.agents import is_attachment
from nodes.base import Family, Loop, Node, Port, PortType
from nodes.called import shape_of_fields
from nodes.check.arguments import Arguments, arguments
from nodes.check.findings import asked
from nodes.check.routes import Routes
from nodes.graph import step_keys
from nodes.listen import CalledField
from nodes.shape import (
    ANY,
    MOMENT,
    NOTHING,
    NUMBER,
    TEXT,
    YES_NO,
    Shape,
    list_of,
    one_of,
    record,
    shape_of,
)

_LOOSE: Final = record(open=True)
_BY_TYPE: Final[Mapping[PortType, Shape]] = {
    PortType.TEXT: TEXT,
    PortType.NUMBER: NUMBER,
    PortType.YES_NO: YES_NO,
    PortType.MOMENT: MOMENT,
    PortType.LIST: list_of(),
    PortType.RECORD: _LOOSE,
    PortType.FILE: _LOOSE,
    PortType.MESSAGE: _LOOSE,
}
_ERROR: Final = record(
    {"code": TEXT, "message": TEXT, "fix": one_of(TEXT, NOTHING), "where": _LOOSE, "category": TEXT, "details": ANY},
    optional=["category", "details"],
)
_RUN: Final = record({"id": TEXT, "started_at": NUMBER, "sandbox": YES_NO, "agent": TEXT, "environment": TEXT})


class Scopes:
    """Shapes of everything that can arrive. With `guess` samples count as what comes in, else only what is certain."""

    def __init__(
        self,
        routes: Routes,
        *,
        guess: bool,
        variables: Mapping[str, Any] | None = None,
        returns: Mapping[str, tuple[CalledField, ...]] | None = None,
    ) -> None:
        self.routes = routes
        self.graph = routes.graph
        self.guess = guess
        self._outer = variables or {}
        """Variables of the environment, which go before the agent's own."""
        self._returns = returns or {}
        """What called agents say that they give back."""
        self._arguments: dict[str, Arguments] = {}
        self.arriving: dict[str, dict[str, Shape]] = {}
        self.leaving: dict[str, dict[str, Shape]] = {}
        for id_ in routes.order:
            self.arriving[id_] = self._arriving(id_)
            self.leaving[id_] = self._leaving(id_)
            self._give_back(id_)

    @cached_property
    def keys(self) -> dict[str, str]:
        """How formulas call each step."""
        return step_keys(self.graph)

    @cached_property
    def by_key(self) -> dict[str, str]:
        """Which step formulas mean by a name in `steps`."""
        return {key: id_ for id_, key in self.keys.items()}

    @cached_property
    def _setters(self) -> dict[str, list[str]]:
        """The steps that set a variable of the run, by its name."""
        found: dict[str, list[str]] = {}
        for id_, node in self.graph.nodes.items():
            if (name := asked(node.sets_variable, "")) and not self.graph.placed[id_].disabled:
                found.setdefault(name, []).append(id_)
        return found

    @cached_property
    def _declared(self) -> dict[str, Shape]:
        found = {variable.name: shape_of(variable.value) for variable in self.graph.blueprint.variables}
        found |= {name: shape_of(value) for name, value in self._outer.items()}
        return {name: ANY if shape.kind == "nothing" else shape for name, shape in found.items()}

    def variables(self, id_: str) -> Shape:
        """The shape of `vars` in a step: what the agent declares, and what its steps set, surely or maybe before."""
        fields, optional = dict(self._declared), set[str]()
        sure = self.routes.surely_before.get(id_, 0) if self._setters else 0
        for name, setters in self._setters.items():
            given = one_of(*(self.leaving[setter].get("variable", ANY) for setter in setters if setter in self.leaving))
            if name in fields:
                fields[name] = one_of(fields[name], given)
            else:
                fields[name] = given
                if not any(sure >> self.routes.place[setter] & 1 for setter in setters):
                    optional.add(name)
        return record(fields, optional=optional)

    def main(self, id_: str) -> Shape | None:
        """What `input` is."""
        first = next(iter(self.graph.inputs[id_]), "")
        return self.arriving[id_].get(first) if first else None

    def known(self, id_: str, *, steps: Collection[str] | None = None) -> Shape:
        """The record of names that a formula in this step can use; of other steps only those by these keys, if given."""
        if (agent := self._hangs_on.get(id_)) is not None:
            return self.known(agent, steps=steps)
        main = self.main(id_)
        fields: dict[str, Shape] = {}
        optional: frozenset[str] = frozenset()
        loose = False
        if main is not None:
            options = main.options if main.kind == "one of" else (main,)
            records = [option for option in options if option.kind == "record"]
            if records:
                whole = one_of(*records)
                fields, optional, loose = dict(whole.fields), whole.optional, whole.open
                if len(records) < len(options):
                    optional = frozenset(fields)
            loose = loose or main.kind == "any"
        # A field of the main input goes before a port of its name; a record without that field leaves the port.
        for name, port in self.arriving[id_].items():
            if name not in fields:
                fields[name] = port
            elif name in optional:
                fields[name] = one_of(fields[name], port)
        fields |= {"input": NOTHING if main is None else main, "vars": self.variables(id_), "run": _RUN}
        fields["steps"] = self.steps(id_, steps) if steps is None or steps else _LOOSE
        parts, around = self.graph.agents, self.graph.loops_around(id_)
        ours = {*self.arriving[id_], "input", "vars", "run", "steps"}
        if loops := [loop for loop in around if loop not in parts.heads]:
            fields |= {"item": self.leaving[loops[0]].get("item", ANY), "index": NUMBER}
            ours |= {"item", "index"}
        if tool := self.tool_around(id_):
            fields["args"] = self.arguments(tool).shape()
            ours.add("args")
        return record(fields, optional=optional - ours, open=loose)

    @cached_property
    def _hangs_on(self) -> dict[str, str]:
        """The agent of each model and memory: what they say is filled in there."""
        attached = self.graph.agents.attached.items()
        return {
            node: agent
            for agent, ports in attached
            for node in ports.values()
            if is_attachment(self.graph.nodes.get(node))
        }

    def tool_around(self, id_: str) -> str:
        """The first step of the tool that a step belongs to; empty outside of all tools."""
        tool_of = self.graph.agents.tool_of
        return next((tool_of[inside] for inside in (id_, *self.graph.loops_around(id_)) if inside in tool_of), "")

    def arguments(self, head: str) -> Arguments:
        """What a model gives to use the tool that begins with this step."""
        if head not in self._arguments:
            tool_of, nodes = self.graph.agents.tool_of, self.graph.nodes
            steps = [nodes[head]] if head in nodes else []
            steps += [
                nodes[id_] for id_ in self.routes.order if id_ != head and tool_of.get(id_) == head and id_ in nodes
            ]
            fed = {edge.target_port for edge in self.routes.into[head]}
            self._arguments[head] = arguments(steps, tuple(self.graph.inputs[head].values()), fed)
        return self._arguments[head]

    def steps(self, id_: str, only: Collection[str] | None = None) -> Shape:
        """What `steps` holds: what surely ran before, and as optional what did on some ways only.

        All other steps are in it as anything: that they cannot be read here is said by a finding of its own.
        """
        routes = self.routes
        before, sure = routes.before.get(id_, 0), routes.surely_before.get(id_, 0)
        around = set(self.graph.loops_around(id_))
        fields: dict[str, Shape] = {}
        optional = []
        known = self.keys.items() if only is None else [(self.by_key[key], key) for key in only]
        for other, key in known:
            bit = 1 << routes.place[other]
            if not before & bit or other in around:
                fields[key] = ANY
                continue
            placed = self.graph.placed[other]
            ports = self.leaving[other]
            one_way = bool(routes.graph.nodes.get(other)) and len(set(routes.doors[other].values())) > 1
            fields[key] = record(ports, optional=ports if one_way or placed.disabled else ())
            if not sure & bit:
                optional.append(key)
        return record(fields, optional=optional)

    # --- along the edges -----------------------------------------------------------------------------------------------

    def _arriving(self, id_: str) -> dict[str, Shape]:
        ports = self.graph.inputs[id_]
        found: dict[str, list[Shape]] = {}
        for edge in self.routes.into[id_]:
            # An edge of a circle comes from a step that is not read yet.
            given = self.leaving.get(edge.source, {}).get(edge.source_port, ANY)
            if self.routes.when.get(edge.source) is not None or edge.source not in self.leaving:
                found.setdefault(edge.target_port, []).append(given)
            else:
                found.setdefault(edge.target_port, [])
        shapes = {}
        for name, options in found.items():
            one = one_of(*options) if options else ANY
            shapes[name] = list_of(one) if name in ports and ports[name].many else one
        if id_ in self.graph.agents.agent_of:
            args = self.arguments(id_)
            known = args.shape()
            for port_name, argument in args.feeds.items():
                shapes[port_name] = known.fields.get(argument, ANY) if argument else known
        for name, port in ports.items():
            if name not in shapes and port.required and not port.back:
                shapes[name] = list_of() if port.many else NOTHING
        return shapes

    def _leaving(self, id_: str) -> dict[str, Shape]:
        placed, node = self.graph.placed[id_], self.graph.nodes.get(id_)
        ports = self.graph.outputs[id_]
        found = {name: _BY_TYPE.get(port.type, ANY) for name, port in ports.items()}
        if "error" in found and placed.policy.on_error == "port":
            found["error"] = _ERROR
        if node is None:
            return found
        first = next(iter(ports), "")
        if placed.disabled and node.family is not Family.TRIGGER:
            return {first: self.main(id_) or NOTHING} if first else {}
        said = self._said(id_, node)
        for name in ports:
            if (shape := said.get(name)) is not None:
                found[name] = _together(found[name], shape)
        if self.guess and placed.pinned is not None:
            for name, value in placed.pinned.items():
                if name in found and found[name].kind == "any":
                    found[name] = shape_of(value)
        if placed.policy.on_error == "continue" and first:
            found[first] = one_of(found[first], shape_of(placed.policy.on_error_value))
        return found

    def _said(self, id_: str, node: Node) -> Mapping[str, Shape]:
        arriving = self.arriving[id_]
        own: Mapping[str, Shape] = asked(lambda: dict(node.shapes(arriving)), {})
        if type(node).type == "flow.call_blueprint" and (back := self._returns.get(getattr(node, "blueprint", ""))):
            # It may give more than it says, but nobody should count on that.
            return {**own, "value": shape_of_fields(back, open=not self.guess)}
        if isinstance(node, Loop):
            return {**self._of_loop(id_, arriving.get(next(iter(self.graph.inputs[id_]), ""), ANY)), **own}
        if node.family is Family.TRIGGER and self.guess:
            return {**_of_sample(asked(node.sample, None), self.graph.outputs[id_].values()), **own}
        return own

    def _of_loop(self, id_: str, items: Shape) -> dict[str, Shape]:
        return {"item": items.items, "done": list_of() if self.routes.results[id_] else items}

    def _give_back(self, id_: str) -> None:
        """What a repeated step gives to its loop is what comes out when the loop is left."""
        for loop in self.routes.gives_to[id_]:
            if "done" in self.leaving.get(loop, {}):
                given = [
                    self.leaving[edge.source].get(edge.source_port, ANY)
                    for edge in self.routes.results[loop]
                    if edge.source in self.leaving
                ]
                node = self.graph.nodes.get(loop)
                if isinstance(node, Loop) and asked(node.when_item_fails, "stop") == "continue":
                    given.append(NOTHING)
                rounds = isinstance(node, Loop) and node.rounds
                if rounds:
                    back = next(name for name, port in self.graph.inputs[loop].items() if port.back)
                    self.arriving[loop][back] = one_of(*given)
                self.leaving[loop]["done"] = one_of(*given) if rounds else list_of(one_of(*given))


def _of_sample(sample: Any, ports: Iterable[Port]) -> dict[str, Shape]:
    """The shapes of what a trigger gives, by its sample: port by port, or all of it by the only port."""
    ports = [port for port in ports if port.name != "error"]
    if isinstance(sample, dict) and any(port.name in sample for port in ports):
        given = {port.name: sample[port.name] for port in ports if port.name in sample}
    elif len(ports) == 1 and sample is not None:
        given = {ports[0].name: sample}
    else:
        return {}
    # An empty record in a sample stands for any record: the query of a call, its headers.
    return {
        name: _LOOSE if value == {} or name == "headers" else shape_of(value)
        for name, value in given.items()
        if value is not None
    }


def _together(by_type: Shape, said: Shape) -> Shape:
    """What a node type says of a port, unless it is less than the port's type says."""
    if said.kind == "any":
        return by_type
    return replace(said, item=said.item or ANY) if said.kind == "list" else said
