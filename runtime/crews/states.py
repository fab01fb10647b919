"""The lives of a crew and of a member, as tables, and what people see of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from runtime.fleet import Vital


class CrewState(StrEnum):
    """The life of a crew."""

    ASSEMBLING = "assembling"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


class MemberState(StrEnum):
    """The life of a member."""

    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


_OVER: Final = frozenset({CrewState.FINISHED, CrewState.FAILED, CrewState.STOPPED})
CREW: Final[Mapping[CrewState, frozenset[CrewState]]] = {
    CrewState.ASSEMBLING: frozenset({CrewState.RUNNING, CrewState.FAILED, CrewState.STOPPED}),
    CrewState.RUNNING: _OVER | {CrewState.PAUSED, CrewState.ASSEMBLING},
    CrewState.PAUSED: _OVER | {CrewState.RUNNING, CrewState.ASSEMBLING},
    CrewState.FINISHED: frozenset(),
    CrewState.FAILED: frozenset(),
    CrewState.STOPPED: frozenset(),
}
ENDED: Final = frozenset({MemberState.DONE, MemberState.FAILED, MemberState.STOPPED})
MEMBER: Final[Mapping[MemberState, frozenset[MemberState]]] = {
    MemberState.STARTING: frozenset({MemberState.RUNNING, MemberState.FAILED, MemberState.STOPPED}),
    MemberState.RUNNING: ENDED | {MemberState.STARTING},
    MemberState.DONE: frozenset(),
    MemberState.FAILED: frozenset(),
    MemberState.STOPPED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member. `worker_state` and `vital` are its worker's, while it has one; `result` is what it came to."""

    id: str
    role: str
    kind: str
    tier: str
    state: str
    why: str
    since: float
    restarts: int
    worker: str | None
    worker_state: str | None
    vital: Vital | None
    run_id: str | None
    result: Any


@dataclass(frozen=True, slots=True)
class Said:
    """How many messages went from one member to another."""

    source: str
    target: str
    count: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What of its budgets a crew has used."""

    seconds: float
    messages: int
    calls: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CrewFigures:
    """All crews of this server together, whoever has them. `ended` and `messages` count since its start."""

    at_work: Mapping[str, int]
    members: Mapping[str, int]
    ended: Mapping[str, int]
    messages: int


@dataclass(frozen=True, slots=True)
class CrewView:
    """A crew at one moment. `health` is ok, degraded or down while it lives, and empty after that."""

    id: str
    name: str
    state: str
    health: str
    why: str
    by: str
    created_at: float
    ended_at: float | None
    epoch: int
    bus: str
    members: tuple[MemberView, ...]
    said: tuple[Said, ...]
    spent: Spent
    budgets: Mapping[str, int]
    network: tuple[str, ...]


def health_of(state: str, members: tuple[MemberView, ...]) -> str:
    """One word for a crew that lives: down when nobody is at work who should be, degraded when somebody is missing."""
    if state in _OVER:
        return ""
    at_work = [member for member in members if member.state == MemberState.RUNNING]
    missing = [member for member in members if member.state in (MemberState.FAILED, MemberState.STARTING)]
    sick = [member for member in at_work if member.worker_state in ("unhealthy", "gone")]
    if state == CrewState.ASSEMBLING or not (missing or sick):
        return "ok"
    return "degraded" if len(at_work) > len(sick) else "down"
