"""Called: another agent of the team starts this one, with named and typed fields."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from nodes.answers import NAME
from nodes.base import Context, Effect, Example, Family, Node, NodeError, Out, PortInfo, Row
from nodes.called import KINDS, fits_kind, shape_of_fields, wrong_fields
from nodes.compiling import Writer, listed, literal, quoted, stiff
from nodes.filling import check_json
from nodes.formula.values import a_kind
from nodes.listen import Called as Call
from nodes.listen import CalledField
from nodes.shape import Shape

Kind = Literal["text", "number", "yes/no", "list", "record", "any"]

_SAMPLES: Final[Mapping[str, Any]] = {
    "text": "text", "number": 1, "yes/no": True, "list": [], "record": {}, "any": None,
}  # fmt: skip


class Parameter(Row):
    """One thing that this agent needs when it is called."""

    name: str = Field(pattern=NAME, max_length=64, title="Field", description="Its name, as formulas use it.")
    kind: Kind = Field(default="text", title="Kind", description="What may be given; anything else is refused.")
    required: bool = Field(default=True, title="Required", description="Whether a call without it is refused.")
    sample: str = Field(
        default="",
        max_length=10_000,
        title="Sample",
        description="What a test uses. For lists and records: JSON.",
    )

    @model_validator(mode="after")
    def _sample_fits(self) -> "Parameter":
        if self.sample.strip() and self.kind in ("list", "record"):
            check_json(self.sample)
        if self.sample.strip() and not fits_kind(self.kind, _sample(self)):
            raise ValueError(f"the sample of “{self.name}” is not {KINDS[self.kind]}")
        return self


class Result(Row):
    """One thing that this agent gives back to its caller."""

    name: str = Field(pattern=NAME, max_length=64, title="Field", description="Its name, as the caller uses it.")
    kind: Kind = Field(default="text", title="Kind", description="What it is.")
    required: bool = Field(default=True, title="Always", description="Whether it is always there.")


class Given(Out):
    """What the calling agent gave."""

    value: Annotated[dict[str, Any], PortInfo(help="The fields, by name.")]


class Called(Node):
    """Starts when another agent calls this one, and says what it has to bring.

    List the fields that this agent needs. A call that lacks one, or brings another kind, is refused with a sentence that says so,
    and the calling agent is warned on its canvas already. What this agent answers with “Respond”, or else what its last
    step gives, goes back to the caller; list under “Gives back” what the caller can count on.
    """

    family, title, icon, effect = Family.TRIGGER, "When an agent calls", "call_received", Effect.E0
    words = ("subflow", "called", "function", "parameters", "input", "agent", "reuse", "trigger")
    examples = (
        Example(
            "An amount and a customer",
            {"fields": [{"name": "amount", "kind": "number"}, {"name": "customer", "required": False}]},
            {"event": {"amount": 12}},
            {"value": {"amount": 12, "customer": None}},
        ),
        Example("No fields: anything is taken", {}, {"event": {"a": 1}}, {"value": {"a": 1}}),
        Example(
            "Something is missing",
            {"fields": [{"name": "amount", "kind": "number"}]},
            {"event": {}},
            {},
            error="The call does not fit: “amount” is missing.",
        ),
    )

    fields: list[Parameter] = Field(
        default_factory=list, max_length=50, title="Fields", description="What a calling agent has to give."
    )

    returns: list[Result] = Field(
        default_factory=list,
        max_length=50,
        title="Gives back",
        description="What the caller can count on getting. A run that answers something else fails and says so.",
    )

    @field_validator("fields", "returns")
    @classmethod
    def _names_differ(cls, fields: list[Any]) -> list[Any]:
        names = [field.name for field in fields]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two fields are called “{name}”")
        return fields

    async def run(self, ctx: Context, event: Any) -> Given:
        if not self.fields:
            return Given(event if isinstance(event, dict) else {} if event is None else {"value": event})
        return Given(_brought(event, self._declared()))

    def as_python(self, w: Writer) -> None:
        if not self.fields:
            w.give(stiff('event if isinstance(event, dict) else {} if event is None else {"value": event}', 2))
            return
        fields = (w.use(CalledField, quoted(one.name), quoted(one.kind), literal(one.required)) for one in self.fields)
        w.give(w.use(_brought, "event", listed(fields)))

    def listens(self) -> Call:
        returns = tuple(CalledField(field.name, field.kind, field.required) for field in self.returns)
        return Call(self._declared(), returns)

    def _declared(self) -> tuple[CalledField, ...]:
        return tuple(CalledField(field.name, field.kind, field.required) for field in self.fields)

    def sample(self) -> dict[str, Any]:
        return {field.name: _sample(field) for field in self.fields}

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        if not self.fields:
            return {}
        return {"value": shape_of_fields(self._declared())}

    def describe(self) -> str:
        names = ", ".join(field.name for field in self.fields)
        return f"with {names}"[:200] if names else ""


def _sample(field: Parameter) -> Any:
    text = field.sample.strip()
    if not text:
        return _SAMPLES[field.kind]
    if field.kind == "text":
        return field.sample
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"yes": True, "no": False}.get(text.lower(), field.sample) if field.kind == "yes/no" else field.sample


def _brought(event: Any, declared: Collection[CalledField]) -> dict[str, Any]:
    """What a call brings, field by field. Raises NodeError when it does not fit."""
    if not isinstance(event, dict):
        wanted = ", ".join(field.name for field in declared)
        raise NodeError(
            f"The call brings {a_kind(event)}, and has to bring a record with {wanted}."[:500],
            fix="Give the input of the call as JSON with these fields.",
        )
    problems = wrong_fields(declared, event)
    if problems:
        raise NodeError(
            f"The call does not fit: {'; '.join(problems[:5])}."[:800],
            fix="Correct the input in the agent that calls.",
            details={"problems": problems},
        )
    return {field.name: event.get(field.name) for field in declared}
