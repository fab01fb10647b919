"""Write a file: text, JSON or a table, kept with the agent's other files."""

import csv
import io
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from nodes.base import (
    Context,
    Effect,
    Example,
    Family,
    Formula,
    LongText,
    Node,
    NodeError,
    Out,
    PortInfo,
    PortType,
    Text,
)
from nodes.compiling import Writer, atom, call, literal
from nodes.formula.values import a_kind
from nodes.shape import NUMBER, TEXT, Shape, record
from nodes.texts import as_json, as_text, filled, quoted

_MOST = 25 * 1024 * 1024
_KINDS = {"text": "text/plain; charset=utf-8", "json": "application/json", "csv": "text/csv; charset=utf-8"}
_BY_ENDING = {
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "xml": "application/xml",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
}


class WrittenFile(Out):
    """The file."""

    file: Annotated[dict[str, Any], PortInfo(help="Name, kind and size of the file.", type=PortType.FILE)]


class WriteFile(Node):
    """Writes a file that people and other steps can read.

    A file of that name is replaced. A table (CSV) is made of a list of records; its columns are their fields.
    """

    family, title, icon, effect = Family.ACTION, "Write a file", "save", Effect.E2
    words = ("file", "save", "export", "csv", "json", "report", "document", "store", "write")
    examples = (
        Example(
            "A report as text",
            {"name": "report-{{ day }}.txt", "text": "Sold: {{ sold }}"},
            {"value": {"day": "2026-03-02", "sold": 3}},
            {"file": {"name": "report-2026-03-02.txt", "media_type": "text/plain; charset=utf-8", "size": 7}},
        ),
        Example(
            "A table for spreadsheets",
            {"name": "orders.csv", "format": "csv", "what": "orders"},
            {"value": {"orders": [{"id": 1, "name": "Ada"}, {"id": 2, "note": "late"}]}},
            {"file": {"name": "orders.csv", "media_type": "text/csv; charset=utf-8", "size": 31}},
        ),
        Example(
            "All that arrived, as JSON",
            {"name": "last.json", "format": "json"},
            {"value": {"a": 1}},
            {"file": {"name": "last.json", "media_type": "application/json", "size": 12}},
        ),
    )

    name: Text = Field(
        min_length=1,
        max_length=1_000,
        title="Name",
        description="The file's name, with `{{ … }}` where something is filled in.",
        json_schema_extra={"placeholder": "report-{{ day }}.txt"},
    )
    format: Literal["text", "json", "csv"] = Field(
        default="text", title="Format", description="A text of your own, or data as JSON or as a table (CSV)."
    )
    text: LongText = Field(
        default="",
        title="Text",
        description="What the file holds, with `{{ … }}` where something is filled in.",
        json_schema_extra={"show_when": {"format": "text"}},
    )
    what: Formula = Field(
        default="input",
        min_length=1,
        title="What",
        description="The data to write: `input` is all that arrived, or name a field.",
        json_schema_extra={"placeholder": "input", "show_when": {"format": ["json", "csv"]}},
    )
    safe: bool = Field(
        default=True,
        title="Safe for spreadsheets",
        description="Texts that a spreadsheet would take for a formula get an apostrophe in front.",
        json_schema_extra={"show_when": {"format": "csv"}},
    )

    async def run(self, ctx: Context, value: Any = None) -> WrittenFile:
        name = _name(filled(ctx, self.name))
        if self.format == "text":
            content = filled(ctx, self.text).encode("utf-8", "replace")
            kind = _kind_of(name)
        else:
            what = value if self.what.strip() == "input" else ctx.evaluate(self.what)
            content = as_json(what, indent=True) if self.format == "json" else _table(what, self.safe)
            kind = _KINDS[self.format]
        if len(content) > _MOST:
            raise NodeError(
                f"The file would be {len(content) / 1e6:.0f} MB, and at most {_MOST // 1024 // 1024} MB are possible.",
                category="limit",
                fix="Write several smaller files.",
            )
        return WrittenFile(dict(await ctx.tables.write_file(name, content, kind)))

    def as_python(self, w: Writer) -> None:
        w.let("name", w.use(_name, w.words(self.name)))
        if self.format == "text":
            content = atom(f'{w.words(self.text)}.encode("utf-8", "replace")')
            kind = w.use(_kind_of, "name")
        else:
            what = w.arrived("value") if self.what.strip() == "input" else w.formula(self.what)
            content = (
                w.use(as_json, what, "indent=True") if self.format == "json" else w.use(_table, what, repr(self.safe))
            )
            kind = literal(_KINDS[self.format])
        w.let("content", content)
        w.give(call("dict", w.world("tables.write_file", "name", "content", kind)))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"file": record({"name": TEXT, "media_type": TEXT, "size": NUMBER}, open=True)}

    def forecast_seconds(self) -> float:
        return 0.02

    def describe(self) -> str:
        return quoted(self.name)


def _name(text: str) -> str:
    name = text.strip()
    if not name or name in (".", "..") or len(name) > 200 or not name.isprintable() or any(c in "/\\" for c in name):
        raise NodeError(
            f"“{quoted(name)}” cannot be the name of a file.",
            fix="Use at most 200 letters, digits, spaces, dots and hyphens, and no slashes.",
        )
    return name


def _table(rows: Any, safe: bool) -> bytes:
    """A table as CSV; `safe` keeps spreadsheets from reading a text as a formula."""
    if isinstance(rows, dict):
        rows = [rows]
    if not isinstance(rows, list):
        raise NodeError(
            f"A table is made of a list of records, and this is {a_kind(rows)}.",
            fix="Name the field that holds the list in “What”.",
        )
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise NodeError(
                f"A table is made of records, and item {place} is {a_kind(row)}.",
                fix="Make records with “Transform” before.",
            )
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name, safe) for name in columns])
    writer.writerows([_cell(row.get(name), safe) for name in columns] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any, safe: bool) -> str:
    text = as_text(value)
    return f"'{text}" if safe and isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _kind_of(name: str) -> str:
    """What a text file is, by the ending of its name."""
    return _BY_ENDING.get(name.rpartition(".")[2].lower(), _KINDS["text"])
