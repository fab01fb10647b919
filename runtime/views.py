"""What the services hand to screens and clients: frozen pictures of rows, never the rows themselves."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nodes.blueprint import Blueprint

Mode = Literal["live", "sandbox"]


@dataclass(frozen=True, slots=True)
class BlueprintInfo:
    """One agent as the home page lists it. Times are epoch seconds UTC."""

    id: str
    name: str
    description: str
    revision: int
    updated_at: float
    updated_by: str
    deployment: Literal["none", "active", "paused"] = "none"
    deployed_version: int | None = None
    triggers: tuple[str, ...] = ()
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """The one mutable state of a blueprint; `revision` goes up by one at every saved gesture."""

    id: str
    blueprint: Blueprint
    revision: int
    updated_at: float
    updated_by: str


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """An immutable numbered snapshot."""

    blueprint_id: str
    number: int
    content_hash: str
    note: str
    created_at: float
    created_by: str
    blueprint: Blueprint | None = None


@dataclass(frozen=True, slots=True)
class DeploymentInfo:
    """A version in use in an environment. `addresses` are what the outside calls, `schedules` are read back in words."""

    id: str
    blueprint_id: str
    blueprint_name: str
    version: int
    previous: int | None
    state: Literal["active", "paused", "stopped"]
    deployed_at: float
    deployed_by: str
    addresses: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    """What else starts it inside the product, in words."""
    environment: str = "live"
    hold: bool = False
    """While paused: calls are kept for later instead of being refused."""
    clocks: bool = True
    """Whether its schedules run."""
    waiver: str = ""
    """Why it was deployed although a case failed."""
    held: int = 0
    """Calls that wait for it to go on."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One execution as lists show it. `state` is a RunState value; `seconds` is None while it goes on."""

    id: str
    blueprint_id: str
    blueprint_name: str
    version: int | None
    trigger: str
    state: str
    started_at: float
    finished_at: float | None
    error: dict[str, Any] | None = None
    needs_attention: bool = False
    """Whether it failed for good and nobody has dealt with it."""
    environment: str = "live"

    @property
    def seconds(self) -> float | None:
        return None if self.finished_at is None else self.finished_at - self.started_at


@dataclass(slots=True)
class StepView:
    """One node's execution in a run, as the timeline shows it; grows while facts arrive."""

    node: str
    name: str
    type: str
    iteration: str
    attempt: int
    state: str
    started_at: float
    finished_at: float | None = None
    input: Any = None
    output: Any = None
    error: dict[str, Any] | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    turn: int = 0
    """Of an agent's tool: the turn in which the model used it."""
    note: str = ""
    """A sentence about it: “would post to #support: …”, “waits for a decision”, “used the pinned value”."""

    from_run: str = ""
    """The run that gave this result, when it was taken over."""

    @property
    def seconds(self) -> float | None:
        return None if self.finished_at is None else self.finished_at - self.started_at


@dataclass(slots=True)
class RunView:
    """A run with its steps in the order they began, its input and its output."""

    info: RunInfo
    input: Any
    output: Any
    steps: list[StepView]
    blueprint: Blueprint
    effects: list[str] = field(default_factory=list)
    """Sandbox only: what would have been done outside, in sentences."""
    fork: dict[str, Any] | None = None
    """For a run that goes on from a former one: `run`, and `start`, the step or place it began at."""


@dataclass(frozen=True, slots=True)
class ApprovalInfo:
    """Something that waits for, or got, a person's decision."""

    id: str
    run_id: str
    node: str
    blueprint_id: str
    blueprint_name: str
    title: str
    details: Any
    choices: tuple[str, ...]
    state: Literal["pending", "approved", "rejected", "expired", "cancelled"]
    created_at: float
    expires_at: float | None
    decided_by: str = ""
    decided_at: float | None = None
    note: str = ""
