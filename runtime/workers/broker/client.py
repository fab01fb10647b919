"""How the rest of the product asks the broker: in this process, or over the socket of one that runs by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from runtime.workers.backend import NoWorker
from runtime.workers.broker.verbs import QUESTIONS, Answer, Stream, Verb

if TYPE_CHECKING:
    from runtime.workers.broker.engine import Engine

LONGEST_LINE: Final = 16 * 1024 * 1024
GONE: Final = "The process that talks to the Docker engine does not answer."
AT_ONCE: Final = (os.cpu_count() or 1) + 1
"""Starting a container is work for the processor: starting more at once only makes the first one late."""


class Broker(Protocol):
    """Does verbs. Both kinds raise NoWorker with what the engine said."""

    async def ask(self, verb: Verb) -> Answer:
        """Do it and answer."""

    def follow(self, verb: Stream) -> AsyncGenerator[Answer]:
        """Do it and answer as it goes on; the last answer has all there is to say under `done`."""

    async def close(self) -> None:
        """Let go of it."""


class InProcess:
    """The engine in this process, in threads of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="docker")
        # Whether an engine is there must be known while all others wait for it.
        self._asking = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="docker-asks")

    async def ask(self, verb: Verb) -> Answer:
        """Do it and answer. Raises NoWorker."""
        if self._threads is None:
            raise NoWorker("The connection to the Docker engine is closed.")
        threads = self._asking if isinstance(verb, QUESTIONS) else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self._engine.answer, verb)

    async def follow(self, verb: Stream) -> AsyncGenerator[Answer]:
        """Do it and answer as it goes on. Raises NoWorker."""
        from runtime.workers.broker.engine import Cancel

        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Answer | BaseException] = asyncio.Queue()
        cancel = Cancel()

        def tell(said: Answer | BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(heard.put_nowait, said)

        def work() -> None:
            try:
                tell({"done": self._engine.follow(verb, tell, cancel)})
            except BaseException as error:
                tell(error)

        # Not one of the few threads that do verbs: a stream may last as long as we do.
        threading.Thread(target=work, name=f"docker-{verb.verb}", daemon=True).start()
        try:
            while True:
                said = await heard.get()
                if isinstance(said, BaseException):
                    raise said
                yield said
                if "done" in said:
                    return
        finally:
            cancel()

    async def close(self) -> None:
        """Let go of the engine."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
            self._asking.shutdown(wait=False)
            self._engine.close()


class OverSocket:
    """A broker that is a process of its own. It is dialled anew when the line is lost."""

    def __init__(self, path: Path, *, engine: str = "") -> None:
        self._path = path
        self._engine = engine
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Queue[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._dialling = asyncio.Lock()

    async def ask(self, verb: Verb) -> Answer:
        """Do it and answer. Raises NoWorker."""
        number, heard = await self._send(verb)
        try:
            said = _or_raise(await heard.get())
        finally:
            self._open.pop(number, None)
        answer: Answer = said["done"]
        return answer

    async def follow(self, verb: Stream) -> AsyncGenerator[Answer]:
        """Do it and answer as it goes on. Raises NoWorker."""
        number, heard = await self._send(verb)
        over = False
        try:
            while not over:
                said = _or_raise(await heard.get())
                over = "done" in said
                yield {"done": said["done"]} if over else said["tell"]
        finally:
            self._open.pop(number, None)
            if not over and self._writer is not None:
                self._writer.write(_line({"n": number, "cancel": True}))

    async def close(self) -> None:
        """Hang up."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._hung_up()

    async def _send(self, verb: Verb | Stream) -> tuple[int, asyncio.Queue[Answer]]:
        async with self._dialling:
            if self._writer is None:
                try:
                    reader, self._writer = await asyncio.open_unix_connection(self._path, limit=LONGEST_LINE)
                except OSError as error:
                    raise NoWorker(GONE, fix="Start the server again.") from error
                self._reading = asyncio.get_running_loop().create_task(self._read(reader))
        number = next(self._numbers)
        heard: asyncio.Queue[Answer] = asyncio.Queue()
        self._open[number] = heard
        self._writer.write(_line({"n": number, "engine": self._engine, "verb": verb.model_dump(mode="json")}))
        return number, heard

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                said = orjson.loads(line)
                heard = self._open.get(said.get("n"))
                if heard is not None:
                    heard.put_nowait(said)
        except (OSError, ValueError):
            pass
        finally:
            self._hung_up()

    def _hung_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        for heard in self._open.values():
            heard.put_nowait({"error": {"message": GONE, "fix": "Try again."}})
        self._open.clear()


def _line(frame: dict[str, Any]) -> bytes:
    return orjson.dumps(frame) + b"\n"


def _or_raise(said: Answer) -> Answer:
    error = said.get("error")
    if error is not None:
        raise NoWorker(error["message"], fix=error.get("fix"), code=error.get("code"))
    return said
