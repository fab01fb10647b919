"""Functions that work on moments: texts such as `2026-11-21` and `2026-11-21T10:30:00Z`, or seconds since 1970.

Results are ISO 8601 texts, so that every value of a formula is plain JSON. Month and day names are English.
"""

import functools
import math
import zoneinfo
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any

import re2

from nodes.formula.functions import wants
from nodes.formula.meter import Meter
from nodes.formula.problems import FormulaError, nearest, short, wrong_type, wrong_value
from nodes.formula.table import function
from nodes.formula.values import NUMBERS, a_kind

_ISO = re2.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?( ?(Z|z|[+-]\d\d:?\d\d))?)?")
_OFFSET = re2.compile(r"([+-])(\d\d):?(\d\d)")
_PIECE = re2.compile(r"YYYY|yyyy|MMMM|MMM|MM|M|dddd|ddd|DD|dd|D|HH|H|hh|mm|ss|SSS|A|YY|%.|\[[^\]]*\]")
_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
_UNITS: Mapping[str, float] = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3600,
    "days": 86400,
    "weeks": 604800,
}
_WITH_FORMAT = 'Name the format, for example `| date("DD.MM.YYYY")`.'

_WRITERS: Mapping[str, Callable[[datetime], str]] = {
    "YYYY": lambda when: f"{when.year:04}",
    "YY": lambda when: f"{when.year % 100:02}",
    "MMMM": lambda when: _MONTHS[when.month - 1],
    "MMM": lambda when: _MONTHS[when.month - 1][:3],
    "MM": lambda when: f"{when.month:02}",
    "M": lambda when: str(when.month),
    "DD": lambda when: f"{when.day:02}",
    "D": lambda when: str(when.day),
    "dddd": lambda when: _DAYS[when.weekday()],
    "ddd": lambda when: _DAYS[when.weekday()][:3],
    "HH": lambda when: f"{when.hour:02}",
    "H": lambda when: str(when.hour),
    "hh": lambda when: f"{(when.hour - 1) % 12 + 1:02}",
    "mm": lambda when: f"{when.minute:02}",
    "ss": lambda when: f"{when.second:02}",
    "SSS": lambda when: f"{when.microsecond // 1000:03}",
    "A": lambda when: "AM" if when.hour < 12 else "PM",
    "%j": lambda when: f"{when.timetuple().tm_yday:03}",
    "%V": lambda when: f"{when.isocalendar().week:02}",
    "%u": lambda when: str(when.isoweekday()),
    "%z": lambda when: _offset(when).replace(":", ""),
    "%f": lambda when: f"{when.microsecond:06}",
    "%s": lambda when: str(int(when.timestamp())),
    "%%": lambda when: "%",
}
_OTHER_NAMES: Mapping[str, str] = {
    "yyyy": "YYYY", "dd": "DD",
    "%Y": "YYYY", "%y": "YY", "%m": "MM", "%d": "DD", "%H": "HH", "%I": "hh", "%M": "mm", "%S": "ss",
    "%p": "A", "%A": "dddd", "%a": "ddd", "%B": "MMMM", "%b": "MMM", "%e": "D", "%-d": "D",
}  # fmt: skip
_LENGTHS: Mapping[str, tuple[int, int]] = {
    "YYYY": (4, 4), "YY": (2, 2), "MM": (2, 2), "M": (1, 2), "DD": (2, 2), "D": (1, 2),
    "HH": (2, 2), "H": (1, 2), "hh": (1, 2), "mm": (2, 2), "ss": (2, 2), "SSS": (1, 3), "%f": (1, 6),
}  # fmt: skip


@functools.cache
def zones() -> Mapping[str, tzinfo]:
    """All time zones, read once: afterwards no formula makes the server open a file."""
    return {name: zoneinfo.ZoneInfo(name) for name in sorted(zoneinfo.available_timezones())} | {"UTC": UTC}


@function("Date", None, 'now() | format_date("YYYY") | length', 4, returns="moment")
def now(meter: Meter, zone: Any = "UTC") -> str:
    """The present moment, the same one all through a formula."""
    return _write(_moved(meter.now(), zone))


@function("Date", None, 'today("Europe/Berlin") | length', 10, returns="moment")
def today(meter: Meter, zone: Any = "UTC") -> str:
    """The present day in a time zone."""
    return _moved(meter.now(), zone).date().isoformat()


@function(
    "Date",
    "moment",
    '"21.11.2026" | date("DD.MM.YYYY")',
    "2026-11-21",
    returns="moment",
    aliases=("parse_date", "to_date", "datetime", "moment"),
)
def date_(meter: Meter, value: Any, format: Any = None, zone: Any = "UTC") -> str:
    """Reads a date: ISO, seconds since 1970, mail dates, or a text in a format you name."""
    if format is None or type(value) is not str:
        return _shown(*_read(value, _zone(zone)))
    return _shown(*_parsed(value, wants.text(format, "format"), _zone(zone)))


@function(
    "Date",
    "moment",
    '"2026-11-21" | format_date("dddd, D MMMM YYYY")',
    "Saturday, 21 November 2026",
    returns="text",
    aliases=("strftime", "date_format", "toFormat"),
)
def format_date(meter: Meter, value: Any, format: Any = "YYYY-MM-DD", zone: Any = None) -> str:
    """Writes a date your way: YYYY MM DD HH mm ss, dddd and MMMM for names, or %Y %m %d; `[…]` stays as it is."""
    when, _ = _read(value)
    if zone is not None:
        when = _moved(when, zone)
    out = []
    for piece, literal in _pieces(wants.text(format, "format")):
        out.append(literal if piece is None else _WRITERS[piece](when))
    return "".join(out)


@function(
    "Date", "moment", '"2026-01-31" | add(months=1)', "2026-02-28", returns="moment", aliases=("date_add", "plus")
)
def add(
    meter: Meter,
    value: Any,
    days: Any = 0,
    hours: Any = 0,
    minutes: Any = 0,
    seconds: Any = 0,
    weeks: Any = 0,
    months: Any = 0,
    years: Any = 0,
) -> str:
    """A moment so much later; negative numbers go back. Months keep the day, or take the month's last."""
    when, whole_day = _read(value)
    count = wants.whole(months, "number of months", -120_000, 120_000) + 12 * wants.whole(
        years, "number of years", -10_000, 10_000
    )
    amounts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds, "weeks": weeks}
    total = sum(wants.number(amount, f"number of {unit}") * _UNITS[unit] for unit, amount in amounts.items())
    try:
        if count:
            year, month = divmod(when.year * 12 + when.month - 1 + count, 12)
            last = (datetime(year + (month + 1) // 12, (month + 1) % 12 + 1, 1) - timedelta(days=1)).day
            when = when.replace(year=year, month=month + 1, day=min(when.day, last))
        if total:
            when += timedelta(seconds=total)
    except (OverflowError, ValueError):
        raise wrong_value("This moment is too far away.", "Years go from 1 to 9999.") from None
    return _shown(when, whole_day and total % 86400 == 0)


@function("Date", "moment", '"2026-11-21" | subtract(days=7)', "2026-11-14", returns="moment", aliases=("minus",))
def subtract(
    meter: Meter,
    value: Any,
    days: Any = 0,
    hours: Any = 0,
    minutes: Any = 0,
    seconds: Any = 0,
    weeks: Any = 0,
    months: Any = 0,
    years: Any = 0,
) -> str:
    """A moment so much earlier."""
    amounts = (days, hours, minutes, seconds, weeks, months, years)
    return str(add(meter, value, *(-wants.number(amount, "amount") for amount in amounts)))


@function("Date", "moment", '"2026-11-21" | diff("2026-11-01")', 20, returns="number", aliases=("date_diff",))
def diff(meter: Meter, value: Any, since: Any, unit: Any = "days") -> float:
    """How much time lies between an earlier moment and this one: in days, hours, minutes, seconds or weeks."""
    name = wants.text(unit, "unit").lower().removesuffix("s") + "s"
    if name not in _UNITS:
        raise wrong_value(
            f"`{short(str(unit), 20)}` is not a unit of time.", "Use days, hours, minutes, seconds or weeks."
        )
    span = (_read(value)[0] - _read(since)[0]).total_seconds() / _UNITS[name]
    return int(span) if span.is_integer() else span


@function("Date", "moment", '"2026-11-21" | is_before("2026-12-01")', True, returns="yes/no", aliases=("before",))
def is_before(meter: Meter, value: Any, other: Any) -> bool:
    """Whether a moment is earlier than another, whatever their time zones."""
    return _read(value)[0] < _read(other)[0]


@function("Date", "moment", '"2026-11-21" | is_after("2026-12-01")', False, returns="yes/no", aliases=("after",))
def is_after(meter: Meter, value: Any, other: Any) -> bool:
    """Whether a moment is later than another, whatever their time zones."""
    return _read(value)[0] > _read(other)[0]


@function(
    "Date",
    "moment",
    '"2026-11-21T09:30:00Z" | in_zone("Europe/Berlin")',
    "2026-11-21T10:30:00+01:00",
    returns="moment",
    aliases=("timezone", "astimezone"),
)
def in_zone(meter: Meter, value: Any, zone: Any) -> str:
    """The same moment as clocks in another time zone show it."""
    return _write(_moved(_read(value)[0], zone))


@function("Date", "moment", '"2026-11-21" | weekday', "Saturday", returns="text")
def weekday(meter: Meter, value: Any) -> str:
    """The name of the day of the week."""
    return _DAYS[_read(value)[0].weekday()]


@function("Date", "moment", '"2026-11-21" | is_weekend', True, returns="yes/no")
def is_weekend(meter: Meter, value: Any) -> bool:
    """Whether it is a Saturday or a Sunday."""
    return _read(value)[0].weekday() > 4


@function("Date", "moment", '"2026-11-21" | year', 2026, returns="number")
def year(meter: Meter, value: Any) -> int:
    """The year of a date."""
    return _read(value)[0].year


@function("Date", "moment", '"2026-11-21" | month', 11, returns="number")
def month(meter: Meter, value: Any) -> int:
    """The month of a date, 1 to 12."""
    return _read(value)[0].month


@function("Date", "moment", '"2026-11-21" | day', 21, returns="number")
def day(meter: Meter, value: Any) -> int:
    """The day of the month, 1 to 31."""
    return _read(value)[0].day


@function("Date", "moment", '"2026-11-21T10:30:00Z" | hour', 10, returns="number")
def hour(meter: Meter, value: Any) -> int:
    """The hour of a moment, 0 to 23."""
    return _read(value)[0].hour


@function("Date", "moment", '"2026-11-21" | week', 47, returns="number")
def week(meter: Meter, value: Any) -> int:
    """The week of the year, as in ISO calendars."""
    return _read(value)[0].isocalendar().week


@function(
    "Date", "moment", '"2026-11-21T10:30:00Z" | start_of("month")', "2026-11-01", returns="moment", aliases=("startOf",)
)
def start_of(meter: Meter, value: Any, unit: Any) -> str:
    """The first day of the year, month or week, or the day or hour itself without what is smaller."""
    when = _read(value)[0]
    name = wants.text(unit, "unit").lower()
    if name == "hour":
        return _write(when.replace(minute=0, second=0, microsecond=0))
    if name not in ("day", "week", "month", "year"):
        raise wrong_value(f"`{short(name, 20)}` is not a unit of time.", "Use year, month, week, day or hour.")
    start = when.date()
    if name == "week":
        if start.toordinal() <= start.weekday():
            raise wrong_value("This moment is too far away.", "Years go from 1 to 9999.")
        return (start - timedelta(days=start.weekday())).isoformat()
    return start.replace(day=1 if name != "day" else start.day, month=1 if name == "year" else start.month).isoformat()


@function("Date", "moment", '"1970-01-02" | timestamp', 86400, returns="number", aliases=("epoch", "unix"))
def timestamp(meter: Meter, value: Any) -> float:
    """The seconds since the start of 1970, in UTC."""
    seconds = (_read(value)[0] - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def is_moment(value: Any) -> bool:
    """Whether a value is a text that is a date."""
    if type(value) is not str or not 10 <= len(value) <= 40:
        return False
    try:
        _read(value)
    except FormulaError:
        return False
    return True


def _read(value: Any, zone: tzinfo = UTC) -> tuple[datetime, bool]:
    """The moment a value means, and whether it is a whole day."""
    kind = type(value)
    if kind in NUMBERS:
        return _from_seconds(value), False
    if kind is not str:
        raise wrong_type(
            f"A date is a text or a number, not {a_kind(value)}.", "If it may be empty, add `| default(now())`."
        )
    text = value.strip() if len(value) <= 100 else ""
    try:
        if _ISO.fullmatch(text):
            when = datetime.fromisoformat(
                text.replace("z", "Z").replace(",", ".").replace(" Z", "Z").replace(" +", "+")
            )
            # Both ends of the calendar are kept a day away, so that no change of zone can leave it.
            if not 1 <= when.year <= 9999 or when.date() in (date.min, date.max):
                raise ValueError
            return (when if when.tzinfo else when.replace(tzinfo=zone)), len(text) == 10
        if text[:1].isalpha() or (
            text[:1].isdigit() and text[1:3].strip("0123456789 ") != text[1:3] and text.count(" ") >= 3
        ):
            when = parsedate_to_datetime(text)
            return (when if when.tzinfo else when.replace(tzinfo=zone)), False
    except (ValueError, TypeError, IndexError, OverflowError):
        pass
    raise wrong_value(f"`{short(value, 40)}` is not a date I can read.", _WITH_FORMAT)


def _from_seconds(value: float) -> datetime:
    seconds = value / 1000 if abs(value) > 1e11 else value
    if not math.isfinite(seconds) or not -62e9 < seconds < 253e9:
        raise wrong_value("This number is not a moment.", "Use the seconds since 1970.")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _parsed(value: str, format: str, zone: tzinfo) -> tuple[datetime, bool]:
    parts = {"YYYY": 1970, "MM": 1, "DD": 1, "HH": 0, "mm": 0, "ss": 0}
    afternoon: bool | None = None
    at, timed = 0, False
    for piece, literal in _pieces(format):
        if piece is None:
            fits = value.startswith(literal, at)
            at += len(literal)
        elif piece in _LENGTHS:
            low, high = _LENGTHS[piece]
            end = at
            while end < len(value) and end - at < high and value[end] in "0123456789":
                end += 1
            fits = end - at >= low
            timed = timed or piece in ("HH", "H", "hh", "mm", "ss")
            name = {"YY": "YYYY", "M": "MM", "D": "DD", "H": "HH", "hh": "HH"}.get(piece, piece)
            if fits and name in parts:
                parts[name] = int(value[at:end]) + (2000 if piece == "YY" else 0)
            at = end
        elif piece in ("MMMM", "MMM", "dddd", "ddd"):
            names = _MONTHS if piece[0] == "M" else _DAYS
            wanted = [entry if len(piece) == 4 else entry[:3] for entry in names]
            found = next(
                (index for index, entry in enumerate(wanted) if value[at:].lower().startswith(entry.lower())), -1
            )
            fits = found >= 0
            if fits:
                at += len(wanted[found])
                if piece[0] == "M":
                    parts["MM"] = found + 1
        elif piece == "A":
            mark = value[at : at + 2].upper()
            fits, afternoon = mark in ("AM", "PM"), mark == "PM"
            at += 2
        else:
            raise wrong_value(f"`{piece}` cannot be used to read a date.", _WITH_FORMAT)
        if not fits:
            break
    else:
        hours = parts["HH"] if afternoon is None else parts["HH"] % 12 + (12 if afternoon else 0)
        try:
            if at == len(value):
                when = datetime(parts["YYYY"], parts["MM"], parts["DD"], hours, parts["mm"], parts["ss"], tzinfo=zone)
                if when.date() not in (date.min, date.max):
                    return when, not timed
        except ValueError:
            pass
    raise wrong_value(f"`{short(value, 40)}` is not a date in the format `{short(format, 40)}`.", "Check the format.")


@functools.lru_cache(maxsize=256)
def _pieces(format: str) -> tuple[tuple[str | None, str], ...]:
    """A format as placeholders and the literal texts between them."""
    if len(format) > 200:
        raise wrong_value("This date format is too long.", "Write the rest outside of it with `~`.")
    percent = "%" in format
    out: list[tuple[str | None, str]] = []
    at = 0
    for found in _PIECE.finditer(format):
        word = found.group(0)
        if word[0] == "[":
            known, literal = None, word[1:-1]
        elif percent and word[0] != "%":
            continue
        else:
            known, literal = _OTHER_NAMES.get(word, word), ""
            if known not in _WRITERS:
                raise wrong_value(f"`{word}` is not known in date formats.", "Use for example `YYYY-MM-DD HH:mm`.")
        if found.start() > at:
            out.append((None, format[at : found.start()]))
        out.append((known, literal))
        at = found.end()
    if at < len(format):
        out.append((None, format[at:]))
    return tuple(out)


def _zone(name: Any) -> tzinfo:
    text = wants.text(name, "time zone")
    if text == "UTC":
        return UTC
    if found := _OFFSET.fullmatch(text):
        minutes = int(found.group(2)) * 60 + int(found.group(3))
        if minutes < 1440:
            return timezone(timedelta(minutes=minutes if found.group(1) == "+" else -minutes))
    known = zones().get(text)
    if known is None:
        guess = nearest(text, [zone for zone in zones() if zone[:1].lower() == text[:1].lower()])
        raise wrong_value(
            f"There is no time zone `{short(text, 40)}`" + (f", did you mean `{guess}`?" if guess else "."),
            "Write for example `Europe/Berlin`.",
        )
    return known


def _moved(when: datetime, zone: Any) -> datetime:
    try:
        return when.astimezone(_zone(zone))
    except (OverflowError, ValueError):
        raise wrong_value("This moment is too far away.", "Years go from 1 to 9999.") from None


def _shown(when: datetime, whole_day: bool) -> str:
    return when.date().isoformat() if whole_day else _write(when)


def _write(when: datetime) -> str:
    text = when.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _offset(when: datetime) -> str:
    return when.isoformat()[-6:] if when.utcoffset() else "+00:00"
