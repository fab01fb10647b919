"""A server that is killed in the middle of its jobs: `python -m tests.runtime.workers.first_life <home> <engines> <image> <seconds>`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from runtime.workers.backend import Job, Profile
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.hosts import HostRules, Hosts
from runtime.workers.pool import Pool, PoolRules

CODE = """
import time, random
time.sleep(seconds)
return [n, random.random()]
"""


def hosts_of(home: str, engines: str, image: str) -> Hosts:
    """The engines, as both lives open them."""
    named = dict(part.split("=") for part in engines.split(","))
    backends = {name: DockerBackend(home, url=url, image=image, keep=True) for name, url in named.items()}
    return Hosts(backends, urls=named, rules=HostRules(look=0.2), adopt=True)


def step(n: int, seconds: float) -> Job:
    """A step of a run: the same in each life."""
    return Job(f"j{n}", CODE, {"n": n, "seconds": seconds}, timeout=30, run=f"run-{n}")


async def main(home: str, engines: str, image: str, seconds: str) -> None:
    """Two tenants with a job each, a worker that nobody has used; then wait to be killed."""
    hosts = hosts_of(home, engines, image)
    await hosts.open()
    rooms: Path = rooms_for(home)
    rooms.chmod(0o711)
    async with Pool(hosts, rooms, profile=Profile(cpus=1), rules=PoolRules(size=3)) as pool:
        await pool.until_ready(3)
        jobs = [asyncio.create_task(pool.run(step(n, float(seconds)), tenant=f"t{n}")) for n in range(2)]
        while pool.stats().jobs < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        print("running", flush=True)
        await asyncio.gather(*jobs)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
