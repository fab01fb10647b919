"""The guard of a page's socket: reads every frame on the wire and lets only sound ones of the page's owner through.

NiceGUI's socket checks nothing itself. A socket here belongs to one page (its client id) and one session; a frame must be
well formed, carry that client id, and arrive while the session lives. What is not understood is dropped without a word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeGuard
from uuid import uuid4

import orjson
from nicegui.client import Client

from app.problems import notify_problem
from runtime.limits import LIMITS, Exceeded, said

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FRAME_LIMIT = LIMITS["frame_bytes"].default
LARGEST_FRAME = 1024 * 1024
"""One message of the canvas may carry a pasted graph: an element that says `takes_much` gets up to this."""
RATE = float(LIMITS["frames_a_second"].default)
BURST = 200.0
"""Frames per second, and how many may come at once. Faster ones wait; none is lost."""


class Alive(Protocol):
    """Says whether the session behind a socket still lives."""

    def __call__(self) -> bool: ...


class Frames:
    """One socket of one page, between the server and NiceGUI."""

    def __init__(self, receive: Receive, send: Send, client_id: str, alive: Alive) -> None:
        self._receive = receive
        self._send = send
        self._client_id = client_id
        self._alive = alive
        self._tokens = BURST
        self._filled = time.monotonic()
        self._closed = False
        self._for_much = False
        """Whether the frame that was just read is for an element that takes much."""

    async def receive(self) -> Message:
        """The next message that may go on."""
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                return message
            await self._pace()
            if not self._alive():
                await self.close(1008)
            elif self._fits(text := message.get("text")) and self._is_sound(text):
                if len(text) <= FRAME_LIMIT or self._for_much:
                    return message
                self._say_too_much(len(text))

    async def send(self, message: Message) -> None:
        """Pass on what NiceGUI sends, until we closed."""
        if not self._closed:
            await self._send(message)

    async def close(self, code: int) -> None:
        """End the connection from our side."""
        if not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": code})

    async def _pace(self) -> None:
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled) * RATE)
        self._filled = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / RATE)

    def _fits(self, text: object) -> TypeGuard[str]:
        return not self._closed and isinstance(text, str) and len(text) <= LARGEST_FRAME

    def _say_too_much(self, size: int) -> None:
        """Tell the person why nothing happened."""
        limit = LIMITS["frame_bytes"]
        client = Client.instances.get(self._client_id)
        if client is not None:
            with client:
                notify_problem(Exceeded(said(limit, size, limit.default), code=limit.error_code, fix=limit.fix))

    def _is_sound(self, text: str) -> bool:
        self._for_much = False
        # Engine.IO: 1 close, 2 ping, 3 pong, 4 message; Socket.IO in a message: 0 connect, 1 disconnect, 2 event.
        if text in ("1", "2", "3", "40", "40{}", "41"):
            return True
        if not text.startswith("42"):
            return False
        start = 2
        while start < len(text) and start < 12 and text[start].isdecimal():
            start += 1
        try:
            event = orjson.loads(text[start:])
        except orjson.JSONDecodeError:
            return False
        match event:
            case [str(name), dict(said)] if said.get("client_id") == self._client_id:
                return self._is_event(name, said)
        return False

    def _is_event(self, name: str, said: dict[str, Any]) -> bool:
        match name:
            case "event":
                return self._is_for_element(said)
            case "ack":
                return type(said.get("next_message_id")) is int
            case "javascript_response":
                return isinstance(said.get("request_id"), str)
            case "handshake":
                return all(isinstance(said.get(key), str) for key in ("tab_id", "document_id"))
        return False

    def _is_for_element(self, said: dict[str, Any]) -> bool:
        client = Client.instances.get(self._client_id)
        number, listener, args = said.get("id"), said.get("listener_id"), said.get("args", [])
        if client is None or type(number) is not int or not isinstance(listener, str) or not isinstance(args, list):
            return False
        element = client.elements.get(number)
        if element is None or listener not in element._event_listeners:
            return False
        self._for_much = bool(getattr(element, "takes_much", False))
        return all(arg is None or (isinstance(arg, str) and _is_json(arg)) for arg in args)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


async def turn_away(receive: Receive, send: Send) -> None:
    """Tell the browser of an ended session, in the socket's own protocol, to load its page anew: it then signs in."""
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept"})
    opening = {"sid": uuid4().hex, "upgrades": [], "pingInterval": 25000, "pingTimeout": 5000, "maxPayload": 1000}
    await send({"type": "websocket.send", "text": "0" + orjson.dumps(opening).decode()})
    try:
        async with asyncio.timeout(5):
            while (message := await receive())["type"] == "websocket.receive":
                if (message.get("text") or "").startswith("40"):
                    refusal = orjson.dumps({"message": "Implicit handshake failed"}).decode()
                    await send({"type": "websocket.send", "text": "44" + refusal})
                    break
            else:
                return
    except TimeoutError:
        pass
    await send({"type": "websocket.close", "code": 1008})
