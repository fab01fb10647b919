"""What the canvas shows of a placed node: its ports with these settings and the line that says what it is set to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from nodes.agents import TOOL_PORT, may_be_tool
from nodes.base import Port, PortType, fits
from nodes.blueprint import Edge, Placed
from nodes.catalog import BadSettings, Catalog, describe, port_json, ports_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Face:
    """Ports and line of one placed node. `known` is false for a type that is not installed here."""

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    line: str = ""
    known: bool = True

    def input(self, name: str) -> Port | None:
        """The input port of that name."""
        return next((port for port in self.inputs if port.name == name), None)

    def output(self, name: str) -> Port | None:
        """The output port of that name."""
        return next((port for port in self.outputs if port.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """As browsers draw it."""
        return {
            "inputs": [port_json(port) for port in self.inputs],
            "outputs": [port_json(port) for port in self.outputs],
            "line": self.line,
            "known": self.known,
        }


def face_of(placed: Placed, types: Catalog) -> Face:
    """The face of a placed node; a node type's own failure to describe itself never takes the canvas down."""
    if placed.type not in types:
        return Face(known=False)
    try:
        inputs, outputs = ports_of(placed, types)
    except Exception as error:  # node types come from other packages too
        log.warning("ports could not be read", type=placed.type, error=repr(error))
        return Face()
    try:
        line = " ".join(types.build(placed).describe().split())[:140]
    except BadSettings:
        line = ""
    except Exception as error:  # as above
        log.warning("node could not describe itself", type=placed.type, error=repr(error))
        line = ""
    return Face(inputs, outputs, line)


def kinds(types: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The node types as palette and canvas need them, by type."""
    shown = ("type", "family", "title", "icon", "summary", "words", "inputs", "outputs")
    found = {}
    for cls in types:
        said = describe(cls)
        found[said["type"]] = {key: said[key] for key in shown}
        if may_be_tool(cls):
            found[said["type"]]["outputs"] = [*said["outputs"], port_json(TOOL_PORT)]
    return found


def fitting() -> dict[str, list[str]]:
    """For each type of output port the types of input port that take it: the one table, as browsers ask it."""
    return {source.value: [target.value for target in PortType if fits(source, target)] for source in PortType}


def misfit(edge: Edge, source: Face, target: Face, names: tuple[str, str]) -> str | None:
    """Why an edge does not fit its two ends, as a sentence; None when it does, or when it cannot be known."""
    before, after = names
    out = source.output(edge.source_port) if source.known else None
    into = target.input(edge.target_port) if target.known else None
    if source.known and out is None:
        return f"“{before}” has no output “{edge.source_port}” with its present settings."
    if target.known and into is None:
        return f"“{after}” has no input “{edge.target_port}” with its present settings."
    if out is not None and into is not None and not fits(out.type, into.type):
        return f"“{out.label}” of “{before}” gives {out.type.value}, and “{into.label}” of “{after}” takes {into.type.value}."
    return None
