"""The workers of one profile: how many there are, how each is started, looked after and ended, and how a new image comes in.

`pool.py` says who gets them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nodes.errors import FactoryError
from runtime.workers.adoption import REDIAL_WITHIN, Unfinished
from runtime.workers.backend import Backend, Box, NoWorker, Profile
from runtime.workers.demand import SPARE, Demand
from runtime.workers.docker import Left
from runtime.workers.figures import Figures
from runtime.workers.hosts import Fate
from runtime.workers.states import AT_WORK, ENDING, OVER, STARTING, WorkerState
from runtime.workers.views import Forget, Moved, Observer, PoolView, WorkerView
from runtime.workers.waiting import Pile, Start, Waiting
from runtime.workers.watchdog import Backoff, Watchdog, WatchRules
from runtime.workers.worker import Worker

READY, BUSY, HIBERNATING = WorkerState.READY, WorkerState.BUSY, WorkerState.HIBERNATING
# Starting is work for the processor: more at once only make the first one late.
AT_ONCE: Final = (os.cpu_count() or 1) + 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolRules:
    """How the pool behaves; times in seconds. `size` is the floor; without a ceiling it is that too."""

    size: int = 2
    ceiling: int | None = None
    forecast: bool = True  # whether workers are started before they are wanted
    ttl: float = 600.0  # an idle worker that is not wanted hibernates after so long
    forget_after: float = 6.0  # and is removed after so many times that
    most_held: int = 64  # by crews, beyond the ceiling
    look: float = 1.0
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


class Stock:
    """The workers of a pool. What is free goes through `_release`."""

    def __init__(
        self,
        backend: Backend,
        rooms: Path,
        *,
        profile: Profile | None = None,
        rules: PoolRules | None = None,
        host: str = "",
        starts: asyncio.Semaphore | None = None,
        make: Callable[..., Worker] = Worker,
        now: Callable[[], float] = time.monotonic,
        demand: Demand | None = None,
    ) -> None:
        rules = rules or PoolRules()
        self.backend = backend
        self.profile = profile or Profile()
        floor = max(0, rules.size)
        self.ceiling = max(1, floor, rules.ceiling if rules.ceiling is not None else floor)
        self.rules = replace(rules, size=floor if rules.ceiling is not None else max(1, floor))
        self.demand = demand or Demand(now=now)
        self.figures = Figures()
        self.host = host or backend.name
        self.workers: dict[str, Worker] = {}
        self.held: dict[Worker, asyncio.Event] = {}
        """Workers that belong to members of crews, and what tells them that theirs is gone."""
        self._holding = 0  # who waits for one to hold
        self._settling: dict[Worker, asyncio.Task[None]] = {}
        self._rooms = rooms
        self._make = make
        self._now = now
        self._idle, self._asleep = Pile(), Pile()
        self._waiting = Waiting()
        self._count: Counter[WorkerState] = Counter()
        self._observers: list[Observer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._starts = starts or asyncio.Semaphore(AT_ONCE)
        self._running = False
        self._launching: dict[Worker, asyncio.Task[None]] = {}
        self._filling = False
        self._backoff = Backoff()
        self._problem: FactoryError | None = None
        # Never one that an earlier life gave: what its jobs answer must not be taken for an answer to ours.
        self._token = time.time_ns() // 1_000_000
        self._unfinished = Unfinished(lambda worker: self._release(worker), lambda worker, why: self.lose(worker, why))
        self._adopting: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._renewing = False
        self._credit = 0
        self._surplus_since: float | None = None
        beat = self.rules.heartbeat
        watch = WatchRules(beat=beat, ping=min(0.45, beat), misses=self.rules.silences)
        self._dog = Watchdog[Worker](
            watch, self._living, lambda worker: self.lose(worker, "it does not answer"), now=self._now
        )
        self._deaf: Forget = _nothing
        self._restarts: list[int] = []
        """How often those were restarted that the next workers take the place of."""

    def on_change(self, observer: Observer) -> Forget:
        """Hear of every move of every worker. Returns a function that ends it."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer) if observer in self._observers else None

    async def until_ready(self, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until so many workers are warm. Raises NoWorker."""
        enough = asyncio.Event()

        def look(_: Moved | None = None) -> None:
            if self._count[READY] + self._count[BUSY] >= count:
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

    def _release(self, worker: Worker, start: Start = "queued") -> None:
        """A worker is free again, or new; `start` is what whoever waited for it is told."""
        raise NotImplementedError

    def _overflow(self) -> int:
        """How many more are needed for those who wait."""
        raise NotImplementedError

    # --- how many

    @property
    def target(self) -> int:
        """How many workers there should be now, at work or ready, without those that crews hold."""
        if self.ceiling == self.rules.size or not self.rules.forecast:
            return self.rules.size
        return max(
            self.rules.size, min(self.ceiling, self.demand.target(self._lead(), min(SPARE, 1 + self.rules.size)))
        )

    def _lead(self) -> float:
        """How long before its time known demand has to be prepared for."""
        return 2.0 + self.figures.start_seconds() * (1 + self.ceiling // AT_ONCE)

    def _coming(self) -> int:
        return self._count[WorkerState.PROVISIONING] + self._count[WorkerState.WARMING]

    def _alive(self) -> int:
        return self._coming() + self._count[READY] + self._count[BUSY] - len(self.held)

    def look_soon(self) -> None:
        """See in a moment whether workers are missing."""
        if not self._filling:
            self._filling = True
            asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        """Start what is missing."""
        self._filling = False
        if not self._running:
            return
        alive, old, target = self._alive(), self._old(), self.target
        missing = max(target - alive + len(old), self._overflow())
        if missing <= 0 and self.rules.size and not self._idle.fresh() and not self._coming():
            missing = 1  # a tenant that comes for the first time finds one too
        room = self.ceiling - alive + (AT_ONCE if old else 0)
        for _ in range(min(missing, room)):
            if (asleep := self._asleep.take(None)) is not None:
                self._wake(asleep)
            else:
                self._start_one()

    def _start_one(self) -> None:
        worker = self._make(self.backend, self.profile, self._rooms, on_move=self._moved, on_lost=self.lose)
        worker.host, worker.generation = self.host, self._generation
        if self._restarts:
            worker.restarts = self._restarts.pop()
            self.figures.restarts += 1
        self._begin(worker)
        self._launching[worker] = keep(self._tasks, self._launch(worker))

    def _begin(self, worker: Worker) -> None:
        self.workers[worker.id] = worker
        self._count[worker.state] += 1
        self._tell(worker, None)

    def _adopt(self, left: Left) -> None:
        """Take over a worker of an earlier life of the server."""
        worker = self._make(
            self.backend, self.profile, self._rooms, on_move=self._moved, on_lost=self.lose, id=left.box.id
        )
        worker.host, worker.generation = left.box.host or self.host, self._generation
        if not left.current:
            worker.generation -= 1
            self._renewing = True
        self._begin(worker)
        taking = self._launching[worker] = keep(self._tasks, self._take_over(worker, left.box))
        self._adopting.add(taking)
        taking.add_done_callback(self._adopting.discard)

    async def _take_over(self, worker: Worker, box: Box) -> None:
        try:
            await worker.adopt(box, REDIAL_WITHIN)
        except Exception as error:
            if worker.state not in ENDING:
                _log.info("a worker that outlived the server is removed: %s", error)
                self.retire(worker, "it could not be taken over")
            return
        finally:
            self._launching.pop(worker, None)
        worker.ready_at = self._now()
        if worker.has_job:
            worker.move(BUSY, "it has a job from before")
            self._unfinished.keep(worker)
        else:
            self._release(worker)

    def _wake(self, worker: Worker) -> None:
        worker.slept = True
        worker.move(WorkerState.WARMING, "wanted")
        self._launching[worker] = keep(self._tasks, self._launch(worker))

    async def _launch(self, worker: Worker) -> None:
        try:
            wait = self._backoff.wait(self._now())
            while wait and worker.state not in ENDING:
                await asyncio.sleep(min(wait, 1.0))
                wait = self._backoff.wait(self._now())
            async with self._starts:
                began = self._now()
                await (worker.wake if worker.slept else worker.launch)(self.rules.start_limit)
        except Exception as error:
            if worker.state in ENDING:
                return  # it was not wanted any more
            known = isinstance(error, FactoryError)
            self._problem = error if isinstance(error, FactoryError) else NoWorker(f"No worker could start: {error}")
            if not worker.slept:  # who cannot be woken says nothing about new ones
                self._backoff.failed(self._now(), self._problem.message)
            _log.warning("a worker did not start: %s", self._problem.message, exc_info=not known)
            self.retire(worker, "it did not start")
            return
        finally:
            self._launching.pop(worker, None)
        worker.ready_at = self._now()
        self.figures.started(worker.ready_at - began)
        self._problem = None
        if self._renewing and worker.generation == self._generation:
            self._credit += 1
        self._release(worker, "woken" if worker.slept else "cold")
        if self._renewing:
            self._shed()

    # --- a new image

    def renew(self, profile: Profile | None = None) -> None:
        """From now on workers are started from this profile; each new one that is ready takes the place of an old one."""
        self.profile = profile or self.profile
        self._generation += 1
        self._renewing, self._credit = True, 0
        for worker in [one for one in self.workers.values() if one.state in STARTING or one.state is HIBERNATING]:
            self.retire(worker, "there is a new image")
        self._fill()
        self._shed()

    def _old(self) -> list[Worker]:
        if not self._renewing:
            return []
        return [
            worker
            for worker in self.workers.values()
            if worker.generation < self._generation
            and (worker.state in AT_WORK or worker.state in STARTING)
            and worker not in self.held
        ]

    def _is_replaced(self, worker: Worker) -> bool:
        """Whether a worker of an old image has to go now; one goes for each new one that is ready."""
        if worker.generation == self._generation:
            return False
        at_work = self._count[READY] + self._count[BUSY] - len(self.held)
        old = sum(one.state in AT_WORK for one in self._old())
        enough = at_work > self.ceiling or at_work - old >= self.target
        if self._renewing and self._credit <= 0 and not enough:
            return False
        self._credit -= 1
        return True

    def _shed(self) -> None:
        for worker in [worker for worker in self._idle if worker.generation < self._generation]:
            if self._is_replaced(worker):
                self.retire(worker, "there is a new image")
        if not self._old():
            self._renewing, self._credit = False, 0

    # --- life and death

    def lose(self, worker: Worker, why: str = "it died") -> None:
        """The worker died, or does not answer any more."""
        if worker.state not in AT_WORK:
            return  # whoever starts or ends it knows already
        self.figures.lost += 1
        if worker.jobs == 0 and self._now() - worker.ready_at < self.rules.heartbeat:
            self._backoff.failed(self._now(), why)  # they die as soon as they live: do not start them in a tight circle
        worker.move(WorkerState.UNHEALTHY, why)
        self._restarts.append(worker.restarts + 1)
        self.retire(worker, why)

    def _heard_of(self, worker_id: str, fate: Fate, why: str) -> None:
        """An engine tells what became of a worker, or is to."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        if fate == "leave":
            self.drain(worker, why)
        elif worker.state is BUSY and worker.online:
            worker.cut()  # whoever waits for its job first asks what it died of
        else:
            self.lose(worker, why)

    def retire(self, worker: Worker, why: str = "") -> None:
        """End a worker with whatever it does; another one takes its place if there are too few."""
        if worker.state in OVER:
            return
        self._idle.drop(worker)
        self._asleep.drop(worker)
        worker.token = 0
        worker.move(WorkerState.DRAINING, why)
        gone = self.held.pop(worker, None)
        if gone is not None:
            gone.set()
        keep(self._ends, self._end(worker))
        self._fill()

    def drain(self, worker: Worker, why: str = "somebody removed it") -> None:
        """End a worker when its job has ended."""
        worker.leaving = True
        if worker.state is not BUSY:
            self.retire(worker, why)

    def restart(self, worker: Worker) -> None:
        """Put another one in its place at once."""
        self._restarts.append(worker.restarts + 1)
        self.retire(worker, "somebody restarted it")

    async def _end(self, worker: Worker) -> None:
        if (launching := self._launching.get(worker)) is not None:
            # What is being started is ended when it is there: else nobody would know of it.
            await asyncio.wait((launching,))
        try:
            await worker.end()
        finally:
            worker.move(WorkerState.GONE)
            self._count[WorkerState.GONE] -= 1
            del self.workers[worker.id]

    async def sleep(self, worker: Worker) -> bool:
        """Let an idle worker hibernate. False when it is not idle."""
        if worker.state is not READY or not self._idle.drop(worker):
            return False
        if worker.generation < self._generation:
            self.retire(worker, "there is a new image")
            return False
        worker.move(HIBERNATING, "idle")
        try:
            await worker.rest()
        except FactoryError as error:
            _log.warning("a worker could not hibernate: %s", error.message)
            if worker.state is HIBERNATING:
                self.retire(worker, "it could not hibernate")
            return False
        if worker.state is HIBERNATING:
            worker.idle_since = self._now()
            self._asleep.put(worker)
        return True

    async def _tend(self) -> None:
        """Now and then: as many workers as will be wanted, and those that are not rest."""
        while True:
            await asyncio.sleep(self.rules.look)
            self._fill()
            for worker in self._unwanted():
                keep(self._tasks, self._rest(worker))
            limit = self._now() - self.rules.ttl * self.rules.forget_after
            for worker in [worker for worker in self._asleep if worker.idle_since < limit]:
                self.retire(worker, "it was not wanted for long")

    async def _rest(self, worker: Worker) -> None:
        await self.sleep(worker)

    def _unwanted(self) -> list[Worker]:
        """The idle workers that have been too many for long enough."""
        now, surplus = self._now(), self._alive() - self.target
        if surplus <= 0:
            self._surplus_since = None
            return []
        self._surplus_since = now if self._surplus_since is None else self._surplus_since
        long = now - self._surplus_since >= self.rules.ttl
        idle = [worker for worker in self._idle if long or now - worker.idle_since >= self.rules.ttl]
        idle.sort(key=lambda worker: (worker.tenant is None, worker.idle_since))
        if self.rules.size and idle and self._idle.fresh() == sum(worker.tenant is None for worker in idle) > 0:
            idle.pop()  # one that nobody has used yet stays
        return idle[:surplus]

    def _living(self) -> Iterator[Worker]:
        now = self._now()
        for worker in self.workers.values():
            if worker.state in AT_WORK:
                if worker.jobs or now - worker.ready_at > self.rules.heartbeat:
                    self._backoff.lived(worker.ready_at)
                yield worker

    # --- to be looked at

    def stats(self) -> PoolStats:
        """How it stands now."""
        return PoolStats(
            ready=self._count[READY],
            busy=self._count[BUSY],
            starting=self._coming(),
            size=self.rules.size,
            waiting=len(self._waiting),
            jobs=self.figures.jobs,
            lost=self.figures.lost,
            problem=self._words(),
        )

    def view(self) -> PoolView:
        """How it stands now, in full."""
        p50, p95 = self.figures.starts()
        return PoolView(
            profile=self.profile.name,
            target=self.target,
            floor=self.rules.size,
            ceiling=self.ceiling,
            ready=self._count[READY],
            busy=self._count[BUSY],
            held=len(self.held),
            starting=self._coming(),
            hibernating=self._count[HIBERNATING],
            waiting=len(self._waiting),
            jobs=self.figures.jobs,
            lost=self.figures.lost,
            cold=self.figures.cold,
            hit_rate=self.figures.hit_rate(),
            demand=self.demand.rate(),
            expected=self.demand.known(self._lead()),
            starts_p50=p50,
            starts_p95=p95,
            problem=self._words(),
            restarts=self.figures.restarts,
        )

    def _words(self) -> str | None:
        looping = self._backoff.words(self._now())
        return looping or (self._problem.message if self._problem else None)

    def workers_view(self) -> tuple[WorkerView, ...]:
        """Each of its workers now."""
        return tuple(
            WorkerView(
                id=one.id,
                profile=one.profile.name,
                host=one.host,
                state=one.state,
                tenant=one.tenant,
                crew=one.crew,
                member=one.member,
                since=one.since,
                jobs=one.jobs,
                restarts=one.restarts,
                vital=one.vital,
            )
            for one in self.workers.values()
        )

    def _moved(self, worker: Worker, before: WorkerState) -> None:
        self._count[before] -= 1
        self._count[worker.state] += 1
        self._tell(worker, before)

    def _tell(self, worker: Worker, before: WorkerState | None) -> None:
        if not self._observers:
            return
        moved = Moved(
            worker.id,
            worker.profile.name,
            worker.host,
            before,
            worker.state,
            worker.tenant,
            worker.crew,
            worker.why,
            time.time(),
        )
        for observer in list(self._observers):
            try:
                observer(moved)
            except Exception:
                _log.exception("an observer of the workers failed")


def _nothing() -> None:
    """There is nothing to end."""


def keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task and hold on to it: the loop alone would let it be collected."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
