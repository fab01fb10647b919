"""What a text becomes: a compiled formula, or a compiled text with formulas in `{{ … }}`, ready to be evaluated often."""

import functools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import nodes

from nodes.formula.build import Builder, Run
from nodes.formula.meter import Budget, Meter, metered
from nodes.formula.parse import LONGEST, parse
from nodes.formula.problems import FormulaError, Span, too_much, wrong_value
from nodes.formula.values import PLAIN, plain, to_text

LONGEST_TEXT = 200_000
_BLOCKS = (
    "if",
    "for",
    "set",
    "else",
    "elif",
    "endif",
    "endfor",
    "macro",
    "include",
    "import",
    "block",
    "extends",
    "raw",
)
_CONTAINERS = frozenset({list, dict})


class Compiled:
    """A formula ready to be worked out. Immutable and safe to share between threads."""

    __slots__ = ("_owned", "_run", "names", "paths", "text")

    def __init__(self, text: str, run: Run, names: tuple[str, ...], paths: tuple[str, ...], owned: bool) -> None:
        self.text = text
        self.names = names
        """The names it uses from the scope, in order of appearance."""
        self.paths = paths
        """The full dotted paths it uses."""
        self._run = run
        self._owned = owned  # whether its result is made here: what is only passed on needs no weighing

    def __repr__(self) -> str:
        return f"Compiled({self.text!r})"

    def evaluate(self, scope: Mapping[str, Any], *, budget: Budget | None = None, now: datetime | None = None) -> Any:
        """The formula's value in a scope, as plain JSON data; raises FormulaError and nothing else."""
        meter = Meter() if budget is None and now is None else metered(budget, now)
        try:
            value = self._run(scope, meter)
            kind = type(value)
            if kind in _CONTAINERS:
                if self._owned:
                    meter.weigh(value)
            elif kind not in PLAIN:
                value = plain(value)
        except FormulaError as error:
            raise error.located(self.text)  # noqa: B904 - the same error, with its place
        except Exception as error:
            raise _unexpected(error) from error
        return value


class CompiledText:
    """A text with formulas in it, ready to be filled in. Immutable and safe to share between threads."""

    __slots__ = ("_literals", "_only", "_runs", "names", "paths", "text")

    def __init__(self, text: str, parts: list[str | Compiled]) -> None:
        self.text = text
        formulas = [part for part in parts if isinstance(part, Compiled)]
        self.names = tuple(dict.fromkeys(name for formula in formulas for name in formula.names))
        """The names its formulas use from the scope."""
        self.paths = tuple(dict.fromkeys(path for formula in formulas for path in formula.paths))
        """The full dotted paths its formulas use."""
        self._only = formulas[0] if len(parts) == 1 and formulas else None
        self._literals = [part if isinstance(part, str) else "" for part in parts]
        self._runs = [(index, part._run) for index, part in enumerate(parts) if isinstance(part, Compiled)]

    def __repr__(self) -> str:
        return f"CompiledText({self.text!r})"

    @property
    def is_plain(self) -> bool:
        """Whether it holds no formula at all."""
        return not self._runs

    def evaluate(self, scope: Mapping[str, Any], *, budget: Budget | None = None, now: datetime | None = None) -> Any:
        """The filled-in text; if the whole text is one `{{ … }}`, its value with its own kind."""
        if not self._runs:
            return self.text
        if self._only is not None:
            try:
                return self._only.evaluate(scope, budget=budget, now=now)
            except FormulaError as error:
                raise error.located(self.text)  # noqa: B904 - the same error, with its place
        meter = Meter() if budget is None and now is None else metered(budget, now)
        parts = self._literals.copy()
        try:
            for index, run in self._runs:
                value = run(scope, meter)
                parts[index] = text = value if type(value) is str else to_text(value, meter)
                meter.size -= len(text)
                if meter.size < 0:
                    meter.make(0)
        except FormulaError as error:
            raise error.located(self.text)  # noqa: B904 - the same error, with its place
        except Exception as error:
            raise _unexpected(error) from error
        return "".join(parts)


@functools.lru_cache(maxsize=2048)
def compile_formula(text: str) -> Compiled:
    """Compile a formula; the same text gives the same object."""
    try:
        return _compiled(text, text, 0)
    except FormulaError as error:
        raise error.located(text)  # noqa: B904 - the same error, with its place


@functools.lru_cache(maxsize=1024)
def compile_text(text: str) -> CompiledText:
    """Compile a text with formulas in `{{ … }}`; the same text gives the same object."""
    if len(text) > LONGEST_TEXT:
        raise too_much(
            f"This text is too long: {len(text):,} of at most {LONGEST_TEXT:,} characters.",
            "Split it over several nodes.",
        )
    parts: list[str | Compiled] = []
    try:
        for part, span in pieces(text):
            parts.append(part if span is None else _compiled(part, text, span[0]))
    except FormulaError as error:
        raise error.located(text)  # noqa: B904 - the same error, with its place
    return CompiledText(text, parts or [""])


def pieces(text: str) -> list[tuple[str, Span | None]]:
    """A text cut into literal parts (without a span) and formulas (with their place, braces left out)."""
    out: list[tuple[str, Span | None]] = []
    at = 0
    eat_space = False
    while True:
        start = text.find("{{", at)
        literal = text[at : start if start >= 0 else len(text)]
        _no_blocks(literal, at)
        if eat_space:
            literal = literal.lstrip()
        if start < 0:
            if literal:
                out.append((literal, None))
            return out
        inside = start + 2
        if text.startswith("-", inside) and text[inside + 1 : inside + 2].isspace():
            literal, inside = literal.rstrip(), inside + 1
        end = _end(text, start + 2)
        at = end + 2
        eat_space = end > inside and text[end - 1] == "-"
        if literal:
            out.append((literal, None))
        end -= eat_space
        out.append((text[inside:end], (inside, end)))


def _end(text: str, start: int) -> int:
    """Where the `}}` stands that closes a formula, past quotes and the braces of records."""
    depth, quote, at = 0, "", start
    while at < len(text):
        sign = text[at]
        if at - start > LONGEST + 2:
            raise too_much(
                f"A formula in `{{{{ … }}}}` may have up to {LONGEST:,} characters.", "Split it over several nodes."
            ).at((start - 2, start))
        if quote:
            if sign == "\\":
                at += 1
            elif sign == quote:
                quote = ""
        elif sign in "\"'":
            quote = sign
        elif sign == "{":
            depth += 1
        elif sign == "}":
            if depth == 0 and text.startswith("}}", at):
                return at
            depth = max(depth - 1, 0)
        at += 1
    reason = "a text in it is not closed by a quote" if quote else "`}}` is missing"
    raise FormulaError(
        f"A `{{{{` is not closed: {reason}.",
        code="formula.syntax",
        fix='Close it; to write the braces themselves use `{{ "{{" }}`.',
        span=(start - 2, start),
    )


def _no_blocks(literal: str, offset: int) -> None:
    start = literal.find("{%")
    while start >= 0:
        word = literal[start + 2 : start + 40].lstrip("-+ \t\n")
        if word.startswith(_BLOCKS):
            raise FormulaError(
                "Blocks such as `{% if %}` do not exist in texts.",
                code="formula.forbidden",
                fix='Write `{{ a if condition else b }}`; for lists `{{ items | map("…") | join(", ") }}`.',
                span=(offset + start, offset + start + 2),
            )
        start = literal.find("{%", start + 2)


def _compiled(formula: str, source: str, offset: int) -> Compiled:
    try:
        tree = parse(formula)
    except FormulaError as error:
        start, end = error.span or (0, len(formula))
        error.span = start + offset, end + offset
        raise
    builder = Builder(tree, None, offset)
    try:
        run = builder.run()
    except RecursionError:
        raise too_much("This formula is nested too deeply.", "Split it over several nodes.") from None
    passed_on = isinstance(tree.root, nodes.Name | nodes.Getattr | nodes.Getitem | nodes.Const)
    return Compiled(source, run, tuple(builder.names), tuple(builder.paths), not passed_on)


def _unexpected(error: Exception) -> FormulaError:
    if isinstance(error, RecursionError):
        return too_much("The data is nested too deeply for this formula.", "Work on a part of it.")
    if isinstance(error, MemoryError):
        return too_much("The result of this formula is too big.", "Work on less at a time.")
    if isinstance(error, UnicodeError):
        return wrong_value("A text here contains a broken character.", "Repair the text before it arrives here.")
    return FormulaError(
        "This formula cannot be worked out with these values.",
        code="formula.internal",
        fix="Check the values that arrive here; the kind of the problem is " + type(error).__name__ + ".",
    )
