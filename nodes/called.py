"""Calls of one agent by another: what they bring, and what comes back."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import Field, field_validator

from nodes.base import BlueprintRef, Context, Json, Node, NodeError
from nodes.compiling import Code, Writer
from nodes.filling import check_filling, fill
from nodes.formula.values import a_kind
from nodes.listen import CalledField
from nodes.shape import ANY, NOTHING, NUMBER, TEXT, YES_NO, Shape, list_of, one_of, record

KINDS: Final[Mapping[str, str]] = {
    "text": "a text", "number": "a number", "yes/no": "yes or no", "list": "a list", "record": "a record", "any": "a value",
}  # fmt: skip


SHAPES: Final[Mapping[str, Shape]] = {
    "text": TEXT,
    "number": NUMBER,
    "yes/no": YES_NO,
    "list": list_of(),
    "record": record(open=True),
}


def shape_of_fields(fields: Collection[CalledField], *, open: bool = False) -> Shape:
    """The record that has these fields."""
    shapes = {field.name: SHAPES.get(field.kind, ANY) for field in fields}
    needed = {field.name for field in fields if field.required}
    return record(
        {name: shape if name in needed else one_of(shape, NOTHING) for name, shape in shapes.items()}, open=open
    )


def fits_kind(kind: str, value: Any) -> bool:
    """Whether a value is of a kind."""
    match kind:
        case "text":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "yes/no":
            return isinstance(value, bool)
        case "list":
            return isinstance(value, list)
        case "record":
            return isinstance(value, dict)
        case _:
            return True


def wrong_fields(declared: Collection[CalledField], given: Mapping[str, Any]) -> list[str]:
    """What is wrong with what a call brings or gets back, a clause for each field."""
    problems = []
    for field in declared:
        value = given.get(field.name)
        if value is None:
            if field.required:
                problems.append(f"“{field.name}” is missing")
        elif not fits_kind(field.kind, value):
            problems.append(f"“{field.name}” has to be {KINDS[field.kind]}, not {a_kind(value)}")
    return problems


def keep_promise(promised: Collection[CalledField], output: Any) -> Any:
    """What an agent gives back. Raises NodeError when its callers were promised something else."""
    given = output if isinstance(output, dict) else {}
    if problems := wrong_fields(promised, given):
        raise NodeError(
            f"The agent does not give back what it says: {'; '.join(problems[:5])}."[:800],
            category="configuration",
            fix="Put “Respond” at its end with these fields, or correct “Gives back” in “When an agent calls”.",
        )
    return output


class Calling(Node):
    """Base of steps that have another agent work: which one, and what it is given."""

    blueprint: BlueprintRef = Field(min_length=1, title="Agent")
    input: Json = Field(
        default="",
        title="Input",
        description="What it is started with: JSON with `{{ … }}` between quotes. Empty: all that arrives.",
        json_schema_extra={"placeholder": '{"text": "{{ body }}"}'},
    )

    @field_validator("input")
    @classmethod
    def _can_be_filled(cls, text: str) -> str:
        return check_filling(text)

    def asked(self, ctx: Context, value: Any) -> dict[str, Any]:
        """What the pause is told: the agent, and its input."""
        return {"blueprint": self.blueprint, "input": fill(ctx, self.input) if self.input.strip() else value}

    def asked_as_python(self, w: Writer) -> Code:
        """The input as Python."""
        return w.json(self.input) if self.input.strip() else w.arrived("value")


def outcome_of_call(answer: Any, how: str) -> Any:
    """What the other agent ended with. Raises NodeError when it did not succeed."""
    said = answer if isinstance(answer, dict) else {}
    state = said.get("state")
    if state == "succeeded":
        return said.get("output")
    error = said.get("error")
    why = str((error.get("message") if isinstance(error, dict) else "") or "it gave no reason.")[:500]
    raise NodeError(
        f"The {how} agent was cancelled." if state == "cancelled" else f"The {how} agent failed: {why}",
        category="remote",
        fix="Open its run to see what happened there.",
        details={"run": said.get("run")},
    )
