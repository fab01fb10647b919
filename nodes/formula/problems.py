"""What can be wrong with a formula: one error type, where it is in the text, and the sentences that explain it."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Self

from nodes.categories import Category
from nodes.errors import FactoryError

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the text: line and column count from 1, start and end are offsets from 0."""

    line: int
    column: int
    start: int
    end: int

    @classmethod
    def of(cls, source: str, span: Span) -> Self:
        """The place that a span of offsets has in a source text."""
        start = min(max(span[0], 0), len(source))
        end = min(max(span[1], start), len(source))
        return cls(
            line=source.count("\n", 0, start) + 1, column=start - source.rfind("\n", 0, start), start=start, end=end
        )

    def as_dict(self) -> dict[str, int]:
        """The place as screens and the API get it."""
        return {"line": self.line, "column": self.column, "start": self.start, "end": self.end}


_CATEGORIES = {
    # What a formula can stumble over only when it runs: the data that it was given.
    **dict.fromkeys(
        ("formula.type", "formula.value", "formula.unknown_name", "formula.unknown_item", "formula.empty"),
        Category.INPUT,
    ),
    "formula.budget": Category.LIMIT,
    "formula.internal": Category.BUG,
}


class FormulaError(FactoryError):
    """A formula cannot be read or worked out; says where in the text, why, and what to write instead."""

    code = "formula.error"
    category = Category.CONFIGURATION

    def __init__(
        self, message: str, *, code: str | None = None, fix: str | None = None, span: Span | None = None
    ) -> None:
        super().__init__(message, code=code, fix=fix)
        self.category = _CATEGORIES.get(self.code, Category.CONFIGURATION)
        self.span = span
        self.position: Position | None = None

    def at(self, span: Span) -> Self:
        """The same error with its place, unless a closer place is already known."""
        if self.span is None:
            self.span = span
        return self

    def located(self, source: str) -> Self:
        """The same error with line and column in this source."""
        if self.position is None and self.span is not None:
            self.position = Position.of(source, self.span)
            self.where = self.position.as_dict()
        return self


class Missing(FormulaError):
    """A name, field or item is not there; `default(…)` and `is defined` catch exactly this."""

    code = "formula.unknown_name"
    suspect: tuple[str, Iterable[Any], str | None] | None = None
    hint: str | None = None

    def located(self, source: str) -> Self:
        """Also looks for the name that was probably meant: only now, for most missing names get a default."""
        if self.suspect is not None:
            self._explain(*self.suspect)
            self.suspect = None
        return super().located(source)

    def _explain(self, name: str, known: Iterable[Any], owner: str | None) -> None:
        names = list(known)
        guess = nearest(name, names)
        place = f" in `{short(owner)}`" if owner else ""
        self.message = f"Unknown name `{short(name)}`{place}" + (f", did you mean `{guess}`?" if guess else ".")
        self.args = (self.message,)
        if guess:
            fix = f"Write `{guess}`, or add `| default(…)` if it may be missing."
        else:
            listed = ", ".join(f"`{short(str(other), 30)}`" for other in names[:8])
            available = f" There is: {listed}{'…' if len(names) > 8 else ''}." if listed else ""
            fix = f"Check the spelling, or add `| default(…)` if it may be missing.{available}"
        self.fix = f"{self.hint} {fix}" if self.hint else fix


@dataclass(frozen=True, slots=True)
class Problem:
    """Something an editor shows under a formula while it is being written."""

    code: str
    message: str
    fix: str | None = None
    position: Position | None = None
    severity: Literal["error", "warning"] = "error"


def wrong_type(message: str, fix: str | None = None) -> FormulaError:
    """A value has a kind that cannot be used here."""
    return FormulaError(message, code="formula.type", fix=fix)


def wrong_value(message: str, fix: str | None = None) -> FormulaError:
    """The kind is right but the value cannot be used (a division by zero, a text that is no number)."""
    return FormulaError(message, code="formula.value", fix=fix)


def too_much(message: str, fix: str | None = None) -> FormulaError:
    """The formula asks for more work or a bigger result than one evaluation may."""
    return FormulaError(message, code="formula.budget", fix=fix)


def forbidden(message: str, fix: str | None, span: Span) -> NoReturn:
    """Refuse something that the language does not have."""
    raise FormulaError(message, code="formula.forbidden", fix=fix, span=span)


def short(text: str, limit: int = 60) -> str:
    """A text that fits in a sentence."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def nearest(name: str, known: Iterable[Any]) -> str | None:
    """The known name that was probably meant."""
    names = [other for other in list(known)[:300] if isinstance(other, str) and len(other) <= 80]
    lowered = {other.lower(): other for other in names}
    if name.lower() in lowered:
        return lowered[name.lower()]
    close = difflib.get_close_matches(name.lower()[:80], lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def unknown_name(name: str, known: Iterable[Any], owner: str | None = None, hint: str | None = None) -> Missing:
    """The error for a name that is not there among those known."""
    error = Missing(f"Unknown name `{short(name)}`.")
    error.suspect, error.hint = (name, known, owner), hint
    return error
