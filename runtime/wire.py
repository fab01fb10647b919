"""What is sent over HTTP and what comes back: checked headers, bounded bodies, failures in words."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Sequence
from typing import Any, Final

import httpcore
import orjson

from nodes.base import NodeError
from runtime.targets import refused

MAX_REPLY: Final = 5 * 1024 * 1024
MAX_RATIO: Final = 100

_RATIO_FROM = 64 * 1024  # below this a small, very regular answer may well be packed tighter
_NOT_YOURS = frozenset(
    b"host content-length transfer-encoding connection upgrade te trailer keep-alive accept-encoding"
    b" proxy-authorization proxy-connection expect".split()
)
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def write_json(value: Any) -> bytes:
    """A value as a JSON body."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise NodeError(f"What is to be sent cannot be written as JSON: {error}.", category="input") from None


def header_name(name: str) -> bytes:
    """The name of a header that a caller may set."""
    key = name.encode("ascii", "replace").lower()
    if not key or not _TOKEN.issuperset(key):
        raise refused(f"“{name}” cannot be the name of a header.", "Use letters, digits and hyphens.")
    if key in _NOT_YOURS:
        raise refused(f"The header “{name}” is set by the connection itself.", "Leave it out.")
    return key


def header_value(name: str, value: str) -> bytes:
    """The value of a header: one line."""
    raw = str(value).strip().encode()
    if any((byte < 32 and byte != 9) or byte == 127 for byte in raw):
        raise refused(f"The value of the header “{name}” has a line break in it.", "A header is one line.")
    return raw


def read_headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; what came twice is joined."""
    headers: dict[str, str] = {}
    for key, value in raw:
        name, text = key.decode("latin-1").lower(), value.decode("utf-8", "replace")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


async def read_body(response: httpcore.Response, host: str, method: str) -> bytes:
    """The decoded body, never more than the cap, never unpacked further than the ratio."""
    encoding = next((v.decode("latin-1") for k, v in response.headers if k.lower() == b"content-encoding"), "")
    unpack = _unpacker(encoding.strip().lower(), host) if method != "HEAD" else None
    taken = 0
    body = bytearray()
    async for chunk in response.aiter_stream():
        taken += len(chunk)
        while chunk:
            if unpack is None:
                body += chunk
                break
            try:
                body += unpack.decompress(chunk, MAX_REPLY + 1 - len(body))
            except zlib.error:
                if not body and taken == len(chunk) and "deflate" in encoding.lower():
                    unpack = zlib.decompressobj(-zlib.MAX_WBITS)  # what some servers call deflate has no header
                    continue
                raise remote(f"The answer of {host} is packed wrongly.", "The other side has a problem.") from None
            chunk = unpack.unconsumed_tail if len(body) <= MAX_REPLY else b""
        if len(body) > _RATIO_FROM and len(body) > taken * MAX_RATIO:
            raise _too_much(host, f"unpacks to more than {MAX_RATIO} times its size")
        if len(body) > MAX_REPLY or taken > MAX_REPLY:
            raise _too_much(host, f"is longer than {MAX_REPLY // 1024 // 1024} MB")
    if unpack is not None and taken and not unpack.eof:
        raise remote(f"The answer of {host} ended too early.", "Try again; if it stays, the other side has a problem.")
    return bytes(body)


def _unpacker(encoding: str, host: str) -> Any:
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: reads gzip and zlib headers alike
    raise remote(
        f"The answer of {host} is packed as “{encoding[:40]}”, which was not asked for.",
        "The other side has a problem.",
    )


def remote(message: str, fix: str, *, retry: bool = False) -> NodeError:
    """The other side cannot be reached or answers wrongly."""
    return NodeError(message, category="remote", fix=fix, retry=retry)


def too_late(message: str, *, retry: bool) -> NodeError:
    """Nobody answered, or not soon enough."""
    return NodeError(message, category="timeout", fix="Try again, or allow it more time.", retry=retry)


def _too_much(host: str, said: str) -> NodeError:
    return NodeError(
        f"The answer of {host} {said}, so it was not read.",
        category="limit",
        fix="Ask for less at a time, for instance page by page.",
    )


def why(host: str, error: Exception) -> tuple[str, str]:
    """Why no connection came about, and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"The certificate of {host} is not valid: {cause.verify_message}.",
                "The other side must renew its certificate, or the operator must trust the one who signed it.",
            )
        if isinstance(cause, ssl.SSLError):
            return f"{host} does not speak HTTPS here.", "Check whether the address begins with http:// or https://."
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} refused the connection.", "Check the port, and whether the service is running."
        cause = cause.__cause__ or cause.__context__
    return f"{host} cannot be reached.", "Check the address, and whether the service is running."
