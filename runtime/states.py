"""Every life cycle as a table, and the one function that moves along it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from nodes.errors import FactoryError

S = TypeVar("S", bound=StrEnum)


class ForbiddenMove(FactoryError):
    """A state cannot follow another; the message names what can."""

    code = "state.forbidden"
    status = 409


class RunState(StrEnum):
    """The life of a run."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """The life of a step."""

    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    IN_DOUBT = "in doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class DeploymentState(StrEnum):
    """The life of a deployment."""

    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"


class ApprovalState(StrEnum):
    """The life of an approval."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


RUN: Final[Mapping[RunState, frozenset[RunState]]] = {
    RunState.ACCEPTED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.RUNNING: frozenset({RunState.WAITING, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
    RunState.WAITING: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

STEP: Final[Mapping[StepState, frozenset[StepState]]] = {
    StepState.RUNNING: frozenset(set(StepState) - {StepState.RUNNING, StepState.SKIPPED}),
    StepState.WAITING: frozenset({StepState.RUNNING, StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED}),
    StepState.RETRYING: frozenset({StepState.RUNNING, StepState.FAILED, StepState.CANCELLED}),
    StepState.IN_DOUBT: frozenset({StepState.RUNNING, StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED}),
    StepState.SUCCEEDED: frozenset(),
    StepState.FAILED: frozenset(),
    StepState.SKIPPED: frozenset(),
    StepState.CANCELLED: frozenset(),
}

DEPLOYMENT: Final[Mapping[DeploymentState, frozenset[DeploymentState]]] = {
    DeploymentState.ACTIVE: frozenset({DeploymentState.PAUSED, DeploymentState.STOPPED}),
    DeploymentState.PAUSED: frozenset({DeploymentState.ACTIVE, DeploymentState.STOPPED}),
    DeploymentState.STOPPED: frozenset(),
}

APPROVAL: Final[Mapping[ApprovalState, frozenset[ApprovalState]]] = {
    ApprovalState.PENDING: frozenset(set(ApprovalState) - {ApprovalState.PENDING}),
    ApprovalState.APPROVED: frozenset(),
    ApprovalState.REJECTED: frozenset(),
    ApprovalState.EXPIRED: frozenset(),
    ApprovalState.CANCELLED: frozenset(),
}


def ends(table: Mapping[S, frozenset[S]]) -> frozenset[S]:
    """The states that nothing follows."""
    return frozenset(state for state, after in table.items() if not after)


def move(table: Mapping[S, frozenset[S]], now: S, to: S) -> S:
    """Go from one state to another. Raises ForbiddenMove, which names what is allowed."""
    allowed = table[now]
    if to not in allowed:
        can = ", ".join(sorted(allowed)) or "nothing: it has ended"
        raise ForbiddenMove(f"What is {now} cannot become {to}; it can become {can}.")
    return to
