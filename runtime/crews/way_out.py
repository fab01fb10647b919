"""The egress door of a crew: an HTTP proxy that leads to the hosts of the crew's list, on the public internet, and nowhere else.

A name is resolved here and now, all its addresses are held against the rules of `runtime/egress.py`, and the connection goes
to one of those. Inside a worker there is no network at all, so there is no way around it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from nodes.base import NodeError
from nodes.errors import FactoryError
from runtime.crews.exchange import BudgetSpent
from runtime.crews.manifest import Budgets
from runtime.egress import Egress
from runtime.targets import Target, read_pattern, refused

HEAD_LIMIT: Final = 64 * 1024
CONNECT_TIME: Final = 10.0
IDLE_TIME: Final = 120.0
CHUNK: Final = 65_536
_NOT_PASSED: Final = (b"proxy-", b"connection", b"keep-alive", b"host", b"te", b"upgrade")


@dataclass(slots=True, eq=False)
class WayOut:
    """What one crew may do outside, and what it has done."""

    egress: Egress
    patterns: tuple[str, ...]
    budgets: Budgets
    gate: asyncio.Event
    calls: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, egress: Egress, allow: tuple[str, ...], budgets: Budgets, gate: asyncio.Event) -> WayOut:
        """The way out of a crew that may call these hosts."""
        return cls(egress, tuple(read_pattern(host) for host in allow), budgets, gate)

    async def connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to where the name leads, counted. Raises FactoryError."""
        if self.calls >= self.budgets.calls:
            raise BudgetSpent(
                f"The crew has made all of the {self.budgets.calls:,} connections that it may.",
                fix="Allow more in the budgets of its manifest.",
            )
        self.calls += 1
        async with asyncio.timeout(CONNECT_TIME):
            failure: OSError | None = None
            for address in await self.egress.addresses(target.host, target.port):
                try:
                    return await asyncio.open_connection(address, target.port)
                except OSError as error:
                    failure = error
        raise NodeError(
            f"{target.host} cannot be reached: {failure.strerror if failure else 'it has no address'}.",
            category="remote",
            fix="Try again later.",
        )

    def spend(self, size: int) -> bool:
        """Count bytes; whether that much was still allowed."""
        self.bytes += size
        return self.bytes <= self.budgets.bytes


async def serve(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: WayOut) -> None:
    """Answer one proxy request whose head has been read and whose token was good."""
    try:
        target, first = _read(head, way)
        await way.gate.wait()
        far_reader, far_writer = await way.connect(target)
    except TimeoutError:
        await _say(writer, 504, "Nobody answered in time.")
        return
    except FactoryError as error:
        await _say(
            writer, 403 if error.category not in ("remote", "timeout") else 502, f"{error.message} {error.fix or ''}"
        )
        return
    try:
        if first:
            far_writer.write(first)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there = asyncio.ensure_future(_pass_on(reader, far_writer, way))
        back = asyncio.ensure_future(_pass_on(far_reader, writer, way))
        try:
            await asyncio.gather(there, back)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
    finally:
        far_writer.close()


def token_of(head: bytes) -> str:
    """What the caller shows, or an empty text."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"proxy-authorization":
            kind, _, token = value.strip().partition(b" ")
            return token.decode("ascii", "replace").strip() if kind.lower() == b"bearer" else ""
    return ""


def _read(head: bytes, way: WayOut) -> tuple[Target, bytes]:
    """Where the request wants to go, and what to send there first; nothing for a tunnel. Raises NodeError."""
    line, _, rest = head.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not line.isascii():
        raise refused("This is not a request to a proxy.", "Use an HTTP client that knows proxies.")
    method, where = parts[0], parts[1].decode("ascii")
    if method == b"CONNECT":
        host, colon, port = where.rpartition(":")
        if not colon or not port.isdigit() or any(char in host for char in "/@?#"):
            raise refused("The address to connect to cannot be read.", "Write it as in api.example.com:443.")
        return way.egress.check(f"https://{where}/", way.patterns), b""
    if not where.lower().startswith("http://") or not method.isalpha():
        raise refused("Only http:// addresses are asked for so; https goes through CONNECT.", "Use an HTTP client.")
    target = way.egress.check(where, way.patterns)
    lines = [line for line in rest.rstrip(b"\r\n").split(b"\r\n") if line]
    if any(line[:1] in b" \t" or b":" not in line or b"\n" in line or b"\0" in line for line in lines):
        raise refused("A header of the request cannot be read.", "Write each header on one line.")
    kept = [line for line in lines if not line.lower().startswith(_NOT_PASSED)]
    own = [method + b" " + target.url.raw_path + b" HTTP/1.1", b"Host: " + target.url.netloc, b"Connection: close"]
    return target, b"\r\n".join([*own, *kept]) + b"\r\n\r\n"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: WayOut) -> None:
    """Carry one direction until it ends; the other one goes on."""
    with contextlib.suppress(OSError):
        while True:
            async with asyncio.timeout(IDLE_TIME):
                data = await reader.read(CHUNK)
            await way.gate.wait()
            if not data:
                break
            if not way.spend(len(data)):
                raise BudgetSpent("The crew has moved all the bytes that it may.")
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _say(writer: asyncio.StreamWriter, status: int, sentence: str) -> None:
    body = sentence.strip().encode()
    word = {403: "Forbidden", 407: "Proxy Authentication Required", 502: "Bad Gateway", 504: "Gateway Timeout"}[status]
    head = f"HTTP/1.1 {status} {word}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    with contextlib.suppress(OSError):
        await writer.drain()


async def say_no_token(writer: asyncio.StreamWriter) -> None:
    """Refuse who shows no good token."""
    await _say(writer, 407, "This is not a token for this place.")
