"""What streams of events share: they go on as long as something comes and whoever asked is signed in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from nicegui import background_tasks

T = TypeVar("T")

SIGNED_OUT_SECONDS = 2.0
"""How soon a stream ends after its session did."""


async def while_signed_in(source: AsyncGenerator[T, None], first: T, alive: Callable[[], bool]) -> AsyncIterator[T]:
    """`first`, then what the source gives; ends with it, or soon after `alive` says no. Closes the source."""
    waiting: asyncio.Task[T | None] | None = None
    item: T | None = first
    try:
        while item is not None and alive():
            yield item
            waiting = background_tasks.create(_next(source), name="follow", handle_exceptions=False)
            while not waiting.done() and alive():
                await asyncio.wait({waiting}, timeout=SIGNED_OUT_SECONDS)
            if not waiting.done():
                return
            item = waiting.result()
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        await source.aclose()


async def _next(source: AsyncGenerator[T, None]) -> T | None:
    return await anext(source, None)
