"""Read a table: rows from CSV or JSON, from a file, or from a stored table."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, FileName, Label, Node, NodeError, Out, Text
from nodes.compiling import Writer, quoted
from nodes.rows import as_rows, decode, read_csv, read_json
from nodes.shape import ANY, Shape, list_of, one_of, shape_of

_BIG = 200_000
_SAMPLED = 50


class Rows(Out):
    """The rows as records, and how many."""

    rows: list[Any]
    count: int


class ReadTable(Node):
    """Reads a list of records from CSV, JSON, a file or a stored table.

    Each row becomes a record with the columns as fields. Numbers and yes/no are recognised where a whole column holds
    nothing else. From Excel, save the sheet as CSV first.
    """

    family, title, icon, effect = Family.CONTEXT, "Read a table", "table_chart", Effect.E1
    words = ("csv", "json", "rows", "list", "file", "upload", "excel", "sheet", "import", "load")
    examples = (
        Example(
            "Orders as CSV",
            {"source": "csv", "text": "order,total,paid\nA-1,12.5,yes\nA-2,7,no\n"},
            {"value": None},
            {
                "rows": [{"order": "A-1", "total": 12.5, "paid": True}, {"order": "A-2", "total": 7, "paid": False}],
                "count": 2,
            },
        ),
        Example(
            "A file that was uploaded",
            {"source": "file", "file": "people.csv"},
            {"value": None},
            {"rows": [{"name": "Müller; Ada", "zip": "01067"}], "count": 1},
            given={"files": {"people.csv": '\ufeffname;zip\r\n"Müller; Ada";01067\r\n'}},
        ),
        Example(
            "CSV that a webhook brought",
            {"source": "csv", "text": "{{ body }}"},
            {"value": {"body": "name\tage\nAda\t36"}},
            {"rows": [{"name": "Ada", "age": 36}], "count": 1},
        ),
        Example(
            "A stored table",
            {"source": "table", "table": "customers"},
            {"value": None},
            {"rows": [{"name": "Ada"}], "count": 1},
            given={"tables": {"customers": [{"name": "Ada"}]}},
        ),
        Example(
            "JSON",
            {"source": "json", "text": '[{"name": "Ada"}, {"name": "Bo"}]'},
            {"value": None},
            {"rows": [{"name": "Ada"}, {"name": "Bo"}], "count": 2},
        ),
    )

    source: Literal["csv", "json", "file", "table"] = Field(
        default="csv",
        title="From",
        description="CSV or JSON written here (or arriving, as `{{ body }}`), an uploaded file, or a stored table.",
    )
    text: Text = Field(
        default="name,total\nAda,1200\nBo,80\n",
        title="Text",
        description="The table itself, or `{{ … }}` for one that arrives.",
        json_schema_extra={"lines": 8, "show_when": {"source": ["csv", "json"]}},
    )
    file: FileName = Field(
        default="",
        title="File",
        description="An uploaded file: .csv, .tsv, .txt, .json or .jsonl.",
        json_schema_extra={"show_when": {"source": "file"}},
    )
    table: str = Field(
        default="",
        max_length=100,
        title="Table",
        description="The name of a stored table.",
        json_schema_extra={"format": "table", "show_when": {"source": "table"}},
    )
    delimiter: Literal["auto", "comma", "semicolon", "tab", "bar"] = Field(
        default="auto",
        title="Separator",
        description="The sign between the columns of CSV; “auto” finds it.",
        json_schema_extra={"show_when": {"source": ["csv", "file"]}},
    )
    header: bool = Field(
        default=True,
        title="First line has the names",
        description="Whether the first line of CSV names the columns. Without names, each row is a list.",
        json_schema_extra={"show_when": {"source": ["csv", "file"]}},
    )
    typed: bool = Field(
        default=True,
        title="Recognise numbers and yes/no",
        description="Off: every cell of CSV stays a text.",
        json_schema_extra={"show_when": {"source": ["csv", "file"]}},
    )
    limit: int = Field(
        default=10_000, ge=1, le=100_000, title="At most", description="How many rows may be read; more is an error."
    )

    @model_validator(mode="after")
    def _has_source(self) -> "ReadTable":
        if self.source == "file" and not self.file.strip():
            raise ValueError("choose the file to read")
        if self.source == "table" and not self.table.strip():
            raise ValueError("choose the table to read")
        if self.source == "json" and "{{" not in self.text:
            try:
                read_json(self.text, limit=self.limit)
            except NodeError as error:
                raise ValueError(error.message) from None
        return self

    async def run(self, ctx: Context, value: Any = None) -> Rows:
        if self.source == "table":
            rows: list[Any] = await ctx.tables.rows(self.table, limit=self.limit)
        else:
            found = await self._content(ctx)
            # A big table would keep everybody waiting: read it beside the others.
            big = isinstance(found, str) and len(found) > _BIG
            rows = await asyncio.to_thread(self._read, found) if big else self._read(found)
        return Rows(rows, len(rows))

    async def _content(self, ctx: Context) -> Any:
        if self.source != "file":
            return ctx.render(self.text)
        if self.file.lower().endswith((".xlsx", ".xls", ".ods")):
            raise NodeError(
                f"“{self.file}” is a spreadsheet, which cannot be read.",
                category="configuration",
                fix="Save the sheet as CSV (UTF-8) and upload that file.",
            )
        return decode(await ctx.tables.read_file(self.file))

    def _read(self, found: Any) -> list[Any]:
        if self._is_json():
            return _rows_of_json(found, self.limit)
        return _rows_of_csv(found, self.delimiter, self.header, self.typed, self.limit)

    def _is_json(self) -> bool:
        ending = self.file.lower().endswith((".json", ".jsonl", ".ndjson"))
        return self.source == "json" or (self.source == "file" and ending)

    def as_python(self, w: Writer) -> None:
        limit = str(self.limit)
        if self.source == "table":
            w.let("rows", w.world("tables.rows", quoted(self.table), f"limit={limit}"))
        else:
            if self.source == "file":
                if self.file.lower().endswith((".xlsx", ".xls", ".ods")):
                    raise w.refuse("a spreadsheet cannot be read.")
                w.let("content", w.world("tables.read_file", quoted(self.file)))
                found = w.use(decode, "content")
            else:
                found = w.text(self.text)
            how = (quoted(self.delimiter), repr(self.header), repr(self.typed), limit)
            w.let("rows", w.use(_rows_of_json, found, limit) if self._is_json() else w.use(_rows_of_csv, found, *how))
        w.gives(rows="rows", count="len(rows)")

    def effect_here(self) -> Effect:
        return Effect.E0 if self.source in ("csv", "json") and "{{" not in self.text else Effect.E1

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.PRIVATE}) if self.source in ("file", "table") else frozenset()

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        if self.source not in ("csv", "json") or "{{" in self.text:
            return {}
        try:
            rows = self._read(self.text)
        except NodeError:
            return {}
        return {"rows": list_of(one_of(*map(shape_of, rows[:_SAMPLED])) if rows else ANY)}

    def describe(self) -> str:
        return {"csv": "CSV", "json": "JSON", "file": self.file, "table": self.table}[self.source]


def _rows_of_json(found: Any, limit: int) -> list[Any]:
    return read_json(found, limit=limit) if isinstance(found, str) else _rows_of(found, limit)


def _rows_of_csv(found: Any, delimiter: str, header: bool, typed: bool, limit: int) -> list[Any]:
    if isinstance(found, str):
        return read_csv(found, delimiter=delimiter, header=header, typed=typed, limit=limit)
    return _rows_of(found, limit)


def _rows_of(found: Any, limit: int) -> list[Any]:
    if not isinstance(found, list | dict):
        raise NodeError("There is no table in what arrived.", fix="Check the `{{ … }}` of the text.")
    return as_rows(found, limit=limit)
