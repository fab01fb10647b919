"""Taking up runs from their rows: what waits and is wanted, what a crash interrupted, what a server had that is gone.

Each is taken up once in this process, whoever wants it. Among servers its row says who has it; from the moment it names this one
nobody else would take it up, so what goes wrong then is tried again or said in the row.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from nodes.errors import FactoryError, NotFound
from runtime.errands import Elsewhere
from runtime.execution import Execution, Order
from runtime.journal import ENDS, Rows
from runtime.orders import LOOSE
from runtime.outcomes import explain
from runtime.patience import Patience, patiently
from runtime.states import RunState
from storage import errors, run
from storage.errors import LostRace, StorageError
from storage.tenancy import TenantSession

if TYPE_CHECKING:
    from runtime.engine import Engine

T = TypeVar("T")
log = structlog.get_logger()

TOGETHER = 50  # runs whose rows are read together when they are taken up after a crash
GONE = frozenset({"storage.stopped", "storage.fenced"})  # this server writes no more

Key = tuple[str, str]
"""Tenant and id of a run."""
Turn = asyncio.Future[Rows | None]
"""Comes when a run may be taken up, with its rows if they have been read."""


class TakingUp:
    """Brings the runs of one engine into its memory."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._db = engine.db
        self._acts: defaultdict[Key, list[Callable[[Execution], None]]] = defaultdict(list)
        self._going: dict[Key, asyncio.Task[Execution | None]] = {}

    async def interrupted(self) -> Sequence[Key]:
        """Every run that was going on in a process that ended; among several servers they are this one's now."""
        lease = self._engine.lease
        if lease.alone:
            return await self._db.read_all(run.interrupted)
        me, adopted, last = lease.id, list[Key](), ""
        while some := await self._db.write_all(partial(run.adopt, server=me, after=last)):
            adopted += some
            last = some[-1][1]
        if me != lease.id:
            raise errors.fenced()  # what was adopted for a life that is over may be another server's by now
        return adopted

    async def one(
        self, tenant: str, run_id: str, act: Callable[[Execution], None] | None = None, *, taken: bool = False
    ) -> Execution | None:
        """The run in memory; None when it has ended. `taken`: its row names this server already. Raises NotFound, Elsewhere."""
        ex = self._engine.active.get(run_id) or self._engine.sandboxes.get(run_id)
        if ex is not None:
            if ex.order.tenant != tenant:
                raise NotFound("There is no such run.", fix="Look for it in the list of runs.")
            if act is not None:
                act(ex)
            return ex
        # The tenant belongs to the key: a stranger who asks at the same moment gets a NotFound of his own, and acts on nothing.
        key = tenant, run_id
        if act is not None:
            self._acts[key].append(act)
        taking = self._going.get(key) or self._taking(key, taken)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            if taking.cancelled() and not self._stopped_itself():
                raise errors.fenced() from None  # this server's life ended, not whoever asked
            raise

    @staticmethod
    def _stopped_itself() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _taking(self, key: Key, taken: bool, turn: Turn | None = None) -> "asyncio.Task[Execution | None]":
        taking = self._engine.spawn(self._take_up(*key, taken, turn))
        self._going[key] = taking
        taking.add_done_callback(lambda _: self._taken_up(key))
        return taking

    def _taken_up(self, key: Key) -> None:
        self._going.pop(key, None)
        self._acts.pop(key, None)

    async def _take_up(
        self, tenant: str, run_id: str, taken: bool = False, turn: Turn | None = None
    ) -> Execution | None:
        if not (taken or self._engine.lease.alone) and not await _surely(partial(self._take, tenant, run_id), run_id):
            return None
        # Only now: what the server before us wrote last is there.
        known = await turn if turn is not None else None
        try:
            return await self._load(tenant, run_id, known)
        except StorageError:
            raise
        except Exception as error:
            await self._fail_row(tenant, run_id, error)
            raise

    async def _load(self, tenant: str, run_id: str, known: Rows | None) -> Execution | None:
        # Its row names us by now: nobody else would take it up.
        row, plan, facts = await _surely(partial(self._engine.journal.load, tenant, run_id, known), run_id)
        if row.state in {state.value for state in ENDS}:
            return None
        node, _, iteration = (row.parent_step or "").partition("\n")
        order = Order(
            run_id=run_id,
            tenant=tenant,
            plan=plan,
            trigger=row.trigger or None,
            input=None,
            blueprint_id=row.blueprint_id,
            version=row.version,
            deployment_id=row.deployment_id,
            parent=(row.parent_run, node, iteration) if row.parent_run else None,
            depth=await _surely(partial(self._depth, tenant, row.parent_run), run_id),
            environment=row.environment,
            by=row.started_by,
            awaited=not row.started_by.endswith(LOOSE),
        )
        ex = Execution(self._engine, order)
        ex.saved_state = RunState(row.state)
        self._engine.active[run_id] = ex
        try:
            ex.replay(facts)
            if ex.progress.waiting:
                await _surely(partial(self._engine.waits.mend, ex), run_id)
        except BaseException as error:
            self._engine.drop(ex, error if isinstance(error, FactoryError) else errors.fenced())
            raise
        ex.state = RunState.RUNNING
        self._engine.waits.wake(ex)
        for act in self._acts.pop((tenant, run_id), ()):
            act(ex)
        self._engine.launch(ex)
        return ex

    async def _take(self, tenant: str, run_id: str) -> bool:
        """Whether the run is ours now. False when it has ended. Raises NotFound, Elsewhere."""
        me = self._engine.lease.id
        if await self._db.write_all(lambda session: run.take(session, tenant, run_id, me)):
            return True
        row = await self._db.read(tenant, lambda session: run.get(session, run_id))
        if row is None:
            raise NotFound("There is no such run.", fix="Look for it in the list of runs.")
        if row.state in run.UNFINISHED:
            raise Elsewhere
        return False

    async def keep_hold(self, ex: Execution) -> None:
        """A run that was just set free goes on here after all. Raises LostRace when another server was quicker."""
        if self._engine.lease.alone:
            return
        # What came meanwhile is in this memory only.
        if not await patiently(partial(self._take_back, ex), "a run waits for the database", run=ex.id):
            raise LostRace("The run was taken up by another server.")
        ex.saved_state = RunState.RUNNING

    async def _take_back(self, ex: Execution) -> bool:
        tenant = ex.order.tenant
        try:
            return await self._take(tenant, ex.id)
        except Elsewhere:
            for node, iteration, value in ex.answers:
                await self._engine.errands.send(tenant, ex.id, "answer", node, iteration, value)
            if ex.cancelled:
                await self._engine.errands.send(tenant, ex.id, "cancel")
            return False

    async def all(self, found: Sequence[Key]) -> None:
        """One after the other, so that those who were accepted first have their turn first, as before the crash."""
        if not self._engine.lease.alone:
            # Among several servers rows are read when the turn has come and not before: they may change until then.
            for tenant, run_id in found:
                await self.quietly(tenant, run_id, taken=True)
            return
        loop = asyncio.get_running_loop()
        for start in range(0, len(found), TOGETHER):
            some, began = found[start : start + TOGETHER], loop.time()
            # Whoever wants one of them from now on waits for us, so what is read here is not older than what they see.
            turns: dict[Key, Turn] = {
                key: loop.create_future()
                for key in some
                if key[1] not in self._engine.active and key not in self._going
            }
            tasks = {key: self._taking(key, True, turn) for key, turn in turns.items()}
            rows: dict[Key, Rows] = {}
            with suppress(Exception):  # each asks for itself then, and what cannot be read fails its own run only
                rows = await self._engine.journal.load_all(turns)
            for key in some:
                if (task := tasks.get(key)) is not None:
                    turns[key].set_result(rows.get(key))
                    await asyncio.wait((task,))
                if task is None or task.cancelled() or task.exception() is not None:
                    await self.quietly(*key, taken=True)
            await asyncio.sleep(loop.time() - began)  # half of the time is for those who come now

    async def quietly(self, tenant: str, run_id: str, *, taken: bool = False) -> None:
        """Take up a run that nobody waits for. If it cannot be, it fails alone: those after it are taken up all the same."""
        try:
            await self.one(tenant, run_id, taken=taken)
        except Elsewhere:
            pass
        except Exception as error:
            if getattr(error, "code", "") not in GONE:
                log.error("a run cannot be taken up", run=run_id, exc_info=error)

    async def _fail_row(self, tenant: str, run_id: str, error: Exception) -> None:
        now, told = self._engine.clock(), explain(error, None)
        changes = {"finished_at": now, "wake_at": now, "error": told, "category": told["category"]}

        def write(session: TenantSession) -> bool:
            return run.move(session, run_id, expected=run.UNFINISHED, to=RunState.FAILED.value, **changes)

        if await patiently(lambda: self._db.write(tenant, write), "a run waits for the database", run=run_id):
            self._engine.on_failed(tenant, run_id, True)
            self._engine.spawn(self._engine.waits.report_row(tenant, run_id))

    async def _depth(self, tenant: str, parent: str | None) -> int:
        depth = 0
        while parent is not None and depth < self._engine.limits.of(tenant, "call_depth"):
            depth += 1
            id_ = parent
            row = await self._db.read(tenant, lambda session, id_=id_: run.get(session, id_))  # type: ignore[misc]
            parent = row.parent_run if row else None
        return depth


async def _surely(work: Callable[[], Awaitable[T]], run_id: str) -> T:
    """Do it, whatever the database says, for as long as this life of the server lasts. Raises StorageError when it is over."""
    patience = Patience()
    while True:
        try:
            return await work()
        except StorageError as error:
            if error.code in GONE:
                raise
            await patience.rest(error, "a run waits for the database to be taken up", run=run_id)
