"""Decide: yes or no."""

from typing import Any

from pydantic import Field

from nodes.base import SKIP, Context, Effect, Example, Family, Formula, Node, NodeError, Out


class Branch(Out):
    """The value leaves by one of two ports."""

    yes: Any = SKIP
    no: Any = SKIP


class Decide(Node):
    """Sends the value to yes or no.

    Write a condition over the fields that arrive. What arrived leaves unchanged by the port that was chosen.
    """

    family, title, icon, effect = Family.VALIDATION, "Decide", "call_split", Effect.E0
    words = ("if", "when", "only", "check", "condition", "branch")
    examples = (
        Example("A large order", {"condition": "total > 1000"}, {"value": {"total": 1200}}, {"yes": {"total": 1200}}),
        Example("A small order", {"condition": "total > 1000"}, {"value": {"total": 12}}, {"no": {"total": 12}}),
    )

    condition: Formula = Field(
        title="Condition", description="What must be true to go to “yes”.", examples=["total > 1000"]
    )

    async def run(self, ctx: Context, value: Any) -> Branch:
        answer = ctx.evaluate(self.condition)
        if not isinstance(answer, bool):
            raise NodeError(
                f"The condition gave {answer!r}, and it must give yes or no.",
                fix="Compare with something, as in `total > 1000`.",
            )
        return Branch(yes=value) if answer else Branch(no=value)

    def describe(self) -> str:
        return self.condition
