"""Keeps a part of a page true: draws it again soon after something happened, and not more often than eyes can follow."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from nicegui import background_tasks, ui

from app.permissions import current_actor, current_factory
from app.problems import explain
from app.visit import SignedOut


class Follower:
    """Calls `refresh` in its place on the page, once at a time, and again when something happened meanwhile."""

    def __init__(self, refresh: Callable[[], Any], *, pause: float) -> None:
        self._refresh = refresh
        self._pause = pause
        self._place = ui.context.slot.parent
        self._client = ui.context.client
        self._due = False
        self._working = False

    def nudge(self, _message: dict[str, Any] | None = None) -> None:
        """Something happened."""
        self._due = True
        if not self._working and not self._client.is_deleted:
            self._working = True
            background_tasks.create(self._work(), name="refresh a page")

    async def _work(self) -> None:
        try:
            while self._due and not self._client.is_deleted and not self._place.is_deleted:
                self._due = False
                with self._place:
                    await self._once()
                await asyncio.sleep(self._pause)
        finally:
            self._working = False

    async def _once(self) -> None:
        try:
            current_actor()
            result = self._refresh()
            if inspect.isawaitable(result):
                await result
        except SignedOut:
            self._due = False
        except Exception as problem:
            # Nobody pressed anything, so nobody is told; what was not foreseen is in the log.
            with contextlib.suppress(RuntimeError):
                explain(problem, place="live")


def follow(topics: Iterable[tuple[str, ...]], refresh: Callable[[], Any], *, pause: float = 0.7) -> Follower:
    """Call `refresh` after anything that is told under the topics, while the page is open."""
    follower = Follower(refresh, pause=pause)
    tenant, bus, client = current_actor().tenant, current_factory().bus, ui.context.client
    for topic in topics:
        client.on_delete(bus.subscribe(tenant, topic, follower.nudge))
    # What happened after the page was read and before it listened is seen now.
    follower.nudge()
    return follower
