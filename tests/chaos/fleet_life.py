"""A server with a fleet, for the chaos: jobs come as lines of JSON on its input, their ends go out on its output, until it is killed.

`python -m tests.chaos.fleet_life <home> <engines> <image> <size>`
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from typing import Any

from nodes.errors import FactoryError
from runtime.workers.backend import Job, Profile
from runtime.workers.choose import addresses, rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.hosts import HostRules, Hosts
from runtime.workers.pool import Pool, PoolRules

RETRIES = 12
MIB = 1024 * 1024


async def main(home: str, engines: str, image: str, size: str) -> None:
    """One life."""
    named = addresses(engines)
    backends = {name: DockerBackend(home, url=url, image=image, keep=True) for name, url in named.items()}
    hosts = Hosts(backends, urls=named, rules=HostRules(look=0.5, lost=3.0, reconcile=2.0), adopt=True)
    await hosts.open()
    rooms = rooms_for(home, [one.box.id for one in hosts.survivors])
    rooms.chmod(0o711)
    rules = PoolRules(size=int(size), wait_limit=120.0)
    try:
        async with Pool(hosts, rooms, profile=Profile(memory=64 * MIB), rules=rules) as pool:
            await hosts.drop_survivors()
            await serve(pool, hosts)
    finally:
        await hosts.close()
        shutil.rmtree(rooms, ignore_errors=True)


async def serve(pool: Pool, hosts: Hosts) -> None:
    """Until there is no more input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        said = json.loads(line)
        if "n" in said:
            task = loop.create_task(one(pool, said))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            tell(seen(pool, hosts))
    await asyncio.gather(*tasks)


async def one(pool: Pool, said: dict[str, Any]) -> None:
    """Run one job, as the step of a run would."""
    n = said["n"]
    job = Job(f"j{n}", said["code"], {"n": n}, timeout=20, retries=RETRIES, run=f"run-{n}")
    try:
        done = await pool.run(job, tenant=f"t{n % 2}")
        tell({"n": n, "value": done.value, "kind": done.error.kind if done.error else "ok", "tries": done.tries})
    except FactoryError as error:
        tell({"n": n, "value": None, "kind": error.message, "tries": 0})


def seen(pool: Pool, hosts: Hosts) -> dict[str, Any]:
    """How it stands."""
    stats = pool.stats()
    return {
        "ready": stats.ready,
        "busy": stats.busy,
        "starting": stats.starting,
        "waiting": stats.waiting,
        "lost": stats.lost,
        "refused": pool.figures.refused,
        "problem": stats.problem,
        "workers": sorted(worker.box_ref for worker in pool.workers.values()),
        "hosts": {host.name: host.state for host in hosts.view()},
    }


def tell(said: dict[str, Any]) -> None:
    """A line of JSON, at once."""
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
