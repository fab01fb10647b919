"""What compiled modules stand on: each definition here is copied into the modules that use it, and nothing else of it.

Where a compiled module needs less than the product does (no places in formulas, no budgets), the definition here takes the
place of the product's own of the same name; `INSTEAD` says which.
"""

import asyncio
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from nodes.formula.functions.dates import in_zone
from nodes.formula.meter import Meter
from nodes.formula.table import KINDS, _advice, _article
from nodes.formula.values import LARGEST, NUMBERS, a_kind, by_order, cannot, checked, contains, same, to_text

_LIMITLESS = 2**62


class FactoryError(Exception):
    """Something that can be explained: a sentence, and a fix."""

    code = "factory.error"

    def __init__(self, message: str, *, code: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.fix = fix


class NodeError(FactoryError):
    """A step failed; the error says whether to try again and how many seconds later."""

    code = "step.failed"

    def __init__(
        self,
        message: str,
        *,
        retry: bool = False,
        after: float | None = None,
        category: str = "input",
        fix: str | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, fix=fix, code=code or f"step.{category}")
        self.retry = retry
        self.after = after
        self.category = category
        self.details = dict(details or {})


class FormulaError(FactoryError):
    """A formula cannot be worked out with these values."""

    code = "formula.error"

    @property
    def category(self) -> str:
        """Whether what arrived is the trouble, or the formula."""
        said = self.code.removeprefix("formula.")
        return "input" if said in ("type", "value", "unknown_name", "unknown_item", "empty") else "configuration"


class Missing(FormulaError):
    """A name, field or item is not there; `default` and `defined` catch exactly this."""

    code = "formula.unknown_name"


def unknown_name(name: str, known: object = None, owner: str | None = None, hint: str | None = None) -> Missing:
    """The error for a name that is not there."""
    place = f" in `{owner}`" if owner else ""
    return Missing(f"Unknown name `{name}`{place}.", fix="Check the spelling.")


def nearest(name: str, known: object) -> str | None:
    """The known name that was probably meant; compiled modules do not guess."""
    return None


class Unlimited:
    """The factory limits what a formula may cost; a module of your own is not limited."""

    steps = _LIMITLESS
    size = _LIMITLESS

    def step(self, count: int = 1) -> None:
        """Work is free here."""

    def make(self, size: int) -> None:
        """So is memory."""

    def read(self, length: int) -> None:
        """So is reading."""

    def weigh(self, value: Any) -> None:
        """So are big values."""

    def now(self) -> datetime:
        """The present moment."""
        return datetime.now(UTC)


def function(name: str, *kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that formulas call, with the kinds of value it works on."""

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(run)
        def call(*given: Any) -> Any:
            if given and isinstance(given[0], Meter):
                return run(*given)
            if kinds:
                fits(given[0], name, *kinds)
            return run(Meter(), *given)

        return call

    return enter


def fits(value: Any, name: str, *kinds: str) -> Any:
    """The value when it is of a kind that the function of this name works on."""
    if "any" not in kinds and not any(type(value) in KINDS[kind] for kind in kinds):
        wanted = " or ".join(_article(kind) for kind in kinds)
        raise FormulaError(
            f"`{name}` needs {wanted}, but got {a_kind(value)}.", code="formula.type", fix=_advice(kinds, value)
        )
    return value


# --- what formulas are made of -----------------------------------------------------------------------------------------


def field(value: Any, name: str, *more: str) -> Any:
    """The field of a record, and the fields inside it."""
    if type(value) is not dict or name not in value:
        raise unknown_name(name)
    return part(value[name], name, *more) if more else value[name]


def part(value: Any, owner: str, *names: str) -> Any:
    """What is inside a value, field by field; `owner` is what an error calls it."""
    for name in names:
        if type(value) is dict:
            if name not in value:
                raise unknown_name(name, owner=owner)
            value = value[name]
        elif value is None:
            raise Missing(
                f"`{owner}` is empty (nothing), so it has no `{name}`.",
                fix="Add `| default(…)` at the end, or check it first with `is defined`.",
            )
        elif type(value) in (list, str) and name in ("length", "first", "last"):
            value = len(value) if name == "length" else edge(value, name)
        else:
            raise FormulaError(f"`{owner}` is {a_kind(value)}, so it has no field `{name}`.", code="formula.type")
        owner = f"{owner}.{name}"
    return value


def edge(value: Any, which: str) -> Any:
    """The first or last item."""
    if not value:
        raise Missing(f"There is no {which} item: it is empty.", code="formula.empty", fix="Add `| default(…)`.")
    return value[0 if which == "first" else -1]


def named(value: Any, name: str, otherwise: Any) -> Any:
    """The field of what arrived, or what the name means otherwise."""
    return value[name] if type(value) is dict and name in value else otherwise


def field_of_either(name: str, *values: Any) -> Any:
    """The field of the first of these that has it."""
    for value in values:
        if type(value) is dict and name in value:
            return value[name]
    raise unknown_name(name)


def of_item(item: Any, name: str, work: Callable[[Any], Any]) -> Any:
    """A field of an item, or, of an item that is no record, what the function of that name makes of it."""
    return work(item) if type(item) is not dict else field_of(item, name)


def field_of(item: Any, *names: str) -> Any:
    """A field of an item."""
    return part(item, "item", *names)


def at(value: Any, index: Any) -> Any:
    """An item by its position, or a field by a name that is worked out."""
    kind = type(value)
    if kind is dict and type(index) is str:
        if index in value:
            return value[index]
        raise unknown_name(index)
    if kind in (list, str) and type(index) is int:
        if -len(value) <= index < len(value):
            return value[index]
        raise Missing(
            f"There is no item {index}: the {'list' if kind is list else 'text'} has {len(value):,}.",
            code="formula.unknown_item",
            fix="Positions count from 0. Add `| default(…)` if it may be missing.",
        )
    if value is None:
        raise Missing("This value is empty (nothing), so it has no items.", fix="Add `| default(…)`.")
    raise FormulaError(f"I cannot take {a_kind(index)} as a position or name in {a_kind(value)}.", code="formula.type")


def cut(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """A part of a list or text."""
    if type(value) is not list and type(value) is not str:
        raise FormulaError(f"I cannot cut a part out of {a_kind(value)}.", code="formula.type")
    if any(end is not None and type(end) is not int for end in (start, stop, step)):
        raise FormulaError("The ends of a part must be whole numbers.", code="formula.type")
    if step == 0:
        raise FormulaError("The step must not be 0.", code="formula.value", fix="Leave it out.")
    return value[start:stop:step]


def calculate(left: Any, sign: str, right: Any) -> Any:
    """`left sign right` with numbers; `+` also joins two texts or two lists, `*` repeats a text."""
    if sign == "**":
        return _power(left, right)
    kinds = type(left), type(right)
    if kinds[0] in NUMBERS and kinds[1] in NUMBERS:
        for number in (left, right):
            if type(number) is int and not -LARGEST <= number <= LARGEST:
                raise FormulaError("A number here is too big to calculate with.", code="formula.value")
        try:
            return checked(_worked_out(left, sign, right))
        except ZeroDivisionError:
            raise FormulaError(
                "This divides by zero.", code="formula.value", fix="Check the number first: `a / b if b else 0`."
            ) from None
    if sign == "+" and kinds in ((str, str), (list, list)):
        return left + right
    if sign == "*" and kinds in ((str, int), (int, str)):
        text, times = (left, right) if kinds[0] is str else (right, left)
        return text * max(times, 0)
    verb, joiner = {"+": ("add", "and"), "-": ("subtract", "and"), "*": ("multiply", "and")}.get(sign, ("divide", "by"))
    raise cannot(verb, left, right, joiner)


def _worked_out(left: Any, sign: str, right: Any) -> Any:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right
        case "//":
            return left // right
    return left % right


def _power(left: Any, right: Any) -> Any:
    if type(left) not in NUMBERS or type(right) not in NUMBERS:
        raise cannot("raise", left, right, "to the power of")
    whole = type(left) is int and type(right) is int and right > 0 and abs(left) > 1
    if whole and (right > 63 or left.bit_length() * right > 200):
        return checked(LARGEST + 1)
    if left < 0 and type(right) is float and not right.is_integer():
        raise FormulaError("A root of a negative number is not an ordinary number.", code="formula.value")
    try:
        return checked(left**right)
    except OverflowError:
        return checked(LARGEST + 1)
    except ZeroDivisionError:
        raise FormulaError("This divides by zero.", code="formula.value") from None


def compare(left: Any, sign: str, right: Any) -> bool:
    """`left sign right`: two numbers or two texts in order, anything for equality and for `in`."""
    match sign:
        case "==":
            return same(left, right, Meter())
        case "!=":
            return not same(left, right, Meter())
        case "in":
            return contains(right, left, Meter())
        case "not in":
            return not contains(right, left, Meter())
    if type(left) is str and type(right) is str:
        left, right = by_order(left, right)
    elif not (type(left) in NUMBERS and type(right) in NUMBERS):
        raise cannot("compare", left, right)
    match sign:
        case "<":
            return bool(left < right)
        case "<=":
            return bool(left <= right)
        case ">":
            return bool(left > right)
    return bool(left >= right)


def minus(number: Any) -> Any:
    """The number with the other sign."""
    return checked(-plus(number, "minus"))


def plus(number: Any, sign: str = "plus") -> Any:
    """The number itself."""
    if type(number) not in NUMBERS:
        raise FormulaError(f"A {sign} sign needs a number, not {a_kind(number)}.", code="formula.type")
    return number


def joined(*parts: Any) -> str:
    """All parts as one text."""
    return "".join(to_text(part, Meter()) for part in parts)


def default(value: Callable[[], Any], other: Callable[[], Any], empty_too: bool = False) -> Any:
    """The value, or the other one when it is missing or nothing; if wanted also when it is empty."""
    try:
        found = value()
    except Missing:
        return other()
    return other() if found is None or (empty_too and not found) else found


def defined(value: Callable[[], Any]) -> bool:
    """Whether all that the value is made of is there."""
    try:
        value()
    except Missing:
        return False
    return True


def on_clock(moment: str, where: str) -> Any:
    """A moment on the clock of a time zone; days are days everywhere."""
    return moment if len(moment) == 10 else in_zone(moment, where)


# --- what steps are made of ----------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """A value as it looks inside a text."""
    return to_text(value, Meter())


def yes_or_no(answer: Any, what: str = "The condition") -> bool:
    """The answer of a condition. Raises NodeError when it is neither yes nor no."""
    if not isinstance(answer, bool):
        raise NodeError(
            f"{what} gives {a_kind(answer)}, and it must give yes or no.",
            fix="Compare with something, as in `total > 1000`.",
        )
    return answer


def this_run(agent: str) -> dict[str, Any]:
    """What formulas know of a run."""
    about = {"id": uuid.uuid4().hex, "started_at": time.time(), "sandbox": False}
    return {**about, "agent": agent, "environment": "live"}


def explained(error: Exception, node: str, name: str) -> dict[str, Any]:
    """A failure as the record that an “error” port gives."""
    if isinstance(error, NodeError):
        found = {"code": error.code, "message": error.message, "fix": error.fix, "where": {"node": node}}
        return found | {"category": error.category} | ({"details": error.details} if error.details else {})
    if isinstance(error, FormulaError):
        return {
            "code": error.code,
            "message": error.message,
            "fix": error.fix,
            "where": {"node": node},
            "category": error.category,
        }
    return {
        "code": "step.bug",
        "message": f"“{name}” failed in a way that was not foreseen ({type(error).__name__}).",
        "fix": None,
        "where": {"node": node},
        "category": "bug",
    }


@contextmanager
def item_of(name: str, index: int, what: str = "Item") -> Iterator[None]:
    """An item that fails says which of the loop it was; so does a round."""
    try:
        yield
    except FactoryError as error:
        error.message = f"{what} {index + 1} of “{name}” failed: {error.message}"
        error.args = (error.message,)
        raise


async def again(
    work: Callable[[], Awaitable[Any]], tries: int, pause: float, longest: float, only: Sequence[str] = ()
) -> Any:
    """Try a step again while its error says that this can help, with pauses that double."""
    for number in range(tries):
        try:
            return await work()
        except NodeError as error:
            if not (error.category in only if only else error.retry):
                raise
            wished = pause * 2**number if error.after is None else error.after
            await asyncio.sleep(min(longest, wished))
    return await work()


async def side_by_side(work: Callable[[int, Any], Awaitable[list[Any]]], members: list[Any], at_once: int) -> list[Any]:
    """Do something for each member, several at once; what comes back, in the order of the members."""
    free = asyncio.Semaphore(at_once)

    async def one(index: int, member: Any) -> list[Any]:
        async with free:
            return await work(index, member)

    found = await asyncio.gather(*(one(index, member) for index, member in enumerate(members)))
    return [result for results in found for result in results]


def result_of(ends: Mapping[str, Any]) -> Any:
    """What the last steps gave: the value itself when it was one step, else all by name."""
    return next(iter(ends.values())) if len(ends) == 1 else dict(ends) or None


def given_by(ports: Mapping[str, Any]) -> Any:
    """What a step gave: the value itself when it left by one port, else all by the names of the ports."""
    return next(iter(ports.values())) if len(ports) == 1 else dict(ports)


INSTEAD: Mapping[tuple[str, str], str] = {
    ("nodes.errors", "FactoryError"): "FactoryError",
    ("nodes.base", "NodeError"): "NodeError",
    ("nodes.formula.problems", "FormulaError"): "FormulaError",
    ("nodes.formula.problems", "Missing"): "Missing",
    ("nodes.formula.problems", "unknown_name"): "unknown_name",
    ("nodes.formula.problems", "nearest"): "nearest",
    ("nodes.formula.meter", "Meter"): "Unlimited",
    ("nodes.formula.table", "function"): "function",
    ("nodes.texts", "as_text"): "as_text",
}
"""What takes the place of what in a compiled module."""
