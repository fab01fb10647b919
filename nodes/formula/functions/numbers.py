"""Functions that work on numbers."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from nodes.formula.functions import wants
from nodes.formula.meter import Meter
from nodes.formula.problems import wrong_value
from nodes.formula.table import function
from nodes.formula.values import checked

_ROUNDINGS = {"common": ROUND_HALF_UP, "ceil": ROUND_CEILING, "floor": ROUND_FLOOR}


@function("Number", "number", "2.675 | round(2)", 2.68, returns="number", keywords={"precision": "digits"})
def round_(meter: Meter, value: float, digits: Any = 0, method: Any = "common") -> float:
    """Rounds a number to some digits after the point; a half goes up, as in school."""
    places = wants.whole(digits, "number of digits", -15, 15)
    if wants.text(method, "method") not in _ROUNDINGS:
        raise wrong_value("The method of rounding is not known.", 'Write "common", "ceil" or "floor".')
    return _rounded(value, places, _ROUNDINGS[method])


@function("Number", "number", "2.9 | floor", 2, returns="number")
def floor(meter: Meter, value: float) -> float:
    """The next whole number below."""
    return checked(math.floor(checked(value)))


@function("Number", "number", "2.1 | ceil", 3, returns="number", aliases=("ceiling",))
def ceil(meter: Meter, value: float) -> float:
    """The next whole number above."""
    return checked(math.ceil(checked(value)))


@function("Number", "number", "-3 | abs", 3, returns="number")
def abs_(meter: Meter, value: float) -> float:
    """The number without its minus sign."""
    return abs(value)


@function("Number", "number", "120 | clamp(0, 100)", 100, returns="number")
def clamp(meter: Meter, value: float, low: Any, high: Any) -> float:
    """The number, kept between a lowest and a highest one."""
    return max(wants.number(low, "lowest number"), min(value, wants.number(high, "highest number")))


@function("Number", "number", "9 | sqrt", 3.0, returns="number")
def sqrt(meter: Meter, value: float) -> float:
    """The square root."""
    if value < 0:
        raise wrong_value("A negative number has no square root.", "Take `| abs` first.")
    return math.sqrt(value)


@function(
    "Number", "number", "1234567.891 | format_number(2)", "1,234,567.89", returns="text", aliases=("toLocaleString",)
)
def format_number(meter: Meter, value: float, digits: Any = None, thousands: Any = ",", point: Any = ".") -> str:
    """Writes a number with thousands separated and a fixed number of digits after the point."""
    if digits is None:
        text = f"{value:,}" if type(value) is int else f"{checked(value):,.15g}" if abs(value) < 1e15 else f"{value:,}"
    else:
        places = wants.whole(digits, "number of digits", 0, 15)
        text = f"{_rounded(value, places, ROUND_HALF_UP):,.{places}f}"
    signs = {",": wants.text(thousands, "thousands sign"), ".": wants.text(point, "point")}
    meter.make(len(text) * (len(thousands) + len(point)))
    return "".join(signs.get(sign, sign) for sign in text)


@function("Number", "number", "3.14159 | to_fixed(2)", "3.14", returns="text", aliases=("toFixed",))
def to_fixed(meter: Meter, value: float, digits: Any = 0) -> str:
    """Writes a number with exactly so many digits after the point."""
    places = wants.whole(digits, "number of digits", 0, 15)
    return f"{_rounded(checked(value), places, ROUND_HALF_UP):.{places}f}"


@function("Number", "number", "0.256 | percent(1)", "25.6%", returns="text")
def percent(meter: Meter, value: float, digits: Any = 0) -> str:
    """Writes a share as a percentage: 0.5 is 50%."""
    places = wants.whole(digits, "number of digits", 0, 15)
    return f"{_rounded(checked(value * 100), places, ROUND_HALF_UP):.{places}f}%"


def _rounded(value: float, places: int, rounding: str) -> float:
    checked(value)
    try:
        exact = Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), rounding=rounding)
    except InvalidOperation:
        return checked(value)  # too big to have digits there
    return checked(int(exact) if places <= 0 or type(value) is int else float(exact))
