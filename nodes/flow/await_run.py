"""Await a run: take what an agent came to that was started before."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from nodes.base import SKIP, Context, Effect, Example, Family, Formula, Node, NodeError, Out, Pause, PortInfo
from nodes.called import outcome_of_call
from nodes.compiling import Writer, led, quoted
from nodes.shape import ANY, Shape

_SECONDS = {"minutes": 60, "hours": 3_600, "days": 86_400}


class Ended(Out):
    """What the other agent ended with, or what arrived here when it did not end in time."""

    value: Annotated[Any, PortInfo(help="What the other agent ended with.")] = SKIP
    too_late: Annotated[Any, PortInfo(help="Fires when it had not ended in time, with what arrived here.")] = SKIP


class AwaitRun(Node):
    """Waits for an agent that “Start an agent” started before, and takes what it ended with.

    If it has ended already, nothing is waited for. If it failed, this step fails too, with its reason. Only the run that
    started it can wait for it. A waiting run costs nothing and survives restarts.
    """

    family, title, icon, effect = Family.FLOW, "Wait for an agent", "hourglass_bottom", Effect.E0
    words = ("await", "subflow", "agent", "result", "join", "background", "finish")
    examples = (
        Example(
            "What the report came to",
            {"run_id": "steps.start_an_agent.run"},
            {"value": {"month": 3}},
            {"value": {"pages": 4}},
            given={"steps": {"start_an_agent": {"run": "run_1"}}},
            answer={"run": "run_1", "state": "succeeded", "output": {"pages": 4}, "error": None},
        ),
        Example(
            "It takes too long",
            {"amount": 10, "unit": "minutes"},
            {"value": "run_1"},
            {"too_late": "run_1"},
            answer={"run": "run_1", "state": "too late"},
        ),
        Example(
            "It failed",
            {},
            {"value": "run_1"},
            {},
            answer={"run": "run_1", "state": "failed", "output": None, "error": {"message": "No model is set up."}},
            error="The started agent failed: No model is set up.",
        ),
    )

    run_id: Formula = Field(
        default="",
        title="Run",
        description="A formula for the run that “Start an agent” gave. Empty: what arrives.",
        json_schema_extra={"placeholder": "steps.start_an_agent.run"},
    )
    amount: float = Field(
        default=1, gt=0, le=10_000, title="At most", description="How many minutes, hours or days to wait."
    )
    unit: Literal["minutes", "hours", "days"] = Field(default="days", title="Unit", description="What is counted.")

    async def run(self, ctx: Context, value: Any = None) -> Ended | Pause:
        wanted = _run_of(ctx.evaluate(self.run_id) if self.run_id.strip() else value)
        return Pause("run", ctx.now().timestamp() + self._seconds(), {"run": wanted})

    async def resume(self, ctx: Context, answer: Any, value: Any = None, **inputs: Any) -> Ended:
        if isinstance(answer, dict) and answer.get("state") == "too late":
            return Ended(too_late=value)
        return Ended(value=outcome_of_call(answer, "started"))

    def as_python(self, w: Writer) -> None:
        wanted = w.use(_run_of, w.formula(self.run_id) if self.run_id.strip() else w.arrived("value"))
        w.let("ended", led("await ", w.calls("end_of", wanted, repr(self._seconds()))))
        with w.when(w.equal('ended["state"]', "too late")):
            w.gives(too_late=w.arrived("value"))
        w.gives(value=w.use(outcome_of_call, "ended", quoted("started")))

    def _seconds(self) -> float:
        return min(366 * 86_400, self.amount * _SECONDS[self.unit])

    def ways(self) -> tuple[tuple[str, ...], ...]:
        return (("value",), ("too_late",))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"too_late": arriving.get("value", ANY)}

    def forecast_seconds(self) -> float:
        return 1.0

    def describe(self) -> str:
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        return f"at most {self.amount:g} {unit}"


def _run_of(wanted: Any) -> str:
    """The run that is meant. Raises NodeError when there is none."""
    found = wanted.get("run") if isinstance(wanted, dict) else wanted
    if not isinstance(found, str) or not found:
        raise NodeError(
            "There is no run to wait for.",
            fix="Name the `run` that “Start an agent” gave, such as `steps.start_an_agent.run`.",
        )
    return found
