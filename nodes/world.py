"""The world of a node: what a step can reach while it runs, as the `Context` that every `run` is given.

A node holds no connection, no secret and no database; whatever it needs from outside goes through one of these protocols. So
the same node runs in production, in the sandbox and in a test, and a secret's value never passes through it. Node types
import these names from `nodes.base`; `runtime` implements them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret by name, to be put into a URL or header by the egress door; the value never reaches the node."""

    name: str
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Signature(SecretRef):
    """The HMAC-SHA256 of `body` in hexadecimal, keyed with a secret by the egress door; for a header."""

    body: bytes = b""


@dataclass(frozen=True, slots=True)
class BasicAuth(SecretRef):
    """The `Authorization` header of a user whose password is the secret; the egress door puts both into base64."""

    user: str = ""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer from outside. `content` is at most the cap of the egress door, decoded text in `text`."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str

    @property
    def text(self) -> str:
        charset = "utf-8"
        for part in self.headers.get("content-type", "").split(";")[1:]:
            key, _, value = part.strip().partition("=")
            if key.lower() == "charset":
                charset = value.strip('"').lower()
        try:
            return self.content.decode(charset, "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")


class Http(Protocol):
    """The only way out over HTTP. Raises NodeError: remote, timeout, configuration (a blocked address), limit."""

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
    ) -> HttpReply: ...


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to use a tool. `arguments` is None when what it sent is not a JSON object; `raw` is what it sent."""

    id: str
    name: str
    arguments: Mapping[str, Any] | None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class LlmReply:
    """A model's answer. `canned` marks the sandbox's stand-in when no model is configured; `cost` is in US dollars."""

    text: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    finish_reason: str = "stop"
    canned: bool = False
    data: Any = None
    calls: tuple[ToolCall, ...] = ()


class Llm(Protocol):
    """A language model. Raises NodeError: model, rate_limit, credential, timeout, limit, configuration (none set up).

    `tools` are records with `name`, `description` and `parameters` (a JSON schema); what it wants of them is in the reply's
    `calls`. With `tools` (also an empty list of them) a `schema` only says what the last answer should be like.
    """

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
    ) -> LlmReply: ...


@dataclass(frozen=True, slots=True)
class CodeReply:
    """What user code left behind: its result, everything it printed, and the files that were kept of it."""

    value: Any
    stdout: str
    stderr: str
    seconds: float
    files: Sequence[Mapping[str, Any]] = ()


class Worker(Protocol):
    """Runs user code in isolation. Raises NodeError with the line of the user's code, or category worker.

    `reads` are files of the tenant that lie beside the code, `keeps` names or patterns of files that it writes and that become
    files of the tenant.
    """

    async def run(
        self,
        code: str,
        inputs: Mapping[str, Any],
        *,
        language: Literal["python", "javascript"] = "python",
        timeout: float = 30.0,
        size: str = "small",
        reads: Sequence[str] = (),
        keeps: Sequence[str] = (),
    ) -> CodeReply: ...


class Memory(Protocol):
    """Key-value memory of the tenant. Keys up to 200 characters, values JSON up to 256 KiB.

    `add` counts up a number and `append` adds to the end of a list, which keeps its last `limit` items: runs that do so at the
    same time all count. Both give what is remembered afterwards, and raise NodeError when something else stands there.
    """

    async def get(self, key: str, default: Any = None) -> Any: ...
    async def set(self, key: str, value: Any) -> None: ...
    async def delete(self, key: str) -> bool: ...
    async def add(self, key: str, amount: float) -> float: ...
    async def append(self, key: str, value: Any, limit: int) -> list[Any]: ...


class Tables(Protocol):
    """The tenant's own tables and files (kept in the product's database, never as paths on the server)."""

    async def rows(self, table: str, *, limit: int = 10_000) -> list[dict[str, Any]]: ...
    async def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int: ...
    async def read_file(self, name: str) -> bytes: ...
    async def write_file(self, name: str, content: bytes, media_type: str) -> Mapping[str, Any]: ...


class Mail(Protocol):
    """Sends e-mail through the configured SMTP server. Raises NodeError: configuration, remote, credential."""

    async def send(
        self, *, to: Sequence[str], subject: str, text: str, html: str | None = None, sender: str | None = None
    ) -> str: ...


class Events(Protocol):
    """What runs tell each other, and addresses by which somebody outside answers one run."""

    async def address(self, *, seconds: float) -> str:
        """A new address nobody can guess; a call of it counts once."""
        ...

    async def send(self, name: str, key: str, value: Any) -> int:
        """Let every run go on that waits for this event; how many did."""
        ...


class Context(Protocol):
    """The only world a node sees. Tests pass a small fake. `deadline` is on the monotonic clock."""

    @property
    def tenant(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def node_id(self) -> str: ...

    @property
    def iteration(self) -> str: ...

    @property
    def sandbox(self) -> bool: ...

    @property
    def idempotency_key(self) -> str: ...

    @property
    def deadline(self) -> float: ...

    @property
    def http(self) -> Http: ...

    @property
    def llm(self) -> Llm: ...

    @property
    def worker(self) -> Worker: ...

    @property
    def memory(self) -> Memory: ...

    @property
    def tables(self) -> Tables: ...

    @property
    def mail(self) -> Mail: ...

    @property
    def events(self) -> Events: ...

    @property
    def time_zone(self) -> str: ...

    def evaluate(self, formula: str, /, **names: Any) -> Any:
        """Evaluate a formula over what is known here, of which the later goes before the earlier: the ports, the fields of the
        main input, then `input`, `steps`, `vars`, `run`, inside a loop `item` and `index`, and last `names`.
        """
        ...

    def render(self, text: str, /, **names: Any) -> Any:
        """Fill the `{{ … }}` of a text; a text that is one single `{{ … }}` keeps its value's type."""
        ...

    def log(self, message: str, **data: Any) -> None:
        """Add a line to the step's log."""
        ...

    def respond(self, *, status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Answer the caller that waits for this run, once."""
        ...

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...
