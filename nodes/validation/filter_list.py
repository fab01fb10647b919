"""Filter a list: keep the items for which something is true."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out
from nodes.compiling import Writer
from nodes.formula.values import a_kind
from nodes.shape import ANY, Shape, with_member
from nodes.texts import names_of

_MOST: Final = 100_000


class Sorted(Out):
    """The items that fulfil the condition, and the others."""

    kept: list[Any]
    dropped: list[Any]


class FilterList(Node):
    """Keeps the items of a list for which a condition is true.

    In the condition, `item` is one item and `index` its place, counted from 0; the fields of an item can be named directly.
    The other items leave by “dropped”.
    """

    family, title, icon, effect = Family.VALIDATION, "Filter a list", "filter_alt", Effect.E0
    words = ("where", "select", "keep", "remove", "items", "only", "list")
    examples = (
        Example(
            "Only large orders",
            {"condition": "total > 100"},
            {"items": [{"total": 500}, {"total": 20}]},
            {"kept": [{"total": 500}], "dropped": [{"total": 20}]},
        ),
        Example(
            "Drop empty texts",
            {"condition": "item is not empty"},
            {"items": ["a", "", "b"]},
            {"kept": ["a", "b"], "dropped": [""]},
        ),
    )

    condition: Formula = Field(
        min_length=1,
        title="Condition",
        description="What must be true of an item to keep it: its fields are known by name, and all of it as `item`.",
        json_schema_extra={"placeholder": "total > 100"},
    )

    async def run(self, ctx: Context, items: list[Any]) -> Sorted:
        kept, dropped = [], []
        for index, item in enumerate(_checked(items)):
            answer = ctx.evaluate(self.condition, **names_of(item, index))
            if answer is True:
                kept.append(item)
            elif answer is False:
                dropped.append(item)
            else:
                raise NodeError(
                    f"For item {index} the condition gives {a_kind(answer)}, and it must give yes or no.",
                    fix="Compare with something, as in `total > 100`.",
                )
        return Sorted(kept, dropped)

    def as_python(self, w: Writer) -> None:
        answer = w.formula(self.condition, member="item")
        w.let("kept: list[Any]", "[]")
        w.let("dropped: list[Any]", "[]")
        with w.loop(w.use(_checked, w.arrived("items")), answer, index=not answer.truth):
            w.let("chosen", w.yes_no(answer, words='f"For item {index} the condition"'))
            w.line("(kept if chosen else dropped).append(item)")
        w.gives(kept="kept", dropped="dropped")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        items = arriving.get("items", ANY)
        return dict.fromkeys(("kept", "dropped"), items) if items.kind == "list" else {}

    def known_in(self, field: str, known: Shape, arriving: Mapping[str, Shape]) -> Shape:
        return with_member(known, arriving.get("items", ANY).items)

    def describe(self) -> str:
        return self.condition[:200]


def _checked(items: Any) -> list[Any]:
    """The same list when it is one that can be filtered. Raises NodeError."""
    if not isinstance(items, list):
        raise NodeError(f"A list is needed, but {a_kind(items)} arrived.", fix="Connect the list itself.")
    if len(items) > _MOST:
        raise NodeError(f"The list has {len(items):,} items; up to {_MOST:,} can be filtered.", category="limit")
    return items
