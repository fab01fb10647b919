"""Schedule: by the clock and the calendar."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nodes.base import Context, Cron, Effect, Example, Family, Node, NodeError, Out, PortInfo, PortType, TimeZone
from nodes.compiling import Writer, quoted
from nodes.listen import Schedule as Clock
from nodes.moments import check_cron, cron_in_words, days_in_words, upcoming, zone, zone_in_words

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SECONDS = {"minutes": 60, "hours": 3600, "days": 86_400}
_YEAR = 366 * 86_400


class Due(Out):
    """The moment that has come."""

    moment: Annotated[str, PortInfo(type=PortType.MOMENT)]
    date: Annotated[str, PortInfo(type=PortType.MOMENT, help="The day alone.")]


class Schedule(Node):
    """Starts at set times: on weekdays, every so often, or by a cron text.

    Times are those of the clock on the wall in the time zone, also when it changes for summer. If the agent could not run
    at a time, “catch up” says what happens afterwards.
    """

    family, title, icon, effect = Family.TRIGGER, "Schedule", "schedule", Effect.E0
    words = ("time", "clock", "cron", "daily", "every", "weekly", "hourly", "timer", "trigger")
    examples = (
        Example(
            "Every weekday at nine in Berlin",
            {"mode": "weekdays", "at": "09:00", "time_zone": "Europe/Berlin"},
            {"event": {"moment": "2026-03-02T08:00:00+00:00"}},
            {"moment": "2026-03-02T09:00:00+01:00", "date": "2026-03-02"},
        ),
        Example(
            "Every quarter of an hour",
            {"mode": "every", "every": 15, "unit": "minutes"},
            {"event": {"moment": "2026-03-02T23:45:00+00:00"}},
            {"moment": "2026-03-02T23:45:00+00:00", "date": "2026-03-02"},
        ),
        Example(
            "On the first of each month",
            {"mode": "cron", "cron": "0 8 1 * *", "time_zone": "America/New_York"},
            {"event": {"moment": 1772370000}},
            {"moment": "2026-03-01T08:00:00-05:00", "date": "2026-03-01"},
        ),
    )

    mode: Literal["weekdays", "every", "cron"] = Field(
        default="weekdays",
        title="When",
        description="On days of the week at a time, every so often, or by a cron text (for experts).",
    )
    days: list[Day] = Field(
        default=["mon", "tue", "wed", "thu", "fri"],
        min_length=1,
        max_length=7,
        title="On these days",
        description="The days of the week on which it starts.",
        json_schema_extra={"show_when": {"mode": "weekdays"}},
    )
    every: int = Field(
        default=15,
        ge=1,
        le=10_000,
        title="Every",
        description="How many minutes, hours or days lie between two starts.",
        json_schema_extra={"show_when": {"mode": "every"}},
    )
    unit: Literal["minutes", "hours", "days"] = Field(
        default="minutes",
        title="Unit",
        description="What “every” counts.",
        json_schema_extra={"show_when": {"mode": "every"}},
    )
    at: str = Field(
        default="09:00",
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$",
        title="At",
        description="The time of day, for days of the week and for “every so many days”.",
        json_schema_extra={"format": "time", "placeholder": "09:00", "show_when": {"mode": ["weekdays", "every"]}},
    )
    cron: Cron = Field(
        default="0 9 * * 1-5",
        title="Cron text",
        description="Minute, hour, day, month and day of the week: `0 9 * * 1-5` is nine o'clock from Monday to Friday.",
        json_schema_extra={"show_when": {"mode": "cron"}},
    )
    time_zone: TimeZone = Field(
        default="UTC",
        title="Time zone",
        description="Whose clock counts.",
        json_schema_extra={"placeholder": "Europe/Berlin"},
    )
    catch_up: Literal["skip", "once", "all"] = Field(
        default="once",
        title="Catch up",
        description="After a pause: skip what was missed, start once for all of it, or once for each.",
    )
    catch_up_most: int = Field(
        default=10,
        ge=1,
        le=100,
        title="At most",
        description="How many of the missed times are made up for: the latest ones.",
        json_schema_extra={"show_when": {"catch_up": "all"}},
    )
    jitter: int = Field(
        default=0,
        ge=0,
        le=3600,
        title="Spread",
        description="Start up to so many seconds later, so that not every agent starts in the same second.",
    )

    @field_validator("days")
    @classmethod
    def _in_order(cls, days: list[Day]) -> list[Day]:
        return [day for day in _WEEK if day in days]

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        zone(name)
        return name or "UTC"

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, text: str) -> str:
        return check_cron(text)

    @model_validator(mode="after")
    def _not_too_rare(self) -> "Schedule":
        if self.every * _SECONDS[self.unit] > _YEAR:
            raise ValueError("at least once a year: choose a smaller number or unit")
        return self

    async def run(self, ctx: Context, event: Any) -> Due:
        given = event.get("moment") if isinstance(event, dict) else None
        moment = (ctx.now() if given is None else _read(given)).astimezone(zone(self.time_zone))
        return Due(moment=moment.isoformat(timespec="seconds"), date=moment.date().isoformat())

    def as_python(self, w: Writer) -> None:
        w.let("given", 'event.get("moment") if isinstance(event, dict) else None')
        now = f"{w.now()} if given is None else {w.use(_read, 'given')}"
        w.let("moment", f"({now}).astimezone({w.use(zone, quoted(self.time_zone))})")
        w.gives(moment='moment.isoformat(timespec="seconds")', date="moment.date().isoformat()")

    def listens(self) -> Clock:
        more = {
            "time_zone": self.time_zone,
            "catch_up": self.catch_up,
            "most": self.catch_up_most,
            "jitter": self.jitter,
        }
        if self.mode == "cron":
            return Clock(cron=self.cron, **more)  # type: ignore[arg-type]
        if self.mode == "every":
            at = self.at if self.unit == "days" else ""
            return Clock(every=self.every * _SECONDS[self.unit], at=at, **more)  # type: ignore[arg-type]
        hour, _, minute = self.at.partition(":")
        days = ",".join(str((_WEEK.index(day) + 1) % 7) for day in self.days)
        return Clock(cron=f"{int(minute)} {int(hour)} * * {days if len(self.days) < 7 else '*'}", **more)  # type: ignore[arg-type]

    def next_times(self, after: datetime, count: int) -> list[datetime]:
        """The next moments after one, on the clock of the time zone."""
        here = zone(self.time_zone)
        return [moment.astimezone(here) for moment in upcoming(self.listens(), after, count)]

    def sample(self) -> dict[str, Any]:
        moments = self.next_times(datetime.now(UTC), 1)
        return {"moment": moments[0].isoformat(timespec="seconds")} if moments else {}

    def describe(self) -> str:
        where = zone_in_words(self.time_zone)
        if self.mode == "cron":
            return f"{cron_in_words(self.cron)}, {where}"[:200]
        if self.mode == "every":
            unit = self.unit.removesuffix("s")
            often = f"Every {unit}" if self.every == 1 else f"Every {self.every} {self.unit}"
            return f"{often} at {self.at}, {where}" if self.unit == "days" else often
        return f"{days_in_words([_WEEK.index(day) for day in self.days])} at {self.at}, {where}"


def _read(given: Any) -> datetime:
    try:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return datetime.fromtimestamp(given, UTC)
        moment = datetime.fromisoformat(str(given)[:40])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if not 2 <= moment.year <= 9998:
            raise ValueError
        return moment
    except (ValueError, OverflowError, OSError):
        raise NodeError(
            "The moment that this run was started for cannot be read.", fix="Write it as in 2026-03-02T09:00:00Z."
        ) from None
