"""Engines without machines: which are up, away and lost, and how more are had and some given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nodes.errors import Conflict, NotFound
from runtime.workers.backend import Box, NoWorker, Profile
from runtime.workers.docker import Happened, Left
from runtime.workers.hosts import HostRules, Hosts

ROOM = Path("/nowhere")
SMALL = Profile()
MIB = 1024 * 1024


class Engine:
    """An engine that only keeps a list. Everything asked of it goes through `_asked`."""

    name = "memory"
    room_owner = None
    rooms = None

    def __init__(self, cpus: int = 2, memory: int = 2_048 * MIB) -> None:
        self.facts: dict[str, Any] = {"cpus": cpus, "memory": memory}
        self.boxes: dict[str, str] = {}
        self.how = "well"
        self.closed = False

    async def _asked(self) -> None:
        if self.how == "hangs":
            await asyncio.Event().wait()
        if self.how == "refuses":
            raise NoWorker("Connection refused.")

    open = answers = _asked

    async def close(self) -> None:
        self.closed = True

    async def prepare(self, room: Path) -> None:
        await self._asked()

    async def start(self, box_id: str, room: Path, profile: Profile) -> Box:
        await self._asked()
        self.boxes[box_id] = "running"
        return Box(box_id, room, box_id)

    async def destroy(self, box: Box) -> None:
        await self._asked()
        self.boxes.pop(box.id, None)

    async def left(self) -> list[Left]:
        await self._asked()
        return [Left(Box(box_id, ROOM, box_id), state, SMALL, 0.0) for box_id, state in self.boxes.items()]

    async def events(self) -> AsyncIterator[Happened]:
        await self._asked()
        yield Happened("", "listening", None, 0.0)
        await asyncio.Event().wait()


class Machines:
    """Whoever arranges for machines."""

    def __init__(self) -> None:
        self.given: dict[str, Engine] = {}
        self.returned: list[str] = []

    async def out(self, count: int) -> dict[str, Engine]:
        new = {f"new{len(self.given) + number}": Engine() for number in range(count)}
        self.given.update(new)
        return new

    async def back(self, name: str) -> None:
        self.returned.append(name)


@asynccontextmanager
async def opened(*engines: Engine, **more: Any) -> AsyncIterator[Hosts]:
    rules = HostRules(look=0.01, answer=0.02, lost=0.1, reconcile=0.05, share_cpus=1.0, share_memory=1.0)
    hosts = Hosts({f"e{number}": engine for number, engine in enumerate(engines)}, rules=rules, **more)
    await hosts.open()
    try:
        yield hosts
    finally:
        for engine in engines:
            engine.how = "well"
        await hosts.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.002)


def state(hosts: Hosts, name: str) -> str:
    return next((host.state for host in hosts.view() if host.name == name), "none")


async def test_what_fits_nowhere_is_said():
    async with opened(Engine(cpus=1), Engine(cpus=1)) as hosts:
        for number in range(4):
            await hosts.start(f"b{number}", ROOM, SMALL)
        assert [(host.workers, host.reserved_cpus) for host in hosts.view()] == [(2, 1.0), (2, 1.0)]
        with pytest.raises(NoWorker) as caught:
            await hosts.start("b4", ROOM, SMALL)
        assert caught.value.message == "There is no room for another worker of size “small” on e0, e1."
        await hosts.destroy(Box("b0", ROOM, "b0"))
        assert (await hosts.start("b4", ROOM, SMALL)).host == "e0"


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_an_engine_that_is_away_gets_nothing_and_is_back_by_itself(how):
    one, two = Engine(), Engine()
    async with opened(one, two) as hosts:
        one.how = how
        await until(lambda: state(hosts, "e0") in ("away", "lost"))
        assert {(await hosts.start(f"b{number}", ROOM, SMALL)).host for number in range(3)} == {"e1"}
        one.how = "well"
        await until(lambda: state(hosts, "e0") == "up")
        assert (await hosts.start("b3", ROOM, SMALL)).host == "e0"


async def test_a_start_that_an_engine_swallows_is_given_up_and_what_it_made_is_removed():
    one = Engine()
    async with opened(one) as hosts:
        one.how = "hangs"
        with pytest.raises(NoWorker):
            await hosts.start("b", ROOM, SMALL)
        one.boxes["b"] = "running"  # made after all
        one.how = "well"
        await until(lambda: state(hosts, "e0") == "up" and not one.boxes)


async def test_workers_of_a_lost_engine_are_told_of_only_if_there_is_another():
    one, two = Engine(), Engine()
    told: list[tuple[str, str]] = []
    async with opened(one, two) as hosts:
        hosts.listen(lambda box_id, fate, why: told.append((box_id, why)))
        where = {(await hosts.start(f"b{number}", ROOM, SMALL)).host: f"b{number}" for number in range(2)}
        two.how = "refuses"
        await until(lambda: state(hosts, "e1") == "lost")
        assert told == [(where["e1"], "the engine e1 is lost")]
        one.how = "refuses"
        await until(lambda: state(hosts, "e0") == "away")
        await asyncio.sleep(0.15)
        assert state(hosts, "e0") == "away", "there is no other any more"
        assert len(told) == 1
        assert hosts.problem is not None


async def test_what_ended_while_an_engine_was_away_is_told_when_it_is_back():
    one = Engine()
    told: list[tuple[str, str, str]] = []
    async with opened(one) as hosts:
        hosts.listen(lambda *what: told.append(what))
        await hosts.start("b", ROOM, SMALL)
        one.how = "refuses"
        await until(lambda: state(hosts, "e0") == "away")
        one.boxes["b"] = "exited"
        one.how = "well"
        await until(lambda: bool(told))
        assert told[0] == ("b", "gone", "it ended while its engine was away")


async def test_more_machines_are_had_and_given_back_when_they_are_empty():
    machines = Machines()
    async with opened(Engine(cpus=4), scaler=machines) as hosts:
        assert hosts.plan_scale(3)[0].startswith("2 engines would be added")
        assert machines.given == {}, "a plan does nothing"
        await hosts.scale(3)
        assert [host.state for host in hosts.view()] == ["up"] * 3
        leaving: list[str] = []
        hosts.listen(lambda box_id, fate, why: leaving.append(box_id) if fate == "leave" else None)
        for number in range(3):
            await hosts.start(f"b{number}", ROOM, SMALL)
        words = await hosts.scale(2)
        [name] = [host.name for host in hosts.view() if host.state == "draining"]
        assert words[0] == f"{name} is given up: it has the least on it."
        assert len(leaving) == 1 and machines.returned == []
        await hosts.destroy(Box(leaving[0], ROOM, leaving[0]))
        await until(lambda: machines.returned == [name])
        assert state(hosts, name) == "none"


async def test_the_last_engine_is_not_emptied():
    async with opened(Engine()) as hosts:
        with pytest.raises(Conflict):
            hosts.drain("e0")
        with pytest.raises(NotFound):
            hosts.drain("other")
        with pytest.raises(Conflict):
            await hosts.scale(2)
        assert hosts.plan_scale(0) == ["At least one engine has to stay: without one no code can run."]


async def test_an_engine_that_was_not_there_at_first_joins_later():
    one, two = Engine(), Engine()
    two.how = "refuses"
    async with opened(one, two) as hosts:
        assert state(hosts, "e1") == "away"
        two.how = "well"
        await until(lambda: state(hosts, "e1") == "up")


async def test_without_any_engine_it_does_not_open():
    one = Engine()
    one.how = "refuses"
    with pytest.raises(NoWorker):
        await Hosts({"e0": one}).open()
