"""The shape of what a function gives, from the shape of what it is given."""

from collections.abc import Sequence
from typing import Any

from jinja2 import nodes

from nodes.formula.table import Function
from nodes.shape import ANY, MOMENT, NUMBER, TEXT, YES_NO, Shape, list_of, one_of, record

_SIMPLE = {
    "text": TEXT,
    "number": NUMBER,
    "yes/no": YES_NO,
    "moment": MOMENT,
    "list": list_of(),
    "list of text": list_of(TEXT),
    "list of number": list_of(NUMBER),
    "record": record(open=True),
}

Given = Sequence[tuple[nodes.Expr, Shape]]


def result_of(entry: Function, value: Shape, each: Sequence[Shape], given: Given) -> Shape:
    """The shape of a function's result: of its value, of its item formulas' results, and of its other settings."""
    special = _special(entry.name, value, given)
    if special is not None:
        return special
    if entry.returns == "same":
        return value
    if entry.returns == "item":
        return value.items if value.kind == "list" else TEXT if value.kind in ("text", "moment") else ANY
    if entry.returns == "list of each":
        return list_of(each[0] if each else ANY)
    return _SIMPLE.get(entry.returns, ANY)


def _special(name: str, value: Shape, given: Given) -> Shape | None:
    shapes = [shape for _, shape in given]
    match name:
        case "min" | "max":
            return one_of(value, *shapes) if shapes else value.items if value.kind == "list" else value
        case "choose":
            return one_of(*shapes[:2])
        case "get":
            return _got(value, given)
        case "merge" if value.kind == "record" and all(shape.kind == "record" for shape in shapes):
            fields = dict(value.fields)
            optional = set(value.optional)
            for shape in shapes:
                fields |= shape.fields
                optional -= set(shape.fields) - shape.optional
            return record(fields, optional=optional, open=value.open or any(shape.open for shape in shapes))
        case "pick" | "omit" if value.kind == "record" and (names := _texts(given)) is not None:
            keep = (name == "pick").__eq__
            fields = {key: shape for key, shape in value.fields.items() if keep(key in names)}
            return record(fields, optional=value.optional & set(fields), open=value.open)
        case "values" if value.kind == "record" and value.fields and not value.open:
            return list_of(one_of(*value.fields.values()))
        case "items" if value.kind == "record":
            inside = one_of(*value.fields.values()) if value.fields and not value.open else ANY
            return list_of(record({"key": TEXT, "value": inside}))
        case "flatten" if value.kind == "list" and not given:
            return value.items if value.items.kind == "list" else value
        case "batch":
            return list_of(value)
        case "append" | "concat" if value.kind == "list":
            items = [shape.items if name == "concat" else shape for shape in shapes]
            return list_of(one_of(value.items, *items))
        case "list":
            return value if value.kind == "list" else list_of(value)
        case "extract":
            return one_of(TEXT, Shape("nothing"))
    return None


def _got(value: Shape, given: Given) -> Shape:
    path = given[0][0] if given else None
    found = value
    if not isinstance(path, nodes.Const) or type(path.value) is not str:
        return ANY
    for step in path.value.split("."):
        if found.kind != "record" or step not in found.fields:
            return ANY
        found = found.fields[step]
    return one_of(found, given[1][1]) if len(given) > 1 else one_of(found, Shape("nothing"))


def _texts(given: Given) -> list[Any] | None:
    out: list[Any] = []
    for node, _ in given:
        for part in node.items if isinstance(node, nodes.List) else [node]:
            if not isinstance(part, nodes.Const):
                return None
            out.append(part.value)
    return out
