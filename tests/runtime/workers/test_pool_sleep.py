"""Workers that sleep, are held and are replaced: on real workers of every backend."""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import uuid4

from runtime.workers.backend import Job, Profile
from runtime.workers.states import WorkerState
from tests.runtime.workers.processes import first_processes

SLEEP = "import time\ntime.sleep(seconds)\nreturn 'slept'"


def job(code: str = "return 1", timeout: float = 20.0, retries: int = 0, **inputs: object) -> Job:
    return Job(uuid4().hex, code, inputs, timeout, retries=retries)


async def eventually(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_worker_that_sleeps_takes_no_memory_and_wakes_for_its_tenant(open_pool, home):
    async with open_pool(size=0, ceiling=2, forecast=False, ready=0) as pool:
        first = await pool.run(job("open('/workspace/x', 'w').write('x')\nreturn 1"), tenant="acme")
        [worker] = pool.workers.values()
        assert (first.start, first.worker) == ("cold", worker.id)
        for _ in range(2):
            assert await pool.sleep(worker)
            assert worker.state is WorkerState.HIBERNATING and first_processes(home) == []
            again = await pool.run(job("import os\nreturn os.listdir('/workspace')"), tenant="acme")
            assert (again.start, again.worker, again.value) == ("woken", worker.id, [])
        assert await pool.sleep(worker)
        other = await pool.run(job(), tenant="globex")
        assert (other.start, other.worker == worker.id) == ("cold", False), "it is another tenant's"
    assert first_processes(home) == []


async def test_a_sleeping_worker_that_is_removed_leaves_nothing(open_pool, home, rooms):
    async with open_pool(size=0, ceiling=2, forecast=False, ready=0) as pool:
        await pool.run(job(), tenant="acme")
        [worker] = pool.workers.values()
        await pool.sleep(worker)
        pool.retire(worker, "somebody removed it")
        await eventually(lambda: not pool.workers)
        assert list(rooms.iterdir()) == []


async def test_a_job_that_was_killed_with_its_worker_is_done_by_another(open_pool, home):
    async with open_pool(size=2) as pool:
        running = asyncio.create_task(pool.run(job(SLEEP, seconds=1, retries=2), tenant="acme"))
        await eventually(lambda: pool.stats().busy == 1)
        for process in first_processes(home):
            os.kill(process, signal.SIGKILL)
        done = await running
        # The second one may have been lost too before anybody knew that it was dead.
        assert done.value == "slept" and done.tries in (2, 3)
        assert pool.stats().lost == 2


async def test_a_job_that_is_too_slow_is_not_tried_again(open_pool):
    async with open_pool(size=1) as pool:
        done = await pool.run(job(SLEEP, seconds=60, timeout=0.3, retries=3), tenant="acme")
        assert (done.error.kind, done.tries) == ("timeout", 1)


async def test_workers_are_exchanged_while_they_work(open_pool, home):
    async with open_pool(size=2) as pool:
        before, going, results = set(pool.workers), True, []

        async def use() -> None:
            while going:
                results.append(await pool.run(job(), tenant="acme"))

        users = [asyncio.create_task(use()) for _ in range(2)]
        pool.renew(Profile(cpus=1, files=1_024))
        await eventually(lambda: not before & set(pool.workers) and pool.stats().ready + pool.stats().busy >= 2)
        going = False
        await asyncio.gather(*users)
        assert results and all(done.ok for done in results)
        assert {worker.profile.files for worker in pool.workers.values()} == {1_024}
        assert pool.stats().lost == 0


async def test_a_worker_that_is_removed_while_it_starts_leaves_nothing(open_pool, home, rooms):
    async with open_pool(size=1, ready=0) as pool:
        for _ in range(4):
            [starting] = [one for one in pool.workers.values() if one.state is not WorkerState.DRAINING]
            await asyncio.sleep(0.05)
            pool.retire(starting, "somebody removed it")
        await pool.until_ready(1)
        await eventually(lambda: len(pool.workers) == 1)
        assert len(first_processes(home)) == 1
        assert len(list(rooms.iterdir())) <= 2  # the room, and of bubblewrap its log
