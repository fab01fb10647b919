"""Reading and writing: what is confirmed is there, what fails leaves nothing, and neighbours do not notice."""

from __future__ import annotations

import asyncio
from threading import Thread

import pytest
from sqlmodel import Session, col, select

from storage import setting
from storage.database import Database
from storage.errors import Clash, StorageError
from storage.memory import Memory
from storage.records import RunRecord
from storage.setting import Setting
from storage.tenancy import TenantSession


async def test_what_was_written_is_read(db: Database) -> None:
    await db.write("a", lambda session: setting.put(session, "model", {"name": "small", "π": [1, 2.5, None]}, at=1.0))
    assert await db.read("a", lambda session: setting.get(session, "model")) == {"name": "small", "π": [1, 2.5, None]}


async def test_a_write_gives_back_what_its_function_returns(db: Database) -> None:
    row = await db.write("a", lambda session: _added(session, Setting(key="k", value=[1], updated_at=1.0)))
    assert (row.tenant_id, row.key, row.value) == ("a", "k", [1])


async def test_what_a_failing_function_did_is_undone_and_its_error_is_raised(db: Database) -> None:
    def half(session: TenantSession) -> None:
        setting.put(session, "half", 1, at=1.0)
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        await db.write("a", half)
    assert await db.read("a", lambda session: setting.get(session, "half")) is None


async def test_writes_queued_together_fail_alone(db: Database) -> None:
    def one(number: int) -> int:
        def write(session: TenantSession) -> int:
            setting.put(session, f"k{number}", number, at=1.0)
            if number % 3 == 0:
                raise ValueError(str(number))
            if number % 3 == 1:
                _added(session, Setting(key="same", value=None, updated_at=1.0))
            return number

        return write  # type: ignore[return-value]

    done = await asyncio.gather(*[db.write("a", one(n)) for n in range(30)], return_exceptions=True)  # type: ignore[arg-type]
    kept = await db.read("a", setting.every)
    assert [type(x) for x in done[0::3]] == [ValueError] * 10
    assert [type(x) for x in done[1::3]] == [int] + [Clash] * 9
    assert done[2::3] == list(range(2, 30, 3))
    assert sorted(kept) == sorted(["same", "k1", *(f"k{n}" for n in range(2, 30, 3))])


async def test_a_write_sees_the_ones_queued_before_it(db: Database) -> None:
    def count(session: TenantSession) -> int:
        row = session.find(Memory, "n") or Memory(key="n", value=0, updated_at=1.0)
        row.value += 1
        session.add(row)
        return int(row.value)

    assert await asyncio.gather(*[db.write("a", count) for _ in range(50)]) == list(range(1, 51))


async def test_a_read_cannot_write(db: Database) -> None:
    with pytest.raises(StorageError):
        await db.read("a", lambda session: setting.put(session, "k", 1, at=1.0))
    assert await db.read("a", setting.every) == {}


async def test_a_read_sees_one_moment(db: Database, database_url: str) -> None:
    async def change() -> None:
        async with Database(database_url) as other:
            await other.write("a", lambda session: setting.put(session, "k", 2, at=2.0))

    def twice(session: TenantSession) -> list[object]:
        query = select(Setting.value).where(Setting.key == "k")
        before = session.exec(query).one()
        elsewhere = Thread(target=asyncio.run, args=(change(),))
        elsewhere.start()
        elsewhere.join()
        return [before, session.exec(query).one()]

    await db.write("a", lambda session: setting.put(session, "k", 1, at=1.0))
    assert await db.read("a", twice) == [1, 1]
    assert await db.read("a", lambda session: setting.get(session, "k")) == 2


async def test_a_cancelled_caller_does_not_disturb_the_others(db: Database) -> None:
    first = asyncio.create_task(db.write("a", lambda session: setting.put(session, "one", 1, at=1.0)))
    second = asyncio.create_task(db.write("a", lambda session: setting.put(session, "two", 2, at=1.0)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert (await db.read("a", setting.every))["two"] == 2


async def test_stopping_writes_what_is_queued(database_url: str) -> None:
    db = Database(database_url)
    await db.start()
    writes = [
        asyncio.create_task(db.write("a", lambda s, n=n: setting.put(s, f"k{n}", n, at=1.0)))  # type: ignore[misc]
        for n in range(20)
    ]
    await asyncio.sleep(0)
    await db.stop()
    await asyncio.gather(*writes)
    async with Database(database_url) as again:
        assert len(await again.read("a", setting.every)) == 20


async def test_a_closed_database_says_so(database_url: str) -> None:
    db = Database(database_url)
    with pytest.raises(StorageError, match="closed"):
        await db.record(RunRecord("run_1", "a"))
    await db.start()
    await db.stop()
    with pytest.raises(StorageError, match="closed") as refused:
        await db.read("a", setting.every)
    assert refused.value.code == "storage.stopped"
    with pytest.raises(StorageError, match="closed"):
        await db.write("a", setting.every)


async def test_a_database_can_be_opened_again(database_url: str) -> None:
    db = Database(database_url)
    for n in range(3):
        await db.start()
        await db.write("a", lambda session, n=n: setting.put(session, f"k{n}", n, at=1.0))  # type: ignore[misc]
        await db.stop()
    await db.start()
    assert await db.read("a", setting.every) == {"k0": 0, "k1": 1, "k2": 2}
    await db.stop()


async def test_all_tenants_are_read_only_through_the_other_door(db: Database) -> None:
    for tenant in ("a", "b"):
        await db.write(tenant, lambda session: setting.put(session, "k", 1, at=1.0))

    def tenants(session: Session) -> list[str]:
        return list(session.exec(select(Setting.tenant_id).order_by(col(Setting.tenant_id))))

    assert await db.read_all(tenants) == ["a", "b"]
    assert await db.read("a", tenants) == ["a"]


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "oracle://x"])
def test_other_databases_are_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(StorageError) as refused:
        Database(url)
    assert refused.value.code == "storage.url"
    assert "sqlite:///" in (refused.value.fix or "")


def _added(session: TenantSession, row: Setting) -> Setting:
    session.add(row)
    session.flush()
    return row
