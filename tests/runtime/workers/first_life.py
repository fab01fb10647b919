"""A server that is killed in the middle of its jobs: `python -m tests.runtime.workers.first_life <home> <engines> <image> <seconds>`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.workers.backend import Job, Profile
from runtime.workers.broker.client import OverSocket
from runtime.workers.broker.process import serve_beside
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.hosts import HostRules, Hosts
from runtime.workers.pool import Pool, PoolRules

CODE = """
import time, random
time.sleep(seconds)
return [n, random.random()]
"""


@contextmanager
def hosts_of(home: str, engines: str, image: str) -> Iterator[Hosts]:
    """The engines, as both lives have them; `broker` before them asks through a process of its own."""
    through, _, addresses = engines.rpartition("+")
    named = dict(part.split("=") for part in addresses.split(","))
    with ExitStack() as stack:
        path = None
        if through:
            images = {"base": image}
            path = stack.enter_context(serve_beside(home, engines=tuple(named.values()), images=images, keep=True))
        backends = {
            name: DockerBackend(home, broker=OverSocket(path, engine=url), keep=True)
            if path
            else DockerBackend(home, url=url, image=image, keep=True)
            for name, url in named.items()
        }
        yield Hosts(backends, urls=named, rules=HostRules(look=0.2), adopt=True)


def rooms_of(hosts: Hosts, home: str) -> Path:
    """Where the rooms are, with those of the survivors."""
    if hosts.rooms is not None:
        return hosts.rooms
    rooms = rooms_for(home, [one.box.id for one in hosts.survivors])
    rooms.chmod(0o711)
    return rooms


def step(n: int, seconds: float) -> Job:
    """A step of a run: the same in each life."""
    return Job(f"j{n}", CODE, {"n": n, "seconds": seconds}, timeout=30, run=f"run-{n}")


async def main(home: str, engines: str, image: str, seconds: str) -> None:
    """Two tenants with a job each, a worker that nobody has used; then wait to be killed."""
    with hosts_of(home, engines, image) as hosts:
        await hosts.open()
        await live(hosts, rooms_of(hosts, home), float(seconds))


async def live(hosts: Hosts, rooms: Path, seconds: float) -> None:
    """With work."""
    async with Pool(hosts, rooms, profile=Profile(cpus=1), rules=PoolRules(size=3)) as pool:
        await pool.until_ready(3)
        jobs = [asyncio.create_task(pool.run(step(n, seconds), tenant=f"t{n}")) for n in range(2)]
        while pool.stats().jobs < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        print("running", flush=True)
        await asyncio.gather(*jobs)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
