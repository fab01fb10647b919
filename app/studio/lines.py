"""Conditions as a person fills them in, line by line, and the formula that they make: the builder without its screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.studio.known import Known
from nodes.formula import Comparison, FieldRef, Group, from_formula, to_formula
from nodes.formula.conditions import WITHOUT_VALUE, Operator
from nodes.shape import Shape, without_nothing

LISTS: Final = ("one_of", "not_one_of")
ONE_WRITTEN: Final = ("contains", "not_contains", *LISTS)
"""Questions whose value is always written, never another field."""
_TEXTS: Final = ("starts_with", "ends_with", "matches")


@dataclass(slots=True)
class Line:
    """A line as it is being filled in; the value as it was typed."""

    field: str = ""
    operator: Operator = "equals"
    value: str = ""
    other: bool = False
    """Whether the value is another field."""
    read: tuple[str, Operator, Any] | None = None
    """What was read, as text, question and value: a line that nobody touched is written back as it was."""


@dataclass(slots=True)
class Block:
    """Lines and blocks of which all, or any, must hold."""

    match: Literal["all", "any"] = "all"
    items: list[Line | Block] = field(default_factory=list)

    def lines(self) -> Iterator[Line]:
        """All lines, those of inner blocks too."""
        for item in self.items:
            if isinstance(item, Block):
                yield from item.lines()
            else:
                yield item


def read(text: str) -> Block:
    """The lines that say the same as a formula; one blank line when there is none, or it cannot be shown."""
    found = from_formula(text) if text.strip() else None
    block = _block(found) if found else Block()
    return block if block.items else Block(items=[Line()])


def written(block: Block, known: Known) -> str:
    """The formula that the lines make; unfinished lines are left out. Raises FormulaError."""
    return to_formula(_group(block, known))


def typed(text: str, kind: str) -> str | int | float | bool | None:
    """What a person typed, as the kind of value that the field has; a guess when the kind is not known."""
    plain = text.strip()
    if kind == "text":
        return text
    if kind in ("yes/no", "") and plain.lower() in ("yes", "true", "no", "false"):
        return plain.lower() in ("yes", "true")
    if kind == "" and plain.lower() in ("none", "nothing"):
        return None
    try:
        number = float(plain)
    except ValueError:
        return text
    if number != number or abs(number) == float("inf"):
        return text
    if set(plain) <= set("+-0123456789"):
        return int(plain) if abs(number) < 2**63 else text
    return number


def kind_of(path: str, known: Known) -> str:
    """The kind of values that a field has, as far as it is known."""
    shape: Shape | None = known.shape
    for step in path.replace("[0]", ".0").split("."):
        shape = without_nothing(shape) if shape else None
        if shape is None:
            break
        shape = shape.items if step.isdigit() else shape.fields.get(step)
    if shape is not None and shape.kind in ("text", "number", "yes/no", "moment"):
        return "text" if shape.kind == "moment" else shape.kind
    sample = dict(known.paths()).get(path)
    if isinstance(sample, bool):
        return "yes/no"
    return "number" if isinstance(sample, int | float) else "text" if isinstance(sample, str) else ""


def _group(block: Block, known: Known) -> Group:
    items = [
        _group(item, known) if isinstance(item, Block) else _comparison(item, known)
        for item in block.items
        if not _blank(item, known)
    ]
    return Group(block.match, tuple(items))


def _comparison(line: Line, known: Known) -> Comparison:
    if line.operator in WITHOUT_VALUE:
        return Comparison(line.field, line.operator)
    if line.other:
        return Comparison(line.field, line.operator, FieldRef(line.value))
    if line.read is not None and line.read[:2] == (line.value, line.operator):
        return Comparison(line.field, line.operator, line.read[2])
    kind = kind_of(line.field, known)
    if line.operator in LISTS:
        parts = [part.strip() for part in line.value.split(",")]
        return Comparison(line.field, line.operator, tuple(typed(part, kind) for part in parts if part))
    if line.operator in _TEXTS:
        return Comparison(line.field, line.operator, line.value)
    return Comparison(line.field, line.operator, typed(line.value, kind))


def _block(group: Group) -> Block:
    return Block(group.match, [_block(item) if isinstance(item, Group) else _line(item) for item in group.items])


def _line(item: Comparison) -> Line:
    value = item.value
    if isinstance(value, FieldRef):
        return Line(item.field, item.operator, value.path, other=True)
    if item.operator in WITHOUT_VALUE:
        return Line(item.field, item.operator)
    text = ", ".join(_said(part) for part in value) if isinstance(value, tuple) else _said(value)
    return Line(item.field, item.operator, text, read=(text, item.operator, value))


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value is None else str(value)


def unfinished(line: Line, known: Known) -> str:
    """What a line still needs before it says something; empty when nothing."""
    if not line.field:
        return "Choose a field."
    if line.operator in WITHOUT_VALUE or line.value.strip() or line.read is not None:
        return ""
    wanted = line.other or line.operator in LISTS or kind_of(line.field, known) in ("number", "yes/no")
    return "Write what to compare with." if wanted else ""


def _blank(item: Line | Block, known: Known) -> bool:
    return bool(unfinished(item, known)) if isinstance(item, Line) else all(_blank(each, known) for each in item.items)
