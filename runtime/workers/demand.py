"""How many workers will be wanted: a moving average of what came lately, and what is known to come.

Of jobs that come at a rate λ and take h seconds each, λh are at work at the same time on average, and with a probability of 99 %
no more than λh + 2.33 √(λh). What is known beforehand (a schedule, a test that was opened, steps ahead in a run) is added.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runtime.workers.views import Forget

QUICK: Final = 10.0  # seconds in which the quick average forgets: it follows a burst
SLOW: Final = 300.0  # and the slow one: it remembers a burst
SPELL: Final = 4.0  # seconds that a job takes a worker away, until it is known
MEASURED: Final = 30.0  # so many jobs are remembered for that, about
SUPPOSED: Final = 0.2  # what was supposed counts as so many of them
SURE: Final = 2.33
SPARE: Final = 3
MANY: Final = 1_000
STILL: Final = 0.003  # jobs a second; below that there is no demand


@dataclass(slots=True, eq=False)
class _Expected:
    key: str
    count: int
    begins: float
    ends: float
    begun: bool = False
    over: bool = False


class Demand:
    """What one pool learns of its jobs and hears of those to come. `now` is a clock that never goes back."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._quick = self._slow = 0.0
        self._at = now()
        self._spell = SPELL
        self._seen = 0.0
        self._peak = 0.0
        self._peak_at = self._at
        self._known: dict[str, _Expected] = {}
        self._begins: list[tuple[float, int, _Expected]] = []
        self._ends: list[tuple[float, int, _Expected]] = []
        self._order = itertools.count()
        self._active = 0

    # --- what was

    def arrived(self, key: str = "", at_work: int = 1) -> None:
        """A job wants a worker, as one of so many at this moment; it may be one that was expected under `key`."""
        self._fade()
        self._quick += 1 / QUICK
        self._slow += 1 / SLOW
        self._peak = max(self.peak(), at_work)
        self._peak_at = self._at
        if key and (expected := self._known.get(key)) is not None:
            self._met(expected)

    def served(self, seconds: float) -> None:
        """A job has given its worker back."""
        self._seen += 1
        self._spell += (max(seconds, 0.001) - self._spell) / min(self._seen + SUPPOSED, MEASURED)

    def rate(self) -> float:
        """Jobs a second, lately: the higher one of the quick and the slow average."""
        self._fade()
        return max(self._quick, self._slow)

    def peak(self) -> float:
        """How many were at work at the same time lately; it fades as the slow average does."""
        return self._peak * math.exp(-max(0.0, self.now() - self._peak_at) / SLOW)

    def _fade(self) -> None:
        now = self.now()
        passed, self._at = max(0.0, now - self._at), now
        if passed:
            self._quick *= math.exp(-passed / QUICK)
            self._slow *= math.exp(-passed / SLOW)

    # --- what will be

    def expect(self, count: int, at: float, *, lasts: float = 10.0, key: str = "") -> Forget:
        """So many at once from `at` on, for `lasts` seconds. The same key replaces what was said before."""
        key = key or f"#{next(self._order)}"
        if (before := self._known.pop(key, None)) is not None:
            self._drop(before)
        expected = _Expected(key, max(0, count), at, at + lasts)
        self._known[key] = expected
        heapq.heappush(self._begins, (expected.begins, next(self._order), expected))
        if len(self._ends) > MANY + 2 * len(self._known):  # most of what came was met long before its end
            self._ends = [one for one in self._ends if not one[2].over]
            heapq.heapify(self._ends)
        return lambda: self._drop(expected)

    def known(self, ahead: float = 0.0) -> int:
        """How many are expected between now and `ahead` seconds from now."""
        now = self.now()
        while self._begins and self._begins[0][0] <= now + ahead:
            expected = heapq.heappop(self._begins)[2]
            if not expected.over:
                expected.begun = True
                self._active += expected.count
                heapq.heappush(self._ends, (expected.ends, next(self._order), expected))
        while self._ends and self._ends[0][0] <= now:
            self._drop(heapq.heappop(self._ends)[2])
        return self._active

    def _met(self, expected: _Expected) -> None:
        if expected.count > 0:
            expected.count -= 1
            self._active -= expected.begun
        if not expected.count:
            self._drop(expected)

    def _drop(self, expected: _Expected) -> None:
        if expected.over:
            return
        expected.over = True
        if expected.begun:
            self._active -= expected.count
        if self._known.get(expected.key) is expected:
            del self._known[expected.key]

    # --- together

    def wait(self, waiting: int, workers: int) -> float:
        """About how long so many who wait will do so, with so many workers."""
        return waiting * self._spell / workers if workers else math.inf

    def target(self, ahead: float = 0.0, spare: int = SPARE) -> int:
        """How many workers to have, at work or ready."""
        rate = self.rate()
        if rate < STILL:
            return self.known(ahead)
        load = max(rate * self._spell, min(self.peak(), rate * SPELL))
        return math.ceil(load + SURE * math.sqrt(load) + spare) + self.known(ahead)
