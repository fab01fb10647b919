"""One crew at work in this process: its members with their workers, doors and runs, from the first to the last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, Final

import orjson
import structlog

from nodes.errors import Conflict, FactoryError, NotFound
from nodes.ids import new_id
from runtime.crews.bus import Told
from runtime.crews.door import ADDRESS, Door, Seat
from runtime.crews.exchange import Exchange, Place
from runtime.crews.manifest import CrewManifest, MemberSpec
from runtime.crews.seats import Member, Tools
from runtime.crews.states import CREW, ENDED, CrewState, MemberState
from runtime.crews.way_out import WayOut
from runtime.policy import Actor
from runtime.states import move
from runtime.workers.backend import Job

log = structlog.get_logger()

RESULT_LIMIT: Final = 64 * 1024


class LiveCrew:
    """Assembled whole or not at all; `end` leaves nothing of it but its rows."""

    def __init__(self, id_: str, who: Actor, manifest: CrewManifest, members: Iterable[Member], tools: Tools) -> None:
        self.id = id_
        self.who = who
        self.manifest = manifest
        self.tools = tools
        self.state = CrewState.ASSEMBLING
        self.why = ""
        self.epoch = 1
        self.created_at = time.time()
        self.began = time.monotonic()
        self.members = {member.id: member for member in members}
        self.over = asyncio.Event()
        """Set when nothing of it is left."""
        self.changing = asyncio.Lock()
        self.gate = asyncio.Event()
        self.gate.set()
        self.exchange = Exchange(id_, manifest, tools.bus)
        self.way = WayOut.of(tools.egress, manifest.network.allow, manifest.budgets, self.gate)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._answering: set[str] = set()
        """Runs that answer requests."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._assembling: asyncio.Task[Any] | None = None
        self._ending: asyncio.Task[None] | None = None

    # --- coming together

    async def assemble(self) -> None:
        """All members get their places at the same time, then all begin. Raises FactoryError, and then nothing is left."""
        self._assembling = asyncio.current_task()
        try:
            await self.exchange.open(self.manifest.budgets.seconds)
            await self.tools.bus.set(self.id, "values", "context", dict(self.manifest.context))
            await _all([self._seat(member) for member in self.members.values()])
            await _all([self._start_run(member) for member in self.members.values()])
            self.state = move(CREW, self.state, CrewState.RUNNING)
            for member in self.members.values():
                member.move(MemberState.RUNNING)
            await self.tools.keep(self, "assembled", by=self.who.name)
        except BaseException as error:
            why = error.message if isinstance(error, FactoryError) else "It could not be assembled."
            self._assembling = None
            if self._ending is None:
                await self.end(CrewState.FAILED, why)
            raise
        self._assembling = None
        for member in self.members.values():
            self._begin(member)
        self.spawn(self._time_is_up())

    async def _seat(self, member: Member) -> None:
        """A worker and a door for code; a place among the others for everybody."""
        place = Place(member.id, member.spec.role, member.state)
        if member.spec.code is None:
            place.answers = self._asked if member.lasts else _not_here
            self.exchange.join(place)
            return
        self._must_come()
        if member.held is None:
            member.held = await self.tools.fleet.hold(self.who.tenant, member.spec.tier, crew=self.id, member=member.id)
            self._must_come()
        held, tokens = member.held, self.tools.tokens
        member.bond = tokens.bind(self.who.tenant, self.id, member.id, held.id, member.spec.scopes())
        seat = Seat(member.bond, tokens, self.exchange, self.way, self.gate, held.owns, members=self.told_members)
        member.door = Door(held.room, seat)
        await member.door.open()
        member.token = tokens.issue(member.bond)
        self.exchange.join(place)

    async def _unseat(self, member: Member, *, keep_worker: bool = False) -> None:
        """Take everything back that the member was given, to the end, even if whoever asked for it goes away."""
        task = asyncio.get_running_loop().create_task(self._take_back(member, keep_worker))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)

    async def _take_back(self, member: Member, keep_worker: bool) -> None:
        self.exchange.part(member.id)
        if member.bond is not None:
            self.tools.tokens.release(member.bond)
            member.bond, member.token = None, ""
        if member.door is not None:
            door, member.door = member.door, None
            await door.close()
        if member.held is not None and not keep_worker:
            held, member.held = member.held, None
            await held.release()

    def _begin(self, member: Member) -> None:
        if member.spec.code is not None:
            member.task = self.spawn(self._work(member))
        elif not member.lasts:
            member.task = self.spawn(self._follow(member))

    # --- members that are code

    async def _work(self, member: Member) -> None:
        while True:
            assert member.held is not None
            result = None
            try:
                result = await member.held.run(self._job(member))
            except FactoryError as error:
                how, why = MemberState.FAILED, error.message
            else:
                error_ = result.error
                how = MemberState.DONE if error_ is None else MemberState.FAILED
                why = "" if error_ is None else error_.message
                if error_ is not None and error_.kind == "worker_lost" and member.restarts < member.spec.restarts:
                    if await self._again(member):
                        continue
                    how, why = MemberState.FAILED, "Its worker was lost, and no other could be had."
            await self._member_ended(member, how, why, result.value if result is not None else None)
            return

    async def _again(self, member: Member) -> bool:
        """Its worker was lost: another worker, another lease, from the start."""
        member.move(MemberState.STARTING, "its worker was lost")
        member.restarts += 1
        await self._unseat(member)
        await self.tools.keep(self, "restarted", by="", member=member.id, why=member.why)
        try:
            await self._seat(member)
        except FactoryError as error:
            log.warning("a member could not be restarted", crew=self.id, member=member.id, reason=error.message)
            return False
        member.move(MemberState.RUNNING)
        await self.tools.keep(self, "came back", by="", member=member.id)
        return True

    def _job(self, member: Member) -> Job:
        assert member.spec.code is not None
        seat = {
            "crew": self.id,
            "member": member.id,
            "role": member.spec.role,
            "door": ADDRESS,
            "token": member.token,
            "http": "http" in member.spec.tools,
            "environment": {
                **member.spec.environment,
                "CREW_ID": self.id,
                "CREW_MEMBER": member.id,
                "CREW_ROLE": member.spec.role,
                "CREW_BUS": f"unix:{ADDRESS}",
            },
        }
        return Job(
            id=new_id("job"),
            code=member.spec.code,
            inputs={"context": dict(self.manifest.context), **member.spec.inputs},
            timeout=float(member.spec.seconds),
            seat=seat,
        )

    # --- members that are blueprints

    async def _start_run(self, member: Member) -> None:
        if member.spec.blueprint is not None and not member.lasts and member.run_id is None:
            member.run_id = await self._started(member.spec.blueprint, self._input(member, None))

    async def _started(self, blueprint: str, given: dict[str, Any]) -> str:
        """The id of a new run. Who is given up while it starts leaves no run behind."""
        starting = asyncio.ensure_future(self.tools.runs.start(self.who, blueprint, given))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            undoing = asyncio.get_running_loop().create_task(self._undone(starting))
            self._leaving.add(undoing)
            undoing.add_done_callback(self._leaving.discard)
            raise

    async def _undone(self, starting: asyncio.Future[str]) -> None:
        await asyncio.wait((starting,))
        if not starting.cancelled() and starting.exception() is None:
            await self._cancel(starting.result())

    def _input(self, member: Member, message: Any) -> dict[str, Any]:
        return {
            "crew": self.id,
            "member": member.id,
            "role": member.spec.role,
            "context": dict(self.manifest.context),
            "message": message,
            **member.spec.inputs,
        }

    async def _follow(self, member: Member) -> None:
        assert member.run_id is not None
        how, why, output = await self._outcome(member.run_id)
        await self._member_ended(member, how, why, output)

    async def _outcome(self, run_id: str) -> tuple[MemberState, str, Any]:
        """How a run ends; waits until it does."""
        async for fact in self.tools.runs.watch(self.who, run_id):
            if fact["kind"] == "run.finished":
                error = fact.get("error") or {}
                if fact["state"] == "succeeded":
                    return MemberState.DONE, "", fact.get("output")
                return MemberState.FAILED, str(error.get("message") or f"The run {fact['state']}."), None
        return MemberState.FAILED, "The run could not be followed.", None

    def _asked(self, member: str, told: Told) -> None:
        self.spawn(self._answer(self.members[member], told))

    async def _answer(self, member: Member, told: Told) -> None:
        """A request to an agent is a run of it, and what the run comes to is the answer."""
        await self.gate.wait()
        assert member.spec.blueprint is not None
        try:
            given = self._input(member, told["body"]) | {"from": told["sender"]}
            run_id = await self._started(member.spec.blueprint, given)
            self._answering.add(run_id)
            how, why, output = await self._outcome(run_id)
            self._answering.discard(run_id)
            if how is MemberState.DONE:
                await self.exchange.reply(member.id, told["id"], output)
            else:
                self.exchange.refuse(told, f"“{member.spec.role}” failed: {why}")
        except FactoryError as error:
            self.exchange.refuse(told, f"“{member.spec.role}” could not answer: {error.message}")

    # --- changes while it runs

    async def add(self, members: Iterable[Member], by: str) -> None:
        """More members; all of them or none."""
        new = list(members)
        async with self.changing:
            self._must_live()
            for member in new:
                self.members[member.id] = member
            try:
                await _all([self._seat(member) for member in new])
                await _all([self._start_run(member) for member in new])
                self._must_live()
            except BaseException:
                for member in new:
                    await self._unseat(member)
                    await self._cancel_run(member)
                    self.members.pop(member.id, None)
                raise
            for member in new:
                member.move(MemberState.RUNNING)
            await self.tools.keep(self, "added", by=by, member=", ".join(member.id for member in new))
            for member in new:
                self._begin(member)

    async def rerole(self, member_id: str, spec: MemberSpec, by: str) -> None:
        """Another role, and another work, for a member; its worker goes on if it has the right size."""
        async with self.changing:
            self._must_live()
            member = self.members.get(member_id)
            if member is None:
                raise NotFound("There is no such member in this crew.")
            if member.state in ENDED:
                raise Conflict(f"This member has ended ({member.state}).", fix="Add a new member instead.")
            before = member.spec
            keep = before.code is not None and spec.code is not None and before.tier == spec.tier
            await self._halt(member)
            await self._unseat(member, keep_worker=keep)
            member.move(MemberState.STARTING, f"was {before.role}")
            member.spec, member.run_id = spec, None
            try:
                await self._seat(member)
                await self._start_run(member)
            except FactoryError as error:
                await self._unseat(member)
                member.move(MemberState.FAILED, error.message)
                await self.tools.keep(self, "failed", by=by, member=member.id, why=error.message)
                self._look()
                raise
            member.move(MemberState.RUNNING)
            await self.tools.keep(self, "changed role", by=by, member=member.id, why=f"{before.role} → {spec.role}")
            self._begin(member)

    async def dismiss(self, member_id: str, by: str) -> None:
        """A member leaves."""
        async with self.changing:
            self._must_live()
            member = self.members.get(member_id)
            if member is None:
                raise NotFound("There is no such member in this crew.")
            if member.state in ENDED:
                return
            await self._halt(member)
            await self._unseat(member)
            member.move(MemberState.STOPPED, "was dismissed")
            await self.tools.keep(self, "dismissed", by=by, member=member.id)
            self._look()

    async def pause(self, by: str) -> None:
        """Shut all doors: nothing that members say or call gets through until it goes on, and no run begins."""
        async with self.changing:
            self.state = move(CREW, self.state, CrewState.PAUSED)
            self.gate.clear()
            await self.tools.keep(self, "paused", by=by)

    async def resume(self, by: str) -> None:
        """Open the doors again; what waited goes on."""
        async with self.changing:
            self.state = move(CREW, self.state, CrewState.RUNNING)
            await self.tools.keep(self, "resumed", by=by)
            self.gate.set()

    # --- ends

    async def _member_ended(self, member: Member, how: MemberState, why: str, result: Any) -> None:
        member.task = None
        await self._unseat(member)
        if member.state in ENDED or self._ending is not None:
            return
        member.result = result if len(orjson.dumps(result, default=str)) <= RESULT_LIMIT else None
        member.move(how, why)
        await self.tools.keep(self, str(how), by="", member=member.id, why=why)
        self._look()

    def _look(self) -> None:
        """When all who could end have ended, the crew has."""
        if self.state in (CrewState.ASSEMBLING, CrewState.FINISHED, CrewState.FAILED, CrewState.STOPPED):
            return
        last = self.manifest.ends_with
        able = [member for member in self.members.values() if not member.lasts]
        # When nobody has that role any more, the crew ends with the others.
        ending = [member for member in able if member.spec.role == last] or able
        if any(member.state not in ENDED for member in ending) or (not ending and self.members):
            return
        failed = [member for member in ending if member.state is MemberState.FAILED]
        if failed:
            self.end_soon(CrewState.FAILED, f"“{failed[0].spec.role}” {failed[0].id} failed: {failed[0].why}")
        else:
            self.end_soon(CrewState.FINISHED, "")

    async def _time_is_up(self) -> None:
        await asyncio.sleep(max(0.0, self.manifest.budgets.seconds - (time.monotonic() - self.began)))
        self.end_soon(CrewState.STOPPED, f"Its {self.manifest.budgets.seconds:,} seconds are over.")

    def end_soon(self, how: CrewState, why: str, by: str = "") -> None:
        """End it, without waiting; the first reason stays."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(how, why, by), name=f"end {self.id}")

    async def end(self, how: CrewState, why: str, by: str = "") -> None:
        """End it; returns when nothing of it is left, even if whoever asked goes away."""
        self.end_soon(how, why, by)
        assert self._ending is not None
        await asyncio.shield(self._ending)

    async def _end(self, how: CrewState, why: str, by: str) -> None:
        was_assembling = self.state is CrewState.ASSEMBLING
        try:
            self.tools.tokens.forget_crew(self.id)  # first: from here on no member is heard any more
            self.state, self.why = move(CREW, self.state, how), why
            await self._let_go()
            for member in self.members.values():
                if member.state not in ENDED:
                    member.move(MemberState.STOPPED, why)
                    await self._cancel_run(member)
            for run_id in self._answering:
                await self._cancel(run_id)
            try:
                await self.tools.bus.close(self.id)
            except FactoryError as error:
                log.warning("what a crew shared could not be removed", crew=self.id, reason=error.message)
            await self.tools.keep(self, "not assembled" if was_assembling else str(how), by=by, why=why)
        finally:
            self.over.set()
            self.tools.changed(self)

    async def vanish(self) -> None:
        """This server may not write any more: let go of everything here, and leave the rows to who takes over."""
        self._ending = self._ending or asyncio.get_running_loop().create_task(asyncio.sleep(0))
        self.tools.tokens.forget_crew(self.id)
        await self._let_go()
        try:
            await self.tools.bus.leave(self.id)
        except FactoryError as error:
            log.info("the crew bus was gone already", crew=self.id, reason=error.message)
        self.over.set()

    async def _let_go(self) -> None:
        """End all that is going on here, and take all workers and doors back."""
        going = [*self._tasks, *filter(None, (self._assembling,))]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await asyncio.gather(*(self._unseat(member) for member in self.members.values()), return_exceptions=True)

    # --- small things

    def told_members(self) -> list[dict[str, str]]:
        """What members know of each other."""
        return [
            {"id": member.id, "role": member.spec.role, "state": str(member.state)} for member in self.members.values()
        ]

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Something of this crew's, which ends with it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_logged)
        return task

    async def _halt(self, member: Member) -> None:
        task, member.task = member.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._cancel_run(member)

    async def _cancel_run(self, member: Member) -> None:
        if member.run_id is not None and member.state is not MemberState.DONE:
            await self._cancel(member.run_id)

    async def _cancel(self, run_id: str) -> None:
        try:
            await self.tools.runs.cancel(self.who, run_id)
        except FactoryError as error:
            log.info("a member's run could not be cancelled", run=run_id, reason=error.message)

    def _must_come(self) -> None:
        if self._ending is not None:
            raise Conflict("The crew has ended meanwhile.", code="crew.ended")

    def _must_live(self) -> None:
        if self._ending is not None or self.state not in (CrewState.RUNNING, CrewState.PAUSED):
            raise Conflict(
                f"This crew is {self.state}.", fix="Look at its status, and assemble it anew if you want it."
            )


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Do all of it at the same time; when one fails the others are given up, and the first failure is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def _not_here(member: str, told: Told) -> None:
    """A member that runs once takes no requests."""


def _logged(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("something of a crew broke", exc_info=task.exception())
