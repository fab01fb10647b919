"""Workers that are known to be wanted soon: by schedules, by a test that somebody opened, by steps ahead in runs."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from nodes.errors import FactoryError
from runtime.execution import Execution
from runtime.fleet import Fleet
from runtime.journal import Plans
from runtime.plan import Plan
from storage import deployment, schedule
from storage.database import Database

log = structlog.get_logger()

LOOK_EVERY: Final = 10.0  # seconds
LOOK_FOR: Final = 30.0  # seconds: what is due later is seen the next times
RUN: Final = 60.0  # seconds in which a step of a run probably comes to its turn
TEST: Final = 300.0  # seconds in which somebody who opened a test probably starts it


class Ahead:
    """Tells the fleet. What does not come is forgotten after a while."""

    def __init__(self, db: Database, plans: Plans, fleet: Fleet, *, now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._plans = plans
        self._fleet = fleet
        self._now = now
        self._looked = 0.0

    def of_run(self, ex: Execution) -> Callable[[], None]:
        """A run goes on that has code to run."""
        now = self._now()
        taken_back = [
            self._fleet.expect(size, count, now, lasts=RUN, key=ex.id) for size, count in ex.plan.workers.items()
        ]

        def take_back() -> None:
            for forget in taken_back:
                forget()

        return take_back

    def of_test(self, tenant: str, plan: Plan) -> None:
        """Somebody of this tenant opened a test of this plan."""
        for size, count in plan.workers.items():
            self._fleet.expect(size, count, self._now(), lasts=TEST, key=f"test {tenant} {plan.blueprint.name}")

    async def look(self) -> None:
        """Now and then: the schedules that come due soon."""
        now = self._now()
        if 0 <= now - self._looked < LOOK_EVERY or not self._fleet.foresees:
            return
        self._looked = now
        for row in await self._db.read_all(lambda session: schedule.due(session, now + LOOK_FOR)):
            if row.next_due is None or row.next_due < now:
                continue
            try:
                plan = await self._plan(row)
            except FactoryError as error:
                log.info("it is not known what a schedule will need", schedule=row.id, reason=error.message)
                continue
            for size, count in plan.workers.items() if plan else ():
                self._fleet.expect(size, count, row.next_due, key=f"{row.id} {row.next_due}")

    async def _plan(self, row: schedule.Schedule) -> Plan | None:
        found = await self._db.read(row.tenant_id, lambda session: deployment.running(session, row.deployment_id))
        return await self._plans.by_hash(row.tenant_id, found[1]) if found else None
