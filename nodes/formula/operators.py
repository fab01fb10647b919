"""The closures of operators, indexes and calls: each checks the kinds it is given and says what does not fit."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from nodes.formula.meter import Meter
from nodes.formula.problems import FormulaError, Missing, Span, unknown_name, wrong_type, wrong_value
from nodes.formula.table import Function
from nodes.formula.values import LARGEST, NUMBERS, a_kind, by_order, cannot, checked, contains, plain, same

Run = Callable[[Any, Meter], Any]

_SAFE = 1e15
_VERBS: Mapping[str, tuple[str, str]] = {
    "Add": ("add", "and"),
    "Sub": ("subtract", "and"),
    "Mul": ("multiply", "and"),
    "Div": ("divide", "by"),
    "FloorDiv": ("divide", "by"),
    "Mod": ("divide", "by"),
    "Pow": ("raise", "to the power of"),
}
_PLAIN_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
    "Mod": operator.mod,
}
_ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


def arithmetic(name: str, left: Run, right: Run, constant: Any, span: Span) -> Run:
    """`+ - * / // % **`, with a short way for the commonest: a value and a written number."""
    slow = _slow_power if name == "Pow" else _slow
    work = _PLAIN_ARITHMETIC.get(name)

    def anything(a: Any, b: Any, meter: Meter) -> Any:
        try:
            return slow(name, a, b, meter)
        except ZeroDivisionError:
            raise wrong_value("This divides by zero.", "Check the number first: `a / b if b else 0`.").at(
                span
            ) from None
        except FormulaError as error:
            raise error.at(span)  # noqa: B904 - the same error, with its place

    if work is None:
        return lambda scope, meter: anything(left(scope, meter), right(scope, meter), meter)
    if type(constant) in NUMBERS and constant:
        # A written number needs no check, and one that is not zero divides.
        def by_number(scope: Any, meter: Meter) -> Any:
            a = left(scope, meter)
            kind = type(a)
            if kind is float or kind is int:
                try:
                    result = work(a, constant)
                except OverflowError:
                    return anything(a, constant, meter)
                if -_SAFE < result < _SAFE:
                    return result
            return anything(a, constant, meter)

        return by_number

    def run(scope: Any, meter: Meter) -> Any:
        return anything(left(scope, meter), right(scope, meter), meter)

    return run


def _slow(name: str, a: Any, b: Any, meter: Meter) -> Any:
    kind, other = type(a), type(b)
    if kind in NUMBERS and other in NUMBERS:
        if (kind is int and not -LARGEST <= a <= LARGEST) or (other is int and not -LARGEST <= b <= LARGEST):
            raise wrong_value("A number here is too big to calculate with.", "Whole numbers may have up to 18 digits.")
        return checked(_PLAIN_ARITHMETIC[name](a, b))
    if name == "Add":
        if kind is str and other is str:
            meter.make(len(a) + len(b))
            return a + b
        if kind is list and other is list:
            meter.step(len(a) + len(b))
            meter.make(16 * (len(a) + len(b)))
            return a + b
    if name == "Mul":
        if other is str and kind is int:
            a, b, kind, other = b, a, other, kind
        if kind is str and other is int:
            meter.make(len(a) * max(b, 0))
            return a * max(b, 0)
    foreign, stranger = plain(a), plain(b)
    if type(foreign) is not kind or type(stranger) is not other:
        return _slow(name, foreign, stranger, meter)
    raise cannot(_VERBS[name][0], a, b, _VERBS[name][1])


def _slow_power(name: str, a: Any, b: Any, meter: Meter) -> Any:
    if type(a) not in NUMBERS or type(b) not in NUMBERS:
        raise cannot(*_VERBS["Pow"][:1], a, b, _VERBS["Pow"][1])
    if type(a) is int and type(b) is int and b > 0 and abs(a) > 1 and (b > 63 or a.bit_length() * b > 200):
        return checked(LARGEST + 1)
    if a < 0 and type(b) is float and not b.is_integer():
        raise wrong_value("A root of a negative number is not an ordinary number.", "Take `| abs` first.")
    try:
        return checked(a**b)
    except OverflowError:
        return checked(LARGEST + 1)


def signed(minus: bool, value: Run, span: Span) -> Run:
    """A sign before a number."""

    def run(scope: Any, meter: Meter) -> Any:
        number = value(scope, meter)
        if type(number) not in NUMBERS:
            sign = "minus" if minus else "plus"
            raise wrong_type(f"A {sign} sign needs a number, not {a_kind(number)}.", "Add `| number`.").at(span)
        return checked(-number) if minus else number

    return run


def comparison(sign: str, left: Run, right: Run, constant: Any, span: Span) -> Run:
    """One comparison, with short ways for the commonest kinds of values."""
    if sign in _ORDER:
        order = _ORDER[sign]
        if type(constant) in NUMBERS:

            def with_number(scope: Any, meter: Meter) -> Any:
                a = left(scope, meter)
                kind = type(a)
                if kind is float or kind is int:
                    return order(a, constant)
                raise cannot("compare", a, constant).at(span)

            return with_number

        def ordered(scope: Any, meter: Meter) -> Any:
            a, b = left(scope, meter), right(scope, meter)
            kind, other = type(a), type(b)
            if kind in NUMBERS and other in NUMBERS:
                return order(a, b)
            return _order(sign, plain(a), plain(b), span)

        return ordered
    if sign in ("eq", "ne") and type(constant) is str:
        wanted = sign == "eq"
        return lambda scope, meter: (left(scope, meter) == constant) is wanted
    compare = _COMPARE[sign]

    def run(scope: Any, meter: Meter) -> Any:
        try:
            return compare(left(scope, meter), right(scope, meter), meter)
        except FormulaError as error:
            raise error.at(span)  # noqa: B904 - the same error, with its place

    return run


def comparisons(first: Run, rest: list[tuple[str, Run]], span: Span) -> Run:
    """Comparisons in a row: each between neighbours, stopping at the first that does not hold."""

    def run(scope: Any, meter: Meter) -> Any:
        a = first(scope, meter)
        for sign, value in rest:
            b = value(scope, meter)
            try:
                held = _order(sign, a, b, span) if sign in _ORDER else _COMPARE[sign](a, b, meter)
            except FormulaError as error:
                raise error.at(span)  # noqa: B904 - the same error, with its place
            if not held:
                return False
            a = b
        return True

    return run


def _order(sign: str, a: Any, b: Any, span: Span) -> bool:
    kind, other = type(a), type(b)
    if kind in NUMBERS and other in NUMBERS:
        return bool(_ORDER[sign](a, b))
    if kind is str and other is str:
        return bool(_ORDER[sign](*by_order(a, b)))
    raise cannot("compare", a, b).at(span)


_COMPARE: Mapping[str, Callable[[Any, Any, Meter], bool]] = {
    "eq": same,
    "ne": lambda a, b, meter: not same(a, b, meter),
    "in": lambda a, b, meter: contains(b, a, meter),
    "notin": lambda a, b, meter: not contains(b, a, meter),
}


def listed(items: list[Run]) -> Run:
    """A list of what each part gives."""

    def run(scope: Any, meter: Meter) -> Any:
        meter.make(16 * len(items))
        return [item(scope, meter) for item in items]

    return run


def recorded(pairs: list[tuple[str, Run]]) -> Run:
    """A record of what each part gives."""

    def run(scope: Any, meter: Meter) -> Any:
        meter.make(32 * len(pairs))
        return {key: value(scope, meter) for key, value in pairs}

    return run


def edge(value: Any, which: str, span: Span) -> Any:
    """The first or last item."""
    if not value:
        message = f"There is no {which} item: it is empty."
        raise Missing(message, code="formula.empty", fix="Add `| default(…)`.", span=span)
    return value[0 if which == "first" else -1]


def item(owner: Run, index: Run, span: Span) -> Run:
    """An item by its position, or a field by a name that is worked out."""

    def run(scope: Any, meter: Meter) -> Any:
        value, at = plain(owner(scope, meter)), index(scope, meter)
        kind = type(value)
        if kind is dict and type(at) is str:
            if at in value:
                return value[at]
            raise unknown_name(at, value).at(span)
        if (kind is list or kind is str) and type(at) is int:
            if -len(value) <= at < len(value):
                return value[at]
            message = f"There is no item {at}: the {'list' if kind is list else 'text'} has {len(value):,}."
            fix = "Positions count from 0. Add `| default(…)` if it may be missing."
            raise Missing(message, code="formula.unknown_item", fix=fix, span=span)
        if value is None:
            raise Missing("This value is empty (nothing), so it has no items.", fix="Add `| default(…)`.", span=span)
        message = f"I cannot take {a_kind(at)} as a position or name in {a_kind(value)}."
        raise wrong_type(message, 'Lists have positions (`items[0]`), records have names (`order["total"]`).').at(span)

    return run


def cut(owner: Run, start: Run, stop: Run, step: Run, span: Span) -> Run:
    """A slice of a list or text."""

    def run(scope: Any, meter: Meter) -> Any:
        value = owner(scope, meter)
        edges = [part(scope, meter) for part in (start, stop, step)]
        if type(value) is not list and type(value) is not str:
            raise wrong_type(f"I cannot cut a part out of {a_kind(value)}.", "Only lists and texts have parts.").at(
                span
            )
        if any(part is not None and type(part) is not int for part in edges):
            raise wrong_type("The ends of a part must be whole numbers.", "Write for example `items[0:3]`.").at(span)
        if edges[2] == 0:
            raise wrong_value("The step must not be 0.", "Leave it out.").at(span)
        meter.make(len(value))
        return value[edges[0] : edges[1] : edges[2]]

    return run


def for_each(run: Run, cost: int) -> Run:
    """A formula that a function works out for each item; each time costs the steps it is long."""

    if cost == 1:  # a name: the function has paid for looking at the item
        return lambda scope, meter: lambda value: run((value, scope), meter)

    def bind(scope: Any, meter: Meter) -> Any:
        def each(value: Any) -> Any:
            meter.steps -= cost
            if meter.steps < 0:
                meter.step()
            return run((value, scope), meter)

        return each

    return bind


def called(entry: Function, value: Run | None, settings: list[Run], span: Span) -> Run:
    """A call of a function of the table."""
    work, accepts = entry.run, entry.accepts
    if value is None:

        def without_value(scope: Any, meter: Meter) -> Any:
            try:
                return work(meter, *[setting(scope, meter) for setting in settings])
            except FormulaError as error:
                raise error.at(span)  # noqa: B904 - the same error, with its place

        return without_value
    operand = value
    cost = 5 if entry.group == "Date" else 0  # reading a date is dear next to all else

    def run(scope: Any, meter: Meter) -> Any:
        subject = operand(scope, meter)
        kind = type(subject)
        if accepts is not None and kind not in accepts:
            subject = plain(subject)
            if type(subject) not in accepts:
                raise entry.wrong(subject).at(span)
        if kind is str and len(subject) > 4096:
            meter.step(len(subject) >> 10)
        if cost:
            meter.step(cost)
        try:
            if settings:
                result = work(meter, subject, *[setting(scope, meter) for setting in settings])
            else:
                result = work(meter, subject)
        except FormulaError as error:
            raise error.at(span)  # noqa: B904 - the same error, with its place
        made = type(result)
        if made is str:
            meter.size -= len(result)
        elif made is list or made is dict:
            meter.size -= 16 * len(result)
        if meter.size < 0:
            meter.make(0)
        return result

    return run


def tested(check: Callable[..., bool], value: Run, arguments: list[Run], span: Span) -> Run:
    """A test after `is`."""

    def run(scope: Any, meter: Meter) -> Any:
        try:
            return check(meter, value(scope, meter), *[argument(scope, meter) for argument in arguments])
        except FormulaError as error:
            raise error.at(span)  # noqa: B904 - the same error, with its place

    return run
