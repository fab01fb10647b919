"""Send an event: let the runs go on that wait for it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from nodes.base import Context, Effect, Example, Family, Formula, Json, Node, Out, PortInfo
from nodes.compiling import Writer, quoted
from nodes.events import EVENT, event_key, written_key
from nodes.filling import check_filling, fill
from nodes.shape import ANY, NUMBER, Shape


class Sent(Out):
    """What arrived, and how many runs heard the event."""

    value: Annotated[Any, PortInfo(help="What arrived, unchanged.")]
    heard: Annotated[int, PortInfo(help="How many runs waited for it.")]


class SendEvent(Node):
    """Tells waiting runs of your team that something happened; they go on at once.

    Every run hears it that waits for an event of this name and key in “Wait for an event” at this moment. Who begins to wait
    later hears it only if that step “also takes one from before”. It is heard once, also when the server stops in between.
    """

    # E2: runs of the team go on; nothing leaves the product.
    family, title, icon, effect = Family.FLOW, "Send an event", "campaign", Effect.E2
    keyed = True
    words = ("event", "signal", "publish", "notify", "resume", "wake", "tell", "message")
    examples = (
        Example(
            "An order is paid",
            {"event": "order.paid", "key": "order"},
            {"value": {"order": 4711, "amount": 12}},
            {"value": {"order": 4711, "amount": 12}, "heard": 1},
            given={"waiting": {"order.paid 4711": 1}},
        ),
        Example(
            "Nobody waits for it",
            {"event": "stock.counted", "content": '{"count": "{{ count }}"}'},
            {"value": {"count": 3}},
            {"value": {"count": 3}, "heard": 0},
        ),
    )

    event: str = Field(
        max_length=100,
        title="Event",
        description="Its name, as “Wait for an event” has it.",
        json_schema_extra={"placeholder": "order.paid"},
    )
    key: Formula = Field(
        default="",
        title="Key",
        description="Which one, such as `order.id`. Only runs that wait with the same key hear it.",
        json_schema_extra={"placeholder": "order.id"},
    )
    content: Json = Field(
        default="",
        title="Content",
        description="What comes along: JSON with `{{ … }}` between quotes. Empty: all that arrives.",
        json_schema_extra={"placeholder": '{"amount": "{{ amount }}"}'},
    )

    @field_validator("event")
    @classmethod
    def _is_a_name(cls, event: str) -> str:
        if not EVENT.fullmatch(event.strip()):
            raise ValueError("give the event a name of letters, digits, dots and dashes, such as “order.paid”")
        return event.strip()

    @field_validator("content")
    @classmethod
    def _can_be_filled(cls, text: str) -> str:
        return check_filling(text)

    async def run(self, ctx: Context, value: Any = None) -> Sent:
        key = event_key(ctx.evaluate(self.key) if self.key.strip() else None)
        content = fill(ctx, self.content) if self.content.strip() else value
        return Sent(value, await ctx.events.send(self.event, key, content))

    def as_python(self, w: Writer) -> None:
        content = w.json(self.content) if self.content.strip() else w.arrived("value")
        heard = w.world("events.send", quoted(self.event), written_key(w, self.key), content)
        w.gives(value=w.arrived("value"), heard=heard)

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"value": arriving.get("value", ANY), "heard": NUMBER}

    def describe(self) -> str:
        return (f"{self.event} of {self.key}" if self.key.strip() else self.event)[:200]
