"""The fixed table of functions: the only things a formula can call, each with its help.

One entry serves all three ways of writing a call: `name | upper`, `upper(name)` and `name.upper()`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from nodes.formula.problems import FormulaError, Span, nearest, wrong_type
from nodes.formula.values import a_kind

Each = Callable[[Any], Any]
"""A setting that is a field name or a formula, worked out for each item of a list."""

KINDS: Mapping[str, frozenset[type]] = {
    "text": frozenset({str}),
    "number": frozenset({int, float}),
    "yes/no": frozenset({bool}),
    "list": frozenset({list}),
    "record": frozenset({dict}),
    "moment": frozenset({str, int, float}),
    "nothing": frozenset({NoneType}),
}
_REQUIRED = inspect.Parameter.empty
UNSET: Any = object()
"""The default of a setting whose absence differs from any value, nothing included."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing a function wants besides its value."""

    name: str
    default: Any = _REQUIRED
    each: bool = False
    many: bool = False

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is _REQUIRED and not self.many


@dataclass(frozen=True, slots=True)
class Function:
    """One entry of the table."""

    name: str
    group: str
    run: Callable[..., Any]
    takes: tuple[str, ...] | None
    """The kinds of value it works on; None when it works on no value, such as `now()`."""
    accepts: frozenset[type] | None
    """The Python types of those kinds; None for any."""
    settings: tuple[Setting, ...]
    returns: str
    keywords: Mapping[str, str]
    aliases: tuple[str, ...]
    sentence: str
    example: str
    result: Any

    @property
    def signature(self) -> str:
        """How to write it as a filter, or as a call when it takes no value."""
        parts = []
        for setting in self.settings:
            if setting.many:
                parts.append(f"{setting.name}, …")
            elif setting.required:
                parts.append(setting.name)
            else:
                shown = "" if setting.default is None or setting.default is UNSET else f"={_shown(setting.default)}"
                parts.append(f"{setting.name}{shown}" if shown else f"[{setting.name}]")
        inside = ", ".join(parts)
        if self.takes is None:
            return f"{self.name}({inside})"
        return f"{' or '.join(self.takes)} | {self.name}" + (f"({inside})" if inside else "")

    def wrong(self, value: Any) -> FormulaError:
        """The sentence for a value of a kind it does not work on."""
        wanted = " or ".join(_article(kind) for kind in self.takes or ())
        return wrong_type(f"`{self.name}` needs {wanted}, but got {a_kind(value)}.", _advice(self.takes or (), value))


@dataclass(frozen=True, slots=True)
class FunctionHelp:
    """What a person reads about a function while writing a formula."""

    name: str
    group: str
    signature: str
    sentence: str
    example: str
    result: Any
    aliases: tuple[str, ...] = field(default=())


_FUNCTIONS: dict[str, Function] = {}
_BY_ANY_NAME: dict[str, Function] = {}


def function(
    group: str,
    takes: str | None,
    example: str,
    result: Any,
    *,
    returns: str = "any",
    aliases: tuple[str, ...] = (),
    keywords: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the table; its docstring is its help, its parameters after the value are its settings."""
    kinds = tuple(takes.split(" or ")) if takes else None

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        name = run.__name__.rstrip("_")
        parameters = list(inspect.signature(run).parameters.values())[1 if kinds is None else 2 :]
        settings = tuple(
            Setting(
                parameter.name.rstrip("_"),
                parameter.default,
                each=parameter.annotation in (Each, Each | None),
                many=parameter.kind is inspect.Parameter.VAR_POSITIONAL,
            )
            for parameter in parameters
        )
        accepts = None if kinds is None or "any" in kinds else frozenset().union(*(KINDS[kind] for kind in kinds))
        sentence = " ".join((run.__doc__ or "").split())
        entry = Function(
            name, group, run, kinds, accepts, settings, returns, keywords or {}, aliases, sentence, example, result
        )
        for known in (name, *aliases):
            assert known not in _BY_ANY_NAME, known
            _BY_ANY_NAME[known] = entry
        _FUNCTIONS[name] = entry
        return run

    return enter


def find(name: str) -> Function | None:
    """The function with this name or alias."""
    return _BY_ANY_NAME.get(name)


def get(name: str, span: Span) -> Function:
    """The function with this name or alias, or the error that says which one was probably meant."""
    entry = _BY_ANY_NAME.get(name)
    if entry is None:
        guess = nearest(name, _BY_ANY_NAME)
        raise FormulaError(
            f"There is no function `{name[:60]}`" + (f", did you mean `{guess}`?" if guess else "."),
            code="formula.unknown_function",
            fix=f"Write `{guess}`." if guess else "The list of functions is in the help next to the formula.",
            span=span,
        )
    return entry


def functions() -> Iterator[Function]:
    """All functions, in the order of the help."""
    yield from _FUNCTIONS.values()


def help_table() -> tuple[FunctionHelp, ...]:
    """The help of all functions."""
    return tuple(
        FunctionHelp(
            entry.name, entry.group, entry.signature, entry.sentence, entry.example, entry.result, entry.aliases
        )
        for entry in functions()
    )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    return f'"{default}"' if isinstance(default, str) else str(default)


def _article(kind: str) -> str:
    return kind if kind in ("nothing", "any") else f"a {kind}"


def _advice(kinds: tuple[str, ...], value: Any) -> str:
    if value is None:
        return "The value is empty: add `| default(…)` before it."
    if "text" in kinds and type(value) in KINDS["number"] | KINDS["yes/no"]:
        return "Turn it into a text first with `| text`."
    if kinds == ("number",) and type(value) is str:
        return "Turn the text into a number first with `| number`."
    if "list" in kinds and type(value) is dict:
        return "To go through a record, write `| values` or `| items` first."
    if type(value) is list:
        return 'To do this with each item of a list, write `| map("item | …")`.'
    if type(value) is dict:
        return "Choose a field of the record: write its name after a dot."
    return "Check which value arrives here."
