"""What people and pages see of the fleet: plain values, copied at one moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from runtime.workers.states import WorkerState


@dataclass(frozen=True, slots=True)
class Vital:
    """The vital figures of a worker, as its last heartbeat told. `cpu` is in processors (0.5 = half of one), memory in bytes."""

    cpu: float
    memory: int
    processes: int
    at: float
    disk: int = 0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker. `since` is when it came into its state; times are epoch seconds."""

    id: str
    profile: str
    host: str
    state: WorkerState
    tenant: str | None
    crew: str | None
    member: str | None
    since: float
    jobs: int
    restarts: int
    vital: Vital | None


@dataclass(frozen=True, slots=True)
class PoolView:
    """The workers of one profile. `hit_rate` is the share of jobs that found a warm worker at once; `demand` is jobs a second.

    `starts_p50` and `starts_p95` are milliseconds from nothing to READY, None before the first start.
    """

    profile: str
    target: int
    floor: int
    ceiling: int
    ready: int
    busy: int
    held: int
    starting: int
    hibernating: int
    waiting: int
    jobs: int
    lost: int
    cold: int
    hit_rate: float
    demand: float
    expected: int
    starts_p50: float | None
    starts_p95: float | None
    problem: str | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class HostView:
    """One engine that workers run on. Memory in bytes; `reserved_*` is what its workers may use at most."""

    name: str
    url: str
    state: str
    cpus: float
    memory: int
    reserved_cpus: float
    reserved_memory: int
    workers: int = 0


@dataclass(frozen=True, slots=True)
class FleetView:
    """Everything at one moment. `problem` says why there are no workers, if there are none."""

    workers: tuple[WorkerView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    hosts: tuple[HostView, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A worker went from one state to another; its first move comes from nothing."""

    worker: str
    profile: str
    host: str
    before: WorkerState | None
    after: WorkerState
    tenant: str | None
    crew: str | None
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job that a worker had. `ended` is None while it runs, `how` then empty; else `ok` or the kind of its error."""

    id: str
    began: float
    ended: float | None
    how: str


Observer: TypeAlias = Callable[[Moved], None]
Forget: TypeAlias = Callable[[], None]
