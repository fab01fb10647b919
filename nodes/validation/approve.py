"""Approve: a person decides."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from nodes.base import SKIP, Context, Effect, Example, Family, LongText, Node, Out, Pause, Simulated, Text
from nodes.compiling import Writer, literal, quoted
from nodes.formula import compile_formula
from nodes.shape import ANY, Shape

_AS_TEXT = compile_formula("value | text")


class Decision(Out):
    """The value leaves by one of two ports; what the person said comes along."""

    approved: Any = SKIP
    rejected: Any = SKIP
    note: str = SKIP
    by: str = SKIP


class Approve(Node):
    """Waits until a person approves or rejects.

    The run rests until somebody decides under “Approvals”, also for days. If nobody does in time, it counts as rejected.
    What stands behind an approval may do things that need a person's word.
    """

    # E2: it puts a question before people inside the product, which can be withdrawn; nothing leaves the house.
    family, title, icon, effect = Family.VALIDATION, "Approval", "how_to_reg", Effect.E2
    words = ("human", "approve", "confirm", "ask", "review", "sign off", "person", "wait")
    gate = True
    examples = (
        Example(
            "Somebody says yes",
            {"question": "Refund {{ total }} € to {{ name }}?"},
            {"value": {"name": "Ada", "total": 80}},
            {"approved": {"name": "Ada", "total": 80}, "note": "Fine.", "by": "bo@example.com"},
            answer={"approved": True, "note": "Fine.", "by": "bo@example.com"},
        ),
        Example(
            "Nobody decided in time",
            {"question": "Publish?", "expires_hours": 1},
            {"value": "text"},
            {"rejected": "text", "note": "Nobody decided in time.", "by": ""},
            answer={"approved": False, "expired": True},
        ),
    )

    question: Text = Field(
        default="Please approve",
        min_length=1,
        max_length=1_000,
        title="Question",
        description="What the person reads first, with `{{ … }}` for what arrived.",
        json_schema_extra={"placeholder": "Refund {{ total }} € to {{ name }}?"},
    )
    details: LongText = Field(
        default="", title="Details", description="What the person needs to know. Empty: all that arrived is shown."
    )
    approve_label: str = Field(
        default="Approve", min_length=1, max_length=40, title="Yes button", description="What the button for yes says."
    )
    reject_label: str = Field(
        default="Reject", min_length=1, max_length=40, title="No button", description="What the button for no says."
    )
    expires_hours: float = Field(
        default=72,
        ge=0,
        le=2_160,
        title="Wait at most",
        description="Hours until it counts as rejected; 0 waits for ever.",
    )

    async def run(self, ctx: Context, value: Any) -> Decision | Pause:
        title = _AS_TEXT.evaluate({"value": ctx.render(self.question)})[:500]
        details = ctx.render(self.details) if self.details.strip() else value
        until = ctx.now().timestamp() + self.expires_hours * 3600 if self.expires_hours else None
        return Pause("approval", until, {"title": title, "details": details, "choices": self._choices()})

    async def resume(self, ctx: Context, answer: Any, value: Any = None, **inputs: Any) -> Decision:
        said = answer if isinstance(answer, dict) else {}
        note, by = str(said.get("note") or ""), str(said.get("by") or "")
        if said.get("approved") is True:
            return Decision(approved=value, note=note, by=by)
        if said.get("expired") and not note:
            note = "Nobody decided in time."
        return Decision(rejected=value, note=note, by=by)

    async def simulate(self, ctx: Context, **inputs: Any) -> Simulated:
        value = inputs.get("value")
        return Simulated(
            f"would ask a person: {_AS_TEXT.evaluate({'value': ctx.render(self.question)})[:300]}",
            Decision(approved=value, note="", by="sandbox"),
        )

    def _choices(self) -> list[str]:
        return [self.approve_label, self.reject_label]

    def ways(self) -> tuple[tuple[str, ...], ...]:
        return ("approved",), ("rejected",)

    def as_python(self, w: Writer) -> None:
        w.note(f"“{self.title}” asks whoever sits at the terminal.")
        details = w.text(self.details) if self.details.strip() else w.arrived("value")
        labels = (quoted(self.approve_label), quoted(self.reject_label))
        w.let("said", w.world("people.ask", w.words(self.question), details, *labels))
        w.let("note, by", 'str(said.get("note") or ""), str(said.get("by") or "")')
        with w.when('said.get("approved") is True'):
            w.gives(approved="value", note="note", by="by")
        with w.when('said.get("expired") and not note'):
            w.let("note", literal("Nobody decided in time."))
        w.gives(rejected="value", note="note", by="by")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return dict.fromkeys(("approved", "rejected"), arriving.get("value", ANY))

    def describe(self) -> str:
        return self.question[:200]
