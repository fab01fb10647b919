"""The life of a worker, as a table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    PROVISIONING = "provisioning"
    WARMING = "warming"
    READY = "ready"
    BUSY = "busy"
    HIBERNATING = "hibernating"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    GONE = "gone"


STARTING: Final = frozenset({WorkerState.PROVISIONING, WorkerState.WARMING})
AT_WORK: Final = frozenset({WorkerState.READY, WorkerState.BUSY})
ENDING: Final = frozenset({WorkerState.UNHEALTHY, WorkerState.DRAINING, WorkerState.GONE})
OVER: Final = frozenset({WorkerState.DRAINING, WorkerState.GONE})
_ENDING = frozenset({WorkerState.UNHEALTHY, WorkerState.DRAINING})

WORKER: Final[Mapping[WorkerState, frozenset[WorkerState]]] = {
    WorkerState.PROVISIONING: _ENDING | {WorkerState.WARMING},
    WorkerState.WARMING: _ENDING | {WorkerState.READY},
    WorkerState.READY: _ENDING | {WorkerState.BUSY, WorkerState.HIBERNATING},
    WorkerState.BUSY: _ENDING | {WorkerState.READY},
    WorkerState.HIBERNATING: _ENDING | {WorkerState.WARMING},
    WorkerState.UNHEALTHY: frozenset({WorkerState.PROVISIONING, WorkerState.DRAINING}),
    WorkerState.DRAINING: frozenset({WorkerState.GONE}),
    WorkerState.GONE: frozenset(),
}


class HostState(StrEnum):
    """How an engine is."""

    UP = "up"
    DRAINING = "draining"
    AWAY = "away"
    LOST = "lost"
