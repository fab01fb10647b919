"""The fleet as the rest of the product uses it: jobs of any size, workers held for crews, and what is told beforehand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from nodes.errors import Conflict, NotFound
from runtime.factory import Factory
from runtime.fleet import Fleet, Moved, PoolRules
from runtime.workers.backend import Job, NoWorker
from runtime.workers.choose import open_backend
from runtime.workers.states import WorkerState
from storage import schedule
from tests.conftest import unavailable
from tests.runtime.factories import ADMIN, agent, new_factory
from tests.runtime.test_triggers import deploy

POOLS = {"small": PoolRules(size=1, ceiling=8)}
SLEEP = "import time\ntime.sleep(seconds)\nreturn 'slept'"


def job(code: str = "return 1", **inputs: object) -> Job:
    return Job(uuid4().hex, code, inputs)


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def isolation() -> None:
    try:
        await (await open_backend("off", home="")).close()
    except NoWorker as error:
        unavailable(f"{error.message} {error.fix}")


@pytest.fixture
async def fleet(isolation: None) -> AsyncIterator[Fleet]:
    made = Fleet("off", home=f"test-{uuid4().hex[:12]}", rules=POOLS)
    await made.start()
    yield made
    await made.stop()


def states(fleet: Fleet) -> dict[str, WorkerState]:
    return {worker.id: worker.state for worker in fleet.view().workers}


async def test_a_job_runs_in_a_worker_of_its_size(fleet: Fleet) -> None:
    for size in ("small", "medium"):
        assert (await fleet.run(job(), tenant="acme", profile=size)).value == 1
    view = fleet.view()
    assert {pool.profile for pool in view.pools} == {"small", "medium"}
    assert {worker.profile for worker in view.workers if worker.tenant == "acme"} == {"small", "medium"}
    with pytest.raises(NotFound) as caught:
        await fleet.run(job(), tenant="acme", profile="gigantic")
    assert "medium" in caught.value.fix


async def test_a_held_worker_is_its_members_until_it_is_released(fleet: Fleet) -> None:
    held = await fleet.hold("acme", crew="crew_1", member="writer")
    assert held.room.is_dir()
    assert (await held.run(job())).worker == held.id
    first, second = await asyncio.gather(held.run(job(SLEEP, seconds=0.1)), held.run(job()))
    assert (first.value, second.value) == ("slept", 1)
    [seen] = [worker for worker in fleet.view().workers if worker.id == held.id]
    assert (seen.state, seen.tenant, seen.crew, seen.member, seen.jobs) == ("busy", "acme", "crew_1", "writer", 3)
    assert (await fleet.run(job(), tenant="acme")).worker != held.id
    await held.release()
    await held.release()
    assert states(fleet)[held.id] == "ready" and not held.lost.is_set()
    assert (await held.run(job())).error.kind == "worker_lost"


async def test_who_holds_a_worker_hears_that_it_is_gone(fleet: Fleet) -> None:
    held = await fleet.hold("acme", crew="crew_1", member="writer")
    running = asyncio.create_task(held.run(job(SLEEP, seconds=60)))
    await eventually(lambda: fleet.jobs(held.id))
    await fleet.remove(held.id)
    await asyncio.wait_for(held.lost.wait(), 10)
    assert (await running).error.kind == "worker_lost"
    await held.release()
    await eventually(lambda: held.id not in states(fleet))


async def test_people_put_workers_to_sleep_and_end_them(fleet: Fleet) -> None:
    moves: list[Moved] = []
    forget = fleet.on_move(moves.append)
    first = (await fleet.run(job(), tenant="acme")).worker
    await fleet.hibernate(first)
    assert states(fleet)[first] == "hibernating"
    await fleet.restart(first)
    second = (await fleet.run(job(SLEEP, seconds=0), tenant="acme")).worker
    assert second != first
    running = asyncio.create_task(fleet.run(job(SLEEP, seconds=0.5), tenant="acme"))
    await eventually(lambda: "busy" in states(fleet).values())
    [busy] = [id_ for id_, state in states(fleet).items() if state == "busy"]
    with pytest.raises(Conflict):
        await fleet.hibernate(busy)
    await fleet.drain(busy)
    assert (await running).value == "slept", "it may end its job"
    await eventually(lambda: not {first, busy} & states(fleet).keys())
    for gone in (first, busy, "worker_unknown"):
        with pytest.raises(NotFound):
            await fleet.remove(gone)
    forget()
    whys = {moved.why for moved in moves if moved.after == "draining"}
    assert "somebody restarted it" in whys and all(whys)


async def test_a_worker_that_slept_wakes_for_its_tenant(isolation: None) -> None:
    made = Fleet("off", home=f"test-{uuid4().hex[:12]}", rules={"small": PoolRules(size=0, ceiling=2, forecast=False)})
    first = await made.run(job(), tenant="acme")
    await made.hibernate(first.worker)
    again = await made.run(job(), tenant="acme")
    assert (first.start, again.start, again.worker, again.value) == ("cold", "woken", first.worker, 1)
    jobs = made.jobs(first.worker)
    assert [one.how for one in jobs] == ["ok", "ok"] and jobs[0].began > jobs[1].began
    await made.stop()


# --- what is known beforehand ---------------------------------------------------------------------------------------------


@pytest.fixture
async def factory(isolation: None, tmp_path: Path) -> AsyncIterator[Factory]:
    home = f"test-{uuid4().hex[:12]}"
    async with new_factory(f"sqlite:///{tmp_path}/f.db", home=home, pools=POOLS) as factory:
        await eventually(lambda: factory.fleet.view().pools)
        yield factory


def coder(start: object = "trigger.manual", code: str = "return 1", size: str = "small"):
    """A start, and after it two pieces of code at the same time."""
    settings = {"code": code, "size": size}
    nodes = {"start": start, "a": ("action.run_code", settings), "b": ("action.run_code", settings)}
    port = "moment" if start != "trigger.manual" else "value"
    return agent(nodes, f"start.{port} > a.value", f"start.{port} > b.value")


def expected(factory: Factory, size: str = "small") -> int:
    return sum(pool.expected for pool in factory.fleet.view().pools if pool.profile == size)


async def test_an_opened_test_makes_workers_ready_for_it(factory: Factory) -> None:
    assert expected(factory) == 0
    factory.sandbox.opened(ADMIN, coder())
    factory.sandbox.opened(ADMIN, coder())
    assert expected(factory) == 2
    await eventually(lambda: factory.fleet.view().pools[0].ready >= 2)


async def test_a_schedule_makes_workers_ready_before_its_time(factory: Factory) -> None:
    every = {"mode": "every", "every": 1, "unit": "hours"}
    await deploy(factory, coder(("trigger.schedule", every)))
    await factory.ahead.look()
    assert expected(factory) == 0
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    soon = time.time() + 2
    await factory.db.write(ADMIN.tenant, lambda session: schedule.set_next(session, row.id, soon))
    factory.ahead._looked = 0.0  # the time to look again has come
    await factory.ahead.look()
    assert expected(factory) == 2


async def test_steps_ahead_in_a_run_are_expected_until_it_ends(factory: Factory) -> None:
    nodes = {
        "start": "trigger.manual",
        "first": ("action.run_code", {"code": "return 1", "size": "medium"}),
        "then": ("action.run_code", {"code": SLEEP.replace("seconds", "0.1"), "size": "small"}),
    }
    seen = []
    factory.fleet.on_move(lambda moved: seen.append((moved.profile, expected(factory))))
    run = await factory.sandbox.start(ADMIN, agent(nodes, "start.value > first.value", "first.result > then.value"))
    assert (await factory.runs.wait(ADMIN, run, 30)).info.state == "succeeded"
    assert ("medium", 1) in seen, "while the first one starts, the second is known to come"
    assert expected(factory) == 0


async def test_a_pool_begins_when_its_size_is_first_expected(factory: Factory) -> None:
    factory.sandbox.opened(ADMIN, coder(size="medium"))
    await eventually(lambda: sum(one.profile == "medium" for one in factory.fleet.view().workers) >= 2)


async def test_a_code_step_runs_in_a_worker_of_the_size_that_it_says(factory: Factory) -> None:
    run = await factory.sandbox.start(ADMIN, coder(size="medium"))
    assert (await factory.runs.wait(ADMIN, run, 30)).info.state == "succeeded"
    assert any(worker.profile == "medium" and worker.jobs for worker in factory.fleet.view().workers)
