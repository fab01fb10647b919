"""Which workers are well: judged by their silence, on a clock that stands still while we ourselves did.

A death is told by the end of the line or by the engine, and handled at once, elsewhere. A hang tells nobody. So each worker says
every few seconds how it is; one that works, or was silent for two such spells, is asked by pings, and one that leaves three of
them unanswered is UNHEALTHY. Everything here but `Watchdog.run` is a plain machine that is given the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

MOST_COUNTED: Final = 2.0  # looks' worth of time that one look counts at most: what is beyond that was our own silence


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How long which silence may be, in seconds. `silent` is a ceiling whatever else is set."""

    beat: float = 5.0  # a worker says so often how it is
    ping: float = 0.45  # and is asked so often while it works
    misses: int = 3
    silent: float = 30.0

    @property
    def hang_seen_within(self) -> float:
        """How long a worker that hangs in a job may go unseen, while we do not stand still."""
        return self.ping * (self.misses + 1)

    @property
    def idle_hang_seen_within(self) -> float:
        """The same for one that has nothing to do."""
        return min(self.silent + self.ping, 2 * self.beat + self.hang_seen_within + self.ping)


class Verdict(StrEnum):
    """What to do about a worker."""

    WELL = "well"
    ASK = "ask"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True)
class Pulse:
    """The signs of life of one worker. Whoever hears anything from it sets `fresh`; the rest is the watch's."""

    fresh: bool = True
    asked: int = 0
    quiet: float = 0.0


class Watch:
    """Judges pulses, look by look."""

    def __init__(self, rules: WatchRules, now: float) -> None:
        self.rules = rules
        self.stalls = 0
        self._last = now
        self._passed = 0.0
        self._stalled = False

    def look(self, now: float) -> bool:
        """Begin the next look. False when we were late for it, so that nobody can be blamed for their silence."""
        passed, self._last = now - self._last, now
        self._stalled = passed > MOST_COUNTED * self.rules.ping
        self._passed = max(0.0, min(passed, MOST_COUNTED * self.rules.ping))
        self.stalls += self._stalled
        return not self._stalled

    def judge(self, pulse: Pulse, working: bool) -> Verdict:
        """How this worker is, in this look."""
        if pulse.fresh or self._stalled:
            if pulse.fresh:
                pulse.quiet = 0.0
            pulse.fresh, pulse.asked = False, 0
        else:
            pulse.quiet += self._passed
        if pulse.asked >= self.rules.misses or pulse.quiet > self.rules.silent:
            return Verdict.UNHEALTHY
        if working or pulse.quiet > 2 * self.rules.beat:
            pulse.asked += 1
            return Verdict.ASK
        return Verdict.WELL


class Backoff:
    """When the next worker may be started, if the last ones did not live: after 1, 2, 4 … 300 seconds.

    Those that fail in the same pause count as one. One that lived, and began after the last failure, ends it.
    """

    def __init__(self, *, first: float = 1.0, longest: float = 300.0, loop_after: int = 5) -> None:
        self.failures = 0
        self.why = ""
        self.due = float("-inf")
        self._failed_at = float("-inf")
        self._first = first
        self._longest = longest
        self._loop_after = loop_after

    def failed(self, now: float, why: str) -> None:
        """A worker did not start, or ended before it had lived."""
        self.why, self._failed_at = why.rstrip("."), now
        if now >= self.due:
            self.failures += 1
            self.due = now + self.pause

    def lived(self, since: float) -> None:
        """A worker that is there since then has lived long enough, or done a job."""
        if since > self._failed_at:
            self.failures, self.due = 0, float("-inf")

    @property
    def pause(self) -> float:
        """How long to wait after the last failure."""
        return min(self._longest, self._first * 2.0 ** min(self.failures - 1, 16)) if self.failures else 0.0

    def wait(self, now: float) -> float:
        """How long to wait from now."""
        return max(0.0, self.due - now) if self.failures else 0.0

    @property
    def looping(self) -> bool:
        """Whether it goes on and on."""
        return self.failures >= self._loop_after

    def words(self, now: float) -> str | None:
        """What to tell people, once it is a crash loop."""
        if not self.looping:
            return None
        wait = self.wait(now)
        then = f"The next try is in {wait:.0f} s." if wait else "It is tried again now."
        return f"New workers do not live: {self.failures} times in a row, the last time because: {self.why}. {then}"


class Watched(Protocol):
    """What the watchdog wants of a worker."""

    pulse: Pulse

    @property
    def working(self) -> bool:
        """Whether it has a job."""

    def ping(self) -> None:
        """Ask for a sign of life."""


W = TypeVar("W", bound=Watched)


class Watchdog(Generic[W]):
    """Looks at workers again and again, asks those that are silent, and tells of those that do not answer."""

    def __init__(
        self,
        rules: WatchRules,
        workers: Callable[[], Iterable[W]],
        unhealthy: Callable[[W], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watch = Watch(rules, now())
        self._workers = workers
        self._unhealthy = unhealthy
        self._now = now

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(self.watch.rules.ping)
            self.look()

    def look(self) -> None:
        """Look once."""
        self.watch.look(self._now())
        for worker in list(self._workers()):
            verdict = self.watch.judge(worker.pulse, worker.working)
            if verdict is Verdict.UNHEALTHY:
                self._unhealthy(worker)
            elif verdict is Verdict.ASK:
                worker.ping()
