"""For each: the same steps for every item of a list."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.base import SKIP, Context, Effect, Example, Family, Formula, ListLoop, NodeError, Out, PortInfo
from nodes.compiling import Writer
from nodes.formula import infer
from nodes.formula.values import a_kind
from nodes.shape import ANY, Shape, list_of, record


class Each(Out):
    """One item after the other, and in the end all results."""

    item: Annotated[Any, PortInfo(help="Fires once for each item; connect the steps to repeat.")] = SKIP
    done: Annotated[
        list[Any], PortInfo(help="Fires once, with the results in the order of the items, or of the batches.")
    ] = SKIP


class ForEach(ListLoop):
    """Repeats steps for every item of a list and collects the results.

    Connect the steps to repeat behind “item”, and the last of them back to “result”. When all items are through, “done”
    gives the list of results. Inside, formulas know the `item` and its `index`, counted from 0. With batches, each `item` is
    a list of some of them, for services that take many at once, and there is one result for each batch.
    """

    family, title, icon, effect = Family.FLOW, "For each", "repeat", Effect.E0
    words = ("loop", "repeat", "every", "items", "list", "iterate", "map", "batch")
    examples = (
        Example(
            "Go through what arrives",
            {},
            {"items": [{"name": "Ada"}, {"name": "Bo"}]},
            {"item": {"name": "Ada"}, "done": [{"name": "Ada"}, {"name": "Bo"}]},
        ),
        Example(
            "Go through a field of it",
            {"over": "order.lines", "parallel": 5},
            {"items": {"order": {"lines": [1, 2]}}},
            {"item": 1, "done": [1, 2]},
        ),
        Example(
            "In batches of two",
            {"batch": 2},
            {"items": ["a", "b", "c"]},
            {"item": ["a", "b"], "done": [["a", "b"], ["c"]]},
        ),
        Example("An empty list", {}, {"items": []}, {"done": []}),
    )

    over: Formula = Field(
        default="",
        title="List",
        description="Which list to go through, such as `order.lines`. Empty: what arrives is the list.",
        json_schema_extra={"placeholder": "order.lines"},
    )
    most: int = Field(
        default=1_000, ge=1, le=10_000, title="At most", description="How many items there may be; more is an error."
    )

    batch: int = Field(
        default=1,
        ge=1,
        le=1_000,
        title="In batches of",
        description="1: one item after the other. More: `item` is a list of so many items, the last one of what is left.",
    )

    async def run(
        self,
        ctx: Context,
        items: Annotated[Any, PortInfo(help="The list, or a record that holds it.")],
        result: Annotated[Any, PortInfo(back=True, help="Connect the last of the repeated steps here.")] = None,
    ) -> Each:
        # The engine runs the body; without one, every item is its own result.
        return Each(done=self.items_of(ctx, items))

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        found = ctx.evaluate(self.over) if self.over.strip() else items
        return _members(found, self.most, self.batch)

    def as_python(self, w: Writer) -> None:
        found = w.formula(self.over) if self.over.strip() else w.arrived("items")
        w.give(w.use(_members, found, str(self.most), str(self.batch)))

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        main = arriving.get("items", ANY)
        if not self.over.strip():
            return {} if self.batch == 1 else {"item": list_of(main.items), "done": list_of()}
        known = record({**main.fields, "items": main, "input": main}, optional=main.optional, open=True)
        item = infer(self.over, known).items
        return {"item": item if self.batch == 1 else list_of(item), "done": list_of()}

    def describe(self) -> str:
        many = f"{self.parallel} at once" if self.parallel > 1 else ""
        batches = f"in batches of {self.batch:,}" if self.batch > 1 else ""
        return ", ".join(part for part in (self.over, batches, many) if part)[:200]


def _members(found: Any, most: int, batch: int) -> list[Any]:
    """What to go through, one by one or in batches."""
    if not isinstance(found, list):
        raise NodeError(
            f"“For each” needs a list, but got {a_kind(found)}.",
            fix="Say in its settings which list to go through, such as `order.lines`.",
        )
    if len(found) > most:
        raise NodeError(
            f"The list has {len(found):,} items, and {most:,} are allowed.",
            category="limit",
            fix="Filter the list first, or raise “At most”.",
        )
    if batch > 1:
        return [found[start : start + batch] for start in range(0, len(found), batch)]
    return found
