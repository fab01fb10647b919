"""The workers of this process: one warm pool, opened in the background so that nobody waits for it before they need it."""

import asyncio
from pathlib import Path

import structlog

from nodes.errors import FactoryError
from runtime.workers.backend import Job, JobResult
from runtime.workers.choose import open_pool
from runtime.workers.pool import Pool, PoolRules, PoolStats
from runtime.workers.views import FleetView, Forget, HostView, JobSeen, Moved, Observer, PoolView, Vital, WorkerView

log = structlog.get_logger()

__all__ = ["Fleet", "FleetView", "Held", "HostView", "JobSeen", "Moved", "PoolStats", "PoolView", "Vital", "WorkerView"]


class Held:
    """A worker that belongs to one member of a crew until `release()`. Its jobs run in it one after the other."""

    id: str
    tenant: str
    profile: str
    host: str
    crew: str | None
    member: str | None
    room: Path
    """The folder on this machine that the worker sees as /factory, read only: a socket put here is its own."""
    lost: asyncio.Event
    """Set when the worker is gone, for whatever reason but `release`."""

    async def run(self, job: Job) -> JobResult:
        """Run a job in this worker. A job that is lost with it says so; it is never run elsewhere."""
        raise NotImplementedError

    def owns(self, pid: int) -> bool:
        """Whether this process of the machine runs inside the worker: who calls at a socket in `room` is asked so."""
        raise NotImplementedError

    async def release(self) -> None:
        """Give the worker back to its tenant. Doing it twice does no harm."""
        raise NotImplementedError


class Fleet:
    """Opens the pool, keeps it open, and says why there is none. `setting` is `auto`, `off` or an engine's address."""

    def __init__(self, setting: str, *, home: str, size: int) -> None:
        self._setting = setting
        self._home = home
        self._size = size
        self._pool: Pool | None = None
        self._problem: FactoryError | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._known = asyncio.Event()
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Begin to open the pool, if some workers are to be kept warm; else the first job opens it."""
        if self._size > 0:
            self._open()

    def _open(self) -> None:
        self._known.clear()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        try:
            rules = PoolRules(size=max(1, self._size))
            async with open_pool(self._setting, home=self._home, rules=rules) as pool:
                self._pool, self._problem = pool, None
                self._known.set()
                await self._closing.wait()
        except FactoryError as error:
            self._problem = error
            log.warning("there are no isolated workers", reason=error.message, fix=error.fix)
        finally:
            self._pool = None
            self._known.set()

    async def stop(self) -> None:
        """Close the pool with all its workers."""
        self._closing.set()
        if self._keeping is not None:
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def run(self, job: Job, *, tenant: str, profile: str = "small") -> JobResult:
        """Run a job on a worker of this profile; `job.retries` says how often it is begun anew when its worker is lost. Raises NoWorker when none can be had, WorkersBusy when all are busy for too long."""
        if self._keeping is None or (self._keeping.done() and not self._closing.is_set()):
            # Not opened yet, or it could not be: what was missing may be there by now.
            self._open()
        await self._known.wait()
        if self._pool is None:
            assert self._problem is not None
            raise self._problem
        return await self._pool.run(job, tenant=tenant)

    async def hold(
        self, tenant: str, profile: str = "small", *, crew: str | None = None, member: str | None = None
    ) -> Held:
        """A worker for one member of a crew. Raises NoWorker, WorkersBusy."""
        raise NotImplementedError

    def expect(self, profile: str, count: int, at: float, *, lasts: float = 10.0, key: str = "") -> Forget:
        """So many workers will be wanted at once from about `at` (epoch seconds) on, for `lasts` seconds.

        The same `key` again replaces what was said before. Returns what takes it back.
        """
        raise NotImplementedError

    def view(self) -> FleetView:
        """Everything at this moment."""
        raise NotImplementedError

    def on_move(self, observer: Observer) -> Forget:
        """Hear of every move of every worker. Returns what ends it."""
        raise NotImplementedError

    async def drain(self, worker_id: str) -> None:
        """Let it end its job, then remove it. Raises NotFound."""
        raise NotImplementedError

    async def restart(self, worker_id: str) -> None:
        """End it at once, with its job, and put another one in its place. Raises NotFound."""
        raise NotImplementedError

    async def hibernate(self, worker_id: str) -> None:
        """Put an idle worker to sleep; it wakes when it is wanted. Raises NotFound, Conflict when it is not idle."""
        raise NotImplementedError

    async def remove(self, worker_id: str) -> None:
        """End it at once, with its job. Raises NotFound."""
        raise NotImplementedError

    async def logs(self, worker_id: str) -> list[str]:
        """The last lines that it wrote about itself. Raises NotFound."""
        raise NotImplementedError

    def jobs(self, worker_id: str) -> tuple[JobSeen, ...]:
        """Its last jobs, newest first. Raises NotFound."""
        raise NotImplementedError

    async def drain_host(self, name: str) -> None:
        """Place nothing on this engine any more, and move away what is there. Raises NotFound."""
        raise NotImplementedError

    def plan_scale(self, hosts: int) -> list[str]:
        """What adding or giving up engines until there are so many would do, in words; does nothing."""
        raise NotImplementedError

    def stats(self) -> PoolStats | None:
        """The pool at a glance, or None while there is none."""
        return self._pool.stats() if self._pool is not None else None

    @property
    def problem(self) -> FactoryError | None:
        """Why there are no workers, if there are none."""
        return self._problem
