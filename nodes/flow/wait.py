"""Wait: let time pass."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out, Pause
from nodes.compiling import Writer
from nodes.formula.functions.dates import date_
from nodes.formula.meter import Meter
from nodes.moments import zone
from nodes.shape import ANY, Shape

_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3_600, "days": 86_400}
_YEAR = 366 * 86_400


class Passed(Out):
    """What arrived, unchanged."""

    value: Any


class Wait(Node):
    """Waits for a while, or until a moment, and goes on with what arrived.

    A waiting run costs nothing and survives restarts. A moment that has already passed is not waited for. In the sandbox,
    time passes at once.
    """

    family, title, icon, effect = Family.FLOW, "Wait", "hourglass_empty", Effect.E0
    words = ("delay", "sleep", "pause", "until", "later", "timer", "time")
    examples = (
        Example("Three days", {"amount": 3, "unit": "days"}, {"value": {"id": 7}}, {"value": {"id": 7}}),
        Example(
            "A day before it is due",
            {"mode": "until", "until": "due | subtract(days=1)"},
            {"value": {"due": "2026-03-09"}},
            {"value": {"due": "2026-03-09"}},
        ),
    )

    mode: Literal["for", "until"] = Field(default="for", title="Wait", description="For some time, or until a moment.")
    amount: float = Field(
        default=1,
        ge=0,
        le=1_000_000,
        title="How long",
        description="How many seconds, minutes, hours or days.",
        json_schema_extra={"show_when": {"mode": "for"}},
    )
    unit: Literal["seconds", "minutes", "hours", "days"] = Field(
        default="hours", title="Unit", description="What is counted.", json_schema_extra={"show_when": {"mode": "for"}}
    )
    until: Formula = Field(
        default="",
        title="Until",
        description="A formula that gives the moment, such as `due | subtract(days=1)`. Without a time: midnight.",
        json_schema_extra={"placeholder": "due | subtract(days=1)", "show_when": {"mode": "until"}},
    )

    @model_validator(mode="after")
    def _is_complete(self) -> "Wait":
        if self.mode == "until" and not self.until.strip():
            raise ValueError("say until when to wait")
        if self.amount * _SECONDS[self.unit] > _YEAR:
            raise ValueError("wait at most a year")
        return self

    async def run(self, ctx: Context, value: Any = None) -> Passed | Pause:
        now = ctx.now().timestamp()
        if self.mode == "for":
            wake = now + self.amount * _SECONDS[self.unit]
        else:
            wake = _epoch(ctx.evaluate(self.until), ctx.time_zone or "UTC")
            if wake > now + _YEAR:
                raise NodeError("That moment is more than a year away.", category="limit", fix="Wait at most a year.")
        return Pause("until", wake) if wake > now else Passed(value)

    async def resume(self, ctx: Context, answer: Any, value: Any = None, **inputs: Any) -> Passed:
        return Passed(value)

    def as_python(self, w: Writer) -> None:
        w.note(f"“{self.title}” keeps the program running while it waits.")
        if self.mode == "for":
            w.library.need("from datetime import timedelta")
            w.let("moment", f"{w.now()} + timedelta(seconds={self.amount * _SECONDS[self.unit]!r})")
        else:
            w.let("moment", w.use(_moment, w.formula(self.until), f'"{w.time_zone}"'))
        w.line(w.world("clock.wait_until", "moment"))
        w.give(w.arrived("value"))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"value": arriving.get("value", ANY)}

    def describe(self) -> str:
        if self.mode == "until":
            return f"until {self.until}"[:200]
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        return f"{self.amount:g} {unit}"


def _epoch(given: Any, where: str) -> float:
    """The second that a value means; a day alone is its midnight in the time zone."""
    return _moment(given, where).timestamp()


def _moment(given: Any, where: str) -> datetime:
    moment = datetime.fromisoformat(str(date_(Meter(), given, None, where)))
    return moment if moment.tzinfo else moment.replace(tzinfo=zone(where))
