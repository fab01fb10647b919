"""Merge: several ways become one again."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Node, NodeError, Out, PortInfo, PortType
from nodes.formula.values import a_kind
from nodes.shape import ANY, Shape, list_of, record


class Merged(Out):
    """What came together."""

    value: Any


class Merge(Node):
    """Brings several ways together into one.

    Wait for all ways that are taken, or go on with the first value that arrives. A way that a decision left out is not
    waited for. Values come in the order in which their connections were drawn.
    """

    family, title, icon, effect = Family.FLOW, "Merge", "merge", Effect.E0
    words = ("join", "combine", "wait for all", "together", "collect", "union", "first")
    examples = (
        Example(
            "Whichever way was taken", {}, {"values": [{"total": 12}]}, {"value": {"total": 12}}
        ),
        Example(
            "One record out of two",
            {"combine": "records"},
            {"values": [{"name": "Ada", "city": "Paris"}, {"city": "London"}]},
            {"value": {"name": "Ada", "city": "London"}},
        ),
        Example(
            "One list out of two", {"combine": "lists"}, {"values": [[1, 2], [3]]}, {"value": [1, 2, 3]}
        ),
        Example("All values as a list", {"combine": "list"}, {"values": ["a", "b"]}, {"value": ["a", "b"]}),
        Example("The first to arrive", {"mode": "first"}, {"values": ["fast"]}, {"value": "fast"}),
    )  # fmt: skip

    mode: Literal["all", "first"] = Field(
        default="all",
        title="Go on",
        description="When all ways that are taken have arrived, or with the first of them.",
    )
    combine: Literal["one", "list", "records", "lists"] = Field(
        default="one",
        title="Make",
        description="One value (the first), a list of the values, one record of all fields (later ones win), or one long list.",
        json_schema_extra={"show_when": {"mode": "all"}},
    )

    async def run(
        self,
        ctx: Context,
        values: Annotated[list[Any], PortInfo(many=True, type=PortType.ANY, help="Connect as many steps as you like.")],
    ) -> Merged:
        if not isinstance(values, list):
            values = [values]
        if self.mode == "first" or self.combine == "one":
            return Merged(values[0] if values else None)
        if self.combine == "list":
            return Merged(values)
        if self.combine == "lists":
            # A single value among lists is an item of its own; nothing adds nothing.
            long: list[Any] = []
            for value in values:
                long += value if isinstance(value, list) else [] if value is None else [value]
            return Merged(long)
        record: dict[str, Any] = {}
        for value in values:
            if value is None:
                continue
            if not isinstance(value, dict):
                raise NodeError(
                    f"Only records can become one record, but {a_kind(value)} arrived.",
                    fix="Make a list instead, or put the value into a field with “Set values” first.",
                )
            record.update(value)
        return Merged(record)

    def join_here(self) -> Literal["all", "first"]:
        return self.mode

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        values = arriving.get("values", list_of())
        one = values.items
        if self.mode == "first" or self.combine == "one":
            return {"value": one}
        if self.combine == "list":
            return {"value": values}
        if self.combine == "lists":
            return {"value": one if one.kind == "list" else list_of()}
        return {"value": one if one.kind == "record" else record(open=True) if one.kind == "any" else ANY}

    def describe(self) -> str:
        if self.mode == "first":
            return "first to arrive"
        return {"one": "", "list": "as a list", "records": "as one record", "lists": "as one list"}[self.combine]
