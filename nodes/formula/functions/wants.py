"""Checks of a function's settings: each returns the value when it fits and says what was wanted when it does not."""

import functools
from typing import Any

import re2

from nodes.formula.problems import short, wrong_type, wrong_value
from nodes.formula.values import NUMBERS, a_kind

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 4 << 20
_IGNORE_CASE = re2.Options()
_IGNORE_CASE.log_errors = False
_IGNORE_CASE.max_mem = 4 << 20
_IGNORE_CASE.case_sensitive = False


def text(value: Any, what: str) -> str:
    """A setting that must be a text."""
    if type(value) is str:
        return value
    raise wrong_type(f"The {what} must be a text, not {a_kind(value)}.", "Put it between quotes, or add `| text`.")


def number(value: Any, what: str) -> float:
    """A setting that must be a number."""
    if type(value) in NUMBERS:
        return value  # type: ignore[no-any-return]
    raise wrong_type(f"The {what} must be a number, not {a_kind(value)}.", "A text becomes a number with `| number`.")


def whole(value: Any, what: str, low: int, high: int) -> int:
    """A setting that must be a whole number within limits."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise wrong_type(f"The {what} must be a whole number, not {a_kind(value)}.", "Write for example `2`.")
    if not low <= value <= high:
        raise wrong_value(
            f"The {what} must be between {low:,} and {high:,}, not {short(str(value))}.",
            f"Use a number from {low:,} to {high:,}.",
        )
    return value


def yes_no(value: Any, what: str) -> bool:
    """A setting that must be yes or no."""
    if type(value) is bool:
        return value
    raise wrong_type(f"The {what} must be `true` or `false`, not {a_kind(value)}.", "Write `true` or `false`.")


def items(value: Any, what: str) -> list[Any]:
    """A setting that must be a list."""
    if type(value) is list:
        return value
    raise wrong_type(f"The {what} must be a list, not {a_kind(value)}.", "A list is written `[1, 2, 3]`.")


def pattern(value: Any, ignore_case: bool) -> Any:
    """A setting that must be a regular expression; google-re2 matches in linear time whatever it says."""
    return _compiled(text(value, "pattern"), yes_no(ignore_case, "`ignore_case`"))


@functools.lru_cache(maxsize=256)
def _compiled(source: str, ignore_case: bool) -> Any:
    if len(source) > 1000:
        raise wrong_value("This pattern is too long.", "A pattern may have up to 1,000 characters.")
    try:
        return re2.compile(source, _IGNORE_CASE if ignore_case else _OPTIONS)
    except (re2.error, UnicodeEncodeError):
        raise wrong_value(
            f"The pattern `{short(source, 40)}` cannot be used.",
            "Check its brackets; references back (`\\1`) and look-arounds (`(?=…)`) do not exist here.",
        ) from None
