"""What a team's models cost, by day, month and run, and what is held for calls that are under way.

Before a call its dearest outcome is held in the rows of its day, its month and its run; after it what it cost takes that place.
The rows are locked while this is decided, so it holds for all servers of a database together. Amounts are millionths of a dollar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import BigInteger, Column, Index, delete, tuple_
from sqlmodel import Field, Session, col, or_, select, update

from storage.run import Run
from storage.server import Server
from storage.tenancy import Owned, TenantSession

TEAM: Final = ""
"""The subject of the rows that hold for the whole team."""
LIFE: Final = ""
"""The period of a run's row: as long as it lives."""

Which = Literal["run", "day", "month"]
Key = tuple[str, str]


def _count() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


class Spending(Owned, table=True):
    """What one subject (the team, an agent of it, or a run) spent in one period (a day, a month, or a run's life)."""

    period: str = Field(primary_key=True, max_length=10)
    subject: str = Field(primary_key=True, max_length=64)
    spent: int = _count()
    held: int = _count()
    calls: int = _count()
    tokens_in: int = _count()
    tokens_out: int = _count()
    unpriced: int = _count()
    """Calls whose price nobody knows; they are in no sum."""
    updated_at: float


class SpendingHold(Owned, table=True):
    """What is held for one call that is under way. Its server's end gives it back."""

    __tablename__ = "spending_hold"
    __table_args__ = (Index("spending_hold_server", "server_id"),)

    id: str = Field(primary_key=True)
    server_id: str
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    day: str = Field(max_length=10)
    month: str = Field(max_length=10)
    run_id: str = ""
    held_at: float


class Ask(NamedTuple):
    """One call that is about to be made: what it may cost at most, and for whom. Without an id nothing is held for it."""

    id: str
    amount: int
    day: str
    month: str
    run: str = ""
    agent: str = ""

    def limited(self) -> list[tuple[Which, Key]]:
        """The rows that a budget holds for."""
        rows: list[tuple[Which, Key]] = [("day", (self.day, TEAM)), ("month", (self.month, TEAM))]
        return [("run", (LIFE, self.run)), *rows] if self.run else rows


class Paid(NamedTuple):
    """How a call ended. `server` is the life that asked; an amount of 0 without calls gives back what was held."""

    ask: Ask
    server: str
    amount: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    unpriced: int = 0


class Verdict(NamedTuple):
    """`held`: go on. `spent`: that budget is used up. `busy`: what is left of it is held by calls that are under way."""

    state: Literal["held", "spent", "busy"]
    which: Which = "day"
    spent: int = 0


def admit(
    session: TenantSession, asks: Sequence[Ask], budgets: Mapping[Which, int], *, server: str, at: float
) -> list[Verdict]:
    """Hold what these calls may cost, in this order, as far as the budgets allow.

    One that may cost more than what is left is let in only when nothing else is held: so a budget can be used to the end, and is
    overspent by one call at most.
    """
    known = set(session.exec(select(SpendingHold.id).where(col(SpendingHold.id).in_([ask.id for ask in asks]))))
    book = _Book(session, (key for ask in asks for _, key in ask.limited()), at)
    busy: set[Key] = set()
    return [
        Verdict("held") if ask.id in known else _admit(session, ask, book, budgets, busy, server, at) for ask in asks
    ]


def _admit(
    session: TenantSession,
    ask: Ask,
    book: _Book,
    budgets: Mapping[Which, int],
    busy: set[Key],
    server: str,
    at: float,
) -> Verdict:
    rows = ask.limited()
    for which, key in rows:
        row = book.found(key)
        if (spent := row.spent if row else 0) >= budgets[which]:
            return Verdict("spent", which, spent)
    for which, key in rows:
        row = book.found(key)
        # Who came before and waits goes first, or a dear call would wait for ever behind cheap ones.
        if key in busy or (row and row.held > 0 and row.spent + row.held + ask.amount > budgets[which]):
            busy.add(key)
            return Verdict("busy", which, row.spent if row else 0)
    for _, key in rows:
        book.row(key).held += ask.amount
    session.add(
        SpendingHold(
            id=ask.id, server_id=server, amount=ask.amount, day=ask.day, month=ask.month, run_id=ask.run, held_at=at
        )
    )
    return Verdict("held")


def settle(session: TenantSession, paid: Sequence[Paid], *, server: str, at: float) -> None:
    """Write down what calls cost in place of what was held for them. The same twice counts once."""
    ids = [one.ask.id for one in paid if one.ask.id]
    query = select(SpendingHold).where(col(SpendingHold.id).in_(ids)).order_by(SpendingHold.id).with_for_update()
    holds = {hold.id: hold for hold in session.exec(query)} if ids else {}
    keys = [key for one in paid for key in _rows_of(one)]
    book = _Book(session, keys, at)
    for one in paid:
        hold = holds.pop(one.ask.id, None)
        if hold is not None:
            for _, key in one.ask.limited():
                book.row(key).held -= hold.amount
            session.delete(hold)
        elif one.ask.id and one.server == server:
            continue  # written down before: in this life nobody else can have given it back
        if one.calls or one.amount or one.unpriced:
            for key in _rows_of(one):
                row = book.row(key)
                row.spent += one.amount
                row.calls += one.calls
                row.tokens_in += one.tokens_in
                row.tokens_out += one.tokens_out
                row.unpriced += one.unpriced


def _rows_of(one: Paid) -> list[Key]:
    keys = [key for _, key in one.ask.limited()]
    return [*keys, (one.ask.month, one.ask.agent)] if one.ask.agent else keys


class _Book:
    """The rows of a transaction, locked in one order; those that are not there are made when something is written in them."""

    def __init__(self, session: TenantSession, keys: Iterable[Key], at: float) -> None:
        self._session = session
        self._at = at
        self._rows: dict[Key, Spending] = {}
        self._read(sorted(set(keys)))

    def found(self, key: Key) -> Spending | None:
        return self._rows.get(key)

    def row(self, key: Key) -> Spending:
        if key not in self._rows:
            zeros = dict.fromkeys(("spent", "held", "calls", "tokens_in", "tokens_out", "unpriced"), 0)
            keys = {"period": key[0], "subject": key[1]}
            self._session.put_once(Spending, keys, {**zeros, "updated_at": self._at})
            self._read([key])
        row = self._rows[key]
        row.updated_at = self._at
        return row

    def _read(self, keys: Sequence[Key]) -> None:
        query = select(Spending).where(tuple_(col(Spending.period), col(Spending.subject)).in_(keys))
        locked = query.order_by(col(Spending.period), col(Spending.subject)).with_for_update()
        for row in self._session.exec(locked) if keys else ():
            self._rows[row.period, row.subject] = row


def give_back(session: Session) -> int:
    """Give back what servers held that are gone; how many calls that were. Through Database.write_all."""
    gone = select(SpendingHold).where(col(SpendingHold.server_id).not_in(select(Server.id)))
    holds = session.exec(gone.order_by(SpendingHold.id).with_for_update()).all()
    for hold in holds:
        ask = Ask(hold.id, hold.amount, hold.day, hold.month, hold.run_id)
        these = or_(
            *((col(Spending.period) == period) & (col(Spending.subject) == subject) for _, (period, subject) in ask.limited())
        )  # fmt: skip
        rows = update(Spending).where(col(Spending.tenant_id) == hold.tenant_id, these)
        session.exec(rows.values(held=Spending.held - hold.amount))
        session.exec(
            delete(SpendingHold).where(col(SpendingHold.tenant_id) == hold.tenant_id, col(SpendingHold.id) == hold.id)
        )
    return len(holds)


def of(session: TenantSession, period: str, subject: str = TEAM) -> Spending | None:
    """One row, if anything was spent or held there."""
    return session.find(Spending, period, subject)


def by_agent(session: TenantSession, month: str, limit: int = 20) -> Sequence[Spending]:
    """What each agent spent in a month, the dearest first."""
    query = select(Spending).where(col(Spending.period) == month, col(Spending.subject) != TEAM)
    return session.exec(query.order_by(col(Spending.spent).desc(), col(Spending.subject)).limit(limit)).all()


def purge(session: Session, before: float) -> int:
    """Forget what runs cost that nobody can open any more, such as tests; through Database.write_all."""
    there = select(Run.id).where(col(Run.tenant_id) == col(Spending.tenant_id), col(Run.id) == col(Spending.subject))
    old = delete(Spending).where(col(Spending.period) == LIFE, col(Spending.held) == 0)
    return session.exec(old.where(col(Spending.updated_at) < before, ~there.exists())).rowcount
