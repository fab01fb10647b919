"""The closures that look names and fields up, fast when all is there and exact about what is missing when not."""

from collections.abc import Mapping
from typing import Any

from nodes.formula import table
from nodes.formula.meter import Meter
from nodes.formula.operators import Run, called, edge
from nodes.formula.problems import FormulaError, Missing, Span, unknown_name, wrong_type
from nodes.formula.values import a_kind, plain

PROPERTIES = frozenset({"length", "first", "last"})
"""What may follow a dot of a list or text without being called, as people write `items.length`."""


def item(scope: Any, meter: Meter) -> Any:
    """The item for which a formula is worked out."""
    return scope[0]


def around(run: Run) -> Run:
    """The same, outside of the list."""
    return lambda scope, meter: run(scope[1], meter)


def path(name: str, keys: tuple[str, ...], span: Span) -> Run:
    """A name of the scope with the fields after it."""

    def missing(scope: Mapping[str, Any]) -> FormulaError:
        hint = f"To call the function write `{name}()`." if table.find(name) else None
        return unknown_name(name, scope, hint=hint).at(span)

    if not keys:

        def alone(scope: Any, meter: Meter) -> Any:
            try:
                return scope[name]
            except KeyError:
                raise missing(scope) from None

        return alone
    if len(keys) == 1:
        key = keys[0]

        def one(scope: Any, meter: Meter) -> Any:
            try:
                owner = scope[name]
            except KeyError:
                raise missing(scope) from None
            if type(owner) is dict and key in owner:
                return owner[key]
            return follow(owner, name, keys, span)

        return one

    def many(scope: Any, meter: Meter) -> Any:
        try:
            owner = scope[name]
        except KeyError:
            raise missing(scope) from None
        value = owner
        for key in keys:
            if type(value) is not dict or key not in value:
                return follow(owner, name, keys, span)
            value = value[key]
        return value

    return many


def fields(base: Run, owner_name: str, keys: tuple[str, ...], span: Span) -> Run:
    """Fields of a value that is worked out."""
    if not keys:
        return base
    return lambda scope, meter: follow(base(scope, meter), owner_name, keys, span)


def item_path(name: str, keys: tuple[str, ...], span: Span, apply: table.Function | None) -> Run:
    """A bare name in an item formula: a field of the item and nothing else, so that data cannot change its meaning."""
    path = (name, *keys)
    direct = called(apply, item, [], span) if apply and apply.takes and not apply.settings else None
    hint = None if keys else f"A value from outside the list is `outer.{name}`, the whole item `item`."

    def slow(scope: Any, meter: Meter) -> Any:
        if direct is not None and type(scope[0]) is not dict:
            return direct(scope, meter)  # Jinja's `map("upper")`: a text has no fields
        try:
            return follow(scope[0], "item", path, span)
        except Missing as error:
            error.hint = hint
            raise

    if keys:
        return slow

    def run(scope: Any, meter: Meter) -> Any:
        value = scope[0]
        if type(value) is dict and name in value:
            return value[name]
        return slow(scope, meter)

    return run


def follow(value: Any, name: str, keys: tuple[str, ...], span: Span) -> Any:
    """Go down the fields one by one, slowly, to find the value or to say exactly what is missing."""
    for key in keys:
        kind = type(value)
        if kind is dict:
            if key not in value:
                raise unknown_name(key, value, name).at(span)
            value = value[key]
        elif value is None:
            raise Missing(
                f"`{name}` is empty (nothing), so it has no `{key}`.",
                fix="Add `| default(…)` at the end, or check it first with `is defined`.",
                span=span,
            )
        elif kind is list or kind is str:
            if key in PROPERTIES:
                value = len(value) if key == "length" else edge(value, key, span)
            elif table.find(key) is not None:
                fix = f"Write `{name} | {key}`, or `{name}.{key}()`."
                raise wrong_type(f"`{key}` is a function, not a field.", fix).at(span)
            else:
                fix = (
                    f'To take it from each item write `{name} | map("{key}")`; for one item `{name}[0].{key}`.'
                    if kind is list
                    else "If the text is JSON, write `| parse_json` first."
                )
                raise wrong_type(f"`{name}` is {a_kind(value)}, so it has no field `{key}`.", fix).at(span)
        else:
            foreign = plain(value)
            if type(foreign) is kind:
                message = f"`{name}` is {a_kind(value)}, so it has no field `{key}`."
                raise wrong_type(message, "Only records have fields.").at(span)
            return follow(foreign, name, keys[keys.index(key) :], span)
        name = f"{name}.{key}"
    return value
