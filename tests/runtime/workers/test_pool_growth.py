"""A pool grows with what is wanted and shrinks when it is not, tells what a job found, and takes in a new image without a gap."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from runtime.workers.backend import Profile, WorkersBusy
from runtime.workers.states import WorkerState
from tests.runtime.workers.in_memory import Engine, job, pool_in_memory, run_quickly

Test = Callable[[Engine], Awaitable[None]]


def quickly(test: Test) -> Callable[[], None]:
    """Run a test in a loop where nothing has to be waited for."""

    @functools.wraps(test)
    def run() -> None:
        run_quickly(test(Engine()))

    del run.__wrapped__  # type: ignore[attr-defined]
    return run


@quickly
async def test_a_job_says_what_kind_of_worker_it_found(engine: Engine) -> None:
    async with pool_in_memory(engine, size=1, ceiling=3, forecast=False) as pool:
        await pool.until_ready(1)
        first, *others = await asyncio.gather(*(pool.run(job(f"j{n}", 5.0), tenant="acme") for n in range(5)))
        assert (first.start, first.waited) == ("warm", 0.0)
        assert Counter(done.start for done in others) == {"cold": 2, "queued": 2}
        assert all(done.waited > 0 and done.worker for done in others)
        view = pool.view()
        assert (view.jobs, view.cold, view.hit_rate) == (5, 2, 0.2)


@quickly
async def test_short_jobs_wait_for_a_worker_that_is_free_sooner_than_a_new_one(engine: Engine) -> None:
    async with pool_in_memory(engine, size=1, ceiling=8, forecast=False) as pool:
        await pool.until_ready(1)
        for _ in range(20):
            await pool.run(job("j", 0.005), tenant="acme")
        await asyncio.sleep(2)
        done = await asyncio.gather(*(pool.run(job("j", 0.005), tenant="acme") for _ in range(20)))
        assert Counter(one.start for one in done) == {"warm": 2, "queued": 18}
        assert len(pool.workers) <= 3


@quickly
async def test_what_is_expected_is_ready_before_it_comes(engine: Engine) -> None:
    async with pool_in_memory(engine, size=1, ceiling=8) as pool:
        await pool.until_ready(1)
        pool.demand.expect(6, asyncio.get_running_loop().time() + 30, key="cron")
        await asyncio.sleep(20)
        assert pool.view().ready == 1
        await asyncio.sleep(10)
        done = await asyncio.gather(*(pool.run(job("j", 1.0, run="cron"), tenant="acme") for _ in range(6)))
        assert [one.start for one in done] == ["warm"] * 6


@quickly
async def test_who_is_not_wanted_hibernates_and_wakes_when_wanted(engine: Engine) -> None:
    async with pool_in_memory(engine, size=1, ceiling=4, ttl=60.0, forget_after=100) as pool:
        await asyncio.gather(*(pool.run(job(f"j{n}", 3.0), tenant="acme") for n in range(4)))
        await asyncio.sleep(600)
        view = pool.view()
        assert view.ready == 1 and view.hibernating >= 3
        assert len(engine.running) == 1 and len(engine.boxes) == 1 + view.hibernating
        own = {worker.id for worker in pool.workers.values() if worker.tenant == "acme"}
        done = await asyncio.gather(*(pool.run(job(f"k{n}", 3.0), tenant="acme") for n in range(3)))
        assert "woken" in {one.start for one in done}
        assert {one.worker for one in done if one.start == "woken"} <= own


@quickly
async def test_who_sleeps_for_very_long_is_removed(engine: Engine) -> None:
    async with pool_in_memory(engine, size=1, ceiling=4, ttl=60.0, forget_after=2.0) as pool:
        await asyncio.gather(*(pool.run(job(f"j{n}", 3.0), tenant="acme") for n in range(4)))
        await asyncio.sleep(2_000)
        assert (pool.view().ready, pool.view().hibernating, len(engine.boxes)) == (1, 0, 1)


@quickly
async def test_a_job_lost_with_its_worker_begins_anew_as_often_as_it_says(engine: Engine) -> None:
    async with pool_in_memory(engine, size=2, ceiling=2) as pool:
        await pool.until_ready(2)
        for retries, kills, ok in ((0, 1, False), (1, 1, True), (2, 2, True), (1, 2, False)):
            running = asyncio.create_task(pool.run(job("j", 9.0, retries=retries), tenant="acme"))
            for _ in range(kills):
                await asyncio.sleep(2)
                [busy] = [one for one in pool.workers.values() if one.state is WorkerState.BUSY]
                busy.die()
            done = await running
            assert (done.ok, done.tries) == (ok, min(kills, retries) + 1)
            assert done.ok or done.error.kind == "worker_lost"
            # Each try had a token of its own, and the answer is that of the last.
            assert not done.ok or done.value.startswith("j.")
            await pool.until_ready(2)


@quickly
async def test_the_answer_of_a_worker_that_was_given_up_is_refused(engine: Engine) -> None:
    async with pool_in_memory(engine, size=2, ceiling=2) as pool:
        await pool.until_ready(2)
        running = asyncio.create_task(pool.run(job("j", 5.0, retries=1), tenant="acme"))
        await asyncio.sleep(1)
        [busy] = [one for one in pool.workers.values() if one.state is WorkerState.BUSY]
        busy._finish(await pool_answer())
        pool.lose(busy, "it does not answer")  # in the very moment in which it answers
        done = await running
        assert (done.ok, done.tries, pool.figures.refused) == (True, 2, 1)
        assert done.worker != busy.id and done.value != "too late"


async def pool_answer():
    from runtime.workers.backend import JobResult

    return JobResult(ok=True, value="too late")


@quickly
async def test_a_new_image_comes_in_without_a_moment_without_workers(engine: Engine) -> None:
    async with pool_in_memory(engine, size=3, ceiling=4) as pool:
        await pool.until_ready(3)
        before, least = set(pool.workers), 9
        working = asyncio.create_task(pool.run(job("j", 30.0), tenant="acme"))
        await asyncio.sleep(0)

        def look(_: object) -> None:
            nonlocal least
            stats = pool.stats()
            least = min(least, stats.ready + stats.busy)

        pool.on_change(look)
        pool.renew(Profile(image="data"))
        await asyncio.sleep(20)
        assert least >= 3, "never fewer than before"
        assert (await working).ok, "a job that ran is not disturbed"
        await asyncio.sleep(20)
        assert not before & set(pool.workers)
        assert {worker.profile.image for worker in pool.workers.values()} == {"data"}
        assert pool.view().ready >= 3


@quickly
async def test_a_new_image_that_does_not_start_leaves_the_old_workers_at_work(engine: Engine) -> None:
    async with pool_in_memory(engine, size=2, ceiling=2) as pool:
        await pool.until_ready(2)
        engine.failing = 10_000
        pool.renew(Profile(image="data"))
        await asyncio.sleep(60)
        assert (await pool.run(job("j"), tenant="acme")).start == "warm"
        assert pool.view().problem


@quickly
async def test_what_a_crew_holds_is_made_up_for(engine: Engine) -> None:
    async with pool_in_memory(engine, size=2, ceiling=2, most_held=3) as pool:
        held = [await pool.hold("acme", crew="c", member=f"m{n}") for n in range(3)]
        await pool.until_ready(5)
        view = pool.view()
        assert (view.ready, view.busy, view.held) == (2, 3, 3)
        with pytest.raises(WorkersBusy):
            await pool.hold("acme")
        assert (await pool.run_held(held[0], job("j"))).worker == held[0].id
        for worker in held:
            pool.let_go(worker)
            pool.let_go(worker)
        await asyncio.sleep(10)
        assert (pool.view().ready, pool.view().held) == (2, 0)


@quickly
async def test_one_who_holds_a_worker_hears_of_its_end(engine: Engine) -> None:
    async with pool_in_memory(engine, size=1, ceiling=2) as pool:
        worker = await pool.hold("acme", crew="c", member="m")
        lost = pool.held[worker]
        worker.die()
        assert lost.is_set()
        assert (await pool.run_held(worker, job("j"))).error.kind == "worker_lost"


@quickly
async def test_without_forecast_nothing_is_started_before_it_is_wanted(engine: Engine) -> None:
    async with pool_in_memory(engine, size=0, ceiling=4, forecast=False, ttl=30.0, forget_after=1.0) as pool:
        await asyncio.sleep(5)
        assert not pool.workers
        assert (await pool.run(job("j"), tenant="acme")).start == "cold"
        assert len(pool.workers) == 1
        await asyncio.sleep(200)
        assert not pool.workers
