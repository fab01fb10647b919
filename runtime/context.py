"""What a running step sees: the Context that nodes/base.py promises, over the doors of its run."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from nodes.base import Events, Http, Llm, Mail, Memory, NodeError, Tables, Worker
from nodes.formula import compile_formula, compile_text
from nodes.formula.values import a_kind

if TYPE_CHECKING:
    from runtime.execution import Execution
    from runtime.plan import Step
    from runtime.progress import Frame


class Doors(Protocol):
    """The ways out of a run, opened for its tenant and mode."""

    http: Http
    llm: Llm
    mail: Mail

    def worker(self, node: str, iteration: str, key: str) -> Worker:
        """Where a step has its code run; the files that this leaves count once for each idempotency key."""
        ...

    def memory(self, key: str) -> Memory:
        """Memory whose writes count once for each idempotency key."""
        ...

    def tables(self, key: str) -> Tables:
        """Tables whose writes count once for each idempotency key."""
        ...


class StepContext:
    """The only world a node sees; one for each attempt of a step."""

    __slots__ = ("_attempt", "_frame", "_inputs", "_names", "_run", "_step", "deadline")

    def __init__(self, run: "Execution", frame: "Frame", step: "Step", inputs: dict[str, Any], attempt: int) -> None:
        self._run = run
        self._frame = frame
        self._step = step
        self._inputs = inputs
        self._attempt = attempt
        self._names: dict[str, Any] | None = None
        self.deadline = time.monotonic() + step.policy.timeout

    @property
    def tenant(self) -> str:
        return self._run.order.tenant

    @property
    def run_id(self) -> str:
        return self._run.id

    @property
    def node_id(self) -> str:
        return self._step.id

    @property
    def iteration(self) -> str:
        return self._frame.path

    @property
    def sandbox(self) -> bool:
        return self._run.sandbox

    @property
    def time_zone(self) -> str:
        return self._run.plan.blueprint.time_zone

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, also after a crash (TRUST (a): sha256 of run, step, iteration)."""
        return self._run.key(self._step.id, self._frame.path)

    @property
    def http(self) -> Http:
        return self._run.doors.http

    @property
    def llm(self) -> Llm:
        return self._run.doors.llm

    @property
    def worker(self) -> Worker:
        return self._run.doors.worker(self._step.id, self._frame.path, self.idempotency_key)

    @property
    def memory(self) -> Memory:
        return self._run.doors.memory(self.idempotency_key)

    @property
    def tables(self) -> Tables:
        return self._run.doors.tables(self.idempotency_key)

    @property
    def mail(self) -> Mail:
        return self._run.doors.mail

    @property
    def events(self) -> Events:
        return self._run.engine.waits.door(self._run, self.idempotency_key)

    def evaluate(self, formula: str, /, **names: Any) -> Any:
        known = self._known()
        return compile_formula(formula).evaluate({**known, **names} if names else known)

    def render(self, text: str, /, **names: Any) -> Any:
        if "{{" not in text and "{%" not in text and "{#" not in text:
            return text
        known = self._known()
        return compile_text(text).evaluate({**known, **names} if names else known)

    def log(self, message: str, **data: Any) -> None:
        self._run.emit(
            "step.logged",
            self._step.id,
            self._frame.path,
            message=str(message)[:2000],
            data=data,
            attempt=self._attempt,
        )

    def respond(self, *, status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        self._run.respond(status, body, dict(headers or {}), self._step.id)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._run.engine.clock(), UTC)

    def _known(self) -> dict[str, Any]:
        """Names a formula may use: the ports, the fields of the main input, then ours; the later win."""
        if self._names is None:
            main = self._inputs.get(self._step.first_input)
            names = {**self._inputs, **main} if isinstance(main, dict) else dict(self._inputs)
            frame = self._frame
            names["input"] = main
            names["steps"] = frame.named
            names["vars"] = self._run.progress.variables
            names["run"] = self._run.known_to_formulas
            inside: Frame | None = frame
            while inside is not None and inside.loop is None:
                inside = inside.parent
            if inside is not None:
                names["item"] = inside.item
                names["index"] = inside.index
            inside = frame
            while inside is not None and inside.call is None:
                inside = inside.parent
            if inside is not None and inside.call is not None:
                names["args"] = inside.call.args
            self._names = names
        return self._names


def step_key(run_id: str, node: str, iteration: str) -> str:
    """The idempotency key of a step, 64 hexadecimal digits."""
    return hashlib.sha256(f"{run_id}\n{node}\n{iteration}".encode()).hexdigest()


class SandboxMemory:
    """The tenant's memory as a sandbox run sees it: reads through, keeps its own writes to itself."""

    def __init__(self, real: Memory) -> None:
        self._real = real
        self._own: dict[str, Any] = {}
        self._gone: set[str] = set()

    async def get(self, key: str, default: Any = None) -> Any:
        if key in self._own:
            return self._own[key]
        return default if key in self._gone else await self._real.get(key, default)

    async def set(self, key: str, value: Any) -> None:
        self._own[key] = value
        self._gone.discard(key)

    async def delete(self, key: str) -> bool:
        there = key in self._own or await self.get(key) is not None
        self._own.pop(key, None)
        self._gone.add(key)
        return there

    async def add(self, key: str, amount: float) -> float:
        now = await self.get(key, 0)
        if isinstance(now, bool) or not isinstance(now, int | float):
            raise NodeError(f"“{key}” holds {a_kind(now)}, and only a number can be added to.")
        await self.set(key, now + amount)
        return now + amount

    async def append(self, key: str, value: Any, limit: int) -> list[Any]:
        now = await self.get(key, [])
        if not isinstance(now, list):
            raise NodeError(f"“{key}” holds {a_kind(now)}, and only a list can be appended to.")
        new = [*now, value][-limit:]
        await self.set(key, new)
        return new


class SandboxTables:
    """The tenant's tables and files as a sandbox run sees them: reads through, keeps its own writes to itself."""

    def __init__(self, real: Tables) -> None:
        self._real = real
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._files: dict[str, bytes] = {}

    async def rows(self, table: str, *, limit: int = 10_000) -> list[dict[str, Any]]:
        found = await self._real.rows(table, limit=limit)
        return (found + self._rows.get(table, []))[:limit]

    async def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        self._rows.setdefault(table, []).extend(dict(row) for row in rows)
        return len(rows)

    async def read_file(self, name: str) -> bytes:
        return self._files[name] if name in self._files else await self._real.read_file(name)

    async def write_file(self, name: str, content: bytes, media_type: str) -> Mapping[str, Any]:
        self._files[name] = content
        return {"name": name, "media_type": media_type, "size": len(content)}
