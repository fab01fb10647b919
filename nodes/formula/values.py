"""The values formulas work on: plain JSON kinds, what they are called, when they are equal, and how they print."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from types import NoneType
from typing import Any

import orjson

from nodes.formula.meter import Meter
from nodes.formula.problems import FormulaError, too_much, wrong_type, wrong_value

NUMBERS = frozenset({int, float})
PLAIN = frozenset({str, int, float, bool, NoneType, list, dict})
LARGEST = 2**63 - 1
_SAFE = 1e15

_NAMES: dict[type, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "yes/no",
    list: "list",
    tuple: "list",
    dict: "record",
    NoneType: "nothing",
}


def kind_of(value: Any) -> str:
    """The everyday name of a value's kind: text, number, yes/no, list, record or nothing."""
    return _NAMES.get(type(value), "unknown value")


def a_kind(value: Any) -> str:
    """The kind of a value with its article, for a sentence."""
    kind = kind_of(value)
    return kind if kind == "nothing" else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def checked(number: float) -> float:
    """A number that JSON can carry, or an error: whole numbers to 64 bits, and neither infinite nor undefined."""
    if -_SAFE < number < _SAFE:
        return number
    if type(number) is int:
        if -LARGEST <= number <= LARGEST:
            return number
        raise too_much("This number is too big.", "Whole numbers may have up to 18 digits.")
    if math.isfinite(number):
        return number
    raise wrong_value("The result is not a number that can be written down.", "Check for very big or undefined values.")


def to_text(value: Any, meter: Meter) -> str:
    """How a value looks inside a text: nothing is empty, 3.0 is 3, lists and records are JSON."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return str(value)
    if kind is float:
        return str(int(value)) if -1e16 < value < 1e16 and value.is_integer() else repr(value)
    if value is None:
        return ""
    if kind is bool:
        return "true" if value else "false"
    return to_json(value if kind is list or kind is dict else plain(value), meter)


def to_json(value: Any, meter: Meter, *, indent: bool = False) -> str:
    """A value as JSON text."""
    meter.weigh(value)
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()
    except orjson.JSONEncodeError:
        raise wrong_type(
            f"This {kind_of(value)} cannot be written as JSON.", "It is nested too deeply, or holds a value JSON lacks."
        ) from None


def plain(value: Any) -> Any:
    """A foreign value from the scope as plain JSON data, or an error."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    for base in (str, bool, int, float):
        if isinstance(value, base):
            return base(value)
    raise wrong_type("This value is not a text, number, yes/no, list or record.", "Only plain data can be used.")


def same(left: Any, right: Any, meter: Meter) -> bool:
    """Whether two values are equal as JSON: 1 is 1.0, but yes is not 1 and \"1\" is not 1."""
    kind, other = type(left), type(right)
    if kind is other:
        if left is right and kind is not float:
            return True
        if kind is list:
            meter.step(len(left))
            return len(left) == len(right) and all(same(a, b, meter) for a, b in zip(left, right, strict=True))
        if kind is dict:
            meter.step(len(left))
            return left.keys() == right.keys() and all(same(part, right[key], meter) for key, part in left.items())
        if kind is str:
            meter.read(len(left) >> 2)
        return bool(left == right)
    return kind in NUMBERS and other in NUMBERS and bool(left == right)


def moment_of(text: str) -> datetime | None:
    """The moment that a text in the form 2026-11-21T10:30:00Z means; a day is its first second, and without a zone it is UTC."""
    if text[4:5] != "-" or text[7:8] != "-" or not 10 <= len(text) <= 40:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def by_order(left: str, right: str) -> tuple[Any, Any]:
    """What two texts are compared by: moments by when they are, however they are written, and all else letter by letter."""
    if left[4:5] == "-" == right[4:5] and not len(left) == 10 == len(right):
        one, other = moment_of(left), moment_of(right)
        if one is not None and other is not None:
            return one, other
    return left, right


def contains(container: Any, item: Any, meter: Meter) -> bool:
    """Whether a text, list or record (by its names) contains something."""
    kind = type(container)
    if kind is str:
        if type(item) is not str:
            raise wrong_type(
                f"A text can only contain a text, not {a_kind(item)}.", "Put quotes around it, or add `| text`."
            )
        meter.read(len(container))
        return item in container
    if kind is list:
        meter.step(len(container))
        return any(same(part, item, meter) for part in container)
    if kind is dict:
        return type(item) is str and item in container
    raise wrong_type(
        f"I cannot look inside {a_kind(container)}.", "`in` needs a text, a list or a record on its right."
    )


def key_of(value: Any, meter: Meter) -> Any:
    """A hashable stand-in: two values have the same one exactly when they are the same."""
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind in NUMBERS:
        return ("number", value)
    if kind is bool:
        return ("yes/no", value)
    meter.weigh(value)
    return _frozen(value)


def _frozen(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return ("list", tuple(_frozen(part) for part in value))
    if kind is dict:
        return ("record", frozenset((key, _frozen(part)) for key, part in value.items()))
    if kind in NUMBERS:
        return ("number", value)
    return ("yes/no", value) if kind is bool else value


def cannot(verb: str, left: Any, right: Any, joiner: str = "and") -> FormulaError:
    """The sentence for an operator between two kinds that do not go together."""
    message = f"I cannot {verb} {a_kind(left)} {joiner} {a_kind(right)}."
    kinds = {type(left), type(right)}
    if NoneType in kinds:
        fix = "One side is empty: give it a value with `| default(…)`."
    elif str in kinds and kinds & NUMBERS:
        fix = "To calculate, turn the text into a number with `| number`; to join as text, write `~` or `{{ … }}`."
    elif kinds <= {dict}:
        fix = "To put two records together write `| merge(…)`."
    elif list in kinds:
        fix = 'To work on each item write `| map("…")`; to add numbers up write `| sum`.'
    else:
        fix = "Both sides must be numbers, or be of one kind."
    return wrong_type(message, fix)
