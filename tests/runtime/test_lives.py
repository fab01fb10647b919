"""A server's life ends when it loses touch with the database, and another one begins: nothing is lost, done twice or waited for in vain.

Lives are ended here by hand (`lose`), so that nobody has to wait for a lease, and the database goes away at chosen moments.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from nodes.ids import new_id
from runtime import alarms
from runtime.execution import Execution, Order
from runtime.states import RunState
from storage import errand, errors, memory, run
from storage.database import Database
from storage.errors import StorageError
from tests.runtime.engines import TENANT, WHO, Rig, open_rig
from tests.runtime.factories import ADMIN, agent, new_factory
from tests.runtime.small_nodes import drawn, world
from tests.runtime.test_held_calls import call, deployed, keeper, numbers, settled
from tests.runtime.test_servers import ASKS, HOLDS, LEASE, LONG, _blocked, until

WORKS = drawn({"s": "start", "act": "effect"}, "s.value > act.value")
CALLS = drawn({"s": "start", "call": ("call", {"blueprint": "child"})}, "s.value > call.value")


@pytest.fixture(autouse=True)
def new_world() -> None:
    world.__init__()  # type: ignore[misc]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database for what is alike on both kinds."""
    return f"sqlite:///{tmp_path / 'factory.db'}"


def breaks_once(owner: Any, name: str, error: Callable[[], Exception] = errors.lost, *, done: bool = False) -> None:
    """The database goes away at the first call of this: before anything is done, or when all is `done` and before it is said."""
    real, away = getattr(owner, name), True

    async def broken(*given: Any, **more: Any) -> Any:
        nonlocal away
        if not away:
            return await real(*given, **more)
        away = False
        if done:
            await real(*given, **more)
        raise error()

    setattr(owner, name, broken)


async def decide(rig: Rig) -> None:
    """Say yes to the one question that there is."""
    [question] = await rig.approvals.list(WHO)
    await rig.approvals.decide(WHO, question.id, approve=True)


# --- what goes on in the next life -----------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_alarms_are_looked_for_in_the_next_life_too(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "EVERY", 0.02)
    async with new_factory(postgres_url, ticking=True, lease_seconds=LONG) as factory:
        told = (await factory.blueprints.create(ADMIN, agent({"told": "trigger.manual"}, name="Teller"))).id
        fails = agent(
            {"in": "trigger.manual", "stop": ("validation.stop_error", {"message": "No."})}, "in.value > stop.value"
        )
        bad = (await factory.blueprints.create(ADMIN, fails.model_copy(update={"on_failure": told}))).id
        breaks_once(factory.alarms, "catch_up", ZeroDivisionError)
        factory.engine.lease.on_recover.clear()  # only the loop is left to find it
        await factory.engine.lease.lose()
        factory.engine.on_failed = lambda tenant, run_id, owes: None  # as if it had died before it could say so
        run_id = await factory.runs.start(ADMIN, bad, {})
        assert (await factory.runs.wait(ADMIN, run_id, 20)).info.state == "failed"
        async with asyncio.timeout(20):
            while (await factory.dead_letters.get(ADMIN, run_id)).told_run is None:
                await asyncio.sleep(0.01)


@pytest.mark.postgres
async def test_held_calls_that_a_life_was_about_to_start_are_started_in_the_next(postgres_url: str) -> None:
    async with new_factory(postgres_url, lease_seconds=LONG) as factory:
        id_ = await deployed(factory, keeper())
        await factory.deployments.pause(ADMIN, id_, hold=True)
        assert (await call(factory, 1))[0] == 202
        factory.held.release_soon = lambda tenant, deployment: None  # type: ignore[method-assign]
        await factory.deployments.resume(ADMIN, id_)
        del factory.held.release_soon
        factory.held.release_soon(ADMIN.tenant, id_)  # it has not begun when the life ends
        await factory.engine.lease.lose()
        assert await numbers(factory, await settled(factory, id_, 1)) == [1]


@pytest.mark.postgres
async def test_an_errand_that_a_life_had_not_begun_is_done_in_the_next(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        rig.engine.lease.on_look.clear()
        ex = await rig.begin(ASKS, "x")
        await rig.waiting(ex.id)
        await rig.engine.errands.send(TENANT, ex.id, "cancel")
        await rig.engine.errands.look()
        await rig.engine.lease.lose()
        await rig.engine.errands.look()
        assert (await rig.ended(ex.id)).info.state == "cancelled"


@pytest.mark.postgres
async def test_what_cannot_be_taken_over_at_once_is_taken_over_later(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        ex = await rig.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
        breaks_once(rig.db, "write_all")
        await rig.engine.lease.lose()
        world.hold.set()
        assert (await rig.ended(ex.id)).info.state == "succeeded"


@pytest.mark.postgres
async def test_a_run_that_became_durable_as_the_life_ended_is_worked_on_once(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        save = rig.engine.save

        async def saved(ex: Execution) -> None:
            await save(ex)
            rig.engine.save = save
            await rig.engine.lease.lose()

        rig.engine.save = saved  # type: ignore[method-assign]
        ex = await rig.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
        assert rig.engine.active[ex.id] is not ex
        world.hold.set()
        assert (await rig.ended(ex.id)).info.state == "succeeded"
        assert set(world.keys.values()) == {1} and rig.engine.queue._of(TENANT).coming == 0


@pytest.mark.postgres
async def test_nothing_is_written_between_two_lives(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        holder = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            async with holder.transaction():
                await holder.execute("SELECT 1 FROM server FOR NO KEY UPDATE")
                losing = asyncio.ensure_future(rig.engine.lease.lose())
                await _blocked(postgres_url)
                late = asyncio.ensure_future(
                    rig.db.write(TENANT, lambda session: memory.remember(session, "late", 1, 0.0))
                )
                await asyncio.sleep(0)
        finally:
            await holder.close()
        await losing
        with pytest.raises(StorageError) as refused:
            await late
        assert refused.value.code == "storage.fenced" and rig.engine.lease.held


@pytest.mark.postgres
async def test_what_was_held_back_for_a_life_that_ended_is_not_taken_from_who_has_it_now(postgres_url: str) -> None:
    async with open_rig(postgres_url) as before:
        await before.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
    world.__init__()  # type: ignore[misc]
    async with Database(postgres_url) as db:
        rig = Rig(db, LONG)
        await rig.engine.start(hold=True)
        rig.engine.lease.on_recover.clear()  # another server is quicker
        await rig.engine.lease.lose()
        async with open_rig(postgres_url, lease=LONG):
            await until(lambda: world.calls)
            rig.engine.go_on()
            await asyncio.gather(*rig.engine._tasks)
            assert not rig.engine.active and len(world.calls) == 1
        await rig.engine.stop()


class Line:
    """The network between a server and its database: it can go dead without a word, and new connections work again."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.to = place.hostname, place.port
        self.open: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for end in self.open:
            end.close()

    def through(self, url: str) -> str:
        """The same address, over this line."""
        port = self._server.sockets[0].getsockname()[1]
        place = urlsplit(url)
        return place._replace(netloc=place.netloc.replace(f":{place.port}", f":{port}")).geturl()

    def go_dead(self) -> None:
        """Nothing that is open carries anything any more, and neither side is told."""
        self._carrying.clear()

    async def _carry(self, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection(*self.to)
        self.open |= {back, onward}
        self._carrying |= {back, onward}
        await asyncio.gather(self._pass(here, onward), self._pass(there, back))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if target in self._carrying:
                    target.write(data)
        if target in self._carrying:
            target.close()


@pytest.mark.postgres
async def test_a_dead_line_to_the_database_does_not_outlast_the_life_that_used_it(postgres_url: str) -> None:
    async with Line(postgres_url) as line, open_rig(line.through(postgres_url), lease=LEASE) as rig:
        line.go_dead()
        waits = asyncio.ensure_future(rig.db.write(TENANT, lambda session: memory.remember(session, "n", 1, 0.0)))
        await asyncio.sleep(0)
        await rig.engine.lease.lose()
        with pytest.raises(StorageError):
            await waits
        await rig.db.write(TENANT, lambda session: memory.remember(session, "n", 2, 0.0))
        async with Database(postgres_url) as beside:
            assert await beside.read(TENANT, lambda session: memory.recall(session, "n")) == (True, 2)


# --- whoever waits hears of it ---------------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_who_waits_for_a_run_to_be_taken_up_is_told_when_the_life_ends(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        ex = await rig.begin(ASKS, "x")
        await rig.waiting(ex.id)
        load, asked = rig.engine.journal.load, asyncio.Event()

        async def never(*_: Any) -> Any:
            rig.engine.journal.load = load  # type: ignore[method-assign]
            asked.set()
            await asyncio.Event().wait()

        rig.engine.journal.load = never  # type: ignore[method-assign]
        deciding = asyncio.ensure_future(decide(rig))
        await asked.wait()
        await rig.engine.lease.lose()
        with pytest.raises(StorageError) as told:
            await deciding
        assert told.value.code == "storage.fenced"
        assert (await rig.ended(ex.id)).info.state == "succeeded", "what was decided counts in the next life"


async def test_a_run_whose_asker_went_away_goes_on_once_it_is_on_the_disk(database_url: str) -> None:
    async with open_rig(database_url) as rig:
        order = Order(new_id("run"), TENANT, rig.plans.of(TENANT, WORKS), "s", "x", blueprint_id="bp")
        await rig.plans.keep(TENANT, order.plan)
        asking = asyncio.ensure_future(rig.engine.accept(order))
        await asyncio.sleep(0)
        asking.cancel()
        await until(lambda: asking.done() and not rig.engine.active)
        assert (await rig.ended(order.run_id)).info.state == "succeeded"
        assert rig.engine.queue._of(TENANT).coming == 0


@pytest.mark.postgres
@pytest.mark.parametrize("where", ["journal.load", "taking_up._take"])
async def test_a_decision_is_heard_although_the_database_went_away_as_the_run_was_taken_up(
    postgres_url: str, where: str
) -> None:
    """Its row names this server already, so nobody else would take it up."""
    async with open_rig(postgres_url, lease=LONG) as rig:
        ex = await rig.begin(ASKS, "x")
        await rig.waiting(ex.id)
        owner, _, name = where.partition(".")
        breaks_once(getattr(rig.engine, owner), name, errors.unknown, done=True)
        await decide(rig)
        assert (await rig.ended(ex.id)).info.state == "succeeded"


@pytest.mark.postgres
async def test_an_answer_that_came_as_the_wait_was_written_is_kept_while_the_database_is_away(
    postgres_url: str,
) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        save = rig.engine.save

        async def saved(ex: Execution) -> None:
            await save(ex)
            if ex.state is RunState.WAITING:
                rig.engine.save = save
                await decide(rig)
                breaks_once(rig.engine.taking_up, "_take")

        rig.engine.save = saved  # type: ignore[method-assign]
        ex = await rig.begin(ASKS, "x")
        assert (await rig.ended(ex.id)).info.state == "succeeded"


async def test_a_caller_hears_of_the_end_although_the_database_went_away(url: str) -> None:
    async with open_rig(url, child=WORKS) as rig:
        breaks_once(rig.engine, "answer")
        assert (await rig.run(CALLS, "x")).output == "x"


async def test_a_call_begins_although_the_database_went_away_and_nobody_knows_what_it_kept(url: str) -> None:
    async with open_rig(url, child=WORKS) as rig:
        ex = await rig.begin(CALLS, "x")
        breaks_once(rig.engine, "accept", errors.unknown, done=True)
        assert (await rig.ended(ex.id)).output == "x"
        assert set(world.keys.values()) == {1}


async def test_a_caller_hears_of_no_end_that_is_not_kept(url: str) -> None:
    """What the child came to may be something else when it is taken up again."""
    async with open_rig(url, child=WORKS) as rig:
        save, report, told = rig.engine.save, rig.engine.waits.report, list[str]()

        async def saved(ex: Execution) -> None:
            if ex.order.parent and ex.state is RunState.SUCCEEDED:
                rig.engine.save = save
                raise errors.unknown()
            await save(ex)

        async def reported(tenant: str, parent: tuple[str, str, str], child: str, *end: Any) -> None:
            told.append((await rig.runs.get(WHO, child)).info.state)
            await report(tenant, parent, child, *end)

        rig.engine.save, rig.engine.waits.report = saved, reported  # type: ignore[method-assign, assignment]
        assert (await rig.run(CALLS, "x")).output == "x"
        assert told == ["succeeded"]


async def test_a_question_that_ran_out_is_answered_although_the_database_went_away(url: str) -> None:
    asks = drawn({"s": "start", "ask": ("ask", {"expires": 9e9}), "no": "effect"}, "s.value > ask.value", "ask.no > no.value")  # fmt: skip
    async with open_rig(url) as rig:
        ex = await rig.begin(asks, "x")
        await rig.waiting(ex.id)
        breaks_once(rig.engine, "answer")
        rig.engine.clock = lambda: 9e9 + 1
        async with asyncio.timeout(20):
            while (await rig.runs.get(WHO, ex.id)).info.state != "succeeded":
                await rig.engine.tick()
                await asyncio.sleep(0.01)


@pytest.mark.postgres
async def test_an_errand_for_a_question_of_before_is_done_with(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LONG) as rig:
        ex = await rig.begin(ASKS, "x")
        await rig.waiting(ex.id)
        answer = {"approval": "apr_before", "approved": True}
        await rig.engine.errands.send(TENANT, ex.id, "answer", "ask", "", answer)
        await rig.engine.errands.look()
        async with asyncio.timeout(20):
            while await rig.db.read_all(lambda session: errand.waiting(session, rig.engine.lease.id)):
                await asyncio.sleep(0.01)
        await rig.waiting(ex.id)


async def test_a_cancel_that_was_not_kept_is_not_said_to_be_done(url: str) -> None:
    async with open_rig(url) as rig:
        ex = await rig.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
        save = rig.engine.save

        async def saved(one: Execution) -> None:
            if one.state is RunState.CANCELLED:
                rig.engine.save = save
                raise errors.unknown()
            await save(one)

        rig.engine.save = saved  # type: ignore[method-assign]
        with pytest.raises(StorageError, match="may or may not"):
            await rig.runs.cancel(WHO, ex.id)
        await rig.runs.cancel(WHO, ex.id)
        assert (await rig.ended(ex.id)).info.state == "cancelled"


async def test_a_run_that_cannot_be_taken_up_fails_and_its_caller_hears_of_it(url: str) -> None:
    asks = drawn({"s": "start", "ask": "ask"}, "s.value > ask.value")
    async with open_rig(url, child=asks) as rig:
        ex = await rig.begin(CALLS, "x")
        await rig.waiting(ex.id)
        [child] = await rig.db.read(TENANT, lambda session: run.children(session, ex.id))
        await rig.waiting(child.id)
        breaks_once(rig.engine.journal, "load", ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            await decide(rig)
        assert (await rig.ended(ex.id)).info.state == "failed"


async def test_held_calls_wait_for_the_database(url: str) -> None:
    async with new_factory(url) as factory:
        id_ = await deployed(factory, keeper())
        await factory.deployments.pause(ADMIN, id_, hold=True)
        assert (await call(factory, 1))[0] == 202
        breaks_once(factory.held, "_start")
        await factory.deployments.resume(ADMIN, id_)
        assert await numbers(factory, await settled(factory, id_, 1)) == [1]
