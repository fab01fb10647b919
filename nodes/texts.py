"""What node types share: texts filled in, values as text and JSON, and the names a list's member gives to formulas."""

from typing import Any

import orjson

from nodes.base import Context, NodeError
from nodes.formula import compile_formula, infer
from nodes.shape import ANY, RESERVED, Shape, record

_AS_TEXT = compile_formula("value | text")


def filled(ctx: Context, template: str) -> str:
    """The template as a text, also where it is one single `{{ … }}` that gives a number or a list."""
    return as_text(ctx.render(template))


def as_text(value: Any) -> str:
    """A value as it looks inside a text."""
    return value if type(value) is str else str(_AS_TEXT.evaluate({"value": value}))


def as_json(value: Any, *, indent: bool = False) -> bytes:
    """A value as JSON, to be sent or kept."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    except orjson.JSONEncodeError as error:
        raise NodeError(f"This cannot be written as JSON: {error}.", fix="Make it flatter with “Transform”.") from None


def as_key(value: Any) -> bytes:
    """A value as it is compared with others: 7 and 7.0 are the same. Raises NodeError for what JSON cannot hold."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise NodeError(f"This cannot be a key: {error}.", fix="Use an id, such as `order.id`.") from None


def names_of(item: Any, index: int) -> dict[str, Any]:
    """The names that a formula may use for one member of a list: its fields, `item` and `index`."""
    names = {key: part for key, part in item.items() if key not in RESERVED} if isinstance(item, dict) else {}
    names["item"] = item
    names["index"] = index
    return names


def shape_by(formula: str, main: Shape, *, member: Shape | None = None) -> Shape:
    """The shape of a formula's result, as far as what arrives is known."""
    fields = dict((main if member is None else member).fields)
    fields["input"] = main
    if member is not None:
        fields["item"] = member
    return infer(formula, record(fields, open=True)) if formula.strip() else ANY


def quoted(text: str, longest: int = 80) -> str:
    """The beginning of a text in one line, for a sentence."""
    line = " ".join(text[: longest * 4].split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"
