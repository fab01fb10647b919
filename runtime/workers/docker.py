"""Workers in hardened Docker containers: no network, nothing to write to but memory, no rights, hard limits.

Everything is asked of a broker (see `broker/`); nothing here knows how one talks to an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nodes.errors import FactoryError
from runtime.workers.backend import Box, NoWorker, Profile
from runtime.workers.broker import verbs
from runtime.workers.broker.client import Broker, InProcess
from runtime.workers.rooms import place_of_rooms

_log = logging.getLogger(__name__)
_CONTAINER: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Left:
    """A worker's container that the engine has, with the profile that it was made from if that can still be read."""

    box: Box
    state: str
    profile: Profile | None
    created: float
    current: bool = True  # whether its image is the one that new workers get


@dataclass(frozen=True, slots=True)
class Happened:
    """What the engine saw happen to a worker: start, die, oom, kill, pause, unpause, destroy. `at` is in epoch seconds."""

    worker: str
    what: str
    code: int | None
    at: float


@dataclass(frozen=True, slots=True)
class Building:
    """A line of the log of an image that is being made, and how far it is: 0 to 1. The last one has its name and its lock."""

    line: str
    progress: float
    image: str = ""
    lock: str = ""


@dataclass(frozen=True, slots=True)
class Used:
    """What a worker takes of its host. `cpu_seconds` counts from its start."""

    cpu_seconds: float
    memory: int
    processes: int


class DockerBackend:
    """Boxes are containers of one engine, labelled with `home`, so that a later start finds and removes them.

    With a `broker` the engine is asked through that; else it is in this process, at `url`. With `keep` what an earlier
    process left is neither removed when this opens nor when it closes: `left()` tells of it.
    """

    name = "docker"
    room_owner: int | None = None

    def __init__(
        self,
        home: str,
        *,
        url: str | None = None,
        image: str | None = None,
        images: Mapping[str, str] | None = None,
        rooms: Path | None = None,
        broker: Broker | None = None,
        keep: bool = False,
    ) -> None:
        self.facts: dict[str, Any] = {}
        """What the engine says of itself: id, version, cpus, memory, machine, runtimes."""
        self._home = home
        self._url = url
        self._images = {**({"base": image} if image else {}), **(images or {})}
        self._rooms = rooms
        self._given = broker
        self._broker: Broker | None = None
        self._keep = keep
        self._have: dict[str, asyncio.Task[None]] = {}
        self.making: set[str] = set()
        """Images that are being made at this moment."""
        self.lacks: set[str] = set()
        """Images that could not be had when they were last wanted."""

    @property
    def rooms(self) -> Path | None:
        """The folder of the rooms, where it is the broker's to make."""
        return Path(self.facts["rooms"]) if self._given is not None and self.facts else self._rooms

    async def open(self) -> None:
        """Reach the engine, have the image, remove leftovers. Raises NoWorker."""
        self._broker = self._given or self._own()
        try:
            self.facts = await self._broker.ask(verbs.Ready())
            await self.have("base")
            if not self._keep:
                await self._sweep()
        except BaseException:
            await self._let_go()
            raise

    async def close(self) -> None:
        """Remove what is still there and let go of the engine."""
        if self._broker is None:
            return
        if not self._keep:
            with contextlib.suppress(FactoryError):
                await self._sweep()
        await self._let_go()

    async def answers(self) -> None:
        """Whether the engine is there at all. Raises NoWorker."""
        await self._ask(verbs.Ready())

    async def prepare(self, room: Path) -> None:
        """Make the room of a box that is to be started. Raises NoWorker."""
        made = await self._ask(verbs.Prepare(worker=room.name))
        if made["room"] != str(room):
            raise NoWorker(f"The room of a worker must be in {Path(made['room']).parent}.")

    async def start(self, box_id: str, room: Path, profile: Profile) -> Box:
        """Create and start a container. Raises NoWorker, and then nothing of it is left, not even its room."""
        making = asyncio.ensure_future(self._make(box_id, profile))
        try:
            return Box(box_id, room, await asyncio.shield(making))
        except BaseException:  # if we are cancelled the broker goes on, and what it makes must not be left behind
            with contextlib.suppress(FactoryError):
                await making
            await self._remove(box_id)
            raise

    async def destroy(self, box: Box) -> None:
        """Kill and remove the container, whatever state it is in."""
        await self._remove(box.id)

    async def rest(self, box: Box) -> None:
        """Kill what runs in the container and keep the container: pausing it would free no memory."""
        await self._ask(verbs.Kill(worker=box.id))

    async def wake(self, box: Box, profile: Profile) -> Box:
        """Start the container again. Raises NoWorker."""
        await self._ask(verbs.Start(worker=box.id))
        return box

    async def pause(self, box: Box) -> None:
        """Freeze a box where it stands. Raises NoWorker."""
        await self._ask(verbs.Pause(worker=box.id))

    async def unpause(self, box: Box) -> None:
        """Let a frozen box go on. Raises NoWorker."""
        await self._ask(verbs.Unpause(worker=box.id))

    async def alive(self, box: Box) -> bool:
        """Whether the container runs, as far as the engine says."""
        return bool((await self._inspect(box)).get("running"))

    async def ran_out_of_memory(self, box: Box) -> bool:
        """Whether the engine says so."""
        return bool((await self._inspect(box)).get("out_of_memory"))

    async def last_words(self, box: Box) -> str:
        """The end of the container's own log."""
        try:
            text: str = (await self._ask(verbs.Logs(worker=box.id)))["text"]
        except FactoryError as error:
            return error.message
        return text[-2_000:]

    async def used(self, box: Box) -> Used:
        """What it takes now. Raises NoWorker."""
        return Used(**await self._ask(verbs.Stats(worker=box.id)))

    async def left(self) -> list[Left]:
        """All containers of this installation that the engine has. Raises NoWorker."""
        found = []
        for seen in (await self._ask(verbs.List()))["workers"]:
            try:
                profile = verbs.Size.model_validate(seen["size"], strict=False).profile()
            except (FactoryError, ValueError):
                profile = None
            room = Path(self.facts["rooms"])
            box = Box(seen["worker"], room / seen["worker"], seen["ref"])
            found.append(Left(box, seen["state"], profile, float(seen["created"]), bool(seen["current"])))
        return found

    async def events(self) -> AsyncGenerator[Happened]:
        """What the engine sees happen, from the moment of the first one on, which is `listening`. Raises NoWorker when it is lost."""
        following = self._engine.follow(verbs.Events())
        async with contextlib.aclosing(following):
            async for seen in following:
                if "done" not in seen:
                    yield Happened(seen.get("worker", ""), seen["what"], seen.get("code"), seen.get("at", 0.0))

    async def build(
        self,
        *,
        like: Literal["base", "data", "node"] = "base",
        packages: Sequence[str] = (),
        lock: str = "",
        dockerfile: str = "",
        preload: Sequence[str] = (),
    ) -> AsyncGenerator[Building]:
        """Make an image of a person's own, telling how it goes; the last one has its name. Raises FactoryError.

        From packages, whose versions are locked first, or from such a lock, or by the steps of a Dockerfile. `preload` are
        modules that every worker of it has loaded beforehand. Who stops to listen stops it.
        """
        try:
            verb = verbs.BuildImage(
                like=like, packages=tuple(packages), lock=lock, dockerfile=dockerfile, preload=tuple(preload)
            )
        except ValueError as error:
            raise verbs.BadVerb("The image cannot be made: a name or a text is too long, or is not one.") from error
        async with contextlib.aclosing(self._engine.follow(verb)) as following:
            async for said in following:
                if "done" in said:
                    yield Building("The image is ready.", 1.0, **said["done"])
                else:
                    yield Building(said["line"], said["progress"])

    async def drop(self, image: str) -> None:
        """Remove an image of a person's own that no worker uses. Raises NoWorker."""
        await self._ask(verbs.DropImage(image=image))

    def owns(self, box: Box, pid: int) -> bool:
        """Whether the process is in the container's control group; yes where it cannot be seen from here."""
        if pid <= 0:
            return True
        try:
            return box.ref in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return not Path("/proc/self/cgroup").exists()

    def _own(self) -> Broker:
        from runtime.workers.broker.engine import Engine

        rooms = place_of_rooms(self._home) if self._rooms is None else self._rooms
        return InProcess(Engine(self._home, rooms, url=self._url, images=self._images))

    @property
    def _engine(self) -> Broker:
        if self._broker is None:
            raise NoWorker("The connection to the Docker engine is closed.")
        return self._broker

    async def _ask(self, verb: verbs.Verb) -> verbs.Answer:
        return await self._engine.ask(verb)

    async def _make(self, box_id: str, profile: Profile) -> str:
        await self.have(profile.image)
        ref: str = (await self._ask(verbs.Create(worker=box_id, size=verbs.Size.of(profile))))["ref"]
        await self._ask(verbs.Start(worker=box_id))
        return ref

    async def _inspect(self, box: Box) -> verbs.Answer:
        try:
            return await self._ask(verbs.Inspect(worker=box.id))
        except FactoryError:
            return {}

    async def _remove(self, box_id: str) -> None:
        try:
            await self._ask(verbs.Remove(worker=box_id))
        except FactoryError as error:
            _log.warning("the worker %s could not be removed now: %s", box_id, error.message)

    async def _sweep(self) -> None:
        left = (await self._ask(verbs.List()))["workers"]
        await asyncio.gather(*(self._ask(verbs.Remove(worker=seen["worker"])) for seen in left))

    async def have(self, image: str) -> None:
        """Have this image, made first if need be, once however many ask. Raises NoWorker."""
        having = self._have.get(image)
        if having is None or (having.done() and (having.cancelled() or having.exception() is not None)):
            having = self._have[image] = asyncio.get_running_loop().create_task(self._get_image(image))
        await asyncio.shield(having)

    async def _get_image(self, image: str) -> None:
        try:
            async for said in self._engine.follow(verbs.HaveImage(image=image)):
                if "line" in said:
                    self.making.add(image)
                    _log.info("%s", said["line"])
        except FactoryError:
            self.lacks.add(image)
            raise
        finally:
            self.making.discard(image)
        self.lacks.discard(image)

    async def _let_go(self) -> None:
        broker, self._broker = self._broker, None
        for having in self._have.values():
            having.cancel()
        self._have.clear()
        if broker is not None:
            await broker.close()
