"""Ask a model: a language model answers a prompt."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from nodes.answer_fields import AnswerAs, AnswerFields, check_fields, schema_of, shape_of_fields
from nodes.base import (
    SKIP,
    Context,
    Effect,
    Example,
    Family,
    LlmReply,
    LongText,
    ModelName,
    Node,
    NodeError,
    Out,
    Port,
    PortType,
    Temperature,
)
from nodes.compiling import Writer, led, listed, literal, mapping
from nodes.formula.values import a_kind
from nodes.shape import NUMBER, TEXT, YES_NO, Shape, record
from nodes.texts import filled, quoted

_TEXT = Port("text", PortType.TEXT, "text", "The answer as text.")
_DATA = Port("data", PortType.RECORD, "fields", "The answer as a record with the fields asked for.")
_USAGE = Port("usage", PortType.RECORD, "usage", "Model, tokens and cost in US dollars.")
_SPENT = {
    "model": "fake/model",
    "tokens_in": 12,
    "tokens_out": 3,
    "cost": 0.0,
    "finish_reason": "stop",
    "sample": False,
}


class Answer(Out):
    """The model's answer and what it took."""

    text: str = SKIP
    data: dict[str, Any] = SKIP
    usage: dict[str, Any] = SKIP


class AskModel(Node):
    """Asks a language model, and gives its answer as text or as fields.

    With fields the answer is a record that later steps can rely on: each field is there and of its kind. The model itself
    is chosen in Settings → Model; without one, the sandbox gives a sample that says it is one.
    """

    family, title, icon, effect = Family.ACTION, "Ask a model", "psychology", Effect.E1
    words = (
        "ai",
        "llm",
        "gpt",
        "prompt",
        "language model",
        "classify",
        "summarise",
        "extract",
        "answer",
        "write",
        "chat",
    )
    examples = (
        Example(
            "Summarise a message",
            {"prompt": "Summarise in one sentence:\n{{ body }}", "system": "You write for busy people."},
            {"value": {"body": "The parcel came late, but all was fine."}},
            {
                "text": "A late but complete parcel.",
                "usage": _SPENT,
            },
            given={"llm": "A late but complete parcel."},
        ),
        Example(
            "Read fields out of a text",
            {
                "prompt": "Read this order: {{ body }}",
                "answer": "fields",
                "fields": [
                    {"name": "product"},
                    {"name": "count", "kind": "number"},
                    {"name": "urgent", "kind": "yes/no", "description": "whether it must arrive this week"},
                ],
            },
            {"value": {"body": "Two kettles please, by Friday!"}},
            {
                "data": {"product": "kettle", "count": 2, "urgent": True},
                "text": '{"product":"kettle","count":2,"urgent":true}',
                "usage": _SPENT,
            },
            given={"llm": {"product": "kettle", "count": 2, "urgent": True}},
        ),
    )

    prompt: LongText = Field(
        min_length=1,
        title="Prompt",
        description="What the model is asked, with `{{ … }}` where something is filled in.",
        json_schema_extra={"placeholder": "Summarise in one sentence: {{ body }}"},
    )
    system: LongText = Field(
        default="",
        title="Role",
        description="Who the model is and how it should answer. What arrives from outside belongs into the prompt, not here.",
        json_schema_extra={"placeholder": "You are a friendly clerk. Answer briefly."},
    )
    answer: AnswerAs = "text"
    fields: AnswerFields = Field(
        default_factory=list,
        description="What the answer must hold.",
    )
    model: ModelName = ""
    temperature: Temperature = None
    max_tokens: int = Field(
        default=1024,
        ge=1,
        le=8192,
        title="Longest answer",
        description="In tokens; a token is about three quarters of a word.",
    )
    timeout: float = Field(
        default=60, gt=0, le=600, title="Patience", description="How many seconds to wait for the answer."
    )

    @model_validator(mode="after")
    def _is_right(self) -> "AskModel":
        check_fields(self.fields, self.answer)
        return self

    def outputs(self) -> tuple[Port, ...]:
        return (_DATA, _TEXT, _USAGE) if self.answer == "fields" else (_TEXT, _USAGE)

    async def run(self, ctx: Context, value: Any = None) -> Answer:
        messages = [{"role": "user", "content": filled(ctx, self.prompt)}]
        if self.system.strip():
            messages.insert(0, {"role": "system", "content": filled(ctx, self.system)})
        reply = await ctx.llm.ask(
            messages,
            model=self.model.strip(),
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            schema=schema_of(self.fields) if self.answer == "fields" else None,
            timeout=self.timeout,
        )
        if reply.canned:
            ctx.log("No model is set up, so this is a sample answer.")
        elif reply.finish_reason == "length":
            ctx.log(f"The answer was cut off after {self.max_tokens} tokens; “Longest answer” allows more.")
        usage = _usage(reply)
        if self.answer == "text":
            return Answer(text=reply.text, usage=usage)
        return Answer(text=reply.text, data=_fields(reply), usage=usage)

    def as_python(self, w: Writer) -> None:
        parts = [("system", self.system)] if self.system.strip() else []
        parts.append(("user", self.prompt))
        messages = listed(mapping([("role", literal(role)), ("content", w.words(text))]) for role, text in parts)
        settings = [led("max_tokens=", literal(self.max_tokens)), led("timeout=", literal(self.timeout))]
        if self.model.strip():
            settings.insert(0, led("model=", literal(self.model.strip())))
        if self.temperature is not None:
            settings.insert(0, led("temperature=", literal(self.temperature)))
        if self.answer == "fields":
            settings.append(led("schema=", literal(dict(schema_of(self.fields)))))
        w.let("messages", messages)
        w.let("reply", w.world("llm.ask", "messages", *settings))
        usage = w.use(_usage, "reply")
        if self.answer == "text":
            w.gives(text="reply.text", usage=usage)
        else:
            w.gives(text="reply.text", data=w.use(_fields, "reply"), usage=usage)

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        usage = record(
            {
                "model": TEXT,
                "tokens_in": NUMBER,
                "tokens_out": NUMBER,
                "cost": NUMBER,
                "finish_reason": TEXT,
                "sample": YES_NO,
            }
        )
        if self.answer == "text":
            return {"text": TEXT, "usage": usage}
        return {
            "data": shape_of_fields(self.fields),
            "text": TEXT,
            "usage": usage,
        }

    def forecast_seconds(self) -> float:
        return 3.0

    def describe(self) -> str:
        return quoted(self.prompt)


def _usage(reply: LlmReply) -> dict[str, Any]:
    """What the answer took."""
    return {
        "model": reply.model,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "cost": reply.cost,
        "finish_reason": reply.finish_reason,
        "sample": reply.canned,
    }


def _fields(reply: LlmReply) -> dict[str, Any]:
    """The answer's fields. Raises NodeError when it has none."""
    if isinstance(reply.data, dict):
        return reply.data
    raise NodeError(
        f"The model gave {a_kind(reply.data)} instead of fields.",
        category="model",
        retry=True,
        fix="Try again, or choose a stronger model.",
    )
