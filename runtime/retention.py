"""Ended runs are kept for as many days as their team says, and then removed: few at a time, beside what goes on.

Files on their way to workers and back go with them."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import structlog

from runtime.limits import Limits
from runtime.workers.store import Store
from storage import retention
from storage.database import Database

log = structlog.get_logger()

DAY = 86_400.0
PAUSE = 0.05  # seconds between two batches: whoever waits for the disk comes in between
ON_THE_WAY = 1_800.0  # seconds: no step of code goes on for so long
BATCH = 200  # runs that are looked at together


class Retention:
    """Removes what is older than a team keeps; runs that something still needs stay, whatever their age."""

    def __init__(self, db: Database, limits: Limits, *, now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._limits = limits
        self._now = now
        self._going = False
        self.store: Store | None = None
        """Where files are on their way to workers and back: what is left there goes too."""

    async def forget(self) -> int:
        """Go once through the oldest runs of every team; how many were removed. Raises StorageError."""
        if self._going:
            return 0
        self._going, removed, tenant = True, 0, ""
        try:
            if self.store is not None:
                await asyncio.to_thread(self.store.sweep, ON_THE_WAY)
            while (found := await self._db.read_all(partial(retention.next_tenant, after=tenant))) is not None:
                tenant = found
                removed += await self._forget_of(tenant)
        finally:
            self._going = False
        if removed:
            log.info("runs that ended long ago were removed", runs=removed)
        return removed

    async def _forget_of(self, tenant: str) -> int:
        before = self._now() - self._limits.of(tenant, "run_days") * DAY
        removed, after = 0, ""
        while True:
            seen = await self._db.read(tenant, partial(retention.look, before=before, after=after, limit=BATCH))
            if seen.ids:
                removed += await self._db.write(tenant, partial(retention.remove, ids=seen.ids, before=before))
            if seen.last is None:
                return removed
            after = seen.last
            await asyncio.sleep(PAUSE)
