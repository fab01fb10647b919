"""What the pages say of agents, steps and their promises, in words for people who do not program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from app.pieces import duration
from nodes.base import Effect, Node
from nodes.blueprint import Blueprint, Placed
from nodes.catalog import BadSettings, Catalog
from runtime.ledger import Cost
from runtime.limits import in_dollars

STUDIO = "/studio/"
RUN_STATES = {
    "accepted": "Accepted",
    "running": "Running",
    "waiting": "Waiting",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
ENDED = frozenset({"succeeded", "failed", "cancelled"})


def studio(blueprint_id: str) -> str:
    """Where an agent is drawn."""
    return STUDIO + blueprint_id


def durability(node: type[Node] | Node) -> str:
    """What a step promises when the server stops in the middle of it."""
    effect = node.effect_here() if isinstance(node, Node) else node.effect
    if effect <= Effect.E1:
        return "May repeat after a crash. That is safe: it only reads and computes."
    if effect is Effect.E2:
        return "Once: a repeat after a crash is recognised and has no second effect."
    if node.keyed:
        return "Once, if the receiver honours our key: a repeat after a crash carries the same one."
    if effect is Effect.E3:
        return "May repeat after a crash: the receiver cannot tell a repeat from a new one."
    return "Asks a person after a crash, when nobody can know whether it happened."


def trigger_words(document: Blueprint, types: Catalog, node: str) -> str:
    """What a run began with: the step's own name, or what kind of trigger it is."""
    placed = document.node(node)
    return step_name(placed, types) if placed else "Trigger"


def step_name(placed: Placed, types: Catalog) -> str:
    """What a step is called on the canvas."""
    return placed.name or (types.get(placed.type).title if placed.type in types else placed.type)


def step_words(placed: Placed, types: Catalog) -> str:
    """What a step is set to do, in one line; its type's summary when it does not say."""
    if placed.type not in types:
        return "is not installed here"
    cls = types.get(placed.type)
    summary = (cls.__doc__ or cls.title).strip().partition("\n")[0]
    try:
        return types.build(placed).describe() or summary
    except BadSettings:
        return summary


def icon_of(type_: str, types: Catalog) -> str:
    """The icon of a node type."""
    return types.get(type_).icon if type_ in types else "help"


def family_of(type_: str) -> str:
    """The family of a node type, which decides its colour."""
    family = type_.partition(".")[0]
    return family if family in ("trigger", "context", "action", "validation", "flow") else "flow"


def count(number: int, noun: str, plural: str = "") -> str:
    """“1 run”, “2 runs”."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def cost_words(cost: Cost | None) -> str:
    """What models cost: “$0.42 for models”, also where the price of some answers is not known; empty when none was asked."""
    if cost is None:
        return ""
    if not cost.unpriced:
        return f"{in_dollars(cost.spent)} for models"
    known = f"{in_dollars(cost.spent)} for models, and " if cost.spent else ""
    return f"{known}{count(cost.unpriced, 'answer')} of unknown price"


def listed(words: Sequence[str], most: int = 3) -> str:
    """“a, b and c”, “a, b and 4 more”."""
    shown = list(words[:most]) if len(words) > most else list(words)
    if len(words) > most:
        shown.append(f"{len(words) - most} more")
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def spoken(text: str) -> str:
    """A sentence with its names in quotation marks, as people write them, instead of the signs of programmers."""
    return re.sub(r"`([^`]*)`", r"“\1”", text).strip()


def error_words(error: dict[str, Any] | None) -> str:
    """The sentence of an error record."""
    return spoken(str((error or {}).get("message") or ""))


def took(seconds: float | None) -> str:
    """A length of time, also of what took next to none."""
    return "< 1 ms" if seconds is not None and seconds < 0.0005 else duration(seconds)


def last_line(text: str) -> str:
    """The last line of a text that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def size_words(size: int) -> str:
    """A number of bytes as people say it."""
    if size < 1000:
        return f"{size} bytes"
    if size < 1_000_000:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1_000_000:.1f} MB"
