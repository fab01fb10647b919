"""Date and time: the present moment, and calculations with moments."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nodes.base import Context, Effect, Example, Family, Node, Out, Port, PortInfo, PortType, Text, TimeZone
from nodes.compiling import Code, Writer, literal, quoted
from nodes.formula import compile_formula
from nodes.formula.functions import dates
from nodes.formula.functions.kinds import number
from nodes.moments import zone

_AS_NUMBER = compile_formula("value | number")
_IN_ZONE = compile_formula("moment | date(zone=zone)")
_AS_WRITTEN = compile_formula("moment | date(pattern, zone)")
_MOVED = compile_formula("moment | in_zone(zone)")
_WEEKDAY = compile_formula("moment | weekday")
_FORMAT = compile_formula("moment | format_date(pattern)")
_START = compile_formula("moment | start_of(unit)")
_DIFFERENCE = compile_formula("moment | diff(other, unit)")
_ADD = {
    unit: compile_formula(f"moment | add({unit}=amount)")
    for unit in ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
}
_PATTERNS = {
    "date": "YYYY-MM-DD",
    "date and time": "YYYY-MM-DD HH:mm",
    "long date": "D MMMM YYYY",
    "day and date": "dddd, D MMMM YYYY",
    "time": "HH:mm",
}

Action = Literal["now", "read", "add", "difference", "write", "start", "weekday"]


class Calculated(Out):
    """The result: a moment, a text or a number."""

    value: Annotated[Any, PortInfo(help="A moment, a text or a number, as the setting “Do” says.")]


class DateTime(Node):
    """Gives the present moment, or calculates with dates and times.

    Read a date that is written in some way, add days or months, take the difference of two moments, write one for people,
    find the start of its week, or the name of its day.
    """

    family, title, icon, effect = Family.CONTEXT, "Date and time", "event", Effect.E0
    words = ("now", "today", "date", "time", "add days", "difference", "format", "weekday", "calendar")
    examples = (
        Example(
            "The present moment in Berlin",
            {"time_zone": "Europe/Berlin"},
            {"value": None},
            {"value": "2026-03-02T10:30:00+01:00"},
            given={"now": "2026-03-02T09:30:00+00:00"},
        ),
        Example(
            "Two weeks after the order",
            {"do": "add", "moment": "{{ ordered }}", "amount": "14", "unit": "days"},
            {"value": {"ordered": "2026-03-02"}},
            {"value": "2026-03-16"},
        ),
        Example(
            "A date as people write it",
            {"do": "write", "moment": "{{ due }}", "style": "day and date"},
            {"value": {"due": "2026-03-02"}},
            {"value": "Monday, 2 March 2026"},
        ),
        Example(
            "Days between two dates",
            {"do": "difference", "moment": "2026-03-16", "other": "2026-03-02", "unit": "days"},
            {"value": None},
            {"value": 14},
        ),
        Example(
            "Read a German date",
            {"do": "read", "moment": "{{ day }}", "pattern": "DD.MM.YYYY"},
            {"value": {"day": "02.03.2026"}},
            {"value": "2026-03-02"},
        ),
    )

    do: Action = Field(default="now", title="Do", description="What to find out or to calculate.")
    moment: Text = Field(
        default="",
        max_length=1_000,
        title="Date or time",
        description="The moment to start from, such as `{{ due }}`. Empty: now.",
        json_schema_extra={
            "placeholder": "{{ due }}",
            "show_when": {"do": ["read", "add", "difference", "write", "start", "weekday"]},
        },
    )
    amount: Text = Field(
        default="1",
        max_length=1_000,
        title="How many",
        description="A number; a negative one goes back.",
        json_schema_extra={"show_when": {"do": "add"}},
    )
    other: Text = Field(
        default="",
        max_length=1_000,
        title="Since",
        description="The earlier moment. Empty: now.",
        json_schema_extra={"placeholder": "{{ ordered }}", "show_when": {"do": "difference"}},
    )
    unit: Literal["seconds", "minutes", "hours", "days", "weeks", "months", "years"] = Field(
        default="days",
        title="Unit",
        description="What is counted. A difference cannot be in months or years, which are not all of one length.",
        json_schema_extra={"show_when": {"do": ["add", "difference"]}},
    )
    start: Literal["hour", "day", "week", "month", "year"] = Field(
        default="day",
        title="Start of the",
        description="Weeks begin on Monday.",
        json_schema_extra={"show_when": {"do": "start"}},
    )
    style: Literal["date", "date and time", "long date", "day and date", "time", "pattern"] = Field(
        default="date",
        title="Written as",
        description="How it looks; “pattern” is your own.",
        json_schema_extra={"show_when": {"do": "write"}},
    )
    pattern: str = Field(
        default="",
        max_length=200,
        title="Pattern",
        description="YYYY year, MM month, DD day, HH hour, mm minute, ss second. Empty for reading: the usual ways.",
        json_schema_extra={"placeholder": "DD.MM.YYYY", "show_when": {"do": ["read", "write"]}},
    )
    time_zone: TimeZone = Field(
        default="",
        title="Time zone",
        description="Whose clock counts. Empty: the agent's time zone.",
        json_schema_extra={"placeholder": "Europe/Berlin"},
    )

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        zone(name)
        return name

    async def run(self, ctx: Context, value: Any = None) -> Calculated:
        where = self.time_zone or ctx.time_zone or "UTC"
        moment = self._moment(ctx, self.moment, where)
        if self.do in ("now", "read"):
            return Calculated(moment)
        if self.do == "add":
            amount = ctx.render(self.amount)
            names = {"moment": moment, "amount": _AS_NUMBER.evaluate({"value": amount})}
            return Calculated(_local(_ADD[self.unit].evaluate(names), where))
        if self.do == "difference":
            names = {"moment": moment, "other": self._moment(ctx, self.other, where), "unit": self.unit}
            return Calculated(_DIFFERENCE.evaluate(names))
        if self.do == "start":
            return Calculated(_START.evaluate({"moment": moment, "unit": self.start}))
        if self.do == "weekday":
            return Calculated(_WEEKDAY.evaluate({"moment": moment}))
        pattern = _PATTERNS.get(self.style) or self.pattern or "YYYY-MM-DD"
        return Calculated(_FORMAT.evaluate({"moment": moment, "pattern": pattern}))

    def _moment(self, ctx: Context, text: str, where: str) -> Any:
        """The moment that a setting means, on the clock of the time zone; a whole day stays one."""
        if self.do == "now" or not text.strip():
            return _MOVED.evaluate({"moment": ctx.now().isoformat(timespec="seconds"), "zone": where})
        given = ctx.render(text)
        if self.do == "read" and self.pattern:
            return _AS_WRITTEN.evaluate({"moment": given, "pattern": self.pattern, "zone": where})
        return _local(_IN_ZONE.evaluate({"moment": given, "zone": where}), where)

    def as_python(self, w: Writer) -> None:
        where = quoted(self.time_zone or w.time_zone)
        moment = self._written(w, self.moment, where)
        match self.do:
            case "now" | "read":
                w.give(moment)
            case "add":
                amount = w.use(dates.add, "moment", *self._amount(w))
                w.let("moment", moment)
                w.let("later", amount)
                w.give(w.kit("on_clock", "later", where))
            case "difference":
                other = self._written(w, self.other, where)
                w.give(w.use(dates.diff, moment, other, quoted(self.unit)))
            case "start":
                w.give(w.use(dates.start_of, moment, quoted(self.start)))
            case "weekday":
                w.give(w.use(dates.weekday, moment))
            case "write":
                pattern = _PATTERNS.get(self.style) or self.pattern or "YYYY-MM-DD"
                w.give(w.use(dates.format_date, moment, quoted(pattern)))

    def _amount(self, w: Writer) -> list[Code]:
        amount = w.use(number, w.text(self.amount))
        units = ("days", "hours", "minutes", "seconds", "weeks", "months", "years")
        return [amount if unit == self.unit else literal(0) for unit in units[: units.index(self.unit) + 1]]

    def _written(self, w: Writer, text: str, where: str) -> Code:
        """The moment that a setting means, as Python."""
        if self.do == "now" or not text.strip():
            return w.use(dates.in_zone, f'{w.now()}.isoformat(timespec="seconds")', where)
        given = w.text(text)
        if self.do == "read" and self.pattern:
            return w.use(dates.date_, given, quoted(self.pattern), where)
        return w.kit("on_clock", w.use(dates.date_, given, "None", where), where)

    def outputs(self) -> tuple[Port, ...]:
        kind = {"difference": PortType.NUMBER, "write": PortType.TEXT, "weekday": PortType.TEXT}
        return (Port("value", kind.get(self.do, PortType.MOMENT), help="The result."),)

    def describe(self) -> str:
        said = {
            "now": "now",
            "read": f"read {self.moment}",
            "add": f"{self.moment or 'now'} + {self.amount} {self.unit}",
            "difference": f"{self.unit} from {self.other or 'now'} to {self.moment or 'now'}",
            "write": f"{self.moment or 'now'} as {self.pattern if self.style == 'pattern' else self.style}",
            "start": f"start of the {self.start} of {self.moment or 'now'}",
            "weekday": f"weekday of {self.moment or 'now'}",
        }
        return said[self.do][:200]


def _local(moment: Any, where: str) -> Any:
    """A moment with a time on the clock of the time zone; days are days everywhere."""
    return (
        moment if isinstance(moment, str) and len(moment) == 10 else _MOVED.evaluate({"moment": moment, "zone": where})
    )
