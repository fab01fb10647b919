"""Start a blueprint: another agent works on its own, and this one goes on at once."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.base import BlueprintRef, Context, Effect, Example, Family, Out, Pause, PortInfo
from nodes.called import Calling, outcome_of_call
from nodes.compiling import Writer
from nodes.shape import ANY, TEXT, Shape


class Started(Out):
    """What arrived, and the run that began."""

    value: Annotated[Any, PortInfo(help="What arrived, unchanged.")]
    run: Annotated[str, PortInfo(help="The run that began, for “Wait for an agent”.")]


class StartBlueprint(Calling):
    """Starts another agent of yours and goes on at once, without waiting for its end.

    The other agent appears as a run of its own. To use what it comes to, put “Wait for an agent” further on and give it the
    `run` from here. Nobody has to wait: what is started goes on by itself.
    """

    # E2: it starts a run inside the product; what that run does outside has effects of its own there.
    family, title, icon, effect = Family.FLOW, "Start an agent", "rocket_launch", Effect.E2
    keyed = True
    words = ("subflow", "blueprint", "agent", "start", "background", "parallel", "async", "delegate")
    examples = (
        Example(
            "Pass on what arrives",
            {"blueprint": "bp_report"},
            {"value": {"month": 3}},
            {"value": {"month": 3}, "run": "run_1"},
            answer={"run": "run_1"},
        ),
        Example(
            "With an input of its own",
            {"blueprint": "bp_report", "input": '{"month": "{{ month + 1 }}"}'},
            {"value": {"month": 3}},
            {"value": {"month": 3}, "run": "run_2"},
            answer={"run": "run_2"},
        ),
    )

    blueprint: BlueprintRef = Field(min_length=1, title="Agent", description="The agent to start.")

    async def run(self, ctx: Context, value: Any = None) -> Started | Pause:
        return Pause("start", None, self.asked(ctx, value))

    async def resume(self, ctx: Context, answer: Any, value: Any = None, **inputs: Any) -> Started:
        said = answer if isinstance(answer, dict) else {}
        if said.get("state") == "failed":
            outcome_of_call(said, "started")
        return Started(value, str(said.get("run", "")))

    def as_python(self, w: Writer) -> None:
        run = w.let("run", w.other("start", self.blueprint, self.asked_as_python(w)))
        w.gives(value=w.arrived("value"), run=run)

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"value": arriving.get("value", ANY), "run": TEXT}
