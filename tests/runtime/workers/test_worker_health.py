"""Health of real workers: they tell how they are, and a server that stood still does not take it out on them."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from runtime.workers.backend import Job, JobResult
from runtime.workers.pool import Pool


def job(code: str) -> Job:
    return Job(uuid4().hex, code, timeout=20)


async def test_vital_figures_are_seen(open_pool):
    async with open_pool(size=1) as pool:
        running = asyncio.create_task(pool.run(job("while True: pass"), tenant="acme"))
        async with asyncio.timeout(15):
            while (vital := pool.workers_view()[0].vital) is None:
                await asyncio.sleep(0.02)
        running.cancel()
        assert vital.at > 0
        assert 0 < vital.memory < 128 * 1024 * 1024
        assert 1 <= vital.processes <= 64


async def test_a_server_that_stood_still_blames_no_worker(open_pool):
    async with open_pool(size=2, heartbeat=0.1) as pool:
        told = await with_stalls(pool)
        assert all(done.ok for done in told)
        assert pool.stats().lost == 0


async def with_stalls(pool: Pool) -> list[JobResult]:
    code = "import time\ntime.sleep(1)"
    jobs = [asyncio.create_task(pool.run(job(code), tenant="acme")) for _ in range(2)]
    for _ in range(2):
        await asyncio.sleep(0.15)
        time.sleep(0.7)
    return list(await asyncio.gather(*jobs))
