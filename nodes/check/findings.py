"""What a check says, and what it may know of the world around a blueprint."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from nodes.listen import CalledField

Tier = Literal["structure", "security", "performance", "business"]
Severity = Literal["error", "warning", "hint"]
Operation = Mapping[str, Any]

TIERS: Final[tuple[Tier, ...]] = ("structure", "security", "performance", "business")
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "hint")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a blueprint: an error keeps it from being deployed, a warning and a hint do not.

    `node`, `field` and `edge` are empty when it is about the whole agent. `path` are the nodes to draw as a way through the
    graph. `repair` are the canvas operations that put it right; empty when only a person can.
    """

    tier: Tier
    severity: Severity
    node: str
    field: str
    code: str
    sentence: str
    fix: str
    path: tuple[str, ...] = ()
    edge: str = ""
    repair: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a check may know of the tenant. What is None is not known, and nothing is said about it."""

    secrets: frozenset[str] = frozenset()
    """Those that have a value in the environment."""
    blueprints: frozenset[str] = frozenset()
    deployed: frozenset[str] | None = None
    own_id: str = ""
    files: frozenset[str] | None = None
    model_configured: bool | None = None
    mail_configured: bool | None = None
    environment: str = "live"
    elsewhere: frozenset[str] = frozenset()
    """Secrets that have a value in another environment only."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """What the environment sets, by name."""
    inputs: Mapping[str, tuple[CalledField, ...]] = field(default_factory=dict)
    """What agents say that they need when another agent calls them, by their id."""
    returns: Mapping[str, tuple[CalledField, ...]] = field(default_factory=dict)
    """What they say that they give back."""
    lacks_node: bool = False
    """Whether it is known that there is no Node.js to run JavaScript with."""


@dataclass(slots=True)
class Findings:
    """Collects what one tier has to say."""

    tier: Tier
    found: list[Finding] = field(default_factory=list)

    def add(
        self,
        severity: Severity,
        code: str,
        sentence: str,
        fix: str,
        *,
        node: str = "",
        field: str = "",
        path: Iterable[str] = (),
        edge: str = "",
        repair: Iterable[Operation] = (),
        tier: Tier | None = None,
    ) -> None:
        """Say something."""
        self.found.append(
            Finding(tier or self.tier, severity, node, field, code, sentence, fix, tuple(path), edge, tuple(repair))
        )


def in_order(found: Iterable[Finding], places: Mapping[str, int]) -> list[Finding]:
    """Errors first, then by place in the document; each thing once."""

    def key(finding: Finding) -> tuple[Any, ...]:
        return (
            SEVERITIES.index(finding.severity),
            places.get(finding.node, -1),
            TIERS.index(finding.tier),
            finding.code,
            finding.field,
            finding.edge,
            finding.sentence,
        )

    once = {key(finding): finding for finding in found}
    return [once[place] for place in sorted(once)]


def asked(question: Callable[[], T], otherwise: T) -> T:
    """What a node type answers; one from another package that fails at it is no reason to say nothing at all."""
    try:
        return question()
    except Exception:  # a check must hold for every node type, also for one with a mistake in it
        return otherwise


def listed(names: Iterable[str], joiner: str = "and") -> str:
    """Names in a sentence: “a”, “b” and “c”."""
    quoted = [f"“{name}”" for name in names]
    if len(quoted) > 5:
        quoted = [*quoted[:4], f"{len(quoted) - 4} more"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {joiner} {quoted[-1]}" if quoted else ""
