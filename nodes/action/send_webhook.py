"""Send a webhook: tell another system that something happened."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from nodes.base import (
    Context,
    Effect,
    Example,
    Family,
    HttpReply,
    Json,
    LongText,
    Node,
    Out,
    PortInfo,
    Secret,
    SecretRef,
    Signature,
    Simulated,
    Text,
)
from nodes.calls import Header, failure, final_address, headers_of, literal_host, written_address, written_headers
from nodes.compiling import Code, Writer, atom, led, literal, mapping, stiff
from nodes.compiling import quoted as text_literal
from nodes.filling import check_filling, fill
from nodes.shape import NUMBER, Shape, record
from nodes.texts import as_json, filled, quoted

Method = Literal["POST", "PUT", "PATCH", "DELETE"]


class Called(Out):
    """What the other system answered."""

    status: Annotated[int, PortInfo(help="The number of the answer, 200 to 399.")]
    body: Annotated[Any, PortInfo(help="The answer, as data when it is JSON.")]
    headers: Annotated[dict[str, Any], PortInfo(help="The headers of the answer.")]


class SendWebhook(Node):
    """Calls another system's web address with data of this run.

    The same step always sends the same `Idempotency-Key`, so a careful receiver acts once even when the call is repeated.
    With a signature the receiver can check that it was us: `X-Factory-Signature` is `v1=` and the HMAC-SHA256 of
    `v1.<X-Factory-Timestamp>.<body>`; the time is in seconds since 1970, with a fraction.
    """

    family, title, icon, effect = Family.ACTION, "Send a webhook", "send", Effect.E4
    words = ("webhook", "http", "call", "post", "api", "notify", "push", "url", "send")
    keyed = True
    examples = (
        Example(
            "Send all that arrived",
            {"url": "https://shop.example.com/orders"},
            {"value": {"id": 7}},
            {"status": 200, "body": {"ok": True}, "headers": {"content-type": "application/json"}},
            given={"http": {"POST https://shop.example.com/orders": {"ok": True}}},
        ),
        Example(
            "Chosen fields, signed, to a secret address",
            {
                "where": "secret",
                "address": "partner_url",
                "method": "PUT",
                "send": "json",
                "json_body": '{"order": "{{ id }}", "state": "done"}',
                "sign_with": "partner_key",
                "headers": [{"name": "Authorization", "value": "Bearer ", "secret": "partner_token"}],
            },
            {"value": {"id": 7}},
            {"status": 202, "body": "", "headers": {"content-type": "text/plain"}},
            given={"http": {"PUT [partner_url]": {"status": 202}}},
        ),
    )

    where: Literal["here", "secret"] = Field(
        default="here",
        title="Address is",
        description="Written here, or kept as a secret because who knows it may call it.",
    )
    url: Text = Field(
        default="",
        title="Address",
        description="Where to call. Write `{{ id | url_encode }}` for what comes from outside.",
        json_schema_extra={"placeholder": "https://api.example.com/orders", "show_when": {"where": "here"}},
    )
    address: Secret = Field(
        default="",
        title="Secret address",
        description="The secret that holds the whole address.",
        json_schema_extra={"show_when": {"where": "secret"}},
    )
    method: Method = Field(default="POST", title="Method", description="How to call: most systems want POST.")
    send: Literal["value", "json", "text", "nothing"] = Field(
        default="value", title="Send", description="All that arrived, JSON or a text of your own, or nothing."
    )
    json_body: Json = Field(
        default="{}",
        title="JSON",
        description='With formulas between quotes: `"total": "{{ total }}"`; a number stays a number.',
        json_schema_extra={"show_when": {"send": "json"}},
    )
    text: LongText = Field(
        default="",
        title="Text",
        description="The text to send, with `{{ … }}` where something is filled in.",
        json_schema_extra={"show_when": {"send": "text"}},
    )
    headers: list[Header] = Field(
        default_factory=list, max_length=50, title="Headers", description="What else goes along, such as a token."
    )
    sign_with: Secret = Field(
        default="", title="Sign with", description="The secret to sign the call with. Empty: not signed."
    )
    timeout: float = Field(default=30, gt=0, le=300, title="Patience", description="How many seconds to wait.")

    @field_validator("json_body")
    @classmethod
    def _can_be_filled(cls, text: str) -> str:
        return check_filling(text)

    @model_validator(mode="after")
    def _is_right(self) -> "SendWebhook":
        if self.where == "here" and not self.url.strip():
            raise ValueError("the address is still empty")
        if self.where == "secret" and not self.address:
            raise ValueError("choose the secret that holds the address")
        return self

    def hosts(self) -> tuple[str, ...] | None:
        return (literal_host(self.url) if self.where == "here" else "",)

    async def run(self, ctx: Context, value: Any = None) -> Called:
        url = self._url(ctx)
        body, kind = self._body(ctx, value)
        headers: dict[str, str | SecretRef] = {"Content-Type": kind} if body else {}
        headers |= headers_of(ctx, self.headers)
        headers["Idempotency-Key"] = headers["X-Factory-Event"] = ctx.idempotency_key
        if self.sign_with:
            stamp = f"{ctx.now().timestamp():.6f}"
            headers["X-Factory-Timestamp"] = stamp
            headers["X-Factory-Signature"] = Signature(
                self.sign_with, prefix="v1=", body=b"v1." + stamp.encode() + b"." + body
            )
        reply = await ctx.http.request(self.method, url, headers=headers, content=body, timeout=self.timeout)
        if reply.status >= 400:
            raise failure(reply, "" if self.where == "here" else "The other system")
        return Called(status=reply.status, body=_body_of(reply), headers=dict(reply.headers))

    def as_python(self, w: Writer) -> None:
        body: Code = atom('b""')
        kind = ""
        if self.send == "text":
            body, kind = atom(f'{w.words(self.text)}.encode("utf-8", "replace")'), "text/plain; charset=utf-8"
        elif self.send != "nothing":
            value = w.json(self.json_body) if self.send == "json" else w.arrived("value")
            body, kind = w.use(as_json, value), "application/json"
        w.let("body", body)
        w.let("key", w.fresh())
        headers = {"Content-Type": literal(kind)} if kind else {}
        headers |= dict(written_headers(w, self.headers))
        headers |= {"Idempotency-Key": atom("key"), "X-Factory-Event": atom("key")}
        if self.sign_with:
            w.let("stamp", f'f"{{{w.now()}.timestamp():.6f}}"')
            signed = w.door("signature", w.secret(self.sign_with), atom('b"v1." + stamp.encode() + b"." + body'))
            headers |= {"X-Factory-Timestamp": atom("stamp"), "X-Factory-Signature": stiff(f'"v1=" + {signed}', 7)}
        w.let("url", w.secret(self.address) if self.where == "secret" else written_address(w, self.url))
        sent = [led("headers=", mapping(headers.items())), atom("content=body"), led("timeout=", literal(self.timeout))]
        w.let("reply", w.world("http.request", text_literal(self.method), "url", *sent))
        with w.when("reply.status >= 400"):
            w.line(w.use(failure, "reply"), "raise ")
        w.gives(status="reply.status", body=w.use(_body_of, "reply"), headers="dict(reply.headers)")

    async def simulate(self, ctx: Context, **inputs: Any) -> Simulated:
        url = self._url(ctx)
        body, _ = self._body(ctx, inputs.get("value"))
        where = quoted(url, 200) if isinstance(url, str) else f"the address in “{self.address}”"
        said = quoted(body.decode("utf-8", "replace"), 200)
        return Simulated(
            f"would call {where} with {self.method}: {said}" if said else f"would call {where} with {self.method}",
            Called(status=200, body={}, headers={}),
        )

    def _url(self, ctx: Context) -> str | SecretRef:
        if self.where == "secret":
            return SecretRef(self.address)
        return final_address(ctx, self.url)

    def _body(self, ctx: Context, value: Any) -> tuple[bytes, str]:
        if self.send == "nothing":
            return b"", ""
        if self.send == "text":
            return filled(ctx, self.text).encode("utf-8", "replace"), "text/plain; charset=utf-8"
        return as_json(fill(ctx, self.json_body) if self.send == "json" else value), "application/json"

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"status": NUMBER, "headers": record(open=True)}

    def forecast_seconds(self) -> float:
        return 0.5

    def describe(self) -> str:
        return f"{self.method} {quoted(self.url) if self.where == 'here' else 'a secret address'}"


def _body_of(reply: HttpReply) -> Any:
    """The answer as data where it says or looks so; else, or where that is not true, as text: the call was made."""
    text = reply.text
    if "json" in reply.headers.get("content-type", "") or text.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
