"""Form: a page of questions that we host."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from nodes.answers import NAME, PublicPath, read_answers
from nodes.base import Context, Effect, Example, Family, Label, Node, NodeError, Out, Row
from nodes.compiling import Writer, call, led, listed, literal
from nodes.ids import new_token
from nodes.listen import Form as Page
from nodes.listen import FormField
from nodes.shape import MOMENT, NOTHING, NUMBER, TEXT, YES_NO, Shape, one_of, record

_SHAPES: Final[Mapping[str, Shape]] = {"number": NUMBER, "yes/no": YES_NO, "date": MOMENT}
_SAMPLES = {
    "text": "Ada Lovelace",
    "long text": "The coffee machine on the second floor is broken.",
    "number": 3,
    "yes/no": True,
    "date": "2026-03-02",
    "e-mail": "ada@example.com",
}


class Question(Row):
    """One question of the form."""

    name: str = Field(pattern=NAME, max_length=64, title="Field", description="Its name, as formulas use it.")
    label: str = Field(
        default="", max_length=200, title="Question", description="What the page asks; else the field's name."
    )
    kind: Literal["text", "long text", "number", "yes/no", "choice", "date", "e-mail"] = Field(
        default="text", title="Kind", description="What can be answered."
    )
    required: bool = Field(default=True, title="Required", description="Whether it must be answered.")
    choices: list[str] = Field(
        default_factory=list,
        max_length=100,
        title="Choices",
        description="What can be chosen, one a line.",
        json_schema_extra={"show_when": {"kind": "choice"}},
    )
    help: str = Field(default="", max_length=500, title="Help", description="A small text below the question.")

    @model_validator(mode="after")
    def _has_choices(self) -> "Question":
        if self.kind == "choice" and not any(choice.strip() for choice in self.choices):
            raise ValueError(f"the question “{self.label or self.name}” needs choices")
        return self


class Filled(Out):
    """What was answered."""

    answers: dict[str, Any]


class Form(Node):
    """Starts when somebody fills in a form on a page that this agent hosts.

    List the questions; the page is made from them. Each run gets the answers as one record, with nothing for a question
    that was left open.
    """

    family, title, icon, effect = Family.TRIGGER, "Form", "dynamic_form", Effect.E0
    words = ("page", "questions", "survey", "fields", "ask people", "submit", "trigger")
    examples = (
        Example(
            "A request for leave",
            {
                "path": "leave",
                "heading": "Leave",
                "fields": [
                    {"name": "who", "label": "Your name"},
                    {"name": "days", "label": "How many days?", "kind": "number"},
                    {"name": "why", "label": "Reason", "kind": "long text", "required": False},
                ],
            },
            {"event": {"answers": {"who": "Ada", "days": "3"}}},
            {"answers": {"who": "Ada", "days": 3, "why": None}},
        ),
        Example(
            "A choice and a tick",
            {
                "path": "lunch",
                "fields": [
                    {"name": "dish", "kind": "choice", "choices": ["soup", "salad"]},
                    {"name": "bread", "kind": "yes/no"},
                ],
            },
            {"event": {"answers": {"dish": "soup"}}},
            {"answers": {"dish": "soup", "bread": False}},
        ),
    )

    heading: str = Field(
        default="Your request", min_length=1, max_length=200, title="Heading", description="The heading of the page."
    )
    intro: str = Field(
        default="",
        max_length=5_000,
        title="Introduction",
        description="A few words below the heading.",
        json_schema_extra={"lines": 3},
    )
    fields: list[Question] = Field(
        default=[Question(name="request", label="What do you need?", kind="long text")],
        min_length=1,
        max_length=50,
        title="Questions",
        description="What the page asks, in this order.",
    )
    thanks: str = Field(
        default="Thank you. Your answers have arrived.",
        max_length=2_000,
        title="Thanks",
        description="What the page says afterwards.",
    )
    path: PublicPath = Field(
        default_factory=new_token,
        title="Address",
        description="The last part of the page's address. A long random one cannot be guessed.",
        json_schema_extra={"format": "path", "prefix": "/forms/"},
    )
    respond: Literal["now", "end"] = Field(
        default="now",
        title="Answer",
        description="“now” thanks at once, “end” waits for the run and shows what it answers.",
    )

    @field_validator("fields")
    @classmethod
    def _names_differ(cls, fields: list[Question]) -> list[Question]:
        names = [field.name for field in fields]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two questions have the field “{name}”")
        return fields

    async def run(self, ctx: Context, event: Any) -> Filled:
        given = event.get("answers", event) if isinstance(event, dict) else {}
        return Filled(answers=_answers(self._questions(), given))

    def as_python(self, w: Writer) -> None:
        w.let("given", 'event.get("answers", event) if isinstance(event, dict) else {}')
        questions = []
        for one in self._questions():
            parts = [literal(one.name), literal(one.label), literal(one.kind), literal(one.required)]
            choices = [led("choices=", call("tuple", listed(map(literal, one.choices))))] if one.choices else []
            questions.append(call(w.library.use(FormField), *parts, *choices))
        w.let("questions", listed(questions))
        w.give(w.use(_answers, "questions", "given"))

    def listens(self) -> Page:
        return Page(self.path, self.heading, self.intro, self._questions(), self.thanks, self.respond)

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED})

    def sample(self) -> dict[str, Any]:
        return {"answers": {field.name: _believable(field) for field in self.fields}}

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"answers": record({field.name: _shape(field) for field in self.fields})}

    def describe(self) -> str:
        return f"{self.heading}: {len(self.fields)} question{'s' if len(self.fields) > 1 else ''}"[:200]

    def _questions(self) -> tuple[FormField, ...]:
        return tuple(
            FormField(field.name, field.label or field.name, field.kind, field.required, _choices(field), field.help)
            for field in self.fields
        )


def _choices(field: Question) -> tuple[str, ...]:
    return tuple(choice.strip() for choice in field.choices if choice.strip()) if field.kind == "choice" else ()


def _shape(field: Question) -> Shape:
    shape = _SHAPES.get(field.kind, TEXT)
    return shape if field.required or field.kind == "yes/no" else one_of(shape, NOTHING)


def _believable(field: Question) -> Any:
    return _choices(field)[0] if field.kind == "choice" else _SAMPLES[field.kind]


def _answers(questions: Sequence[FormField], given: Any) -> dict[str, Any]:
    """The answers as typed values. Raises NodeError with all that is not right."""
    answers, problems = read_answers(questions, given if isinstance(given, dict) else {})
    if problems:
        raise NodeError(
            " ".join(list(problems.values())[:5]), fix="Fill in the form again.", details={"problems": problems}
        )
    return answers
