"""Calls that came while an agent was paused: kept on the disk, and started in the order they came when it goes on."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog

from nodes.errors import FactoryError, TooMany
from nodes.ids import new_id
from runtime.engine import Engine
from runtime.events import Bus
from runtime.execution import Order
from runtime.journal import Plans
from runtime.patience import patiently
from runtime.plan import Plan
from storage import deployment, run
from storage import held_call as rows
from storage.database import Database
from storage.tenancy import TenantSession

log = structlog.get_logger()

MAX_HELD = 10_000  # calls that one paused agent keeps
BATCH = 50  # calls that are started together
PATIENCE = 1.0  # seconds until the next try when no more runs are taken


class Held:
    """The calls that wait for paused deployments."""

    def __init__(self, db: Database, engine: Engine, plans: Plans, bus: Bus) -> None:
        self._db = db
        self._engine = engine
        self._plans = plans
        self._bus = bus
        self._releasing: set[str] = set()
        self._again: set[str] = set()

    async def start(self) -> None:
        """Go on with what a stop of the server left."""
        for tenant, deployment_id in await self._db.read_all(rows.waiting):
            self.release_soon(tenant, deployment_id)

    async def take(self, tenant: str, deployment_id: str, node: str, event: Any, run_id: str = "") -> str:
        """Keep a call; returns the id of the run that it will start, when it is durable. Raises TooMany."""
        id_ = run_id or new_id("run")

        def write(session: TenantSession) -> None:
            if rows.count(session, deployment_id) >= MAX_HELD:
                raise TooMany(
                    f"This agent is paused, and {MAX_HELD:,} calls wait for it already.",
                    code="limit.held",
                    fix="Try again later; this call was not kept.",
                )
            call = rows.HeldCall(id=id_, deployment_id=deployment_id, node=node, event=event, at=time.time())
            rows.add(session, call)

        await self._db.write(tenant, write)
        self._bus.publish(tenant, ("deployments",), {"deployment": deployment_id, "held": True})
        return id_

    def release_soon(self, tenant: str, deployment_id: str) -> None:
        """Start what waits, in the background, if the deployment is active."""
        if deployment_id in self._releasing:
            self._again.add(deployment_id)
            return
        self._releasing.add(deployment_id)
        # A task that is cancelled before it begins runs nothing of its own, not even a `finally`.
        releasing = self._engine.spawn(self._release(tenant, deployment_id))
        releasing.add_done_callback(lambda _: self._releasing.discard(deployment_id))

    async def _release(self, tenant: str, deployment_id: str) -> None:
        while True:
            self._again.discard(deployment_id)
            start = partial(self._start_all, tenant, deployment_id)
            await patiently(start, "held calls wait for the database", deployment=deployment_id)
            if deployment_id not in self._again:
                break
        self._releasing.discard(deployment_id)  # before anybody hears that nothing is held any more
        self._bus.publish(tenant, ("deployments",), {"deployment": deployment_id, "held": False})

    async def _start_all(self, tenant: str, deployment_id: str) -> None:
        skipped: set[str] = set()

        def read(session: TenantSession) -> tuple[tuple[deployment.Deployment, str] | None, list[rows.HeldCall]]:
            waiting = rows.first(session, deployment_id, BATCH + len(skipped))
            return deployment.running(session, deployment_id), [row for row in waiting if row.id not in skipped]

        while True:
            live, waiting = await self._db.read(tenant, read)
            if live is None or not waiting:
                return
            plan = await self._plans.by_hash(tenant, live[1])
            # Without its trigger a call cannot start; it waits for a version that has it again.
            skipped |= {row.id for row in waiting if row.node not in plan.steps}
            await self._start(tenant, live[0], plan, [row for row in waiting if row.id not in skipped])

    async def _start(
        self, tenant: str, live: deployment.Deployment, plan: Plan, waiting: Sequence[rows.HeldCall]
    ) -> None:
        def started(session: TenantSession) -> set[str]:
            return {row.id for row in waiting if run.get(session, row.id) is not None}

        done = await self._db.read(tenant, started)
        orders = [Order.of(live, plan, row.id, row.node, row.event) for row in waiting if row.id not in done]
        results = await asyncio.gather(*(self._engine.accept(order) for order in orders), return_exceptions=True)
        full = False
        for order, result in zip(orders, results, strict=True):
            if not isinstance(result, BaseException):
                done.add(order.run_id)
            elif isinstance(result, FactoryError):
                full = True
                log.info("a held call has to wait", run=order.run_id, reason=result.message)
            else:
                raise result

        def remove(session: TenantSession) -> None:
            for id_ in done:
                rows.remove(session, id_)

        if done:
            await self._db.write(tenant, remove)
        if full:
            await asyncio.sleep(PATIENCE)
