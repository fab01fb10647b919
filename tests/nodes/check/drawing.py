"""Blueprints in a few lines: nodes as `id: type settings`, connections as `a.out > b.in`."""

from typing import Any

from app.canvas.graph import Graph
from app.canvas.operations import read_batch
from nodes.base import Context, Effect, Family, Node, Value
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from nodes.check import Finding, Surroundings, check


class Pair(Node):
    """Needs two values."""

    type, family, title, effect = "flow.pair", Family.FLOW, "Pair", Effect.E0

    async def run(self, ctx: Context, left: Any, right: Any) -> Value:
        return Value([left, right])


TYPES = Catalog([*catalog(), Pair])


def draw(nodes: dict[str, tuple[Any, ...]], edges: str = "", **more: Any) -> Blueprint:
    """`nodes` maps ids to (type, settings, more fields of the placed node); `edges` has one connection a line or comma."""
    placed = [
        {"id": id_, "type": given[0], "settings": given[1] if len(given) > 1 else {}, **(given[2] if len(given) > 2 else {})}
        for id_, given in nodes.items()
    ]  # fmt: skip
    wires = []
    for number, line in enumerate(part.strip() for part in edges.replace("\n", ",").split(",") if part.strip()):
        source, _, target = line.partition(" > ")
        wires.append(
            {
                "id": f"e{number}",
                "source": source.split(".")[0],
                "source_port": source.split(".")[1],
                "target": target.split(".")[0],
                "target_port": target.split(".")[1],
            }
        )
    return Blueprint.parse({"nodes": placed, "edges": wires, **more})


def codes(blueprint: Blueprint, around: Surroundings | None = None) -> list[str]:
    """The codes of all findings."""
    return [finding.code for finding in check(blueprint, TYPES, around)]


def found(blueprint: Blueprint, code: str, around: Surroundings | None = None) -> Finding:
    """The first finding with that code."""
    findings = check(blueprint, TYPES, around)
    for finding in findings:
        if finding.code == code:
            return finding
    raise AssertionError(f"{code} is not among {[finding.code for finding in findings]}")


def repaired(blueprint: Blueprint, finding: Finding) -> Blueprint:
    """The document after the finding's own repair, done as the canvas does it."""
    graph = Graph.of(blueprint, TYPES)
    for operation in read_batch([dict(one) for one in finding.repair]):
        for one in graph.expanded(operation):
            graph.apply(one)
    return graph.blueprint()
