"""Holding a test run before a step: at breakpoints, or step by step. Runs that are not debugged never come here."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nodes.errors import Conflict, FactoryError
from runtime.outcomes import shown_input
from runtime.plan import Step
from runtime.progress import Frame

if TYPE_CHECKING:
    from runtime.execution import Execution

HOLD_SECONDS = 3600.0
"""How long a step is held; a test that nobody comes back to is ended."""

Command = Literal["step", "continue", "stop"]


@dataclass(frozen=True, slots=True)
class Held:
    """A step that is held before it runs, with what came in. `why` is what held it."""

    node: str
    iteration: str
    input: Any
    why: Literal["breakpoint", "step"]


class Debugger:
    """Decides for one test run which steps are held, and waits for what its owner says."""

    def __init__(self, breakpoints: Collection[str] = (), *, step: bool = False) -> None:
        self.breakpoints = frozenset(breakpoints)
        self.stepping = step
        self.held: Held | None = None
        self._told: Command | None = None
        self._written: dict[str, Any] | None = None
        self._held_step: Step | None = None

    async def lets(self, ex: "Execution", frame: Frame, step: Step) -> bool:
        """Whether a ready step runs now; it may be a long while until this is known."""
        if not self.stepping and step.id not in self.breakpoints:
            return True
        given = shown_input(step, ex.progress.inputs(frame, step))
        why: Literal["breakpoint", "step"] = "breakpoint" if step.id in self.breakpoints else "step"
        self.held, self._held_step = Held(step.id, frame.path, given, why), step
        self._told = self._written = None
        ex.emit("step.held", step.id, frame.path, input=given, why=why)
        started = ex.engine.clock()
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                while self._told is None and not (ex.cancelled or ex.progress.error or frame.gone):
                    await ex.woken()
        except TimeoutError:
            ex.cancel()
        finally:
            self.held = self._held_step = None
        if self._told is None or self._told == "stop":
            if self._told == "stop":
                ex.cancel()
            return False
        self.stepping = self._told == "step"
        if self._written is not None:
            ex.give(frame, step, self._written, started, "gave what you wrote")
            return False
        return True

    def go_on(self, ex: "Execution", command: Command) -> None:
        """Let the held step go, up to the next one or to the next breakpoint; or end the run. Raises Conflict."""
        self._must_hold()
        self._told = command
        ex.wake()

    def leave(self, ex: "Execution") -> None:
        """Nobody looks any more: hold nothing from here on, and end the run if it is held."""
        self.breakpoints, self.stepping = frozenset(), False
        if self.held is not None:
            self.go_on(ex, "stop")

    def write(self, ex: "Execution", node: str, outputs: Mapping[str, Any]) -> None:
        """Say what the held step gives; it will not run when the run goes on. Raises Conflict, FactoryError."""
        step = self._must_hold()
        if node != step.id:
            raise Conflict(
                f"The test is held before “{step.name}”, not before that step.",
                code="debug.other_step",
                fix="Go on until that step is next.",
            )
        strange = sorted(
            outputs.keys() - ex.plan.graph.outputs[node].keys() | ({"item"} if step.body else set()) & outputs.keys()
        )
        if strange:
            known = ", ".join(f"“{port}”" for port in step.out_ports) or "nothing"
            raise FactoryError(
                f"“{step.name}” gives nothing by “{strange[0]}”.",
                code="debug.no_port",
                fix=f"It can give: {known}.",
                where={"node": node},
                status=422,
            )
        self._written = dict(outputs)

    def _must_hold(self) -> Step:
        if self._held_step is None:
            raise Conflict(
                "The test is not held at a step.", code="debug.not_held", fix="Wait until it stops at a breakpoint."
            )
        return self._held_step
