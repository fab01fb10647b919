"""What carries a crew's talk and keeps what it shares, in this process; `bus_redis.py` does the same on a Redis server.

Everything is inside one crew: no call here names two. Who may say what, how much and how often is not decided here but in
`exchange.py`, which also stamps the messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from nodes.categories import Category
from nodes.errors import FactoryError

Told: TypeAlias = dict[str, Any]
"""A stamped message: id, kind, crew, sender, role, topic, body, at, and `to` if it is for one member."""
Hear: TypeAlias = Callable[[Told], None]


class BusDown(FactoryError):
    """What carries the crew's talk does not answer."""

    code = "crew.bus"
    status = 503
    category = Category.REMOTE


class CrewBus(Protocol):
    """The seam. Values, tasks and files are plain JSON."""

    address: str
    """Where it is, for people; without passwords."""

    async def start(self) -> None:
        """Find out whether it works. Raises BusDown."""

    async def stop(self) -> None:
        """Let go of it; what crews share stays where it can."""

    async def open(self, crew: str, hear: Hear, *, seconds: float) -> None:
        """From now on `hear` gets everything that is told to this crew, in one order. Raises BusDown."""

    async def leave(self, crew: str) -> None:
        """Stop hearing; what the crew shares stays."""

    async def close(self, crew: str) -> None:
        """Stop hearing, and remove everything that the crew shares."""

    async def tell(self, crew: str, told: Told) -> None:
        """Tell everybody who hears this crew."""

    async def get(self, crew: str, shelf: str, key: str) -> Any | None:
        """A value of a shelf (values or files); None when there is none."""

    async def set(self, crew: str, shelf: str, key: str, value: Any) -> None:
        """Keep a value."""

    async def swap(self, crew: str, shelf: str, key: str, was: Any, value: Any) -> bool:
        """Keep a value if the one there still is `was` (None: there is none)."""

    async def delete(self, crew: str, shelf: str, key: str) -> None:
        """Remove a value."""

    async def keys(self, crew: str, shelf: str) -> list[str]:
        """The names on a shelf, sorted."""

    async def push(self, crew: str, queue: str, task: Told) -> int:
        """Put a task at the end; how many wait then."""

    async def pop(self, crew: str, queue: str, seconds: float) -> Told | None:
        """Take the first task; whoever gets it is the only one. None when none came in time."""


@dataclass(slots=True)
class _Shared:
    hear: Hear
    shelves: dict[str, dict[str, Any]] = field(default_factory=dict)
    queues: dict[str, deque[Told]] = field(default_factory=dict)
    waiting: dict[str, deque[asyncio.Future[Told]]] = field(default_factory=dict)


class MemoryBus:
    """Everything in the memory of this process; it ends with it."""

    address = "memory"

    def __init__(self) -> None:
        self._crews: dict[str, _Shared] = {}

    def __len__(self) -> int:
        """How many crews are open."""
        return len(self._crews)

    async def start(self) -> None:
        """Nothing is needed."""

    async def stop(self) -> None:
        """Forget everything."""
        for crew in list(self._crews):
            await self.close(crew)

    async def open(self, crew: str, hear: Hear, *, seconds: float) -> None:
        """Make place for a crew."""
        self._crews[crew] = _Shared(hear)

    async def leave(self, crew: str) -> None:
        """The same as `close`: there is nowhere to keep it."""
        await self.close(crew)

    async def close(self, crew: str) -> None:
        """Forget a crew; whoever waits for a task gets none."""
        shared = self._crews.pop(crew, None)
        for waiting in shared.waiting.values() if shared else ():
            for waiter in waiting:
                waiter.cancel()

    async def tell(self, crew: str, told: Told) -> None:
        """Tell it at once."""
        self._of(crew).hear(told)

    async def get(self, crew: str, shelf: str, key: str) -> Any | None:
        """The value."""
        return self._of(crew).shelves.get(shelf, {}).get(key)

    async def set(self, crew: str, shelf: str, key: str, value: Any) -> None:
        """Keep it."""
        self._of(crew).shelves.setdefault(shelf, {})[key] = value

    async def swap(self, crew: str, shelf: str, key: str, was: Any, value: Any) -> bool:
        """Nothing can come between the look and the change: neither waits."""
        values = self._of(crew).shelves.setdefault(shelf, {})
        if values.get(key) != was:
            return False
        values[key] = value
        return True

    async def delete(self, crew: str, shelf: str, key: str) -> None:
        """Remove it."""
        self._of(crew).shelves.get(shelf, {}).pop(key, None)

    async def keys(self, crew: str, shelf: str) -> list[str]:
        """The names."""
        return sorted(self._of(crew).shelves.get(shelf, {}))

    async def push(self, crew: str, queue: str, task: Told) -> int:
        """Hand it to who waits longest, or keep it."""
        shared = self._of(crew)
        waiting = shared.waiting.get(queue)
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(task)
                return 0
        tasks = shared.queues.setdefault(queue, deque())
        tasks.append(task)
        return len(tasks)

    async def pop(self, crew: str, queue: str, seconds: float) -> Told | None:
        """Take one, or wait for one."""
        shared = self._of(crew)
        tasks = shared.queues.get(queue)
        if tasks:
            return tasks.popleft()
        if seconds <= 0:
            return None
        waiter: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        waiting = shared.waiting.setdefault(queue, deque())
        waiting.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it came in this very moment, and nobody is there to take it
                shared.queues.setdefault(queue, deque()).appendleft(waiter.result())
            raise
        finally:
            if waiter in waiting:
                waiting.remove(waiter)
        if waiter.cancelled():
            raise _ended()
        return waiter.result() if waiter.done() else None

    def _of(self, crew: str) -> _Shared:
        shared = self._crews.get(crew)
        if shared is None:
            raise _ended()
        return shared


def _ended() -> FactoryError:
    return BusDown("The crew has ended.", code="crew.ended", status=409)
