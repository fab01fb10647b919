"""Decide: yes or no."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from nodes.base import SKIP, Context, Effect, Example, Family, Formula, Node, NodeError, Out
from nodes.compiling import Writer
from nodes.formula.values import a_kind
from nodes.shape import ANY, Shape


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
        min_length=1,
        title="Condition",
        description="What must be true to go to “yes”.",
        json_schema_extra={"placeholder": "total > 1000"},
    )

    async def run(self, ctx: Context, value: Any) -> Branch:
        answer = ctx.evaluate(self.condition)
        if not isinstance(answer, bool):
            raise NodeError(
                f"The condition gives {a_kind(answer)}, and it must give yes or no.",
                fix="Compare with something, as in `total > 1000`.",
            )
        return Branch(yes=value) if answer else Branch(no=value)

    def ways(self) -> tuple[tuple[str, ...], ...]:
        return ("yes",), ("no",)

    def as_python(self, w: Writer) -> None:
        w.decide(w.formula(self.condition))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return dict.fromkeys(("yes", "no"), arriving.get("value", ANY))

    def describe(self) -> str:
        return self.condition[:200]
