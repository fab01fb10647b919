"""Chaos in the fleet: workers are killed, starved of memory and frozen, engines restarted, the server killed, all under load.

Every job ends once and rightly, the engines have exactly the containers that the pool knows, and the pool is back at its target.
FACTORY_SOAK_FLEET says how many things are broken (24 if unset).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from tests import services
from tests.chaos.report import note
from tests.conftest import unavailable
from tests.runtime.workers.engines import DockerHost, docker_hosts
from tests.runtime.workers.processes import first_processes

BROKEN = int(os.environ.get("FACTORY_SOAK_FLEET", "24"))
SIZE, CLIENTS = 4, 6
# Of a hundred things that are broken; at least one of each kind in any sample.
MIX = {"kill": 55, "memory": 15, "freeze": 15, "engine": 8, "server": 7}
QUICK = "return n * n"
SLOW = "import time\ntime.sleep(0.05 + n % 5 / 10)\nreturn n * n"
HOG = "held = []\nwhile True:\n    held.append(bytearray(8_000_000))"

pytestmark = [pytest.mark.soak, pytest.mark.docker, pytest.mark.timeout(240 + 6 * BROKEN)]


@pytest.fixture(scope="module")
def engines(worker_image: str) -> Iterator[tuple[DockerHost, ...]]:
    try:
        with docker_hosts("one", "two", image=worker_image) as hosts:
            yield hosts
    except services.Missing as missing:
        unavailable(str(missing))


class Life:
    """Lives of the server, one after the other, and the jobs that were given to them: each is kept until it has ended."""

    def __init__(self, home: str, engines: tuple[DockerHost, ...], image: str) -> None:
        addresses = ",".join(f"{engine.name}={engine.url}" for engine in engines)
        self._command = [sys.executable, "-m", "tests.chaos.fleet_life", home, addresses, image, str(SIZE)]
        self.open: dict[int, dict[str, Any]] = {}
        self.ended: dict[int, dict[str, Any]] = {}
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.doubled = self.lives = self.refused = 0
        self._seen: asyncio.Future[dict[str, Any]] | None = None
        self._server: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start the next life, and give it what the last one left."""
        self.lives += 1
        pipe = asyncio.subprocess.PIPE
        self._server = await asyncio.create_subprocess_exec(*self._command, cwd=services.ROOT, stdin=pipe, stdout=pipe)
        self._reading = asyncio.create_task(self._read(self._server))
        for job in self.open.values():
            self._say(job)

    async def kill(self) -> None:
        """End this life without a warning."""
        assert self._server is not None and self._reading is not None
        self._server.kill()
        await self._server.wait()
        await self._reading

    async def end(self) -> None:
        """End this life in order."""
        assert self._server is not None and self._server.stdin is not None and self._reading is not None
        self._server.stdin.close()
        async with asyncio.timeout(60):
            assert await self._server.wait() == 0
        await self._reading

    async def run(self, n: int, code: str) -> None:
        """Give it a job and wait until it has ended, in whichever life."""
        job = self.open[n] = {"n": n, "code": code}
        self.waiting[n] = asyncio.get_running_loop().create_future()
        self._say(job)
        await self.waiting[n]

    async def look(self) -> dict[str, Any]:
        """How it stands."""
        self._seen = asyncio.get_running_loop().create_future()
        self._say({"look": True})
        return await asyncio.wait_for(self._seen, 30)

    def _say(self, frame: dict[str, Any]) -> None:
        assert self._server is not None and self._server.stdin is not None
        with suppress(ConnectionError, RuntimeError):  # it was killed just now: the next life is told
            self._server.stdin.write(json.dumps(frame).encode() + b"\n")

    async def _read(self, server: asyncio.subprocess.Process) -> None:
        assert server.stdout is not None
        while line := await server.stdout.readline():
            if not line.endswith(b"\n"):
                return  # its last words were cut off
            said = json.loads(line)
            if "n" not in said:
                if self._seen is not None and not self._seen.done():
                    self._seen.set_result(said)
                continue
            n = said["n"]
            self.doubled += n in self.ended
            if n in self.open:
                self.ended[n] = {**said, **self.open.pop(n)}
                self.waiting.pop(n).set_result(None)


async def load(life: Life, number: int, going: asyncio.Event) -> None:
    """A client: one job after the other."""
    n = number
    while not going.is_set():
        await life.run(n, QUICK if n % 3 else SLOW)
        n += CLIENTS


class Breaker:
    """Breaks one thing after the other."""

    def __init__(self, life: Life, engines: tuple[DockerHost, ...], home: str, dice: random.Random) -> None:
        self.life, self.engines, self.home, self.dice = life, engines, home, dice
        self.hogs = 0
        self.done = Counter[str]()

    async def go(self, times: int) -> None:
        """So many, with little pauses."""
        kinds = [*MIX, *self.dice.choices(list(MIX), weights=list(MIX.values()), k=max(0, times - len(MIX)))]
        self.dice.shuffle(kinds)
        for kind in kinds:
            await asyncio.sleep(self.dice.uniform(0.05, 0.6))
            await getattr(self, kind)()
            self.done[kind] += 1

    async def victim(self) -> int:
        """The first process of a worker."""
        async with asyncio.timeout(60):
            while not (alive := first_processes(self.home)):
                await asyncio.sleep(0.05)
        return self.dice.choice(alive)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(await self.victim(), signal.SIGKILL)

    async def freeze(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(await self.victim(), signal.SIGSTOP)

    async def memory(self) -> None:
        self.hogs += 1
        await self.life.run(-self.hogs, HOG)

    async def engine(self) -> None:
        engine = self.dice.choice(self.engines)
        await asyncio.to_thread(engine.signal, self.dice.choice([signal.SIGTERM, signal.SIGKILL]))
        await asyncio.sleep(self.dice.uniform(0.0, 1.0))
        await asyncio.to_thread(engine.start)

    async def server(self) -> None:
        await self.life.kill()
        await asyncio.sleep(self.dice.uniform(0.0, 0.5))
        await self.life.begin()


async def test_every_job_ends_once_whatever_is_broken(engines: tuple[DockerHost, ...], worker_image: str) -> None:
    seed = int(os.environ.get("FACTORY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    print(f"\nFACTORY_SOAK_SEED={seed} repeats the choices of what is broken.")
    home, dice = f"test-{uuid4().hex[:12]}", random.Random(seed)
    life = Life(home, engines, worker_image)
    breaker = Breaker(life, engines, home, dice)
    began = time.monotonic()
    await life.begin()
    enough = asyncio.Event()
    clients = [asyncio.create_task(load(life, number, enough)) for number in range(CLIENTS)]
    try:
        await breaker.go(BROKEN)
        enough.set()
        async with asyncio.timeout(90):
            await asyncio.gather(*clients)
        seen = await healed(life, engines, home)
    finally:
        for client in clients:
            client.cancel()
        await life.end()
    took = time.monotonic() - began

    assert not life.open and life.doubled == 0, "each ends, and once"
    wrong = {n: end for n, end in life.ended.items() if n >= 0 and (end["kind"], end["value"]) != ("ok", n * n)}
    assert wrong == {}
    assert {end["kind"] for n, end in life.ended.items() if n < 0} <= {"memory"}
    assert all(engine.containers(home) == [] for engine in engines)
    assert first_processes(home) == []
    note(
        "the fleet broken",
        accepted=len(life.ended),
        **{f"{kind}s" if kind != "memory" else "out of memory": count for kind, count in sorted(breaker.done.items())},
        **{"tried again": sum(end["tries"] > 1 for end in life.ended.values()), "refused by fencing": seen["refused"]},
        seconds=round(took),
    )


async def healed(life: Life, engines: tuple[DockerHost, ...], home: str) -> dict[str, Any]:
    """The pool is back at its target, and the engines have exactly the containers that it knows."""
    seen: dict[str, Any] = {}
    has: list[str] = []
    try:
        async with asyncio.timeout(60):
            while True:
                seen = await life.look()
                have = await asyncio.gather(*(asyncio.to_thread(engine.containers, home) for engine in engines))
                has = sorted(ref for refs in have for ref in refs)
                whole = (seen["busy"], seen["starting"], seen["waiting"]) == (0, 0, 0) and seen["ready"] >= SIZE
                if whole and has == seen["workers"] and set(seen["hosts"].values()) == {"up"}:
                    return seen
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"the pool did not heal: it says {seen}, the engines have {has}")
