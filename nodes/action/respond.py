"""Respond: answer the caller that waits for this run."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nodes.base import Context, Effect, Example, Family, Json, LongText, Node, NodeError, Out, PortInfo, Row, Text
from nodes.compiling import Code, Writer, atom
from nodes.filling import check_filling, fill
from nodes.shape import ANY, Shape
from nodes.texts import filled

_WITHOUT_BODY = frozenset({204, 205, 304})


class ResponseHeader(Row):
    """One header of the answer."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=100,
        title="Header",
        description="Its name, such as `X-Order`.",
    )
    value: Text = Field(default="", title="Value", description="A text, with `{{ … }}` for what arrived.")


class Passed(Out):
    """What arrived, for the steps behind."""

    value: Annotated[Any, PortInfo(help="What arrived, unchanged.")]


class Respond(Node):
    """Answers whoever called this agent, once.

    The caller of a webhook gets it when the webhook answers “at the end”; a form and a chat show it. The run goes on behind
    this step. A second answer in the same run is not heard.
    """

    family, title, icon, effect = Family.ACTION, "Respond", "reply", Effect.E0
    words = ("answer", "return", "reply", "response", "webhook", "result", "status")
    examples = (
        Example(
            "Answer with what arrived",
            {},
            {"value": {"total": 12}},
            {"value": {"total": 12}},
        ),
        Example(
            "JSON of its own, with a status",
            {"status": 201, "body": "json", "json_body": '{"id": "{{ id }}", "message": "Thank you, {{ name }}"}'},
            {"value": {"id": 7, "name": "Ada"}},
            {"value": {"id": 7, "name": "Ada"}},
        ),
        Example(
            "A text",
            {"body": "text", "text": "Hello {{ name }}", "headers": [{"name": "X-Greeting", "value": "yes"}]},
            {"value": {"name": "Ada"}},
            {"value": {"name": "Ada"}},
        ),
    )

    status: int = Field(
        default=200,
        ge=200,
        le=599,
        title="Status",
        description="200 is all well, 201 something was made, 400 the call was wrong, 404 not found.",
    )
    body: Literal["value", "json", "text", "nothing"] = Field(
        default="value", title="Answer with", description="All that arrived, JSON or a text of your own, or nothing."
    )
    json_body: Json = Field(
        default="{}",
        title="JSON",
        description='With formulas between quotes: `"total": "{{ total }}"`; a number stays a number.',
        json_schema_extra={"show_when": {"body": "json"}},
    )
    text: LongText = Field(
        default="",
        title="Text",
        description="The answer, with `{{ … }}` where something is filled in.",
        json_schema_extra={"show_when": {"body": "text"}},
    )
    content_type: str = Field(
        default="",
        max_length=200,
        pattern=r"^[A-Za-z0-9!#$&^_.+/;= \"-]*$",
        title="Content type",
        description="Empty: `application/json` for data, `text/plain` for a text.",
        json_schema_extra={"placeholder": "text/csv", "show_when": {"body": ["value", "json", "text"]}},
    )
    headers: list[ResponseHeader] = Field(
        default_factory=list, max_length=50, title="Headers", description="What else goes along."
    )

    @field_validator("json_body")
    @classmethod
    def _can_be_filled(cls, text: str) -> str:
        return check_filling(text)

    async def run(self, ctx: Context, value: Any = None) -> Passed:
        headers: dict[str, str] = {}
        for row in self.headers:
            text = filled(ctx, row.value)
            if not text.isprintable():
                raise NodeError(
                    f"The header “{row.name}” would have a line break or a control sign in it.",
                    fix="A header is one line; use `| trim` or `| replace`.",
                )
            headers[row.name] = text
        if self.content_type.strip():
            headers["content-type"] = self.content_type.strip()
        ctx.respond(status=self.status, body=self._answer(ctx, value), headers=headers)
        return Passed(value)

    def _answer(self, ctx: Context, value: Any) -> Any:
        if self.body == "nothing" or self.status in _WITHOUT_BODY:
            return None
        if self.body == "json":
            return fill(ctx, self.json_body)
        return filled(ctx, self.text) if self.body == "text" else value

    def as_python(self, w: Writer) -> None:
        if self.headers or self.status != 200:
            w.note(f"The result of `run` is the body that “{self.title}” answers, without its status and headers.")
        body: Code = w.arrived("value")
        if self.body == "nothing" or self.status in _WITHOUT_BODY:
            body = atom("None")
        elif self.body == "json":
            body = w.json(self.json_body)
        elif self.body == "text":
            body = w.words(self.text)
        w.answer(body)
        w.give(w.arrived("value"))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"value": arriving.get("value", ANY)}

    def describe(self) -> str:
        what = {"value": "what arrived", "json": "JSON", "text": "a text", "nothing": "nothing"}[self.body]
        return what if self.status == 200 else f"{self.status}, {what}"
