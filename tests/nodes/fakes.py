"""A small world for one node: real formulas, and stand-ins for everything outside that answer from plain dictionaries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from nodes.base import (
    SKIP,
    BasicAuth,
    CodeReply,
    Context,
    Example,
    HttpReply,
    LlmReply,
    Loop,
    Node,
    NodeError,
    Out,
    Pause,
    SecretRef,
)
from nodes.catalog import catalog
from nodes.formula import compile_formula, compile_text

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@dataclass
class Request:
    """What a node asked of the web."""

    method: str
    url: str
    headers: dict[str, Any]
    params: dict[str, str]
    json: Any
    content: bytes | None
    timeout: float
    follow_redirects: bool


@dataclass
class FakeHttp:
    """Answers by `METHOD url` or by url: a text, a record or list (sent as JSON), or a record with status, headers and body."""

    replies: Mapping[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

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
        address = written(url)
        shown = {name: written(value) for name, value in (headers or {}).items()}
        self.requests.append(
            Request(method, address, shown, dict(params or {}), json, content, timeout, follow_redirects)
        )
        for key in (f"{method} {address}", address):
            if key in self.replies:
                return _reply(self.replies[key], address)
        raise NodeError(f"{address} does not answer.", retry=True, category="remote")


def written(value: str | SecretRef) -> str:
    """What leaves, with a secret shown by its name in brackets."""
    if isinstance(value, BasicAuth):
        return f"Basic base64({value.user}:[{value.name}])"
    if isinstance(value, SecretRef):
        return f"{value.prefix}[{value.name}]{value.suffix}"
    return value


def _reply(given: Any, url: str) -> HttpReply:
    if isinstance(given, NodeError):
        raise given
    status, headers, body = 200, {}, given
    if isinstance(given, Mapping) and "status" in given:
        status, headers, body = given["status"], dict(given.get("headers", {})), given.get("body", "")
    if isinstance(body, bytes):
        return HttpReply(status, headers, body, url)
    if isinstance(body, str):
        return HttpReply(status, {"content-type": "text/plain", **headers}, body.encode(), url)
    return HttpReply(status, {"content-type": "application/json", **headers}, orjson.dumps(body), url)


@dataclass
class FakeLlm:
    """A model that always gives the same text, or the next of several; a record or list is its structured answer."""

    reply: Any = "An answer."
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str = "",
        temperature: float | None = None,
        max_tokens: int = 1024,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float = 60.0,
    ) -> LlmReply:
        self.asked.append(
            {
                "messages": [dict(message) for message in messages],
                "model": model,
                "temperature": temperature,
                "max_tokens": max_tokens,
                "schema": schema,
                "tools": tools,
                "timeout": timeout,
            }
        )
        if isinstance(self.reply, NodeError):
            raise self.reply
        if isinstance(self.reply, LlmReply):
            return self.reply
        text = self.reply if isinstance(self.reply, str) else orjson.dumps(self.reply).decode()
        return LlmReply(text, model or "fake/model", 12, 3, data=None if isinstance(self.reply, str) else self.reply)


@dataclass
class FakeWorker:
    """Gives the same value for all code; it runs none."""

    value: Any = None
    stdout: str = ""
    jobs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    async def run(self, code: str, inputs: Mapping[str, Any], **asked: Any) -> CodeReply:
        self.jobs.append((code, dict(inputs)))
        self.asked.append(asked)
        if isinstance(self.value, NodeError):
            raise self.value
        files = [
            {"name": name, "media_type": "text/plain", "size": len(text.encode())} for name, text in self.files.items()
        ]
        return CodeReply(self.value, self.stdout, "", 0.01, files)


class FakeMemory(dict[str, Any]):
    """Key-value memory."""

    async def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)

    async def set(self, key: str, value: Any) -> None:
        self[key] = value

    async def delete(self, key: str) -> bool:
        return super().pop(key, SKIP) is not SKIP

    async def add(self, key: str, amount: float) -> float:
        now = super().get(key, 0)
        if isinstance(now, bool) or not isinstance(now, int | float):
            raise NodeError(f"“{key}” does not hold a number.")
        self[key] = now + amount
        return float(self[key]) if isinstance(self[key], float) else self[key]

    async def append(self, key: str, value: Any, limit: int) -> list[Any]:
        now = super().get(key, [])
        if not isinstance(now, list):
            raise NodeError(f"“{key}” holds no list.")
        self[key] = [*now, value][-limit:]
        return list(self[key])


@dataclass
class FakeTables:
    """Tables as lists of rows, files as bytes."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    async def rows(self, table: str, *, limit: int = 10_000) -> list[dict[str, Any]]:
        if table not in self.tables:
            raise NodeError(f"There is no table “{table}”.", category="configuration")
        return self.tables[table][:limit]

    async def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        self.tables.setdefault(table, []).extend(dict(row) for row in rows)
        return len(rows)

    async def read_file(self, name: str) -> bytes:
        if name not in self.files:
            raise NodeError(f"There is no file “{name}”.", category="configuration")
        return self.files[name]

    async def write_file(self, name: str, content: bytes, media_type: str) -> Mapping[str, Any]:
        self.files[name] = content
        return {"name": name, "media_type": media_type, "size": len(content)}


@dataclass
class FakeMail:
    """An outbox."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    async def send(
        self, *, to: Sequence[str], subject: str, text: str, html: str | None = None, sender: str | None = None
    ) -> str:
        self.sent.append({"to": list(to), "subject": subject, "text": text, "html": html, "sender": sender})
        return f"<{len(self.sent)}@mail.test>"


class FakeEvents:
    """Counts addresses; `waiting` says how many runs wait, by `name key`."""

    def __init__(self, waiting: Mapping[str, int]) -> None:
        self.waiting = waiting
        self.made = 0
        self.sent: list[tuple[str, str, Any]] = []

    async def address(self, *, seconds: float) -> str:
        self.made += 1
        return f"https://factory.example/hooks/resume/{self.made}"

    async def send(self, name: str, key: str, value: Any) -> int:
        self.sent.append((name, key, value))
        return self.waiting.get(f"{name} {key}".strip(), 0)


class FakeContext:
    """What a node sees. `given` holds the world: http, memory, tables, files, llm, worker, now, time_zone, vars, steps."""

    tenant = "tenant_test"
    run_id = "run_test"
    node_id = "n1"
    iteration = ""
    idempotency_key = "k" * 64

    def __init__(self, given: Mapping[str, Any] | None = None, *, sandbox: bool = False) -> None:
        given = dict(given or {})
        self.sandbox = sandbox
        self.deadline = time.monotonic() + 60
        self.http = FakeHttp(given.get("http", {}))
        self.llm = FakeLlm(given.get("llm", "An answer."))
        self.worker = FakeWorker(given.get("worker"), files=given.get("worker_files", {}))
        self.memory = FakeMemory(given.get("memory", {}))
        files = {
            name: text.encode() if isinstance(text, str) else text for name, text in given.get("files", {}).items()
        }
        self.tables = FakeTables({name: list(rows) for name, rows in given.get("tables", {}).items()}, files)
        self.mail = FakeMail()
        self.events = FakeEvents(given.get("waiting", {}))
        self.time_zone: str = given.get("time_zone", "UTC")
        self.moment = datetime.fromisoformat(given["now"]) if "now" in given else NOW
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.responses: list[dict[str, Any]] = []
        self.world = {
            "vars": given.get("vars", {}),
            "steps": given.get("steps", {}),
            "run": {"id": self.run_id, "started_at": self.moment.isoformat()},
        }
        self.names: dict[str, Any] = {"input": None, **self.world}

    def bind(self, node: Node, inputs: Mapping[str, Any]) -> None:
        """Let formulas know the ports, and the first as `input`; when it is a record its fields are names, which win."""
        first = next(iter(node.inputs()), None)
        main = inputs.get(first.name) if first else None
        self.names = {**inputs, **(main if isinstance(main, dict) else {}), "input": main, **self.world}

    def evaluate(self, formula: str, /, **names: Any) -> Any:
        return compile_formula(formula).evaluate({**self.names, **names} if names else self.names)

    def render(self, text: str, /, **names: Any) -> Any:
        return compile_text(text).evaluate({**self.names, **names} if names else self.names)

    def log(self, message: str, **data: Any) -> None:
        self.logged.append((message, data))

    def respond(self, *, status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        self.responses.append({"status": status, "body": body, "headers": dict(headers or {})})

    def now(self) -> datetime:
        return self.moment


def keeps_contract(context: FakeContext) -> Context:
    """The type checker sees here that the fake is a Context."""
    return context


def make(type_: str, **settings: Any) -> Node:
    """A node with these settings, checked as the product checks them."""
    return catalog().get(type_).model_validate(settings)


def fired(outcome: Any) -> dict[str, Any]:
    """The ports that fire, with their values."""
    assert isinstance(outcome, Out | Mapping), f"not outputs: {outcome!r}"
    found = dict(outcome) if isinstance(outcome, Mapping) else vars(outcome)
    return {port: value for port, value in found.items() if value is not SKIP}


async def outcome_of(node: Node, inputs: Mapping[str, Any], context: FakeContext) -> Any:
    """What `run` gives, as it is: outputs or a pause."""
    context.bind(node, inputs)
    if isinstance(node, Loop):
        items = node.items_of(context, inputs.get(node.inputs()[0].name))
        return {"done": items[0] if node.rounds else items, **({"item": items[0]} if items else {})}
    return await node.run(context, **inputs)


async def run(
    node: Node, inputs: Mapping[str, Any] | None = None, context: FakeContext | None = None, *, answer: Any = None
) -> dict[str, Any]:
    """Run a node to its end, answering a pause if it makes one; the ports that fired."""
    context = context or FakeContext()
    inputs = dict(inputs or {})
    outcome = await outcome_of(node, inputs, context)
    if isinstance(outcome, Pause):
        outcome = await node.resume(context, answer, **inputs)
    return fired(outcome)


async def run_example(cls: type[Node], example: Example) -> dict[str, Any]:
    """Run a worked example in the world that it describes."""
    node = cls.model_validate(dict(example.settings))
    return await run(node, example.inputs, FakeContext(example.given), answer=example.answer)
