"""Text from a template."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, LongText, Node, Out
from nodes.compiling import Writer
from nodes.shape import TEXT, Shape
from nodes.texts import filled, quoted


class Written(Out):
    """The finished text."""

    text: str


class TextTemplate(Node):
    """Writes a text with what arrived filled in.

    Put fields between double braces, as in `Dear {{ name }}`. Formulas work too: `{{ total | format_number }}`.
    """

    family, title, icon, effect = Family.ACTION, "Text template", "article", Effect.E0
    words = ("text", "write", "template", "letter", "message", "compose", "format")
    examples = (
        Example(
            "A greeting",
            {"template": "Dear {{ name }},\nyour order {{ order.number }} is on its way."},
            {"value": {"name": "Ada", "order": {"number": 7}}},
            {"text": "Dear Ada,\nyour order 7 is on its way."},
        ),
        Example(
            "A list in one line",
            {"template": "Bought: {{ items | map('name') | join(', ') }}"},
            {"value": {"items": [{"name": "Tea"}, {"name": "Milk"}]}},
            {"text": "Bought: Tea, Milk"},
        ),
    )

    template: LongText = Field(
        min_length=1,
        title="Text",
        description="The text, with `{{ … }}` where something is filled in.",
        json_schema_extra={"placeholder": "Dear {{ name }}, …"},
    )

    async def run(self, ctx: Context, value: Any = None) -> Written:
        return Written(filled(ctx, self.template))

    def as_python(self, w: Writer) -> None:
        w.give(w.words(self.template))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"text": TEXT}

    def describe(self) -> str:
        return quoted(self.template)
