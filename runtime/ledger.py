"""The money of a team: what its models may cost in a run, a day and a month, and what they did cost.

Before a call the dearest that it can become is held, in the database, so that all servers see it; after it what it did cost is
written down. What waits for that in one process is written together and in turn: a thousand calls at once are a few transactions,
and whoever comes first is served first. A call that finds the rest of a budget held by others waits until they have ended.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

import structlog

from nodes.base import NodeError
from nodes.ids import new_id
from runtime.events import Bus
from runtime.limits import Limits, in_words
from runtime.policy import Actor, Permission
from storage import spending
from storage.database import Database
from storage.errors import AWAY, StorageError
from storage.spending import Ask, Paid, Verdict, Which
from storage.tenancy import TenantSession

log = structlog.get_logger()

MONEY: Final = ("money",)
"""The topic under which it is told that something was spent."""
LIMIT_OF: Final[Mapping[Which, str]] = {"run": "run_money", "day": "day_money", "month": "month_money"}
NEAR: Final = 0.8
"""From this share of a budget on people are warned."""
_TOGETHER: Final = 200  # calls and payments in one transaction
_LOOK: Final = 0.5  # seconds until we look whether other servers are done
_AGAIN: Final = (*AWAY, "storage.fenced")


class Payer(NamedTuple):
    """Whom a call is for. Without a run it counts for the team only."""

    tenant: str
    run: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held for one call."""

    tenant: str
    ask: Ask
    server: str


@dataclass(frozen=True, slots=True)
class Budget:
    """A day's or a month's limit, and how much of it is gone. Amounts are millionths of a dollar."""

    which: Which
    period: str
    limit: int
    spent: int
    held: int = 0

    @property
    def near(self) -> bool:
        """Whether people should be warned."""
        return self.spent >= self.limit * NEAR

    @property
    def used_up(self) -> bool:
        """Whether nothing more is asked."""
        return self.spent >= self.limit


@dataclass(frozen=True, slots=True)
class Cost:
    """What models cost: of a run, or of an agent in a month. `unpriced` answers are in no sum: nobody knows their price."""

    subject: str
    spent: int
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a team stands: its budgets today and this month, and which agents it went to."""

    today: Budget
    month: Budget
    agents: Sequence[Cost]
    unpriced: int = 0
    """Answers of this month whose price nobody knows."""


class Ledger:
    """Holds, settles and tells. `server` gives the id of this process's present life: with it ends what it holds."""

    def __init__(
        self,
        db: Database,
        limits: Limits,
        bus: Bus,
        *,
        server: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = db
        self.limits = limits
        self.bus = bus
        self.server = server
        self.clock = clock
        self._tills: dict[str, _Till] = {}

    # --- calls -----------------------------------------------------------------------------------------------------------------

    async def hold(self, payer: Payer, amount: int) -> Held:
        """Hold what a call can cost at most, waiting for those under way where it must. Raises NodeError of category limit."""
        ask = Ask(new_id("hold"), amount, *self._periods(), payer.run, payer.agent)
        return await self._till(payer.tenant).hold(ask)

    def pay(
        self, held: Held, amount: int, *, calls: int = 1, tokens_in: int = 0, tokens_out: int = 0
    ) -> asyncio.Future[None]:
        """What it did cost; done when that is on the disk. Without calls and amount what was held is only given back."""
        return self._till(held.tenant).pay(Paid(held.ask, held.server, amount, calls, tokens_in, tokens_out))

    def note(
        self, payer: Payer, *, tokens_in: int = 0, tokens_out: int = 0, priced: bool = True
    ) -> asyncio.Future[None]:
        """A call for which nothing had to be held: it is free, or nobody knows its price."""
        ask = Ask("", 0, *self._periods(), payer.run, payer.agent)
        return self._till(payer.tenant).pay(Paid(ask, "", 0, 1, tokens_in, tokens_out, unpriced=0 if priced else 1))

    def _periods(self) -> tuple[str, str]:
        day = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%d")
        return day, day[:7]

    def _till(self, tenant: str) -> "_Till":
        till = self._tills.get(tenant)
        if till is None:
            self._tills = {name: each for name, each in self._tills.items() if not each.idle}
            till = self._tills[tenant] = _Till(self, tenant)
        return till

    # --- coming and going --------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Give back what servers held that are gone."""
        if given := await self.db.write_all(spending.give_back):
            log.info("what interrupted calls held was given back", calls=given)

    async def stop(self) -> None:
        """Write down what has ended; what is held then is given back at the next start."""
        for till in self._tills.values():
            await till.stop()

    # --- for people --------------------------------------------------------------------------------------------------------------

    async def standing(self, who: Actor) -> Standing:
        """What the team spent, against its budgets."""
        who.require(Permission.VIEW)
        day, month = self._periods()

        def read(session: TenantSession) -> Standing:
            rows = spending.of(session, day), spending.of(session, month)
            kinds: tuple[Which, Which] = "day", "month"
            today, whole = (
                Budget(which, period, self.limits.of(who.tenant, LIMIT_OF[which]), row.spent, row.held)
                if row
                else Budget(which, period, self.limits.of(who.tenant, LIMIT_OF[which]), 0)
                for which, period, row in zip(kinds, (day, month), rows, strict=True)
            )
            agents = [_cost(row) for row in spending.by_agent(session, month)]
            return Standing(today, whole, agents, rows[1].unpriced if rows[1] else 0)

        return await self.db.read(who.tenant, read)

    async def of_run(self, who: Actor, run_id: str) -> Cost | None:
        """What the models of a run cost so far, with every try; None when it asked none."""
        who.require(Permission.VIEW)
        row = await self.db.read(who.tenant, lambda session: spending.of(session, spending.LIFE, run_id))
        return _cost(row) if row is not None and row.calls else None

    async def used(self, tenant: str) -> Mapping[str, int]:
        """What was spent today and this month, by name of the limit."""
        day, month = self._periods()

        def read(session: TenantSession) -> Mapping[str, int]:
            rows = {"day_money": spending.of(session, day), "month_money": spending.of(session, month)}
            return {name: row.spent if row else 0 for name, row in rows.items()}

        return await self.db.read(tenant, read)


def _cost(row: spending.Spending) -> Cost:
    return Cost(row.subject, row.spent, row.calls, row.tokens_in, row.tokens_out, row.unpriced)


class _Waiting(NamedTuple):
    ask: Ask
    done: "asyncio.Future[Held]"


class _Till:
    """The calls of one team in this process: who waits to be let in, and what is to be written down."""

    def __init__(self, ledger: Ledger, tenant: str) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self._waiting: deque[_Waiting] = deque()
        self._paid: deque[tuple[Paid, asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._paid) and (self._task is None or self._task.done())

    async def hold(self, ask: Ask) -> Held:
        waiting = _Waiting(ask, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._nudge()
        try:
            return await waiting.done
        except asyncio.CancelledError:
            if waiting.done.done() and not waiting.done.cancelled() and waiting.done.exception() is None:
                self.pay(Paid(ask, waiting.done.result().server))  # let in just now, and nobody is there any more
            raise

    def pay(self, paid: Paid) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._paid.append((paid, done))
        self._nudge()
        return done

    async def stop(self) -> None:
        self._stopping = True
        for waiting in self._waiting:
            waiting.done.cancel()
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _nudge(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="money")

    async def _work(self) -> None:
        pause = 0.05
        while True:
            self._waiting = deque(each for each in self._waiting if not each.done.done())
            if not (self._waiting or self._paid):
                return
            self._wake.clear()
            asking = list(itertools.islice(self._waiting, _TOGETHER))
            paying = list(itertools.islice(self._paid, _TOGETHER))
            server = self._ledger.server()
            try:
                verdicts = await self._write([each.ask for each in asking], [paid for paid, _ in paying], server)
            except Exception as error:
                if self._stopping or not (isinstance(error, StorageError) and error.code in _AGAIN):
                    self._give_up(asking, paying, error)
                    continue
                log.warning("what models cost waits for the database", reason=error.message)
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)
                continue
            pause = 0.05
            for _ in paying:
                _, done = self._paid.popleft()
                if not done.done():
                    done.set_result(None)
            if paying:
                self._ledger.bus.publish(self._tenant, MONEY, {})
            if not self._tell(asking, verdicts, server) and not paying and not self._stopping:
                await self._look_later()

    async def _write(self, asks: Sequence[Ask], paid: Sequence[Paid], server: str) -> Sequence[Verdict]:
        ledger = self._ledger
        budgets: dict[Which, int] = {which: ledger.limits.of(self._tenant, name) for which, name in LIMIT_OF.items()}
        return await ledger.db.write(
            self._tenant,
            partial(_turn, asks=asks, paid=paid, budgets=budgets, server=server, at=ledger.clock()),
        )

    def _tell(self, asking: Sequence[_Waiting], verdicts: Sequence[Verdict], server: str) -> bool:
        """Tell those who need not wait longer; whether there were any."""
        moved = False
        for waiting, verdict in zip(asking, verdicts, strict=True):
            held = Held(self._tenant, waiting.ask, server)
            if verdict.state == "busy":
                continue
            moved = True
            if verdict.state == "held":
                if waiting.done.done():
                    self.pay(Paid(waiting.ask, server))  # cancelled meanwhile
                else:
                    waiting.done.set_result(held)
            elif not waiting.done.done():
                limits, name = self._ledger.limits, LIMIT_OF[verdict.which]
                lowered = limits.lowered(self._tenant, name) is not None
                waiting.done.set_exception(used_up(verdict.which, limits.of(self._tenant, name), lowered=lowered))
        return moved

    def _give_up(
        self, asking: Sequence[_Waiting], paying: Sequence[tuple[Paid, asyncio.Future[None]]], error: Exception
    ) -> None:
        log.error("what models cost could not be written down", payments=len(paying), exc_info=error)
        for waiting in asking:
            if not waiting.done.done():
                waiting.done.set_exception(error)
        for _, done in paying:
            self._paid.popleft()
            if not done.done():
                done.set_result(None)  # the answer is there; to throw it away would help nobody

    async def _look_later(self) -> None:
        try:
            async with asyncio.timeout(_LOOK):
                await self._wake.wait()
        except TimeoutError:
            return


def _turn(
    session: TenantSession,
    *,
    asks: Sequence[Ask],
    paid: Sequence[Paid],
    budgets: Mapping[Which, int],
    server: str,
    at: float,
) -> Sequence[Verdict]:
    if paid:
        spending.settle(session, paid, server=server, at=at)
        session.flush()
    return spending.admit(session, asks, budgets, server=server, at=at) if asks else ()


_WHOSE: Final[Mapping[Which, tuple[str, str]]] = {
    "run": ("This run's budget", "Let it ask for less"),
    "day": ("Your team's budget for today", "Wait until midnight, UTC"),
    "month": ("Your team's budget for this month", "Wait until the first, UTC"),
}


def used_up(which: Which, limit: int, *, lowered: bool) -> NodeError:
    """Nothing of a budget is left. What the team did not lower itself only the operator can raise."""
    whose, wait = _WHOSE[which]
    if lowered:
        raising = f"let an admin raise the budget of a {which} under Settings → Limits"
    else:
        raising = (
            f"ask whoever runs this installation to raise the budget of a {which} (FACTORY_{which.upper()}_BUDGET)"
        )
    return NodeError(
        f"{whose}, {in_words(limit, 'micro-dollars')}, is used up, so no model was asked.",
        category="limit",
        code=f"limit.{LIMIT_OF[which]}",
        fix=f"{wait}, or {raising}. Then try the run again.",
    )


def held_by_others(seconds: float) -> NodeError:
    """All that is left of a budget is held by calls that are under way, and they took too long."""
    return NodeError(
        f"What is left of the budget is held for other questions that are under way; for {seconds:g} seconds none became free.",
        category="limit",
        code="limit.money_held",
        retry=True,
        fix="Try again later, run fewer at a time, or let an admin raise the budget under Settings → Limits.",
    )
