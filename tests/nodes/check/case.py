"""Two drawings that differ in what a finding is about."""

from dataclasses import dataclass
from typing import Any

from nodes.blueprint import Blueprint
from nodes.check import Surroundings


@dataclass(frozen=True)
class Case:
    """Two drawings that differ in what the finding is about."""

    code: str
    severity: str
    tier: str
    node: str
    bad: Blueprint
    good: Blueprint
    around: Surroundings | None = None
    words: str = ""
    """Part of the sentence."""


def off(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0], given[1] if len(given) > 1 else {}, {"disabled": True})


def named(given: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    return (given[0], given[1] if len(given) > 1 else {}, {"name": name})
