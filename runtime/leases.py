"""This process among the servers of one database: it shows that it lives, and takes over what dead ones had in hand.

Why no run is worked on twice. A server counts its `beat` up every `RENEW` of a lease. Another one that has seen the same beat for
a whole lease, by its own steady clock, gives that server up: it deletes its row. Each transaction of a server holds a lock on its
row, so the deletion waits for one that is under way and no later one can begin: what a given-up server still wants to write is
refused. A server that could not renew stops by itself after `STOP` of a lease, counted from before it sent its last renewal,
so it is quiet before anybody may give it up. No clock of any machine is compared with another's, so clocks may jump.

With SQLite there is one server, held by a lock of the system that ends with the process; then nothing of this costs anything.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from nodes.errors import FactoryError
from nodes.ids import new_id
from storage import errors, server
from storage.database import Database
from storage.errors import StorageError

log = structlog.get_logger()

LEASE: Final = 10.0  # seconds without a beat after which a server is given up
RENEW: Final = 0.15  # of a lease between two beats
STOP: Final = 0.7  # of a lease without a confirmed beat after which a server stops by itself
LOOK: Final = 1.0  # seconds between two looks at the others

GONE: Final = "gone"
"""An id that no server has: nothing more can be written."""

Work = Callable[[], Awaitable[None]]


class Lease:
    """One process's place. `id` is a new one for each life; it is what the rows of its runs name."""

    def __init__(self, db: Database, *, seconds: float = LEASE, steady: Callable[[], float] = time.monotonic) -> None:
        self.id = ""
        self.alone = True
        """Whether no other server can use the database beside this one."""
        self.seconds = seconds
        self.on_lost: list[Work] = []
        """Called when this life is over: stop everything that writes."""
        self.on_recover: list[Work] = []
        """Called in a new life, and when another server is gone: take over. What cannot be done then is done later."""
        self.on_look: list[Work] = []
        """Called every second, when others may be there."""
        self._db = db
        self._steady = steady
        self._until = 0.0
        self._renewed = asyncio.Event()
        self._seen: dict[str, tuple[int, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._recovering: asyncio.Task[None] | None = None
        self._owed: list[Work] = []
        """Of `on_recover`: what is still to be done."""

    @property
    def held(self) -> bool:
        """Whether this process may still work: nobody can have given it up."""
        return self.alone or self._steady() < self._until

    async def confirm(self) -> None:
        """Return while this process may still work. When it may not, wait: whoever waits here is about to be cancelled."""
        while not self.held:
            self._renewed.clear()
            await self._renewed.wait()

    async def join(self) -> None:
        """Become one of the servers. Raises StorageError; with SQLite `storage.in_use` while another one runs."""
        self.alone = await self._db.claim()
        await self._live()
        if not self.alone:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._keep(), name="lease"), loop.create_task(self._look(), name="others")]

    async def leave(self) -> None:
        """End as it should: others may take over at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.stop_recovering()
        self._until = 0.0
        id_ = self.id
        try:
            await self._db.write_all(lambda session: server.leave(session, id_))
        except StorageError as error:
            log.info("this server could not say goodbye", reason=error.message)
        self._db.fence(GONE)

    async def _live(self) -> None:
        """Begin a life: an id that was never used before."""
        id_, before, now = new_id("srv"), self.id, time.time()
        # Between two lives nothing is written: it would name the old one, and be fenced by none.
        self._db.fence(GONE if before else None)
        sent = self._steady()
        try:
            async with asyncio.timeout(None if self.alone else self.seconds * STOP):
                await self._db.write_apart(
                    lambda session: server.join(session, id_, now, before=before, alone=self.alone)
                )
        except TimeoutError:
            raise errors.lost() from None
        self._db.fence(id_)
        self.id = id_
        self._until = sent + self.seconds * STOP
        if not self.alone:
            log.info("this server is one of those that share the database", server=id_)

    async def _keep(self) -> None:
        """Renew for as long as we live; when that fails for too long, stop everything and begin anew."""
        while True:
            await asyncio.sleep(self.seconds * RENEW)
            try:
                if not await self._renew():
                    await self.lose()
            except Exception:
                # Whatever went wrong, a server that no longer renews must notice; the next beat tries again.
                log.exception("the lease could not be renewed in a way that was not foreseen")

    async def _renew(self) -> bool:
        """Whether this life goes on."""
        id_ = self.id
        while (sent := self._steady()) < self._until:
            try:
                async with asyncio.timeout(self._until - sent):
                    if not await self._db.write_apart(lambda session: server.renew(session, id_, time.time())):
                        return False
            except (TimeoutError, StorageError) as error:
                log.warning("this server could not renew its lease", reason=str(error))
                await asyncio.sleep(min(0.2, self.seconds * RENEW))
                continue
            self._until = sent + self.seconds * STOP
            self._renewed.set()
            return True
        return False

    async def lose(self) -> None:
        """This life is over: stop everything, then begin another one."""
        log.error("this server lost touch with the database and stopped its work", server=self.id)
        self._until = 0.0
        await self.stop_recovering()
        await self._call(self.on_lost)
        while True:
            try:
                await self._live()
                break
            except StorageError as error:
                log.warning("this server cannot come back yet", reason=error.message)
                await asyncio.sleep(self.seconds * RENEW)
        self._owed = [*self.on_recover]
        self._take_over_soon()

    def _take_over_soon(self) -> None:
        # In a task: whoever renews the lease must not wait until everything is taken over, or it is lost again meanwhile.
        if self._owed and (self._recovering is None or self._recovering.done()):
            self._recovering = asyncio.get_running_loop().create_task(self._take_over(), name="recovery")

    async def _take_over(self) -> None:
        works, self._owed = self._owed, []
        self._owed += await self._call(works)

    async def stop_recovering(self) -> None:
        """Begin nothing more of what a new life takes over."""
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)
            self._recovering = None

    async def _look(self) -> None:
        """Give up servers that stand still, and take over what those had that are gone."""
        while True:
            await asyncio.sleep(min(LOOK, self.seconds / 5))
            if not self.held:
                continue
            try:
                await self._give_up_the_silent()
            except FactoryError as error:
                log.warning("this server could not look at the others", reason=error.message)
            except Exception:
                log.exception("looking at the other servers failed in a way that was not foreseen")
            if self.held:
                self._take_over_soon()
            await self._call(self.on_look)

    async def _give_up_the_silent(self) -> None:
        pulses = await self._db.read_all(server.pulses)
        # After the reading: what was seen is older than this moment.
        now = self._steady()
        before, self._seen = self._seen, {}
        for id_, beat in pulses:
            seen_beat, since = before.get(id_, (beat, now))
            self._seen[id_] = (beat, since if seen_beat == beat else now)
        if before.keys() - self._seen.keys():
            self._owed = [*self.on_recover]
        for id_, beat in pulses:
            silent = now - self._seen[id_][1] > self.seconds
            if id_ != self.id and (silent or beat == server.LEFT):
                log.warning("another server is gone", server=id_, silent=silent)
                if await self._db.write_all(lambda session, id_=id_, beat=beat: server.give_up(session, id_, beat)):  # type: ignore[misc]
                    del self._seen[id_]
                    self._owed = [*self.on_recover]

    @staticmethod
    async def _call(these: list[Work]) -> list[Work]:
        """Do these; gives those that cannot be done now."""
        later = []
        for work in these:
            try:
                await work()
            except FactoryError as error:
                log.warning("something could not be done now", reason=error.message)
                later.append(work)
            except Exception:
                log.exception("something went wrong among servers")
        return later
