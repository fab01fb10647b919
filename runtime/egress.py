"""The only way out over HTTP: what a node asks for is checked, pinned to a public address, bounded, and sent.

An address is resolved once, by the code that connects, so nothing can change between the check and the connection. Every
redirect is checked like a first call. Secrets are put in here and taken out again of all that goes back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final

import httpcore
import httpx

from nodes.base import BasicAuth, Http, HttpReply, NodeError, SecretRef, Signature
from nodes.errors import FactoryError
from runtime.addresses import Bridges, is_own, is_public, plain
from runtime.scrub import Scrubber
from runtime.targets import Target, matches, read_exception, read_pattern, read_target, refused
from runtime.wire import header_name, header_value, read_body, read_headers, remote, too_late, why, write_json

PORTS: Final = frozenset({80, 443, 8080, 8443})
MAX_SENT: Final = 10 * 1024 * 1024
MAX_REDIRECTS: Final = 5
MAX_TIMEOUT: Final = 300.0

_CONNECT_TIMEOUT = 10.0
_MAX_POOLS = 256
_MAX_CONNECTIONS = 200  # of a tenant: as many as it may have runs going on, so that none waits for another's slow call
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"x-api-key", b"api-key"})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Secrets = Callable[[str], Awaitable[str]]


class Egress:
    """Owns the connections of all tenants, each tenant's apart.

    `exceptions` are `host:port` pairs that the operator trusts although they are not public; `ports` are allowed besides
    the usual ones; with `closed` a door without allowed hosts lets nothing through. `resolve` and `tls` are for tests and
    for networks with their own names or certificates.
    """

    def __init__(
        self,
        *,
        exceptions: Iterable[str] = (),
        ports: Iterable[int] = (),
        closed: bool = False,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.exceptions = frozenset(read_exception(item) for item in exceptions)
        self.ports = PORTS | frozenset(ports)
        self.closed = closed
        self._resolve = resolve or _system_resolve
        self._tls = tls
        self._bridges = Bridges()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def start(self) -> None:
        """Nothing is opened before it is needed."""

    async def stop(self) -> None:
        """Close every connection."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    async def __aenter__(self) -> Egress:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def door(self, tenant: str, allowed_hosts: Sequence[str] | None, secrets: Secrets) -> Http:
        """A tenant's way out. `allowed_hosts` are names or `*.example.com`; without any, every public host may be called."""
        patterns = tuple(read_pattern(item) for item in allowed_hosts or ())
        return _Door(self, tenant, patterns if patterns or self.closed else None, secrets)

    async def permit(self, url: str, allowed_hosts: Sequence[str] | None = None) -> None:
        """Refuse with a NodeError what a call to this address would be refused for; sends nothing."""
        target = self.check(url, tuple(read_pattern(item) for item in allowed_hosts or ()) or None)
        async with _limit(_CONNECT_TIMEOUT, target.host, True):
            await self.addresses(target.host, target.port)

    def check(self, url: str, patterns: Sequence[str] | None) -> Target:
        """Read an address and refuse it if its form, port or host is not allowed."""
        target = read_target(url)
        if patterns is not None and not any(matches(target.host, pattern) for pattern in patterns):
            raise refused(
                f"This agent may not call {target.host}: the host is not on its list of allowed hosts.",
                "Add the host to the agent's allowed hosts, or call one that is on the list.",
            )
        if target.port not in self.ports and not self._excepted(target.host, target.port):
            raise refused(
                f"Port {target.port} may not be called.",
                f"Use one of the ports {', '.join(map(str, sorted(self.ports)))}, or ask the operator to allow "
                f"{target.host}:{target.port}.",
            )
        return target

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where the name leads, in order of preference. Raises if any of it is not on the public internet."""
        try:
            literal = ip_address(host)
        except ValueError:
            try:
                found = list(dict.fromkeys(await self._resolve(host, port)))
            except (OSError, UnicodeError):  # UnicodeError: a label longer than names can have
                found = []
        else:
            found = [str(literal)]
        if not found:
            raise remote(f"The host {host} cannot be found.", "Check the spelling of the address.")
        if not self._excepted(host, port) and not all(self._callable(item, port) for item in found):
            raise refused(
                f"{host} leads to an address that is not on the public internet, so it is not called.",
                f"If it is a service of your own that agents may use, ask the operator to allow {host}:{port}.",
            )
        return found

    def pool(self, tenant: str) -> httpcore.AsyncConnectionPool:
        """The tenant's connections, made at the first call."""
        pool = self._pools.get(tenant)
        if pool is None:
            if len(self._pools) >= _MAX_POOLS:
                for idle in [name for name, other in self._pools.items() if not other.connections]:
                    del self._pools[idle]
            if self._tls is None:
                self._tls = httpcore.default_ssl_context()
            pool = self._pools[tenant] = httpcore.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=_MAX_CONNECTIONS,
                max_keepalive_connections=16,
                keepalive_expiry=30.0,
                http1=True,
                http2=False,
                network_backend=_Pinned(self),
            )
        return pool

    def _excepted(self, host: str, port: int) -> bool:
        return f"{host}:{port}" in self.exceptions

    def _callable(self, address: str, port: int) -> bool:
        if self._excepted(address, port):
            return True
        if not is_public(address):
            return False
        found = plain(ip_address(address))
        return found not in self._bridges and not is_own(found)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked here and now, whatever name the layers above speak of."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._egress.addresses(host, port):
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise refused("Only addresses of the network can be called.", "Use an http:// or https:// address.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Sending:
    """What is being sent; a redirect changes it."""

    method: str
    target: Target
    headers: dict[bytes, bytes]
    secret_headers: set[bytes]
    body: bytes
    address_is_secret: bool
    scrub: Scrubber = field(default_factory=Scrubber)

    @property
    def repeatable(self) -> bool:
        """Whether sending it once more can do no harm."""
        return self.method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE") or b"idempotency-key" in self.headers

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        if self.address_is_secret:
            return f"{self.target.url.scheme}://{self.target.url.netloc.decode('ascii')}/…"
        return self.scrub.text(str(self.target.url))


class _Door:
    """One tenant's `ctx.http`."""

    def __init__(self, egress: Egress, tenant: str, patterns: Sequence[str] | None, secrets: Secrets) -> None:
        self._egress = egress
        self._tenant = tenant
        self._patterns = patterns
        self._secrets = secrets

    async def request(
        self,
        method: str,
        url: str | SecretRef,
        *,
        headers: Mapping[str, str | SecretRef] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        timeout: float = 30.0,
        follow_redirects: bool = True,
    ) -> HttpReply:
        """Send one request and give the answer, of whatever status. Raises NodeError."""
        sending = await self._prepare(method, url, headers, params, json, content)
        async with _limit(min(max(timeout, 0.001), MAX_TIMEOUT), sending.target.host, sending.repeatable):
            for _ in range(MAX_REDIRECTS + 1):
                reply = await self._send(sending, timeout)
                location = reply.headers.get("location")
                if not follow_redirects or reply.status not in (301, 302, 303, 307, 308) or not location:
                    return _cleaned(reply, sending)
                self._redirect(sending, reply.status, location)
        raise remote(
            f"{sending.target.host} redirects more than {MAX_REDIRECTS} times.", "Use the address it finally leads to."
        )

    async def _prepare(
        self,
        method: str,
        url: str | SecretRef,
        headers: Mapping[str, str | SecretRef] | None,
        params: Mapping[str, str] | None,
        json: Any,
        content: bytes | None,
    ) -> _Sending:
        if method.upper() not in _METHODS:
            raise refused(f"“{method}” is not an HTTP method.", "Use GET, POST, PUT, PATCH or DELETE.")
        scrub = Scrubber()
        if isinstance(url, SecretRef):
            address = await self._reveal(url, scrub)
            scrub.add_address(address)
        else:
            address = url
        try:
            target = self._egress.check(address, self._patterns)
            if params:
                target = self._egress.check(str(target.url.copy_merge_params(dict(params))), self._patterns)
        except NodeError as error:
            raise _scrubbed(error, scrub) from None
        body = content if content is not None else b"" if json is None else write_json(json)
        if len(body) > MAX_SENT:
            raise NodeError(
                f"The request is {len(body) / 1e6:.1f} MB long, and at most {MAX_SENT / 1e6:.0f} MB can be sent.",
                category="limit",
                fix="Send less, or send it in parts.",
            )
        sending = _Sending(method.upper(), target, {}, set(), body, isinstance(url, SecretRef), scrub)
        sending.headers = {b"user-agent": b"agent-factory", b"accept": b"*/*"}
        if json is not None and content is None:
            sending.headers[b"content-type"] = b"application/json"
        for name, value in (headers or {}).items():
            secret = isinstance(value, SecretRef)
            text = await self._reveal(value, scrub) if isinstance(value, SecretRef) else value
            key = header_name(name)
            sending.headers[key] = header_value(name, text)
            if secret:
                sending.secret_headers.add(key)
        return sending

    async def _reveal(self, ref: SecretRef, scrub: Scrubber) -> str:
        try:
            value = await self._secrets(ref.name)
        except NodeError:
            raise
        except FactoryError as error:
            raise NodeError(
                f"The secret “{ref.name}” is not set up.",
                category="credential",
                fix=f"Open Settings → Secrets and add “{ref.name}”.",
            ) from error
        scrub.add(value)
        if isinstance(ref, Signature):
            digest = hmac.new(value.encode(), ref.body, hashlib.sha256).hexdigest()
            return f"{ref.prefix}{digest}{ref.suffix}"
        if isinstance(ref, BasicAuth):
            encoded = base64.b64encode(f"{ref.user}:{value}".encode()).decode()
            scrub.add(encoded)
            return f"Basic {encoded}"
        return f"{ref.prefix}{value.strip()}{ref.suffix}"

    async def _send(self, sending: _Sending, timeout: float) -> HttpReply:
        url = sending.target.url
        headers = [(b"host", url.netloc), *sending.headers.items(), (b"accept-encoding", b"gzip, deflate")]
        if sending.body or sending.method in ("POST", "PUT", "PATCH"):
            headers.append((b"content-length", str(len(sending.body)).encode()))
        request = httpcore.Request(
            sending.method,
            httpcore.URL(
                scheme=url.raw_scheme, host=sending.target.host.encode("ascii"), port=url.port, target=url.raw_path
            ),
            headers=headers,
            content=sending.body or None,
            extensions={
                "timeout": {
                    "connect": min(timeout, _CONNECT_TIMEOUT),
                    "read": timeout,
                    "write": timeout,
                    "pool": timeout,
                }
            },
        )
        host = sending.target.host
        try:
            response = await self._egress.pool(self._tenant).handle_async_request(request)
            try:
                content = await read_body(response, host, sending.method)
            finally:
                await response.aclose()
        except (httpcore.ConnectTimeout, httpcore.PoolTimeout):
            raise too_late(f"{host} cannot be reached: nobody answered in time.", retry=True) from None
        except httpcore.TimeoutException:
            raise too_late(f"{host} did not answer in time.", retry=sending.repeatable) from None
        except httpcore.ConnectError as error:
            raise remote(*why(host, error), retry=True) from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            # Not the error's own text: it may quote what was sent.
            raise remote(
                f"The connection to {host} broke before the answer was complete.",
                "Try again; if it stays, the other side has a problem.",
                retry=sending.repeatable,
            ) from None
        except NodeError as error:
            raise _scrubbed(error, sending.scrub) from None
        return HttpReply(response.status, read_headers(response.headers), content, "")

    def _redirect(self, sending: _Sending, status: int, location: str) -> None:
        """Turn to where the answer points, without carrying secrets to another origin."""
        before = sending.target
        try:
            url = str(before.url.join(location))
        except (httpx.InvalidURL, ValueError):
            raise remote(
                f"{before.host} redirects to something that is not an address.", "Use the address it leads to."
            ) from None
        try:
            sending.target = self._egress.check(url, self._patterns)
        except NodeError as error:
            error = _scrubbed(error, sending.scrub)
            raise NodeError(
                f"{before.host} redirects to where no call may go. {error.message}",
                category=error.category,
                fix=error.fix,
            ) from None
        if status == 303 or (status in (301, 302) and sending.method == "POST"):
            sending.method = "HEAD" if sending.method == "HEAD" else "GET"
            sending.body = b""
            sending.headers.pop(b"content-type", None)
        if sending.target.origin != before.origin:
            for name in sending.secret_headers | _CREDENTIALS:
                sending.headers.pop(name, None)
            sending.secret_headers.clear()


async def _system_resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)
    return [str(item[4][0]) for item in found]


def _cleaned(reply: HttpReply, sending: _Sending) -> HttpReply:
    scrub = sending.scrub
    return HttpReply(
        reply.status,
        {name: scrub.text(value) for name, value in reply.headers.items()},
        scrub.bytes(reply.content),
        sending.shown,
    )


def _scrubbed(error: NodeError, scrub: Scrubber) -> NodeError:
    return NodeError(
        scrub.text(error.message),
        retry=error.retry,
        after=error.after,
        category=error.category,
        fix=scrub.text(error.fix) if error.fix else None,
        code=error.code,
    )


class _limit:  # noqa: N801 - used like asyncio.timeout, which it wraps
    """A time limit over a whole call, redirects and body included."""

    def __init__(self, seconds: float, host: str, repeatable: bool) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._seconds = seconds
        self._host = host
        self._repeatable = repeatable

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise too_late(
                f"{self._host} did not answer within {self._seconds:g} seconds.", retry=self._repeatable
            ) from None
