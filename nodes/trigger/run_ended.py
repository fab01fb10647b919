"""Another agent ended: its end starts this one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nodes.base import BlueprintRef, Context, Effect, Example, Family, Label, Node, Out, PortInfo
from nodes.compiling import Writer
from nodes.listen import RunEnded as Ended
from nodes.shape import TEXT, Shape

State = Literal["succeeded", "failed", "cancelled"]

_STATES: tuple[State, ...] = ("succeeded", "failed", "cancelled")


class End(Out):
    """How the other agent's run ended."""

    output: Annotated[Any, PortInfo(help="What it gave; nothing if it failed.")]
    state: Annotated[str, PortInfo(help="succeeded, failed or cancelled.")]
    problem: Annotated[
        Any, PortInfo(help="What went wrong, as a record with message and fix; nothing if it succeeded.")
    ]
    run: Annotated[str, PortInfo(help="The id of its run.")]


class RunEnded(Node):
    """Starts when a run of another agent has ended.

    Choose the agent, and the ends that count. Nothing is lost when the server stops in between, and an end starts this agent once.
    Agents that start each other in a circle are stopped after a few rounds.
    """

    family, title, icon, effect = Family.TRIGGER, "Another agent ended", "next_plan", Effect.E0
    words = ("after", "follow", "chain", "finished", "done", "failed", "event", "agent", "trigger", "when")
    examples = (
        Example(
            "The other agent succeeded",
            {"blueprint": "bp_orders"},
            {"event": {"run": "run_1", "state": "succeeded", "output": {"total": 12}, "error": None}},
            {"run": "run_1", "state": "succeeded", "output": {"total": 12}, "problem": None},
        ),
        Example(
            "Only failures",
            {"blueprint": "bp_orders", "states": ["failed"]},
            {"event": {"run": "run_2", "state": "failed", "output": None, "error": {"message": "No answer."}}},
            {"run": "run_2", "state": "failed", "output": None, "problem": {"message": "No answer."}},
        ),
    )

    blueprint: BlueprintRef = Field(min_length=1, title="Agent", description="Whose end starts this one.")
    states: list[State] = Field(
        default=["succeeded"],
        min_length=1,
        max_length=3,
        title="When it has",
        description="Which ends count.",
    )

    @field_validator("states")
    @classmethod
    def _in_order(cls, states: list[State]) -> list[State]:
        return [state for state in _STATES if state in states]

    async def run(self, ctx: Context, event: Any) -> End:
        told = event if isinstance(event, dict) else {"output": event}
        return End(
            output=told.get("output"),
            state=str(told.get("state") or "succeeded"),
            problem=told.get("error"),
            run=str(told.get("run") or ""),
        )

    def as_python(self, w: Writer) -> None:
        w.let("told", 'event if isinstance(event, dict) else {"output": event}')
        w.gives(
            output='told.get("output")',
            state='str(told.get("state") or "succeeded")',
            problem='told.get("error")',
            run='str(told.get("run") or "")',
        )

    def listens(self) -> Ended:
        return Ended(self.blueprint, tuple(self.states))

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED})

    def sample(self) -> dict[str, Any]:
        failed = self.states[0] == "failed"
        return {
            "run": "run_sample",
            "agent": self.blueprint,
            "name": "The other agent",
            "state": self.states[0],
            "output": None if failed else {"total": 1200},
            "error": {"message": "The service did not answer.", "fix": "Try again later."} if failed else None,
            "at": "2026-03-02T09:00:00+00:00",
        }

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"state": TEXT, "run": TEXT}

    def describe(self) -> str:
        return f"When it has {' or '.join(self.states)}"
