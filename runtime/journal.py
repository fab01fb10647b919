"""Durable facts: one record in flight for each run, so that the journal never has a gap, whatever the disk does."""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.categories import Category
from nodes.errors import NotFound
from runtime.events import Fact
from runtime.leases import Lease
from runtime.orders import has_teller
from runtime.patience import Patience
from runtime.plan import Plan, compile_plan
from runtime.states import RUN, RunState, ends
from storage import document, errors, journal, run
from storage.database import Database
from storage.errors import LostRace, StorageError
from storage.records import RunRecord
from storage.tenancy import TenantSession

if TYPE_CHECKING:
    from runtime.execution import Execution


FINAL = frozenset({"storage.stopped", "storage.fenced", "storage.unknown", "storage.clash"})
"""Failures after which trying again is wrong: this server may write no more, or the journal is not where we take it to be."""

ENDS = ends(RUN)
Rows = tuple[run.Run, list[Fact]]
"""A run as the database has it: its row and its facts."""
LIVE = tuple(state.value for state in RUN if state not in ENDS)


class Plans:
    """Compiled blueprints by tenant and content, and which of them the database holds."""

    def __init__(self, db: Database, types: Catalog, *, size: int = 512) -> None:
        self._db = db
        self._types = types
        self._size = size
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()
        self._kept: set[tuple[str, str]] = set()

    def of(self, tenant: str, blueprint: Blueprint) -> Plan:
        """The plan of a document. Raises PlanError."""
        key = (tenant, blueprint.content_hash)
        if (plan := self._plans.get(key)) is None:
            plan = compile_plan(blueprint, self._types)
            self._remember(key, plan)
        return plan

    async def by_hash(self, tenant: str, content_hash: str) -> Plan:
        """The plan of a document that the database holds. Raises NotFound, PlanError."""
        key = (tenant, content_hash)
        if (plan := self._plans.get(key)) is not None:
            self._plans.move_to_end(key)
            return plan
        text = await self._db.read(tenant, lambda session: document.get(session, content_hash))
        if text is None:
            raise NotFound("The blueprint of this run is not here any more.")
        plan = compile_plan(Blueprint.parse(text, kept=True), self._types)
        self._kept.add(key)
        self._remember(key, plan)
        return plan

    def is_kept(self, tenant: str, plan: Plan) -> bool:
        """Whether the database is known to hold the document."""
        return (tenant, plan.content_hash) in self._kept

    async def keep(self, tenant: str, plan: Plan) -> None:
        """Make sure that the database holds the document, so that runs of it can be taken up again."""
        key = (tenant, plan.content_hash)
        if key not in self._kept:
            text = plan.blueprint.canonical().decode()
            await self._db.write(tenant, lambda session: document.put(session, key[1], text, time.time()))
            self._kept.add(key)

    def _remember(self, key: tuple[str, str], plan: Plan) -> None:
        self._plans[key] = plan
        while len(self._plans) > self._size:
            self._plans.popitem(last=False)


class Journal:
    """Saves what executions say and reads it back."""

    def __init__(self, db: Database, plans: Plans, lease: Lease) -> None:
        self.db = db
        self.plans = plans
        self.lease = lease

    async def save(self, ex: "Execution") -> None:
        """Return when everything the run has said so far is durable.

        The first save of a run fails at once when the database does. Later ones hold the run and try again until it can be
        written, because what was confirmed may not be lost. Raises StorageError, LostRace.
        """
        goal, patience = ex.seq, None
        while ex.saved < goal or ex.saved_state is not ex.state:
            first = ex.saved_state is None
            if ex.saving is None:
                if first and not self.plans.is_kept(ex.order.tenant, ex.plan):
                    await self.plans.keep(ex.order.tenant, ex.plan)
                    continue
                if ex.life != self.lease.id:
                    raise errors.fenced()
                ex.saving = self._send(ex)
            saved = asyncio.get_running_loop().create_future()
            ex.saving.append(saved)
            try:
                await saved
            except LostRace:
                raise
            except StorageError as error:
                if first or error.code in FINAL:
                    raise
                patience = patience or Patience()
                await patience.rest(error, "a run waits for the database", run=ex.id)

    def _send(self, ex: "Execution") -> "list[asyncio.Future[None]]":
        if ex.unsaved:
            ex.unsent, ex.unsaved = joined(ex.unsent, encode(ex.unsaved)), []
        state = ex.state
        record, me = RunRecord(ex.id, ex.order.tenant), self.lease.id
        keeper = None if state is RunState.WAITING else me
        if ex.unsent:
            record.seq, record.facts = ex.saved + 1, ex.unsent
        finished = ex.engine.clock() if state in ENDS else None
        if ex.saved_state is None:
            order = ex.order
            record.insert = run.values(
                order.tenant,
                ex.id,
                blueprint_id=order.blueprint_id,
                blueprint_name=ex.plan.blueprint.name,
                version=order.version,
                deployment_id=order.deployment_id,
                document_hash=ex.plan.content_hash,
                trigger=order.trigger or "",
                started_by=order.by,
                state=state.value,
                accepted_at=ex.started_at,
                finished_at=finished,
                wake_at=ex.wake_at(),
                parent_run=order.parent[0] if order.parent else None,
                parent_step=f"{order.parent[1]}\n{order.parent[2]}" if order.parent else None,
                error=ex.error,
                environment=order.environment,
                category=_category(ex),
                server_id=keeper,
            )
        elif ex.saved_state is not state:
            record.update = {"state": state.value, "wake_at": ex.wake_at(), "finished_at": finished, "error": ex.error}
            if state is RunState.FAILED:
                record.update["category"] = _category(ex)
                if has_teller(ex.order):
                    record.update["handled"] = "told"
            record.update["server_id"] = keeper
            record.expected = LIVE
            record.server = None if self.lease.alone else me
        self.db.record(record).add_done_callback(partial(self._sent, ex, ex.seq, state))
        return []

    @staticmethod
    def _sent(ex: "Execution", seq: int, state: RunState, future: "asyncio.Future[None]") -> None:
        waiting, ex.saving = ex.saving or (), None
        if (error := future.exception()) is None:
            ex.saved, ex.saved_state, ex.unsent = seq, state, b""
        for waiter in waiting:
            if waiter.done():
                continue  # whoever waited was cancelled
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(None)

    async def load(self, tenant: str, run_id: str, known: Rows | None = None) -> tuple[run.Run, Plan, list[Fact]]:
        """A run's row, plan and facts; its rows may be known already, from `load_all`. Raises NotFound."""

        def read(session: TenantSession) -> tuple[run.Run | None, list[Fact]]:
            return run.get(session, run_id), journal.facts(session, run_id)

        row, facts = known if known is not None else await self.db.read(tenant, read)
        if row is None:
            raise NotFound("There is no such run.", fix="Look for it in the list of runs.")
        return row, await self.plans.by_hash(tenant, row.document_hash), facts

    async def load_all(self, runs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Rows]:
        """The rows and facts of several runs (tenant, id) with few questions."""
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for tenant, run_id in runs:
            ids[tenant].append(run_id)

        def read(session: TenantSession) -> tuple[Sequence[run.Run], dict[str, list[Fact]]]:
            asked = ids[session.tenant]
            return run.some(session, asked), journal.facts_of(session, asked)

        found: dict[tuple[str, str], Rows] = {}
        for tenant in ids:
            rows, facts = await self.db.read(tenant, read)
            found.update(((tenant, row.id), (row, facts.get(row.id, []))) for row in rows)
        return found


def _category(ex: "Execution") -> str | None:
    """What kind of trouble a failed run had."""
    return str((ex.error or {}).get("category", Category.BUG)) if ex.state is RunState.FAILED else None


def encode(facts: list[Fact]) -> bytes:
    """Facts as a JSON array. What JSON cannot carry is written as text, so that nothing a node gives stops a run."""
    try:
        return orjson.dumps(facts)
    except TypeError:
        return orjson.dumps(_plain(facts))


def joined(first: bytes, second: bytes) -> bytes:
    """Two JSON arrays that are not empty as one; the first may be missing."""
    return first[:-1] + b"," + second[1:] if first else second


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    return str(value)
