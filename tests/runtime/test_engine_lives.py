"""Random graphs in which the server dies again and again: however often and wherever, the end is what the rules give.

A life ends with everything in memory gone at once, and the next one finds only rows, as after a crash; the moments are counted in
commits, so a failing example fails again.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.base import Value
from runtime.execution import Execution
from runtime.states import RUN, RunState
from storage.database import Database
from storage.records import RunRecord
from tests.runtime.engines import TENANT, Rig
from tests.runtime.test_engine_properties import (
    ENDED,
    GRAPHS,
    Act,
    Drawing,
    Work,
    compare,
    drawings,
    on_engine,
    reachable,
)

assert on_engine  # the fixture
few_graphs = settings(
    max_examples=max(20, GRAPHS // 3),
    deadline=None,
    suppress_health_check=[*HealthCheck],
)


class Commits:
    """Counts what becomes durable of one run, and notes which state follows which."""

    def __init__(self, db: Database) -> None:
        self.db, self.real = db, db.record
        self.count = 0
        self.more = asyncio.Event()
        self.states: list[str] = []

    def record(self, batch: RunRecord) -> "asyncio.Future[None]":
        state = (batch.insert or batch.update or {}).get("state")
        future = self.real(batch)
        future.add_done_callback(lambda done: self._kept(state) if done.exception() is None else None)
        return future

    def _kept(self, state: str | None) -> None:
        self.count += 1
        if state is not None:
            self.states.append(state)
        self.more.set()

    async def until(self, count: int, ex: Execution, rig: Rig) -> None:
        """So many more are durable, or the run has ended."""
        goal = self.count + count
        while self.count < goal and RunState(self.states[-1]) not in (RunState.SUCCEEDED, RunState.FAILED):
            self.more.clear()
            await self.more.wait()


@asynccontextmanager
async def counted(rig: Rig) -> AsyncIterator[Commits]:
    commits = Commits(rig.db)
    rig.db.record = commits.record  # type: ignore[method-assign]
    try:
        yield commits
    finally:
        rig.db.record = commits.real  # type: ignore[method-assign]


async def check_rows(rig: Rig, run_id: str, commits: Commits) -> None:
    """The journal has no gap and one end, and the states of the row followed each other as the table says."""
    _, _, facts = await rig.engine.journal.load(TENANT, run_id)
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
    assert Counter(fact["kind"] for fact in facts)["run.finished"] == 1 and facts[-1]["kind"] == "run.finished"
    for now, to in zip(commits.states, commits.states[1:], strict=False):
        # A state that nobody had to know of is not written: what follows in the row follows in the table, some moves later.
        assert to in set().union(*(reachable(RUN, after) for after in RUN[RunState(now)])), (now, to)


@few_graphs
@given(drawing=drawings(), deaths=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_a_server_that_dies_again_and_again_comes_to_the_same_end(
    on_engine: Any, drawing: Drawing, deaths: list[int]
) -> None:
    async def act(rig: Rig) -> None:
        async with counted(rig) as commits:
            ex = await rig.begin(drawing.blueprint(), drawing.input)
            for commit in deaths:
                await commits.until(commit, ex, rig)
                await rig.engine.lease.lose()
            compare(await rig.ended(ex.id), drawing)
            await check_rows(rig, ex.id, commits)
        assert not rig.engine.active

    on_engine(act)


@few_graphs
@given(drawing=drawings(), deaths=st.lists(st.integers(0, 2), max_size=2), turns=st.integers(0, 20))
def test_a_run_that_is_cancelled_between_deaths_ends_once(
    on_engine: Any, drawing: Drawing, deaths: list[int], turns: int
) -> None:
    async def act(rig: Rig) -> None:
        async with counted(rig) as commits:
            ex = await rig.begin(drawing.blueprint(), drawing.input)
            for commit in deaths:
                await commits.until(commit, ex, rig)
                await rig.engine.lease.lose()
            for _ in range(turns):
                await asyncio.sleep(0)
            await rig.engine.cancel(TENANT, ex.id)
            view = await rig.ended(ex.id)
            await check_rows(rig, ex.id, commits)
        assert {step.state for step in view.steps} <= ENDED
        if view.info.state != "cancelled":
            compare(view, drawing)

    on_engine(act)


@few_graphs
@given(drawing=drawings(), deaths=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_a_keyed_effect_has_one_key_however_often_it_is_repeated(
    on_engine: Any, drawing: Drawing, deaths: list[int]
) -> None:
    """Whoever honours keys acts once for each step and iteration: a key stands for one place and one input."""
    acted: dict[str, set[str]] = {}

    async def run(self: Act, ctx: Any, a: Any, b: Any, c: Any = None) -> Value:
        acted.setdefault(ctx.idempotency_key, set()).add(repr((self.salt, a, b, c)))
        return Value(await self.made({"a": a, "b": b, "c": c}))

    async def act(rig: Rig) -> None:
        async with counted(rig) as commits:
            ex = await rig.begin(drawing.blueprint(), drawing.input)
            for commit in deaths:
                await commits.until(commit, ex, rig)
                await rig.engine.lease.lose()
            view = await rig.ended(ex.id)
        places = [step for step in view.steps if drawing.steps[step.node].kind == "act" and step.state != "skipped"]
        assert len(acted) <= len(places)
        assert all(len(inputs) == 1 for inputs in acted.values())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Act, "run", run)
        on_engine(act)


assert Work
