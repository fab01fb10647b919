"""Stop with error: end the run and say why."""

from typing import Any

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Node, NodeError, Out, Text
from nodes.compiling import Writer
from nodes.formula import compile_formula

_AS_TEXT = compile_formula("value | text")


class Nothing(Out):
    """No way leads on from here."""


class StopError(Node):
    """Ends the run as failed, with a message of your own.

    Put it behind a check, to stop with words that people understand. The message appears in the list of runs, and a
    caller that waits gets it as the answer.
    """

    family, title, icon, effect = Family.VALIDATION, "Stop with error", "report", Effect.E0
    words = ("fail", "abort", "throw", "end", "cancel", "raise", "stop")
    examples = (
        Example(
            "An order without a customer",
            {"message": "Order {{ order }} has no customer."},
            {"value": {"order": "A-1"}},
            {},
            error="Order A-1 has no customer.",
        ),
        Example("Words alone", {"message": "Not today."}, {"value": None}, {}, error="Not today."),
    )

    message: Text = Field(
        min_length=1,
        max_length=2_000,
        title="Message",
        description="Why it stops, with `{{ … }}` for what arrived.",
        json_schema_extra={"placeholder": "Order {{ order }} has no customer."},
    )

    async def run(self, ctx: Context, value: Any) -> Nothing:
        text = _AS_TEXT.evaluate({"value": ctx.render(self.message)}).strip()
        raise _stopped(text)

    def as_python(self, w: Writer) -> None:
        w.let("text", f"{w.words(self.message)}.strip()")
        w.line(w.use(_stopped, "text"), "raise ")

    def describe(self) -> str:
        return self.message[:200]


def _stopped(text: str) -> NodeError:
    return NodeError(
        text[:900] or "The run was stopped.", code="step.stopped", fix="Look at the steps before this one."
    )
