"""How often a step may start: at most so many times in so many seconds, over all runs of an agent, on all servers together."""

from collections import deque
from functools import partial

from runtime.patience import patiently
from storage import paced
from storage.database import Database

SHORT = 0.5
"""Seconds; a longer wait for its turn leaves only rows of a run, and does not count as its work."""
MAX_LANES = 10_000


class Pace:
    """Gives every start of a paced step its moment; those of test runs are kept in memory."""

    def __init__(self, db: Database | None = None) -> None:
        self._db = db
        self._lanes: dict[tuple[str, ...], deque[float]] = {}

    async def turn(
        self, tenant: str, agent: str, step: str, start: str, *, at_most: int, per: float, now: float
    ) -> float:
        """The moment of this start in a live run, which is taken by asking. Waits while the database is away."""
        assert self._db is not None
        reserve = partial(paced.reserve, agent=agent, step=step, start=start, at_most=at_most, per=per, now=now)
        db = self._db
        return await patiently(lambda: db.write(tenant, reserve), "a step waits for the database", step=step)

    def pretend(self, lane: tuple[str, ...], at_most: int, per: float, now: float) -> float:
        """Seconds until the next free moment in a test run."""
        taken = self._lanes.pop(lane, None)
        if taken is None or taken.maxlen != at_most:
            taken = deque(taken or (), maxlen=at_most)
        moment = max(now, taken[0] + per) if len(taken) == at_most else max(now, taken[-1]) if taken else now
        taken.append(moment)
        self._lanes[lane] = taken
        while len(self._lanes) > MAX_LANES:
            del self._lanes[next(iter(self._lanes))]
        return moment - now
