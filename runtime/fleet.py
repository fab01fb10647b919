"""The workers of this process: one warm pool, opened in the background so that nobody waits for it before they need it."""

import asyncio

import structlog

from nodes.errors import FactoryError
from runtime.workers.backend import Job, JobResult
from runtime.workers.choose import open_pool
from runtime.workers.pool import Pool, PoolRules, PoolStats

log = structlog.get_logger()


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

    async def run(self, job: Job, *, tenant: str) -> JobResult:
        """Run a job on a worker. Raises NoWorker when none can be had, WorkersBusy when all are busy for too long."""
        if self._keeping is None or (self._keeping.done() and not self._closing.is_set()):
            # Not opened yet, or it could not be: what was missing may be there by now.
            self._open()
        await self._known.wait()
        if self._pool is None:
            assert self._problem is not None
            raise self._problem
        return await self._pool.run(job, tenant=tenant)

    def stats(self) -> PoolStats | None:
        """The pool at a glance, or None while there is none."""
        return self._pool.stats() if self._pool is not None else None

    @property
    def problem(self) -> FactoryError | None:
        """Why there are no workers, if there are none."""
        return self._problem
