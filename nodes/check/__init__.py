"""The checks: everything that can be said about a blueprint before it runs, in plain words and with a fix.

Four tiers read the same document: structure (does it hang together), security (can it be misused), performance (how long
does it take), business (does it do what somebody who draws it so most likely wants).
"""

from nodes.base import Node
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.check.business import read_business
from nodes.check.findings import Finding, Findings, Severity, Surroundings, Tier, asked, in_order
from nodes.check.performance import forecast, in_words, read_performance
from nodes.check.policies import read_policies
from nodes.check.reading import Reading
from nodes.check.security import read_security
from nodes.check.structure import read_structure
from nodes.shape import Shape, record


def check(blueprint: Blueprint, types: Catalog, around: Surroundings | None = None) -> list[Finding]:
    """All findings, errors first, always in the same order. Never raises."""
    reading = Reading(blueprint, types, around)
    tiers = [Findings("structure"), Findings("security"), Findings("performance"), Findings("business")]
    for findings, read in zip(tiers, (read_structure, read_security, read_performance, read_business), strict=True):
        read(reading, findings)
    read_policies(reading, tiers[-1])
    return in_order((finding for tier in tiers for finding in tier.found), reading.routes.place)


def known_at(blueprint: Blueprint, types: Catalog, node: str, field: str = "") -> Shape:
    """The record of names that a formula in this node (in this setting) can use, for field pickers and suggestions."""
    scopes = Reading(blueprint, types, None).expected
    if node not in scopes.arriving:
        return record(open=True)
    known = scopes.known(node)
    made: Node | None = scopes.graph.nodes.get(node)
    return (
        known if made is None or not field else asked(lambda: made.known_in(field, known, scopes.arriving[node]), known)
    )


def forecast_seconds(blueprint: Blueprint, types: Catalog) -> float:
    """About how long a run takes; loops count as ten items, for nothing is known of their length."""
    return forecast(Reading(blueprint, types, None))[0]


__all__ = ["Finding", "Severity", "Surroundings", "Tier", "check", "forecast_seconds", "in_words", "known_at"]
