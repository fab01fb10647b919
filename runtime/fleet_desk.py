"""The fleet for people: what they may see of it, what it did lately, and what they may do to it.

Each move of a worker is counted and told to the pages that are open, and kept as a row unless only a job came or went. Levels and vital figures are sampled
for half an hour, in memory: they are for looking at, and nothing is decided by them.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from nodes.errors import Conflict, Denied, FactoryError, NotFound
from nodes.ids import new_id
from runtime.events import Bus
from runtime.fleet import Fleet, FleetView, JobSeen, Moved, PoolView, WorkerView
from runtime.policy import Actor, Permission
from runtime.workers.docker import Building
from runtime.workers.states import AT_WORK
from storage import tenant, worker_move
from storage.database import Database
from storage.server import EVERYBODY

log = structlog.get_logger()

TOPIC: Final = ("fleet",)
EVERY: Final = 2.0  # seconds between two samples
SOON: Final = 0.1  # seconds after which pages hear of a move, with all that came meanwhile
SAMPLES: Final = 900  # half an hour
KEPT: Final = 7 * 86_400.0  # seconds that moves are kept
FORGET_EVERY: Final = 1_800  # samples between two times that old moves are dropped
FRESH: Final = 10.0  # seconds after which it is looked what other servers' workers did
READS: Final = 50  # readings of moves that are remembered
PENDING: Final = 10_000  # moves that wait for the database; the oldest are given up when it is away for long


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at one moment: pools by profile, and (processors, bytes of memory) by worker."""

    at: float
    pools: Mapping[str, PoolView]
    workers: Mapping[str, tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a worker, or what a person asked for."""

    at: float
    worker: str
    profile: str
    host: str
    before: str
    after: str
    crew: str | None
    why: str
    by: str | None


class FleetDesk:
    """Every method asks who it is: a team sees its own workers and those that are nobody's yet."""

    def __init__(self, fleet: Fleet, db: Database, bus: Bus) -> None:
        self._fleet = fleet
        self._db = db
        self._bus = bus
        self._pending: deque[worker_move.WorkerMove] = deque(maxlen=PENDING)
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._task: asyncio.Task[None] | None = None
        self._sampled = 0
        self._telling = False
        self._building = asyncio.Lock()
        self._read: dict[tuple[str, str | None, int], tuple[float, Sequence[worker_move.WorkerMove]]] = {}
        """Moves as they were read last, until this server keeps more: pages ask every second."""
        self._keeper = ""
        """The team that runs this installation, once somebody wanted to know."""
        self.moves: Counter[tuple[str, str]] = Counter()
        """How often workers of a profile came into a state, since the start."""

    # --- keeping ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to watch the fleet."""
        self._forget = self._fleet.on_move(self._moved)
        self._task = asyncio.get_running_loop().create_task(self._go_on(), name="fleet-desk")

    async def stop(self) -> None:
        """Watch no more; what is known so far is kept."""
        if self._task is None:
            return
        self._forget()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        with contextlib.suppress(FactoryError):
            await self._keep()

    def _moved(self, moved: Moved) -> None:
        self.moves[moved.profile, moved.after.value] += 1
        if not self._telling:
            # A job comes or goes hundreds of times a second: pages need not hear of each.
            self._telling = True
            asyncio.get_running_loop().call_later(SOON, self._tell)
        if moved.before in AT_WORK and moved.after in AT_WORK:
            return  # the run's own journal tells of it
        row = worker_move.WorkerMove(
            tenant_id=moved.tenant or EVERYBODY,
            id=new_id("move"),
            at=moved.at,
            worker=moved.worker,
            profile=moved.profile,
            host=moved.host,
            before=moved.before.value if moved.before is not None else "",
            after=moved.after.value,
            crew=moved.crew,
            why=moved.why,
        )
        self._pending.append(row)

    def _tell(self) -> None:
        self._telling = False
        self._bus.announce(TOPIC, {})

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                self._sample()
                await self._keep()
            except FactoryError as error:
                log.info("what workers did is kept later", reason=error.message)
            except Exception:
                log.exception("the fleet could not be looked at")

    def _sample(self) -> None:
        seen = self._fleet.view()
        vital = {one.id: (one.vital.cpu, one.vital.memory) for one in seen.workers if one.vital is not None}
        self._samples.append(Sample(time.time(), {pool.profile: pool for pool in seen.pools}, vital))
        self._sampled += 1
        self._tell()

    async def _keep(self) -> None:
        if self._pending:
            rows = [*self._pending]
            await self._db.write_all(lambda session: worker_move.add_all(session, [_copy(row) for row in rows]))
            kept = {row.id for row in rows}
            while self._pending and self._pending[0].id in kept:
                self._pending.popleft()
            self._read = {}
        if self._sampled % FORGET_EVERY == 1:
            await self._db.write_all(lambda session: worker_move.forget(session, time.time() - KEPT))

    # --- looking --------------------------------------------------------------------------------------------------------------

    def view(self, who: Actor) -> FleetView:
        """Everything at this moment. Workers of other teams are counted in their pools and not shown."""
        who.require(Permission.VIEW)
        seen = self._fleet.view()
        return replace(seen, workers=tuple(one for one in seen.workers if one.tenant in (None, who.tenant)))

    def figures(self, who: Actor) -> FleetView:
        """All workers of this installation, whoever has them: for sums, which name nobody. Raises Denied."""
        who.require(Permission.VIEW)
        return self._fleet.view()

    def history(self, who: Actor) -> Sequence[Sample]:
        """The last half hour, oldest first. Raises Denied."""
        own = {one.id for one in self.view(who).workers}
        return [
            replace(sample, workers={id_: vital for id_, vital in sample.workers.items() if id_ in own})
            for sample in self._samples
        ]

    async def lately(self, who: Actor, *, worker: str | None = None, limit: int = 200) -> list[Move]:
        """What workers did, newest first; of one worker, or of all that the team may see. Raises Denied."""
        who.require(Permission.VIEW)
        waiting = [
            row
            for row in reversed(self._pending)
            if row.tenant_id in (EVERYBODY, who.tenant) and worker in (None, row.worker)
        ]
        kept = await self._newest((who.tenant, worker, limit))
        known = {row.id for row in kept}
        return [_move(row) for row in [*(row for row in waiting if row.id not in known), *kept]][:limit]

    async def _newest(self, what: tuple[str, str | None, int]) -> Sequence[worker_move.WorkerMove]:
        known, now = self._read, time.monotonic()
        if (found := known.get(what)) is not None and now - found[0] < FRESH:
            return found[1]
        tenant, worker, limit = what
        rows = await self._db.read_all(lambda session: worker_move.newest(session, tenant, limit, worker))
        if len(known) >= READS:
            known.clear()
        known[what] = now, rows  # not where the next are read from if more was kept meanwhile
        return rows

    def jobs(self, who: Actor, worker: str) -> tuple[JobSeen, ...]:
        """The last jobs of a worker, newest first. Raises NotFound, Denied."""
        self._seen(who, worker)
        return self._fleet.jobs(worker)

    async def logs(self, who: Actor, worker: str) -> list[str]:
        """The last lines that a worker wrote about itself. Raises NotFound, Denied."""
        self._seen(who, worker)
        return await self._fleet.logs(worker)

    def _seen(self, who: Actor, worker: str) -> WorkerView:
        for one in self.view(who).workers:
            if one.id == worker:
                return one
        raise NotFound("There is no such worker any more.", fix="Look at those that are there now.")

    # --- doing ----------------------------------------------------------------------------------------------------------------

    async def drain(self, who: Actor, worker: str) -> None:
        """Let it end its job, then remove it. Raises NotFound, Denied."""
        await self._do(who, worker, "drain", self._fleet.drain)

    async def restart(self, who: Actor, worker: str) -> None:
        """End it with its job and put another one in its place. Raises NotFound, Denied."""
        await self._do(who, worker, "restart", self._fleet.restart)

    async def hibernate(self, who: Actor, worker: str) -> None:
        """Put an idle worker to sleep. Raises NotFound, Denied, Conflict when it is not idle."""
        await self._do(who, worker, "put to sleep", self._fleet.hibernate)

    async def remove(self, who: Actor, worker: str) -> None:
        """End it with its job. Raises NotFound, Denied."""
        await self._do(who, worker, "remove", self._fleet.remove)

    async def build_image(self, who: Actor, **what: Any) -> AsyncGenerator[Building]:
        """Make an image for workers, telling how it goes; the last one has its name and its lock. Raises Denied, FactoryError."""
        # A Dockerfile's steps are root's in their container.
        await self._require_engines(
            who,
            "Images are made by the team that runs this installation.",
            "Ask an admin of that team, and tell which libraries you need.",
        )
        if self._building.locked():
            raise Conflict("Another image is being made.", fix="Wait until it is ready.")
        async with self._building, contextlib.aclosing(self._fleet.build_image(**what)) as steps:
            async for step in steps:
                yield step

    async def _do(self, who: Actor, worker: str, what: str, how: Callable[[str], Awaitable[None]]) -> None:
        who.require(Permission.ADMIN)
        seen = self._seen(who, worker)
        state = seen.state.value
        self._note(who, f"asked to {what} it", worker, seen.host, state, state, profile=seen.profile, crew=seen.crew)
        await how(worker)

    def _note(
        self,
        who: Actor,
        why: str,
        worker: str,
        host: str,
        before: str,
        after: str,
        *,
        profile: str = "",
        crew: str | None = None,
    ) -> None:
        row = worker_move.WorkerMove(
            tenant_id=who.tenant,
            id=new_id("move"),
            at=time.time(),
            worker=worker,
            profile=profile,
            host=host,
            before=before,
            after=after,
            crew=crew,
            why=why,
            by=who.name,
        )
        self._pending.append(row)

    # --- engines --------------------------------------------------------------------------------------------------------------

    async def keeps_engines(self, who: Actor) -> bool:
        """Whether somebody may do something to engines: they belong to the installation, so only admins of its team."""
        if not who.may(Permission.ADMIN):
            return False
        if not self._keeper:
            teams = await self._db.read_all(tenant.every)
            self._keeper = teams[0].tenant_id if teams else ""
        return self._keeper in ("", who.tenant)

    async def plan_drain_engine(self, who: Actor, name: str) -> list[str]:
        """What emptying an engine would do, in words; does nothing. Raises NotFound, Denied."""
        await self._require_engines(who)
        return self._fleet.plan_drain(name)

    async def plan_engines(self, who: Actor, wanted: int) -> list[str]:
        """What having so many engines would do, in words; does nothing. Raises Denied."""
        await self._require_engines(who)
        return self._fleet.plan_scale(wanted)

    async def drain_engine(self, who: Actor, name: str) -> None:
        """Place nothing on an engine any more; its workers leave when their jobs have ended. Raises NotFound, Denied, Conflict."""
        await self._do_engine(who, name, "asked to drain the engine", self._fleet.drain_host)

    async def reopen_engine(self, who: Actor, name: str) -> None:
        """Place workers on an engine again. Raises NotFound, Denied."""
        await self._do_engine(who, name, "took the engine back into use", self._fleet.reopen_host)

    async def _do_engine(self, who: Actor, name: str, why: str, how: Callable[[str], Awaitable[None]]) -> None:
        await self._require_engines(who)
        states = {host.name: host.state for host in self._fleet.view().hosts}
        await how(name)
        after = next((host.state for host in self._fleet.view().hosts if host.name == name), "")
        self._note(who, why, "", name, states.get(name, ""), after)
        self._tell()

    async def _require_engines(
        self,
        who: Actor,
        why: str = "Engines are the business of the team that runs this installation.",
        fix: str = "Ask an admin of that team.",
    ) -> None:
        who.require(Permission.ADMIN)
        if not await self.keeps_engines(who):
            raise Denied(why, fix=fix)


def _copy(row: worker_move.WorkerMove) -> worker_move.WorkerMove:
    """Rows of their own for each try: a session that failed keeps what it was given."""
    return worker_move.WorkerMove(**row.model_dump())


def _move(row: worker_move.WorkerMove) -> Move:
    return Move(row.at, row.worker, row.profile, row.host, row.before, row.after, row.crew, row.why, row.by)
