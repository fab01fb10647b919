"""Workers are killed again and again while agents run code: every run ends, right or with the reason that its policy leaves.

FACTORY_SOAK_WORKERS says how many workers of each kind are killed (20 if unset).
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from nodes.blueprint import Blueprint, Edge, Placed, Policy
from runtime.factory import Factory
from runtime.workers.backend import NoWorker
from runtime.workers.choose import open_backend
from runtime.workers.pool import PoolRules
from runtime.workers.states import AT_WORK
from tests.chaos.report import note
from tests.conftest import unavailable
from tests.runtime.factories import ADMIN, new_factory
from tests.runtime.workers.processes import first_processes, workers_of

KILLS = int(os.environ.get("FACTORY_SOAK_WORKERS", "20"))
POOL = 4
CLIENTS = 10
RETRIES = 5

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300 + 5 * KILLS)]

CODE = "import time\ntime.sleep(seconds)\nreturn {'n': n, 'square': n * n}"


def coder(name: str, retries: int) -> Blueprint:
    """Starts by hand, works out a square in a worker, keeps it in a table."""
    columns = [{"name": "n", "value": "{{ n }}"}, {"name": "square", "value": "{{ square }}"}]
    nodes = [
        Placed(id="in", type="trigger.manual"),
        Placed(
            id="code", type="action.run_code", settings={"code": CODE}, policy=Policy(retries=retries, first_delay=0.05)
        ),
        Placed(id="keep", type="action.write_row", settings={"table": name, "write": "columns", "columns": columns}),
    ]
    wires = [("in", "value", "code", "value"), ("code", "result", "keep", "value")]
    edges = [
        Edge(id=f"e{number}", source=source, source_port=out, target=target, target_port=into)
        for number, (source, out, target, into) in enumerate(wires)
    ]
    return Blueprint(name=name, nodes=nodes, edges=edges)


class Load:
    """Clients that start runs all the time, and what became of each run that was accepted."""

    def __init__(self, factory: Factory, agents: dict[str, str], dice: random.Random) -> None:
        self.factory, self.agents, self.dice = factory, agents, dice
        self.accepted: dict[str, tuple[str, int]] = {}
        self.going = True

    async def client(self, number: int) -> None:
        names = sorted(self.agents)
        count = number
        while self.going:
            name = names[count // CLIENTS % 2]
            seconds = self.dice.choice([0.0, 0.01, 0.05, 0.3])
            run = await self.factory.runs.start(ADMIN, self.agents[name], {"n": count, "seconds": seconds})
            self.accepted[run] = (name, count)
            await self.factory.runs.wait(ADMIN, run, 120)
            count += CLIENTS


async def kill_again_and_again(factory: Factory, home: str, kills: int, dice: random.Random) -> int:
    """Kill workers that are ready or busy at any moment, for what dies at birth is another matter; returns how many were."""
    killed, until = 0, time.monotonic() + 60 + 3 * kills
    while killed < kills:
        assert time.monotonic() < until, f"only {killed} workers could be killed: the pool does not heal"
        await asyncio.sleep(dice.uniform(0.0, 0.2))
        processes = workers_of(home)
        grown = [one for one in factory.fleet.view().workers if one.state in AT_WORK and one.id in processes]
        busy = [one for one in grown if one.state == "busy"]
        if grown:
            victim = processes[dice.choice(busy if busy and dice.random() < 0.5 else grown).id]
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
    return killed


@pytest.mark.docker
async def test_every_run_ends_when_workers_in_docker_are_killed(
    tmp_path: Path, docker_engine: str, worker_image: str
) -> None:
    await under_kills(tmp_path, docker_engine, "workers in Docker killed", KILLS)


async def test_every_run_ends_when_workers_in_bubblewrap_are_killed(tmp_path: Path) -> None:
    try:
        await (await open_backend("off", home="")).close()
    except NoWorker as error:
        unavailable(f"{error.message} {error.fix}")
    await under_kills(tmp_path, "off", "workers in bubblewrap killed", KILLS)


async def under_kills(folder: Path, docker: str, what: str, kills: int) -> None:
    seed = int(os.environ.get("FACTORY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    print(f"\nFACTORY_SOAK_SEED={seed} repeats the choices of these {kills} kills.")
    dice, home = random.Random(seed), f"test-{uuid4().hex[:12]}"
    pools = {"small": PoolRules(size=POOL)}
    options = {"docker": docker, "pools": pools, "home": home, "ticking": True}
    async with new_factory(f"sqlite:///{folder}/factory.db", **options) as factory:
        agents = {}
        for name, retries in (("once", 0), ("again", RETRIES)):
            agents[name] = (await factory.blueprints.create(ADMIN, coder(name, retries))).id
            await factory.deployments.deploy(ADMIN, agents[name])
        load = Load(factory, agents, dice)
        clients = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
        killed = await kill_again_and_again(factory, home, kills, dice)
        load.going = False
        await asyncio.gather(*clients)

        # Healed: as many workers as before, nobody waits, and code runs.
        async with asyncio.timeout(60):
            while (stats := factory.fleet.stats()) is None or (stats.ready, stats.waiting) != (POOL, 0):
                await asyncio.sleep(0.05)
        assert len(first_processes(home)) == POOL
        run = await factory.runs.start(ADMIN, agents["once"], {"n": -1, "seconds": 0})
        assert (await factory.runs.wait(ADMIN, run, 30)).info.state == "succeeded"
        load.accepted[run] = ("once", -1)

        states, tries = Counter[str](), Counter[str]()
        squares: dict[str, Counter[int]] = {"once": Counter(), "again": Counter()}
        for run, (name, n) in load.accepted.items():
            state, attempts = await check(factory, run, name, n)
            states[state] += 1
            tries[name] += attempts - 1
            if state == "succeeded":
                squares[name][n] += 1
        assert stats.lost >= killed * 0.9, "the pool knows of them"
        for name, kept in squares.items():
            rows = await factory.shelves.rows(ADMIN, name, limit=1_000_000)
            assert Counter(int(row["n"]) for row in rows) == kept, "a row for each that succeeded, and no other"
            assert all(int(row["square"]) == int(row["n"]) ** 2 for row in rows)
    assert first_processes(home) == []
    assert tries["once"] == 0 and tries["again"] > 0
    assert states["failed"] > 0, "who does not try again is told"
    note(
        what,
        workers=killed,
        accepted=len(load.accepted),
        **{"tried again": tries["again"], "failed with the reason": states["failed"]},
    )


async def check(factory: Factory, run: str, name: str, n: int) -> tuple[str, int]:
    """How a run ended, and how often its code was begun: what it kept is right, and its failures are those of workers."""
    view = await factory.runs.get(ADMIN, run)
    _, _, facts = await factory.engine.journal.load(ADMIN.tenant, run)
    kinds = Counter(fact["kind"] for fact in facts)
    assert kinds["run.finished"] == 1 and facts[-1]["kind"] == "run.finished"
    retried = [fact["error"] for fact in facts if fact["kind"] == "step.retrying"]
    failed = [fact["error"] for fact in facts if fact["kind"] == "step.failed"]
    assert {error["category"] for error in retried + failed} <= {"worker"}, retried + failed
    limit = RETRIES if name == "again" else 0
    assert len(retried) <= limit
    if view.info.state == "succeeded":
        [code] = [step for step in view.steps if step.node == "code"]
        assert code.output["result"] == {"n": n, "square": n * n}
        assert not failed
    else:
        assert view.info.state == "failed" and len(failed) == 1
        assert len(retried) == limit, "it was given up before its tries were"
        assert view.info.error and view.info.error["category"] == "worker" and view.info.error["fix"]
    return view.info.state, len(retried) + 1
