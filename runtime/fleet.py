"""The workers of this installation: a warm pool for each profile, opened in the background so that nobody waits for them before they need them."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import structlog

from nodes.errors import Conflict, FactoryError, NotFound
from runtime.workers.backend import Backend, Job, JobResult, NoWorker
from runtime.workers.choose import open_place
from runtime.workers.demand import Demand
from runtime.workers.docker import Building, DockerBackend
from runtime.workers.hosts import Hosts
from runtime.workers.local import LocalBackend
from runtime.workers.pool import Pool, PoolRules, PoolStats
from runtime.workers.profiles import PROFILES, Profile
from runtime.workers.states import OVER
from runtime.workers.views import FleetView, Forget, HostView, JobSeen, Moved, Observer, PoolView, Vital, WorkerView
from runtime.workers.worker import Worker

log = structlog.get_logger()

__all__ = [
    "Fleet",
    "FleetView",
    "Held",
    "HostView",
    "JobSeen",
    "Moved",
    "PoolRules",
    "PoolStats",
    "PoolView",
    "Vital",
    "WorkerView",
]

SMALL: Final = "small"
NODE: Final = "node"  # the image


class Held:
    """A worker that belongs to one member of a crew until `release()`. Its jobs run in it one after the other."""

    def __init__(self, pool: Pool, worker: Worker) -> None:
        self._pool = pool
        self._worker = worker
        self.id = worker.id
        self.tenant = worker.tenant or ""
        self.profile = worker.profile.name
        self.host = worker.host
        self.crew = worker.crew
        self.member = worker.member
        self.room: Path = worker.room
        """The folder on this machine that the worker sees as /factory, read only: a socket put here is its own."""
        self.lost: asyncio.Event = pool.held[worker]
        """Set when the worker is gone, for whatever reason but `release`."""
        self._turn = asyncio.Lock()

    async def run(self, job: Job) -> JobResult:
        """Run a job in this worker. A job that is lost with it says so; it is never run elsewhere."""
        async with self._turn:
            return await self._pool.run_held(self._worker, job)

    def owns(self, pid: int) -> bool:
        """Whether this process of the machine runs inside the worker: who calls at a socket in `room` is asked so."""
        return not self.lost.is_set() and self._worker.owns(pid)

    async def release(self) -> None:
        """Give the worker back to its tenant. Doing it twice does no harm. A job that still runs in it is stopped."""
        if self._turn.locked():
            self._pool.retire(self._worker, "its member left in the middle of a job")
        await self._pool.settled(self._worker)
        self._pool.let_go(self._worker)


class Fleet:
    """Opens the pools, keeps them open, and says why there are none. `setting` is `auto`, `off` or an engine's address.

    `size` is how many small workers are kept warm; with 0 none are started before they are wanted. `rules` says more, by profile.
    """

    def __init__(
        self,
        setting: str,
        *,
        home: str,
        size: int = 2,
        rules: Mapping[str, PoolRules] = MappingProxyType({}),
        sizes: Mapping[str, Profile] = PROFILES,
    ) -> None:
        self.sizes = sizes
        """The workers that can be had, by the name of their size."""
        self._setting = setting
        self._home = home
        warm = size > 0 or any(one.size for one in rules.values())
        self._rules = {
            name: rules.get(name) or default_rules(name, size if name == SMALL else 0, forecast=warm, of=profile)
            for name, profile in sizes.items()
        }
        self._warm = any(one.size for one in self._rules.values())
        self._demands: dict[str, Demand] = {}
        self._pools: dict[str, Pool] = {}
        self._place: tuple[Backend, Path] | None = None
        self._starts = asyncio.Semaphore((os.cpu_count() or 1) + 1)
        self._starting: set[asyncio.Task[Pool]] = set()
        self._observers: list[Observer] = []
        self._problem: FactoryError | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._known = asyncio.Event()
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Begin to open the pools, if some workers are to be kept warm; else the first job opens them."""
        if self._warm:
            self._open()

    def _open(self) -> None:
        self._known.clear()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        try:
            async with open_place(self._setting, home=self._home) as self._place:
                self._problem = None
                try:
                    there = self._engines
                    left = {one.profile.name for one in there.survivors if one.profile} if there else set()
                    for name, rules in self._rules.items():
                        if rules.size or name in self._demands or name in left:
                            await self._start_pool(name)
                    if there is not None:
                        await there.drop_survivors()
                    self._known.set()
                    await self._closing.wait()
                finally:
                    await asyncio.gather(*(pool.stop() for pool in self._pools.values()))
        except FactoryError as error:
            self._problem = error
            log.warning("there are no isolated workers", reason=error.message, fix=error.fix)
        finally:
            self._place = None
            self._pools.clear()
            self._known.set()

    async def _start_pool(self, name: str) -> Pool:
        assert self._place is not None
        backend, rooms = self._place
        pool = self._pools[name] = Pool(
            backend,
            rooms,
            profile=self.sizes[name],
            rules=self._rules[name],
            starts=self._starts,
            demand=self._demands.setdefault(name, Demand()),
        )
        pool.on_change(self._moved)
        await pool.start()
        return pool

    async def stop(self) -> None:
        """Close the pools with all their workers."""
        self._closing.set()
        if self._keeping is not None:
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def _pool(self, profile: str) -> Pool:
        """The pool of a profile. Raises NoWorker, NotFound."""
        if (there := self._pools.get(profile)) is not None:
            return there
        if profile not in self._rules:
            raise NotFound(f"There is no worker of size “{profile}”.", fix=f"Choose one of {', '.join(self.sizes)}.")
        if self._keeping is None or (self._keeping.done() and not self._closing.is_set()):
            # Not opened yet, or it could not be: what was missing may be there by now.
            self._open()
        await self._known.wait()
        if self._place is None:
            raise self._problem or NoWorker(
                "The workers are being shut down.", fix="Run it again when the server is back."
            )
        if isinstance(self._place[0], LocalBackend):
            self._place[0].check(self.sizes[profile].image)
        return self._pools.get(profile) or await self._start_pool(profile)

    # --- jobs

    async def run(self, job: Job, *, tenant: str, profile: str = SMALL) -> JobResult:
        """Run a job on a worker of this profile; `job.retries` says how often it is begun anew when its worker is lost.

        Raises NoWorker when none can be had, WorkersBusy when all are busy for too long, BadInput, NotFound.
        """
        pool = await self._pool(profile)
        try:
            return await pool.run(job, tenant=tenant)
        except NoWorker as error:
            raise self._explained(error, self.sizes[profile].image) from error

    def _explained(self, error: NoWorker, image: str) -> NoWorker:
        """Why no worker came up, where it is that its image is not there."""
        engines = [one for _, one in self._docker() if isinstance(one, DockerBackend)]
        if any(image in one.making for one in engines):
            return NoWorker(
                f"The worker image “{image}” is being made on the Docker engine, which takes some minutes the first time.",
                fix="Run it again in a few minutes.",
            )
        if any(image in one.lacks for one in engines):
            return NoWorker(
                f"The Docker engine does not have the worker image “{image}”. {error.message}", fix=error.fix
            )
        return error

    async def hold(
        self, tenant: str, profile: str = SMALL, *, crew: str | None = None, member: str | None = None
    ) -> Held:
        """A worker for one member of a crew. Raises NoWorker, WorkersBusy, NotFound."""
        pool = await self._pool(profile)
        return Held(pool, await pool.hold(tenant, crew=crew, member=member))

    def expect(self, profile: str, count: int, at: float, *, lasts: float = 10.0, key: str = "") -> Forget:
        """So many workers will be wanted at once from about `at` (epoch seconds) on, for `lasts` seconds.

        The same `key` again replaces what was said before; the first job of the run with this id meets it. Returns what
        takes it back.
        """
        rules = self._rules.get(profile)
        if rules is None or not rules.forecast:
            return _nothing
        demand = self._demands.setdefault(profile, Demand())
        forget = demand.expect(count, demand.now() + at - time.time(), lasts=lasts, key=key)
        if (pool := self._pools.get(profile)) is not None:
            pool.look_soon()
        elif self._place is not None and not self._closing.is_set():
            starting = asyncio.get_running_loop().create_task(self._start_pool(profile))
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)
        return forget

    @property
    def lacks_node(self) -> bool:
        """Whether it is known that code in JavaScript cannot be run here."""
        if self._place is not None and isinstance(local := self._place[0], LocalBackend):
            return local.lacks(NODE)
        return any(NODE in one.lacks for _, one in self._docker() if isinstance(one, DockerBackend))

    @property
    def foresees(self) -> bool:
        """Whether it helps to tell it what is to come."""
        return any(rules.forecast for rules in self._rules.values())

    # --- to be looked at

    def view(self) -> FleetView:
        """Everything at this moment."""
        return FleetView(
            workers=tuple(one for pool in self._pools.values() for one in pool.workers_view()),
            pools=tuple(pool.view() for pool in self._pools.values()),
            hosts=self._hosts(),
            problem=self.problem.message if self.problem else None,
        )

    @property
    def _engines(self) -> Hosts | None:
        """The Docker engines, if it is Docker that isolates here."""
        return self._place[0] if self._place is not None and isinstance(self._place[0], Hosts) else None

    def _hosts(self) -> tuple[HostView, ...]:
        if self._place is None:
            return ()
        if (engines := self._engines) is not None:
            return engines.view()
        workers = [one for pool in self._pools.values() for one in pool.workers.values() if one.state not in OVER]
        return (
            HostView(
                name=self._place[0].name,
                url=self._setting,
                state="up",
                cpus=float(os.cpu_count() or 1),
                memory=_memory(),
                reserved_cpus=sum(one.profile.cpus for one in workers),
                reserved_memory=sum(one.profile.memory for one in workers),
                workers=len(workers),
            ),
        )

    def on_move(self, observer: Observer) -> Forget:
        """Hear of every move of every worker. Returns what ends it."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer) if observer in self._observers else None

    def _moved(self, moved: Moved) -> None:
        for observer in list(self._observers):
            try:
                observer(moved)
            except Exception:
                log.exception("an observer of the workers failed")

    def stats(self) -> PoolStats | None:
        """The pool of small workers at a glance, or None while there is none."""
        pool = self._pools.get(SMALL)
        return pool.stats() if pool is not None else None

    @property
    def problem(self) -> FactoryError | None:
        """Why there are no workers, or why none can be started, if that is so."""
        engines = self._engines
        return self._problem or (engines.problem if engines is not None else None)

    # --- what people may do

    def _find(self, worker_id: str) -> tuple[Pool, Worker]:
        for pool in self._pools.values():
            if (worker := pool.workers.get(worker_id)) is not None:
                return pool, worker
        raise NotFound("There is no such worker any more.", fix="Look at the fleet: another one has taken its place.")

    async def drain(self, worker_id: str) -> None:
        """Let it end its job, then remove it. Raises NotFound."""
        pool, worker = self._find(worker_id)
        pool.drain(worker)

    async def restart(self, worker_id: str) -> None:
        """End it at once, with its job, and put another one in its place. Raises NotFound."""
        pool, worker = self._find(worker_id)
        pool.restart(worker)

    async def hibernate(self, worker_id: str) -> None:
        """Put an idle worker to sleep; it wakes when it is wanted. Raises NotFound, Conflict when it is not idle."""
        pool, worker = self._find(worker_id)
        if not await pool.sleep(worker):
            raise Conflict("Only a worker that is ready and idle can hibernate.", fix="Wait until its job has ended.")

    async def remove(self, worker_id: str) -> None:
        """End it at once, with its job. Raises NotFound."""
        pool, worker = self._find(worker_id)
        pool.retire(worker, "somebody removed it")

    async def logs(self, worker_id: str) -> list[str]:
        """The last lines that it wrote about itself. Raises NotFound."""
        return await self._find(worker_id)[1].said()

    def jobs(self, worker_id: str) -> tuple[JobSeen, ...]:
        """Its last jobs, newest first. Raises NotFound."""
        return tuple(reversed(self._find(worker_id)[1].history))

    async def build_image(self, **what: Any) -> AsyncGenerator[Building]:
        """Make an image for workers on every engine, telling how it goes; the last one has its name and its lock.

        Takes what `DockerBackend.build` takes: like, packages, lock, dockerfile, preload. Raises FactoryError, NoWorker when there
        is no Docker engine.
        """
        await self._pool(SMALL)
        engines = {name: one for name, one in self._docker() if isinstance(one, DockerBackend)}
        if not engines:
            raise NoWorker("Images are made by a Docker engine, and there is none.", fix="Install and start Docker.")
        for number, (name, engine) in enumerate(engines.items()):
            async with contextlib.aclosing(engine.build(**what)) as steps:
                async for step in steps:
                    there = f"{name}: " if len(engines) > 1 else ""
                    done = number + 1 == len(engines)
                    yield replace(
                        step,
                        line=f"{there}{step.line}",
                        progress=(number + step.progress) / len(engines),
                        image=step.image if done else "",
                    )
                    if step.lock:
                        what |= {"lock": step.lock, "packages": ()}  # the same on every engine

    def _docker(self) -> Iterable[tuple[str, Any]]:
        return self._engines.engines.items() if self._engines is not None else ()

    async def drain_host(self, name: str) -> None:
        """Place nothing on this engine any more, and move away what is there. Raises NotFound, Conflict."""
        engines = self._engines
        if engines is None:
            if name not in [host.name for host in self._hosts()]:
                raise NotFound(f"There is no engine named “{name}”.", fix="Look at the list of engines.")
            raise Conflict("Only Docker engines can be emptied.", fix="Stop the server instead.")
        engines.drain(name)

    async def reopen_host(self, name: str) -> None:
        """Place workers on this engine again. Raises NotFound."""
        if (engines := self._engines) is None:
            raise NotFound(f"There is no engine named “{name}”.", fix="Look at the list of engines.")
        engines.reopen(name)

    def plan_drain(self, name: str) -> list[str]:
        """What `drain_host` would do, in words. Raises NotFound."""
        return engines.plan_drain(name) if (engines := self._engines) is not None else ["There are no Docker engines."]

    def plan_scale(self, hosts: int) -> list[str]:
        """What adding or giving up engines until there are so many would do, in words; does nothing."""
        if (engines := self._engines) is not None:
            return engines.plan_scale(hosts)
        return ["Workers run on this machine without Docker, so there are no engines to add or give up."]


def default_rules(name: str, floor: int, *, forecast: bool = True, of: Profile | None = None) -> PoolRules:
    """A floor, and a ceiling that fits the machine: no more than a quarter of its memory if all of them used all of theirs."""
    cores = os.cpu_count() or 1
    wanted = max(16, 4 * cores) if name == SMALL else cores if name == "large" else 2 * cores
    most = max(1, min(wanted, _memory() // 4 // (of or PROFILES[name]).memory))
    return PoolRules(size=floor, ceiling=max(floor, most), forecast=forecast)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _nothing() -> None:
    """There is nothing to take back."""
