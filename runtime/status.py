"""How a deployment is doing, now and as it changes: what the live panel and the status stream show."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from nodes.errors import NotFound
from runtime.engine import Engine
from runtime.events import Bus
from runtime.policy import Actor, Permission
from runtime.states import RunState
from storage import activity, deployment
from storage.activity import Activity
from storage.database import Database
from storage.tenancy import TenantSession

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One picture. Times are epoch seconds UTC; numbers of runs are of the last hour unless they say otherwise."""

    id: str
    blueprint_id: str
    environment: str
    version: int
    previous: int | None
    state: str
    hold: bool
    clocks: bool
    runs: int
    succeeded: int
    failed: int
    success_share: float | None
    """Of the runs that ended; None when none has."""
    in_flight: int
    queue: int
    """Runs that were accepted and wait for their turn."""
    waiting: int
    """Runs that wait for a person, a moment or another run."""
    held: int
    """Calls that wait for the agent to go on."""
    last_error: str
    last_error_at: float | None
    last_error_run: str
    next_due: float | None
    at: float


class Statuses:
    """Looks at deployments and follows them."""

    def __init__(self, db: Database, bus: Bus, engine: Engine, *, pause: float = 1.0) -> None:
        self._db = db
        self._bus = bus
        self._engine = engine
        self.pause = pause
        """Seconds between two pictures of one that changes all the time."""

    async def get(self, who: Actor, id_: str) -> DeploymentStatus:
        """How it is doing. Raises NotFound."""
        who.require(Permission.VIEW)
        now = time.time()

        def read(session: TenantSession) -> tuple[deployment.Deployment, Activity] | None:
            row = deployment.get(session, id_)
            return None if row is None else (row, activity.of(session, row, now - HOUR))

        found = await self._db.read(who.tenant, read)
        if found is None:
            raise NotFound("There is no such deployment.", fix="Look at the agent's page.")
        row, seen = found
        mine = [ex for ex in self._engine.active.values() if ex.order.deployment_id == id_]
        queue = sum(ex.state is RunState.ACCEPTED for ex in mine)
        succeeded, failed = seen.counts.get("succeeded", 0), seen.counts.get("failed", 0)
        error = (seen.failed.error or {}) if seen.failed else {}
        return DeploymentStatus(
            id=row.id,
            blueprint_id=row.blueprint_id,
            environment=row.environment,
            version=row.version,
            previous=row.previous,
            state=row.state,
            hold=row.hold,
            clocks=row.clocks,
            runs=sum(seen.counts.values()),
            succeeded=succeeded,
            failed=failed,
            success_share=succeeded / (succeeded + failed) if succeeded + failed else None,
            in_flight=len(mine) - queue,
            queue=queue,
            waiting=seen.waiting,
            held=seen.held,
            last_error=str(error.get("message", "")),
            last_error_at=seen.failed.finished_at if seen.failed else None,
            last_error_run=seen.failed.id if seen.failed else "",
            next_due=seen.next_due,
            at=now,
        )

    async def watch(self, who: Actor, id_: str) -> AsyncIterator[DeploymentStatus]:
        """How it is doing now, and again whenever that changed; ends when it is stopped. Raises NotFound."""
        who.require(Permission.VIEW)
        changed = asyncio.Event()

        def hear(message: dict[str, Any]) -> None:
            if message.get("deployment") == id_:
                changed.set()

        stops = [self._bus.subscribe(who.tenant, (topic,), hear) for topic in ("deployments", "runs")]
        try:
            shown: DeploymentStatus | None = None
            while True:
                changed.clear()
                now = await self.get(who, id_)
                if shown is None or replace(now, at=shown.at) != shown:
                    shown = now
                    yield now
                if now.state == "stopped":
                    return
                await changed.wait()
                await asyncio.sleep(self.pause)
        finally:
            for stop in stops:
                stop()
