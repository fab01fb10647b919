"""Webhook: another system calls an address of ours."""

from typing import Any, Literal

import orjson
from pydantic import Field, field_validator

from nodes.answers import PublicPath
from nodes.base import Context, Effect, Example, Family, Json, Label, Node, Out, Secret
from nodes.compiling import Writer, literal
from nodes.filling import check_json
from nodes.ids import new_token
from nodes.listen import Webhook as Call


class Arrived(Out):
    """The parts of an HTTP call."""

    body: Any
    query: dict[str, Any]
    headers: dict[str, Any]
    method: str


class Webhook(Node):
    """Starts when another system calls this agent's web address.

    Give the address to the other system. With a signature, only callers that know the secret are heard. “At the end” keeps
    the caller waiting for what “Respond” says, or for what the run ends with.

    Callers that may repeat a call send the header `Idempotency-Key`: within a day the same key is answered as before, and
    starts nothing.
    """

    family, title, icon, effect = Family.TRIGGER, "Webhook", "webhook", Effect.E0
    words = ("http", "call", "api", "post", "receive", "url", "hook", "trigger")
    examples = (
        Example(
            "An order arrives",
            {"path": "orders"},
            {
                "event": {
                    "body": {"name": "Ada", "total": 1200},
                    "query": {"shop": "berlin"},
                    "headers": {"content-type": "application/json"},
                    "method": "POST",
                }
            },
            {
                "body": {"name": "Ada", "total": 1200},
                "query": {"shop": "berlin"},
                "headers": {"content-type": "application/json"},
                "method": "POST",
            },
        ),
        Example(
            "Only a body, as typed in the sandbox",
            {"path": "orders", "respond": "end"},
            {"event": {"total": 12}},
            {"body": {"total": 12}, "query": {}, "headers": {}, "method": "POST"},
        ),
    )

    path: PublicPath = Field(
        default_factory=new_token,
        title="Address",
        description="The last part of the address. A long random one cannot be guessed.",
        json_schema_extra={"format": "path", "prefix": "/hooks/"},
    )
    method: Literal["POST", "GET", "PUT", "PATCH", "DELETE", "ANY"] = Field(
        default="POST", title="Method", description="How the other system calls: most send POST."
    )
    secret: Secret = Field(
        default="",
        title="Signed with",
        description="The secret that callers sign with (HMAC-SHA256). Empty: everybody who knows the address is heard.",
    )
    old_secret: Secret = Field(
        default="",
        title="Or with the old one",
        description="While callers change to a new secret: the one before, which is heard too. Take it away when all have changed.",
    )
    respond: Literal["now", "end"] = Field(
        default="now",
        title="Answer",
        description="“now” answers as soon as the run is safely recorded, “end” when it has an answer.",
    )
    sample_body: Json = Field(
        default='{"name": "Ada", "total": 1200}',
        title="Sample body",
        description="What a call may bring, for the sandbox and for suggestions in formulas.",
    )

    @field_validator("sample_body")
    @classmethod
    def _is_json(cls, text: str) -> str:
        return check_json(text)

    async def run(self, ctx: Context, event: Any) -> Arrived:
        if not isinstance(event, dict) or "body" not in event:
            # Somebody typed only the body, in the sandbox or on the command line.
            event = {"body": event}
        query, headers = event.get("query"), event.get("headers")
        return Arrived(
            body=event["body"],
            query=query if isinstance(query, dict) else {},
            headers=headers if isinstance(headers, dict) else {},
            method=str(event.get("method") or ("POST" if self.method == "ANY" else self.method)),
        )

    def as_python(self, w: Writer) -> None:
        w.let("call", 'event if isinstance(event, dict) and "body" in event else {"body": event}')
        w.let("query, headers", 'call.get("query"), call.get("headers")')
        method = literal("POST" if self.method == "ANY" else self.method)
        w.gives(
            body='call["body"]',
            query="query if isinstance(query, dict) else {}",
            headers="headers if isinstance(headers, dict) else {}",
            method=f'str(call.get("method") or {method})',
        )

    def listens(self) -> Call:
        return Call(self.path, self.method, self.secret, self.respond, self.old_secret if self.secret else "")

    def labels(self) -> frozenset[Label]:
        return frozenset() if self.secret else frozenset({Label.UNTRUSTED})

    def sample(self) -> dict[str, Any]:
        body = orjson.loads(self.sample_body) if self.sample_body.strip() else None
        headers = {"content-type": "application/json"}
        return {
            "body": body,
            "query": {},
            "headers": headers,
            "method": "POST" if self.method == "ANY" else self.method,
        }

    def describe(self) -> str:
        said = f"{self.method} /hooks/{self.path}" if len(self.path) < 26 else f"{self.method} /hooks/{self.path[:6]}…"
        return f"{said}, signed" if self.secret else said
