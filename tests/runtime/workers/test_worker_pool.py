"""The pool hands out, keeps apart, replaces and cleans up: on real workers of every backend."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import defaultdict

import pytest
import uvloop

from runtime.workers.backend import Job, NoWorker, Profile, WorkersBusy
from runtime.workers.choose import open_pool as open_everything
from runtime.workers.pool import PoolRules
from runtime.workers.states import WORKER, WorkerState
from tests.runtime.workers.processes import first_processes

SLEEP = "import time\ntime.sleep(seconds)\nreturn 'slept'"


def job(code: str = "return 1", timeout: float = 20.0, **inputs: object) -> Job:
    return Job(id=f"job-{random.random()}", code=code, inputs=inputs, timeout=timeout)


async def eventually(condition) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_a_worker_killed_in_mid_job_is_reported_and_replaced(open_pool, backend, home):
    async with open_pool(size=2) as pool:
        running = asyncio.create_task(pool.run(job(SLEEP, seconds=60, timeout=90), tenant="acme"))
        await eventually(lambda: pool.stats().busy == 1)
        for process in first_processes(home):
            os.kill(process, signal.SIGKILL)
        done = await running
        assert (done.ok, done.error.kind) == (False, "worker_lost")
        await eventually(lambda: pool.stats().lost == 2)
        await pool.until_ready(2)
        assert (await pool.run(job(), tenant="acme")).value == 1


async def test_a_worker_killed_while_idle_is_replaced_before_anyone_meets_it(open_pool, backend, home):
    async with open_pool(size=1) as pool:
        lost = asyncio.Event()
        pool.on_change(lambda moved: lost.set() if moved.after is WorkerState.UNHEALTHY else None)
        (process,) = first_processes(home)
        os.kill(process, signal.SIGKILL)
        await lost.wait()
        assert (await pool.run(job(), tenant="acme")).value == 1


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_worker_that_hangs_is_found_by_its_silence(open_pool, backend, home, busy):
    async with open_pool(size=1, heartbeat=0.1) as pool:
        running = None
        if busy:
            running = asyncio.create_task(pool.run(job(SLEEP, seconds=60, timeout=90), tenant="acme"))
            await eventually(lambda: pool.stats().busy == 1)
        (process,) = first_processes(home)
        os.kill(process, signal.SIGSTOP)
        if running is not None:
            assert (await running).error.kind == "worker_lost"
        await eventually(lambda: pool.stats().lost == 1 and pool.stats().ready == 1)
        assert (await pool.run(job(), tenant="acme")).value == 1


async def test_a_healthy_busy_worker_is_not_taken_for_a_hanging_one(open_pool):
    async with open_pool(size=1, heartbeat=0.05) as pool:
        done = await pool.run(job("while True: pass", timeout=1.0), tenant="acme")
        assert done.error.kind == "timeout"
        assert pool.stats().lost == 0


async def test_no_worker_ever_serves_two_tenants(open_pool):
    async with open_pool(size=2, patience=0.05) as pool:
        served = defaultdict(set)
        pool.on_change(lambda moved: served[moved.worker].add(moved.tenant) if moved.tenant else None)
        tenants = ["acme", "globex", "initech"]
        results = await asyncio.gather(*(pool.run(job(), tenant=random.choice(tenants)) for _ in range(40)))
        assert all(done.ok for done in results)
        assert all(len(owners) == 1 for owners in served.values()), served
        assert len({owner for owners in served.values() for owner in owners}) == 3


async def test_a_new_tenant_gets_the_place_of_an_idle_worker(open_pool):
    async with open_pool(size=1) as pool:
        assert (await pool.run(job(), tenant="acme")).ok
        assert (await pool.run(job(), tenant="globex")).ok


async def test_a_tenant_that_never_pauses_does_not_starve_another(open_pool):
    async with open_pool(size=1, patience=0.1) as pool:
        stop = asyncio.Event()

        async def greedy() -> None:
            while not stop.is_set():
                await pool.run(job(), tenant="greedy")

        tasks = [asyncio.create_task(greedy()) for _ in range(8)]
        await eventually(lambda: pool.stats().jobs > 20)
        assert (await pool.run(job(), tenant="modest")).ok
        stop.set()
        await asyncio.gather(*tasks)


async def test_jobs_of_a_tenant_are_served_in_the_order_they_came(open_pool):
    async with open_pool(size=1) as pool:
        order = []

        async def one(number: int) -> None:
            await pool.run(job(), tenant="acme")
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        assert order == list(range(20))


async def test_who_waits_too_long_is_told_so_and_the_queue_goes_on(open_pool):
    async with open_pool(size=1, wait_limit=0.2) as pool:
        running = asyncio.create_task(pool.run(job(SLEEP, seconds=1), tenant="acme"))
        await eventually(lambda: pool.stats().busy == 1)
        with pytest.raises(WorkersBusy) as caught:
            await pool.run(job(), tenant="acme")
        assert caught.value.code == "worker.busy"
        assert (await running).value == "slept"
        assert (await pool.run(job(), tenant="acme")).ok
        assert pool.stats().waiting == 0


async def test_the_queue_has_an_end(open_pool):
    async with open_pool(size=1, queue_limit=2) as pool:
        running = [asyncio.create_task(pool.run(job(SLEEP, seconds=0.5), tenant="acme")) for _ in range(3)]
        await eventually(lambda: pool.stats().waiting == 2)
        with pytest.raises(WorkersBusy):
            await pool.run(job(), tenant="acme")
        assert all(done.ok for done in await asyncio.gather(*running))


async def test_one_who_waits_and_gives_up_leaves_no_trace(open_pool):
    async with open_pool(size=1) as pool:
        running = asyncio.create_task(pool.run(job(SLEEP, seconds=0.3), tenant="acme"))
        await eventually(lambda: pool.stats().busy == 1)
        waiting = [asyncio.create_task(pool.run(job(), tenant="acme")) for _ in range(3)]
        await eventually(lambda: pool.stats().waiting == 3)
        waiting[0].cancel()
        waiting[2].cancel()
        done = await asyncio.gather(running, *waiting, return_exceptions=True)
        assert [getattr(one, "ok", type(one)) for one in done] == [
            True,
            asyncio.CancelledError,
            True,
            asyncio.CancelledError,
        ]
        assert (pool.stats().waiting, pool.stats().ready) == (0, 1)


@pytest.mark.parametrize(
    ("rules", "code"),
    [({"retire_after_jobs": 3}, "return 1"), ({"retire_after_strikes": 3}, "import os\nos._exit(1)")],
    ids=["jobs", "strikes"],
)
async def test_a_worn_worker_is_replaced(open_pool, rules, code):
    async with open_pool(size=1, **rules) as pool:
        seen = set()
        pool.on_change(lambda moved: seen.add(moved.worker) if moved.after is WorkerState.BUSY else None)
        for _ in range(7):
            await pool.run(job(code), tenant="acme")
        assert len(seen) == 3
        assert pool.stats().lost == 0


async def test_every_move_is_told_and_follows_the_table(open_pool):
    moves = []
    async with open_pool(size=1, ready=0) as pool:
        pool.on_change(moves.append)
        await pool.until_ready(1)
        await pool.run(job(), tenant="acme")
    lives = defaultdict(list)
    for moved in moves:
        assert moved.after in WORKER[moved.before]
        lives[moved.worker].append(str(moved.after))
    assert list(lives.values()) == [["warming", "ready", "busy", "ready", "draining", "gone"]]


async def test_an_observer_that_fails_harms_nobody(open_pool):
    async with open_pool(size=1) as pool:
        pool.on_change(lambda moved: 1 / 0)
        assert (await pool.run(job(), tenant="acme")).ok


async def test_stopping_refuses_those_who_wait_and_leaves_nothing(open_pool, backend, home, rooms):
    async with open_pool(size=2) as pool:
        tasks = [asyncio.create_task(pool.run(job(SLEEP, seconds=60, timeout=90), tenant="acme")) for _ in range(3)]
        await eventually(lambda: pool.stats().busy == 2 and pool.stats().waiting == 1)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(getattr(one, "code", None) or one.error.kind for one in ended) == [
        "worker.none",
        "worker_lost",
        "worker_lost",
    ]
    assert first_processes(home) == []
    assert list(rooms.iterdir()) == []
    with pytest.raises(NoWorker):
        await pool.run(job(), tenant="acme")


async def test_stopping_while_workers_start_leaves_nothing(open_pool, backend, home, rooms):
    async with open_pool(size=3, ready=0) as pool:
        await eventually(lambda: pool.stats().starting == 3)
        await asyncio.sleep(random.random() / 5)
    await backend.close()
    assert first_processes(home) == []
    assert list(rooms.iterdir()) == []


async def test_under_random_deaths_and_cancellations_every_job_ends_and_the_pool_heals(open_pool, backend, home):
    dice = random.Random(7)
    async with open_pool(size=3, patience=0.1, heartbeat=0.2) as pool:

        async def one(number: int) -> str:
            code = dice.choice(["return 1", "1/0", "import os\nos._exit(1)", "while True: pass", SLEEP])
            task = asyncio.create_task(
                pool.run(job(code, timeout=0.5, seconds=0.05), tenant=dice.choice(["acme", "globex"]))
            )
            if dice.random() < 0.2:
                await asyncio.sleep(dice.random() / 5)
                task.cancel()
            try:
                done = await task
            except asyncio.CancelledError:
                return "cancelled"
            return "ok" if done.ok else done.error.kind

        async def reaper() -> None:
            for _ in range(6):
                await asyncio.sleep(0.3)
                alive = first_processes(home)
                if alive:
                    os.kill(dice.choice(alive), dice.choice([signal.SIGKILL, signal.SIGSTOP]))

        *ends, _ = await asyncio.gather(*(one(number) for number in range(80)), reaper())
        assert len(ends) == 80
        assert {"ok", "exception", "timeout", "killed"} <= set(ends)
        await eventually(lambda: pool.stats().ready == 3 and pool.stats().starting == 0)
        assert (pool.stats().busy, pool.stats().waiting) == (0, 0)
        assert len(first_processes(home)) == 3


def test_it_works_on_the_loop_that_the_server_uses(home):
    async def main() -> list[object]:
        async with open_everything("off", home=home, rules=PoolRules(size=2)) as pool:
            jobs = (pool.run(job("return 'x' * n", n=n * 10_000), tenant="acme") for n in range(30))
            return [len(done.value) for done in await asyncio.gather(*jobs)]

    assert uvloop.run(main()) == [n * 10_000 for n in range(30)]


async def test_a_pool_that_cannot_start_workers_says_why(open_pool):
    async with open_pool(size=1, ready=0, wait_limit=1.0, profile=Profile(shared_memory=-1)) as pool:
        with pytest.raises(NoWorker) as caught:
            await pool.run(job(), tenant="acme")
        assert "could be started" in caught.value.message
        assert pool.stats().problem
