"""Transform: records with other fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Formula, Node, Out, Row
from nodes.compiling import Code, Writer, call, group, led, literal, mapping
from nodes.shape import ANY, Shape, list_of, record, with_member
from nodes.texts import names_of, shape_by


class NewField(Row):
    """One field of the new record."""

    name: str = Field(
        min_length=1,
        max_length=200,
        title="Field",
        description="Its name in the new record.",
        json_schema_extra={"placeholder": "customer"},
    )
    formula: Formula = Field(
        min_length=1,
        title="Is",
        description="A field that arrived, or a formula over them.",
        json_schema_extra={"placeholder": "first_name + ' ' + last_name"},
    )


class Transformed(Out):
    """The new record, or a list of them."""

    value: Any


class Transform(Node):
    """Makes new records out of what arrives: choose, rename and calculate fields.

    A record becomes a record; in a list, each member becomes one, and formulas also know it as `item` and its place as
    `index`. Formulas see what arrived, not the new fields.
    """

    family, title, icon, effect = Family.ACTION, "Transform", "swap_horiz", Effect.E0
    words = ("map", "rename", "select", "fields", "convert", "shape", "pick", "columns", "calculate")
    examples = (
        Example(
            "Rename and calculate",
            {
                "fields": [
                    {"name": "customer", "formula": "name"},
                    {"name": "gross", "formula": "net * 1.2 | round(2)"},
                ]
            },
            {"value": {"name": "Ada", "net": 10, "note": ""}},
            {"value": {"customer": "Ada", "gross": 12.0}},
        ),
        Example(
            "Every record of a list",
            {"fields": [{"name": "sum", "formula": "price * count"}], "keep": True, "leave_out": ["count"]},
            {"value": [{"price": 2, "count": 3}, {"price": 5, "count": 1}]},
            {"value": [{"price": 2, "sum": 6}, {"price": 5, "sum": 5}]},
        ),
        Example(
            "Records out of plain values",
            {"fields": [{"name": "place", "formula": "index + 1"}, {"name": "city", "formula": "item"}]},
            {"value": ["Paris", "Rome"]},
            {"value": [{"place": 1, "city": "Paris"}, {"place": 2, "city": "Rome"}]},
        ),
    )

    fields: list[NewField] = Field(
        default_factory=list,
        max_length=200,
        title="Fields",
        description="The fields of the new record and what each of them is.",
    )
    keep: bool = Field(
        default=False, title="Keep the other fields", description="Whether fields that arrived are passed on too."
    )
    leave_out: list[str] = Field(
        default_factory=list,
        max_length=200,
        title="Leave out",
        description="Fields that are not passed on.",
        json_schema_extra={"show_when": {"keep": True}},
    )

    @model_validator(mode="after")
    def _is_right(self) -> "Transform":
        names = [row.name for row in self.fields]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the field “{name}” is set twice")
        return self

    async def run(self, ctx: Context, value: Any) -> Transformed:
        if not isinstance(value, list):
            new = self._others(value)
            for row in self.fields:
                new[row.name] = ctx.evaluate(row.formula)
            return Transformed(new)
        rows = []
        for index, item in enumerate(value):
            names = names_of(item, index)
            new = self._others(item)
            for row in self.fields:
                new[row.name] = ctx.evaluate(row.formula, **names)
            rows.append(new)
        return Transformed(rows)

    def _others(self, value: Any) -> dict[str, Any]:
        return _kept(value, self.leave_out) if self.keep else {}

    def as_python(self, w: Writer) -> None:
        with w.when("not isinstance(value, list)"):
            w.give(self._made(w, "value"))
        new = self._made(w, "item", member="item")
        w.let("rows", "[]")
        with w.loop("value", new):
            w.line(call("rows.append", new))
        w.give("rows")

    def _made(self, w: Writer, source: str, *, member: str = "") -> Code:
        fields = mapping((row.name, w.formula(row.formula, member=member)) for row in self.fields)
        if not self.keep:
            return fields
        left_out = literal(self.leave_out)
        kept = led("**", w.use(_kept, source, left_out) if self.leave_out else w.use(_kept, source))
        return group("{", [kept, *fields.parts], "}")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        main = arriving.get("value", ANY)
        if main.kind == "list":
            return {"value": list_of(self._shape(main, main.items))}
        return {"value": self._shape(main, None)} if main.kind == "record" else {}

    def _shape(self, main: Shape, member: Shape | None) -> Shape:
        base = main if member is None else member
        fields: dict[str, Shape] = {}
        if self.keep and base.kind == "record":
            fields = {name: shape for name, shape in base.fields.items() if name not in self.leave_out}
        optional = base.optional & set(fields)
        made = {row.name: shape_by(row.formula, main, member=member) for row in self.fields}
        return record(
            {**fields, **made}, optional=optional - set(made), open=self.keep and (base.kind != "record" or base.open)
        )

    def known_in(self, field: str, known: Shape, arriving: Mapping[str, Shape]) -> Shape:
        main = arriving.get("value", ANY)
        return with_member(known, main.items) if main.kind in ("list", "any", "one of") else known

    def describe(self) -> str:
        return ", ".join(row.name for row in self.fields)[:200]


def _kept(value: Any, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """What arrived as a record, without the fields that are left out."""
    if not isinstance(value, dict):
        return {"value": value}
    return {name: part for name, part in value.items() if name not in left_out}
