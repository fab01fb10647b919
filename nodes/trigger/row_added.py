"""A row was added: a table has new rows."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import Field, field_validator

from nodes.base import Context, Effect, Example, Family, Json, Label, Node, NodeError, Out, PortInfo
from nodes.compiling import Writer, quoted
from nodes.filling import check_json
from nodes.listen import RowAdded as Added
from nodes.shape import TEXT, Shape


class NewRows(Out):
    """What was added."""

    row: Annotated[Any, PortInfo(help="The row, or the last of several that were added together.")]
    rows: Annotated[list[Any], PortInfo(help="All rows that were added together, as records; of very many the last.")]
    table: str


class RowAdded(Node):
    """Starts when rows were added to a table.

    Rows that are added together, by one step of an agent, start it once. Nothing is lost when the server stops in between.
    """

    family, title, icon, effect = Family.TRIGGER, "A row was added", "playlist_add", Effect.E0
    words = ("table", "record", "new", "insert", "event", "database", "trigger", "when")
    examples = (
        Example(
            "One row",
            {"table": "orders"},
            {"event": {"table": "orders", "rows": [{"name": "Ada", "total": 12}]}},
            {"row": {"name": "Ada", "total": 12}, "rows": [{"name": "Ada", "total": 12}], "table": "orders"},
        ),
        Example(
            "Two rows together",
            {"table": "orders"},
            {"event": {"table": "orders", "rows": [{"total": 12}, {"total": 30}]}},
            {"row": {"total": 30}, "rows": [{"total": 12}, {"total": 30}], "table": "orders"},
        ),
    )

    table: str = Field(
        min_length=1, max_length=120, title="Table", description="Its name, as under Settings → Files & tables."
    )
    sample_row: Json = Field(
        default='{"name": "Ada", "total": 1200}',
        title="Sample row",
        description="What a row may look like, for the sandbox.",
    )

    @field_validator("sample_row")
    @classmethod
    def _is_json(cls, text: str) -> str:
        return check_json(text)

    async def run(self, ctx: Context, event: Any) -> NewRows:
        rows, table = _new_rows(event, self.table)
        return NewRows(row=rows[-1], rows=rows, table=table)

    def as_python(self, w: Writer) -> None:
        w.let("rows, table", w.use(_new_rows, "event", quoted(self.table)))
        w.gives(row="rows[-1]", rows="rows", table="table")

    def listens(self) -> Added:
        return Added(self.table.strip())

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED})

    def sample(self) -> dict[str, Any]:
        row = orjson.loads(self.sample_row) if self.sample_row.strip() else {}
        return {"table": self.table, "rows": [row]}

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"table": TEXT}

    def describe(self) -> str:
        return f"to “{self.table}”"


def _new_rows(event: Any, table: str) -> tuple[list[Any], str]:
    """The rows that were added, and where."""
    told = event if isinstance(event, dict) and isinstance(event.get("rows"), list) else {"rows": [event]}
    rows: list[Any] = told["rows"]
    if not rows:
        raise NodeError("No row was added.", fix="Start it with at least one row.")
    return rows, str(told.get("table") or table)
