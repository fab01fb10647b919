"""Write rows into a table of one's own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Node, NodeError, Out, PortInfo, Row, Text
from nodes.compiling import Writer, listed, mapping, quoted
from nodes.formula.values import a_kind
from nodes.shape import ANY, NUMBER, Shape, list_of, record

_MOST = 10_000


class Column(Row):
    """One column of the new row."""

    name: str = Field(
        min_length=1,
        max_length=200,
        title="Column",
        description="Its name in the table.",
        json_schema_extra={"placeholder": "customer"},
    )
    value: Text = Field(
        default="",
        title="Value",
        description="A text, with `{{ … }}` for what arrived. A single `{{ … }}` keeps its kind: a number stays a number.",
        json_schema_extra={"placeholder": "{{ name }}"},
    )


class WrittenRows(Out):
    """The rows that were added."""

    rows: Annotated[list[Any], PortInfo(help="The new rows.")]
    count: Annotated[int, PortInfo(help="How many rows were added.")]


class WriteRow(Node):
    """Adds rows to a table of your own.

    A record becomes a row, a list of records several. The table is made with its first row, and is seen under Settings.
    """

    family, title, icon, effect = Family.ACTION, "Write a table row", "table_rows", Effect.E2
    words = ("table", "row", "save", "store", "append", "log", "database", "sheet", "insert", "write")
    keyed = True
    examples = (
        Example(
            "Keep all that arrived",
            {"table": "orders"},
            {"value": [{"id": 1}, {"id": 2}]},
            {"rows": [{"id": 1}, {"id": 2}], "count": 2},
        ),
        Example(
            "Chosen columns",
            {
                "table": "orders",
                "write": "columns",
                "columns": [{"name": "customer", "value": "{{ name }}"}, {"name": "total", "value": "{{ total }}"}],
            },
            {"value": {"name": "Ada", "total": 12, "note": "x"}},
            {"rows": [{"customer": "Ada", "total": 12}], "count": 1},
        ),
    )

    table: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[^\s/\\](?:[^\x00-\x1f/\\]*[^\s/\\])?$",
        title="Table",
        description="Its name.",
        json_schema_extra={"format": "table", "placeholder": "orders"},
    )
    write: Literal["value", "columns"] = Field(
        default="value", title="Write", description="The records that arrive as they are, or one row of chosen columns."
    )
    columns: list[Column] = Field(
        default_factory=list,
        max_length=200,
        title="Columns",
        description="What the new row holds.",
        json_schema_extra={"show_when": {"write": "columns"}},
    )

    @model_validator(mode="after")
    def _is_right(self) -> "WriteRow":
        names = [column.name for column in self.columns]
        if self.write == "columns" and not names:
            raise ValueError("name at least one column")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the column “{name}” is there twice")
        return self

    async def run(self, ctx: Context, value: Any = None) -> WrittenRows:
        rows = self._rows(ctx, value)
        count = await ctx.tables.append(self.table, rows) if rows else 0
        return WrittenRows(rows=rows, count=count)

    def _rows(self, ctx: Context, value: Any) -> list[dict[str, Any]]:
        if self.write == "columns":
            return [{column.name: ctx.render(column.value) for column in self.columns}]
        return _checked_rows(value)

    def as_python(self, w: Writer) -> None:
        if self.write == "columns":
            w.let("rows", listed([mapping((column.name, w.text(column.value)) for column in self.columns)]))
        else:
            w.let("rows", w.use(_checked_rows, w.arrived("value")))
        w.let("count", w.world("tables.append", quoted(self.table), "rows"))
        w.gives(rows="rows", count="count")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        main = arriving.get("value", ANY)
        if self.write == "columns":
            row = record({column.name: ANY for column in self.columns})
        else:
            row = main.items if main.kind == "list" else main
        return {"rows": list_of(row), "count": NUMBER}

    def forecast_seconds(self) -> float:
        return 0.01

    def describe(self) -> str:
        return f"into {self.table}"


def _checked_rows(value: Any) -> list[dict[str, Any]]:
    """What arrived as rows. Raises NodeError."""
    rows = value if isinstance(value, list) else [value]
    if len(rows) > _MOST:
        raise NodeError(
            f"These are {len(rows):,} rows, and at most {_MOST:,} can be written at once.",
            category="limit",
            fix="Cut the list into batches with “Split”.",
        )
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            where = f"item {place}" if isinstance(value, list) else "what arrived"
            raise NodeError(
                f"A row is made of a record, and {where} is {a_kind(row)}.",
                fix="Choose “columns” in “Write”, or make records with “Transform” before.",
            )
    return list(rows)
