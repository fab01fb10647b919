"""What a compiled run has to do with other agents of its module: calls, agents that were started, and how deep it goes."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from nodes.base import NodeError
from nodes.compiling.kit import explained

DEEPEST = 5
"""How many levels deep agents may call each other."""


class Calls:
    """The other agents that one run calls and starts; `outer` are those of the run that called it."""

    def __init__(self, world: Any, outer: Calls | None = None) -> None:
        self.world = world
        self.depth: int = outer.depth + 1 if outer else 0
        self.going_on: set[asyncio.Task[Any]] = outer.going_on if outer else set()
        self.started: dict[str, asyncio.Task[Any]] = {}

    async def call(self, agent: Callable[..., Awaitable[Any]], given: Any) -> dict[str, Any]:
        """Let another agent work, and say what came of it."""
        self._deeper()
        run = _new_run()
        try:
            output = await agent(given, Calls(self.world, self), self.world)
        except Exception as error:
            told = explained(error, "", agent.__name__)
            return {"run": run, "state": "failed", "output": None, "error": told}
        return {"run": run, "state": "succeeded", "output": output, "error": None}

    def start(self, agent: Callable[..., Awaitable[Any]], given: Any) -> str:
        """Let another agent work on its own; the number of its run."""
        self._deeper()
        run = _new_run()
        self.started[run] = asyncio.create_task(self.call(agent, given), name=agent.__name__)
        self.going_on.add(self.started[run])
        return run

    async def end_of(self, run: str, seconds: float) -> dict[str, Any]:
        """What came of an agent that was started, or that it takes too long."""
        if run not in self.started:
            raise NodeError(
                "This is not a run that this run has started.",
                fix="Give the `run` that “Start an agent” gave, in the same run.",
            )
        task = self.started[run]
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            return {"run": run, "state": "too late"}
        self.going_on.discard(task)
        return {**task.result(), "run": run}

    async def __aenter__(self) -> Calls:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """What was started goes on by itself: the program does not end before it."""
        if isinstance(error, asyncio.CancelledError):
            return
        while self.going_on:
            done, _ = await asyncio.wait(self.going_on, return_when=asyncio.FIRST_COMPLETED)
            self.going_on -= done
            for task in done:
                if (failed := task.result()["error"]) is not None:
                    sys.stderr.write(f"“{task.get_name()}”, which was started, failed: {failed['message']}\n")

    def _deeper(self) -> None:
        if self.depth + 1 > DEEPEST:
            raise NodeError(
                f"Agents call each other {self.depth + 1} levels; the limit is {DEEPEST} levels.",
                category="limit",
                code="limit.call_depth",
                fix="Look for an agent that calls itself, directly or through others.",
            )


def _new_run() -> str:
    return f"run_{uuid.uuid4().hex}"
