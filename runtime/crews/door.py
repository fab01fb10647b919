"""The socket of one member: what it may ask of its crew, and its way out. It lies in the worker's own room.

Three things must come together for anything to be heard: the process that calls runs inside this member's worker, the call
carries a token of this member's living lease, and the token's scopes allow it. A stolen token opens no other door, and a
thief on the machine is not inside the worker.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from nodes.errors import FactoryError
from runtime.crews import calls, way_out
from runtime.crews.calls import SCOPE, Call, read_call
from runtime.crews.exchange import FILE_LIMIT, BadMessage, Exchange
from runtime.crews.tokens import LIFE, Bond, TokenRefused, Tokens
from runtime.crews.way_out import WayOut
from runtime.workers.backend import ROOM, NoWorker
from runtime.workers.worker import LONGEST_SOCKET_PATH

log = structlog.get_logger()

NAME: Final = "crew"
ADDRESS: Final = f"{ROOM}/{NAME}"
"""Where the member sees it."""
FRAME_LIMIT: Final = 2 * 1024 * 1024
SMALL_FRAME: Final = 64 * 1024
LARGE_AT_ONCE: Final = 2
FRAME_TIME: Final = 30.0
"""Seconds that a begun frame may take to arrive."""
MOST_LINES: Final = 32
REFRESH: Final = LIFE / 2
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Seat:
    """What stands behind a member's door. `owns` says whether a process runs inside its worker."""

    bond: Bond
    tokens: Tokens
    exchange: Exchange
    way: WayOut
    gate: asyncio.Event
    owns: Callable[[int], bool]
    members: Callable[[], list[dict[str, str]]]


class Door:
    """Open from the moment a member's worker is held until it is given back."""

    def __init__(self, room: Path, seat: Seat, *, refresh: float | None = None) -> None:
        self.path = room / NAME
        self.refused = 0
        """How often somebody was sent away."""
        self._seat = seat
        self._refresh = REFRESH if refresh is None else refresh
        self._server: asyncio.AbstractServer | None = None
        self._lines: dict[asyncio.StreamWriter, asyncio.Task[Any]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._wanting: set[asyncio.StreamWriter] = set()
        """Those who asked for fresh tokens; on all other lines nothing is said unasked."""
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def open(self) -> None:
        """Listen."""
        if len(str(self.path)) > LONGEST_SOCKET_PATH:
            raise FactoryError(
                "The folder for the sockets of workers has too long a name.", code="crew.path", status=500
            )
        try:
            self.path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._called, path=str(self.path))
            # Who may reach it is decided by the folders above it, and by who calls; the worker is another user.
            self.path.chmod(0o666)
        except OSError as error:
            raise NoWorker(
                f"The folder of a worker cannot be used: {error.strerror}.",
                fix="Let nothing tidy up the folder of the workers, and start the server again.",
            ) from error
        self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="crew tokens")

    async def close(self) -> None:
        """Cut every line; nothing more is heard."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [*self._lines.values(), *filter(None, (self._renewing,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    async def _renew(self) -> None:
        """A member that lives gets a new token before the old one ends; only a living lease gets one."""
        seat = self._seat
        while True:
            await asyncio.sleep(self._refresh)
            for writer in list(self._wanting):
                if not seat.tokens.lives(seat.bond):
                    return
                writer.write(_frame({"token": seat.tokens.issue(seat.bond)}))

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._lines) >= MOST_LINES or not self._seat.owns(_peer(writer)):
            self.refused += 1
            writer.transport.abort()
            return
        self._lines[writer] = task
        try:
            await self._hear(reader, writer)
            writer.close()
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, FactoryError):
            pass
        except asyncio.CancelledError:  # only `close` cancels it, and nobody else asks how it ended
            pass
        except Exception:
            log.exception("a crew's door failed", crew=self._seat.bond.crew, member=self._seat.bond.member)
        finally:
            del self._lines[writer]
            self._wanting.discard(writer)
            if not writer.is_closing():
                writer.transport.abort()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first != b"\0":  # the length of a frame begins with zero, a method of HTTP with a letter
            await self._proxy(first, reader, writer)
            return
        waiting = asyncio.ensure_future(reader.readexactly(3))
        try:
            while True:
                (size,) = _LENGTH.unpack((b"\0" + await waiting)[-4:])
                if size > FRAME_LIMIT:
                    return
                data = await self._frame_of(reader, size)
                waiting = asyncio.ensure_future(reader.readexactly(4))
                answer = await self._while_there(self._answered(data, writer), waiting)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _frame_of(self, reader: asyncio.StreamReader, size: int) -> bytes:
        """The rest of a frame. Few large ones are read at once: what a member sends may not fill our memory."""
        async with asyncio.timeout(FRAME_TIME):
            if size <= SMALL_FRAME:
                return await reader.readexactly(size)
            async with self._large:
                return await reader.readexactly(size)

    async def _while_there(self, work: Coroutine[Any, Any, bytes], next_: asyncio.Future[bytes]) -> bytes | None:
        """The outcome of the work, which is given up when the caller hangs up."""
        doing = asyncio.ensure_future(work)
        try:
            await asyncio.wait((doing, next_), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done() and next_.exception() is not None:
                return None
            return await doing
        finally:
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)

    async def _answered(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        try:
            call = read_call(data)
            seat = self._seat
            seat.tokens.accept(call.token, seat.bond, SCOPE[type(call)])
            seat.exchange.pace(seat.bond.member)
            if isinstance(call, calls.Renew):  # a paused member stays one, so this does not wait
                self._wanting.add(writer)
                return _frame({"ok": None})
            await seat.gate.wait()
            return _frame({"ok": await self._do(call)})
        except FactoryError as error:
            if isinstance(error, TokenRefused):
                self.refused += 1
            return _frame({"error": error.as_dict()})
        except Exception:
            log.exception("a crew's call failed", crew=self._seat.bond.crew)
            return _frame({"error": {"code": "crew.failed", "message": "This could not be done.", "fix": None}})

    async def _do(self, call: Call) -> Any:
        exchange, bus, crew = self._seat.exchange, self._seat.exchange.bus, self._seat.bond.crew
        me = self._seat.bond.member
        match call:
            case calls.Publish():
                return await exchange.publish(me, call.topic, call.body)
            case calls.Subscribe():
                return exchange.subscribe(me, call.topic)
            case calls.Next():
                return await exchange.next(me, call.seconds)
            case calls.Request():
                return await exchange.request(me, call.to, call.body, call.seconds)
            case calls.Reply():
                return await exchange.reply(me, call.to, call.body)
            case calls.Members():
                return self._seat.members()
            case calls.Get():
                found = await bus.get(crew, "values", call.key)
                return None if found is None else {"value": found}
            case calls.Set():
                return await exchange.set("values", call.key, call.value)
            case calls.Swap():
                return await exchange.swap("values", call.key, call.was, call.value)
            case calls.Delete():
                return await exchange.delete("values", call.key)
            case calls.Keys():
                return await bus.keys(crew, "values")
            case calls.Push():
                return await exchange.push(me, call.queue, call.body)
            case calls.Pop():
                return await exchange.pop(me, call.queue, call.seconds)
            case calls.WriteFile():
                size = _size_of(call.data)
                return await exchange.set("files", call.name, call.data, size=size)
            case calls.ReadFile():
                return await bus.get(crew, "files", call.name)
            case calls.Files():
                return await bus.keys(crew, "files")

    async def _proxy(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(way_out.CONNECT_TIME):
            head = first + await reader.readuntil(b"\r\n\r\n")
        seat = self._seat
        try:
            seat.tokens.accept(way_out.token_of(head), seat.bond, "tool:exec")
            seat.exchange.pace(seat.bond.member)
        except FactoryError:
            self.refused += 1
            await way_out.say_no_token(writer)
            return
        await way_out.serve(head, reader, writer, seat.way)


def _size_of(data: str) -> int:
    try:
        size = len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise BadMessage("The file's data is not base64.") from None
    if size > FILE_LIMIT:
        raise BadMessage(f"A shared file may be at most {FILE_LIMIT // 1024 // 1024} MiB.")
    return max(1, size)


def _frame(told: dict[str, Any]) -> bytes:
    body = orjson.dumps(told)
    return _LENGTH.pack(len(body)) + body


def _peer(writer: asyncio.StreamWriter) -> int:
    """The process id on the other side, 0 where the system does not tell."""
    end = writer.get_extra_info("socket")
    if end is None or not hasattr(socket, "SO_PEERCRED"):
        return 0
    pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
