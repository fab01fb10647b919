"""Several servers on one PostgreSQL: runs belong to one of them, a dead one's are taken over, and whoever was given up stops."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from nodes.errors import FactoryError
from runtime.leases import Lease
from storage import memory, server
from storage.database import Database
from storage.errors import StorageError
from tests.runtime.engines import TENANT, WHO, Rig, open_rig, states
from tests.runtime.small_nodes import drawn, world

LEASE = 3.0
LONG = 60.0
"""Seconds of a lease that is not lost, however busy the machine is."""

HOLDS = drawn(
    {"s": "start", "first": "effect", "second": ("effect", {"hold": True}), "end": "compute"},
    "s.value > first.value", "first.value > second.value", "second.value > end.value",
)  # fmt: skip
ASKS = drawn({"s": "start", "ask": "ask", "yes": "effect"}, "s.value > ask.value", "ask.yes > yes.value")
ASKS_AND_HOLDS = drawn(
    {"s": "start", "ask": "ask", "held": ("effect", {"hold": True})}, "s.value > ask.value", "s.value > held.value"
)


@pytest.fixture(autouse=True)
def new_world() -> None:
    world.__init__()  # type: ignore[misc]


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def silence(rig: Rig) -> None:
    """What a process is to the others whose machine froze: it neither renews nor notices."""
    rig.engine.lease._renew = lambda: asyncio.sleep(3_600, True)  # type: ignore[method-assign]
    rig.engine.lease._until = float("inf")


@pytest.mark.postgres
async def test_a_silent_servers_runs_are_taken_over_and_it_can_write_nothing_more(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LEASE) as one, open_rig(postgres_url, lease=LEASE) as two:
        ex = await one.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
        silence(one)
        await until(lambda: ex.id in two.engine.active)
        two.engine.lease.seconds = LONG
        world.hold.set()
        assert (await two.ended(ex.id)).info.state == "succeeded"
        assert sorted(world.keys.values()) == [1, 2], "what was done stays done; what was not, was done under its key"
        with pytest.raises(StorageError) as refused:
            await one.begin(HOLDS, "y")
        assert refused.value.code == "storage.fenced" and refused.value.fix
        async with asyncio.timeout(10):
            await ex.ended.wait()
        assert not one.engine.active, "it has let go of what another has"
    _, _, facts = await _facts(postgres_url, ex.id)
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))


async def _facts(url: str, run_id: str) -> Any:
    async with open_rig(url) as rig:
        return await rig.engine.journal.load(TENANT, run_id)


@pytest.mark.postgres
async def test_a_server_that_leaves_is_followed_at_once(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=60) as two:
        async with open_rig(postgres_url, lease=60) as one:
            ex = await one.begin(HOLDS, "x")
            await until(lambda: len(world.calls) == 2)
        world.hold.set()
        assert (await two.ended(ex.id)).info.state == "succeeded"


@pytest.mark.postgres
async def test_a_server_that_cannot_renew_stops_before_others_may_take_over(postgres_url: str) -> None:
    """Its row is held by somebody, as a broken network would hold it: it is quiet while its row still stands."""
    async with open_rig(postgres_url, lease=LEASE) as one:
        ex = await one.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
        me = one.engine.lease.id
        holder = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            async with holder.transaction():
                await holder.execute("SELECT 1 FROM server WHERE id = $1 FOR NO KEY UPDATE", me)
                await until(lambda: not one.engine.active)
                assert not one.engine.lease.held
                assert ex.ended.is_set() and not ex._tasks, "no step goes on"
                assert await holder.fetchval("SELECT count(*) FROM server WHERE id = $1", me) == 1
                with pytest.raises(StorageError, match="could not reach the database"):
                    await one.begin(HOLDS, "y")
        finally:
            await holder.close()
        await until(lambda: one.engine.lease.held)
        assert one.engine.lease.id != me, "it comes back as somebody new"
        world.hold.set()
        assert (await one.ended(ex.id)).info.state == "succeeded"


@pytest.mark.postgres
async def test_a_server_that_waits_for_rows_of_another_lives_on(postgres_url: str) -> None:
    """A machine that froze in the middle of a transaction holds its rows until PostgreSQL ends it; that costs others time, not runs."""
    async with open_rig(postgres_url, lease=LEASE) as one:
        me, lease = one.engine.lease.id, one.engine.lease
        await one.db.write(TENANT, lambda session: memory.remember(session, "count", 1, 0.0))
        holder = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            async with holder.transaction():
                await holder.execute("SELECT 1 FROM memory FOR UPDATE")
                blocked = asyncio.ensure_future(
                    one.db.write(TENANT, lambda session: memory.remember(session, "count", 2, 0.0))
                )
                beats = await _beat(holder, me)
                while await _beat(holder, me) < beats + 10:  # more than a whole lease
                    await asyncio.sleep(0.01)
                assert not blocked.done() and lease.held and lease.id == me
        finally:
            await holder.close()
        await blocked
        assert await one.db.read(TENANT, lambda session: memory.recall(session, "count")) == (True, 2)


async def _beat(connection: "asyncpg.Connection[Any]", id: str) -> int:
    return int(await connection.fetchval("SELECT beat FROM server WHERE id = $1", id))


@pytest.mark.postgres
async def test_a_machine_that_froze_in_the_middle_of_a_statement_holds_nobody_up(postgres_url: str) -> None:
    """Such a session counts as active, so PostgreSQL's own time limit for idle transactions does not end it."""
    async with open_rig(postgres_url, lease=LEASE) as one:
        await one.db.write(TENANT, lambda session: memory.remember(session, "count", 1, 0.0))
        frozen = await asyncpg.connect(
            postgres_url.replace("+asyncpg", ""), server_settings={"application_name": "agent-factory"}
        )
        await frozen.execute("BEGIN")
        await frozen.execute("SELECT 1 FROM memory FOR UPDATE")
        # A statement that was prepared and never run, as the driver sends it: parse and flush, and then nothing any more.
        frozen._transport.write(b"P\x00\x00\x00\x10\x00SELECT 1\x00\x00\x00" + b"H\x00\x00\x00\x04")
        async with asyncio.timeout(20):
            await one.db.write(TENANT, lambda session: memory.remember(session, "count", 2, 0.0))
        assert await one.db.read(TENANT, lambda session: memory.recall(session, "count")) == (True, 2)
        frozen.terminate()


@pytest.mark.postgres
async def test_what_a_life_that_is_over_had_queued_is_not_written_in_the_next(postgres_url: str) -> None:
    async with open_rig(postgres_url, lease=LEASE) as one:
        holder = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            await one.db.write(TENANT, lambda session: memory.remember(session, "blocks", 1, 0.0))
            async with holder.transaction():
                await holder.execute("SELECT 1 FROM memory FOR UPDATE")
                first = asyncio.ensure_future(
                    one.db.write(TENANT, lambda session: memory.remember(session, "blocks", 2, 0.0))
                )
                await _blocked(postgres_url)
                late = asyncio.ensure_future(
                    one.db.write(TENANT, lambda session: memory.remember(session, "late", 1, 0.0))
                )
                await asyncio.sleep(0)
                one.db.fence(None)
                with pytest.raises(StorageError) as refused:
                    await late
                assert refused.value.code == "storage.fenced"
            await first
        finally:
            await holder.close()
        assert await one.db.read(TENANT, lambda session: memory.recall(session, "late")) == (False, None)


async def _blocked(url: str) -> None:
    """Wait until somebody waits for a lock."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        asking = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(20):
            while not await connection.fetchval(asking):
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


@pytest.mark.postgres
async def test_servers_that_share_many_dead_runs_do_each_once(postgres_url: str) -> None:
    blueprint = drawn({"s": "start", "e": "effect"}, "s.value > e.value")
    async with open_rig(postgres_url) as dead:
        dead.engine.launch = lambda ex: None  # type: ignore[method-assign, assignment]
        begun = [await dead.begin(blueprint, n) for n in range(40)]
        await asyncio.gather(*(ex.flush() for ex in begun))
    async with open_rig(postgres_url) as one, open_rig(postgres_url) as two, open_rig(postgres_url) as three:
        await asyncio.gather(*(rig.engine.recover() for rig in (one, two, three, two, one)))
        for ex in begun:
            assert (await one.ended(ex.id)).info.state == "succeeded"
    assert sorted(world.calls) == list(range(40)) and set(world.keys.values()) == {1}


@pytest.mark.postgres
async def test_a_decision_reaches_a_run_that_another_server_has_in_hand(postgres_url: str) -> None:
    async with open_rig(postgres_url) as one, open_rig(postgres_url) as two:
        ex = await one.begin(ASKS_AND_HOLDS, "launch")
        await until(lambda: world.calls)
        async with asyncio.timeout(10):
            while not (questions := await two.approvals.list(WHO)):
                await asyncio.sleep(0.02)
        await two.approvals.decide(WHO, questions[0].id, approve=True)
        async with asyncio.timeout(10):
            while states(await one.runs.get(WHO, ex.id)).get("ask") != "succeeded":
                await asyncio.sleep(0.02)
        assert ex.id in one.engine.active and ex.id not in two.engine.active
        world.hold.set()
        assert (await two.ended(ex.id)).info.state == "succeeded"


@pytest.mark.postgres
async def test_a_waiting_run_goes_on_where_it_is_answered(postgres_url: str) -> None:
    async with open_rig(postgres_url) as one, open_rig(postgres_url) as two:
        ex = await one.begin(ASKS, "launch")
        await one.waiting(ex.id)
        [question] = await two.approvals.list(WHO)
        await two.approvals.decide(WHO, question.id, approve=True)
        assert (await one.ended(ex.id)).info.state == "succeeded"
    assert world.calls == ["launch"]


@pytest.mark.postgres
async def test_a_waiting_run_is_woken_once_by_whoever_comes_first(postgres_url: str) -> None:
    blueprint = drawn(
        {"s": "start", "z": ("sleep", {"until": 9e9}), "e": "effect"}, "s.value > z.value", "z.value > e.value"
    )
    async with open_rig(postgres_url) as one, open_rig(postgres_url) as two:
        begun = [await one.begin(blueprint, n) for n in range(20)]
        for ex in begun:
            await one.waiting(ex.id)
        for rig in (one, two):
            rig.engine.clock = lambda: 9e9 + 1
        await asyncio.gather(*(rig.engine.tick() for rig in (one, two, one, two)))
        for ex in begun:
            assert (await two.ended(ex.id)).info.state == "succeeded"
    assert sorted(world.calls) == list(range(20)) and set(world.keys.values()) == {1}


@pytest.mark.postgres
async def test_a_run_is_cancelled_through_another_server(postgres_url: str) -> None:
    async with open_rig(postgres_url) as one, open_rig(postgres_url) as two:
        ex = await one.begin(HOLDS, "x")
        await until(lambda: len(world.calls) == 2)
        await two.runs.cancel(WHO, ex.id)
        async with asyncio.timeout(10):
            await ex.ended.wait()
        assert (await two.runs.get(WHO, ex.id)).info.state == "cancelled"


@pytest.mark.postgres
async def test_the_caller_of_a_child_on_another_server_hears_of_its_end(postgres_url: str) -> None:
    child = drawn({"s": "start", "e": ("effect", {"hold": True})}, "s.value > e.value")
    parent = drawn({"s": "start", "call": ("call", {"blueprint": "child"})}, "s.value > call.value")
    async with open_rig(postgres_url, lease=LEASE, child=child) as one, open_rig(postgres_url, child=child) as two:
        ex = await one.begin(parent, "x")
        await until(lambda: world.calls)
        silence(one)
        two.engine.lease.seconds = LEASE
        await until(lambda: two.engine.active)
        two.engine.lease.seconds = LONG
        world.hold.set()
        assert (await two.ended(ex.id)).output == "x"


async def test_a_second_server_on_one_file_is_refused_in_words(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    async with open_rig(url):
        with pytest.raises(FactoryError) as refused:
            async with open_rig(url):
                pass
        assert refused.value.code == "storage.in_use" and "FACTORY_HOME" in (refused.value.fix or "")
        async with Database(url) as beside:  # commands that are no servers may look in
            assert len(await beside.read_all(server.pulses)) == 1
    async with open_rig(url) as again:
        assert again.engine.lease.held


async def test_one_server_alone_writes_nothing_to_stay_alive(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/f.db") as db:
        lease = Lease(db, seconds=0.01)
        await lease.join()
        await asyncio.sleep(0.1)
        assert lease.held and (await db.read_all(server.pulses))[0].beat == 0
        await lease.leave()
