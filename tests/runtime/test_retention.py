"""Runs that ended long ago are removed with all that belongs to them; what something still needs stays, whatever its age."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlmodel import func, select

from nodes.errors import FactoryError, NotFound
from runtime.clock import CLEAN_EVERY
from runtime.factory import Factory
from runtime.retention import BATCH, DAY
from storage import document, run
from storage.approval import Approval
from storage.dead_letter import DeadLetter
from storage.errand import Errand
from storage.event_wait import EventWait
from storage.journal import Journal
from storage.records import RunRecord
from storage.run import Run
from tests.runtime.factories import ADMIN, STRANGER, VIEWER, new_factory

HASH = "0" * 64
NOW = time.time()


@pytest.fixture
async def factory(database_url: str) -> AsyncIterator[Factory]:
    async with new_factory(database_url) as factory:
        for tenant in ("team", "others"):
            await factory.db.write(tenant, lambda session: document.put(session, HASH, "{}", 1.0))
        yield factory


@dataclass
class Past:
    """Runs of other days, told by names."""

    factory: Factory
    ids: dict[str, str] = field(default_factory=dict)

    async def had(self, name: str, days: float, state: str = "succeeded", *, tenant: str = "team", **more: Any) -> str:
        """A run that was accepted so many days ago and ended at once, if it did."""
        at = NOW - days * DAY
        id_ = self.ids[name] = run.first_id(at) + f"{len(self.ids):016d}"
        given = {"blueprint_id": "b", "blueprint_name": "B", "document_hash": HASH, "trigger": "t", "state": state}
        ended = at if state in run.FINISHED else None
        values = run.values(tenant, id_, **given, **{"accepted_at": at, "finished_at": ended, **more})  # type: ignore[arg-type]
        await self.factory.db.record(RunRecord(id_, tenant, 0, b'[{"kind":"run.accepted"}]', values))
        return id_

    async def handled(self, name: str, how: str | None, retry: str | None = None) -> None:
        """Somebody dealt with a failure."""

        def write(session: Any) -> None:
            run.move(session, self.ids[name], expected=("failed",), to="failed", handled=how)
            if how != "told":
                session.add(
                    DeadLetter(run_id=self.ids[name], state=str(how), done_at=NOW, retry_run=retry, begun_at=NOW)
                )

        await self.factory.db.write("team", write)

    async def left(self) -> set[str]:
        """The names of those that are still there."""
        found = await self.factory.db.read_all(lambda session: set(session.exec(select(Run.id)).all()))
        return {name for name, id_ in self.ids.items() if id_ in found}


async def test_runs_that_ended_long_ago_go_unless_something_needs_them(factory: Factory) -> None:
    past = Past(factory)
    await past.had("long ago", 91)
    await past.had("cancelled", 95, "cancelled")
    await past.had("young", 89)
    await past.had("long, and ended now", 100, finished_at=NOW - DAY)
    await past.had("waits", 200, "waiting")
    await past.had("goes on", 200, "running")
    await past.had("failed", 100, "failed")
    await past.had("owes an alarm", 100, "failed", wake_at=5.0)
    await past.handled("owes an alarm", "dismissed")
    await past.had("dismissed", 100, "failed")
    await past.handled("dismissed", "dismissed")
    await past.had("tried again", 100, "failed")
    await past.handled("tried again", "retried", await past.had("the second try", 99))
    await past.had("tried in vain", 100, "failed")
    await past.handled("tried in vain", "retried", await past.had("failed again", 99, "failed"))
    await past.had("told its caller", 100, "failed", parent_run=past.ids["failed"])
    await past.handled("told its caller", "told")
    await past.had("called by one that waits", 150, parent_run=past.ids["waits"])
    await past.had("called one that waits", 201)
    await past.had("was called and waits", 200, "waiting", parent_run=past.ids["called one that waits"])
    await past.had("called by one that goes too", 99, parent_run=past.ids["long ago"])
    asked = await past.had("is asked something", 100)
    errand = Errand(id="err_1", run_id=asked, kind="cancel", created_at=NOW)
    await factory.db.write("team", lambda session: session.add(errand))
    assert await factory.clock.retention.forget() == 6
    gone = {"long ago", "cancelled", "dismissed", "tried again", "the second try", "called by one that goes too"}
    assert past.ids.keys() - await past.left() == gone
    assert await factory.clock.retention.forget() == 0


async def test_files_that_were_left_on_their_way_to_a_worker_go_too(factory: Factory) -> None:
    digest = factory.store.put("team", b"old")
    os.utime(factory.store.path("team", digest), (1, 1))
    new = factory.store.put("team", b"new")
    await factory.clock.retention.forget()
    assert factory.store.read("team", new) == b"new"
    with pytest.raises(NotFound):
        factory.store.read("team", digest)


async def test_with_a_run_goes_all_that_belongs_to_it(factory: Factory) -> None:
    past = Past(factory)
    ids = {name: await past.had(name, days) for name, days in (("old", 100), ("new", 1))}

    def add(session: Any) -> None:
        for id_ in ids.values():
            own = dict[str, Any](id=id_, run_id=id_, node="n", created_at=1.0)
            session.add(Approval(**own, blueprint_id="b", blueprint_name="B", title="?", state="approved"))
            session.add(EventWait(**own, subject="s", state="arrived", expires_at=1.0))

    await factory.db.write("team", add)
    await factory.clock.retention.forget()
    for table in (Journal, Approval, EventWait):
        kept = await factory.db.read_all(lambda session, table=table: session.exec(select(table.run_id)).all())  # type: ignore[misc]
        assert kept == [ids["new"]]


async def test_each_team_keeps_its_runs_as_long_as_it_says(factory: Factory) -> None:
    past = Past(factory)
    for tenant in ("team", "others"):
        for days in (3, 50, 200):
            await past.had(f"{tenant} {days}", days, tenant=tenant)
    await factory.limits.set(ADMIN, "run_days", 30)
    await factory.limits.set(STRANGER, "run_days", 3_650)
    await factory.clock.retention.forget()
    assert await past.left() == {"team 3", "others 3", "others 50", "others 200"}
    await factory.limits.set(STRANGER, "run_days", None)
    await factory.clock.retention.forget()
    assert await past.left() == {"team 3", "others 3", "others 50"}
    for wrong in (1, 0, 3_651):
        with pytest.raises(FactoryError, match="between 2 days and 3,650 days"):
            await factory.limits.set(ADMIN, "run_days", wrong)
    with pytest.raises(FactoryError):
        await factory.limits.set(VIEWER, "run_days", 5)


async def test_many_go_in_small_batches_past_those_that_stay(factory: Factory) -> None:
    past = Past(factory)
    for number in range(BATCH + 20):
        await past.had(f"{number}", 100, "waiting" if number < BATCH else "succeeded")
    assert await factory.clock.retention.forget() == 20
    left = await factory.db.read("team", lambda session: session.exec(select(func.count()).select_from(Run)).one())
    assert left == BATCH


async def test_the_clock_sees_to_it_once_an_hour(factory: Factory) -> None:
    past = Past(factory)
    await past.had("old", 100)
    await factory.clock.tick()
    assert await past.left() == {"old"}
    factory.clock._cleaned -= CLEAN_EVERY
    await factory.clock.tick()
    async with asyncio.timeout(10):
        while await past.left():
            await asyncio.sleep(0.005)
