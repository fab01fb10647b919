"""The one guard in front of everything but webhooks: deny unless a rule says otherwise, over HTTP and sockets alike.

It checks the path's form, the host, who asks, where a change comes from, how much is sent, and to whom a page belongs;
and it puts the security headers on every answer. What a person may do is decided by routes and services behind it.
"""

from __future__ import annotations

import binascii
import contextlib
import hmac
import re
import secrets
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import itsdangerous
import orjson
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from nicegui import __version__ as nicegui_version
from nicegui.client import Client
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse

from app.assets import asset_path
from app.auth import Auth
from app.frames import Frames, turn_away
from app.permissions import BODY_LIMIT, UPLOAD_LIMIT, Doors
from app.plain import answer
from app.problems import explain
from app.settings import Settings, Theme
from app.visit import Session, SignedOut, Visit
from nodes.errors import Denied, FactoryError, NotFound, TooMany
from runtime.limits import Limits, in_words

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
SOCKET_PATH = "/_nicegui_ws/socket.io/"
FORMS = frozenset({"/login", "/setup", "/logout"})
"""Plain forms: they carry their CSRF word in a field and check it themselves."""
PAGE_COOKIE_AGE = 14 * 86400
PUBLIC_RATE = RateLimitItemPerMinute(120)
"""Each public page that is opened takes memory for a minute, so an address cannot open them without end."""
SOCKETS_MOST = 64
"""Open pages of one session."""
REQUESTS_MOST = 256
"""Requests of one session that are not answered to the end, streams among them."""

_FILES = tuple(
    f"/_nicegui/{nicegui_version}/{kind}/"
    for kind in ("static", "libraries", "components", "resources", "esm", "dynamic_resources")
)
_UPLOAD = re.compile(r"/_nicegui/client/([0-9a-f-]{36})/upload/[0-9]{1,9}")
_BAD_PATH = re.compile(r"//|/\.{1,2}(/|$)|[\\;\x00-\x1f\x7f]|\.$")
_BAD_RAW = re.compile(rb"%(2f|5c|3b|00|2e%2e)", re.IGNORECASE)

_BASE_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), interest-cohort=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def page_policy(nonce: str) -> str:
    """What a page of the application may load. Vue compiles templates in the browser, hence `unsafe-eval`; inline
    scripts need this answer's nonce; Quasar sets styles inline."""
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; media-src 'self'; "
        "manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


class BadRequest(FactoryError):
    """The request has a form that nothing of ours sends."""

    code = "request.bad"
    status = 400


class TooLarge(FactoryError):
    """More was sent than the route takes."""

    code = "request.too_large"
    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"That is more than {in_words(limit, 'bytes')}.", fix="Send less, or split it.")


class Guard:
    """An ASGI application around another."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        auth: Auth,
        doors: Doors,
        page_secret: str,
        limits: Limits | None = None,
    ) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._settings = settings
        self._auth = auth
        self._doors = doors
        self._page_signer = itsdangerous.TimestampSigner(page_secret)
        self._page_cookie = page_cookie(settings)
        self._files = frozenset(
            f"/assets/{kind}/{path.name}" for kind in ("css", "js", "icons") for path in asset_path(kind).glob("*.*")
        )
        self._headers = dict(_BASE_HEADERS)
        if settings.https:
            self._headers["strict-transport-security"] = "max-age=31536000"
        self._sockets: dict[str, set[Frames]] = defaultdict(set)
        self._open: Counter[str] = Counter()
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        auth.on_end(self._end_sockets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    # --- HTTP ----------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # NiceGUI writes this header into its pages; nobody but a proxy of ours may set it, and ours do not.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"x-forwarded-prefix"]
        headers = Headers(scope=scope)
        cookies = read_cookies(headers)
        visit = Visit(nonce=secrets.token_urlsafe(16), theme=read_theme(cookies), address=self._address(scope, headers))
        visit.note(scope)
        outgoing = self._outgoing(scope, visit, send)
        started = False
        body: Body | None = None

        async def sending(message: Message) -> None:
            nonlocal started
            if body is not None and body.over and not started:
                return  # whatever the application makes of a body that was cut: the answer is that it was too large
            started = started or message["type"] == "http.response.start"
            await outgoing(message)

        try:
            redirect = await self._admit(scope, headers, cookies, visit)
            if redirect:
                response = RedirectResponse(redirect, 303, headers={"Cache-Control": "no-store"})
                await response(scope, receive, sending)
                return
            body = Body(receive, headers, self._limit(scope["method"], scope["path"], visit.session))
            with self._one_more(visit.session):
                await self._app(scope, body.receive, sending)
            if body.over and not started:
                raise TooLarge(body.limit)
        except Exception as problem:
            error = explain(problem, place=scope["path"])
            if not started:
                body = None
                accept = headers.get("accept", "")
                said = answer(error, path=scope["path"], accept=accept, theme=visit.theme)
                await said(scope, receive, sending)

    @contextlib.contextmanager
    def _one_more(self, session: Session | None) -> Iterator[None]:
        """Count a request of a session while it is being answered. Raises TooMany."""
        if session is None:
            yield
            return
        if self._open[session.id] >= REQUESTS_MOST:
            raise TooMany(
                f"{REQUESTS_MOST} of your requests are being answered at this moment.",
                code="limit.requests",
                fix="Wait until some are answered, and close streams that you no longer follow.",
            )
        self._open[session.id] += 1
        try:
            yield
        finally:
            self._open[session.id] -= 1
            if not self._open[session.id]:
                del self._open[session.id]

    async def _admit(self, scope: Scope, headers: Headers, cookies: dict[str, str], visit: Visit) -> str:
        """Let the request pass (""), send it elsewhere (an address), or raise."""
        method, path = scope["method"], scope["path"]
        if _BAD_PATH.search(path) or _BAD_RAW.search(scope.get("raw_path") or b""):
            raise NotFound("Nothing is here.")
        if not self._settings.knows_host(headers.get("host", "")):
            raise BadRequest("This address is not ours.", fix=f"Open {self._settings.url}.", code="request.host")
        bearer = headers.get("authorization", "")
        if bearer:
            kind, _, token = bearer.partition(" ")
            visit.session = await self._auth.bearer(token.strip()) if kind.lower() == "bearer" else None
            if visit.session is None:
                raise SignedOut("This token is not valid, or it has expired.", fix="Make a new one.")
        else:
            visit.session = await self._auth.session(cookies.get(self._auth.cookie, ""))
            if method not in SAFE:
                self._same_origin(headers)
        if upload := _UPLOAD.fullmatch(path):
            self._owned(upload.group(1), visit.session, cookies)
            return ""
        if method in ("GET", "HEAD") and (path in self._files or path.startswith(_FILES)):
            return ""
        if self._doors.is_public_page(method, path) and not self._limiter.hit(PUBLIC_RATE, visit.address):
            raise TooMany("Too many pages in a short time.", fix="Wait a minute, then load it again.")
        if not self._doors.is_public("GET" if method == "HEAD" else method, path):
            if visit.session is None:
                return self._to_login(scope, headers)
            if method not in SAFE and visit.session.actor.kind == "person" and path not in FORMS:
                _check_csrf(headers.get("x-csrf-token", ""), visit.session)
        return ""

    def _same_origin(self, headers: Headers) -> None:
        """A change asked for with a cookie must come from our own pages."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        ours = self._settings.origin_for(headers.get("host", ""), headers.get("x-forwarded-proto", ""))
        wrong = (origin is not None and origin != ours) or (site is not None and site not in ("same-origin", "none"))
        told = origin is not None or site is not None
        if wrong or (not told and self._auth.cookie in read_cookies(headers)):
            raise Denied(
                "This request comes from another site.", code="request.origin", fix="Do it from our own pages."
            )

    def _to_login(self, scope: Scope, headers: Headers) -> str:
        wants_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if not wants_page or (scope["path"].startswith("/api/") and scope["path"] != "/api/docs"):
            raise SignedOut("Sign in first, or send a token.", fix="Send the header Authorization: Bearer <token>.")
        target = scope["path"]
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        return "/login" if target == "/" else f"/login?next={quote(target, safe='')}"

    def _address(self, scope: Scope, headers: Headers) -> str:
        return _address(scope, headers, behind_proxy=self._settings.behind_proxy or self._settings.https)

    def _limit(self, method: str, path: str, session: Session | None) -> int:
        most = UPLOAD_LIMIT if _UPLOAD.fullmatch(path) else self._doors.limit(method, path)
        if most > BODY_LIMIT or session is None:
            return most
        return min(most, self._limits.of(session.actor.tenant, "request_bytes"))

    def _outgoing(self, scope: Scope, visit: Visit, send: Send) -> Send:
        async def outgoing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                is_page = headers.get("x-nicegui-content") == "page"
                headers.setdefault("content-security-policy", page_policy(visit.nonce) if is_page else _NOTHING)
                if scope["path"].startswith("/assets/"):
                    fixed = b"v=" in scope["query_string"]
                    headers["cache-control"] = "public, max-age=31536000, immutable" if fixed else "no-cache"
                else:
                    headers.setdefault("cache-control", "no-store")
                if "server" in headers:
                    del headers["server"]
            await send(message)

        return outgoing

    # --- sockets -------------------------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        client_id = query.get("client_id", "")
        host = headers.get("host", "")
        ours = self._settings.origin_for(host, headers.get("x-forwarded-proto", ""))
        if (
            scope["path"] != SOCKET_PATH
            or query.get("transport") != "websocket"
            or "sid" in query
            or not client_id
            or not self._settings.knows_host(host)
            or headers.get("origin") != ours
        ):
            await send({"type": "websocket.close", "code": 1008})
            return
        cookies = read_cookies(headers)
        session = await self._auth.session(cookies.get(self._auth.cookie, ""))
        known = client_id in Client.instances
        try:
            owner = self._owned(client_id, session, cookies) if known else session
        except FactoryError:
            await turn_away(receive, send)
            return
        if owner is None and not known:
            await turn_away(receive, send)
            return
        Visit(session=session, theme=read_theme(cookies), address=self._address(scope, headers)).note(scope)
        frames = Frames(receive, send, client_id, self._alive(owner))
        key = owner.id if owner else ""
        if key and len(self._sockets.get(key, ())) >= SOCKETS_MOST:
            await send({"type": "websocket.close", "code": 1008})
            return
        self._sockets[key].add(frames)
        try:
            await self._app(scope, frames.receive, frames.send)
        except Exception as problem:
            explain(problem, place="socket")
            await frames.close(1011)
        finally:
            self._sockets[key].discard(frames)
            if not self._sockets[key]:
                del self._sockets[key]

    def _alive(self, owner: Session | None) -> Callable[[], bool]:
        if owner is None:
            return lambda: True
        session_id = owner.id
        return lambda: self._auth.live(session_id) is not None

    def _owned(self, client_id: str, session: Session | None, cookies: dict[str, str]) -> Session | None:
        """Check that a page belongs to whoever asks; returns the session it is bound to, None for a public page."""
        client = Client.instances.get(client_id)
        if client is None or client._request is None:
            raise NotFound("This page has been closed.", fix="Load it again.")
        if client.page.path in self._doors.public_page_paths:
            mine = self._page_id(cookies)
            if not mine or client.request.scope.get("session", {}).get("id") != mine:
                raise Denied("This page belongs to somebody else.", fix="Open your own.")
            return None
        opened_by = Visit.of(client.request.scope).session
        if session is None:
            raise SignedOut()
        if opened_by is None or opened_by.id != session.id:
            raise Denied("This page belongs to somebody else.", fix="Open your own.")
        return session

    def _page_id(self, cookies: dict[str, str]) -> str:
        """The id in NiceGUI's own signed cookie, which binds public pages to a browser."""
        try:
            data = self._page_signer.unsign(cookies.get(self._page_cookie, "").encode(), max_age=PAGE_COOKIE_AGE)
            return cast(str, orjson.loads(b64decode(data))["id"])
        except (itsdangerous.BadSignature, binascii.Error, orjson.JSONDecodeError, KeyError, TypeError, UnicodeError):
            return ""

    async def _end_sockets(self, session_id: str) -> None:
        for frames in tuple(self._sockets.get(session_id, ())):
            await frames.close(1008)


class Nonces:
    """Puts the answer's nonce on NiceGUI's own script tags. Data in a page has its `<` escaped, so only ours match."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def mark(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("x-nicegui-content") == "page":
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                nonce = Visit.of(scope).nonce.encode()
                whole = bytes(body).replace(b"<script", b'<script nonce="' + nonce + b'"')
                MutableHeaders(raw=start["headers"])["content-length"] = str(len(whole))
                await send(start)
                await send({"type": "http.response.body", "body": whole})
                return
            await send(message)

        await self._app(scope, receive, mark)


# --- reading requests --------------------------------------------------------------------------------------------


def page_cookie(settings: Settings) -> str:
    """Name of NiceGUI's cookie."""
    return "__Host-factory_page" if settings.https else "factory_page"


def read_cookies(headers: Headers) -> dict[str, str]:
    """The cookies of a request; a malformed header is no cookies."""
    try:
        return {name: one.value for name, one in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def read_theme(cookies: dict[str, str]) -> Theme:
    """The colours that the person chose in this browser."""
    chosen = cookies.get("factory_theme", "system")
    return cast(Theme, chosen) if chosen in ("light", "dark") else "system"


def next_page(target: str) -> str:
    """Where to go after signing in: a path of ours, never another site."""
    parts = urlsplit(target)
    if not target.startswith("/") or target.startswith("//") or "\\" in target or parts.scheme or parts.netloc:
        return "/"
    return "/" if _BAD_PATH.search(parts.path) or not target.isprintable() else target


def _check_csrf(sent: str, session: Session) -> None:
    if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise Denied(
            "This request lacks its CSRF word.",
            code="request.csrf",
            fix="Send the header X-CSRF-Token that /api/v1/auth/me tells you, or use a token.",
        )


def _address(scope: Scope, headers: Headers, *, behind_proxy: bool) -> str:
    """Where a request comes from: what the declared proxy says last, else the connection's other end."""
    if behind_proxy and (told := headers.get("x-forwarded-for", "").rpartition(",")[2].strip()):
        return told[:64]
    client = scope.get("client")
    return client[0] if client else ""


class Body:
    """The body of a request, but no more of it than the route takes."""

    def __init__(self, receive: Receive, headers: Headers, limit: int) -> None:
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdecimal()):
            raise BadRequest("The Content-Length makes no sense.")
        if int(declared) > limit:
            raise TooLarge(limit)
        self.limit = limit
        self.over = False
        self._receive = receive
        self._seen = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self.limit:
                self.over = True
                raise TooLarge(self.limit)
        return message
