"""Aggregate: one result out of many items."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out, Row
from nodes.compiling import Code, Writer, atom, call, identifier, mapping, quoted, stiff, words_in
from nodes.formula.meter import Meter
from nodes.formula.values import NUMBERS, a_kind, checked, key_of, moment_of
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
        _checked(items)
        columns = [_column(ctx, row.of, items) for row in self.results]
        if not self.group_by.strip():
            return Aggregated(self._record(columns, range(len(items))))
        groups = _groups(_column(ctx, self.group_by.strip(), items))
        return Aggregated([{self._group_name: key, **self._record(columns, members)} for key, members in groups])

    def as_python(self, w: Writer) -> None:
        w.line(w.use(_checked, w.arrived("items")))
        columns = [self._written(w, row.of) for row in self.results]
        if not self.group_by.strip():
            w.give(
                mapping((row.name, self._figure(w, row, one)) for row, one in zip(self.results, columns, strict=True))
            )
            return
        taken = {"items", "item", "index", "key", "places", "rows"}
        named = []
        for row, column in zip(self.results, columns, strict=True):
            name = identifier(f"all_{row.name}", taken)
            taken.add(name)
            named.append((row, w.let(name, column)))
        w.let("rows", "[]")
        with w.block(f"for key, places in {w.use(_groups, self._written(w, self.group_by))}:"):
            picked = [(row.name, self._figure(w, row, atom(f"[{one}[at] for at in places]"))) for row, one in named]
            w.line(call("rows.append", mapping([(self._group_name, atom("key")), *picked])))
        w.give("rows")

    def _figure(self, w: Writer, row: Result, values: Code) -> Code:
        between = [quoted(self.separator)] if row.do == "join" else []
        return w.use(_result, quoted(row.do), quoted(row.of), values, *between)

    def _written(self, w: Writer, formula: str) -> Code:
        formula = formula.strip()
        if formula == "item":
            return atom("items")
        code = w.formula(formula, member="item")
        indexed = "index" in words_in(code.flat)
        if formula.isidentifier():
            other = stiff(f"lambda item, index: {code.flat}", 1)
            return w.use(_field_or, "items", quoted(formula), other)
        return atom(
            f"[{code.flat} for index, item in enumerate(items)]" if indexed else f"[{code.flat} for item in items]"
        )

    def _record(self, columns: list[list[Any]], members: Any) -> dict[str, Any]:
        return {
            row.name: _result(row.do, row.of, [column[index] for index in members], self.separator)
            for row, column in zip(self.results, columns, strict=True)
        }

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

    def worked_out(item: Any, index: int) -> Any:
        return ctx.evaluate(formula, **names_of(item, index))

    if formula.isidentifier():
        return _field_or(items, formula, worked_out)
    return [worked_out(item, index) for index, item in enumerate(items)]


def _field_or(items: list[Any], name: str, other: Callable[[Any, int], Any]) -> list[Any]:
    """A field of each item, empty where only others have it; where none has it, what the formula gives."""
    if any(isinstance(item, dict) and name in item for item in items):
        return [item.get(name) if isinstance(item, dict) else None for item in items]
    return [other(item, index) for index, item in enumerate(items)]


def _groups(keys: list[Any]) -> list[tuple[Any, list[int]]]:
    """Each different key, in the order in which they first appear, with the places where it stands."""
    groups: dict[Any, tuple[Any, list[int]]] = {}
    meter = Meter()
    for index, key in enumerate(keys):
        groups.setdefault(key_of(key, meter), (key, []))[1].append(index)
    return list(groups.values())


def _checked(items: Any) -> None:
    if not isinstance(items, list):
        raise NodeError(
            f"A list is needed here, and {a_kind(items)} arrived.",
            fix="Connect a list, or choose it out of the record with “Transform” before.",
        )


def _result(do: str, of: str, values: list[Any], separator: str = ", ") -> Any:
    """One figure over the values of all items."""
    if do == "collect":
        return values
    there = [value for value in values if value is not None]
    match do:
        case "count":
            return len(values) if of.strip() == "item" else len(there)
        case "first":
            return there[0] if there else None
        case "last":
            return there[-1] if there else None
        case "join":
            return separator.join(as_text(value) for value in there)
        case "unique":
            meter = Meter()
            found: dict[Any, Any] = {}
            for value in there:
                found.setdefault(key_of(value, meter), value)
            return list(found.values())
        case "sum":
            return checked(sum(_numbers(of, there)))
        case "average":
            return checked(sum(_numbers(of, there)) / len(there)) if there else None
    kinds = {type(value) for value in there}
    if not (kinds <= NUMBERS or kinds == {str}):
        odd = next(
            value for value in there if (type(value) not in NUMBERS and type(value) is not str) or len(kinds) > 1
        )
        raise NodeError(
            f"“{of[:80]}” has no {'smallest' if do == 'min' else 'biggest'} value: there is {a_kind(odd)} in it.",
            fix="Take a field that has numbers only, or texts only.",
        )
    if not there:
        return None
    moments = [moment_of(value) for value in there] if kinds == {str} else [None]
    marks: list[Any] = there if None in moments else moments  # a moment can be written in several ways
    return there[marks.index(min(marks) if do == "min" else max(marks))]


def _numbers(of: str, values: list[Any]) -> list[Any]:
    for place, value in enumerate(values, 1):
        if type(value) not in NUMBERS:
            raise NodeError(
                f"“{of[:80]}” is {a_kind(value)} in item {place}, and only numbers can be added up.",
                fix="Turn it into a number, as in `price | number`.",
            )
    return values
