"""Turning values into other kinds, what kind they are, and the tests written after `is`."""

from collections.abc import Callable, Mapping
from typing import Any

import re2

from nodes.formula.functions import dates, wants
from nodes.formula.meter import Meter
from nodes.formula.problems import short, wrong_type, wrong_value
from nodes.formula.table import UNSET, function
from nodes.formula.values import LARGEST, NUMBERS, a_kind, checked, contains, kind_of, same, to_text

_NUMBER = re2.compile(r"[+-]?(\d{1,18}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?")
_EMAIL = re2.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
_URL = re2.compile(r"(?i)https?://[^\s/?#]+[^\s]*")
_YES = frozenset({"yes", "true", "1", "on", "y"})
_NO = frozenset({"no", "false", "0", "off", "n", ""})


@function("Kind", "any", '"12.50" | number', 12.5, returns="number", aliases=("float", "parseFloat", "Number"))
def number(meter: Meter, value: Any, default: Any = UNSET) -> Any:
    """Turns a text into a number; with a default, also when it is none."""
    if type(value) in NUMBERS:
        return value
    if type(value) is bool:
        return int(value)
    if type(value) is str:
        text = value.strip().replace("_", "").replace(" ", "")
        if len(text) < 80 and _NUMBER.fullmatch(text):
            whole = text.lstrip("+-").isdigit()
            return checked(int(text) if whole else float(text))
    if default is not UNSET:
        return default
    shown = f"The text `{short(value, 30)}`" if type(value) is str else a_kind(value).capitalize()
    raise wrong_value(f"{shown} is not a number.", "Give a value for this case: `| number(default=0)`.")


@function("Kind", "any", '"12.9" | int', 12, returns="number", aliases=("whole", "parseInt"))
def int_(meter: Meter, value: Any, default: Any = UNSET) -> Any:
    """Turns a value into a whole number; cuts off what is after the point."""
    found = number(meter, value, default)
    if type(found) is float:
        return checked(int(checked(found)))
    return found


@function("Kind", "any", "12.0 | text", "12", returns="text", aliases=("string", "str", "toString", "String"))
def text(meter: Meter, value: Any) -> str:
    """Turns any value into a text, as it looks inside a text."""
    return to_text(value, meter)


@function("Kind", "any", '"yes" | yes_no', True, returns="yes/no", aliases=("bool", "boolean"))
def yes_no(meter: Meter, value: Any) -> bool:
    """Turns a value into true or false; reads yes, no, true, false, on, off, 1 and 0."""
    if type(value) is str:
        word = value.strip().lower() if len(value) < 20 else "?"
        if word in _YES or word in _NO:
            return word in _YES
        raise wrong_value(f"The text `{short(value, 30)}` is neither yes nor no.", 'Compare instead: `value == "ok"`.')
    return bool(value)


@function("Kind", "any", '"a" | list', ["a"], returns="list", aliases=("as_list",))
def list_(meter: Meter, value: Any) -> list[Any]:
    """Makes a list: a list stays one, nothing becomes an empty one, anything else the only item."""
    if type(value) is list:
        return value
    return [] if value is None else [value]


@function("Kind", "any", "[1] | kind", "list", returns="text", aliases=("type",))
def kind(meter: Meter, value: Any) -> str:
    """The kind of a value: text, number, yes/no, list, record or nothing."""
    return kind_of(value)


@function("Kind", "any", '"" | is_empty', True, returns="yes/no", aliases=("isEmpty",))
def is_empty(meter: Meter, value: Any) -> bool:
    """Whether a value is nothing, or a text, list or record without content; the number 0 is not empty."""
    return _empty(meter, value)


@function("Kind", "any", 'true | choose("on", "off")', "on", aliases=("iif", "ternary"))
def choose(meter: Meter, value: Any, yes: Any, no: Any) -> Any:
    """The first setting when the value is true, else the second; like `a if value else b`."""
    return yes if value else no


Check = Callable[..., bool]


def _empty(meter: Meter, value: Any) -> bool:
    return value is None or (type(value) in (str, list, dict) and not value)


def _whole(value: Any, name: str) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is int:
        return value
    raise wrong_type(f"`is {name}` needs a whole number, but got {a_kind(value)}.", "Use `| number` or `| int` first.")


def _divisible(meter: Meter, value: Any, by: Any) -> bool:
    return _whole(value, "divisibleby") % wants.whole(by, "divisor", 1, LARGEST) == 0


def _matching(meter: Meter, value: Any, pattern: Any) -> bool:
    subject = wants.text(value, "value")
    meter.step(len(subject) >> 7)
    return wants.pattern(pattern, False).search(subject) is not None


def _fits(pattern: Any, value: Any) -> bool:
    return type(value) is str and len(value) < 2000 and pattern.fullmatch(value) is not None


CHECKS: Mapping[str, tuple[Check, int]] = {
    "none": (lambda meter, value: value is None, 0),
    "text": (lambda meter, value: type(value) is str, 0),
    "number": (lambda meter, value: type(value) in NUMBERS, 0),
    "integer": (lambda meter, value: type(value) is int or (type(value) is float and value.is_integer()), 0),
    "float": (lambda meter, value: type(value) is float, 0),
    "boolean": (lambda meter, value: type(value) is bool, 0),
    "true": (lambda meter, value: value is True, 0),
    "false": (lambda meter, value: value is False, 0),
    "list": (lambda meter, value: type(value) is list, 0),
    "record": (lambda meter, value: type(value) is dict, 0),
    "iterable": (lambda meter, value: type(value) in (str, list, dict), 0),
    "empty": (_empty, 0),
    "moment": (lambda meter, value: dates.is_moment(value), 0),
    "email": (lambda meter, value: _fits(_EMAIL, value), 0),
    "url": (lambda meter, value: _fits(_URL, value), 0),
    "numeric": (lambda meter, value: type(value) in NUMBERS or _fits(_NUMBER, value), 0),
    "even": (lambda meter, value: _whole(value, "even") % 2 == 0, 0),
    "odd": (lambda meter, value: _whole(value, "odd") % 2 == 1, 0),
    "upper": (lambda meter, value: type(value) is str and value.isupper(), 0),
    "lower": (lambda meter, value: type(value) is str and value.islower(), 0),
    "divisibleby": (_divisible, 1),
    "equalto": (lambda meter, value, other: same(value, other, meter), 1),
    "in": (lambda meter, value, container: contains(container, value, meter), 1),
    "containing": (lambda meter, value, part: contains(value, part, meter), 1),
    "matching": (_matching, 1),
}
"""What may stand after `is`, with the number of values it needs; `defined` and `undefined` are built in."""

CHECK_ALIASES: Mapping[str, str] = {
    "null": "none",
    "nothing": "none",
    "string": "text",
    "int": "integer",
    "whole": "integer",
    "bool": "boolean",
    "yes_no": "boolean",
    "array": "list",
    "sequence": "list",
    "mapping": "record",
    "object": "record",
    "dict": "record",
    "date": "moment",
    "eq": "equalto",
    "sameas": "equalto",
    "matches": "matching",
}
