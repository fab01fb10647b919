"""Schedules of deployments: what is due is claimed and started once, and people see what comes and what came."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from nodes.errors import FactoryError, NotFound, TooMany
from nodes.ids import new_id
from nodes.listen import Schedule
from nodes.moments import missed, moment_in_words, schedule_in_words, upcoming, zone
from runtime.engine import Engine
from runtime.execution import Order
from runtime.journal import Plans
from runtime.policy import Actor, Permission
from storage import deployment, schedule
from storage.database import Database
from storage.errors import Clash, StorageError
from storage.tenancy import TenantSession

log = structlog.get_logger()

LATE = 60.0  # seconds after which a moment counts as missed
LET_PASS = 20  # missed moments that the history names although nothing was started for them
OWED_FOR = 86_400.0  # seconds in which a claimed moment still gets its run


@dataclass(frozen=True, slots=True)
class FiringInfo:
    """One time that a schedule came round; `run_id` is None when it was let pass. Times are epoch seconds UTC."""

    due_at: float
    fired_at: float
    run_id: str | None

    @property
    def late_by(self) -> float:
        """Seconds after the moment."""
        return max(0.0, self.fired_at - self.due_at)


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as people see it. `upcoming` are moments in words on the clock of its time zone."""

    id: str
    deployment_id: str
    blueprint_id: str
    node: str
    words: str
    time_zone: str
    jitter: int
    held: bool
    """Somebody stopped this one."""
    paused: bool
    """It rests because its deployment does."""
    next_due: float | None
    upcoming: tuple[str, ...]
    history: tuple[FiringInfo, ...] = ()


class Schedules:
    """Schedules of one installation."""

    def __init__(self, db: Database, engine: Engine, plans: Plans, *, now: Callable[[], float] = time.time) -> None:
        self._db = db
        self._engine = engine
        self._plans = plans
        self.now = now
        self.owes = False
        """Whether something was claimed that could not be started for want of room, or of the database."""

    # --- for people ---------------------------------------------------------------------------------------------------------

    async def list(self, who: Actor, *, deployment_id: str | None = None, history: int = 10) -> Sequence[ScheduleInfo]:
        """The schedules of a deployment, or all of the tenant's, with what comes next and what came last."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> list[ScheduleInfo]:
            found = schedule.listed(session) if deployment_id is None else schedule.of(session, deployment_id)
            return [self._info(session, row, history) for row in found]

        return await self._db.read(who.tenant, read)

    async def hold(self, who: Actor, id_: str) -> ScheduleInfo:
        """Stop one schedule, whatever its deployment does. Raises NotFound."""
        return await self._set_held(who, id_, held=True)

    async def go_on(self, who: Actor, id_: str) -> ScheduleInfo:
        """Let it go on; what it missed is made up for as it says. Raises NotFound."""
        return await self._set_held(who, id_, held=False)

    async def _set_held(self, who: Actor, id_: str, *, held: bool) -> ScheduleInfo:
        who.require(Permission.DEPLOY)

        def write(session: TenantSession) -> ScheduleInfo:
            row = schedule.get(session, id_)
            if row is None:
                raise NotFound("There is no such schedule.", fix="Look at the agent's deployment.")
            schedule.hold(session, id_, held)
            session.refresh(row)
            return self._info(session, row, 10)

        return await self._db.write(who.tenant, write)

    def _info(self, session: TenantSession, row: schedule.Schedule, history: int) -> ScheduleInfo:
        spec = Schedule(**row.spec)
        return ScheduleInfo(
            id=row.id,
            deployment_id=row.deployment_id,
            blueprint_id=row.blueprint_id,
            node=row.node,
            words=schedule_in_words(spec),
            time_zone=spec.time_zone,
            jitter=spec.jitter,
            held=row.held,
            paused=row.paused,
            next_due=row.next_due,
            upcoming=next_in_words(spec, self.now(), 10),
            history=tuple(
                FiringInfo(one.due_at, one.fired_at, one.run_id) for one in schedule.firings(session, row.id, history)
            ),
        )

    # --- for the clock --------------------------------------------------------------------------------------------------------

    async def fire_due(self) -> None:
        """Start what is due."""
        for row in await self._db.read_all(lambda session: schedule.due(session, self.now())):
            if row.next_due is not None and self.now() >= row.next_due + spread(row):
                await self._fire(row, row.next_due)

    async def _fire(self, row: schedule.Schedule, due: float) -> None:
        spec, now = Schedule(**row.spec), self.now()
        at, first = datetime.fromtimestamp(now, UTC), datetime.fromtimestamp(due, UTC)
        most = spec.most if spec.catch_up == "all" else 1
        keep = max(most, LET_PASS)
        # After a long time there is much to look through.
        late = now - due > 10 * LATE
        found = await asyncio.to_thread(missed, spec, first, at, keep) if late else missed(spec, first, at, keep)
        moments = [moment.timestamp() for moment in found]
        after = upcoming(spec, max(at, found[-1]), 1)
        next_due = after[0].timestamp() if after else None
        claims: list[tuple[float, str | None]] = []
        for place, moment in enumerate(moments):
            wanted = place >= len(moments) - most
            if spec.catch_up == "skip" and now - moment - spread(row) > LATE:
                wanted = False
            claims.append((moment, new_id("run") if wanted else None))
        ours = await self._db.write(
            row.tenant_id,
            lambda session: schedule.fire_all(session, row.id, claims, due_at=due, next_due=next_due, at=now),
        )
        for moment, run_id in ours:
            await self._start_or_owe(row, moment, run_id)

    async def recover(self) -> None:
        """Start what was claimed and has no run: its process ended before, or there was no room for it."""
        since, self.owes = self.now() - OWED_FOR, False
        for firing in await self._db.read_all(lambda session: schedule.unstarted(session, since)):
            if firing.run_id not in self._engine.active:
                await self._start_or_owe(firing.schedule, firing.due_at, firing.run_id)

    async def _start_or_owe(self, row: schedule.Schedule, due: float, run_id: str) -> None:
        try:
            await self._start(row, due, run_id)
        except Clash:
            log.info("whoever claimed it is not dead and has just started it", schedule=row.id, run=run_id)
        except (TooMany, StorageError) as error:
            self.owes = True
            log.warning("a schedule has to wait", schedule=row.id, run=run_id, reason=error.message)
        except FactoryError as error:  # the others are in no trouble
            log.error("a schedule cannot be started", schedule=row.id, run=run_id, error=error.message)

    async def _start(self, row: schedule.Schedule, due: float, run_id: str) -> None:
        found = await self._db.read(row.tenant_id, lambda session: deployment.running(session, row.deployment_id))
        if found is None:
            return
        live, content_hash = found
        plan = await self._plans.by_hash(row.tenant_id, content_hash)
        await self._engine.accept(
            Order.of(
                live, plan, run_id, row.node, {"moment": datetime.fromtimestamp(due, UTC).isoformat(timespec="seconds")}
            )
        )


def spread(row: schedule.Schedule) -> float:
    """How many seconds later than its moment a schedule starts: by chance, and the same on every server and restart."""
    jitter = int(row.spec.get("jitter", 0))
    if not jitter or row.next_due is None:
        return 0.0
    digest = hashlib.sha256(f"{row.id} {row.next_due}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % (jitter + 1)


def next_in_words(spec: Schedule, now: float, count: int) -> tuple[str, ...]:
    """The next moments, as people read them."""
    here = zone(spec.time_zone)
    moments = upcoming(spec, datetime.fromtimestamp(now, UTC), count)
    return tuple(moment_in_words(moment.astimezone(here)) for moment in moments)
