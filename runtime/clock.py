"""The clock: a tick a second starts what is due and wakes what waits; once an hour it forgets what nobody needs any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from nodes.errors import FactoryError
from runtime.engine import Engine
from runtime.journal import Plans
from runtime.retention import Retention
from runtime.schedules import Schedules
from storage import event_seen, event_wait, happening, paced, schedule, spending
from storage import session as web_session
from storage.database import Database

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

log = structlog.get_logger()

CLEAN_EVERY = 3600.0  # seconds
OWED_EVERY = 15.0  # seconds after which there may be room for what could not be started
KEPT_SESSIONS = 7 * 86_400.0  # seconds that an ended session is remembered
KEPT_FIRINGS = 90 * 86_400.0
KEPT_HAPPENINGS = 7 * 86_400.0
KEPT_WAITS = 7 * 86_400.0  # seconds that an expired wait is kept, to say so to who comes too late
KEPT_STARTS = 2 * 86_400.0  # seconds: twice the longest span in which the starts of a step are counted
KEPT_COSTS = 30 * 86_400.0  # seconds that it is kept what a run cost that is not there any more


class Recovers(Protocol):
    """Whoever starts runs and may find no room for them, or be cut off by a crash."""

    owes: bool

    async def recover(self) -> None: ...


class Clock:
    """A tick a second: schedules that are due, runs whose time has come. What is due stands in rows, never in here."""

    def __init__(self, db: Database, engine: Engine, plans: Plans, *, now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._engine = engine
        self._now = now
        self.schedules = Schedules(db, engine, plans, now=lambda: self._now())
        self.retention = Retention(db, engine.limits, now=lambda: self._now())
        self.recovers: list[Recovers] = [self.schedules]
        self.on_tick: list[Callable[[], Awaitable[None]]] = []
        """What else is looked after each second."""
        self._ticked = self._looked = time.monotonic()
        self._cleaned = time.monotonic()
        self._ticking = asyncio.Lock()
        self._tick: asyncio.Task[None] | None = None
        self._scheduler: AsyncIOScheduler | None = None
        self._guard: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start what fired without its run before a crash, then tick."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        await self.recover()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.start()
        self._set_job()
        self._watch()

    async def recover(self) -> None:
        """Start what fired in a process that ended before the run was there."""
        for one in self.recovers:
            await one.recover()

    def _set_job(self) -> None:
        assert self._scheduler is not None
        self._scheduler.add_job(
            self._begin, "interval", seconds=1, id="tick", replace_existing=True, coalesce=True, misfire_grace_time=None
        )

    async def _begin(self) -> None:
        """A tick in a task of ours: of one that is cancelled when we stop, the library would log that it failed."""
        if self._tick is None or self._tick.done():
            self._tick = self._engine.spawn(self.tick())

    def _watch(self) -> None:
        """After the machine's clock was set back the library waits until it has caught up: put the job in anew."""
        if time.monotonic() - self._ticked > 3 and not self._ticking.locked():
            self._set_job()
        self._guard = asyncio.get_running_loop().call_later(3, self._watch)

    async def stop(self) -> None:
        """No more ticks."""
        if self._guard is not None:
            self._guard.cancel()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
        if self._tick is not None:
            self._tick.cancel()
            await asyncio.wait([self._tick])

    async def tick(self) -> None:
        """Do what is due now."""
        self._ticked = time.monotonic()
        if self._ticking.locked() or not self._engine.lease.held:
            return
        async with self._ticking:
            try:
                await self.schedules.fire_due()
                await self._engine.tick()
                for look in self.on_tick:
                    await look()
                if self._ticked - self._looked > OWED_EVERY and any(one.owes for one in self.recovers):
                    self._looked = self._ticked
                    await self.recover()
                if self._ticked - self._cleaned > CLEAN_EVERY:
                    self._cleaned = self._ticked
                    await self.clean()
                    self._engine.spawn(self.retention.forget())
            except FactoryError as error:
                log.warning("the clock could not do everything that is due", error=error.message)
        self._ticked = time.monotonic()

    async def clean(self) -> None:
        """Forget what nobody needs any more: ended sessions, old keys of calls, when schedules fired long ago."""
        now = self._now()

        def forget(session: Any) -> None:
            web_session.purge(session, now - KEPT_SESSIONS)
            event_seen.purge(session, now)
            schedule.forget(session, now - KEPT_FIRINGS)
            happening.purge(session, now - KEPT_HAPPENINGS)
            event_wait.purge(session, now - KEPT_WAITS)
            spending.purge(session, now - KEPT_COSTS)
            paced.purge(session, now - KEPT_STARTS)

        await self._db.write_all(forget)
