"""What a person types into a form, as values: shared by the hosted page, which shows problems, and by the triggers."""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import Field

from nodes.listen import FormField

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""Names that formulas can use as they are."""
PublicPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", min_length=1, max_length=100)]
"""The last part of a public address."""

_YES = frozenset({"yes", "true", "on", "1", "y"})
_NO = frozenset({"no", "false", "off", "0", "n"})
_LONGEST = 100_000


def read_answers(fields: Sequence[FormField], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The answers as typed values, one for each field, and a sentence for each field that is not right.

    Fields that the form does not have are left out; an empty answer is None.
    """
    answers: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in fields:
        raw = given.get(field.name)
        if isinstance(raw, str):
            raw = raw.strip()
        if raw is None or raw == "":
            # An unticked box is an answer too.
            answers[field.name] = False if field.kind == "yes/no" else None
            if field.required and field.kind != "yes/no":
                problems[field.name] = f"“{field.label}” is still empty."
            continue
        try:
            answers[field.name] = _value(field, raw)
        except ValueError as error:
            answers[field.name] = None
            problems[field.name] = f"“{field.label}” {error}."
    return answers, problems


def _value(field: FormField, raw: Any) -> Any:
    if field.kind == "number":
        number = read_number(raw)
        if number is None:
            raise ValueError("must be a number")
        return number
    if field.kind == "yes/no":
        answer = read_yes_no(raw)
        if answer is None:
            raise ValueError("must be yes or no")
        return answer
    if not isinstance(raw, str):
        raise ValueError("must be a text")
    if len(raw) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST:,} characters")
    if field.kind == "choice" and raw not in field.choices:
        raise ValueError(f"must be one of: {', '.join(field.choices)[:300]}")
    if field.kind == "date":
        return _day(raw)
    if field.kind == "e-mail" and not _is_address(raw):
        raise ValueError("must be an e-mail address")
    return raw


def _day(raw: str) -> str:
    try:
        return date.fromisoformat(raw[:10].replace("/", "-")).isoformat()
    except ValueError:
        raise ValueError("must be a date such as 2026-03-02") from None


def _is_address(text: str) -> bool:
    name, at, host = text.partition("@")
    return bool(at and name and "." in host.strip(".") and "@" not in host) and not any(c.isspace() for c in text)


def read_number(raw: Any) -> int | float | None:
    """A number as it was typed, or None."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int | float):
        return raw
    if not isinstance(raw, str) or len(raw) > 40 or "_" in raw:
        return None
    text = raw.strip()
    if "." not in text:
        text = text.replace(",", ".", 1)
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    whole = int(number) if number.is_integer() and abs(number) < 1e15 else None
    return number if whole is None else whole


def read_yes_no(raw: Any) -> bool | None:
    """Yes or no as it was typed, or None."""
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    return True if word in _YES else False if word in _NO else None
