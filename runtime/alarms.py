"""Error agents: when a run of an agent has failed for good, the agent that it names is started, once and durably.

A failing end that owes an alarm is written with a time to wake at. It is cleared when the run of the error agent is on the
disk, and that run's id follows from the failed one: so nothing is lost by a crash in between, and nothing is started twice.
"""

import asyncio
import hashlib
import time
from functools import partial
from typing import Any

import structlog

from nodes.blueprint import Blueprint
from nodes.errors import FactoryError
from runtime.engine import Engine
from runtime.events import Bus
from runtime.execution import Order
from runtime.orders import ALARM
from runtime.runs import Runs, choose_trigger
from storage import dead_letter, document, journal, run
from storage.database import Database
from storage.errors import Clash
from storage.tenancy import TenantSession

log = structlog.get_logger()

EVERY = 30.0  # seconds between two looks for alarms that could not be given


class Alarms:
    """Starts error agents. The engine tells of every failure; what is found in the rows is what counts."""

    def __init__(self, db: Database, bus: Bus, engine: Engine, runs: Runs) -> None:
        self._db = db
        self._bus = bus
        self._engine = engine
        self._runs = runs
        self._giving: set[str] = set()
        self._ticking: asyncio.Task[None] | None = None
        engine.on_failed = self._hear

    def _hear(self, tenant: str, run_id: str, owes: bool) -> None:
        if self._bus.watched(tenant, ("dead-letters",)):
            self._bus.publish(tenant, ("dead-letters",), {"run": run_id, "state": "open"})
        if owes:
            self._engine.spawn(self.give(tenant, run_id))

    async def start(self, *, ticking: bool = True) -> None:
        """Give the alarms that are still owed, and look for such again from time to time."""
        await self.catch_up()
        if ticking:
            # Not one of the engine's tasks: those end with each life of this server, this goes on in the next.
            self._ticking = asyncio.get_running_loop().create_task(self._go_on(), name="alarms")

    async def stop(self) -> None:
        """Look no more; what is owed stays owed."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
            self._ticking = None

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.catch_up()
            except FactoryError as error:
                log.warning("alarms wait for the database", error=error.message)
            except Exception:
                log.exception("looking for alarms failed in a way that was not foreseen")

    async def catch_up(self) -> None:
        """Give every alarm that is owed, and open again what was to be tried again and never was, because a server stopped."""
        await self._open_again()
        for tenant, run_id in await self._db.read_all(dead_letter.unannounced):
            try:
                await self.give(tenant, run_id)
            except FactoryError as error:
                log.warning("an error agent could not be started", run=run_id, error=error.message)

    async def _open_again(self) -> None:
        now = time.time()
        before = now - 2 * EVERY  # whatever is younger may be just about to begin
        found = await self._db.read_all(lambda session: dead_letter.unsure(session, before))
        for tenant in sorted({tenant for tenant, _, _ in found}):
            mine = [(run_id, began) for of, run_id, began in found if of == tenant]
            await self._db.write(tenant, partial(_settle, found=mine, at=now))

    async def give(self, tenant: str, run_id: str) -> str | None:
        """Start the error agent of a failed run; its run's id, or None when there is none to start.

        Raises StorageError and TooMany, after which it is still owed.
        """
        if run_id in self._giving:
            return None
        self._giving.add(run_id)
        try:
            return await self._give(tenant, run_id)
        finally:
            self._giving.discard(run_id)

    async def _give(self, tenant: str, run_id: str) -> str | None:
        def read(session: TenantSession) -> tuple[run.Run, str, Any] | None:
            row = run.get(session, run_id)
            if row is None or row.state != "failed" or row.wake_at is None:
                return None
            return row, document.get(session, row.document_hash) or "", journal.first(session, run_id)

        found = await self._db.read(tenant, read)
        if found is None:
            return None
        started = None
        row, text, first = found
        if text and row.handled != "told" and not row.started_by.startswith(ALARM):
            failed = Blueprint.parse(text)
            if failed.on_failure:
                started = await self._start(row, failed, first)
        await self._db.write(tenant, lambda session: dead_letter.announced(session, run_id))
        return started

    async def _start(self, row: run.Run, failed: Blueprint, first: dict[str, Any] | None) -> str | None:
        tenant, id_ = row.tenant_id, alarm_id(row.id, row.finished_at or row.accepted_at)
        if await self._db.read(tenant, lambda session: run.get(session, id_)) is not None:
            return id_
        try:
            plan, number = await self._runs.target(tenant, failed.on_failure, row.environment)
            trigger = choose_trigger(plan, None)
        except FactoryError as error:
            if error.status >= 500:
                raise
            log.warning("an error agent cannot be started", run=row.id, agent=failed.on_failure, error=error.message)
            return None
        order = Order(
            run_id=id_,
            tenant=tenant,
            plan=plan,
            trigger=trigger.id if trigger else None,
            input=alarm_input(row, failed, first),
            by=ALARM + row.id,
            blueprint_id=failed.on_failure,
            version=number,
            environment=row.environment,
        )
        try:
            await self._engine.accept(order)
        except Clash:
            log.info("an error agent was started by another server", run=row.id)
        return id_


def _settle(session: TenantSession, found: list[tuple[str, bool]], at: float) -> None:
    dead_letter.begun(session, [run_id for run_id, began in found if began], at)
    for run_id, began in found:
        if not began:
            dead_letter.reopen(session, run_id, "retried")


def alarm_id(run_id: str, failed_at: float) -> str:
    """The id of the error agent's run: always the same for a failed run, and sorted by the time of the failure."""
    number = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:10], "big")
    digits = "".join(run.ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))
    return run.first_id(failed_at) + digits


def alarm_input(row: run.Run, failed: Blueprint, first: dict[str, Any] | None) -> dict[str, Any]:
    """What an error agent is given."""
    error = row.error or {}
    placed = failed.node(str((error.get("where") or {}).get("node", "")))
    return {
        "run": row.id,
        "agent": row.blueprint_name,
        "agent_id": row.blueprint_id,
        "version": row.version,
        "node": (placed.name or placed.id) if placed else "",
        "error": {name: error.get(name) for name in ("category", "code", "message", "fix")},
        "input": first.get("input") if first else None,
    }
