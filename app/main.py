"""The composition root: settings in, one ASGI application out.

request ─ Door ─┬─ /hooks/…  bare door           (app.hooks)
                ├─ /healthz, /readyz             (here)
                └─ Guard ─ FastAPI ─┬─ API       (app.api.*)
                                    ├─ plain forms
                                    └─ NiceGUI ─ pages (app.pages.*)
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import ModuleType
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from nicegui import app as web
from nicegui import core, ui
from nicegui.storage import Storage
from starlette.exceptions import HTTPException

from app import hooks
from app.accounts import Accounts
from app.assets import asset_path
from app.auth import Auth
from app.frames import LARGEST_FRAME
from app.guard import PAGE_COOKIE_AGE, Guard, Nonces, page_cookie
from app.people import People
from app.permissions import Doors, install_pages, verify
from app.plain import answer, favicon
from app.problems import explain
from app.settings import Settings
from app.studio.rooms import close_drawings
from app.theme import set_defaults
from app.visit import Visit
from nodes.errors import FactoryError
from runtime.factory import Factory, Options

log = structlog.get_logger("factory")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Door:
    """The outermost application: tells webhooks and health questions from everything else, cheapest first."""

    def __init__(self, outer: FastAPI, guard: Guard) -> None:
        self.outer = outer
        self._guard = guard
        self.problem: FactoryError | None = None
        """Why it did not start, when we know."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith(hooks.PREFIX):
                await hooks.webhook(self.outer.state.factory, scope, receive, send)
                return
            if path == "/healthz":
                await _say(send, 200, b"ok")
                return
            if path == "/readyz":
                started = getattr(self.outer.state, "ready", False)
                ready = started and self.outer.state.factory.ready
                text = b"ready" if ready else b"without the database" if started else b"starting"
                await _say(send, 200 if ready else 503, text)
                return
        elif scope["type"] == "lifespan":
            send = self._in_words(send)
        await self._guard(scope, receive, send)

    @property
    def setup_url(self) -> str:
        """The one-time link, while nobody has an account."""
        url: str = getattr(self.outer.state, "setup_url", "")
        return url

    def _in_words(self, send: Send) -> Send:
        """A start that fails for a reason we know says so, without a traceback."""

        async def say(message: MutableMapping[str, Any]) -> None:
            self.problem = getattr(self.outer.state, "problem", None)
            if message["type"] == "lifespan.startup.failed" and self.problem is not None:
                message = {**message, "message": ""}
            await send(message)

        return say


async def _say(send: Send, status: int, text: bytes) -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(text)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def create_app(settings: Settings) -> Door:
    """The whole application, ready for a server. It starts and stops the Factory with the server's lifespan."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    page_secret = settings.key("pages").hex()
    Storage.path = settings.home / "pages"
    factory = Factory(factory_options(settings))
    accounts = Accounts(factory.db)
    auth = make_auth(settings, accounts)
    people = People(accounts, auth)
    outer = FastAPI(
        title="Agent Factory",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan(settings, factory, auth),
    )
    for state in (outer.state, web.state):
        state.factory, state.auth, state.people, state.settings = factory, auth, people, settings
    _add_problems(outer)
    _add_problems(web)
    for module in (*modules("app.pages"), *modules("app.api")):
        router = getattr(module, "router", None)
        if isinstance(router, APIRouter):
            # Its routes are whole already: including the router would build each a second time, at every start.
            outer.router.routes.extend(router.routes)
    for kind in ("css", "js", "icons"):
        outer.mount(f"/assets/{kind}", StaticFiles(directory=asset_path(kind)))
    outer.add_api_route("/favicon.ico", favicon, include_in_schema=False)
    set_defaults()
    install_pages()
    _run_pages(outer, settings, page_secret)
    outer.state.doors = web.state.doors = doors = verify(outer)
    return Door(outer, Guard(outer, settings, auth, doors, page_secret, factory.limits))


def modules(package: str) -> list[ModuleType]:
    """Every module of a package, imported, in the order of their names."""
    home = importlib.import_module(package)
    names = sorted(one.name for one in pkgutil.iter_modules(home.__path__, f"{package}."))
    return [importlib.import_module(name) for name in names]


def make_auth(settings: Settings, accounts: Accounts) -> Auth:
    """Signing in, with this installation's keys."""
    return Auth(
        accounts,
        key=settings.key("words"),
        setup_file=settings.home / "keys" / "setup",
        https=settings.https,
    )


def installation(settings: Settings) -> str:
    """The name that this installation's workers carry, so that they are told from others on the same machine."""
    return hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]


def factory_options(settings: Settings, *, ticking: bool = True) -> Options:
    """The settings as the runtime takes them."""
    return Options(
        database_url=settings.database(),
        vault_key=settings.key("vault"),
        home=installation(settings),
        folder=settings.home / "on-the-way",
        docker=settings.docker,
        pool_size=settings.pool_size,
        pools=settings.pools(),
        sizes=settings.sizes(),
        model=settings.model,
        model_base_url=settings.model_base_url,
        model_key=settings.model_key.get_secret_value(),
        model_price=settings.model_price,
        run_budget=settings.run_budget,
        day_budget=settings.day_budget,
        month_budget=settings.month_budget,
        smtp_url=settings.smtp_url.get_secret_value(),
        redis_url=settings.redis_url.get_secret_value(),
        allow_private_hosts=settings.allow_private_hosts,
        lease_seconds=settings.lease_seconds,
        public_url=settings.url.rstrip("/"),
        ticking=ticking,
    )


def _lifespan(settings: Settings, factory: Factory, auth: Auth) -> Callable[[FastAPI], Any]:
    @contextlib.asynccontextmanager
    async def lifespan(outer: FastAPI) -> AsyncIterator[None]:
        try:
            async with factory, auth:
                needs_setup = await auth.needs_setup()
                settings.check_reach(has_admin=not needs_setup)
                token = await auth.new_setup_token() if needs_setup else ""
                outer.state.setup_url = f"{settings.url}/setup?token={token}" if token else ""
                outer.state.ready = True
                yield
                outer.state.ready = False
                await close_drawings()
        except FactoryError as problem:
            outer.state.problem = problem
            raise

    return lifespan


def _run_pages(outer: FastAPI, settings: Settings, page_secret: str) -> None:
    """Mount NiceGUI: one socket transport, its cookie under our rules, no Tailwind compiler in the browser."""
    core.app.config.socket_io_js_transports = ["websocket"]
    core.sio.eio.transports = ["websocket"]
    core.sio.eio.max_http_buffer_size = LARGEST_FRAME
    core.sio.eio.cors_allowed_origins = []  # engine.io then accepts any origin, and the guard has checked it before
    ui.run_with(
        outer,
        title="Agent Factory",
        language="en-US",
        tailwind=False,
        gzip_middleware_factory=None,
        show_welcome_message=False,
        reconnect_timeout=10.0,
        binding_refresh_interval=0.5,
        storage_secret=page_secret,
        session_middleware_kwargs={
            "session_cookie": page_cookie(settings),
            "max_age": PAGE_COOKIE_AGE,
            "same_site": "lax",
            "https_only": settings.https,
        },
    )
    web.add_middleware(Nonces)
    web.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)


def _add_problems(server: FastAPI) -> None:
    """Every error in words: JSON for programs, a page in our look for browsers; never a traceback."""

    async def known(request: Request, error: Exception) -> Response:
        return _say_problem(request, explain(error, place=request.url.path))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code not in (404, 405):
            return _say_problem(
                request, FactoryError(str(error.detail), code=f"http.{error.status_code}", status=error.status_code)
            )
        # NiceGUI is mounted at / and takes what no route takes, so a wrong method arrives here as a wrong address.
        if takes := request.app.state.doors.methods(request.url.path):
            wrong = FactoryError(
                f"{request.method} cannot be done here.",
                code="method",
                status=405,
                fix=f"This address takes {' and '.join(takes)}.",
            )
            response = _say_problem(request, wrong)
            response.headers["Allow"] = ", ".join(takes)
            return response
        return _say_problem(request, FactoryError("Nothing is here.", code="not_found", status=404))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        problem = FactoryError(
            f"What was sent is not right at “{path}”: {first['msg']}.",
            code="request.invalid",
            status=422,
            where={"fields": [{"path": list(one["loc"]), "message": one["msg"]} for one in error.errors()[:20]]},
            fix="Compare it with /api/docs.",
        )
        return _say_problem(request, problem)

    server.add_exception_handler(FactoryError, known)
    server.add_exception_handler(HTTPException, http)
    server.add_exception_handler(404, http)
    server.add_exception_handler(RequestValidationError, invalid)
    server.add_exception_handler(Exception, known)


def _say_problem(request: Request, error: FactoryError) -> Response:
    return answer(
        error, path=request.url.path, accept=request.headers.get("accept", ""), theme=Visit.of(request.scope).theme
    )


__all__ = ["Door", "Doors", "create_app", "make_auth", "modules"]
