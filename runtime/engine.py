"""The engine: holds the runs that are going on, takes up what a crash left, and wakes what waits.

`accept` answers when a run is durable; `begin` is for callers who wait for the end anyway, so that a short run costs one commit.
`submit(tenant, run_id)` makes it the `Dispatcher` of one process: an id is enough to take up a run from its rows.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from nodes.errors import FactoryError, TooMany
from runtime.context import Doors
from runtime.errands import Elsewhere, Errands
from runtime.events import Bus
from runtime.execution import Execution, Order, Response
from runtime.journal import ENDS, Journal, Plans
from runtime.leases import LEASE, Lease
from runtime.limits import Limits
from runtime.orders import Dispatcher, owes_alarm
from runtime.pace import Pace
from runtime.plan import Plan
from runtime.queue import Queue
from runtime.states import RunState
from runtime.taking_up import Key, TakingUp
from runtime.waits import Waits
from storage import errors, run
from storage.database import Database
from storage.errors import LostRace, StorageError

log = structlog.get_logger()

MAX_SANDBOXES = 200  # sandbox runs kept to be looked at
RETRY_AFTER = 30  # seconds after which a caller who was refused may come again
UNSURE = frozenset({"storage.unknown", "storage.clash"})  # what was being written may or may not be there
SOON = 60.0  # seconds; a wake that is nearer is timed exactly, others are found by the clock's tick

Target = tuple[Plan, str, int | None]
"""What a blueprint id stands for when it is called: plan, blueprint id, version."""


class Engine:
    """Runs plans. `open_doors` gives a run its ways out, `find_blueprint` resolves calls from one blueprint to another
    in an environment, `variables_of` knows the environment's variables that a plan uses."""

    def __init__(
        self,
        db: Database,
        plans: Plans,
        bus: Bus,
        *,
        open_doors: Callable[[Execution], Doors],
        find_blueprint: Callable[[str, str, str], Awaitable[Target]],
        variables_of: Callable[[str, str, Plan], Mapping[str, Any]] = lambda tenant, environment, plan: {},
        clock: Callable[[], float] = time.time,
        lease: float = LEASE,
        limits: Limits | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.dispatcher: Dispatcher = dispatcher or self
        self.limits = limits or Limits()
        self.limits.on_change(self._limits_changed)
        self.db = db
        self.plans = plans
        self.bus = bus
        self.clock = clock
        self.open_doors = open_doors
        self.lease = Lease(db, seconds=lease)
        self.errands = Errands(self)
        self.journal = Journal(db, plans, self.lease)
        self.save = self.journal.save
        self.active: dict[str, Execution] = {}
        self.sandboxes: OrderedDict[str, Execution] = OrderedDict()
        self.variables_of = variables_of
        self.waits = Waits(self)
        self.taking_up = TakingUp(self)
        self.pace = Pace(db)
        self.public_url = ""
        """Where people reach this server, without a slash at the end; addresses of runs begin with it."""
        self.find_blueprint = find_blueprint
        self.ahead: Callable[[Execution], Callable[[], None] | None] = lambda ex: None
        """Told of every run with steps that want workers; gives what takes it back."""
        self.on_failed: Callable[[str, str, bool], None] = lambda tenant, run_id, owes: None
        """Told of every live run that failed for good, and whether it owes another agent an alarm."""
        self.on_ended: Callable[[Execution], None] = lambda ex: None
        """Told of every live run that has ended, when that is durable."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.queue: Queue[Execution] = Queue()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopping = False
        self._hold = False
        self._interrupted: Sequence[Key] = ()

    # --- life --------------------------------------------------------------------------------------------------------------

    async def start(self, *, hold: bool = False) -> None:
        """Become one of the servers of the database, then take over what nobody has in hand.

        With `hold` what a crash interrupted goes on only after `go_on`: until everything else has started, it would be in its way.
        """
        self._hold = hold
        self.lease.on_lost.append(self.let_all_go)
        self.lease.on_recover.append(self.recover)
        self.lease.on_look.append(self.errands.look)
        await self.lease.join()
        await self.recover()

    async def recover(self) -> None:
        """Take up every run that was going on in a process that ended, and answer what was decided meanwhile."""
        found = await self.taking_up.interrupted()
        if self._hold:
            self._interrupted = [*self._interrupted, *found]
        else:
            self.spawn(self.taking_up.all(found))
        await self.waits.recover()

    def go_on(self) -> None:
        """Let go on what a crash interrupted, if that was held back at the start."""
        found, self._interrupted, self._hold = self._interrupted, (), False
        self.spawn(self.taking_up.all(found))

    async def stop(self) -> None:
        """Stop where we are: every run goes on from its facts at the next start."""
        self._stopping = True
        await self.lease.stop_recovering()
        await self._end_tasks()
        if self.lease.id:
            await self.lease.leave()

    async def let_all_go(self) -> None:
        """Another server may have our runs by now: nothing of them goes on here, and nobody is told of an end."""
        self._stopping = True
        self._interrupted = ()
        await self._end_tasks()
        self.queue.clear()  # a task that is cancelled before it begins does not give its place back
        for ex in list(self.active.values()):
            self._leave(ex)  # its task may have been stopped before it began
            self.drop(ex, errors.fenced())
        self._stopping = False
        for ex in self.sandboxes.values():  # tests are in nobody's way, but their steps were stopped too
            if ex.state not in ENDS:
                ex.cancel()
                self.launch(ex)

    async def _end_tasks(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        # While we wait for some to end, others may begin.
        while tasks := [task for task in self._tasks if task is not asyncio.current_task()]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run in the background; the engine keeps the task from being collected and logs what it dies of."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._stopping or (error := task.exception()) is None:
            return
        if isinstance(error, FactoryError):  # whoever waits for it is told
            log.info("something could not be done in the background", reason=error.message)
        else:
            log.error("something went wrong in the background", exc_info=error)

    # --- taking runs -----------------------------------------------------------------------------------------------------------

    def begin(self, order: Order) -> Execution:
        """Start a run without waiting for the disk. Nothing of it may be acknowledged before `flush`. Raises TooMany."""
        if not (self.lease.held or order.sandbox):
            raise errors.fenced()
        # A run that another run called has its place already: that of the run which waits for it.
        reserved = not order.sandbox and (order.parent is None or not order.awaited)
        if reserved and not self.queue.reserve(order.tenant):
            raise TooMany(
                f"The queue of your team is full: {self.limits.of(order.tenant, 'queue_depth'):,} runs may wait, and as many do.",
                code="limit.queue",
                fix="Try again in a minute; nothing was started.",
                where={"retry_after": RETRY_AFTER},
            )
        ex = Execution(self, order)
        ex.reserved = reserved
        ex.begin()
        if order.sandbox:
            self.sandboxes[ex.id] = ex
            while len(self.sandboxes) > MAX_SANDBOXES:
                _, forgotten = self.sandboxes.popitem(last=False)
                forgotten.cancel()
        else:
            self.active[ex.id] = ex
        return ex

    async def accept(self, order: Order) -> Execution:
        """Start a run; returns when it is durable, that is when it may be acknowledged. Raises StorageError, TooMany."""
        ex = self.begin(order)
        try:
            await self._accept(ex)
        except asyncio.CancelledError:
            # Whoever asked is gone, but the run may be on its way to the disk: once it is there it goes on.
            self.spawn(self._accept(ex)).add_done_callback(lambda _: self._refuse(ex))
            raise
        return ex

    async def _accept(self, ex: Execution) -> None:
        try:
            await ex.flush()
        except Exception as error:
            self._refuse(ex)
            self.forget(ex)
            self._look_again(ex, error)
            raise
        if self.active.get(ex.id) is ex:
            self.launch(ex)
        else:  # this life ended meanwhile: it is only a row, like those that a crash interrupted
            self._refuse(ex)
            self.spawn(self.taking_up.quietly(ex.order.tenant, ex.id))

    def _refuse(self, ex: Execution) -> None:
        """Give back the place that was promised to a run, unless it has taken it."""
        if ex.reserved:
            ex.reserved = False
            self.queue.withdraw(ex.order.tenant)

    def forget(self, ex: Execution) -> None:
        """It is not held in memory any more."""
        if self.active.get(ex.id) is ex:  # it may have been taken up anew
            del self.active[ex.id]

    def launch(self, ex: Execution) -> None:
        """Let a run be driven, now or when it is its turn."""
        if ex.sandbox or self._enter(ex):
            self.spawn(self._drive(ex))

    def _enter(self, ex: Execution) -> bool:
        order, blueprint, reserved = ex.order, ex.plan.blueprint, ex.reserved
        ex.reserved = False
        ex.placed = self.queue.enter(
            order.tenant,
            order.blueprint_id,
            ex.id,
            ex,
            most=blueprint.concurrency,
            priority=blueprint.priority,
            reserved=reserved,
        )
        return ex.placed

    def _leave(self, ex: Execution) -> None:
        if ex.placed:
            ex.placed = False
            self._start_all(self.queue.leave(ex.order.tenant, ex.order.blueprint_id))

    async def attend(self, ex: Execution, patience: float) -> Response | None:
        """Let a run be driven and return its answer, or what it ends with; None when that takes longer. Raises StorageError."""
        ex.answered = asyncio.get_running_loop().create_future()
        if not ex.plan.only_computes or ex.sandbox:
            self.launch(ex)
        elif self._enter(ex):
            # Nothing in it waits for anything but the disk: it needs no task of its own beside the caller's.
            await self._drive(ex)
        if ex.answered.done():
            return ex.answered.result()
        try:
            async with asyncio.timeout(patience):
                return await ex.answered
        except TimeoutError:
            return None

    async def _drive(self, ex: Execution) -> None:
        self.tell_runs(ex)
        try:
            await ex.drive()
        except LostRace as error:
            log.warning("a run was ended elsewhere", run=ex.id)
            self.drop(ex, error)
            return
        except StorageError as error:
            log.error("a run could not be kept", run=ex.id, error=error.message)
            self.drop(ex, error)
            self._look_again(ex, error)
            return  # whatever it came to is not known to be so
        finally:
            self._leave(ex)
        if ex.state in ENDS:
            self.tell_runs(ex)
            if not ex.sandbox:
                self.on_ended(ex)
            if ex.state is RunState.FAILED and not ex.sandbox:
                self.on_failed(ex.order.tenant, ex.id, owes_alarm(ex.order))
            if ex.order.parent is not None and not ex.sandbox:
                await self.waits.report(ex.order.tenant, ex.order.parent, ex.id, ex.state.value, ex.output, ex.error)

    def _start_all(self, runs: list[Execution]) -> None:
        for ex in runs:
            ex.placed = True
            if not self._stopping:
                self.spawn(self._drive(ex))

    def _limits_changed(self, tenant: str) -> None:
        of = self.limits.of
        self.set_limits(tenant, concurrent=of(tenant, "concurrent_runs"), depth=of(tenant, "queue_depth"))

    def set_limits(self, tenant: str, *, concurrent: int, depth: int) -> None:
        """How many runs of a tenant may go on at once, and how many may wait."""
        self._start_all(self.queue.limit(tenant, concurrent=concurrent, depth=depth))

    def let_go(self, ex: Execution) -> None:
        """The run has ended, or only rows are left of it: it needs no memory any more."""
        self.forget(ex)
        if ex.answered is not None and not ex.answered.done():
            ex.answered.set_result(closing(ex))
        wake = ex.wake_at()
        if ex.state is RunState.WAITING and wake is not None and (delay := wake - self.clock()) < SOON:
            self.wake_in(ex.order.tenant, ex.id, delay)

    def drop(self, ex: Execution, error: FactoryError) -> None:
        """Let go of a run before its end is safe; whoever waits for it is told."""
        self.forget(ex)
        ex.dropped = error
        if ex.answered is not None and not ex.answered.done():
            ex.answered.set_exception(error)
        ex.ended.set()

    def _look_again(self, ex: Execution, error: BaseException) -> None:
        """The rows may say more than we know: a run whose last facts may or may not be kept goes on from what is there."""
        if isinstance(error, StorageError) and error.code in UNSURE and not ex.sandbox and not self._stopping:
            self.spawn(self.taking_up.quietly(ex.order.tenant, ex.id))

    # --- taking up, answering, waking --------------------------------------------------------------------------------------------

    async def submit(
        self, tenant: str, run_id: str, act: Callable[[Execution], None] | None = None
    ) -> Execution | None:
        """Take up a run from its rows, unless it is in memory or has ended. Raises NotFound, Elsewhere.

        `act` is done to the run before it goes on: a run that only waits leaves the memory again at once.
        """
        return await self.taking_up.one(tenant, run_id, act)

    async def answer(self, tenant: str, run_id: str, node: str, iteration: str, answer: Any) -> None:
        """Give a waiting step what it waits for. Nothing happens if the run has ended or the step has its answer."""
        try:
            await self.submit(tenant, run_id, lambda ex: ex.answer(node, iteration, answer))
        except Elsewhere:
            await self.errands.send(tenant, run_id, "answer", node, iteration, answer)

    async def cancel(self, tenant: str, run_id: str) -> None:
        """End a run. Raises NotFound; a run that has ended stays as it is."""
        try:
            await self.cancel_here(tenant, run_id)
        except Elsewhere:
            await self.errands.send(tenant, run_id, "cancel")

    async def cancel_here(self, tenant: str, run_id: str) -> None:
        """The same, only for a run that no other server has in hand. Raises Elsewhere."""
        called: list[str] = []

        def stop(ex: Execution) -> None:
            called.extend(wait["data"]["run"] for wait in ex.progress.waiting.values() if wait["wait"] == "call")
            ex.cancel()

        ex = await self.submit(tenant, run_id, stop)
        if ex is None:
            return
        if self.queue.drop(tenant, ex.order.blueprint_id, run_id):
            self.spawn(self._drive(ex))  # it ends without having had its turn
        await ex.ended.wait()
        if ex.dropped is not None and not isinstance(ex.dropped, LostRace):
            raise ex.dropped
        if not ex.sandbox:
            await self.waits.cancel(tenant, run_id)
        for child in called:
            await self.cancel(tenant, child)

    def wake_in(self, tenant: str, run_id: str, delay: float) -> None:
        """Wake a waiting run after so many seconds."""
        if (old := self._timers.pop(run_id, None)) is not None:
            old.cancel()
        loop = asyncio.get_running_loop()
        self._timers[run_id] = loop.call_later(max(0.0, delay), self._wake_now, tenant, run_id)

    def _wake_now(self, tenant: str, run_id: str) -> None:
        self._timers.pop(run_id, None)
        if not self._stopping:
            self.spawn(self.wake(tenant, run_id))

    async def tick(self) -> None:
        """Wake every run whose time has come; called once a second."""
        for tenant, run_id in await self.db.read_all(lambda session: run.due(session, self.clock())):
            if run_id not in self.active and run_id not in self._timers:
                await self.wake(tenant, run_id)

    async def wake(self, tenant: str, run_id: str) -> None:
        """Give the steps of a run whose time has come their answer."""
        try:
            if (ex := self.active.get(run_id)) is not None:
                self.waits.wake(ex)
            else:
                await self.dispatcher.submit(tenant, run_id)
        except FactoryError as error:
            log.info("a run is not woken now", run=run_id, reason=error.message)

    def tell_runs(self, ex: Execution) -> None:
        """Tell lists of runs that this one looks different now."""
        if not ex.sandbox and self.bus.watched(ex.order.tenant, ("runs",)):
            message = {"run": ex.id, "blueprint": ex.order.blueprint_id, "state": ex.state.value}
            message["deployment"] = ex.order.deployment_id or ""
            self.bus.publish(ex.order.tenant, ("runs",), message)


def closing(ex: Execution) -> Response:
    """What a caller who waited is answered when no step responded: the output, that it waits, or that it failed."""
    return closing_of(ex.id, ex.state, ex.output)


def closing_of(run_id: str, state: RunState, output: Any) -> Response:
    """The same of a run that only its rows are left of."""
    if state is RunState.SUCCEEDED:
        return Response(200, output, {})
    if state is RunState.WAITING:
        return Response(202, {"run": run_id, "state": "waiting"}, {})
    error = {"code": "run.failed", "message": "The agent could not finish.", "fix": None, "where": {"run": run_id}}
    return Response(502, {"error": error}, {})
