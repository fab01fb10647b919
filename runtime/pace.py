"""How often a step may start: at most so many times in so many seconds, over all runs of an agent on this server."""

from collections import deque

SHORT = 0.5
"""Seconds; a longer wait for its turn leaves only rows of a run, and does not count as its work."""
MAX_LANES = 10_000


class Pace:
    """Gives every start of a paced step its moment. What was promised before a restart is kept by the waits, not here."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, ...], deque[float]] = {}

    def reserve(self, lane: tuple[str, ...], at_most: int, per: float, now: float) -> float:
        """Seconds until the next free moment, which is taken by asking: no span of `per` seconds has more than `at_most`."""
        taken = self._lanes.pop(lane, None)
        if taken is None or taken.maxlen != at_most:
            taken = deque(taken or (), maxlen=at_most)
        moment = max(now, taken[0] + per) if len(taken) == at_most else max(now, taken[-1]) if taken else now
        taken.append(moment)
        self._lanes[lane] = taken
        while len(self._lanes) > MAX_LANES:
            del self._lanes[next(iter(self._lanes))]
        return moment - now
