"""HTTP request: ask another system over the web."""

from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

import orjson
from pydantic import Field, field_validator, model_validator

from nodes.base import (
    BasicAuth,
    Context,
    Effect,
    Example,
    Family,
    HttpReply,
    Json,
    Label,
    LongText,
    Node,
    NodeError,
    Out,
    Row,
    Secret,
    SecretRef,
    Simulated,
    Text,
)
from nodes.calls import (
    HEADER_NAME,
    Header,
    checked_address,
    failure,
    final_address,
    headers_of,
    literal_host,
    written_address,
    written_headers,
)
from nodes.compiling import Code, Writer, atom, led, literal, mapping, stiff
from nodes.compiling import quoted as text_literal
from nodes.filling import check_filling, check_json, fill
from nodes.texts import as_json, as_text, filled, quoted

_READS = ("GET", "HEAD")


class Parameter(Row):
    """One name and its value in the address."""

    name: str = Field(min_length=1, max_length=200, title="Name", description="The name in the address.")
    value: Text = Field(default="", title="Value", description="A text, with `{{ … }}` for what arrived.")


class Answer(Out):
    """What the other system answered."""

    body: Any
    status: int
    headers: dict[str, Any]


class HttpRequest(Node):
    """Asks another system over the web, or tells it something.

    The answer's JSON arrives as data in `body`. A failure that may pass, such as an overloaded server, can be tried again:
    set “Try again” for this step. Reading (GET) happens in the sandbox too; everything else is only simulated there.
    """

    family, title, icon, effect = Family.CONTEXT, "HTTP request", "http", Effect.E4
    words = ("api", "rest", "get", "post", "fetch", "url", "web", "call", "json")
    keyed = True
    examples = (
        Example(
            "Look up an order",
            {"url": "https://api.example.com/orders/{{ id }}"},
            {"value": {"id": 7}},
            {"body": {"id": 7, "total": 1200}, "status": 200, "headers": {"content-type": "application/json"}},
            given={"http": {"https://api.example.com/orders/7": {"id": 7, "total": 1200}}},
        ),
        Example(
            "Make a ticket, with a key",
            {
                "method": "POST",
                "url": "https://api.example.com/tickets",
                "auth": "bearer",
                "secret": "ticket-key",
                "body_kind": "json",
                "body": '{"title": "{{ subject }}", "urgent": "{{ urgent }}"}',
                "sample_answer": '{"id": 1}',
            },
            {"value": {"subject": "Broken", "urgent": True}},
            {"body": {"id": 99}, "status": 201, "headers": {"content-type": "application/json"}},
            given={"http": {"POST https://api.example.com/tickets": {"status": 201, "body": {"id": 99}}}},
        ),
    )

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] = Field(
        default="GET", title="Method", description="GET reads; the others change something over there."
    )
    url: Text = Field(
        min_length=1,
        max_length=4_000,
        title="Address",
        description="The web address, with `{{ … }}` for what arrived; write `| url_encode` behind texts that may hold any signs.",
        json_schema_extra={"placeholder": "https://api.example.com/orders/{{ id }}"},
    )
    query: list[Parameter] = Field(
        default_factory=list, max_length=50, title="Query", description="What is added to the address behind “?”."
    )
    headers: list[Header] = Field(
        default_factory=list, max_length=50, title="Headers", description="Headers to send along."
    )
    auth: Literal["none", "bearer", "basic", "header"] = Field(
        default="none",
        title="Sign in with",
        description="A bearer token, a user with password, or a key in a header; all from your secrets.",
    )
    secret: Secret = Field(
        default="",
        title="Secret",
        description="The token, password or key.",
        json_schema_extra={"show_when": {"auth": ["bearer", "basic", "header"]}},
    )
    user: str = Field(
        default="",
        max_length=200,
        title="User",
        description="The user whose password the secret is.",
        json_schema_extra={"show_when": {"auth": "basic"}},
    )
    key_header: str = Field(
        default="X-API-Key",
        pattern=HEADER_NAME,
        max_length=200,
        title="Header of the key",
        description="The header that the other system reads the key from.",
        json_schema_extra={"show_when": {"auth": "header"}},
    )
    body_kind: Literal["none", "json", "form", "text"] = Field(
        default="none",
        title="Send",
        description="Nothing, JSON, the fields of a web form, or a text.",
        json_schema_extra={"show_when": {"method": ["POST", "PUT", "PATCH", "DELETE"]}},
    )
    body: Json = Field(
        default='"{{ input }}"',
        title="JSON",
        description="JSON with `{{ … }}` between quotes; a single `{{ … }}` keeps its kind. For a form: one record.",
        json_schema_extra={"show_when": {"body_kind": ["json", "form"]}},
    )
    text: LongText = Field(
        default="{{ input }}",
        title="Text",
        description="The text to send, with `{{ … }}` for what arrived.",
        json_schema_extra={"show_when": {"body_kind": "text"}},
    )
    timeout: float = Field(
        default=30.0, ge=1, le=300, title="Wait at most", description="Seconds to wait for the answer."
    )
    success: str = Field(
        default="200-299",
        max_length=100,
        title="Counts as success",
        description="Status numbers that are no error, such as `200-299, 404`.",
        json_schema_extra={"placeholder": "200-299, 404"},
    )
    answer: Literal["auto", "text"] = Field(
        default="auto",
        title="Read the answer",
        description="“auto” reads JSON as data; “text” leaves every answer a text.",
    )
    sample_answer: Json = Field(
        default="",
        title="Sample answer",
        description="What the sandbox pretends the other system answers (JSON).",
        json_schema_extra={"show_when": {"method": ["POST", "PUT", "PATCH", "DELETE"]}},
    )

    @field_validator("success")
    @classmethod
    def _has_statuses(cls, text: str) -> str:
        _statuses(text)
        return text

    @field_validator("sample_answer")
    @classmethod
    def _is_json(cls, text: str) -> str:
        return check_json(text)

    @model_validator(mode="after")
    def _is_complete(self) -> "HttpRequest":
        if self.auth != "none" and not self.secret:
            raise ValueError("choose the secret to sign in with")
        if self.auth == "basic" and not self.user:
            raise ValueError("fill in the user to sign in as")
        if self.body_kind in ("json", "form"):
            check_filling(self.body)
        if "{{" not in self.url:
            checked_address(self.url)
        return self

    async def run(self, ctx: Context, value: Any = None) -> Answer:
        url = final_address(ctx, self.url)
        headers = self._headers(ctx)
        payload, content = None, None
        if self.method not in _READS:
            headers.setdefault("Idempotency-Key", ctx.idempotency_key)
            if self.body_kind == "json":
                payload = fill(ctx, self.body)
            elif self.body_kind != "none":
                content = self._content(ctx, headers)
        params = {row.name: filled(ctx, row.value) for row in self.query}
        reply = await ctx.http.request(
            self.method,
            url,
            headers=headers,
            params=params or None,
            json=payload,
            content=content,
            timeout=self.timeout,
        )
        ctx.log(f"{self.method} {urlsplit(url).hostname} answered {reply.status}")
        if not any(low <= reply.status <= high for low, high in _statuses(self.success)):
            raise failure(reply, missing="Check the address, or add 404 to “Counts as success”.")
        return Answer(_body_of(reply, self.answer), reply.status, dict(reply.headers))

    def as_python(self, w: Writer) -> None:
        headers = dict(written_headers(w, self.headers))
        if self.auth == "bearer":
            headers["Authorization"] = stiff(f'"Bearer " + {w.secret(self.secret)}', 7)
        elif self.auth == "basic":
            headers["Authorization"] = w.door("basic", text_literal(self.user), w.secret(self.secret))
        elif self.auth == "header":
            headers[self.key_header] = w.secret(self.secret)
        sent: list[Code] = []
        if self.method not in _READS:
            headers.setdefault("Idempotency-Key", w.fresh())
            known = {name.lower() for name in headers}
            if self.body_kind == "json":
                sent.append(led("json=", w.json(self.body)))
            elif self.body_kind == "text":
                sent.append(led("content=", atom(f'{w.words(self.text)}.encode("utf-8", "replace")')))
            elif self.body_kind == "form":
                sent.append(led("content=", w.use(_form, w.json(self.body))))
            kinds = {"text": "text/plain; charset=utf-8", "form": "application/x-www-form-urlencoded"}
            if self.body_kind in kinds and "content-type" not in known:
                headers["Content-Type"] = literal(kinds[self.body_kind])
        params = [led("params=", mapping((row.name, w.words(row.value)) for row in self.query))] if self.query else []
        given = [led("headers=", mapping(headers.items())), *params, *sent, led("timeout=", literal(self.timeout))]
        w.let("url", written_address(w, self.url))
        w.let("reply", w.world("http.request", text_literal(self.method), "url", *given))
        fine = " or ".join(f"{low} <= reply.status <= {high}" for low, high in _statuses(self.success))
        with w.when(f"not ({fine})"):
            w.line(w.use(failure, "reply"), "raise ")
        body = w.use(_body_of, "reply", text_literal(self.answer))
        w.gives(body=body, status="reply.status", headers="dict(reply.headers)")

    def _headers(self, ctx: Context) -> dict[str, str | SecretRef]:
        headers = headers_of(ctx, self.headers)
        if self.auth == "bearer":
            headers["Authorization"] = SecretRef(self.secret, prefix="Bearer ")
        elif self.auth == "basic":
            headers["Authorization"] = BasicAuth(self.secret, user=self.user)
        elif self.auth == "header":
            headers[self.key_header] = SecretRef(self.secret)
        return headers

    def _content(self, ctx: Context, headers: dict[str, str | SecretRef]) -> bytes:
        known = {name.lower() for name in headers}
        if self.body_kind == "text":
            if "content-type" not in known:
                headers["Content-Type"] = "text/plain; charset=utf-8"
            return filled(ctx, self.text).encode("utf-8", "replace")
        form = _form(fill(ctx, self.body))
        if "content-type" not in known:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return form

    def effect_here(self) -> Effect:
        return Effect.E1 if self.method in _READS else Effect.E4

    def labels(self) -> frozenset[Label]:
        found = {Label.UNTRUSTED}
        if self.auth != "none" or any(row.secret for row in self.headers):
            found.add(Label.PRIVATE)
        if self.method not in _READS:
            found.add(Label.EXTERNAL)
        return frozenset(found)

    def hosts(self) -> tuple[str, ...]:
        return (literal_host(self.url),)

    async def simulate(self, ctx: Context, **inputs: Any) -> Simulated:
        url = final_address(ctx, self.url)
        body = orjson.loads(self.sample_answer) if self.sample_answer.strip() else {}
        sent = fill(ctx, self.body) if self.body_kind in ("json", "form") else None
        sending = "" if sent is None else f", sending {quoted(as_json(sent).decode(), 200)}"
        return Simulated(
            f"would {self.method} {url[:300]}{sending}",
            Answer(body, 200, {"content-type": "application/json"}),
        )

    def forecast_seconds(self) -> float:
        return 0.5

    def describe(self) -> str:
        return f"{self.method} {self.url.removeprefix('https://')}"[:200]


@lru_cache(maxsize=256)
def _statuses(text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        high = high if dash else low
        if not (
            low.isdigit()
            and high.isdigit()
            and low.isascii()
            and high.isascii()
            and 100 <= int(low[:5]) <= int(high[:5]) <= 599
        ):
            raise ValueError(f"“{part.strip()}” is not a status such as 200 or a range such as 200-299")
        ranges.append((int(low), int(high)))
    return tuple(ranges)


def _body_of(reply: HttpReply, answer: str) -> Any:
    """The answer as data where it is JSON, else as text."""
    kind = reply.headers.get("content-type", "").lower()
    if answer == "text" or not reply.content:
        return reply.text
    if "json" in kind or (not kind and reply.content[:1] in b"{["):
        try:
            return orjson.loads(reply.content)
        except orjson.JSONDecodeError as error:
            raise NodeError(
                f"{urlsplit(reply.url).hostname} says that it answers JSON, but it is not: {error}.",
                category="remote",
                fix="Set “Read the answer” to “text”.",
            ) from None
    return reply.text


def _form(found: Any) -> bytes:
    """The fields of a web form as they are sent."""
    if not isinstance(found, dict):
        raise NodeError("The fields of a form must be one record.", fix='Write for example {"name": "{{ name }}"}.')
    return urlencode({name: as_text(part) for name, part in found.items()}, errors="replace").encode()
