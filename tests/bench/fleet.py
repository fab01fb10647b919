"""What isolated workers cost, on the real engine: starts, jobs, fifty at once, deaths and hangs, crews, memory; and how often a
warm one is there.

Each group of figures is measured in a process of its own, on the loop that the server has, with an installation of its own:
`python -m tests.bench.fleet <group> <folder>` prints its values as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import uvloop

from runtime.workers.backend import Job
from runtime.workers.choose import open_place
from runtime.workers.pool import AT_ONCE, Pool, PoolRules
from runtime.workers.profiles import PROFILES
from runtime.workers.states import WorkerState
from tests.bench.crews import cold_crew, warm_crew
from tests.bench.demand import hit_rate, trace
from tests.bench.spawning import megabytes_each, plain
from tests.runtime.workers.processes import first_processes
from tests.services import ROOT, docker_answers, docker_url

MANY: Final = 50
STARTS: Final = 20
JOBS: Final = 300
SEVERAL: Final = 4
KILLS: Final = 30
HANGS: Final = 5  # times `SEVERAL`
TAKES: Final = 0.4  # seconds of the job that is killed
IDLE: Final = 6.0  # seconds in which nothing happens

HIT_RATE: Final = "pool hit rate"
COLD: Final = ("cold start p50 ms", "cold start p95 ms")
ONE: Final = ("warm job p50 ms", "warm job p95 ms", "jobs/s per worker")
OTHERS: Final = (f"jobs/s of {SEVERAL} workers", "jobs/s of a small worker")
FIFTY: Final = ("50 warm jobs ms", "50 spawns s", "50 spawns ratio", "MB per warm worker")
WAKING: Final = ("wake p50 ms", "wake p95 ms")
KILLED: Final = ("kill to redone p50 ms", "kill to redone p95 ms")
HUNG: Final = ("hang to replaced p50 ms", "hang to replaced p95 ms")
IN_SERVER: Final = ("server KB per idle worker", "server µs/s per idle worker")
CREW: Final = ("crew of 5 warm ms", "crew of 5 warm p95 ms", "crew of 5 cold s")

GOALS: Final = {
    "cold start p95 ms": "≤ 600",
    "warm job p50 ms": "≤ 5",
    "warm job p95 ms": "≤ 15",
    "jobs/s per worker": "≥ 250",
    "50 warm jobs ms": "≤ 250",
    "50 spawns ratio": "≤ 1.2",
    "crew of 5 warm ms": "≤ 60",
    "crew of 5 cold s": "≤ 1.5",
    "kill to redone p95 ms": "≤ 200",
    "hang to replaced p95 ms": "≤ 2000",
    "MB per warm worker": "≤ 30",
    HIT_RATE: "≥ 99",
}


def fleet(wanted: set[str], folder: Path, rounds: int) -> dict[str, list[float]]:
    """The figures that are wanted, one value for each round."""
    figures: dict[str, list[float]] = {name: [] for name in UNITS if name in wanted}
    for number in range(rounds):
        for at, (names, measured) in enumerate(MEASURED):
            if not wanted & set(names):
                continue
            if measured is not forecast and not docker_answers():
                raise SystemExit("The figures of workers need a Docker engine: docker info.")
            command = [sys.executable, "-m", "tests.bench.fleet", str(at), str(folder / f"fleet-{number}-{at}")]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            values = json.loads(done.stdout.splitlines()[-1])
            said = ", ".join(f"{name} {value:,.3g}" for name, value in values.items())
            print(f"  round {number + 1}: {said}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            for name in set(names) & figures.keys():
                figures[name].append(values[name])
    return figures


# --- the groups --------------------------------------------------------------------------------------------------------


async def forecast(folder: Path) -> dict[str, float]:
    """How many jobs of a recorded day find a warm worker at once; the pool is real, and its time passes quickly."""
    arrivals = trace(seed=int(folder.name.split("-")[1]) + 11)
    return {HIT_RATE: 100 * await asyncio.to_thread(lambda: hit_rate(arrivals).hit_rate)}


async def starting(folder: Path) -> dict[str, float]:
    took = []
    async with place() as pool:
        for _ in range(STARTS):
            began = time.perf_counter()
            async with pool(1) as one:
                await one.until_ready(1)
                took.append(1000 * (time.perf_counter() - began))
    return dict(zip(COLD, (statistics.median(took), _p95(took)), strict=True))


async def jobs(folder: Path) -> dict[str, float]:
    # A whole processor: a small worker has half of one, and stands still when it has used that up.
    async with place() as pool, pool(1, "medium") as one:
        await one.until_ready(1)
        for _ in range(10):
            await run(one)
        took = [await timed(run(one)) for _ in range(JOBS)]
        return dict(zip(ONE, (statistics.median(took), _p95(took), await rate(one, JOBS)), strict=True))


async def abreast(folder: Path) -> dict[str, float]:
    found = []
    async with place() as pool:
        for count, profile in ((SEVERAL, "medium"), (1, "small")):
            async with pool(count, profile) as several:
                await several.until_ready(count)
                await rate(several, 10 * count)
                found.append(await rate(several, count * JOBS))
    return dict(zip(OTHERS, found, strict=True))


async def fifty(folder: Path) -> dict[str, float]:
    home = f"bench-{uuid4().hex[:12]}"
    async with place(home) as pool:
        began = time.perf_counter()
        async with pool(MANY) as many:
            await many.until_ready(MANY, 120)
            spawned = time.perf_counter() - began
            memory = await asyncio.to_thread(megabytes_each, home)
            at_once = statistics.median([await timed(gather(run(many) for _ in range(MANY))) for _ in range(5)])
    theirs = await asyncio.to_thread(plain, MANY, AT_ONCE)
    return dict(zip(FIFTY, (at_once, spawned, spawned / theirs, memory), strict=True))


async def waking(folder: Path) -> dict[str, float]:
    took = []
    # With no floor: else the pool puts another one in the place of the one that goes to sleep.
    async with place() as pool, pool(0, ceiling=1, forecast=False) as one:
        await run(one)
        for _ in range(STARTS):
            [worker] = [worker for worker in one.workers.values() if worker.state is WorkerState.READY]
            assert await one.sleep(worker)
            took.append(await timed(run(one, worker=worker.id)))
    return dict(zip(WAKING, (statistics.median(took), _p95(took)), strict=True))


async def killing(folder: Path) -> dict[str, float]:
    took = [one async for one in _struck(signal.SIGKILL, KILLS, 1)]
    return dict(zip(KILLED, (statistics.median(took), _p95(took)), strict=True))


async def hanging(folder: Path) -> dict[str, float]:
    took = [one async for one in _struck(signal.SIGSTOP, HANGS, SEVERAL)]
    return dict(zip(HUNG, (statistics.median(took), _p95(took)), strict=True))


async def idle(folder: Path) -> dict[str, float]:
    """What another idle worker costs the server: with many of them, less what one alone costs."""
    async with place() as pool:
        async with pool(1) as one:
            await one.until_ready(1)
            memory, busy = _own_memory(), await _own_time()
        async with pool(MANY) as many:
            await many.until_ready(MANY, 120)
            memory, busy = _own_memory() - memory, await _own_time() - busy
    return dict(zip(IN_SERVER, (memory / 1000 / (MANY - 1), 1e6 * busy / (MANY - 1)), strict=True))


async def crews(folder: Path) -> dict[str, float]:
    """Five members that wait for a message: from the call to all at work, with their tokens, doors and bus."""
    warm = await warm_crew(folder / "warm", STARTS)
    cold = await cold_crew(folder / "cold", 5)
    return dict(zip(CREW, (1000 * statistics.median(warm), 1000 * _p95(warm), statistics.median(cold)), strict=True))


Measure = Callable[[Path], Awaitable[dict[str, float]]]
MEASURED: Final[tuple[tuple[tuple[str, ...], Measure], ...]] = (
    ((HIT_RATE,), forecast),
    (COLD, starting),
    (ONE, jobs),
    (OTHERS, abreast),
    (FIFTY, fifty),
    (WAKING, waking),
    (KILLED, killing),
    (HUNG, hanging),
    (IN_SERVER, idle),
    (CREW, crews),
)


def _unit(name: str) -> str:
    if name == HIT_RATE:
        return "%"
    if name == "50 spawns ratio":
        return "ratio to docker run"
    return next((unit for unit in ("jobs/s", "KB", "µs/s", "MB") if unit in name), name.rpartition(" ")[2])


UNITS: Final = {name: _unit(name) for names, _ in MEASURED for name in names}

# --- pieces ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def place(home: str = "") -> AsyncIterator[Callable[..., Pool]]:
    """Makes pools of a fixed size on the engine: of so many workers, of this profile."""
    async with open_place(docker_url(), home=home or f"bench-{uuid4().hex[:12]}") as (backend, rooms):

        def pool(size: int, profile: str = "small", **more: Any) -> Pool:
            return Pool(backend, rooms, profile=PROFILES[profile], rules=PoolRules(size=size, wait_limit=120, **more))

        yield pool


async def run(pool: Pool, code: str = "return 1", *, retries: int = 0, worker: str = "") -> int:
    """Run a job; how often it was begun."""
    done = await pool.run(Job(uuid4().hex, code, retries=retries), tenant="bench")
    assert done.ok and worker in ("", done.worker), done
    return done.tries


async def rate(pool: Pool, count: int) -> float:
    """Jobs a second, of so many that are there at once."""
    return count / (await timed(gather(run(pool) for _ in range(count))) / 1000)


async def _struck(blow: signal.Signals, times: int, at_once: int) -> AsyncIterator[float]:
    """Milliseconds from a blow to a worker at work to the result of its job from another, without the job's own time."""
    home = f"bench-{uuid4().hex[:12]}"
    async with place(home) as pool, pool(2 * max(at_once, 2)) as few:
        for _ in range(times):
            await few.until_ready(few.rules.size)
            one_by_one = asyncio.Lock()
            for took in await asyncio.gather(*(_strike(few, home, blow, one_by_one) for _ in range(at_once))):
                yield took


async def _strike(pool: Pool, home: str, blow: signal.Signals, beginning: asyncio.Lock) -> float:
    async with beginning:
        before = _busy(pool)
        running = asyncio.create_task(run(pool, f"import time\ntime.sleep({TAKES})\nreturn 1", retries=1))
        await asyncio.sleep(0)
        [worker] = _busy(pool) - before
    [process] = await asyncio.to_thread(lambda: [one for one in first_processes(home) if worker in _mounts(one)])
    await asyncio.sleep(random.uniform(0, 0.5) * TAKES)
    struck = time.perf_counter()
    os.kill(process, blow)
    assert await running == 2
    return 1000 * (time.perf_counter() - struck - TAKES)


def _busy(pool: Pool) -> set[str]:
    return {worker.id for worker in pool.workers.values() if worker.state is WorkerState.BUSY}


def _mounts(process: int) -> str:
    with suppress(OSError), open(f"/proc/{process}/mountinfo", encoding="utf-8") as file:
        return file.read()
    return ""


def _own_memory() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _own_time() -> float:
    """The share of a processor that we take while nothing happens."""
    await asyncio.sleep(1)  # what starting left to do
    began = time.process_time()
    await asyncio.sleep(IDLE)
    return (time.process_time() - began) / IDLE


async def gather(work: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*work)


async def timed(work: Awaitable[object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await work
    return 1000 * (time.perf_counter() - began)


def _p95(values: Iterable[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


async def measure(at: int, folder: Path) -> dict[str, float]:
    # The server does the same once it has started: what it then holds is not looked through again and again.
    gc.collect()
    gc.freeze()
    return await MEASURED[at][1](folder)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(partial(measure, int(sys.argv[1]), Path(sys.argv[2]))())))
