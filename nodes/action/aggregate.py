"""Aggregate: one result out of many items."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out, Row
from nodes.formula.meter import Meter
from nodes.formula.values import NUMBERS, a_kind, checked, key_of
from nodes.shape import ANY, NUMBER, TEXT, Shape, list_of, record, with_member
from nodes.texts import as_text, names_of

Do = Literal["count", "sum", "average", "min", "max", "first", "last", "join", "unique", "collect"]


class Result(Row):
    """One figure over all items."""

    name: str = Field(
        min_length=1,
        max_length=200,
        title="Field",
        description="Its name in the result.",
        json_schema_extra={"placeholder": "total"},
    )
    do: Do = Field(
        default="count",
        title="Is the",
        description="“unique” and “collect” give a list, without and with repetitions; “join” a text.",
    )
    of: Formula = Field(
        default="item",
        min_length=1,
        title="Of",
        description="A field of each item, or a formula over it. Items where it is empty do not count.",
        json_schema_extra={"placeholder": "price"},
    )


class Aggregated(Out):
    """A record with the results; with groups, a list of such records."""

    value: Any


class Aggregate(Node):
    """Works out counts, sums, averages and lists over all items, also group by group.

    Each line is one result. With “For each group of” there is one record for each different value, in the order in which
    they first appear.
    """

    family, title, icon, effect = Family.ACTION, "Aggregate", "functions", Effect.E0
    words = (
        "sum",
        "count",
        "average",
        "group",
        "total",
        "statistics",
        "minimum",
        "maximum",
        "collect",
        "unique",
        "join",
    )
    examples = (
        Example(
            "Count and sum",
            {"results": [{"name": "orders"}, {"name": "total", "do": "sum", "of": "price * 2"}]},
            {"items": [{"price": 2}, {"price": 3}]},
            {"value": {"orders": 2, "total": 10}},
        ),
        Example(
            "By country",
            {
                "group_by": "country",
                "results": [
                    {"name": "average", "do": "average", "of": "total"},
                    {"name": "names", "do": "join", "of": "name"},
                ],
            },
            {
                "items": [
                    {"country": "FR", "total": 1, "name": "Ann"},
                    {"country": "DE", "total": 5, "name": "Bob"},
                    {"country": "FR", "total": 2, "name": "Cy"},
                ]
            },
            {
                "value": [
                    {"country": "FR", "average": 1.5, "names": "Ann, Cy"},
                    {"country": "DE", "average": 5.0, "names": "Bob"},
                ]
            },
        ),
        Example(
            "The different values of a list",
            {"results": [{"name": "cities", "do": "unique"}]},
            {"items": ["Rome", "Paris", "Rome"]},
            {"value": {"cities": ["Rome", "Paris"]}},
        ),
    )

    group_by: Formula = Field(
        default="",
        title="For each group of",
        description="A field of the items, such as `country`. Empty: one result over all.",
        json_schema_extra={"placeholder": "country"},
    )
    results: list[Result] = Field(
        default_factory=list, max_length=50, title="Results", description="What to work out, one a line."
    )
    separator: str = Field(
        default=", ", max_length=20, title="Between joined texts", description="What “join” puts between two texts."
    )

    @model_validator(mode="after")
    def _is_right(self) -> "Aggregate":
        names = [row.name for row in self.results] + ([self._group_name] if self.group_by.strip() else [])
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"“{name}” is set twice")
        return self

    @property
    def _group_name(self) -> str:
        last = self.group_by.strip().rpartition(".")[2]
        return last if last.isidentifier() else "group"

    async def run(self, ctx: Context, items: list[Any]) -> Aggregated:
        if not isinstance(items, list):
            raise NodeError(
                f"A list is needed here, and {a_kind(items)} arrived.",
                fix="Connect a list, or choose it out of the record with “Transform” before.",
            )
        columns = [_column(ctx, row.of, items) for row in self.results]
        if not self.group_by.strip():
            return Aggregated(self._record(columns, range(len(items))))
        groups: dict[Any, tuple[Any, list[int]]] = {}
        meter = Meter()
        for index, key in enumerate(_column(ctx, self.group_by.strip(), items)):
            groups.setdefault(key_of(key, meter), (key, []))[1].append(index)
        return Aggregated(
            [{self._group_name: key, **self._record(columns, members)} for key, members in groups.values()]
        )

    def _record(self, columns: list[list[Any]], members: Any) -> dict[str, Any]:
        return {
            row.name: self._result(row, [column[index] for index in members])
            for row, column in zip(self.results, columns, strict=True)
        }

    def _result(self, row: Result, values: list[Any]) -> Any:
        if row.do == "collect":
            return values
        there = [value for value in values if value is not None]
        match row.do:
            case "count":
                return len(values) if row.of.strip() == "item" else len(there)
            case "first":
                return there[0] if there else None
            case "last":
                return there[-1] if there else None
            case "join":
                return self.separator.join(as_text(value) for value in there)
            case "unique":
                meter = Meter()
                found: dict[Any, Any] = {}
                for value in there:
                    found.setdefault(key_of(value, meter), value)
                return list(found.values())
            case "sum":
                return checked(sum(_numbers(row, there)))
            case "average":
                return checked(sum(_numbers(row, there)) / len(there)) if there else None
        kinds = {type(value) for value in there}
        if not (kinds <= NUMBERS or kinds == {str}):
            odd = next(
                value for value in there if (type(value) not in NUMBERS and type(value) is not str) or len(kinds) > 1
            )
            raise NodeError(
                f"“{row.of[:80]}” has no {'smallest' if row.do == 'min' else 'biggest'} value: there is {a_kind(odd)} in it.",
                fix="Take a field that has numbers only, or texts only.",
            )
        return (min(there) if row.do == "min" else max(there)) if there else None

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        known: dict[str, Shape] = {"count": NUMBER, "sum": NUMBER, "average": NUMBER, "join": TEXT}
        lists: dict[str, Shape] = {"unique": list_of(), "collect": list_of()}
        fields = {row.name: known.get(row.do) or lists.get(row.do) or ANY for row in self.results}
        if not self.group_by.strip():
            return {"value": record(fields)}
        return {"value": list_of(record({self._group_name: ANY, **fields}))}

    def known_in(self, field: str, known: Shape, arriving: Mapping[str, Shape]) -> Shape:
        return with_member(known, arriving.get("items", ANY).items)

    def describe(self) -> str:
        said = ", ".join(row.name for row in self.results)
        return (f"{said} by {self.group_by}" if self.group_by.strip() else said)[:200]


def _column(ctx: Context, formula: str, items: list[Any]) -> list[Any]:
    """What the formula gives for each item; a field that only some records have is empty in the others."""
    formula = formula.strip()
    if formula == "item":
        return items
    if formula.isidentifier() and any(isinstance(item, dict) and formula in item for item in items):
        return [item.get(formula) if isinstance(item, dict) else None for item in items]
    return [ctx.evaluate(formula, **names_of(item, index)) for index, item in enumerate(items)]


def _numbers(row: Result, values: list[Any]) -> list[Any]:
    for place, value in enumerate(values, 1):
        if type(value) not in NUMBERS:
            raise NodeError(
                f"“{row.of[:80]}” is {a_kind(value)} in item {place}, and only numbers can be added up.",
                fix="Turn it into a number, as in `price | number`.",
            )
    return values
