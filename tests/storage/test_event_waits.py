"""Waits for events and addresses: each answered once, by the right one, in the right tenant."""

from typing import Any

import pytest

from storage import event_wait
from storage.database import Database
from storage.event_wait import EventWait, subject
from storage.tenancy import TenantSession

LATE = 1_000.0


@pytest.fixture
async def db(database_url: str) -> Any:
    async with Database(database_url) as db:
        yield db


def wait(id: str, subject: str = "", token: str | None = None, **more: Any) -> Any:
    values = {
        "subject": subject,
        "token_hash": event_wait.hashed(token) if token else None,
        "created_at": 1.0,
        "expires_at": LATE,
    }
    return lambda session: event_wait.put(session, id, values | more)


async def test_a_wait_is_put_once(db: Database) -> None:
    assert await db.write("a", wait("w", "s"))
    assert not await db.write("a", wait("w", "other"))
    row = await db.read("a", lambda session: event_wait.get(session, "w"))
    assert row is not None and row.subject == "s"


async def test_an_event_wakes_who_waits_for_its_name_and_key_in_its_tenant_once(db: Database) -> None:
    for tenant, id_, what in (
        ("a", "w1", subject("paid", "7")),
        ("a", "w2", subject("paid", "8")),
        ("b", "w1", subject("paid", "7")),
    ):
        await db.write(tenant, wait(id_, what, run_id="r", node="n"))

    def happens(session: TenantSession) -> list[str]:
        return [row.id for row in event_wait.publish(session, subject("paid", "7"), {"n": 1}, 5.0)]

    assert await db.write("a", happens) == ["w1"]
    assert await db.write("a", happens) == []
    row = await db.read("a", lambda session: event_wait.get(session, "w1"))
    assert row is not None and (row.state, row.value) == ("arrived", {"n": 1})
    other = await db.read("b", lambda session: event_wait.get(session, "w1"))
    assert other is not None and other.state == "waiting"


async def test_what_has_expired_or_was_called_off_hears_nothing(db: Database) -> None:
    await db.write("a", wait("late", "s", expires_at=2.0))
    await db.write("a", wait("off", "s", run_id="r"))
    assert await db.write("a", lambda session: event_wait.cancel_of_run(session, "r")) == 1
    assert await db.write("a", lambda session: event_wait.publish(session, "s", 1, 3.0)) == []
    assert not await db.write("a", lambda session: event_wait.deliver(session, "late", 1, 3.0))
    assert await db.write("a", lambda session: event_wait.move(session, "late", to="expired"))
    assert not await db.write("a", lambda session: event_wait.move(session, "late", to="expired"))


async def test_an_address_is_found_by_what_only_its_owner_knows_and_belongs_to_one_step(db: Database) -> None:
    await db.write("a", wait("adr", token="secret"))
    found = await db.read_all(lambda session: event_wait.at(session, "secret"))
    assert found is not None and found.tenant_id == "a" and "secret" not in repr(found.model_dump())
    assert await db.read_all(lambda session: event_wait.at(session, "secre")) is None

    def take(run: str) -> Any:
        def write(session: TenantSession) -> EventWait | None:
            return event_wait.take_address(session, "secret", run_id=run, node="n", iteration="", expires_at=50.0)

        return write

    assert await db.write("b", take("r1")) is None, "an address of another tenant"
    for _ in range(2):
        row = await db.write("a", take("r1"))
        assert row is not None and row.run_id == "r1" and row.expires_at == 50.0
    assert await db.write("a", take("r2")) is None


async def test_waits_are_forgotten_when_they_have_long_expired(db: Database) -> None:
    await db.write("a", wait("old", "s", expires_at=2.0))
    await db.write("a", wait("new", "s"))
    assert await db.write_all(lambda session: event_wait.purge(session, 3.0)) == 1
    assert await db.read("a", lambda session: event_wait.get(session, "new")) is not None
