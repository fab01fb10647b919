"""Set values: add fields, or put new ones in place of what arrived."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from nodes.base import Context, Effect, Example, Family, Node, NodeError, Out, Row, Text
from nodes.compiling import Code, Writer, mapping, quoted
from nodes.filling import check_filling, fill
from nodes.formula import compile_formula, infer, infer_text
from nodes.formula.functions.kinds import number, yes_no
from nodes.shape import ANY, NUMBER, TEXT, YES_NO, Shape, record

_AS_NUMBER = compile_formula("value | number")
_AS_YES_NO = compile_formula("value | yes_no")
_AS_TEXT = compile_formula("value | text")

Kind = Literal["any", "text", "number", "yes/no", "formula", "json"]


class Assignment(Row):
    """One field and what it becomes."""

    name: str = Field(
        min_length=1,
        max_length=200,
        title="Field",
        description="Its name; `customer.name` sets the field inside a record.",
        json_schema_extra={"placeholder": "status"},
    )
    value: Text = Field(
        default="",
        title="Value",
        description="A text, with `{{ … }}` for what arrived. A single `{{ … }}` keeps its kind: a list stays a list.",
        json_schema_extra={
            "placeholder": "{{ customer.name }}",
            "format_when": {"kind": {"formula": "formula", "json": "json"}},
        },
    )
    kind: Kind = Field(
        default="any",
        title="Kind",
        description="“any” takes the value as it is; “formula” works it out without `{{ }}`; the others turn it into that kind.",
    )

    @field_validator("name")
    @classmethod
    def _has_parts(cls, name: str) -> str:
        if not all(part.strip() for part in name.split(".")):
            raise ValueError(f"“{name}” is not a field's name: a part between its dots is empty")
        return name.strip()

    @model_validator(mode="after")
    def _is_right(self) -> "Assignment":
        if self.kind == "json":
            check_filling(self.value)
        if self.kind == "formula" and not self.value.strip():
            raise ValueError(f"the formula of “{self.name}” is still empty")
        return self


class Record(Out):
    """The record with its new fields."""

    value: dict[str, Any]


class SetValues(Node):
    """Adds fields to what arrives, or makes a new record.

    Each line sets one field. All values are worked out from what arrived, so a line does not see the lines above it. What
    arrives and is no record, such as a text, is kept in the field `value`.
    """

    family, title, icon, effect = Family.CONTEXT, "Set values", "edit_note", Effect.E0
    words = ("fields", "add", "assign", "change", "constant", "variable", "edit", "map")
    examples = (
        Example(
            "Add two fields",
            {
                "values": [
                    {"name": "status", "value": "new"},
                    {"name": "gross", "value": "total * 1.2", "kind": "formula"},
                ]
            },
            {"value": {"total": 100}},
            {"value": {"total": 100, "status": "new", "gross": 120.0}},
        ),
        Example(
            "Make a new record",
            {
                "keep": False,
                "values": [
                    {"name": "greeting", "value": "Hello {{ name }}"},
                    {"name": "address.city", "value": "{{ city }}"},
                ],
            },
            {"value": {"name": "Ada", "city": "London", "age": 36}},
            {"value": {"greeting": "Hello Ada", "address": {"city": "London"}}},
        ),
        Example(
            "Turn a text into a number",
            {"values": [{"name": "total", "value": "{{ total }}", "kind": "number"}]},
            {"value": {"total": "12.50"}},
            {"value": {"total": 12.5}},
        ),
    )

    values: list[Assignment] = Field(
        default_factory=list, max_length=200, title="Values", description="The fields to set, one a line."
    )
    keep: bool = Field(
        default=True, title="Keep the other fields", description="Whether the fields that arrived are passed on too."
    )

    async def run(self, ctx: Context, value: Any = None) -> Record:
        found = _kept(value) if self.keep else {}
        for row in self.values:
            _set(found, row.name, _worked_out(ctx, row))
        return Record(found)

    def as_python(self, w: Writer) -> None:
        made = [(row, _written(w, row)) for row in self.values]
        kept = self.keep and "value" in w.ports
        if not kept and not any("." in row.name for row in self.values):
            w.give(mapping((row.name, code) for row, code in made))
            return
        w.let("found: dict[str, Any]", w.use(_kept, "value") if kept else "{}")
        for row, code in made:
            if "." in row.name:
                w.line(w.use(_set, "found", quoted(row.name), code))
            else:
                w.line(code, f"found[{quoted(row.name)}] = ")
        w.give("found")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        main = arriving.get("value", ANY)
        known = record({**main.fields, "value": main, "input": main}, optional=main.optional, open=True)
        found = record()
        if self.keep and main.kind == "record":
            found = main
        elif self.keep and main.kind != "nothing":
            # What arrives may be a record, whose fields are kept, or something else, which becomes a field.
            found = record(open=True) if main.kind in ("any", "one of") else record({"value": main})
        for row in self.values:
            path = [row.name] if row.name in found.fields else row.name.split(".")
            found = _with(found, path, _shape(row, known))
        return {"value": found}

    def describe(self) -> str:
        return ", ".join(row.name for row in self.values)[:200]


def _kept(value: Any) -> dict[str, Any]:
    """What arrived, as a new record."""
    if value is None:
        return {}
    return dict(value) if isinstance(value, dict) else {"value": value}


def _set(record: dict[str, Any], name: str, value: Any) -> None:
    """Set a field; a dot in its name leads into a record inside, unless there is a field of that very name."""
    if "." in name and name not in record:
        _put(record, name.split("."), value)
    else:
        record[name] = value


def _written(w: Writer, row: Assignment) -> Code:
    """What a line becomes, as Python."""
    match row.kind:
        case "formula":
            return w.formula(row.value)
        case "json":
            return w.json(row.value)
        case "text":
            return w.words(row.value)
        case "number":
            return w.use(number, w.text(row.value))
        case "yes/no":
            return w.use(yes_no, w.text(row.value))
    return w.text(row.value)


def _worked_out(ctx: Context, row: Assignment) -> Any:
    kind = row.kind
    if kind == "formula":
        return ctx.evaluate(row.value)
    if kind == "json":
        return fill(ctx, row.value)
    value = ctx.render(row.value)
    if kind == "any":
        return value
    if kind == "number":
        return _AS_NUMBER.evaluate({"value": value})
    if kind == "yes/no":
        return _AS_YES_NO.evaluate({"value": value})
    return _AS_TEXT.evaluate({"value": value})


def _shape(row: Assignment, known: Shape) -> Shape:
    match row.kind:
        case "formula":
            return infer(row.value, known)
        case "any":
            return infer_text(row.value, known)
        case "json":
            return ANY
    return {"number": NUMBER, "yes/no": YES_NO}.get(row.kind, TEXT)


def _with(whole: Shape, path: list[str], new: Shape) -> Shape:
    """The shape of a record with one more field, maybe deep inside."""
    name, *rest = path
    if rest:
        inner = whole.fields.get(name)
        new = _with(inner if inner and inner.kind == "record" else record(open=whole.open or bool(inner)), rest, new)
    return replace(whole, fields={**whole.fields, name: new}, optional=whole.optional - {name})


def _put(record: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a field deep inside; records on the way are copied, since what arrived belongs to other steps too."""
    here = record
    for part in path[:-1]:
        inner = here.get(part)
        if inner is not None and not isinstance(inner, dict):
            raise NodeError(
                f"“{part}” is not a record, so “{'.'.join(path)[:100]}” cannot be set inside it.",
                fix="Choose another name for the field.",
            )
        copy = dict(inner or {})
        here[part] = copy
        here = copy
    here[path[-1]] = value
