"""A pool of warm workers of one profile: hands a job to a ready worker at once, keeps tenants apart, and heals itself.

A worker belongs to nobody until its first job and to that job's tenant from then on; it is destroyed, never passed on.
The pool keeps as many workers as `demand.py` says will be wanted, between a floor and a ceiling. A job that finds none ready starts
one, and says so in its result; at the ceiling jobs wait in the order they came. A worker that dies, hangs or is worn out is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import Final

from nodes.errors import FactoryError
from runtime.workers.backend import Job, JobError, JobResult, NoWorker, WorkersBusy
from runtime.workers.hosts import Hosts
from runtime.workers.protocol import job_frame
from runtime.workers.states import AT_WORK, ENDING, OVER
from runtime.workers.stock import AT_ONCE, BUSY, READY, PoolRules, PoolStats, Stock, keep
from runtime.workers.views import JobSeen
from runtime.workers.waiting import Start, Waiter
from runtime.workers.worker import Worker, WorkerLost

__all__ = ["AT_ONCE", "Pool", "PoolRules", "PoolStats"]

_STRIKES: Final = frozenset({"timeout", "memory", "killed"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Got:
    """A worker for a job, and how it was come by."""

    worker: Worker
    start: Start
    waited: float


class Pool(Stock):
    """`async with Pool(backend, rooms) as pool: await pool.run(job, tenant=…)`."""

    async def __aenter__(self) -> Pool:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to fill the pool; does not wait for the first worker."""
        if self._running:
            return
        self._running = True
        if isinstance(self.backend, Hosts):
            self._deaf = self.backend.listen(self._heard_of)
            for left in self.backend.take(self.profile):
                self._adopt(left)
        self._fill()
        keep(self._tasks, self._dog.run())
        keep(self._tasks, self._tend())

    async def stop(self) -> None:
        """End all workers and refuse those that wait."""
        self._running = False
        self._deaf()
        closed = NoWorker("The workers are being shut down.", fix="Run it again when the server is back.")
        for waiter in self._waiting.clear():
            if not waiter.worker.done():
                waiter.worker.set_exception(closed)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in list(self.workers.values()):
            if worker.state not in OVER:
                self.retire(worker, "the server stops")
        await asyncio.gather(*self._ends, return_exceptions=True)
        await self._unfinished.close()
        self._idle.clear()
        self._asleep.clear()

    # --- jobs

    async def run(self, job: Job, *, tenant: str) -> JobResult:
        """Run a job in a worker of this tenant.

        Whatever the code does is in the result; raised are only BadInput, WorkersBusy and NoWorker. Cancelling the
        call ends the job and all its processes. When its worker is lost it begins anew as often as it says.
        """
        if job.run and (done := await self._from_before(tenant, job)) is not None:
            return done
        tries = 0
        while True:
            tries += 1
            token, attempt, frame = self._attempt(job)
            got = await self._get(tenant, job.run)
            result = await self._do(got.worker, token, attempt, frame)
            again = result.error is not None and result.error.kind == "worker_lost" and tries <= job.retries
            if not again or not self._running:
                return replace(result, worker=got.worker.id, start=got.start, waited=got.waited, tries=tries)

    async def _from_before(self, tenant: str, job: Job) -> JobResult | None:
        """The result of a job that an earlier life of the server has begun, if this is one."""
        if self._adopting:
            await asyncio.wait(set(self._adopting))
        return await self._unfinished.claim(tenant, job) if self._unfinished else None

    async def run_held(self, worker: Worker, job: Job) -> JobResult:
        """Run a job in a worker that is held, which has one at a time."""
        await self.settled(worker)
        if worker not in self.held:
            return JobResult(ok=False, error=JobError(kind="worker_lost", message="The worker is gone."))
        token, attempt, frame = self._attempt(job)
        return replace(await self._do(worker, token, attempt, frame), worker=worker.id)

    async def hold(self, tenant: str, *, crew: str | None = None, member: str | None = None) -> Worker:
        """A worker for a member of a crew, until `let_go`. Raises WorkersBusy, NoWorker."""
        if len(self.held) + self._holding >= self.rules.most_held:
            raise WorkersBusy(f"{self.rules.most_held} workers are held by crews already.", fix="Stop a crew first.")
        self._holding += 1
        try:
            worker = (await self._get(tenant, crew=crew)).worker
        finally:
            self._holding -= 1
        worker.tenant, worker.crew, worker.member = tenant, crew, member
        self._belongs(worker, crew)
        self.held[worker] = asyncio.Event()
        self.look_soon()
        return worker

    async def settled(self, worker: Worker) -> None:
        """Return when no job that was given up is left in the worker."""
        while (settling := self._settling.get(worker)) is not None and not settling.done():
            await asyncio.wait((settling,))

    def let_go(self, worker: Worker) -> None:
        """The member does not need its worker any more."""
        if self.held.pop(worker, None) is not None:
            worker.crew = worker.member = None
            self._belongs(worker, None)
            if self._alive() > self.ceiling:
                self.retire(worker, "there are enough without it")
            else:
                self._release(worker)

    def _attempt(self, job: Job) -> tuple[int, Job, bytes]:
        """The job under a new fencing token, as it goes over the wire: no answer to an earlier one can be taken for its."""
        self._token += 1
        attempt = replace(job, id=f"{job.id}.{self._token}")
        return self._token, attempt, job_frame(attempt, self.profile)

    async def _do(self, worker: Worker, token: int, job: Job, frame: bytes) -> JobResult:
        began = self._now()
        worker.token = token
        self.figures.jobs += 1
        seen = JobSeen(job.id, time.time(), None, "")
        worker.history.append(seen)
        try:
            result = await worker.run(job, frame)
        except WorkerLost as lost:
            result = JobResult(ok=False, error=lost.error or await worker.autopsy())
            self.lose(worker, "lost in the middle of a job")
        except BaseException:
            worker.history[-1] = replace(seen, ended=time.time(), how="cancelled")
            settling = self._settling[worker] = keep(self._tasks, self._settle(worker))
            settling.add_done_callback(lambda _: self._settling.pop(worker, None))
            raise
        if result.error is None and worker.token != token:
            self.figures.refused += 1
            result = JobResult(ok=False, error=await worker.autopsy())
        if result.error is not None and result.error.kind in _STRIKES:
            worker.strikes += 1
        worker.history[-1] = replace(seen, ended=time.time(), how=result.error.kind if result.error else "ok")
        if worker not in self.held:
            self.demand.served(self._now() - began)
        self._release(worker)
        return result

    async def _settle(self, worker: Worker) -> None:
        """The caller of a job went away: stop the job, then the worker is free again."""
        if await worker.cancel():
            self._release(worker)
        else:
            self.lose(worker, "a job could not be stopped")

    # --- handing out

    async def _get(self, tenant: str, run: str = "", crew: str | None = None) -> Got:
        self.demand.arrived(run, self._count[BUSY] - len(self.held) + len(self._waiting) + 1)
        if (worker := self._take(tenant, crew)) is not None:
            self.figures.hits += 1
            self.look_soon()
            return Got(worker, "warm", 0.0)
        return await self._wait(tenant)

    def _take(self, tenant: str, crew: str | None = None) -> Worker | None:
        if not self._running:
            return None
        worker = self._apart(tenant, crew) or self._idle.take(tenant) or self._idle.take(None)
        if worker is not None:
            worker.tenant = tenant
            worker.move(BUSY)
        return worker

    def _apart(self, tenant: str, crew: str | None) -> Worker | None:
        """An idle worker on the engine with the fewest of this crew, if there are several engines."""
        if crew is None or not isinstance(self.backend, Hosts):
            return None
        hosts, idle = self.backend, [one for one in self._idle if one.tenant in (tenant, None)]
        worker = min(idle, key=lambda one: (hosts.mates(one.host, crew), one.tenant is None), default=None)
        if worker is not None:
            self._idle.drop(worker)
            hosts.belongs(worker.id, crew)
        return worker

    def _belongs(self, worker: Worker, crew: str | None) -> None:
        if isinstance(self.backend, Hosts):
            self.backend.belongs(worker.id, crew)

    async def _wait(self, tenant: str) -> Got:
        if not self._running:
            raise NoWorker("The workers are not running.", fix="Run it again when the server is back.")
        if len(self._waiting) >= self.rules.queue_limit:
            raise WorkersBusy(f"{self.rules.queue_limit:,} pieces of code wait for a worker already.", fix=_BUSY_FIX)
        waiter = self._waiting.add(tenant, self._now())
        if self._alive() < self.ceiling and (asleep := self._asleep.take(tenant)) is not None:
            self._wake(asleep)
        self._make_room()
        try:
            async with asyncio.timeout(self.rules.wait_limit):
                worker = await waiter.worker
        except BaseException as error:
            self._waiting.forget(waiter)
            future = waiter.worker
            if future.done() and not future.cancelled() and future.exception() is None:
                self._release(future.result())
            if isinstance(error, TimeoutError):
                raise self._too_late() from None
            raise
        waited = self._now() - waiter.since
        start = waiter.start
        self.figures.missed(start)
        if start != "queued":
            _log.info("no worker was ready: one was %s for a job, which waited %.0f ms", start, waited * 1000)
        return Got(worker, start, waited)

    def _too_late(self) -> FactoryError:
        if not any(self._count[state] for state in AT_WORK):
            if self._problem is not None:
                return NoWorker(f"No worker could be started: {self._problem.message}", fix=self._problem.fix)
            return NoWorker(f"No worker came up within {self.rules.wait_limit:g} seconds.", fix=_BUSY_FIX)
        return WorkersBusy(f"All workers were busy for {self.rules.wait_limit:g} seconds.", fix=_BUSY_FIX)

    def _release(self, worker: Worker, start: Start = "queued") -> None:
        """A worker is free again, or new: to whom it goes, if to anyone."""
        if worker.state in ENDING or worker in self.held:
            return
        if worker.state is BUSY:
            worker.move(READY)
        worn = worker.jobs >= self.rules.retire_after_jobs or worker.strikes >= self.rules.retire_after_strikes
        if worn or worker.leaving or not self._running or self._is_replaced(worker):
            self.retire(worker, "worn out" if worn else "it is replaced")
            return
        waiter = self._next_for(worker)
        if worker.state in ENDING:
            return
        if waiter is None:
            worker.idle_since = self._now()
            self._idle.put(worker)
            return
        self._waiting.forget(waiter)
        worker.tenant = waiter.tenant
        worker.move(BUSY)
        if waiter.worker.done():  # it gave up in this very moment
            self._release(worker)
        else:
            waiter.start = start
            waiter.worker.set_result(worker)

    def _next_for(self, worker: Worker) -> Waiter | None:
        """Who gets this worker. It is retired instead when another tenant needs its place more."""
        if not self._waiting:
            return None
        starved = self._starved()
        if worker.tenant is None:
            return self._waiting.oldest(starved or None)
        own = self._waiting.first(worker.tenant)
        if own is None:
            if self._coming() < len(self._waiting):
                self.retire(worker, "another tenant needs its place")
            return None
        longest = self._waiting.oldest(starved) or own
        if self._now() - longest.since > self.rules.patience and self._coming() < len(starved):
            self.retire(worker, "another tenant needs its place")
            return None
        return own

    def _overflow(self) -> int:
        """How many of those who wait are served sooner by a worker that is started for them than by the next one free."""
        waiting, start = len(self._waiting), self.figures.start_seconds()
        oldest = self._waiting.oldest()
        if oldest is None:
            return 0
        working = self._count[BUSY] - len(self.held)
        soon = self.demand.wait(waiting, working) < start and self._now() - oldest.since < start
        missing = len(self._starved()) if soon else waiting
        return missing - self._coming()

    def _starved(self) -> set[str]:
        """The tenants who wait and have no worker at all."""
        served = {one.tenant for one in self.workers.values() if one.state not in ENDING and one not in self.held}
        return self._waiting.tenants() - served

    def _make_room(self) -> None:
        """Somebody waits: start what is missing, or end another tenant's idle worker."""
        self._fill()
        if self._coming() < len(self._waiting):
            idle = min(self._idle.owned(), key=lambda worker: worker.ready_at, default=None)
            if idle is not None:
                self.retire(idle, "another tenant needs its place")


_BUSY_FIX: Final = "Try again later, make the code faster, or raise the number of workers in the settings."
