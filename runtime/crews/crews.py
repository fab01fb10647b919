"""Crews as people work with them: assemble, look at, change while they run, pause, stop.

A crew lives in the process that assembled it. When that process ends, the crew is ended by the next one with a plain reason, or,
if its manifest says so, assembled anew: its code members begin from the start, its agents' runs simply go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import structlog

from nodes.errors import Conflict, FactoryError, NotFound, TooMany
from nodes.ids import new_id
from runtime.crews.bus import BusDown, CrewBus, MemoryBus
from runtime.crews.bus_redis import RedisBus
from runtime.crews.live import LiveCrew
from runtime.crews.manifest import MOST_MEMBERS, CrewManifest, MemberSpec, read_manifest
from runtime.crews.pictures import live_view, member_row, old_view
from runtime.crews.seats import Member, Tools
from runtime.crews.states import CrewFigures, CrewState, CrewView
from runtime.crews.tokens import Tokens
from runtime.egress import Egress
from runtime.events import Bus, Topic
from runtime.fleet import Fleet
from runtime.leases import Lease
from runtime.policy import Actor, Permission, Role
from runtime.runs import Runs
from storage import crew as rows
from storage.database import Database
from storage.errors import StorageError
from storage.tenancy import TenantSession

log = structlog.get_logger()

MOST_CREWS: Final = 20
"""At work in one team at the same time."""
LOOK: Final = 1.0
"""Seconds between two looks at a crew of another server."""
RESTARTED: Final = "The server was restarted while this crew was at work."
_MUST_BE_KEPT: Final = frozenset({"assembled", "added"})


class Crews:
    """The crews of one installation; every call is made as somebody."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        fleet: Fleet,
        runs: Runs,
        egress: Egress,
        lease: Lease,
        *,
        home: str = "",
        redis_url: str = "",
        tokens: Tokens | None = None,
    ) -> None:
        self._db = db
        self._bus = bus
        self._fleet = fleet
        self._runs = runs
        self._lease = lease
        self.tokens = tokens or Tokens()
        self.talk: CrewBus = RedisBus(redis_url, home) if redis_url else MemoryBus()
        self._tools = Tools(fleet, runs, egress, self.talk, self.tokens, self._keep, self._changed)
        self._live: dict[str, LiveCrew] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Counter[str] = Counter()
        self._messages = 0  # of those that have ended

    async def start(self) -> None:
        """Reach the bus, then end or assemble anew what an earlier life of the server left."""
        try:
            await self.talk.start()
        except BusDown as error:
            log.warning("crews cannot be assembled yet", reason=error.message, fix=error.fix)
        self._lease.on_recover.append(self.recover)
        self._lease.on_lost.append(self._lost)
        self._lease.on_look.append(self._look)
        await self.recover()

    async def stop(self) -> None:
        """Let go of all crews; their rows are dealt with at the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lost()
        await self.talk.stop()

    # --- assembling

    async def assemble(self, who: Actor, manifest: CrewManifest | Mapping[str, Any]) -> CrewView:
        """Assemble a crew: all of it is at work, or nothing of it is left. Raises ManifestError, NotFound, NoWorker, …"""
        crew, work = await self.begin(who, manifest)
        await asyncio.wait((work,))
        await self.outcome(work)
        return self._view(crew)

    async def begin(
        self, who: Actor, manifest: CrewManifest | Mapping[str, Any]
    ) -> tuple[LiveCrew, asyncio.Task[None]]:
        """Check the manifest and begin to assemble; `follow` tells how it goes. Raises what `assemble` raises at once."""
        who.require(Permission.RUN)
        if not isinstance(manifest, CrewManifest):
            manifest = read_manifest(manifest)
        for index, spec in enumerate(manifest.members):
            await self._check(who, spec, index)
        members = _seats(manifest.members, 1)
        crew = LiveCrew(new_id("crew"), who, manifest, members, self._tools)
        row, seats = self._row(crew), [member_row(crew, member) for member in members]

        def write(session: TenantSession) -> None:
            session.hold("crew")
            live = rows.live(session)
            if any(row.name == manifest.id for row in live):
                raise Conflict(
                    f"A crew “{manifest.id}” is at work already.",
                    code="crew.exists",
                    fix="Stop it first, or give this one another id.",
                )
            if len(live) >= MOST_CREWS:
                raise TooMany(
                    f"{MOST_CREWS} crews of your team are at work already.", code="limit.crews", fix="Stop one of them."
                )
            rows.add(session, row, seats)
            self._note(session, crew, "asked for", who.name)

        await self._db.write(who.tenant, write)
        self._live[crew.id] = crew
        self._changed(crew)
        return crew, self._spawn(crew.assemble())

    async def outcome(self, work: asyncio.Task[None]) -> None:
        """Raise what assembling came to, if it came to nothing."""
        if work.cancelled():
            raise Conflict("The crew was stopped while it was being assembled.", code="crew.stopped")
        if (error := work.exception()) is not None:
            raise error

    async def _check(self, who: Actor, spec: MemberSpec, index: int | str) -> None:
        """What only this installation can tell. Raises NotFound, PlanError."""
        where = {"path": ["members", str(index)]}
        if spec.tier not in self._fleet.sizes:
            raise NotFound(
                f"There is no worker of size “{spec.tier}”.",
                fix=f"Choose one of {', '.join(self._fleet.sizes)}.",
                where=where,
            )
        if spec.blueprint is not None:
            try:
                await self._runs.target(who.tenant, spec.blueprint)
            except NotFound as error:
                raise NotFound(
                    f"The agent of “{spec.role}” does not exist.", fix="Choose an agent from the list.", where=where
                ) from error

    # --- looking

    async def status(self, who: Actor, id_: str) -> CrewView:
        """A crew, at work or ended. Raises NotFound."""
        who.require(Permission.VIEW)
        live = self._live.get(id_)
        if live is not None and live.who.tenant == who.tenant:
            return self._view(live)

        def read(session: TenantSession) -> CrewView | None:
            row = rows.get(session, id_)
            return old_view(row, rows.members(session, [id_])) if row is not None else None

        found = await self._db.read(who.tenant, read)
        if found is None:
            raise NotFound("There is no such crew.", fix="Look for it in the list of crews.")
        return found

    async def list(self, who: Actor, *, limit: int = 50, before: str | None = None) -> Sequence[CrewView]:
        """Crews, newest first; `before` is the last id of the page before."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> tuple[Sequence[rows.Crew], Sequence[rows.CrewMember]]:
            found = rows.listed(session, limit=max(1, min(limit, 200)), before=before)
            return found, rows.members(session, [row.id for row in found])

        found, members = await self._db.read(who.tenant, read)
        return [
            self._view(self._live[row.id])
            if row.id in self._live
            else old_view(row, [member for member in members if member.crew_id == row.id])
            for row in found
        ]

    def view(self, who: Actor) -> tuple[CrewView, ...]:
        """The crews at work here, for pages: members, states, and how much they say to each other."""
        who.require(Permission.VIEW)
        return tuple(self._view(crew) for crew in self._live.values() if crew.who.tenant == who.tenant)

    def figures(self, who: Actor) -> CrewFigures:
        """All crews that are at work here, whoever has them: for sums, which name nobody. Raises Denied."""
        who.require(Permission.VIEW)
        live = self._live.values()
        return CrewFigures(
            at_work=Counter(str(crew.state) for crew in live),
            members=Counter(str(member.state) for crew in live for member in crew.members.values()),
            ended=dict(self._ended),
            messages=self._messages + sum(crew.exchange.messages for crew in live),
        )

    async def history(self, who: Actor, id_: str) -> Sequence[dict[str, Any]]:
        """What was done to a crew and by whom, newest first. Raises NotFound."""
        await self.status(who, id_)
        found = await self._db.read(who.tenant, lambda session: rows.events(session, id_))
        return [row.model_dump(include={"at", "by", "what", "member", "why"}) for row in found]

    async def follow(self, who: Actor, id_: str) -> AsyncIterator[CrewView]:
        """The status now, and again after each change; ends with the crew. Raises NotFound."""
        changed = asyncio.Event()
        forget = self._bus.subscribe(who.tenant, topic_of(id_), lambda _: changed.set())
        try:
            while True:
                changed.clear()
                view = await self.status(who, id_)
                yield view
                if view.ended_at is not None:
                    return
                try:
                    # Of a crew that another server has nothing is heard here.
                    async with asyncio.timeout(None if id_ in self._live else LOOK):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            forget()

    # --- changing

    async def stop_crew(self, who: Actor, id_: str) -> CrewView:
        """End a crew and everything in it; one that has ended stays as it is. Raises NotFound."""
        who.require(Permission.RUN)
        if (crew := await self._mine(who, id_, "stop")) is not None:
            await crew.end(CrewState.STOPPED, f"{who.name} stopped it.", who.name)
        return await self.status(who, id_)

    async def pause(self, who: Actor, id_: str) -> CrewView:
        """Let nothing that its members say or call through, and start no run, until it goes on. Raises NotFound, Conflict."""
        who.require(Permission.RUN)
        if (crew := await self._mine(who, id_, "pause")) is not None:
            await crew.pause(who.name)
        return await self.status(who, id_)

    async def resume(self, who: Actor, id_: str) -> CrewView:
        """Let it go on. Raises NotFound, Conflict."""
        who.require(Permission.RUN)
        if (crew := await self._mine(who, id_, "resume")) is not None:
            await crew.resume(who.name)
        return await self.status(who, id_)

    async def add(self, who: Actor, id_: str, spec: MemberSpec) -> CrewView:
        """More members, while it runs; all of them or none. Raises NotFound, Conflict, NoWorker, …"""
        who.require(Permission.RUN)
        crew = await self._here(who, id_)
        await self._fits(who, crew, spec)
        if len(crew.members) + spec.count > MOST_MEMBERS:
            raise TooMany(f"A crew has at most {MOST_MEMBERS} members, and those who left count.", code="limit.crew")
        next_ = 1 + max((int(member[1:]) for member in crew.members), default=0)
        await crew.add(_seats([spec], next_), who.name)
        return self._view(crew)

    async def rerole(self, who: Actor, id_: str, member: str, spec: MemberSpec) -> CrewView:
        """Give a member another role and another work while the crew runs. Raises NotFound, Conflict, NoWorker, …"""
        who.require(Permission.RUN)
        crew = await self._here(who, id_)
        if spec.count != 1:
            raise Conflict(
                "One member has one role.",
                code="crew.count",
                fix="Leave `count` out.",
            )
        await self._fits(who, crew, spec)
        await crew.rerole(member, spec, who.name)
        return self._view(crew)

    async def dismiss(self, who: Actor, id_: str, member: str) -> CrewView:
        """Let a member go. Raises NotFound, Conflict."""
        who.require(Permission.RUN)
        crew = await self._here(who, id_)
        await crew.dismiss(member, who.name)
        return await self.status(who, id_)

    async def _fits(self, who: Actor, crew: LiveCrew, spec: MemberSpec) -> None:
        await self._check(who, spec, "new")
        if "http" in spec.tools and not crew.manifest.network.allow:
            raise Conflict(
                "The crew may call no hosts, so its members cannot have the tool http.",
                code="crew.network",
                fix="Assemble it with network.allow.",
            )

    async def _mine(self, who: Actor, id_: str, wanted: str) -> LiveCrew | None:
        """The crew if it is at work here. If another server has it, that one is asked; it looks every second."""
        crew = self._live.get(id_)
        if crew is not None and crew.who.tenant == who.tenant:
            return crew
        view = await self.status(who, id_)
        if view.ended_at is None:
            await self._db.write(who.tenant, lambda session: rows.change(session, id_, {"wanted": wanted}))
        elif wanted != "stop":
            raise Conflict(f"This crew has {view.state}.", code="crew.ended", fix="Assemble it anew.")
        return None

    async def _here(self, who: Actor, id_: str) -> LiveCrew:
        crew = self._live.get(id_)
        if crew is not None and crew.who.tenant == who.tenant:
            return crew
        view = await self.status(who, id_)
        if view.ended_at is not None:
            raise Conflict(f"This crew has ended: it is {view.state}.", code="crew.ended", fix="Assemble it anew.")
        raise Conflict("Another server works with this crew.", code="crew.elsewhere", fix="Ask that server.")

    # --- lives of the server

    async def recover(self) -> None:
        """Deal with crews whose server is gone."""
        for tenant, id_ in await self._db.read_all(rows.orphans):
            if id_ in self._live or not await self._claim(tenant, id_):
                continue
            try:
                await self._take_over(tenant, id_)
            except FactoryError as error:
                log.warning("a crew could not be taken over", crew=id_, reason=error.message)

    async def _claim(self, tenant: str, id_: str) -> bool:
        return await self._db.write_all(lambda session: rows.claim(session, tenant, id_, self._lease.id))

    async def _take_over(self, tenant: str, id_: str) -> None:
        def read(session: TenantSession) -> tuple[rows.Crew, Sequence[rows.CrewMember]]:
            row = rows.get(session, id_)
            assert row is not None
            return row, rows.members(session, [id_])

        row, members = await self._db.read(tenant, read)
        who = Actor(tenant, row.by, row.by_name, Role.DEVELOPER, "command")
        try:
            manifest = read_manifest(row.manifest)
        except FactoryError as error:
            manifest, row.why = None, error.message
        going = [member for member in members if member.state in ("starting", "running")]
        if manifest is None or manifest.on_restart == "end" or row.state == "assembling":
            await self._end_row(who, row, going)
            return
        seats = [
            Member(one.id, MemberSpec.model_validate(one.spec), restarts=one.restarts, run_id=one.run_id)
            for one in going
        ]
        crew = LiveCrew(id_, who, manifest, seats, self._tools)
        crew.created_at, crew.epoch = row.created_at, row.epoch
        self._live[id_] = crew
        self._spawn(crew.assemble())

    async def _end_row(self, who: Actor, row: rows.Crew, going: Sequence[rows.CrewMember]) -> None:
        now = time.time()

        def write(session: TenantSession) -> None:
            ended = {"state": "stopped", "why": RESTARTED, "changed_at": now, "ended_at": now, "server_id": None}
            if rows.change(session, row.id, ended):
                rows.end_members(session, row.id, RESTARTED, now)
                rows.note(
                    session,
                    rows.CrewEvent(id=new_id("ce"), crew_id=row.id, at=now, by="", what="stopped", why=RESTARTED),
                )

        await self._db.write(who.tenant, write)
        for member in going:
            if member.run_id is not None:
                try:
                    await self._runs.cancel(who, member.run_id)
                except FactoryError as error:
                    log.info("a member's run could not be cancelled", run=member.run_id, reason=error.message)
        await self.talk.close(row.id)

    async def _lost(self) -> None:
        """This life of the server is over: nothing more can be written."""
        live, self._live = list(self._live.values()), {}
        await asyncio.gather(*(crew.vanish() for crew in live), return_exceptions=True)

    async def _look(self) -> None:
        """What other servers ask for."""
        if not self._live:
            return
        for _, id_, wanted in await self._db.read_all(lambda session: rows.wanted(session, self._lease.id)):
            crew = self._live.get(id_)
            if crew is None:
                continue
            await self._db.write(
                crew.who.tenant,
                lambda session, id_=id_: rows.change(session, id_, {"wanted": ""}),  # type: ignore[misc]
            )
            try:
                if wanted == "stop":
                    crew.end_soon(CrewState.STOPPED, "It was stopped from another server.")
                elif wanted == "pause":
                    await crew.pause("another server")
                elif wanted == "resume":
                    await crew.resume("another server")
            except FactoryError as error:
                log.info("a crew cannot do what it was asked for", crew=id_, wanted=wanted, reason=error.message)

    # --- keeping

    async def _keep(self, crew: LiveCrew, what: str, *, by: str, member: str | None = None, why: str = "") -> None:
        """The crew as it is now becomes durable together with what was done to it."""
        now = time.time()
        over = crew.state in (CrewState.FINISHED, CrewState.FAILED, CrewState.STOPPED)

        # All of it as it is now: the writer works in a thread of its own, and the crew goes on meanwhile.
        values: dict[str, Any] = {"state": str(crew.state), "why": crew.why, "changed_at": now}
        if over:
            values |= {"ended_at": now, "server_id": None, "wanted": ""}
        members = [member_row(crew, one) for one in crew.members.values()]

        def write(session: TenantSession) -> None:
            if rows.change(session, crew.id, values):
                rows.put_members(session, members)
                self._note(session, crew, what, by, member, why)

        try:
            await self._db.write(crew.who.tenant, write)
        except StorageError as error:
            if what in _MUST_BE_KEPT:
                raise
            log.warning("what became of a crew could not be kept", crew=crew.id, what=what, reason=error.message)
        self._changed(crew)

    def _note(
        self, session: TenantSession, crew: LiveCrew, what: str, by: str, member: str | None = None, why: str = ""
    ) -> None:
        event = rows.CrewEvent(
            id=new_id("ce"), crew_id=crew.id, at=time.time(), by=by, what=what, member=member, why=why
        )
        rows.note(session, event)

    def _changed(self, crew: LiveCrew) -> None:
        if crew.over.is_set() and self._live.pop(crew.id, None) is not None:
            self._ended[str(crew.state)] += 1
            self._messages += crew.exchange.messages
        for topic in (topic_of(crew.id), ("crews",)):
            self._bus.publish(crew.who.tenant, topic, {"crew": crew.id, "state": str(crew.state)})

    def _row(self, crew: LiveCrew) -> rows.Crew:
        return rows.Crew(
            id=crew.id,
            name=crew.manifest.id,
            state=str(crew.state),
            manifest=crew.manifest.model_dump(mode="json"),
            server_id=self._lease.id,
            by=crew.who.id,
            by_name=crew.who.name,
            created_at=crew.created_at,
            changed_at=crew.created_at,
        )

    def _view(self, crew: LiveCrew) -> CrewView:
        return live_view(crew, self._fleet.view().workers if crew.members else ())

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_heard)
        return task


def topic_of(crew: str) -> Topic:
    """Where changes of a crew are told."""
    return ("crew", crew)


def _seats(specs: Sequence[MemberSpec], first: int) -> list[Member]:
    """One seat for each member that the manifest counts."""
    each = [spec.model_copy(update={"count": 1}) for spec in specs for _ in range(spec.count)]
    return [Member(f"m{number}", spec) for number, spec in enumerate(each, first)]


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a crew could not be assembled", reason=str(error))
