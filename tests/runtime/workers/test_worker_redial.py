"""The program inside outlives its line to the server: it dials again, and keeps a result until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from runtime.workers import inside
from runtime.workers.backend import Backend, Job, Profile
from runtime.workers.protocol import encode, job_frame
from runtime.workers.worker import INSIDE


class Door:
    """The server's side of the socket, by hand."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def answer(self) -> dict[str, Any]:
        """Wait for the worker to dial and greet."""
        self.reader, self.writer = await self.lines.get()
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        """The next thing that it says, but for how it is."""
        while True:
            heard = await self.next()
            if heard["type"] != "beat":
                return heard

    async def next(self) -> dict[str, Any]:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        heard: dict[str, Any] = orjson.loads(await self.reader.readexactly(size))
        return heard

    def say(self, frame: dict[str, Any]) -> None:
        self.writer.write(encode(frame))

    def hang_up(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def worker(backend: Backend, rooms: Path) -> AsyncIterator[Door]:
    box_id = f"by-hand-{uuid4().hex[:8]}"  # an engine has each name once
    room = rooms / box_id
    room.mkdir()
    for name in INSIDE:
        shutil.copyfile(Path(inside.__file__).parent / name, room / name)
    if backend.room_owner is not None:
        os.chown(room, backend.room_owner, backend.room_owner)
    door = Door()
    server = await asyncio.start_unix_server(lambda *line: door.lines.put_nowait(line), path=room / "door")
    (room / "door").chmod(0o666)
    box = await backend.start(box_id, room, Profile(cpus=1))
    try:
        yield door
    finally:
        server.close()
        await backend.destroy(box)


def send(door: Door, code: str, name: str = "j") -> None:
    door.writer.write(job_frame(Job(id=name, code=code, timeout=10), Profile()))


async def test_a_line_cut_in_mid_job_costs_nothing(backend, rooms):
    async with worker(backend, rooms) as door:
        hello = await door.answer()
        assert (hello["protocol"], hello["state"], hello["job"], hello["seccomp"]) == (1, "idle", None, True)
        send(door, "import time\ntime.sleep(0.5)\nreturn 'done'")
        await door.writer.drain()
        door.say({"type": "ping", "n": 7})
        assert await door.hear() == {"type": "pong", "n": 7, "job": "j"}
        door.hang_up()
        hello = await door.answer()
        assert (hello["state"], hello["job"]) == ("busy", "j")
        assert (await door.hear())["value"] == '"done"'


async def test_it_tells_how_it_is_without_being_asked(backend, rooms):
    async with worker(backend, rooms) as door:
        await door.answer()
        send(door, "open('/workspace/f', 'w').write('x' * 1_000_000)\nimport time\ntime.sleep(20)")
        heard = await door.next()
        assert heard["type"] == "beat"
        assert 0 <= heard["cpu"] < 64
        assert 4_000_000 < heard["memory"] < 128 * 1024 * 1024
        assert 2 <= heard["processes"] <= 8
        assert heard["disk"] >= 1_000_000


async def test_a_result_is_kept_until_it_is_acknowledged(backend, rooms):
    async with worker(backend, rooms) as door:
        await door.answer()
        send(door, "return 42")
        assert (await door.hear())["value"] == "42"
        door.hang_up()
        assert (await door.answer())["state"] == "holding"
        assert (await door.hear())["value"] == "42"
        door.say({"type": "ack", "id": "j"})
        door.say({"type": "ping", "n": 1})
        await door.hear()
        door.hang_up()
        assert (await door.answer())["state"] == "idle"


async def test_reset_forgets_the_job_and_starts_over(backend, rooms):
    async with worker(backend, rooms) as door:
        await door.answer()
        send(door, "open('/workspace/left', 'w')\nwhile True: pass")
        door.say({"type": "reset"})
        assert (await door.hear())["state"] == "idle"
        send(door, "import os\nreturn os.listdir('/workspace')", "k")
        heard = await door.hear()
        assert (heard["id"], heard["value"]) == ("k", "[]")


async def test_drain_lets_the_job_end_and_then_the_worker(backend, rooms):
    async with worker(backend, rooms) as door:
        await door.answer()
        send(door, "import time\ntime.sleep(0.2)\nreturn 1")
        door.say({"type": "drain"})
        assert (await door.hear())["value"] == "1"
        door.say({"type": "ack", "id": "j"})
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await door.hear()


async def test_rubbish_from_the_server_only_costs_the_line(backend, rooms):
    async with worker(backend, rooms) as door:
        await door.answer()
        with contextlib.suppress(ConnectionError):
            door.writer.write(b"\xff" * 100)
        assert (await door.answer())["state"] == "idle"
        send(door, "return 1")
        assert (await door.hear())["value"] == "1"
