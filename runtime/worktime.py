"""How long a run has worked: the time in which it only waits does not count."""

import asyncio
import time
from collections.abc import Callable


class WorkTime:
    """A watch that goes while a run is driven and can ring. It costs nothing until somebody asks."""

    __slots__ = ("_alarm", "_began", "spent")

    def __init__(self) -> None:
        self.spent = 0.0
        """Seconds of work before the watch was last started."""
        self._began: float | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def go(self) -> None:
        """The run is being driven."""
        if self._began is None:
            self._began = time.monotonic()

    def so_far(self) -> float:
        """Seconds of work in all."""
        return self.spent + (0.0 if self._began is None else time.monotonic() - self._began)

    def ring(self, most: float, ring: Callable[[], None]) -> None:
        """Ring when the run has worked for so long, unless it stops before."""
        if self._alarm is None:
            left = max(0.0, most - self.so_far())
            self._alarm = asyncio.get_running_loop().call_later(left, ring)

    def stop(self) -> None:
        """The run waits, or has ended."""
        self.spent, self._began = self.so_far(), None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
