"""What code prints while it runs: the end of it, in memory only, for whoever looks on. What is kept is the step's result."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.events import Bus
from runtime.policy import Actor, Permission

SHOWN = 20_000
"""How many characters of what one step prints are kept while it runs: the last ones."""

Place = tuple[str, str]
"""A step of a run: node and iteration."""


class Printing:
    """The steps that run code at this moment, each with the end of what it has printed so far.

    Whoever follows a run here listens to the topic `("printing", run)` and then asks `of`; on another server of the same
    database what was printed is seen when the step has ended.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tails: dict[tuple[str, str], dict[Place, _Tail]] = {}

    def of(self, who: Actor, run_id: str) -> dict[Place, str]:
        """What the steps of a run that are at work have printed; empty for a run that is not there, or not one's own."""
        who.require(Permission.VIEW)
        return {place: tail.text() for place, tail in self._tails.get((who.tenant, run_id), {}).items() if tail.size}

    @contextmanager
    def heard(self, tenant: str, run_id: str, place: Place) -> Iterator[Callable[[str, str], None]]:
        """Gives what is to hear a job's output; at the end all of it is forgotten."""
        tail, topic = _Tail(), ("printing", run_id)
        self._tails.setdefault((tenant, run_id), {})[place] = tail

        def hear(_stream: str, text: str) -> None:
            tail.add(text)
            tell()

        def tell() -> None:
            if self._bus.watched(tenant, topic):
                self._bus.publish(tenant, topic, {})

        try:
            yield hear
        finally:
            tails = self._tails.get((tenant, run_id), {})
            if tails.get(place) is tail:
                del tails[place]
                if not tails:
                    del self._tails[tenant, run_id]
            tell()


class _Tail:
    """The last characters of a text that grows."""

    def __init__(self) -> None:
        self._parts: deque[str] = deque()
        self.size = 0

    def add(self, text: str) -> None:
        text = text[-SHOWN:]
        self._parts.append(text)
        self.size += len(text)
        while self.size - len(self._parts[0]) >= SHOWN:
            self.size -= len(self._parts.popleft())

    def text(self) -> str:
        return "".join(self._parts)[-SHOWN:]
