"""What the answer of a model must hold, where people ask for fields instead of a text: the settings, and what follows from them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nodes.base import Row
from nodes.shape import NUMBER, TEXT, YES_NO, Shape, list_of, record

Kind = Literal["text", "number", "yes/no", "choice", "list of texts"]

_SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "yes/no": {"type": "boolean"},
    "choice": {"type": "string"},
    "list of texts": {"type": "array", "items": {"type": "string"}},
}
_SHAPES = {"text": TEXT, "number": NUMBER, "yes/no": YES_NO, "choice": TEXT, "list of texts": list_of(TEXT)}


class AnswerField(Row):
    """One field that the answer must have."""

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=60,
        title="Field",
        description="Its name: letters, digits and underscores.",
        json_schema_extra={"placeholder": "sentiment"},
    )
    kind: Kind = Field(default="text", title="Kind", description="What the model must put there.")
    description: str = Field(
        default="",
        max_length=500,
        title="Meaning",
        description="What the model should put there, in a few words.",
        json_schema_extra={"placeholder": "how the customer feels"},
    )
    choices: list[str] = Field(
        default_factory=list,
        max_length=100,
        title="Choices",
        description="What it may choose from.",
        json_schema_extra={"show_when": {"kind": "choice"}},
    )

    @model_validator(mode="after")
    def _is_right(self) -> "AnswerField":
        if self.kind == "choice" and not self.choices:
            raise ValueError(f"“{self.name}” needs choices")
        return self


AnswerAs = Annotated[
    Literal["text", "fields"], Field(title="Answer as", description="A text, or a record with fields that you name.")
]
AnswerFields = Annotated[
    list[AnswerField],
    Field(max_length=50, title="Fields", json_schema_extra={"show_when": {"answer": "fields"}}),
]


def check_fields(fields: Sequence[AnswerField], answer: str) -> None:
    """Raises ValueError when fields are wanted and there are none, or two of one name."""
    names = [field.name for field in fields]
    if answer == "fields" and not names:
        raise ValueError("name at least one field, or take the answer as text")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the field “{name}” is there twice")


def schema_of(fields: Sequence[AnswerField]) -> dict[str, Any]:
    """The JSON schema of a record with these fields."""
    return {
        "type": "object",
        "properties": {field.name: _schema_of(field) for field in fields},
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }


def shape_of_fields(fields: Sequence[AnswerField]) -> Shape:
    """What formulas know of a record with these fields."""
    return record({field.name: _SHAPES[field.kind] for field in fields})


def _schema_of(field: AnswerField) -> dict[str, Any]:
    schema = dict(_SCHEMAS[field.kind])
    if field.kind == "choice":
        schema["enum"] = list(field.choices)
    if field.description:
        schema["description"] = field.description
    return schema
