"""The register of doors: every route, page and socket event with the permission it asks for.

What is not declared here does not start (`verify`). A page is declared with `page`, an API route by taking
`Annotated[Actor, allow(Permission.VIEW)]`, an event handler of a page with `on`. Who is asking is read from the live
session each time (`current_actor`), never remembered from when a page was built.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, cast

from fastapi import Depends, FastAPI, Request
from fastapi.routing import iter_route_contexts
from nicegui import app as web
from nicegui import core, ui
from starlette.routing import Mount, Route, compile_path

from app.problems import notify_problem, recorded
from app.visit import Session, SignedOut, Visit
from nodes.errors import Denied, FactoryError
from runtime.limits import LIMITS
from runtime.policy import Actor, Permission

if TYPE_CHECKING:
    import re

    from app.auth import Auth
    from app.people import People
    from runtime.factory import Factory

P = ParamSpec("P")
R = TypeVar("R")

MIB = 1024 * 1024
BODY_LIMIT = LIMITS["request_bytes"].default
IMPORT_LIMIT = 5 * MIB // 2
UPLOAD_LIMIT = LIMITS["upload_bytes"].default
PATIENCE = (
    30.0  # seconds that a page may take on a busy machine; without it NiceGUI shows an error of its own after three
)

SOCKET_EVENTS = {
    "connect": "a live session, the right origin, and the client id of its own page",
    "handshake": "the same, again",
    "event": "the same, and what the handler asks for with `on`",
    "javascript_response": "the same as handshake",
    "ack": "the same as handshake",
    "disconnect": "nothing: it only ends things",
    "log": "refused: browsers never write the server's log",
}
"""What each message of NiceGUI's socket needs. The guard enforces it on the wire, before NiceGUI sees the frame."""


class UndeclaredRoute(RuntimeError):
    """A route, page or socket event exists that nobody declared a permission for: the app must not start."""


@dataclass(frozen=True, slots=True)
class Page:
    """A declared page. `permission` is None for a public one."""

    path: str
    title: str
    permission: Permission | None
    build: Callable[..., Any]
    options: dict[str, Any]


_pages: dict[str, Page] = {}


# --- declaring ---------------------------------------------------------------------------------------------------


def page(
    path: str, title: str = "", *, permission: Permission = Permission.VIEW, **options: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a page that asks for a permission. Use it where NiceGUI's examples use `@ui.page`."""
    return _declare(path, title, permission, options)


def public_page(path: str, title: str = "", **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a page that anybody may open: a hosted form or chat. It has no actor; it must take ids only."""
    return _declare(path, title, None, options)


def _declare(
    path: str, title: str, permission: Permission | None, options: dict[str, Any]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def declare(build: Callable[P, R]) -> Callable[P, R]:
        known = _pages.get(path)
        if known is not None and known.build.__module__ != build.__module__:
            raise UndeclaredRoute(f"Two pages want the path {path}: {known.build.__module__} and {build.__module__}.")
        _pages[path] = Page(path, title, permission, build, options)
        return build

    return declare


class Allowed:
    """The dependency behind `allow` and `anyone`: it is the declaration and the check in one."""

    def __init__(self, permission: Permission | None, limit: int, *, hosted: bool = False) -> None:
        self.permission = permission
        self.limit = limit
        self.hosted = hosted

    def __call__(self, request: Request) -> Actor | None:
        if self.permission is None:
            return None
        visit = Visit.of(request.scope)
        if visit.session is None:
            raise SignedOut()
        visit.session.actor.require(self.permission)
        return visit.session.actor


def allow(permission: Permission, *, limit: int = BODY_LIMIT) -> Any:
    """For API routes: `who: Annotated[Actor, allow(Permission.EDIT)]`. `limit` is the largest body in bytes."""
    return Depends(Allowed(permission, limit))


def anyone(*, limit: int = 64 * 1024) -> Any:
    """For the few API routes without a session (sign in, set up): `_: Annotated[None, anyone()]`. Exact paths only."""
    return Depends(Allowed(None, limit))


def visitor(*, limit: int = 256 * 1024) -> Any:
    """For the plain pages that agents host for anybody: their paths end with one part of their own, as `/forms/{path}`."""
    return Depends(Allowed(None, limit, hosted=True))


def the_factory(request: Request) -> Factory:
    """The Factory that the application holds."""
    return cast("Factory", request.app.state.factory)


def the_people(request: Request) -> People:
    """The team's people and tokens."""
    return cast("People", request.app.state.people)


def the_visit(request: Request) -> Visit:
    """Who asks, with the session behind it."""
    return Visit.of(request.scope)


if TYPE_CHECKING:
    TheFactory = Factory
    ThePeople = People
    TheVisit = Visit
else:
    TheFactory = Annotated[Any, Depends(the_factory)]
    ThePeople = Annotated[Any, Depends(the_people)]
    TheVisit = Annotated[Visit, Depends(the_visit)]


# --- asking, inside pages ----------------------------------------------------------------------------------------


def current_factory() -> Factory:
    """The Factory, for code of pages."""
    return cast("Factory", web.state.factory)


def current_auth() -> Auth:
    """Accounts and sessions, for code of pages."""
    return cast("Auth", web.state.auth)


def current_people() -> People:
    """The team's people and tokens, for code of pages."""
    return cast("People", web.state.people)


def current_session() -> Session:
    """The live session of the person at this page, read again at every call. Raises SignedOut when it has ended."""
    visit = Visit.of(ui.context.client.request.scope)
    session = visit.session and current_auth().live(visit.session.id)
    if session is None:
        raise SignedOut()
    return session


def current_actor() -> Actor:
    """Who is at this page, with today's role. Raises SignedOut when the session has ended."""
    return current_session().actor


def on(handler: Callable[P, Any], permission: Permission | None = Permission.VIEW) -> Callable[P, Any]:
    """Wrap an event handler of a page: authorise anew, and turn every error into words for the person.

    `ui.button("Deploy", on_click=on(deploy, Permission.DEPLOY))`. On a public page pass `permission=None`.
    """

    @functools.wraps(handler)
    def handle(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            if permission is not None:
                current_actor().require(permission)
            result = handler(*args, **kwargs)
        except Exception as problem:  # the last line before the screen: everything becomes words
            notify_problem(problem)
            return None
        return _finish(result) if inspect.isawaitable(result) else None

    return handle


async def _finish(result: Awaitable[Any]) -> None:
    try:
        await result
    except Exception as problem:
        notify_problem(problem)


# --- installing and checking -------------------------------------------------------------------------------------


def install_pages() -> None:
    """Hand every declared page to NiceGUI, each behind its check."""
    for declared in _pages.values():
        options: dict[str, Any] = {"response_timeout": PATIENCE, **declared.options}
        ui.page(declared.path, title=declared.title or None, **options)(_checked(declared))


def _checked(declared: Page) -> Callable[..., Any]:
    """The page's builder behind its permission; what goes wrong inside becomes a FactoryError with an incident."""

    def enter() -> None:
        if declared.permission is not None:
            current_actor().require(declared.permission)

    if inspect.iscoroutinefunction(declared.build):

        @functools.wraps(declared.build)
        async def build(*args: Any, **kwargs: Any) -> Any:
            with recorded(declared.path):
                enter()
                return await declared.build(*args, **kwargs)

    else:

        @functools.wraps(declared.build)
        def build(*args: Any, **kwargs: Any) -> Any:
            with recorded(declared.path):
                enter()
                return declared.build(*args, **kwargs)

    return build


@dataclass(frozen=True, slots=True)
class Doors:
    """What the guard needs to know about routes, gathered once at start."""

    public: frozenset[tuple[str, str]] = frozenset()
    """Exact (method, path) pairs that need no session."""
    public_pages: tuple[re.Pattern[str], ...] = ()
    public_page_paths: frozenset[str] = frozenset()
    """Path templates of the public pages, as NiceGUI's clients remember them."""
    hosted: tuple[tuple[str, re.Pattern[str]], ...] = ()
    """(method, path pattern) of the plain pages that agents host for anybody."""
    wide: tuple[tuple[str, re.Pattern[str], int], ...] = ()
    """(method, path pattern, limit) of the routes that take more than the usual body."""
    entries: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)
    """(method, path, permission) of every declared route and page: the register, for tests and for people."""

    def is_public(self, method: str, path: str) -> bool:
        """Whether anybody may ask for this."""
        return (method, path) in self.public or self.is_public_page(method, path)

    def is_public_page(self, method: str, path: str) -> bool:
        """Whether it is a page that was declared for anybody."""
        if any(known == ("GET" if method == "HEAD" else method) and one.match(path) for known, one in self.hosted):
            return True
        return method in ("GET", "HEAD") and any(pattern.match(path) for pattern in self.public_pages)

    def limit(self, method: str, path: str) -> int:
        """The largest body that the route takes."""
        for wide_method, pattern, limit in self.wide:
            if wide_method == method and pattern.match(path):
                return limit
        return BODY_LIMIT

    def methods(self, path: str) -> list[str]:
        """The methods that an address of the API takes; none if there is no such address."""
        if not path.startswith("/api/"):
            return []
        return sorted({method for method, known, _ in self.entries if compile_path(known)[0].match(path)})


OWN_PUBLIC = frozenset(
    {
        ("GET", "/login"),
        ("POST", "/login"),
        ("GET", "/setup"),
        ("POST", "/setup"),
        ("GET", "/favicon.ico"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
    }
)
_OWN_SIGNED_IN = frozenset({("POST", "/logout")})
_OWN_MOUNTS = frozenset({"/assets/css", "/assets/js", "/assets/icons"})
_NICEGUI_FILES = ("static", "libraries", "components", "resources", "esm", "dynamic_resources")


def verify(outer: FastAPI) -> Doors:
    """Walk all routes and socket events; raise UndeclaredRoute naming the first that nobody declared."""
    public: set[tuple[str, str]] = set(OWN_PUBLIC)
    hosted: list[tuple[str, re.Pattern[str]]] = []
    wide: list[tuple[str, re.Pattern[str], int]] = []
    entries: list[tuple[str, str, str]] = []
    for method, path, route in _routes(outer):
        if (method, path) in OWN_PUBLIC or (method, path) in _OWN_SIGNED_IN:
            entries.append((method, path, "anyone" if (method, path) in OWN_PUBLIC else "signed in"))
            continue
        declared = declaration(route)
        if declared is None:
            raise UndeclaredRoute(
                f"{method} {path} has no permission: take `Annotated[Actor, allow(Permission.…)]` in its function."
            )
        if declared.hosted:
            if path.count("{") != 1 or not path.endswith("/{path}"):
                raise UndeclaredRoute(
                    f"{method} {path} is hosted for anyone, so its path must end with /{{path}} alone."
                )
            hosted.append((method, compile_path(path)[0]))
        elif declared.permission is None:
            if "{" in path:
                raise UndeclaredRoute(f"{method} {path} is for anyone, so its path may not have parameters.")
            public.add((method, path))
        if declared.limit > BODY_LIMIT:
            wide.append((method, compile_path(path)[0], declared.limit))
        entries.append((method, path, declared.permission or "anyone"))
    entries.extend(_inner_entries())
    _verify_socket()
    open_pages = [one for one in _pages.values() if one.permission is None]
    return Doors(
        public=frozenset(public),
        public_pages=tuple(compile_path(one.path)[0] for one in open_pages),
        public_page_paths=frozenset(one.path for one in open_pages),
        hosted=tuple(hosted),
        wide=tuple(wide),
        entries=tuple(entries),
    )


def _routes(outer: FastAPI) -> Iterator[tuple[str, str, Any]]:
    for context in iter_route_contexts(outer.router.routes):
        route = context.original_route
        if isinstance(route, Mount):
            if route.app is core.app or route.path in _OWN_MOUNTS:
                continue
            raise UndeclaredRoute(f"Something is mounted at {route.path} that nobody declared.")
        if not isinstance(route, Route):
            raise UndeclaredRoute(f"{context.path} is a {type(route).__name__}, which nobody declared.")
        for method in sorted(context.methods or {"*"}):
            if method != "HEAD":
                yield method, context.path or "", context


def declaration(route: Any) -> Allowed | None:
    """The `Allowed` among a route's dependencies, however deep."""
    waiting = [getattr(route, "dependant", None)]
    while waiting:
        dependant = waiting.pop()
        if dependant is None:
            continue
        if isinstance(dependant.call, Allowed):
            return dependant.call
        waiting.extend(dependant.dependencies)
    return None


def _inner_entries() -> Iterator[tuple[str, str, str]]:
    """NiceGUI's own routes: declared pages, its files, its socket, and per-page uploads. Nothing else may exist."""
    for context in iter_route_contexts(web.router.routes):
        path = context.path or ""
        declared = _pages.get(path)
        if declared is not None:
            yield "GET", path, declared.permission or "anyone"
        elif path == "/favicon.ico":
            continue
        elif path.startswith("/_nicegui/"):
            parts = path.split("/")
            if len(parts) > 3 and parts[3] not in _NICEGUI_FILES and parts[2] != "client":
                raise UndeclaredRoute(f"NiceGUI serves {path}, which nobody declared. Was it upgraded?")
            yield "GET", path, "anyone: program files"
        elif path == "/_nicegui_ws":
            yield "WEBSOCKET", path, "per frame: see SOCKET_EVENTS"
        else:
            raise UndeclaredRoute(f"The page {path} has no permission: declare it with `permissions.page`.")


def _verify_socket() -> None:
    extra = {name for handlers in core.sio.handlers.values() for name in handlers} - set(SOCKET_EVENTS)
    if extra or set(core.sio.handlers) - {"/"} or core.sio.namespace_handlers:
        raise UndeclaredRoute(f"The socket listens to {sorted(extra) or 'a new namespace'}, which nobody declared.")


__all__ = [
    "BODY_LIMIT",
    "IMPORT_LIMIT",
    "UPLOAD_LIMIT",
    "Actor",
    "Denied",
    "Doors",
    "FactoryError",
    "Permission",
    "TheFactory",
    "ThePeople",
    "TheVisit",
    "UndeclaredRoute",
    "allow",
    "anyone",
    "current_actor",
    "current_auth",
    "current_factory",
    "current_people",
    "current_session",
    "declaration",
    "on",
    "page",
    "public_page",
    "visitor",
]
