"""Waiting while the database is away: the pauses grow, and each is said in the log."""

import asyncio
from typing import Any, Final

import structlog

from storage.errors import StorageError

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
