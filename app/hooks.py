"""The bare door for webhooks: no middleware, no routing, as few steps as possible between the socket and the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson

from app.problems import explain, retry_after
from nodes.errors import FactoryError
from runtime.limits import LIMITS

if TYPE_CHECKING:
    from runtime.factory import Factory

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PREFIX = "/hooks/"
BODY_LIMIT = LIMITS["webhook_bytes"].default


class TooLarge(FactoryError):
    """The body is bigger than a webhook may be."""

    code = "request.too_large"
    status = 413


async def webhook(factory: Factory, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Take one call for a deployed webhook and answer it."""
    try:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body") or len(body) > BODY_LIMIT:
            body = await _rest(body, message, receive)
        reply = await factory.hooks.handle(
            scope["path"][len(PREFIX) :], scope["method"], scope["headers"], body, query=scope["query_string"]
        )
        status, headers, content = reply.status, reply.headers, reply.body
    except Exception as problem:
        error = explain(problem, place="webhook")
        status, content = error.status, orjson.dumps({"error": error.as_dict()})
        headers = [(b"content-type", b"application/json")]
        if (seconds := retry_after(error)) is not None:
            headers.append((b"retry-after", b"%d" % seconds))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                *headers,
                (b"content-length", b"%d" % len(content)),
                (b"x-content-type-options", b"nosniff"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


async def _rest(body: bytes, message: Message, receive: Receive) -> bytes:
    parts, size = [body], len(body)
    while size <= BODY_LIMIT and message.get("more_body"):
        message = await receive()
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
    if size > BODY_LIMIT:
        raise TooLarge("A webhook takes at most 1 MiB.", fix="Send less, or send a link to it.")
    return b"".join(parts)
