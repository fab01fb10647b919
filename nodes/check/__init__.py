"""The checks: everything that can be said about a blueprint before it runs, in plain words and with a fix."""

from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.check.findings import Finding, Findings, Surroundings, in_order
from nodes.graph import read_graph


def check(blueprint: Blueprint, types: Catalog, around: Surroundings | None = None) -> list[Finding]:
    """All findings, errors first, always in the same order. Never raises."""
    graph = read_graph(blueprint, types)
    findings = Findings("structure")
    for problem in graph.problems:
        findings.add(
            "error",
            problem.code,
            problem.sentence,
            problem.fix,
            node=problem.node,
            field=problem.field,
            edge=problem.edge,
        )
    return in_order(findings.found, {node.id: place for place, node in enumerate(blueprint.nodes)})


__all__ = ["Finding", "Surroundings", "check"]
