"""Workers over two real engines, which are stopped, killed and frozen: what can go on goes on, what cannot waits, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from nodes.errors import Conflict
from runtime.workers.backend import Job, Profile
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.hosts import HostRules, Hosts
from runtime.workers.pool import Pool, PoolRules
from tests import services
from tests.conftest import unavailable
from tests.runtime.workers.engines import DockerHost, docker_hosts
from tests.runtime.workers.processes import first_processes

pytestmark = pytest.mark.docker

RULES = HostRules(look=0.2, lost=1.0)


@pytest.fixture(scope="module")
def engines(worker_image: str) -> Iterator[tuple[DockerHost, ...]]:
    try:
        with docker_hosts("one", "two", image=worker_image) as hosts:
            yield hosts
    except services.Missing as missing:
        unavailable(str(missing))


@asynccontextmanager
async def opened(
    engines: tuple[DockerHost, ...], image: str, home: str, *, rules: HostRules = RULES, **pool: object
) -> AsyncIterator[tuple[Pool, Hosts]]:
    backends = {engine.name: DockerBackend(home, url=engine.url, image=image, keep=True) for engine in engines}
    hosts = Hosts(backends, urls={engine.name: engine.url for engine in engines}, rules=rules)
    rooms = rooms_for(home)
    rooms.chmod(0o711)
    await hosts.open()
    try:
        settings = PoolRules(**{"size": 2, "wait_limit": 30.0, **pool})  # type: ignore[arg-type]
        async with Pool(hosts, rooms, profile=Profile(cpus=1), rules=settings) as running:
            await running.until_ready(settings.size)
            yield running, hosts
    finally:
        await hosts.close()
        shutil.rmtree(rooms, ignore_errors=True)


def job(code: str = "return n", **inputs: object) -> Job:
    return Job(uuid4().hex, code, {"n": 1, **inputs}, timeout=20)


async def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def on(pool: Pool, host: str) -> int:
    return sum(worker.host == host and worker.state == "ready" for worker in pool.workers.values())


def state(hosts: Hosts, name: str) -> str:
    return next(host.state for host in hosts.view() if host.name == name)


async def test_members_of_a_crew_are_on_different_engines(engines, worker_image, home):
    async with opened(engines, worker_image, home, size=4, ceiling=8) as (pool, _):
        members = [await pool.hold("acme", crew="red", member=str(number)) for number in range(4)]
        assert sorted(worker.host for worker in members) == ["one", "one", "two", "two"]
    assert all(engine.containers(home) == [] for engine in engines)


async def test_a_host_is_emptied_without_a_job_being_lost(engines, worker_image, home):
    async with opened(engines, worker_image, home, size=3) as (pool, hosts):
        await eventually(lambda: pool.stats().ready == 3)
        name = next(iter(pool.workers.values())).host
        running = [
            asyncio.create_task(pool.run(job("import time\ntime.sleep(1)\nreturn n"), tenant="acme")) for _ in range(3)
        ]
        await eventually(lambda: pool.stats().busy == 3)
        words = hosts.plan_drain(name)
        assert words[0].startswith(f"Nothing new is placed on {name}")
        hosts.drain(name)
        assert [(done.ok, done.tries) for done in await asyncio.gather(*running)] == [(True, 1)] * 3
        other = next(engine.name for engine in engines if engine.name != name)
        await eventually(lambda: on(pool, other) == 3)
        await eventually(lambda: not next(engine for engine in engines if engine.name == name).containers(home))
        assert state(hosts, name) == "draining"
        with pytest.raises(Conflict):
            hosts.drain(other)


async def test_an_engine_that_is_killed_costs_nothing_but_time(engines, worker_image, home):
    async with opened(engines, worker_image, home, size=3) as (pool, hosts):
        name = next(iter(pool.workers.values())).host
        victim, other = sorted(engines, key=lambda engine: engine.name != name)
        victim.signal(signal.SIGKILL)
        try:
            await eventually(lambda: state(hosts, victim.name) in ("away", "lost"))
            assert (await pool.run(job(n=5), tenant="acme")).value == 5
            # Its workers outlive it, until it is given up: then all are on the other.
            await eventually(lambda: state(hosts, victim.name) == "lost" and on(pool, other.name) == 3)
        finally:
            await asyncio.to_thread(victim.start)
        await eventually(lambda: state(hosts, victim.name) == "up" and not victim.containers(home))
        assert (await pool.run(job(n=6), tenant="acme")).value == 6
        assert len(other.containers(home)) == 3


async def test_while_no_engine_is_there_jobs_wait(engines, worker_image, home):
    engine = engines[0]
    async with opened((engine,), worker_image, home, size=1) as (pool, hosts):
        await asyncio.to_thread(engine.signal, signal.SIGTERM)
        for process in first_processes(home):
            os.kill(process, signal.SIGKILL)
        try:
            await eventually(lambda: state(hosts, "one") == "away" and pool.stats().ready == 0)
            waiting = asyncio.create_task(pool.run(job(n=7), tenant="acme"))
            await eventually(lambda: pool.stats().waiting == 1)
            assert "one" in hosts.problem.message
        finally:
            await asyncio.to_thread(engine.start)
        done = await waiting
        assert (done.value, done.start) == (7, "cold")
        await eventually(lambda: len(engine.containers(home)) == 1)
        assert (state(hosts, "one"), hosts.problem) == ("up", None)


async def test_an_engine_that_hangs_is_noticed_and_its_workers_go_on(engines, worker_image, home):
    one, two = engines
    rules = HostRules(look=0.1, answer=0.3, lost=60)
    async with opened(engines, worker_image, home, rules=rules, size=2, ceiling=3) as (pool, hosts):
        engine = next(engine for engine in engines if engine.name == next(iter(pool.workers.values())).host)
        engine.signal(signal.SIGSTOP)
        try:
            await eventually(lambda: state(hosts, engine.name) == "away")
            assert "hangs" in str(hosts._hosts[engine.name].problem)
            jobs = [
                pool.run(job("import time\ntime.sleep(0.3)\nreturn n", n=number), tenant="acme") for number in range(3)
            ]
            done = await asyncio.gather(*jobs)
            assert [one.value for one in done] == [0, 1, 2]
        finally:
            engine.signal(signal.SIGCONT)
        await eventually(lambda: state(hosts, engine.name) == "up")
    assert all(engine.containers(home) == [] for engine in (one, two))


@pytest.mark.parametrize("how", [["pause"], ["rm", "-f"], ["kill"]], ids=" ".join)
async def test_what_others_do_to_a_container_is_seen_at_once(engines, worker_image, home, how):
    engine = engines[0]
    async with opened((engine,), worker_image, home, size=1, heartbeat=60.0) as (pool, _):
        [before] = engine.containers(home)
        running = asyncio.create_task(pool.run(job("import time\ntime.sleep(15)"), tenant="acme"))
        await eventually(lambda: pool.stats().busy == 1)
        engine.docker(*how, before)
        done = await running
        assert done.error.kind == "worker_lost"
        await eventually(lambda: pool.stats().ready == 1)
        assert (await pool.run(job(n=3), tenant="acme")).value == 3
        [after] = engine.containers(home)
        assert after != before


async def test_what_nobody_knows_is_removed_when_an_engine_is_back(engines, worker_image, home):
    engine = engines[0]
    async with opened((engine,), worker_image, home, size=1) as (pool, hosts):
        stray = DockerBackend(home, url=engine.url, image=worker_image, keep=True)
        await stray.open()
        with contextlib.suppress(FileExistsError):
            (pool._rooms / "stray").mkdir()
        await stray.start("stray", pool._rooms / "stray", Profile())
        await stray.close()
        assert len(engine.containers(home)) == 2
        engine.signal(signal.SIGKILL)
        await eventually(lambda: state(hosts, "one") == "away")
        await asyncio.to_thread(engine.start)
        await eventually(lambda: pool.stats().ready == 1 and len(engine.containers(home)) == 1)


async def test_an_engine_can_be_added_and_is_used(engines, worker_image, home):
    async with opened(engines[:1], worker_image, home, size=2) as (pool, hosts):
        assert hosts.plan_scale(2)[0].startswith("1 engine would be added, each like one:")
        with pytest.raises(Conflict):
            await hosts.scale(2)
        await hosts.add("two", DockerBackend(home, url=engines[1].url, image=worker_image, keep=True))
        hosts.drain("one")
        await eventually(lambda: on(pool, "two") == 2)
