"""Many runs that a crash interrupted are taken up together: in their order, each once, and one that cannot be is no one else's matter."""

import asyncio

import pytest
from sqlmodel import col, update

from runtime.taking_up import TOGETHER
from storage import run
from storage.database import Database
from storage.journal import Journal
from tests.runtime.engines import TENANT, WHO, Rig, open_rig
from tests.runtime.small_nodes import drawn, world

HELD = drawn({"s": "start", "act": ("effect", {"hold": True})}, "s.value > act.value")


@pytest.fixture(autouse=True)
def new_world() -> None:
    world.__init__()  # type: ignore[misc]


async def interrupted(url: str, count: int) -> list[str]:
    """So many runs that were going on when their server stopped."""
    async with open_rig(url) as rig:
        ids = [(await rig.begin(HELD, number)).id for number in range(count)]
        async with asyncio.timeout(15):
            while len(world.calls) < count:
                await asyncio.sleep(0.005)
    world.calls.clear()
    return ids


async def ends(rig: Rig, ids: list[str]) -> list[str]:
    return [(await rig.ended(id_)).info.state for id_ in ids]


async def test_all_go_on_in_the_order_they_were_accepted_also_beyond_one_batch(database_url: str) -> None:
    ids = await interrupted(database_url, TOGETHER + 10)
    world.hold.set()
    async with open_rig(database_url) as rig:
        assert set(await ends(rig, ids)) == {"succeeded"}
    assert world.calls == sorted(range(len(ids)), key=lambda number: ids[number])


async def test_one_whose_history_cannot_be_read_fails_alone(database_url: str) -> None:
    ids = await interrupted(database_url, 5)
    world.hold.set()
    async with Database(database_url) as db:
        spoilt = update(Journal).where(col(Journal.run_id) == ids[1]).values(facts="[{")
        await db.write(TENANT, lambda session: session.change(spoilt))
    async with open_rig(database_url) as rig:
        async with asyncio.timeout(15):
            while await rig.db.read_all(run.interrupted):
                await asyncio.sleep(0.005)
        rows = await rig.db.read(TENANT, lambda session: run.some(session, ids))
    state = {row.id: row.state for row in rows}
    assert [state[id_] for id_ in ids] == ["succeeded", "failed", "succeeded", "succeeded", "succeeded"]


async def test_what_is_held_back_goes_on_when_everything_has_started(database_url: str) -> None:
    ids = await interrupted(database_url, 3)
    world.hold.set()
    async with Database(database_url) as db:
        rig = Rig(db)
        await rig.engine.start(hold=True)
        await rig.runs.cancel(WHO, ids[0])  # whoever wants one of them need not wait
        rows = await db.read(TENANT, lambda session: run.some(session, ids))
        assert sorted(row.state for row in rows) == ["cancelled", "running", "running"]
        assert world.calls == []
        rig.engine.go_on()
        assert await ends(rig, ids) == ["cancelled", "succeeded", "succeeded"]
        await rig.engine.stop()
