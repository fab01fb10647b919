"""An engine over a real database, as tests hold it: runs blueprints, dies without a word, and starts again on the same rows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nodes.blueprint import Blueprint
from nodes.ids import new_id
from runtime.approvals import Approvals
from runtime.engine import Engine, Target
from runtime.events import Bus
from runtime.execution import Execution, Order
from runtime.journal import Plans
from runtime.leases import LEASE
from runtime.policy import Actor, Role
from runtime.runs import Runs
from runtime.sandbox import Sandbox
from runtime.views import RunView
from storage.database import Database
from tests.databases import laid_out
from tests.runtime.small_nodes import TYPES

TENANT = "team"
WHO = Actor(TENANT, "usr_1", "Ada", Role.DEVELOPER)


class NoDoors:
    """A run that has nowhere to go."""


class Rig:
    """One life of an engine."""

    def __init__(self, db: Database, lease: float = LEASE) -> None:
        self.db = db
        self.bus = Bus()
        self.plans = Plans(db, TYPES)
        self.called: dict[str, Blueprint] = {}
        self.engine = Engine(
            db,
            self.plans,
            self.bus,
            open_doors=lambda _: NoDoors(),
            find_blueprint=self._find,  # type: ignore[arg-type, return-value]
            lease=lease,
        )
        self.runs = Runs(db, self.bus, self.engine, self.plans)
        self.sandbox = Sandbox(self.engine, self.plans)
        self.approvals = Approvals(db, self.bus, self.engine)

    async def _find(self, tenant: str, blueprint_id: str, environment: str) -> Target:
        return self.plans.of(tenant, self.called[blueprint_id]), blueprint_id, 1

    async def begin(self, blueprint: Blueprint, given: Any = None) -> Execution:
        """Accept a run of the blueprint's first trigger."""
        plan = self.plans.of(TENANT, blueprint)
        trigger = plan.triggers()[0].id
        return await self.engine.accept(Order(new_id("run"), TENANT, plan, trigger, given, blueprint_id="bp"))

    async def run(self, blueprint: Blueprint, given: Any = None) -> RunView:
        """Run to the end and tell the story from the rows."""
        ex = await self.begin(blueprint, given)
        return await self.ended(ex.id)

    async def ended(self, run_id: str, timeout: float = 20.0) -> RunView:
        """The run when it has ended."""
        async with asyncio.timeout(timeout):
            async for fact in self.runs.watch(WHO, run_id):
                if fact["kind"] == "run.finished":
                    break
        return await self.runs.get(WHO, run_id)

    async def waiting(self, run_id: str) -> RunView:
        """The run when only rows are left of it."""
        async with asyncio.timeout(20):
            while True:
                view = await self.runs.get(WHO, run_id)
                if view.info.state == "waiting" and run_id not in self.engine.active:
                    return view
                await asyncio.sleep(0.005)


@asynccontextmanager
async def open_rig(url: str, *, lease: float = LEASE, **called: Blueprint) -> AsyncIterator[Rig]:
    """An engine on that database until the end of the block; what is going on then is left as a crash leaves it."""
    async with Database(laid_out(url)) as db:
        rig = Rig(db, lease)
        rig.called = called
        await rig.engine.start()
        try:
            yield rig
        finally:
            await rig.engine.stop()


def outputs(view: RunView) -> dict[str, Any]:
    """What each step of the whole run gave: `{id: {port: value}}`, iterations as `id/path`."""
    return {
        f"{step.node}/{step.iteration}" if step.iteration else step.node: step.output
        for step in view.steps
        if step.state == "succeeded"
    }


def states(view: RunView) -> dict[str, str]:
    """The state of each step outside loops."""
    return {step.node: step.state for step in view.steps if not step.iteration}
