"""Call a blueprint: another agent does a part of the work."""

from typing import Any

from pydantic import Field

from nodes.base import BlueprintRef, Context, Effect, Example, Family, Out, Pause
from nodes.called import Calling, outcome_of_call
from nodes.compiling import Writer, led, quoted


class Called(Out):
    """What the other agent ended with."""

    value: Any


class CallBlueprint(Calling):
    """Lets another agent of yours do a part of the work, and waits for what it ends with.

    The other agent starts as if somebody pressed “Run”, with the input from here, and appears as a run of its own. Useful
    for steps that several agents share, and to keep a large agent readable.
    """

    # E2: it starts a run inside the product; what that run does outside has effects of its own there.
    family, title, icon, effect = Family.FLOW, "Call an agent", "account_tree", Effect.E2
    words = ("subflow", "blueprint", "reuse", "agent", "call", "sub", "function", "delegate")
    keyed = True
    as_tool = True
    examples = (
        Example(
            "Pass on what arrives",
            {"blueprint": "bp_credit_check"},
            {"value": {"customer": "Ada"}},
            {"value": {"rating": "good"}},
            answer={"run": "run_1", "state": "succeeded", "output": {"rating": "good"}, "error": None},
        ),
        Example(
            "With an input of its own",
            {"blueprint": "bp_translate", "input": '{"text": "{{ body }}", "to": "en"}'},
            {"value": {"body": "Hallo"}},
            {"value": "Hello"},
            answer={"run": "run_2", "state": "succeeded", "output": "Hello", "error": None},
        ),
        Example(
            "The other agent fails",
            {"blueprint": "bp_translate"},
            {"value": "Hallo"},
            {},
            answer={"run": "run_3", "state": "failed", "output": None, "error": {"message": "No model is set up."}},
            error="The called agent failed: No model is set up.",
        ),
    )

    blueprint: BlueprintRef = Field(min_length=1, title="Agent", description="The agent to call.")

    async def run(self, ctx: Context, value: Any = None) -> Called | Pause:
        return Pause("call", None, self.asked(ctx, value))

    async def resume(self, ctx: Context, answer: Any, value: Any = None, **inputs: Any) -> Called:
        return Called(outcome_of_call(answer, "called"))

    def as_python(self, w: Writer) -> None:
        answer = led("await ", w.other("call", self.blueprint, self.asked_as_python(w)))
        w.give(w.use(outcome_of_call, answer, quoted("called")))

    def forecast_seconds(self) -> float:
        return 1.0
