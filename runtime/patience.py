"""Waiting while the database is away: the pauses grow, and each is said in the log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog

from storage.errors import AWAY, StorageError

T = TypeVar("T")
log = structlog.get_logger()

FIRST: Final = 0.2  # seconds
LONGEST: Final = 5.0


class Patience:
    """The pauses of one piece of work that is tried until it can be done."""

    __slots__ = ("_pause",)

    def __init__(self) -> None:
        self._pause = FIRST

    async def rest(self, error: StorageError, said: str, **about: Any) -> None:
        """Wait before the next try."""
        log.warning(said, error=error.message, **about)
        await asyncio.sleep(self._pause)
        self._pause = min(LONGEST, self._pause * 2)


async def patiently(work: Callable[[], Awaitable[T]], said: str, **about: Any) -> T:
    """Do what counts once however often it is done: again and again while the database is away."""
    patience = Patience()
    while True:
        try:
            return await work()
        except StorageError as error:
            if error.code not in AWAY:
                raise
            await patience.rest(error, said, **about)
