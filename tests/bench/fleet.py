"""What isolated workers cost, on the real engine: starts, jobs, fifty at once, deaths, memory; and how often a warm one is there."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from runtime.workers.backend import Job
from runtime.workers.choose import open_place
from runtime.workers.image.build import image_tag
from runtime.workers.pool import AT_ONCE, Pool, PoolRules
from runtime.workers.profiles import PROFILES
from tests.bench.demand import hit_rate, trace
from tests.runtime.workers.processes import first_processes
from tests.services import docker_answers, docker_url

MANY: Final = 50
STARTS: Final = 20
JOBS: Final = 300
KILLS: Final = 30
TAKES: Final = 0.4  # seconds of the job that is killed

UNITS: Final = {
    "cold start p95 ms": "ms",
    "warm job p50 ms": "ms",
    "warm job p95 ms": "ms",
    "jobs/s per worker": "jobs/s",
    "50 warm jobs ms": "ms",
    "50 spawns ratio": "ratio to docker run",
    "kill to redone p95 ms": "ms",
    "MB per warm worker": "MB",
    "pool hit rate": "%",
}
GOALS: Final = {
    "cold start p95 ms": "≤ 600",
    "warm job p50 ms": "≤ 5",
    "warm job p95 ms": "≤ 15",
    "jobs/s per worker": "≥ 250",
    "50 warm jobs ms": "≤ 250",
    "50 spawns ratio": "≤ 1.2",
    "kill to redone p95 ms": "≤ 200",
    "MB per warm worker": "≤ 30",
    "pool hit rate": "≥ 99",
}


def fleet(wanted: set[str], rounds: int) -> dict[str, list[float]]:
    """The figures that were asked for, one value for each round."""
    chosen = wanted & set(UNITS)
    measured: dict[str, list[float]] = {name: [] for name in UNITS if name in chosen}
    for number in range(rounds):
        found: dict[str, float] = {}
        if "pool hit rate" in chosen:
            found["pool hit rate"] = 100 * hit_rate(trace(seed=11 + number)).hit_rate
        if chosen - {"pool hit rate"}:
            if not docker_answers():
                raise SystemExit("The figures of workers need a Docker engine.")
            found |= asyncio.run(_round(chosen))
        for name, values in measured.items():
            values.append(found[name])
    return measured


async def _round(chosen: set[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    home = f"bench-{uuid4().hex[:12]}"
    async with open_place(docker_url(), home=home) as (backend, rooms):

        def pool(size: int, profile: str = "small") -> Pool:
            return Pool(backend, rooms, profile=PROFILES[profile], rules=PoolRules(size=size, wait_limit=120))

        if "cold start p95 ms" in chosen:
            found["cold start p95 ms"] = _p95([await _cold(pool) for _ in range(STARTS)])
        if chosen & {"warm job p50 ms", "warm job p95 ms", "jobs/s per worker"}:
            # A whole processor: a small worker has half of one, and is stopped when it has used that up.
            async with pool(1, "medium") as one:
                found |= await _jobs(one)
        if "kill to redone p95 ms" in chosen:
            async with pool(4) as few:
                found["kill to redone p95 ms"] = _p95([await _kill(few, home) for _ in range(KILLS)])
        if chosen & {"50 warm jobs ms", "50 spawns ratio", "MB per warm worker"}:
            async with AsyncExitStack() as stack:
                began = time.perf_counter()
                many = await stack.enter_async_context(pool(MANY))
                await many.until_ready(MANY, 120)
                spawned = time.perf_counter() - began
                found["MB per warm worker"] = await asyncio.to_thread(_memory, home)
                found["50 warm jobs ms"] = statistics.median([await _at_once(many) for _ in range(5)])
            if "50 spawns ratio" in chosen:
                found["50 spawns ratio"] = spawned / await asyncio.to_thread(_plain, image_tag())
    return found


def job(code: str = "return 1", retries: int = 0) -> Job:
    return Job(uuid4().hex, code, retries=retries)


async def _cold(pool: Callable[[int], Pool]) -> float:
    began = time.perf_counter()
    async with pool(1) as one:
        await one.until_ready(1)
        return 1000 * (time.perf_counter() - began)


async def _jobs(pool: Pool) -> dict[str, float]:
    await pool.until_ready(1)
    for _ in range(10):
        await pool.run(job(), tenant="bench")
    took = [await _timed(lambda: pool.run(job(), tenant="bench")) for _ in range(JOBS)]
    began = time.perf_counter()
    await asyncio.gather(*(pool.run(job(), tenant="bench") for _ in range(JOBS)))
    rate = JOBS / (time.perf_counter() - began)
    return {"warm job p50 ms": statistics.median(took), "warm job p95 ms": _p95(took), "jobs/s per worker": rate}


async def _at_once(pool: Pool) -> float:
    return await _timed(lambda: asyncio.gather(*(pool.run(job(), tenant="bench") for _ in range(MANY))))


async def _kill(pool: Pool, home: str) -> float:
    """From the kill of a worker at work to the result of its job from another, without the job's own time."""
    await pool.until_ready(4)
    running = asyncio.create_task(pool.run(job(f"import time\ntime.sleep({TAKES})\nreturn 1", 1), tenant="bench"))
    await asyncio.sleep(0)
    [busy] = [worker.id for worker in pool.workers.values() if worker.state == "busy"]
    [process] = [process for process in first_processes(home) if busy in _words(process)]
    await asyncio.sleep(random.uniform(0, 0.5) * TAKES)
    killed = time.perf_counter()
    os.kill(process, signal.SIGKILL)
    done = await running
    assert (done.ok, done.tries) == (True, 2), done
    return 1000 * (time.perf_counter() - killed - TAKES)


def _words(process: int) -> str:
    with suppress(OSError), open(f"/proc/{process}/mountinfo", encoding="utf-8") as file:
        return file.read()
    return ""


def _memory(home: str) -> float:
    """Megabytes that a worker takes on average: its container as the engine counts it, and the engine's process that minds it."""
    ours = _docker("ps", "--quiet", "--no-trunc", "--filter", f"label=agent-factory.home={home}").split()
    said = _docker("stats", "--no-stream", "--format", "{{.MemUsage}}", *ours).splitlines()
    inside = statistics.mean(_megabytes(line.partition("/")[0].strip()) for line in said)
    return inside + sum(_minder(process, ours) for process in Path("/proc").glob("[0-9]*")) / len(ours)


def _minder(process: Path, containers: list[str]) -> float:
    with suppress(OSError, IndexError):
        words = (process / "cmdline").read_text().split("\0")
        if "containerd-shim" in words[0] and any(container in words for container in containers):
            shared = (process / "smaps_rollup").read_text().partition("\nPss:")[2].split()[0]
            return int(shared) * 1024 / 1e6
    return 0.0


def _megabytes(text: str) -> float:
    number, factor = (text[:-3], {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[text[-3:]])
    return float(number) * factor / 1e6


def _plain(image: str) -> float:
    """Seconds for as many plain containers of the image, as many of them at once, until each has run its first Python."""
    name = f"bench-plain-{uuid4().hex[:8]}"
    said = "import json, re, datetime, time; print('up', flush=True); time.sleep(600)"

    def one(number: int) -> None:
        container = f"{name}-{number}"
        _docker("run", "--detach", "--network=none", f"--name={container}", "--entrypoint=python3", image, "-c", said)
        with subprocess.Popen(_command("logs", "--follow", container), stdout=subprocess.PIPE) as logs:
            assert logs.stdout is not None and logs.stdout.readline() == b"up\n"
            logs.kill()

    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            began = time.perf_counter()
            list(threads.map(one, range(MANY)))
            return time.perf_counter() - began
    finally:
        left = _docker("ps", "--all", "--quiet", "--filter", f"name={name}").split()
        _docker("rm", "--force", *left)


def _command(*words: str) -> list[str]:
    return ["docker", "--host", docker_url(), *words]


def _docker(*words: str) -> str:
    return subprocess.run(_command(*words), check=True, capture_output=True, text=True).stdout


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - began)


def _p95(values: Iterable[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
