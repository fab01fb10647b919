"""A small pool of warm workers: hands a job to a ready worker at once, keeps tenants apart, and heals itself.

A worker belongs to nobody until its first job and to that job's tenant from then on; it is destroyed, never passed on.
Jobs that find no worker wait in the order they came. A worker that dies, hangs or is worn out is replaced.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nodes.errors import FactoryError
from runtime.workers.backend import Backend, Job, JobResult, NoWorker, Profile, WorkersBusy
from runtime.workers.protocol import job_frame
from runtime.workers.states import WorkerState
from runtime.workers.worker import Worker, WorkerLost

CEILING: Final = 8
_STRIKES: Final = frozenset({"timeout", "memory", "killed"})
_STARTING: Final = frozenset({WorkerState.PROVISIONING, WorkerState.WARMING})
_ENDING: Final = frozenset({WorkerState.UNHEALTHY, WorkerState.DRAINING, WorkerState.GONE})
_AT_WORK: Final = frozenset({WorkerState.READY, WorkerState.BUSY})
_OVER: Final = frozenset({WorkerState.DRAINING, WorkerState.GONE})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolRules:
    """How the pool behaves; times in seconds."""

    size: int = 2
    wait_limit: float = 30.0  # a job waits so long for a worker
    queue_limit: int = 10_000
    patience: float = 1.0  # a tenant waits so long before another tenant's worker makes room
    start_limit: float = 20.0
    retire_after_jobs: int = 5_000
    retire_after_strikes: int = 20  # jobs that had to be stopped
    heartbeat: float = 5.0
    silences: int = 3


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool at a glance. `jobs` and `lost` count since the start."""

    ready: int
    busy: int
    starting: int
    size: int
    waiting: int
    jobs: int
    lost: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerMoved:
    """A worker went from one state to another."""

    worker: str
    before: WorkerState
    after: WorkerState
    tenant: str | None
    at: float


@dataclass(slots=True, eq=False)
class _Waiter:
    tenant: str
    since: float
    order: int
    worker: asyncio.Future[Worker]


class Pool:
    """`async with Pool(backend, rooms) as pool: await pool.run(job, tenant=…)`."""

    def __init__(
        self, backend: Backend, rooms: Path, *, profile: Profile | None = None, rules: PoolRules | None = None
    ) -> None:
        rules = rules or PoolRules()
        self.backend = backend
        self.profile = profile or Profile()
        self.rules = replace(rules, size=max(1, min(CEILING, rules.size)))
        self._rooms = rooms
        self._workers: dict[str, Worker] = {}
        self._fresh: deque[Worker] = deque()
        self._idle: dict[str, deque[Worker]] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._order = itertools.count()
        self._observers: list[Callable[[WorkerMoved], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._starts = asyncio.Semaphore((os.cpu_count() or 1) + 1)
        self._running = False
        self._failures = 0
        self._problem: FactoryError | None = None
        self._jobs = 0
        self._lost = 0

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
        self._fill()
        _keep(self._tasks, self._watch())

    async def stop(self) -> None:
        """End all workers and refuse those that wait."""
        self._running = False
        closed = NoWorker("The workers are being shut down.", fix="Run it again when the server is back.")
        for waiter in [waiter for queue in self._waiting.values() for waiter in queue]:
            if not waiter.worker.done():
                waiter.worker.set_exception(closed)
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in list(self._workers.values()):
            if worker.state not in _OVER:
                self._retire(worker)
        await asyncio.gather(*self._ends, return_exceptions=True)
        self._fresh.clear()
        self._idle.clear()

    def on_change(self, observer: Callable[[WorkerMoved], None]) -> Callable[[], None]:
        """Hear of every move of every worker. Returns a function that ends it."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer) if observer in self._observers else None

    def stats(self) -> PoolStats:
        """How it stands now."""
        states = [worker.state for worker in self._workers.values()]
        return PoolStats(
            ready=states.count(WorkerState.READY),
            busy=states.count(WorkerState.BUSY),
            starting=sum(state in _STARTING for state in states),
            size=self.rules.size,
            waiting=self._demand(),
            jobs=self._jobs,
            lost=self._lost,
            problem=self._problem.message if self._problem else None,
        )

    async def until_ready(self, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until so many workers are warm. Raises NoWorker."""
        enough = asyncio.Event()

        def look(_: WorkerMoved | None = None) -> None:
            stats = self.stats()
            if stats.ready + stats.busy >= count:
                enough.set()

        forget = self.on_change(look)
        try:
            look()
            async with asyncio.timeout(timeout):
                await enough.wait()
        except TimeoutError:
            raise self._problem or NoWorker(f"No worker was ready within {timeout:g} seconds.") from None
        finally:
            forget()

    async def run(self, job: Job, *, tenant: str) -> JobResult:
        """Run a job in a worker of this tenant.

        Whatever the code does is in the result; raised are only BadInput, WorkersBusy and NoWorker. Cancelling the
        call ends the job and all its processes.
        """
        frame = job_frame(job, self.profile)
        worker = self._take(tenant) or await self._wait(tenant)
        worker.tenant = tenant
        self._jobs += 1
        try:
            result = await worker.run(job, frame)
        except WorkerLost as lost:
            error = lost.error or await worker.autopsy()
            self._lose(worker)
            return JobResult(ok=False, error=error)
        except BaseException:
            _keep(self._tasks, self._settle(worker))
            raise
        if result.error is not None and result.error.kind in _STRIKES:
            worker.strikes += 1
        self._release(worker)
        return result

    # --- handing out

    def _take(self, tenant: str) -> Worker | None:
        own = self._idle.get(tenant)
        pile = own or self._fresh
        if not self._running or not pile:
            return None
        worker = pile.popleft()  # taking turns lets each rest within its share of the processor
        worker.move(WorkerState.BUSY)
        return worker

    async def _wait(self, tenant: str) -> Worker:
        if not self._running:
            raise NoWorker("The workers are not running.", fix="Run it again when the server is back.")
        if self._demand() >= self.rules.queue_limit:
            raise WorkersBusy(f"{self.rules.queue_limit:,} pieces of code wait for a worker already.", fix=_BUSY_FIX)
        future: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(tenant, time.monotonic(), next(self._order), future)
        self._waiting.setdefault(tenant, deque()).append(waiter)
        self._make_room()
        try:
            async with asyncio.timeout(self.rules.wait_limit):
                return await future
        except BaseException as error:
            self._forget(waiter)
            if future.done() and not future.cancelled() and future.exception() is None:
                self._release(future.result())
            if isinstance(error, TimeoutError):
                raise self._too_late() from None
            raise

    def _too_late(self) -> FactoryError:
        if not any(worker.state in _AT_WORK for worker in self._workers.values()):
            if self._problem is not None:
                return NoWorker(f"No worker could be started: {self._problem.message}", fix=self._problem.fix)
            return NoWorker(f"No worker came up within {self.rules.wait_limit:g} seconds.", fix=_BUSY_FIX)
        return WorkersBusy(f"All workers were busy for {self.rules.wait_limit:g} seconds.", fix=_BUSY_FIX)

    def _forget(self, waiter: _Waiter) -> None:
        queue = self._waiting.get(waiter.tenant)
        if queue and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[waiter.tenant]

    def _release(self, worker: Worker) -> None:
        """A worker is free again, or new: to whom it goes, if to anyone."""
        if worker.state in _ENDING:
            return
        if worker.state is WorkerState.BUSY:
            worker.move(WorkerState.READY)
        worn = worker.jobs >= self.rules.retire_after_jobs or worker.strikes >= self.rules.retire_after_strikes
        if worn or not self._running:
            self._retire(worker)
            return
        waiter = self._next_for(worker)
        if worker.state in _ENDING:
            return
        if waiter is None:
            pile = self._fresh if worker.tenant is None else self._idle.setdefault(worker.tenant, deque())
            pile.append(worker)
            return
        self._forget(waiter)
        worker.move(WorkerState.BUSY)
        if waiter.worker.done():  # it gave up in this very moment
            self._release(worker)
        else:
            waiter.worker.set_result(worker)

    def _next_for(self, worker: Worker) -> _Waiter | None:
        """Who gets this worker. It is retired instead when another tenant needs its place more."""
        if not self._waiting:
            return None
        starved = self._starved()
        if worker.tenant is None:
            return _oldest(starved or self._waiting.values())
        own = self._waiting.get(worker.tenant)
        if own is None:
            if self._starting() < self._demand():
                self._retire(worker)
            return None
        longest = _oldest(starved) if starved else own[0]
        if time.monotonic() - longest.since > self.rules.patience and self._starting() < len(starved):
            self._retire(worker)
            return None
        return own[0]

    def _starved(self) -> list[deque[_Waiter]]:
        """The queues of tenants that have no worker at all."""
        served = {worker.tenant for worker in self._workers.values() if worker.state not in _ENDING}
        return [queue for tenant, queue in self._waiting.items() if tenant not in served]

    def _make_room(self) -> None:
        """Somebody waits: start what is missing, or end another tenant's idle worker."""
        self._fill()
        if self._starting() < self._demand():
            idle = min(
                (pile[0] for pile in self._idle.values() if pile), key=lambda worker: worker.ready_at, default=None
            )
            if idle is not None:
                self._retire(idle)

    def _demand(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def _starting(self) -> int:
        return sum(worker.state in _STARTING for worker in self._workers.values())

    # --- life and death

    def _fill(self) -> None:
        alive = sum(worker.state not in _ENDING for worker in self._workers.values())
        for _ in range(self.rules.size - alive if self._running else 0):
            worker = Worker(self.backend, self.profile, self._rooms, on_move=self._moved, on_lost=self._lose)
            self._workers[worker.id] = worker
            _keep(self._tasks, self._launch(worker))

    async def _launch(self, worker: Worker) -> None:
        try:
            if self._failures:
                await asyncio.sleep(min(30.0, 0.25 * 2**self._failures))
            async with self._starts:
                await worker.launch(self.rules.start_limit)
        except (FactoryError, OSError) as error:
            self._failures += 1
            self._problem = error if isinstance(error, FactoryError) else NoWorker(f"No worker could start: {error}")
            _log.warning("a worker did not start: %s", self._problem.message)
            self._retire(worker)
            return
        self._problem = None
        self._release(worker)

    def _lose(self, worker: Worker) -> None:
        """The worker died, or does not answer any more."""
        if worker.state in _ENDING or worker.state in _STARTING:
            return  # whoever starts or ends it knows already
        self._lost += 1
        if worker.jobs == 0 and time.monotonic() - worker.ready_at < self.rules.heartbeat:
            self._failures += 1  # they die as soon as they live: do not start them in a tight circle
        worker.move(WorkerState.UNHEALTHY)
        self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        for pile in (self._fresh, self._idle.get(worker.tenant or "")):
            if pile and worker in pile:
                pile.remove(worker)
        if worker.tenant is not None and not self._idle.get(worker.tenant):
            self._idle.pop(worker.tenant, None)
        worker.move(WorkerState.DRAINING)
        _keep(self._ends, self._end(worker))
        self._fill()

    async def _end(self, worker: Worker) -> None:
        try:
            await worker.end()
        finally:
            worker.move(WorkerState.GONE)
            del self._workers[worker.id]

    async def _settle(self, worker: Worker) -> None:
        """The caller of a job went away: stop the job, then the worker is free again."""
        if await worker.cancel():
            self._release(worker)
        else:
            self._lose(worker)

    async def _watch(self) -> None:
        """The heartbeat: three unanswered pings and a worker is replaced."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(self.rules.heartbeat)
            now = time.monotonic()
            stalled, last = now - last > 2 * self.rules.heartbeat, now
            for worker in list(self._workers.values()):
                if worker.state not in _AT_WORK:
                    continue
                if stalled:  # it was we who slept
                    worker.silences = 0
                if now - worker.ready_at > self.rules.heartbeat:
                    self._failures = 0
                if worker.silences >= self.rules.silences:
                    self._lose(worker)
                else:
                    worker.ping()

    def _moved(self, worker: Worker, before: WorkerState) -> None:
        if not self._observers:
            return
        moved = WorkerMoved(worker.id, before, worker.state, worker.tenant, time.time())
        for observer in list(self._observers):
            try:
                observer(moved)
            except Exception:
                _log.exception("an observer of the workers failed")


def _oldest(queues: Iterable[deque[_Waiter]]) -> _Waiter:
    return min((queue[0] for queue in queues), key=lambda waiter: waiter.order)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Start a task and hold on to it: the loop alone would let it be collected."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


_BUSY_FIX: Final = "Try again later, make the code faster, or raise the number of workers in the settings."
