"""A server is killed; its workers go on, the next one takes them over with their owners and their jobs, and nothing is doubled."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import docker as docker_library
import pytest

from runtime.workers.adoption import Note, job_key
from runtime.workers.backend import Job, Profile
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.rooms import place_of_rooms
from runtime.workers.store import Parcel, Store
from tests import services
from tests.runtime.workers.first_life import hosts_of, rooms_of, step
from tests.runtime.workers.processes import first_processes

docker = pytest.mark.docker


async def live_and_die(home: str, engines: str, image: str, seconds: float) -> None:
    """One life: it begins two jobs, and is killed."""
    module = [sys.executable, "-m", "tests.runtime.workers.first_life"]
    life = await asyncio.create_subprocess_exec(
        *module, home, engines, image, str(seconds), cwd=services.ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert life.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await life.stdout.readline() == b"running\n"
    finally:
        life.kill()
    await life.wait()


@asynccontextmanager
async def next_life(home: str, engines: str, image: str, **rules: object) -> AsyncIterator[Pool]:
    with hosts_of(home, engines, image) as hosts:
        await hosts.open()
        rooms = rooms_of(hosts, home)
        settings = PoolRules(**{"size": 3, **rules})  # type: ignore[arg-type]
        try:
            async with Pool(hosts, rooms, profile=Profile(cpus=1), rules=settings) as pool:
                await hosts.drop_survivors()
                yield pool
        finally:
            await hosts.close()
            shutil.rmtree(rooms, ignore_errors=True)


@docker
@pytest.mark.parametrize(
    ("through", "seconds", "pause"),
    [("", 0.5, 1.0), ("", 2.5, 0.0), ("broker+", 2.0, 0.0)],
    ids=["results wait", "jobs run", "jobs run behind a broker"],
)
async def test_workers_and_their_jobs_outlive_the_server(docker_engine, worker_image, home, through, seconds, pause):
    engines = f"{through}docker={docker_engine}"
    await live_and_die(home, engines, worker_image, seconds)
    before = set(first_processes(home))
    assert len(before) == 3
    await asyncio.sleep(pause)
    async with next_life(home, engines, worker_image) as pool:
        done = await asyncio.gather(*(pool.run(step(n, seconds), tenant=f"t{n}") for n in range(2)))
        assert [one.value[0] for one in done] == [0, 1]
        await pool.until_ready(3)
        assert set(first_processes(home)) == before, "nobody was started anew"
        assert pool.stats().jobs == 0, "what ran was not run again"
        owners = sorted(str(worker.tenant) for worker in pool.workers.values())
        assert owners == ["None", "t0", "t1"]
        assert (await pool.run(Job("k", "return 5"), tenant="t0")).value == 5
    assert first_processes(home) == []


@docker
async def test_workers_of_an_older_image_end_their_jobs_and_are_replaced(docker_engine, worker_image, home):
    old = f"agent-factory/{home}:old"
    client = docker_library.DockerClient(base_url=docker_engine)
    client.images.get(worker_image).tag(old)
    try:
        engines = f"docker={docker_engine}"
        await live_and_die(home, engines, old, 1.5)
        before = set(first_processes(home))
        async with next_life(home, engines, worker_image) as pool:
            at_work = []
            pool.on_change(lambda _: at_work.append(pool.stats().ready + pool.stats().busy))
            done = await asyncio.gather(*(pool.run(step(n, 1.5), tenant=f"t{n}") for n in range(2)))
            assert [one.value[0] for one in done] == [0, 1]
            assert pool.stats().jobs == 0, "what ran was not run again"
            async with asyncio.timeout(30):
                while before & set(first_processes(home)) or pool.stats().ready < 3:
                    await asyncio.sleep(0.02)
            first = at_work.index(3) if 3 in at_work else 0
            assert min(at_work[first:]) >= 2, "one goes when another is there"
    finally:
        client.images.remove(old, noprune=True)
        client.close()


@docker
async def test_what_belongs_to_nobody_known_is_not_adopted(docker_engine, worker_image, home):
    engines = f"docker={docker_engine}"
    await live_and_die(home, engines, worker_image, 0.0)
    before = set(first_processes(home))
    notes = list(place_of_rooms(home).glob("*/owner"))
    assert [note.stat().st_mode & 0o777 for note in notes] == [0o600, 0o600]
    for note in notes:
        note.unlink()
    async with next_life(home, engines, worker_image) as pool:
        await pool.until_ready(3)
        assert len(before & set(first_processes(home))) == 1, "only the one that had no job"


@docker
async def test_a_job_that_nobody_asks_for_again_is_ended(docker_engine, worker_image, home, monkeypatch):
    monkeypatch.setattr("runtime.workers.adoption.CLAIM_WITHIN", 0.2)
    engines = f"docker={docker_engine}"
    await live_and_die(home, engines, worker_image, 20.0)
    async with next_life(home, engines, worker_image) as pool:
        async with asyncio.timeout(15):
            while pool.stats().ready < 3:
                await asyncio.sleep(0.02)
        assert (pool.stats().busy, pool.stats().lost) == (0, 0)


@docker
async def test_who_asks_for_a_job_from_before_may_give_it_up(docker_engine, worker_image, home):
    engines = f"docker={docker_engine}"
    await live_and_die(home, engines, worker_image, 20.0)
    async with next_life(home, engines, worker_image) as pool:
        asking = asyncio.create_task(pool.run(step(0, 20.0), tenant="t0"))
        async with asyncio.timeout(15):
            while pool.stats().busy < 2 or len(pool._unfinished) > 1:  # until it was asked for
                await asyncio.sleep(0.02)
            asking.cancel()
            while pool.stats().busy > 1:
                await asyncio.sleep(0.02)
        assert pool.stats().lost == 0


def test_a_note_is_read_as_it_was_written(tmp_path):
    assert Note.read(tmp_path) is None
    for note in (Note("acme"), Note("acme", "red")):
        note.write(tmp_path)
        assert Note.read(tmp_path) == note
    for rubbish in ("", "[]", "{}", '{"tenant"'):
        (tmp_path / "owner").write_text(rubbish)
        assert Note.read(tmp_path) is None


def test_a_job_is_the_same_by_its_run_code_and_inputs():
    same = job_key(Job("a", "return 1", {"n": 1}, run="r"))
    assert job_key(Job("b", "return 1", {"n": 1}, timeout=3, run="r")) == same
    others = [
        Job("a", "return 1", {"n": 1}, run="s"),
        Job("a", "return 2", {"n": 1}, run="r"),
        Job("a", "return 1", {"n": 2}, run="r"),
    ]
    assert len({job_key(job) for job in others} | {same}) == 4
    assert job_key(Job("a", "return 1", {"n": 1})) == ""


def test_a_job_with_files_is_begun_anew(tmp_path):
    assert job_key(Job("a", "return 1", run="r", parcel=Parcel(Store(tmp_path), "acme", fetch=("a",)))) == ""
