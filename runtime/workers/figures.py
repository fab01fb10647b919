"""What a pool counts: jobs, those that found a worker at once, those that did not, and how long starts take."""

from __future__ import annotations

from collections import deque
from typing import Final

SUPPOSED: Final = 0.4  # seconds that a start takes, until some have been seen
KEPT: Final = 200


class Figures:
    """Counted since the start; of the starts the last ones."""

    def __init__(self) -> None:
        self.jobs = 0
        self.lost = 0
        self.restarts = 0
        self.hits = 0
        self.cold = 0
        self.woken = 0
        self.queued = 0
        self.refused = 0
        """Results that came from workers that had been given up."""
        self._starts: deque[float] = deque(maxlen=KEPT)
        self._sorted: list[float] | None = None

    def missed(self, start: str) -> None:
        """A job had to wait for its worker, for this reason."""
        if start == "cold":
            self.cold += 1
        elif start == "woken":
            self.woken += 1
        else:
            self.queued += 1

    def started(self, seconds: float) -> None:
        """A worker came from nothing, or from its sleep, to READY."""
        self._starts.append(seconds)
        self._sorted = None

    def hit_rate(self) -> float:
        """The share of jobs that found a worker at once; 1 before the first."""
        wanted = self.hits + self.cold + self.woken + self.queued
        return self.hits / wanted if wanted else 1.0

    def start_seconds(self) -> float:
        """About how long a start takes at worst."""
        return self._at(0.95) if self._starts else SUPPOSED

    def starts(self) -> tuple[float | None, float | None]:
        """The median and the 95th percentile of the last starts, in milliseconds."""
        if not self._starts:
            return None, None
        return self._at(0.5) * 1000, self._at(0.95) * 1000

    def _at(self, share: float) -> float:
        if self._sorted is None:
            self._sorted = sorted(self._starts)
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]
