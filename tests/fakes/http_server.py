"""A small HTTP/1.1 server on 127.0.0.1 for tests: a function answers, and every request is kept."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(slots=True)
class Answer:
    """What goes back: a body, or pieces sent as they come; with `cut` the connection is closed before the end."""

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: AsyncIterator[bytes] | None = None
    cut: bool = False


class HttpServer:
    """`async with HttpServer(answer) as server`: real sockets, keep-alive, chunked pieces."""

    def __init__(self, answer: Callable[[Asked], Awaitable[Answer]], tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.place}"

    async def __aenter__(self) -> "HttpServer":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            while asked := await _read(reader, connection):
                self.asked.append(asked)
                answer = await self._answer(asked)
                await _write(writer, answer, asked.method)
                if answer.cut:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, connection: int) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    body = b""
    if length := int(headers.get("content-length", "0")):
        body = await reader.readexactly(length)
    elif headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).strip(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Asked(method, target, headers, body, connection)


async def _write(writer: asyncio.StreamWriter, answer: Answer, method: str) -> None:
    headers = dict(answer.headers)
    body = answer.body
    if isinstance(body, dict | list):
        headers.setdefault("content-type", "application/json")
        body = orjson.dumps(body)
    raw = body.encode() if isinstance(body, str) else body
    if answer.pieces is None:
        headers.setdefault("content-length", str(len(raw)))
    else:
        headers["transfer-encoding"] = "chunked"
    lines = [f"HTTP/1.1 {answer.status} X", *(f"{key}: {value}" for key, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    if answer.pieces is None:
        if method != "HEAD":
            writer.write(raw)
    else:
        async for piece in answer.pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        if not answer.cut:
            writer.write(b"0\r\n\r\n")
    await writer.drain()
