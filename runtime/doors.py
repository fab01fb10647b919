"""The ways out of one run, opened for its tenant: HTTP, models, workers, mail, memory, tables and files."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from nodes.base import CodeReply, Http, Llm, Mail, Memory, NodeError, Tables, Worker
from nodes.errors import FactoryError
from nodes.ids import new_id
from runtime.code_files import CodeFiles
from runtime.context import Doors, SandboxMemory, SandboxTables
from runtime.egress import Egress
from runtime.execution import Execution
from runtime.llm import Llms
from runtime.mail import Mailer
from runtime.printing import Place, Printing
from runtime.shelves import Shelves
from runtime.vault import Vault
from runtime.workers.backend import Job, JobResult
from runtime.workers.store import Store
from storage import event_seen
from storage import memory as memories
from storage.database import Database
from storage.tenancy import TenantSession

MAX_KEY = 200  # characters
MAX_VALUE = 256 * 1024  # bytes of JSON
ONCE_FOR = 30 * 86_400.0  # seconds that a write's key is remembered


class Jobs(Protocol):
    """Whatever runs user code in isolation."""

    async def run(self, job: Job, *, tenant: str, profile: str = "small") -> JobResult: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything of the installation that doors lead to."""

    db: Database
    egress: Egress
    llms: Llms
    mailer: Mailer
    vault: Vault
    shelves: Shelves
    jobs: Jobs
    printing: Printing
    store: Store

    def open(self, ex: Execution) -> "RunDoors":
        """The doors of one run."""
        return RunDoors(self, ex)


class RunDoors(Doors):
    """Doors of one run; those of a sandbox run keep their writes to themselves."""

    def __init__(self, outside: Outside, ex: Execution) -> None:
        tenant, environment = ex.order.tenant, ex.order.environment

        async def reveal(name: str) -> str:
            return await outside.vault.reveal(tenant, name, environment)

        self._outside = outside
        self._tenant = tenant
        self._run = ex.id
        self.http: Http = outside.egress.door(tenant, ex.plan.blueprint.allowed_hosts, reveal)
        self.llm: Llm = outside.llms.door(tenant, ex.sandbox, run=ex.id, agent=ex.order.blueprint_id)
        self.mail: Mail = outside.mailer
        self._sandbox_memory = SandboxMemory(_Memory(outside.db, tenant, "")) if ex.sandbox else None
        self._sandbox_tables = SandboxTables(_Tables(outside.db, outside.shelves, tenant, "")) if ex.sandbox else None

    def worker(self, node: str, iteration: str, key: str) -> Worker:
        files = CodeFiles(self._outside.store, self._tenant, self.tables(key))
        return _Worker(self._outside, self._tenant, self._run, (node, iteration), files)

    def memory(self, key: str) -> Memory:
        return self._sandbox_memory or _Memory(self._outside.db, self._tenant, key)

    def tables(self, key: str) -> Tables:
        return self._sandbox_tables or _Tables(self._outside.db, self._outside.shelves, self._tenant, key, self._run)


class _Worker:
    def __init__(self, outside: Outside, tenant: str, run: str, place: Place, files: CodeFiles) -> None:
        self._outside, self._tenant, self._run, self._place, self._files = outside, tenant, run, place, files

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
    ) -> CodeReply:
        try:
            parcel = await self._files.pack(reads, keeps) if reads or keeps else None
            with self._outside.printing.heard(self._tenant, self._run, self._place) as hear:
                job = Job(
                    new_id("job"), code, dict(inputs), timeout, language, run=self._run, parcel=parcel, on_output=hear
                )
                result = await self._outside.jobs.run(job, tenant=self._tenant, profile=size)
        except NodeError:
            raise
        except FactoryError as error:
            raise NodeError(error.message, retry=True, category="worker", fix=error.fix, code=error.code) from error
        if result.ok:
            files = await self._files.keep(result.files, keeps)
            return CodeReply(result.value, result.stdout, result.stderr, result.seconds, files)
        problem = result.error
        assert problem is not None
        lost = problem.kind in ("killed", "worker_lost")
        category = "worker" if lost else "timeout" if problem.kind == "timeout" else "input"
        details = {
            "kind": problem.kind,
            "line": problem.line,
            "traceback": problem.traceback,
            "stdout": result.stdout,
            "stderr": result.stderr,
        }
        where = f"Line {problem.line} of the code: " if problem.line else ""
        again = "Run it again, or let the step try again by itself: “Try again” in its settings. If it stays, use less memory."
        raise NodeError(
            f"{where}{problem.message}",
            retry=lost or problem.kind == "timeout",
            category=category,
            fix=again if lost else "Correct the code, then test the step in the sandbox.",
            details=details,
        )


def _once(session: TenantSession, key: str, part: str) -> bool:
    """Whether this step writes for the first time; a repetition after a crash must not count twice."""
    if not key:
        return True
    now = time.time()
    return event_seen.first_time(session, f"step {part}"[:200], key, now=now, expires_at=now + ONCE_FOR)


class _Memory:
    def __init__(self, db: Database, tenant: str, key: str) -> None:
        self._db, self._tenant, self._key = db, tenant, key

    async def get(self, key: str, default: Any = None) -> Any:
        name = _checked_key(key)
        there, value = await self._db.read(self._tenant, lambda session: memories.recall(session, name))
        return value if there else default

    async def set(self, key: str, value: Any) -> None:
        name = _checked_key(key)
        _check_value(name, value)
        await self._db.write(self._tenant, lambda session: memories.remember(session, name, value, time.time()))

    async def delete(self, key: str) -> bool:
        name = _checked_key(key)
        return await self._db.write(self._tenant, lambda session: memories.forget(session, name))

    async def add(self, key: str, amount: float) -> float:
        name = _checked_key(key)

        def write(session: TenantSession) -> float:
            if _once(session, self._key, f"add {name}"):
                return memories.add(session, name, amount, time.time())
            there, value = memories.recall(session, name)
            return value if there else 0

        try:
            return await self._db.write(self._tenant, write)
        except ValueError:
            raise NodeError(
                f"“{key}” holds something that is not a number, so nothing can be added to it.",
                fix="Use another key, or set this one to a number first.",
            ) from None

    async def append(self, key: str, value: Any, limit: int) -> list[Any]:
        name = _checked_key(key)
        _check_value(name, value)

        def write(session: TenantSession) -> list[Any]:
            if _once(session, self._key, f"add to list {name}"):
                new = memories.append(session, name, value, limit, time.time())
                _check_value(name, new)
                return new
            there, now = memories.recall(session, name)
            return now if there and isinstance(now, list) else []

        try:
            return await self._db.write(self._tenant, write)
        except ValueError:
            raise NodeError(
                f"“{key}” holds something that is not a list, so nothing can be appended to it.",
                fix="Use another key, or set this one to a list first.",
            ) from None


def _checked_key(key: str) -> str:
    name = str(key).strip()
    if not name or len(name) > MAX_KEY:
        raise NodeError(f"A key has between 1 and {MAX_KEY} characters.", fix="Check what the key's formula gives.")
    return name


def _check_value(name: str, value: Any) -> None:
    try:
        size = len(orjson.dumps(value))
    except TypeError as error:
        raise NodeError(f"“{name}” cannot remember this value: {error}.") from None
    if size > MAX_VALUE:
        raise NodeError(
            f"The value for “{name}” takes {size // 1024:,} KB; up to {MAX_VALUE // 1024} KB can be remembered.",
            category="limit",
            fix="Keep it as a file or in a table.",
        )


class _Tables:
    def __init__(self, db: Database, shelves: Shelves, tenant: str, key: str, run_id: str = "") -> None:
        self._db, self._shelves, self._tenant, self._key, self._run = db, shelves, tenant, key, run_id

    async def rows(self, table: str, *, limit: int = 10_000) -> list[dict[str, Any]]:
        return await self._shelves.read_rows(self._tenant, table, limit)

    async def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        return await self._shelves.append_rows(
            self._tenant, table, rows, lambda session: _once(session, self._key, f"append {table}"), run_id=self._run
        )

    async def read_file(self, name: str) -> bytes:
        return await self._shelves.read_file(self._tenant, name)

    async def write_file(self, name: str, content: bytes, media_type: str) -> Mapping[str, Any]:
        return await self._shelves.write_file(
            self._tenant, name, content, media_type, by="agent", run_id=self._run, key=self._key
        )
