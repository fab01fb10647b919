"""Workers without a process, and a loop whose time passes at once: for what is asked of the pool, and not of isolation.

The pool is the real one. Its workers only wait as long as the job says, and live in an `Engine`, which counts what there is.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from runtime.workers.backend import Job, JobError, JobResult, NoWorker, Profile
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.states import WorkerState
from runtime.workers.worker import Worker, WorkerLost

T = TypeVar("T")


class _NoWait(selectors.DefaultSelector):
    loop: QuickLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        self.loop.passed += max(0.0, timeout)
        return super().select(0)


class QuickLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: the time of what comes next is there at once."""

    def __init__(self) -> None:
        self.passed = 1_000.0
        selector = _NoWait()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.passed


def run_quickly(main: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own, in no time."""
    loop = QuickLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


class Engine:
    """Where boxes are: how long they take to start, whether they do, and which there are."""

    name = "memory"
    room_owner: int | None = None

    def __init__(self, *, start: float = 0.4, wake: float = 0.35, seed: int = 1) -> None:
        self.start_time, self.wake_time = start, wake
        self.failing = 0
        self.boxes: set[str] = set()
        self.running: set[str] = set()
        self.dice = random.Random(seed)

    async def work(self, seconds: float) -> None:
        """Take about so long, or fail."""
        await asyncio.sleep(seconds * self.dice.uniform(0.8, 1.4))
        if self.failing:
            self.failing -= 1
            raise NoWorker("The engine has no room.")


class QuickWorker(Worker):
    """Does what a worker does, as far as a pool can tell."""

    def __init__(self, backend: Engine, *given: Any, **named: Any) -> None:
        super().__init__(backend, *given, **named)
        self.engine = backend
        self.jobs_of: list[str] = []
        self._running: asyncio.Future[JobResult] | None = None

    async def launch(self, patience: float) -> None:
        self.engine.boxes.add(self.id)
        await self.engine.work(self.engine.start_time / 2)
        self.engine.running.add(self.id)
        self.move(WorkerState.WARMING)
        await self.engine.work(self.engine.start_time / 2)
        self.move(WorkerState.READY)

    async def rest(self) -> None:
        await self.engine.work(0.05)
        self.engine.running.discard(self.id)

    async def wake(self, patience: float) -> None:
        await self.engine.work(self.engine.wake_time)
        self.engine.running.add(self.id)
        self.move(WorkerState.READY)

    async def run(self, job: Job, frame: bytes) -> JobResult:
        self.jobs += 1
        if self.id not in self.engine.running:
            raise WorkerLost
        loop = asyncio.get_running_loop()
        self._running = loop.create_future()
        timer = loop.call_later(job.inputs["seconds"], self._finish, JobResult(ok=True, value=job.id))
        try:
            return await asyncio.shield(self._running)
        finally:
            timer.cancel()

    def _finish(self, result: JobResult) -> None:
        if self._running is not None and not self._running.done():
            self._running.set_result(result)

    async def cancel(self) -> bool:
        await asyncio.sleep(0.002)
        self._finish(JobResult(ok=False))
        return self.id in self.engine.running

    def ping(self) -> None:
        self.pulse.fresh = self.id in self.engine.running

    def die(self) -> None:
        """What a kill does: the line breaks, and whoever waits hears of it."""
        self.engine.running.discard(self.id)
        if self._running is not None and not self._running.done():
            self._running.set_exception(WorkerLost())
            self._running.exception()
        else:
            self._on_lost(self)

    async def end(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.set_exception(WorkerLost())
            self._running.exception()
        await asyncio.sleep(0.05)
        self.engine.boxes.discard(self.id)
        self.engine.running.discard(self.id)

    async def autopsy(self) -> JobError:
        return JobError(kind="worker_lost", message="The worker was lost.")


def pool_in_memory(engine: Engine, *, profile: Profile | None = None, **rules: Any) -> Pool:
    """A pool of such workers, in the time of the loop."""
    settings = PoolRules(**{"size": 2, "ceiling": 8, "wait_limit": 600.0, **rules})
    now = asyncio.get_running_loop().time
    return Pool(engine, Path("/nowhere"), profile=profile, rules=settings, make=QuickWorker, now=now)


def job(name: str, seconds: float = 0.05, **more: Any) -> Job:
    """A job that takes so long."""
    return Job(name, "", {"seconds": seconds}, timeout=300, **more)
