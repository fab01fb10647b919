"""Several engines as one backend: each worker is placed on one of them, and an engine may go away and come back.

Every engine is asked each second whether it answers, within a second; one that does not is AWAY: nothing is placed there, starts
wait, its workers go on. What happened meanwhile is found out when it is back: containers that nobody knows are removed, workers
that are gone are told of. One that stays away is LOST, and its workers are replaced elsewhere, if there is an elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from nodes.errors import Conflict, FactoryError, NotFound
from runtime.workers import placement
from runtime.workers.backend import Backend, Box, NoWorker, Profile
from runtime.workers.docker import Happened, Left
from runtime.workers.placement import Space, Thing
from runtime.workers.states import HostState
from runtime.workers.views import Forget, HostView

T = TypeVar("T")
Fate: TypeAlias = Literal["gone", "frozen", "leave"]
Listener: TypeAlias = Callable[[str, Fate, str], None]
"""Hears of a box, what became of it or is to become of it, and why."""
ENDS: Final = {"die": "its container ended", "destroy": "its container was removed"}
_log = logging.getLogger(__name__)


class Engine(Backend, Protocol):
    """A backend that can say what it has and what happens to it."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine says of itself: cpus, memory."""

    async def answers(self) -> None:
        """Whether it is there at all. Raises NoWorker."""

    async def left(self) -> list[Left]:
        """All boxes of this installation that it has. Raises NoWorker."""

    def events(self) -> AsyncGenerator[Happened]:
        """What happens, as long as it lasts. Raises NoWorker."""


class Scaler(Protocol):
    """Gets and gives back machines, where somebody has arranged for that."""

    async def out(self, count: int) -> Mapping[str, Engine]:
        """So many more engines, by name. Raises FactoryError."""

    async def back(self, name: str) -> None:
        """This engine is empty and is not needed any more."""


@dataclass(frozen=True, slots=True)
class HostRules:
    """Times in seconds. A worker reserves a share of what its profile allows it at most: few use that all the time."""

    look: float = 1.0
    answer: float = 1.0
    misses: int = 2  # times that an engine may answer late before it is AWAY; one that refuses is at once
    lost: float = 30.0
    reconcile: float = 30.0
    share_cpus: float = 1 / 32
    share_memory: float = 1 / 4


class Host:
    """One engine, and what is known of it."""

    def __init__(self, name: str, engine: Engine, url: str = "") -> None:
        self.name = name
        self.engine = engine
        self.url = url
        self.answering = False
        self.draining = False
        self.lost = False
        self.since = time.time()
        self.away_at = 0.0
        self.problem: NoWorker | None = None
        self.opened = False
        self.late = 0
        self.down = asyncio.Event()
        self.look_now = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> HostState:
        """How it is."""
        if not self.answering:
            return HostState.LOST if self.lost else HostState.AWAY
        return HostState.DRAINING if self.draining else HostState.UP


@dataclass(frozen=True, slots=True)
class _Placed:
    host: Host
    profile: Profile
    started: bool = False
    resting: bool = False
    woken: float = 0.0
    crew: str | None = None


class Hosts:
    """A backend that is several engines. `scaler` gets more of them, or gives some back."""

    name = "docker"
    room_owner: int | None = None

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        urls: Mapping[str, str] | None = None,
        rules: HostRules | None = None,
        scaler: Scaler | None = None,
        adopt: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules or HostRules()
        self.survivors: list[Left] = []
        """What an earlier life left running, if it is to be adopted; who does not adopt one destroys it."""
        self._hosts = {name: Host(name, engine, (urls or {}).get(name, "")) for name, engine in engines.items()}
        self._scaler = scaler
        self._adopt = adopt
        self._now = now
        self._placed: dict[str, _Placed] = {}
        self._listeners: list[Listener] = []
        self._changed = asyncio.Event()
        self._strays: set[asyncio.Future[Any]] = set()

    @property
    def rooms(self) -> Path | None:
        """The folder of the rooms, which all engines see, when it is not ours to choose."""
        return next((host.engine.rooms for host in self._hosts.values() if host.opened), None)

    # --- coming and going

    async def open(self) -> None:
        """Reach the engines. Raises NoWorker when none answers; those that do not are looked for again and again."""
        errors = await asyncio.gather(*(self._try_open(host) for host in self._hosts.values()))
        problems = [error for error in errors if error is not None]
        if len(problems) == len(errors):
            raise problems[0] if problems else NoWorker("No engine was named.")
        for host in self._hosts.values():
            self._tend(host)

    async def close(self) -> None:
        """Remove everything that is ours, and let go of the engines."""
        tasks = [task for host in self._hosts.values() for task in host.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._placed.clear()
        await asyncio.gather(*(self._sweep(host) for host in self._hosts.values() if host.answering))
        await asyncio.gather(*(host.engine.close() for host in self._hosts.values()), return_exceptions=True)

    def listen(self, listener: Listener) -> Forget:
        """Hear what becomes of boxes. Returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def _try_open(self, host: Host) -> NoWorker | None:
        try:
            await host.engine.open()
        except NoWorker as error:
            host.problem = error
            return error
        host.opened = True
        try:
            left = await host.engine.left()
        except NoWorker as error:
            host.problem = error
            return error
        for one in left:
            if self._adopt and one.state == "running" and one.profile is not None:
                self._placed[one.box.id] = _Placed(host, one.profile, started=True)
                self.survivors.append(replace(one, box=replace(one.box, host=host.name)))
            elif one.box.id not in self._placed:
                await host.engine.destroy(one.box)
        self._is_up(host)
        return None

    async def _sweep(self, host: Host) -> None:
        with contextlib.suppress(FactoryError, TimeoutError):
            for one in await host.engine.left():
                await host.engine.destroy(one.box)

    def take(self, profile: Profile) -> list[Left]:
        """The survivors of this profile, for whom it is to adopt."""
        taken = [one for one in self.survivors if one.profile == profile]
        self.survivors = [one for one in self.survivors if one.profile != profile]
        return taken

    async def drop_survivors(self) -> None:
        """Nobody else adopts one."""
        left, self.survivors = self.survivors, []
        await asyncio.gather(*(self.destroy(one.box) for one in left))

    # --- a backend

    async def prepare(self, room: Path) -> None:
        """Make the room of a box; all engines see the same rooms. Raises NoWorker."""
        host = next((host for host in self._hosts.values() if host.opened), None)
        if host is None:
            raise self._nobody()
        await host.engine.prepare(room)

    async def start(self, box_id: str, room: Path, profile: Profile) -> Box:
        """Place a box and start it; waits while no engine answers. Raises NoWorker."""
        host = await self._place(box_id, profile)
        try:
            box = await self._unless_away(host, host.engine.start(box_id, room, profile))
        except BaseException:
            self._forget(box_id)
            host.look_now.set()
            raise
        self._placed[box_id] = _Placed(host, profile, started=True)
        return replace(box, host=host.name)

    async def destroy(self, box: Box) -> None:
        """End a box. If its engine is away, this is made up for when it is back."""
        placed = self._placed.get(box.id)
        try:
            if placed is not None and placed.host.answering:
                with contextlib.suppress(NoWorker):
                    await self._unless_away(placed.host, placed.host.engine.destroy(box))
        finally:
            self._forget(box.id)

    async def rest(self, box: Box) -> None:
        """Let a box hibernate. Raises NoWorker."""
        placed = self._find(box)
        self._placed[box.id] = replace(placed, resting=True)
        await self._unless_away(placed.host, placed.host.engine.rest(box))

    async def wake(self, box: Box, profile: Profile) -> Box:
        """Wake a box, on its own engine. Raises NoWorker."""
        placed, now = self._find(box), time.time()
        woken = await self._unless_away(placed.host, placed.host.engine.wake(box, profile))
        self._placed[box.id] = replace(placed, resting=False, woken=now)
        return replace(woken, host=placed.host.name)

    async def alive(self, box: Box) -> bool:
        """Whether a box runs; yes while its engine cannot be asked."""
        placed = self._placed.get(box.id)
        if placed is None:
            return False
        with contextlib.suppress(NoWorker):
            return await self._unless_away(placed.host, placed.host.engine.alive(box))
        return True

    async def last_words(self, box: Box) -> str:
        """What a box wrote."""
        try:
            host = self._find(box).host
            return await self._unless_away(host, host.engine.last_words(box))
        except NoWorker as error:
            return error.message

    async def ran_out_of_memory(self, box: Box) -> bool:
        """Whether a box died of that."""
        with contextlib.suppress(NoWorker):
            host = self._find(box).host
            return await self._unless_away(host, host.engine.ran_out_of_memory(box))
        return False

    def owns(self, box: Box, pid: int) -> bool:
        """Whether the process is in the box."""
        placed = self._placed.get(box.id)
        return placed is not None and placed.host.engine.owns(box, pid)

    def _find(self, box: Box) -> _Placed:
        placed = self._placed.get(box.id)
        if placed is None:
            raise NoWorker("The worker is gone.")
        if not placed.host.answering:
            raise self._away(placed.host)
        return placed

    def _forget(self, box_id: str) -> None:
        if self._placed.pop(box_id, None) is not None:
            self._change()

    async def _unless_away(self, host: Host, work: Awaitable[T]) -> T:
        """Wait for an engine's work, but not when it goes away meanwhile: what it still makes is found when it is back."""
        doing = asyncio.ensure_future(work)
        down = asyncio.ensure_future(host.down.wait())
        try:
            await asyncio.wait({doing, down}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            self._strays.add(doing)
            doing.add_done_callback(self._stray)
            raise self._away(host)
        except asyncio.CancelledError:
            doing.cancel()
            await asyncio.wait({doing, down}, return_when=asyncio.FIRST_COMPLETED)
            self._strays.add(doing)
            doing.add_done_callback(self._stray)
            raise
        finally:
            down.cancel()

    def _stray(self, done: asyncio.Future[Any]) -> None:
        self._strays.discard(done)
        if not done.cancelled():
            done.exception()

    # --- placement

    async def _place(self, box_id: str, profile: Profile) -> Host:
        """Reserve a place. Waits while no engine answers; raises NoWorker when those that do have no room."""
        while True:
            up = [host for host in self._hosts.values() if host.state is HostState.UP]
            if up:
                space = placement.choose(self._thing(box_id, profile), [self._space(host) for host in up])
                if space is None:
                    raise NoWorker(
                        f"There is no room for another worker of size “{profile.name}” on {self._names(up)}.",
                        fix="Add an engine in the settings, or lower how many workers there may be.",
                    )
                self._placed[box_id] = _Placed(self._hosts[space.name], profile)
                return self._hosts[space.name]
            await self._changed.wait()

    def _thing(self, box_id: str, profile: Profile, crew: str | None = None) -> Thing:
        memory = int(profile.memory * self.rules.share_memory)
        # Warm workers of one size keep apart too: who loses an engine does not lose all of them.
        return Thing(box_id, profile.cpus * self.rules.share_cpus, memory, crew or f"size {profile.name}")

    def _space(self, host: Host) -> Space:
        things = tuple(
            self._thing(box_id, placed.profile, placed.crew)
            for box_id, placed in self._placed.items()
            if placed.host is host and not placed.resting
        )
        cpus, memory = float(host.engine.facts.get("cpus") or 1), int(host.engine.facts.get("memory") or 2**30)
        return Space(host.name, cpus, memory, things, open=host.state is HostState.UP)

    def belongs(self, box_id: str, crew: str | None) -> None:
        """A box is a crew's from now on, or nobody's: its mates are kept apart from it."""
        if (placed := self._placed.get(box_id)) is not None:
            self._placed[box_id] = replace(placed, crew=crew)

    def mates(self, host: str, crew: str) -> int:
        """How many of a crew are on this host."""
        return sum(placed.crew == crew and placed.host.name == host for placed in self._placed.values())

    # --- what is seen, and done by people

    def view(self) -> tuple[HostView, ...]:
        """How all engines are now."""
        seen = []
        for host in self._hosts.values():
            here = [placed for placed in self._placed.values() if placed.host is host]
            seen.append(
                HostView(
                    name=host.name,
                    url=host.url,
                    state=str(host.state),
                    cpus=float(host.engine.facts.get("cpus") or 0),
                    memory=int(host.engine.facts.get("memory") or 0),
                    reserved_cpus=sum(placed.profile.cpus for placed in here),
                    reserved_memory=sum(placed.profile.memory for placed in here),
                    workers=len(here),
                )
            )
        return tuple(seen)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """Those that answer, by name."""
        return {host.name: host.engine for host in self._hosts.values() if host.answering}

    @property
    def problem(self) -> NoWorker | None:
        """Why nothing can be started now, if nothing can."""
        return None if any(host.state is HostState.UP for host in self._hosts.values()) else self._nobody()

    def drain(self, name: str) -> None:
        """Place nothing there any more, and let its workers leave when their jobs have ended. Raises NotFound, Conflict."""
        host = self._named(name)
        others = [other for other in self._hosts.values() if other is not host and other.state is HostState.UP]
        if not others:
            raise Conflict(
                "No other engine is up, so nothing can be moved away from it.", fix="Add another engine first."
            )
        host.draining = True
        for box_id in self._boxes(host):
            self._tell(box_id, "leave", f"{name} is being emptied")

    def reopen(self, name: str) -> None:
        """Place workers there again. Raises NotFound."""
        self._named(name).draining = False
        self._change()

    def plan_drain(self, name: str) -> list[str]:
        """What draining it would do, in words. Raises NotFound."""
        return placement.plan_drain(self._named(name).name, self._spaces())

    def plan_scale(self, wanted: int) -> list[str]:
        """What having so many engines would do, in words; does nothing."""
        return placement.plan_scale(wanted, self._spaces())

    async def scale(self, wanted: int) -> list[str]:
        """Do what `plan_scale` says. Raises Conflict when nobody has arranged for it."""
        words = self.plan_scale(wanted)
        if self._scaler is None:
            raise Conflict(
                "Nothing here can add or remove machines by itself.",
                fix="Add engines by their addresses in the settings.",
            )
        serving = [space for space in self._spaces() if space.open]
        if wanted > len(serving):
            for name, engine in (await self._scaler.out(wanted - len(serving))).items():
                await self.add(name, engine)
        elif wanted >= 1:
            for space in placement.who_leaves(len(serving) - wanted, serving):
                self.drain(space.name)
                self._keep(self._give_back(space.name))
        return words

    async def add(self, name: str, engine: Engine, url: str = "") -> None:
        """One more engine. Raises NoWorker, Conflict."""
        if name in self._hosts:
            raise Conflict(f"There is an engine named “{name}” already.")
        host = self._hosts[name] = Host(name, engine, url)
        problem = await self._try_open(host)
        if problem is not None:
            del self._hosts[name]
            raise problem
        self._tend(host)

    async def _give_back(self, name: str) -> None:
        assert self._scaler is not None
        host = self._hosts[name]
        while self._boxes(host):
            await self._changed.wait()
        for task in host.tasks:
            task.cancel()
        del self._hosts[name]
        await host.engine.close()
        await self._scaler.back(name)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._strays.add(task)
        task.add_done_callback(self._stray)

    def _spaces(self) -> list[Space]:
        """In what workers may use at most, and not in what placement reserves for them."""
        return [self._space(host) for host in self._hosts.values()]

    def _named(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            raise NotFound(f"There is no engine named “{name}”.", fix="Look at the list of engines.")
        return host

    def _boxes(self, host: Host) -> list[str]:
        return [box_id for box_id, placed in self._placed.items() if placed.host is host]

    # --- watching the engines

    def _tend(self, host: Host) -> None:
        loop = asyncio.get_running_loop()
        host.tasks = [loop.create_task(self._look(host)), loop.create_task(self._follow(host))]

    async def _look(self, host: Host) -> None:
        """Ask it again and again whether it is there."""
        reconciled = self._now()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.rules.look):
                    await host.look_now.wait()
            host.look_now.clear()
            if not host.opened:
                await self._try_open(host)
                continue
            try:
                async with asyncio.timeout(self.rules.answer):
                    await host.engine.answers()
            except TimeoutError:
                host.late += 1
                if host.late >= self.rules.misses:
                    self._is_away(host, NoWorker(f"The engine {host.name} hangs: it does not answer within a second."))
            except NoWorker as error:
                self._is_away(host, error)
            else:
                host.late = 0
                if not host.answering:
                    await self._reconcile(host)
                    self._is_up(host)
                    reconciled = self._now()
                elif self._now() - reconciled > self.rules.reconcile:
                    reconciled = self._now()
                    await self._reconcile(host)
            self._is_lost(host)

    async def _follow(self, host: Host) -> None:
        """Hear what happens there; when the stream ends, the engine has probably gone."""
        while True:
            with contextlib.suppress(NoWorker):
                async for seen in host.engine.events():
                    if seen.what == "listening":
                        await self._reconcile(host)
                    elif seen.what in ENDS:
                        self._tell(seen.worker, "gone", ENDS[seen.what], seen.at)
                    elif seen.what == "pause":
                        self._tell(seen.worker, "frozen", "its container was paused")
            host.look_now.set()
            await asyncio.sleep(self.rules.look / 4)

    async def _reconcile(self, host: Host) -> None:
        """Compare what it has with what it should have."""
        should = {
            box_id
            for box_id, placed in self._placed.items()
            if placed.host is host and placed.started and not placed.resting
        }
        try:
            left = await host.engine.left()
        except NoWorker:
            return
        for one in left:
            if one.box.id not in self._placed:
                _log.info("the engine %s had a worker that nobody knows; it is removed: %s", host.name, one.box.id)
                await host.engine.destroy(one.box)
        states = {one.box.id: one.state for one in left}
        for box_id in should:
            if states.get(box_id) == "paused":
                self._tell(box_id, "frozen", "its container was paused")
            elif states.get(box_id) != "running":
                self._tell(box_id, "gone", "it ended while its engine was away")

    def _is_up(self, host: Host) -> None:
        if not host.answering:
            _log.info("the engine %s answers", host.name)
            host.answering, host.lost, host.since, host.problem = True, False, time.time(), None
            host.down.clear()
            self._change()

    def _is_away(self, host: Host, problem: NoWorker) -> None:
        host.problem = problem
        if host.answering:
            _log.warning("the engine %s is away; what has to be started there waits: %s", host.name, problem.message)
            host.answering, host.since, host.away_at = False, time.time(), self._now()
            host.down.set()
            self._change()

    def _is_lost(self, host: Host) -> None:
        """One that stays away is given up, if its workers can be had elsewhere."""
        if host.answering or host.lost or self._now() - host.away_at < self.rules.lost:
            return
        if any(other.state is HostState.UP for other in self._hosts.values()):
            host.lost = True
            _log.warning("the engine %s is lost; its workers are replaced on others", host.name)
            for box_id in self._boxes(host):
                self._tell(box_id, "gone", f"the engine {host.name} is lost")

    def _tell(self, box_id: str, fate: Fate, why: str, at: float = math.inf) -> None:
        placed = self._placed.get(box_id)
        if placed is None or at < placed.woken or (placed.resting and fate != "leave"):
            return
        for listener in list(self._listeners):
            listener(box_id, fate, why)

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _away(self, host: Host) -> NoWorker:
        said = host.problem.message if host.problem is not None else ""
        return NoWorker(f"The engine {host.name} went away. {said}".strip(), fix="Start it again: docker info.")

    def _nobody(self) -> NoWorker:
        said = next((host.problem.message for host in self._hosts.values() if host.problem is not None), "")
        hosts = list(self._hosts.values())
        return NoWorker(
            f"No engine answers ({self._names(hosts)}). {said}".strip(),
            fix="Start it again; what waits goes on by itself.",
        )

    @staticmethod
    def _names(hosts: list[Host]) -> str:
        return ", ".join(host.name for host in hosts)
