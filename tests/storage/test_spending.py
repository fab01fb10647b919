"""The ledger of spending: whatever calls ask, pay, fail and die, a budget is overspent by one call at most and nothing leaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlmodel import select

from nodes.ids import new_id
from storage import document, run, server, spending
from storage.database import Database
from storage.spending import Ask, Paid, Spending, SpendingHold, Verdict
from tests.storage.conftest import HASH

DAY, MONTH = "2026-11-21", "2026-11"
SERVERS = ("srv_1", "srv_2")


class Books:
    """A database with a loop of its own, for machines whose steps are no coroutines."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._db = Database(url)
        self._runner.run(self._db.start())

    def write(self, tenant: str, fn: Callable[[Any], Any]) -> Any:
        return self._runner.run(self._db.write(tenant, fn))

    def write_all(self, fn: Callable[[Any], Any]) -> Any:
        return self._runner.run(self._db.write_all(fn))

    def close(self) -> None:
        self._runner.run(self._db.stop())
        self._runner.close()


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    opened = Books(database_url)
    yield opened
    opened.close()


class Ledger(RuleBasedStateMachine):
    """Two servers ask for one team; every rule is one transaction. A plain sum of what was paid is the oracle."""

    books: ClassVar[Books]
    under_way = Bundle("under_way")

    @initialize(day=st.integers(0, 400), month=st.integers(0, 800), run=st.integers(0, 200))
    def begin(self, day: int, month: int, run: int) -> None:
        self.tenant = new_id("team")
        self.budgets: dict[spending.Which, int] = {"day": day, "month": month, "run": run}
        self.paid: dict[tuple[str, str], int] = {}
        self.held: dict[str, tuple[Ask, str]] = {}
        self.dearest = 0
        self.lives = {name: f"{name}-{self.tenant}" for name in SERVERS}
        for life in self.lives.values():
            self.books.write_all(lambda session, life=life: server.join(session, life, 1.0))

    def _admit(self, asks: list[Ask], on: str) -> list[Verdict]:
        life = self.lives[on]
        found: list[Verdict] = self.books.write(
            self.tenant, lambda session: spending.admit(session, asks, self.budgets, server=life, at=1.0)
        )
        return found

    def _settle(self, paid: list[Paid], on: str) -> None:
        life = self.lives[on]
        self.books.write(self.tenant, lambda session: spending.settle(session, paid, server=life, at=1.0))

    def _of(self, key: tuple[str, str]) -> tuple[int, int]:
        """Paid, and held, by the oracle."""
        held = sum(ask.amount for ask, _ in self.held.values() if key in [row for _, row in ask.limited()])
        return self.paid.get(key, 0), held

    @rule(
        target=under_way,
        on=st.sampled_from(SERVERS),
        wanted=st.lists(
            st.tuples(st.integers(1, 90), st.sampled_from(["", "run_1", "run_2"]), st.sampled_from(["21", "22"])),
            min_size=1,
            max_size=4,
        ),
    )
    def ask(self, on: str, wanted: list[tuple[int, str, str]]) -> Any:
        asks = [Ask(new_id("hold"), amount, f"{MONTH}-{day}", MONTH, run) for amount, run, day in wanted]
        admitted = []
        ahead: set[tuple[str, str]] = set()
        for ask, verdict in zip(asks, self._admit(asks, on), strict=True):
            rows = [(which, key, *self._of(key)) for which, key in ask.limited()]
            gone = [which for which, _, paid, _ in rows if paid >= self.budgets[which]]
            in_the_way = [
                key for which, key, paid, held in rows if held and paid + held + ask.amount > self.budgets[which]
            ]
            waits_behind = [key for _, key in ask.limited() if key in ahead]
            if verdict.state == "spent":
                assert verdict.which in gone, "nobody is refused while something is left"
            elif verdict.state == "busy":
                assert not gone
                assert in_the_way or waits_behind, "nobody waits for nothing"
                ahead.add(next(key for _, key in ask.limited() if key in in_the_way or key in ahead))
            else:
                assert not (gone or in_the_way)
                assert not waits_behind, "who came first goes first"
                self.held[ask.id] = ask, on
                self.dearest = max(self.dearest, ask.amount)
                admitted.append(ask)
        return multiple(*admitted)

    @rule(ask=consumes(under_way), share=st.floats(0, 1), again=st.booleans())
    def pay(self, ask: Ask, share: float, again: bool) -> None:
        if ask.id not in self.held:
            return
        _, on = self.held.pop(ask.id)
        cost = round(ask.amount * share)
        one = Paid(ask, self.lives[on], cost, calls=1)
        self._settle([one, one] if again else [one], on)
        if again:
            self._settle([one], on)
        for _, key in ask.limited():
            self.paid[key] = self.paid.get(key, 0) + cost

    @rule(ask=consumes(under_way))
    def fail(self, ask: Ask) -> None:
        if ask.id in self.held:
            _, on = self.held.pop(ask.id)
            self._settle([Paid(ask, self.lives[on])], on)

    @rule(on=st.sampled_from(SERVERS), paid_after_all=st.integers(0, 2))
    def die(self, on: str, paid_after_all: int) -> None:
        """A server dies; another one gives back what it held, but a call or two had been paid for and is written down late."""
        before, self.lives[on] = self.lives[on], f"{on}-{new_id('srv')}"
        life = self.lives[on]
        self.books.write_all(lambda session: server.join(session, life, 1.0, before=before))
        self.books.write_all(spending.give_back)
        for id_ in [id_ for id_, (_, at) in self.held.items() if at == on]:
            ask, _ = self.held.pop(id_)
            if paid_after_all:
                paid_after_all -= 1
                self._settle([Paid(ask, before, 1, calls=1)], on)
                for _, key in ask.limited():
                    self.paid[key] = self.paid.get(key, 0) + 1
                self.dearest += 1  # nothing was held for it any more

    @invariant()
    def the_rows_are_the_sums_and_no_budget_is_overspent_by_more_than_a_call(self) -> None:
        if not hasattr(self, "tenant"):
            return
        rows, holds = self.books.write(
            self.tenant,
            lambda session: (list(session.exec(select(Spending))), list(session.exec(select(SpendingHold)))),
        )
        assert {hold.id for hold in holds} == set(self.held)
        for row in rows:
            assert (row.spent, row.held) == self._of((row.period, row.subject))
            which: spending.Which = "run" if row.period == spending.LIFE else "month" if row.period == MONTH else "day"
            assert row.spent + row.held <= max(self.budgets[which] - 1, 0) + self.dearest


def test_the_ledger_neither_leaks_nor_overspends(books: Books) -> None:
    machine = type("OnThisDatabase", (Ledger,), {"books": books})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


def test_what_runs_cost_that_are_gone_is_forgotten_and_all_else_kept(
    books: Books, row: Callable[..., dict[str, Any]]
) -> None:
    asks = [Ask(run, 10, DAY, MONTH, run) for run in ("test_old", "test_busy", "run_there", "run_gone")]
    generous: dict[spending.Which, int] = dict.fromkeys(("run", "day", "month"), 1_000)
    books.write_all(lambda session: server.join(session, "srv", 1.0))
    books.write("a", lambda session: spending.admit(session, asks, generous, server="srv", at=1.0))
    paid = [Paid(ask, "srv", 4, calls=1) for ask in asks if ask.run != "test_busy"]
    books.write("a", lambda session: spending.settle(session, paid, server="srv", at=1.0))
    books.write("a", lambda session: document.put(session, HASH, "{}", 1.0))
    books.write("a", lambda session: session.add(run.Run(**row("run_there"))))
    assert books.write_all(lambda session: spending.purge(session, 0.5)) == 0
    assert books.write_all(lambda session: spending.purge(session, 2.0)) == 2
    left = books.write("a", lambda session: [row.subject for row in session.exec(select(Spending))])
    assert sorted(left) == ["", "", "run_there", "test_busy"]


def test_who_came_first_goes_first_however_dear(books: Books) -> None:
    budgets: dict[spending.Which, int] = {"run": 100, "day": 100, "month": 100}
    first, dear, cheap = (Ask(str(amount), amount, DAY, MONTH) for amount in (60, 50, 30))

    def admit(*asks: Ask) -> list[str]:
        found = books.write("team", lambda s: spending.admit(s, asks, budgets, server="srv", at=1.0))
        return [verdict.state for verdict in found]

    assert admit(first) == ["held"]
    assert admit(dear, cheap) == ["busy", "busy"]
    books.write("team", lambda s: spending.settle(s, [Paid(first, "srv", 10, calls=1)], server="srv", at=1.0))
    assert admit(dear, cheap) == ["held", "held"]
    assert admit(dear, cheap) == ["held", "held"], "asked again because the answer was lost, it is held once"
    assert books.write("team", lambda s: spending.of(s, DAY).held) == 80
