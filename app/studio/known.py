"""What the formulas of a step can use: names, the shape of their values, and a sample of each to pick from and try with.

The sample is what really arrived in the last test; before any test it is made from the trigger's sample and from shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from nodes.base import SKIP, Family, Loop, Node, Out
from nodes.blueprint import Blueprint, Placed
from nodes.catalog import BadSettings, Catalog, UnknownNode
from nodes.check.findings import Surroundings
from nodes.check.reading import Reading
from nodes.check.scopes import Scopes
from nodes.formula.conditions import quoted
from nodes.graph import Graph
from nodes.shape import ANY, Shape, record, shape_of
from runtime.views import StepView

RESERVED: Final = ("input", "steps", "vars", "run", "item", "index")
DEEPEST: Final = 4
MOST_PATHS: Final = 300
_SAMPLES: Final[Mapping[str, Any]] = {
    "text": "text",
    "number": 1,
    "yes/no": True,
    "moment": "2026-03-02T09:00:00+00:00",
    "nothing": None,
    "any": None,
}


@dataclass(frozen=True, slots=True)
class Known:
    """The names of one step. `real` says that the sample came from a test run."""

    sample: dict[str, Any] = field(default_factory=dict)
    shape: Shape = field(default_factory=lambda: record(open=True))
    main: Any = None
    real: bool = False
    arriving: Mapping[str, Shape] = field(default_factory=dict)

    def within(self, node: Node | None, kind: str) -> Known:
        """The same for one setting (`cases.condition`), where an `item` or more may be known besides."""
        if node is None:
            return self
        try:
            shape = node.known_in(kind, self.shape, self.arriving)
        except Exception:  # node types come from other packages too, and a picker must never break the form
            return self
        if shape is self.shape:
            return self
        sample = dict(self.sample)
        given = (
            self.main
            if isinstance(self.main, list)
            else next(
                (value for name, value in self.sample.items() if name in self.arriving and isinstance(value, list)),
                None,
            )
        )
        member = given[0] if given else None
        if "item" in shape.fields:
            sample["item"] = member if member is not None else example(shape.fields["item"])
            sample["index"] = 0
            if isinstance(sample["item"], dict):
                sample |= {name: value for name, value in sample["item"].items() if name not in RESERVED}
        for name, inside in shape.fields.items():
            sample.setdefault(name, example(inside))
        return Known(sample, shape, self.main, self.real, self.arriving)

    def paths(self) -> list[tuple[str, Any]]:
        """Every path that a person may choose, with its sample, nearest first."""
        found: list[tuple[str, Any]] = []
        for name, value in self.sample.items():
            if name not in ("steps", "run", "vars", "input"):
                _walk(found, identifier(name), value, 1)
        for name in ("input", "vars", "steps"):
            if name in self.sample:
                _walk(found, name, self.sample[name], 1 if name == "input" else 0)
        return found[:MOST_PATHS]


def known_at(
    blueprint: Blueprint,
    types: Catalog,
    node: str,
    steps: Mapping[str, StepView] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Known:
    """What is known at a node. `steps` are those of the last test, `variables` what the environment sets."""
    scopes = Reading(blueprint, types, Surroundings(variables=variables or {})).expected
    graph = scopes.graph
    if node not in scopes.arriving:
        return Known()
    samples = _Samples(scopes)
    seen = steps.get(node) if steps else None
    real = seen is not None and not _is_trigger(graph, node)
    ports = {name: samples.of(shape, name) for name, shape in scopes.arriving[node].items()}
    first = next(iter(graph.inputs[node]), "")
    if seen is not None and real:
        ports |= _arrived(seen.input, list(graph.inputs[node]), first)
    main = ports.get(first)
    shape = scopes.known(node)
    if isinstance(main, dict) and (real or shape.open):
        found = shape_of(main).fields
        optional = shape.optional | {name for name in found if name not in shape.fields}
        shape = record({**found, **shape.fields}, optional=optional, open=shape.open)
    routes = scopes.routes
    sample = {**ports, **(main if isinstance(main, dict) else {})}
    if around := [loop for loop in graph.loops_around(node) if loop not in graph.agents.heads]:
        item = _loop_item(samples, scopes.leaving[around[0]].get("item", ANY), around[0], steps)
        sample |= {"item": item, "index": 0}
    if tool := scopes.tool_around(node):
        sample["args"] = example(scopes.arguments(tool).shape())
    sample |= {
        "input": main,
        "vars": {name: example(part) for name, part in scopes.variables(node).fields.items()}
        | {variable.name: variable.value for variable in blueprint.variables}
        | dict(variables or {}),
        "steps": {
            scopes.keys[id_]: _outputs(samples, scopes, id_, steps) for id_ in routes.ids(routes.before.get(node, 0))
        },
        "run": {"id": "run_…", "started_at": 0.0, "sandbox": True, "agent": blueprint.name, "environment": "live"},
    }
    return Known(sample, shape, main, real, scopes.arriving[node])


def as_it_is(placed: Placed, types: Catalog) -> Node | None:
    """The node also when its settings are unfinished, to ask what its formulas know: that must not wait for a whole form."""
    try:
        return types.build(placed)
    except BadSettings:
        cls = types.get(placed.type)
        typed: dict[str, Any] = {name: value for name, value in placed.settings.items() if name in cls.model_fields}
        return cls.model_construct(**typed)
    except UnknownNode:
        return None


def outputs_of(step: StepView | None) -> dict[str, Any] | None:
    """What a step gave by its ports, when it did."""
    return step.output if step is not None and isinstance(step.output, dict) and step.state == "succeeded" else None


def identifier(name: str) -> str:
    """A top-level name as a formula writes it."""
    return name if name.isidentifier() else f"input[{quoted(name)}]"


def join(path: str, key: str | int) -> str:
    """A path with one more step."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{quoted(key)}]"


def example(shape: Shape) -> Any:
    """A believable value of a shape."""
    match shape.kind:
        case "record":
            return {name: example(part) for name, part in shape.fields.items()}
        case "list":
            return [example(shape.items)] if shape.items.kind != "any" else []
        case "one of":
            return example(next((option for option in shape.options if option.kind != "nothing"), ANY))
    return _SAMPLES.get(shape.kind)


# --- samples ----------------------------------------------------------------------------------------------------------


class _Samples:
    """Samples by shape: nodes pass the shapes of records on as they are, so the sample of one goes where its shape goes.

    Plain shapes are the same object everywhere; for them a field of the same name and kind is the best guess.
    """

    def __init__(self, scopes: Scopes) -> None:
        self._by_shape: dict[int, Any] = {}
        self._by_name: dict[tuple[str, str], Any] = {}
        self._scopes = scopes  # ids of shapes are only good while the shapes live
        for id_, node in scopes.graph.nodes.items():
            if node.family is Family.TRIGGER:
                for port, value in _begun(node).items():
                    self._note(scopes.leaving[id_].get(port, ANY), value, port)

    def of(self, shape: Shape, name: str = "") -> Any:
        if id(shape) in self._by_shape:
            return self._by_shape[id(shape)]
        if shape.kind == "record":
            return {key: self.of(part, key) for key, part in shape.fields.items()}
        if shape.kind == "list" and shape.items.kind != "any":
            return [self.of(shape.items, name)]
        known = self._by_name.get((name, shape.kind))
        return example(shape) if known is None else known

    def node(self, id_: str) -> Node | None:
        """The node type of a step with its settings."""
        return self._scopes.graph.nodes.get(id_)

    def _note(self, shape: Shape, value: Any, name: str) -> None:
        if isinstance(value, dict | list):
            if shape is not ANY:
                self._by_shape.setdefault(id(shape), value)
        else:
            self._by_name.setdefault((name, shape.kind), value)
        if shape.kind == "record" and isinstance(value, dict):
            for key, part in shape.fields.items():
                if key in value:
                    self._note(part, value[key], key)
        elif shape.kind == "list" and isinstance(value, list) and value:
            self._note(shape.items, value[0], name)


class _Now:
    """As much of a context as a trigger needs to say what it would give."""

    time_zone = "UTC"

    def now(self) -> datetime:
        return datetime.now(UTC)

    def log(self, message: str, **data: Any) -> None:
        return None


def _begun(node: Node) -> dict[str, Any]:
    """What a trigger gives for its own sample."""
    try:
        working = node.run(_Now(), event=node.sample())
        working.send(None)
    except StopIteration as done:
        out = done.value
        given = vars(out) if isinstance(out, Out) else dict(out) if isinstance(out, Mapping) else {}
        return {name: value for name, value in given.items() if value is not SKIP}
    except Exception:  # a sample that cannot be made is no reason to show no form
        return {}
    working.close()
    return {}


# --- real data ---------------------------------------------------------------------------------------------------------


def _is_trigger(graph: Graph, id_: str) -> bool:
    node = graph.nodes.get(id_)
    return node is not None and node.family is Family.TRIGGER


def _arrived(value: Any, ports: list[str], first: str) -> dict[str, Any]:
    """The values by port: a step with one input shows just the value, one with several shows them by name."""
    if len(ports) > 1 and isinstance(value, dict) and value and set(value) <= set(ports):
        return dict(value)
    return {first: value} if first else {}


def _outputs(samples: _Samples, scopes: Scopes, id_: str, steps: Mapping[str, StepView] | None) -> dict[str, Any]:
    real = outputs_of(steps.get(id_)) if steps else None
    return real if real is not None else {name: samples.of(shape, name) for name, shape in scopes.leaving[id_].items()}


def _loop_item(samples: _Samples, shape: Shape, loop: str, steps: Mapping[str, StepView] | None) -> Any:
    given = steps[loop].input if steps and loop in steps else None
    node = samples.node(loop)
    if isinstance(node, Loop) and node.rounds:
        return samples.of(shape) if given is None else given
    if isinstance(given, dict):
        given = given.get("items")
    return given[0] if isinstance(given, list) and given else samples.of(shape)


def _walk(found: list[tuple[str, Any]], path: str, value: Any, depth: int) -> None:
    if depth > 0:
        found.append((path, value))
    if len(found) > MOST_PATHS or depth >= DEEPEST:
        return
    for key, inside in children(value):
        _walk(found, join(path, key), inside, depth + 1)


def children(value: Any) -> Iterator[tuple[str | int, Any]]:
    """The fields of a record, or the first item of a list."""
    if isinstance(value, dict):
        yield from ((str(key), inside) for key, inside in list(value.items())[:100])
    elif isinstance(value, list) and value:
        yield 0, value[0]
