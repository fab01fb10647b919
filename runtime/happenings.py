"""What happens inside the product starts agents: another agent's end, a row, a file.

What happened is written in the same transaction as the row or the file itself, with the id of the run that will come of it; a
run's end is written right after, and found again at the next start if a crash came between. So everything that happened starts
its agent at least once, and by the id of the run never twice. Each step of a chain is counted, so that circles end.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from nodes.errors import FactoryError, TooMany
from nodes.ids import new_id
from nodes.listen import Event, FileArrived, RowAdded, RunEnded, fits
from runtime.engine import Engine
from runtime.execution import Execution, Order
from runtime.journal import Plans
from runtime.patience import patiently
from runtime.plan import Plan
from storage import deployment, happening, journal, run
from storage.database import Database
from storage.errors import Clash, StorageError
from storage.tenancy import TenantSession

log = structlog.get_logger()

LOOKS_BACK = 86_400.0  # seconds in which an end that nobody was told of is found again
LARGEST = 1024 * 1024  # bytes of rows that an agent is started with
BATCH = 200
WAITING = 1_000  # that could not be started, after which the rest has to wait too


class Happenings:
    """The listeners of deployed agents, and what they are told."""

    def __init__(self, db: Database, engine: Engine, plans: Plans, *, now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._engine = engine
        self._plans = plans
        self._now = now
        self._watched: frozenset[tuple[str, str]] = frozenset()
        """(tenant, agent) whose ends somebody listens for: all other ends cost one look."""
        self._listened = False
        """Whether anybody listens for rows or files."""
        self._starting = asyncio.Lock()
        self.owes = False
        """Whether something happened that could not be started yet."""

    async def load(self) -> None:
        """Learn who listens for whose end; whenever a deployment has changed, here or on another server."""
        found = await self._db.read_all(happening.watched)
        self._watched = frozenset((tenant, subject) for tenant, kind, subject in found if kind == "run")
        self._listened = any(kind != "run" for _, kind, _ in found)
        if self.owes:
            self.start_soon()

    async def recover(self) -> None:
        """Find ends that nobody was told of, then start whatever has no run yet."""
        tenants = {tenant for tenant, _ in self._watched}
        for tenant in sorted(tenants):
            await self._db.write(tenant, self._note_untold)
        await self.start()

    def start_if_any(self) -> None:
        """Rows or a file were kept: start what came of it, if somebody listens for such things."""
        if self._listened:
            self.start_soon()

    def start_soon(self) -> None:
        """Start what happened, in the background."""
        self._engine.spawn(self.start())

    # --- what happened ------------------------------------------------------------------------------------------------------

    def run_ended(self, ex: Execution) -> None:
        """Called by the engine at the end of every live run, when that is durable."""
        if self._watched and (ex.order.tenant, ex.order.blueprint_id) in self._watched:
            self._engine.spawn(self._tell_end(ex.order.tenant, ex.id))

    async def _tell_end(self, tenant: str, run_id: str) -> None:
        def write(session: TenantSession) -> None:
            row = run.get(session, run_id)
            if row is not None and row.state in run.FINISHED:
                for listener in happening.listening(session, "run", row.blueprint_id, row.environment):
                    if row.state in listener.states:
                        self._note_end(session, listener, row)

        await patiently(lambda: self._db.write(tenant, write), "an end waits for the database to be told", run=run_id)
        await self.start()

    def _note_untold(self, session: TenantSession) -> None:
        since = self._now() - LOOKS_BACK
        for listener in happening.listening(session, "run"):
            for row in happening.ended_untold(session, listener, since):
                self._note_end(session, listener, row)

    def _note_end(self, session: TenantSession, listener: happening.Listener, row: run.Run) -> None:
        ends = [fact for fact in journal.facts(session, row.id) if fact["kind"] == "run.finished"]
        event = {
            "run": row.id,
            "agent": row.blueprint_id,
            "name": row.blueprint_name,
            "state": row.state,
            "output": ends[-1]["output"] if ends else None,
            "error": row.error,
            "at": _iso(row.finished_at or self._now()),
        }
        self._note(session, listener, row.id, event, row.id)

    def rows_added(self, session: TenantSession, table: str, rows: Sequence[Any], number: int, run_id: str) -> None:
        """Within the transaction that adds the rows; `number` is that of the last, `run_id` the run that added them."""
        event: dict[str, Any] | None = None
        for listener in happening.listening(session, "row", table):
            event = event or {
                "table": table,
                "rows": _fitting(rows),
                "count": len(rows),
                "at": _iso(self._now()),
            }
            self._note(session, listener, f"{table} {number} {self._now()}", event, run_id)

    def file_arrived(self, session: TenantSession, file: dict[str, Any], run_id: str, key: str) -> None:
        """Within the transaction that keeps the file; `key` is the same when a step does it again after a crash."""
        for listener in happening.listening(session, "file"):
            if fits(listener.subject, file["name"]):
                cause = f"{file['hash'][:32]} {key or self._now()} {file['name']}"
                self._note(session, listener, cause, file | {"at": _iso(self._now())}, run_id)

    def _note(self, session: TenantSession, listener: happening.Listener, cause: str, event: Any, by: str) -> None:
        depth = _chain(session, by) + 1
        most = self._engine.limits.of(session.tenant, "chain_depth")
        refused = ""
        if depth > most:
            refused = f"It was not started: {depth - 1} agents have started each other in a row, and {most} may."
            log.warning("a chain of agents was stopped", listener=listener.id, run=by)
        happening.note(
            session,
            listener,
            cause,
            run_id=new_id("run"),
            event=event,
            depth=depth,
            at=self._now(),
            refused=refused,
        )

    # --- starting -------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything that happened and has no run yet. What cannot be started now stays."""
        async with self._starting:
            self.owes = True
            left: set[str] = set()
            while len(left) < WAITING:
                found = await self._db.read_all(lambda session: happening.open_ones(session, BATCH + len(left)))
                fresh = [row for row in found if row.run_id not in left]
                if not fresh:
                    break
                for row in fresh:
                    if not await self._try(row):
                        left.add(row.run_id)
            self.owes = bool(left)

    async def _try(self, row: happening.Happening) -> bool:
        try:
            note = await self._start(row)
        except (TooMany, StorageError) as error:
            if not isinstance(error, Clash):
                return False
            note = ""  # it is there already
        except FactoryError as error:
            note = f"It could not be started: {error.message}"
            log.error("an agent could not be started", deployment=row.deployment_id, error=error.message)
        if note is None:
            return False
        now = self._now()
        await self._db.write(row.tenant_id, lambda session: happening.done(session, row.run_id, now, note))
        return True

    async def _start(self, row: happening.Happening) -> str | None:
        """Start the run: "" when it is there, a sentence when there will be none, None when it has to wait."""
        tenant = row.tenant_id

        def read(session: TenantSession) -> tuple[bool, Any, Any]:
            there = run.get(session, row.run_id) is not None
            return there, deployment.get(session, row.deployment_id), deployment.running(session, row.deployment_id)

        there, known, running = await self._db.read(tenant, read)
        if there:
            return ""
        if running is None:
            holds = known is not None and known.state == "paused" and known.hold
            return None if holds else "It was not started: the agent takes no runs."
        live, content_hash = running
        plan: Plan = await self._plans.by_hash(tenant, content_hash)
        if row.node not in plan.steps:
            return "It was not started: the agent does not listen for this any more."
        await self._engine.accept(Order.of(live, plan, row.run_id, row.node, row.event))
        return ""


def _fitting(rows: Sequence[Any]) -> list[Any]:
    """The rows, or the last of them that are not too much to hand on."""
    size, kept = 0, list[Any]()
    for row in reversed(rows):
        size += len(orjson.dumps(row))
        if size > LARGEST and kept:
            break
        kept.append(row)
    return kept[::-1]


def listener_of(listen: Event) -> tuple[happening.Kind, str, list[str]]:
    """A declaration as the row that it is wired by: kind, subject and states."""
    match listen:
        case RunEnded(blueprint, states):
            return "run", blueprint, list(states)
        case RowAdded(table):
            return "row", table, []
        case FileArrived(name):
            return "file", name, []


def wire(session: TenantSession, row: deployment.Deployment, plan: Plan, now: float) -> None:
    """Let a deployment listen for what its triggers say, and for nothing else."""
    found = []
    for step in plan.triggers():
        listen = step.node.listens()
        if isinstance(listen, RunEnded | RowAdded | FileArrived) and not step.placed.disabled:
            kind, subject, states = listener_of(listen)
            found.append(
                happening.Listener(
                    id=new_id("lis"),
                    kind=kind,
                    subject=subject,
                    states=states,
                    deployment_id=row.id,
                    blueprint_id=row.blueprint_id,
                    node=step.id,
                    since=now,
                )
            )
    happening.replace(session, row.id, found)


def _chain(session: TenantSession, run_id: str) -> int:
    """How many agents started each other in a row before this run, also through agents that it was called by."""
    for _ in range(20):
        if not run_id:
            return 0
        if depth := happening.depth_of(session, run_id):
            return depth
        row = run.get(session, run_id)
        run_id = row.parent_run or "" if row else ""
    return 0


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
