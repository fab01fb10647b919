"""The world of a compiled module: the web, memory and tables in files, mail, secrets from the environment, a terminal.

Each class here has the methods of a door of the product; a compiled module carries those that its steps use.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import math
import mimetypes
import os
import secrets
import smtplib
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import Any

import httpx

from nodes.base import HttpReply, NodeError

FOLDER = Path(os.environ.get("AGENT_FOLDER", "."))


def secret(name: str, variable: str) -> str:
    """A secret from the environment."""
    if variable not in os.environ:
        raise NodeError(
            f"The secret “{name}” is not set.", category="credential", fix=f"Set the environment variable {variable}."
        )
    return os.environ[variable]


def basic(user: str, password: str) -> str:
    """The header by which a user signs in."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def signature(key: str, body: bytes) -> str:
    """The HMAC-SHA256 of a body in hexadecimal."""
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


class Web:
    """Calls of other systems."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        timeout: float = 30.0,
        follow_redirects: bool = True,
    ) -> HttpReply:
        """One call and its answer."""
        try:
            async with httpx.AsyncClient(timeout=timeout, follow_redirects=follow_redirects) as client:
                reply = await client.request(method, url, headers=headers, params=params, json=json, content=content)
        except httpx.TimeoutException:
            raise NodeError(f"{url} did not answer in time.", retry=True, category="timeout") from None
        except httpx.HTTPError as error:
            raise NodeError(f"{url} cannot be reached: {error}.", retry=True, category="remote") from None
        return HttpReply(reply.status_code, dict(reply.headers), reply.content, str(reply.url))


class Memory:
    """What is remembered, in the file `memory.json`."""

    def __init__(self) -> None:
        self.file = FOLDER / "memory.json"

    async def get(self, key: str, default: Any = None) -> Any:
        """What is remembered under a name."""
        return self._all().get(key, default)

    async def set(self, key: str, value: Any) -> None:
        """Remember."""
        self._write(self._all() | {key: value})

    async def add(self, key: str, amount: float) -> float:
        """Add to a number; the new one."""
        now = self._all().get(key, 0)
        if isinstance(now, bool) or not isinstance(now, int | float):
            raise NodeError(f"“{key}” does not hold a number.")
        await self.set(key, now + amount)
        return now + amount

    async def append(self, key: str, value: Any, limit: int) -> list[Any]:
        """Add to the end of a list, which keeps its last items."""
        now = self._all().get(key, [])
        if not isinstance(now, list):
            raise NodeError(f"“{key}” holds no list.")
        new = [*now, value][-limit:]
        await self.set(key, new)
        return new

    def _all(self) -> dict[str, Any]:
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}

    def _write(self, whole: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(whole, ensure_ascii=False))


class Tables:
    """Tables as `<name>.json`, and files, in one folder."""

    async def rows(self, table: str, *, limit: int = 10_000) -> list[dict[str, Any]]:
        """The first rows of a table."""
        file = FOLDER / f"{table}.json"
        if not file.exists():
            raise NodeError(f"There is no table “{table}”.", category="configuration", fix=f"Make the file {file}.")
        return list(json.loads(file.read_text()))[:limit]

    async def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add rows."""
        file = FOLDER / f"{table}.json"
        before = list(json.loads(file.read_text())) if file.exists() else []
        file.write_text(json.dumps([*before, *map(dict, rows)], ensure_ascii=False))
        return len(rows)

    async def read_file(self, name: str) -> bytes:
        """The content of a file."""
        file = FOLDER / name
        if not file.exists():
            raise NodeError(f"There is no file “{name}”.", category="configuration", fix=f"Put it at {file}.")
        return file.read_bytes()

    async def write_file(self, name: str, content: bytes, media_type: str) -> Mapping[str, Any]:
        """Write a file."""
        (FOLDER / name).write_bytes(content)
        kind = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return {"name": name, "media_type": kind, "size": len(content)}


class Mail:
    """Sends through the server in SMTP_HOST and SMTP_PORT, as SMTP_USER with SMTP_PASSWORD."""

    async def send(
        self, *, to: Sequence[str], subject: str, text: str, html: str | None = None, sender: str | None = None
    ) -> str:
        """Send one message; its number."""
        message = EmailMessage()
        message["To"] = ", ".join(to)
        message["Subject"] = " ".join(subject.split())
        message["From"] = sender or os.environ.get("MAIL_FROM", "agent@localhost")
        message["Message-ID"] = make_msgid()
        message.set_content(text)
        if html is not None:
            message.add_alternative(html, subtype="html")
        await asyncio.to_thread(self._deliver, message)
        return str(message["Message-ID"])

    def _deliver(self, message: EmailMessage) -> None:
        host, port = os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25"))
        try:
            with smtplib.SMTP(host, port, timeout=30) as server:
                if user := os.environ.get("SMTP_USER"):
                    server.starttls()
                    server.login(user, os.environ.get("SMTP_PASSWORD", ""))
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise NodeError(f"The mail server did not take it: {error}.", category="remote") from None


_MODEL = '''class Llm:
    """The language model in MODEL, such as openai/gpt-4o-mini; its key where its provider has it."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str = "",
        temperature: float | None = None,
        max_tokens: int = 1024,
        schema: Mapping[str, Any] | None = None,
        TAKES
        timeout: float = 60.0,
    ) -> LlmReply:
        """SAYS"""
        import litellm

        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        PREPARES
        try:
            reply = await litellm.acompletion(
                model=model or os.environ["MODEL"],
                messages=[dict(message) for message in messages],
                temperature=temperature,
                max_tokens=max_tokens,
                timeout=timeout,
                drop_params=True,
                **more,
            )
        except KeyError:
            raise NodeError("No model is set up.", category="configuration", fix="Set the variable MODEL.") from None
        choice, used = reply.choices[0], reply.usage
        text = choice.message.content or ""
        READS
        return LlmReply(
            text,
            reply.model,
            used.prompt_tokens,
            used.completion_tokens,
            data=data,
            GIVES
        )'''
_PLAIN = {
    "TAKES": (),
    "SAYS": "One question and its answer.",
    "PREPARES": ('more = {"response_format": form} if schema else {}',),
    "READS": ("data = json.loads(text) if schema else None",),
    "GIVES": (),
}
_TOOLS = {
    "TAKES": ("tools: Sequence[Mapping[str, Any]] | None = None,",),
    "SAYS": "One question and its answer, which may ask for tools.",
    "PREPARES": (
        "more: dict[str, Any] = {}",
        "if tools:",
        '    more["tools"] = [{"type": "function", "function": dict(tool)} for tool in tools]',
        "if schema and tools is not None:",
        "    messages = told(messages, schema, bool(tools))",
        "elif schema:",
        '    more["response_format"] = form',
    ),
    "READS": (
        "data = json.loads(text) if schema and tools is None else None",
        "calls = tuple(read_call(one) for one in choice.message.tool_calls or ())",
    ),
    "GIVES": ('finish_reason=str(choice.finish_reason or "stop"),', "calls=calls,"),
}


def model(*, tools: bool) -> str:
    """The door to language models, as text: only the one door of the product itself imports that library.

    With `tools` for modules with agents, whose models may ask for some.
    """
    lines = []
    parts = _TOOLS if tools else _PLAIN
    for line in _MODEL.splitlines():
        indent, part = line[: len(line) - len(line.lstrip())], parts.get(line.strip())
        lines += [line.replace("SAYS", str(parts["SAYS"]))] if part is None else [indent + one for one in part]
    return "\n".join(lines)


class Terminal:
    """A person at the terminal, who decides; one question after the other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def ask(self, title: str, details: Any, yes: str, no: str) -> dict[str, Any]:
        """Show a question; what was decided."""
        async with self._turn:
            sys.stderr.write(f"{title}\n{json.dumps(details, indent=2, ensure_ascii=False)}\n{yes}, or {no}? [y/N] ")
            said = await asyncio.to_thread(sys.stdin.readline)
        approved = said.strip().lower() in ("y", "yes")
        return {"approved": approved, "note": "", "by": os.environ.get("USER", "")}


class Clock:
    """Time that passes."""

    async def wait_until(self, moment: datetime) -> None:
        """Return when the moment has come."""
        await asyncio.sleep(max(0.0, moment.timestamp() - time.time()))


class Events:
    """Events between agents of this module and the program around them, and addresses at which that program takes calls.

    The program that calls `run` holds the same world: `send` there lets an agent go on that waits, `call` says that an address
    was called. Addresses are below the one in AGENT_URL.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[asyncio.Future[tuple[float, Any]]]] = {}
        self._sent: list[tuple[tuple[str, str], tuple[float, Any]]] = []
        """What was sent in the last day, with the moment of each, which no two have in common."""
        self._addresses: dict[str, tuple[asyncio.Future[Any], float]] = {}
        self._held: set[str] = set()

    async def send(self, name: str, key: str, value: Any) -> int:
        """Let all go on that wait for this event now; how many there were."""
        latest = self._sent[-1][1][0] if self._sent else 0.0
        event = max(time.time(), math.nextafter(latest, math.inf)), value
        self._sent = [one for one in self._sent if one[1][0] > event[0] - 86_400]
        self._sent.append(((name, key), event))
        heard = [one for one in self._waiting.pop((name, key), []) if not one.done()]
        for one in heard:
            one.set_result(event)
        return len(heard)

    async def wait(
        self, name: str, key: str, seconds: float, before: float = 0.0, heard: set[float] | None = None
    ) -> dict[str, Any]:
        """Wait for an event: whether it came in time, and what came along.

        With `before`, one counts too that was sent up to so many seconds ago, unless it is among those that were `heard`.
        """
        known, since = heard if heard is not None else set(), time.time() - before
        for about, (moment, value) in self._sent if before else ():
            if about == (name, key) and moment >= since and moment not in known:
                known.add(moment)
                return {"arrived": True, "value": value}
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((name, key), []).append(future)
        found = await self._outcome(future, seconds)
        if found["arrived"]:
            moment, found["value"] = found["value"]
            known.add(moment)
        return found

    async def address(self, *, seconds: float) -> str:
        """A new address that nobody can guess."""
        if "AGENT_URL" not in os.environ:
            raise NodeError(
                "Nobody takes calls for this program, so it cannot give out addresses.",
                category="configuration",
                fix="Set AGENT_URL to where your program takes calls, and hand them on with `world.events.call`.",
            )
        address = f"{os.environ['AGENT_URL'].rstrip('/')}/{secrets.token_urlsafe(24)}"
        self._addresses[address] = asyncio.get_running_loop().create_future(), time.time() + seconds
        return address

    async def wait_at(self, address: str, seconds: float) -> dict[str, Any]:
        """Wait until an address is called, which may have happened already: whether it was, and the call."""
        if address not in self._addresses or address in self._held:
            raise NodeError(
                "This is no reply address, or another step has waited at it already.",
                category="configuration",
                fix="Wait once at each address that “Make a reply address” gave.",
            )
        self._held.add(address)
        return await self._outcome(self._addresses[address][0], seconds)

    def call(
        self,
        address: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> bool:
        """Say that an address was called. False: there is no such address, it is too late, or it was called before."""
        future, until = self._addresses.get(address, (None, 0.0))
        late = address not in self._held and time.time() > until
        if future is None or future.done() or late:
            return False
        future.set_result({"body": body, "query": dict(query or {}), "headers": dict(headers or {}), "method": method})
        return True

    @staticmethod
    async def _outcome(future: asyncio.Future[Any], seconds: float) -> dict[str, Any]:
        try:
            return {"arrived": True, "value": await asyncio.wait_for(future, seconds)}
        except TimeoutError:
            return {"arrived": False, "value": None}
