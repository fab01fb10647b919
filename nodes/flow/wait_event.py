"""Wait for an event: until another agent says so, or until the address that this run gave out is called."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from nodes.base import (
    SKIP,
    Context,
    Effect,
    Example,
    Family,
    Formula,
    Json,
    Label,
    Node,
    NodeError,
    Out,
    Pause,
    PortInfo,
)
from nodes.compiling import Code, Writer, quoted
from nodes.events import EVENT, event_key, written_key
from nodes.filling import check_json
from nodes.shape import ANY, TEXT, Shape, record, shape_of

_SECONDS = {"minutes": 60, "hours": 3_600, "days": 86_400}
_YEAR = 366 * 86_400


class Came(Out):
    """What came, or what arrived here when nothing came in time."""

    arrived: Annotated[
        Any,
        PortInfo(help="Fires when it happened, with what came along; of a call its body, query, headers and method."),
    ] = SKIP
    too_late: Annotated[Any, PortInfo(help="Fires when it did not happen in time, with what arrived here.")] = SKIP


class WaitEvent(Node):
    """Waits until something happens: an event that another agent sends, or a call of an address.

    An event has a name and, where many runs wait for one of that name, a key: “order.paid” of order 4711. Another agent sends it
    with “Send an event”. An address is made with “Make a reply address”: send it to somebody, then wait here until it is called.
    A waiting run costs nothing and survives restarts. What does not happen in time goes out by “too late”.
    """

    family, title, icon, effect = Family.FLOW, "Wait for an event", "notifications_paused", Effect.E2
    keyed = True
    words = ("webhook", "callback", "event", "resume", "signal", "until", "reply", "confirm", "payment")
    examples = (
        Example(
            "Until the order is paid",
            {"event": "order.paid", "key": "order.id"},
            {"value": {"order": {"id": 4711}}},
            {"arrived": {"amount": 12}},
            answer={"arrived": True, "value": {"amount": 12}},
        ),
        Example(
            "Until the customer has clicked, at most three days",
            {"mode": "call", "address": "address", "amount": 3, "sample_json": '{"paid": true}'},
            {"value": {"address": "/hooks/resume/abc"}},
            {"too_late": {"address": "/hooks/resume/abc"}},
            answer={"arrived": False},
        ),
    )

    mode: Literal["event", "call"] = Field(
        default="event",
        title="Wait for",
        description="An event that another agent sends, or a call of an address that was given out before.",
    )
    event: str = Field(
        default="",
        max_length=100,
        title="Event",
        description="Its name, as “Send an event” gives it.",
        json_schema_extra={"placeholder": "order.paid", "show_when": {"mode": "event"}},
    )
    key: Formula = Field(
        default="",
        title="Key",
        description="Which one of these events, such as `order.id`. Empty: the event that is sent without a key.",
        json_schema_extra={"placeholder": "order.id", "show_when": {"mode": "event"}},
    )
    address: Formula = Field(
        default="",
        title="Address",
        description="A formula for the address that “Make a reply address” gave.",
        json_schema_extra={"placeholder": "steps.make_a_reply_address.address", "show_when": {"mode": "call"}},
    )
    amount: float = Field(
        default=7, gt=0, le=1_000_000, title="At most", description="How many minutes, hours or days to wait."
    )
    unit: Literal["minutes", "hours", "days"] = Field(default="days", title="Unit", description="What is counted.")
    before: float = Field(
        default=0,
        ge=0,
        le=1_440,
        title="Also take one from before",
        description="Minutes: one that was sent up to so long before the step began to wait counts too. 0: only from now on.",
        json_schema_extra={"show_when": {"mode": "event"}},
    )
    sample_json: Json = Field(
        default="",
        title="Sample",
        description="What a test takes as having come, or as the body of the call; JSON.",
        json_schema_extra={"placeholder": '{"paid": true}'},
    )

    @field_validator("sample_json")
    @classmethod
    def _is_json(cls, sample: str) -> str:
        return check_json(sample)

    @model_validator(mode="after")
    def _is_complete(self) -> "WaitEvent":
        if self.mode == "event" and not EVENT.fullmatch(self.event.strip()):
            raise ValueError("give the event a name of letters, digits, dots and dashes, such as “order.paid”")
        if self.mode == "call" and not self.address.strip():
            raise ValueError("say which address: the one that “Make a reply address” gave")
        if self._seconds() > _YEAR:
            raise ValueError("wait at most a year")
        return self

    async def run(self, ctx: Context, value: Any = None) -> Came | Pause:
        until = ctx.now().timestamp() + self._seconds()
        sample = orjson.loads(self.sample_json) if self.sample_json.strip() else None
        if self.mode == "event":
            key = event_key(ctx.evaluate(self.key) if self.key.strip() else None)
            asked = {"name": self.event.strip(), "key": key, "sample": sample}
            return Pause("event", until, asked | ({"before": self.before * 60} if self.before else {}))
        address = _address(ctx.evaluate(self.address))
        call: dict[str, Any] = {"body": sample, "query": {}, "headers": {}, "method": "POST"}
        return Pause("event", until, {"address": address, "sample": call})

    async def resume(self, ctx: Context, answer: Any, value: Any = None, **inputs: Any) -> Came:
        said = answer if isinstance(answer, dict) else {}
        return Came(arrived=said.get("value")) if said.get("arrived") else Came(too_late=value)

    def as_python(self, w: Writer) -> None:
        if self.mode == "event":
            name, key = quoted(self.event.strip()), written_key(w, self.key)
            earlier: list[Code | str] = [repr(self.before * 60), w.heard()] if self.before else []
            w.let("said", w.world("events.wait", name, key, repr(self._seconds()), *earlier))
        else:
            address = w.use(_address, w.formula(self.address))
            w.let("said", w.world("events.wait_at", address, repr(self._seconds())))
        with w.when('said["arrived"]'):
            w.gives(arrived='said["value"]')
        w.gives(too_late=w.arrived("value"))

    def _seconds(self) -> float:
        return self.amount * _SECONDS[self.unit]

    def ways(self) -> tuple[tuple[str, ...], ...]:
        return (("arrived",), ("too_late",))

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED}) if self.mode == "call" else frozenset()

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        late = {"too_late": arriving.get("value", ANY)}
        try:
            sample = shape_of(orjson.loads(self.sample_json)) if self.sample_json.strip() else ANY
        except orjson.JSONDecodeError:
            sample = ANY
        if self.mode == "event":
            return late | ({} if sample is ANY else {"arrived": sample})
        loose = record(open=True)
        return late | {"arrived": record({"body": sample, "query": loose, "headers": loose, "method": TEXT})}

    def describe(self) -> str:
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        what = f"{self.event} of {self.key}" if self.key.strip() else self.event
        return f"{what if self.mode == 'event' else 'a call'}, at most {self.amount:g} {unit}"[:200]


def _address(found: Any) -> str:
    """The address that is meant. Raises NodeError when there is none."""
    if not isinstance(found, str) or "/" not in found:
        raise NodeError(
            "There is no address to wait at.",
            fix="Put “Make a reply address” before, and name its `address` in the settings.",
        )
    return found
