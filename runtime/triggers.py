"""The addresses that the outside calls: webhooks, forms and chats of deployed agents, and what happens when one is."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
import re2
import structlog

from nodes.base import NodeError
from nodes.blueprint import BlueprintError, check_json
from nodes.errors import FactoryError, NotFound
from nodes.ids import new_id
from nodes.listen import Chat, Form, Webhook
from runtime import resume
from runtime.engine import Engine, closing
from runtime.execution import Order, Response
from runtime.held import Held
from runtime.journal import Plans
from runtime.keyed import BadCall as BadCall
from runtime.keyed import Keyed
from runtime.plan import Plan
from runtime.vault import BadKey, Vault
from runtime.waits import PREFIX
from storage import hook
from storage.database import Database

log = structlog.get_logger()

WINDOW = 300.0  # seconds that a signature may be old or early (TRUST (f))
PATIENCE = 120.0  # seconds that a caller is kept waiting for an answer
HIDDEN = frozenset({"authorization", "cookie", "x-factory-signature", "proxy-authorization"})
KEPT_BACK = frozenset({"set-cookie", "content-length", "transfer-encoding", "connection", "content-security-policy"})


@dataclass(frozen=True, slots=True)
class Route:
    """What answers at an address: a trigger of a deployed version."""

    tenant: str
    deployment: str
    blueprint: str
    version: int
    node: str
    active: bool
    hold: bool
    """While it is not active: keep calls for later."""
    environment: str
    listen: Webhook | Form | Chat
    plan: Plan


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Hooks:
    """The table of addresses, and what happens when one is called."""

    def __init__(self, db: Database, engine: Engine, plans: Plans, vault: Vault, held: Held) -> None:
        self._db = db
        self._held = held
        self._engine = engine
        self._plans = plans
        self._vault = vault
        self._keyed = Keyed(db, engine)
        self._routes: dict[tuple[str, str], Route] = {}
        self._loading = asyncio.Lock()
        self.on_reload: Callable[[], Awaitable[None]] = _nothing
        """What else has to learn of a deployment that changed."""

    async def reload(self) -> None:
        """Read the table anew and swap it in one go: every call sees the old or the new one, none is lost."""
        async with self._loading:
            routes = {}
            for row, live, content_hash in await self._db.read_all(hook.wired):
                try:
                    plan = await self._plans.by_hash(row.tenant_id, content_hash)
                except FactoryError as error:
                    log.error("a deployed version cannot be run", deployment=live.id, error=error.message)
                    continue
                step = plan.steps.get(row.node)
                listen = step.node.listens() if step else None
                if isinstance(listen, Webhook | Form | Chat):
                    routes[row.kind, row.path] = Route(
                        tenant=row.tenant_id,
                        deployment=live.id,
                        blueprint=live.blueprint_id,
                        version=live.version,
                        node=row.node,
                        active=live.state == "active",
                        hold=live.hold,
                        environment=live.environment,
                        listen=listen,
                        plan=plan,
                    )
            self._routes = routes
        await self.on_reload()

    def find(self, kind: str, path: str) -> Route:
        """What answers at an address; kind is webhook, form or chat. Raises NotFound, BadCall while calls are refused."""
        route = self._routes.get((kind, path))
        if route is None:
            raise NotFound("Nothing answers at this address.", fix="Check the address with whoever gave it to you.")
        if not route.active and not route.hold:
            raise BadCall(
                "This agent is paused.", code="hook.paused", fix="Try again later; nothing was started.", status=503
            )
        return route

    async def handle(
        self, path: str, method: str, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, query: bytes = b""
    ) -> Reply:
        """Take a call of a webhook. Raises NotFound, BadCall, TooMany, StorageError."""
        if path.startswith(PREFIX):
            return await self._resume(path[len(PREFIX) :], method, headers, body, query)
        route = self.find("webhook", path)
        listen = route.listen
        assert isinstance(listen, Webhook)
        if listen.method not in ("ANY", method):
            raise BadCall(f"This address takes {listen.method}, not {method}.", code="hook.method", status=405)
        if self._engine.limits.lowered(route.tenant, "webhook_bytes") is not None:
            self._engine.limits.check(route.tenant, "webhook_bytes", len(body), "The call brings")
        given = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in headers}
        key = given.get("idempotency-key", "")
        marks = await self._signed(route, listen, given, body) if listen.secret else ()
        # What a call is known again by is made only for one that can be: a body may be long.
        content = b"%b %b\n%b" % (method.encode(), query, body) if key or marks else b""
        wait = listen.respond == "end"
        response = await self.take(route, _event(method, given, body, query), content, key=key, marks=marks, wait=wait)
        return as_reply(response) if wait else Reply(response.status, _JSON, orjson.dumps(response.body))

    async def _resume(
        self, token: str, method: str, headers: Iterable[tuple[bytes, bytes]], body: bytes, query: bytes
    ) -> Reply:
        given = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in headers}
        event = _event(method, given, body, query)
        said = await resume.call(self._engine.waits, token, method, given, event)
        return Reply(said.status, said.headers, said.body)

    async def take(
        self, route: Route, event: Any, content: bytes = b"", *, key: str = "", marks: Sequence[str] = (), wait: bool
    ) -> Response:
        """Take a call. One with a key or marks is known again: it starts nothing then, and with its key it is answered as before.

        With `wait` the answer is that of the run, else that it was accepted. Raises BadKey, BadCall, TooMany, StorageError.
        """

        async def start(run_id: str = "") -> Response:
            if wait:
                return await self.ask(route, event, run_id)
            run_id = await self.accept(route, event, run_id)
            return Response(202, {"run": run_id, "state": "accepted" if route.active else "held"}, {})

        if not (key or marks):
            return await start()
        patience = PATIENCE if wait else 0.0
        source = f"{route.deployment} {route.node}"
        return await self._keyed.call(
            route.tenant, source, content, key=key, marks=marks, start=start, patience=patience
        )

    async def accept(self, route: Route, event: Any, run_id: str = "") -> str:
        """Start a run, or keep the call for when the agent goes on; returns the run's id when that is durable."""
        if not route.active:
            return await self._keep(route, event, run_id)
        return (await self._engine.accept(self._order(route, event, run_id))).id

    async def ask(self, route: Route, event: Any, run_id: str = "") -> Response:
        """Start a run and wait for its answer, or for its end; after `PATIENCE` say that it goes on."""
        if not route.active:
            return Response(202, {"run": await self._keep(route, event, run_id), "state": "held"}, {})
        ex = self._engine.begin(self._order(route, event, run_id))
        if (response := await self._engine.attend(ex, PATIENCE)) is not None:
            return response
        await ex.flush()
        return closing(ex) if ex.ended.is_set() else Response(202, {"run": ex.id, "state": ex.state.value}, {})

    async def _keep(self, route: Route, event: Any, run_id: str) -> str:
        run_id = await self._held.take(route.tenant, route.deployment, route.node, event, run_id)
        # Whether it went on in the meantime is seen only now that the call is where the release looks.
        if any(one.deployment == route.deployment and one.active for one in self._routes.values()):
            self._held.release_soon(route.tenant, route.deployment)
        return run_id

    @staticmethod
    def _order(route: Route, event: Any, run_id: str = "") -> Order:
        return Order(
            run_id=run_id or new_id("run"),
            tenant=route.tenant,
            plan=route.plan,
            trigger=route.node,
            input=event,
            blueprint_id=route.blueprint,
            version=route.version,
            deployment_id=route.deployment,
            environment=route.environment,
        )

    async def _signed(self, route: Route, listen: Webhook, headers: dict[str, str], body: bytes) -> tuple[str, ...]:
        """HMAC-SHA256 over `v1.<seconds>.<raw body>`, in time; what the call is known by when it comes again.

        The event id is not signed, so the signature counts beside it: another id does not make an old call new.
        """
        stamp, signature = headers.get("x-factory-timestamp", ""), headers.get("x-factory-signature", "")
        given = signature.encode("utf-8", "replace")
        signed = b"v1." + stamp.encode() + b"." + body
        fits = known = False
        for name in (listen.secret, listen.old_secret):
            if name and not fits:
                key = await self._key(route, name)
                known = known or bool(key)
                wanted = "v1=" + hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
                fits = bool(key) and hmac.compare_digest(wanted.encode(), given)
        if not known:
            raise BadCall(
                "This address cannot take calls at the moment.",
                code="hook.unready",
                status=503,
                fix="Try again later; nothing was started.",
            )
        if not fits or not _STAMP.fullmatch(stamp) or abs(time.time() - float(stamp)) > WINDOW:
            raise BadCall(
                "The signature does not fit.",
                code="hook.signature",
                status=401,
                fix="Sign “v1.<seconds>.<body>” with HMAC-SHA256 and the shared secret; send X-Factory-Timestamp and "
                "X-Factory-Signature: v1=<hex>. The clock may be five minutes off.",
            )
        event = headers.get("x-factory-event", "")[:200]
        return (signature, event) if event else (signature,)

    async def _key(self, route: Route, name: str) -> str:
        """A secret that callers sign with; empty when there is none. What it is called is not for callers to know."""
        try:
            return await self._vault.reveal(route.tenant, name, route.environment)
        except (NodeError, BadKey) as error:
            log.warning("calls cannot be checked with a secret", deployment=route.deployment, error=error.message)
            return ""


def _event(method: str, given: Mapping[str, str], body: bytes, query: bytes) -> dict[str, Any]:
    """A call as the data that a run begins with."""
    return {
        "body": read_body(body, given.get("content-type", "")),
        "query": dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
        "headers": {key: value for key, value in given.items() if key not in HIDDEN},
        "method": method,
    }


async def _nothing() -> None:
    pass


_STAMP = re2.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
_JSON = [(b"content-type", b"application/json")]


def read_body(body: bytes, content_type: str) -> Any:
    """The body of a call: form fields, JSON, or text. Uploads are for forms. Raises BadCall."""
    if not body:
        return None
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise BadCall(
            "Webhooks take JSON, form fields or text, not uploads.", code="hook.type", status=415, fix="Send JSON."
        )
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "json" in kind:
            raise BadCall(
                f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
                code="hook.json",
                fix="Correct the JSON and send it again.",
            ) from None
        return body.decode("utf-8", "replace")
    if body.count(b"[") + body.count(b"{") > 60 or not body.isascii() or len(body) > 10_000:
        try:
            check_json(value)
        except BlueprintError as error:
            raise BadCall(error.message, code="hook.json", fix="Send flatter data.") from None
    return value


def as_reply(response: Response) -> Reply:
    """A run's answer as HTTP. It is shown in a browser without scripts and cannot set cookies: its words are the agent's."""
    headers = [(b"content-security-policy", b"sandbox; default-src 'none'")]
    typed = False
    for name, value in response.headers.items():
        low = name.strip().lower()
        line = f"{low}: {value}"
        if low in KEPT_BACK or not line.isprintable() or not low.replace("-", "").isalnum() or not low.isascii():
            continue
        typed = typed or low == "content-type"
        headers.append((low.encode(), str(value).encode("latin-1", "replace")))
    body = response.body
    if isinstance(body, str):
        content, kind = body.encode("utf-8", "replace"), b"text/plain; charset=utf-8"
    elif body is None:
        content, kind = b"", b"text/plain; charset=utf-8"
    else:
        content, kind = orjson.dumps(body), b"application/json"
    if not typed:
        headers.append((b"content-type", kind))
    return Reply(response.status, headers, content)
