"""Merge: several ways become one again."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out, PortInfo, PortType
from nodes.compiling import Writer, quoted, stiff
from nodes.formula import FormulaError
from nodes.formula.values import a_kind
from nodes.shape import ANY, Shape, list_of, one_of, record, with_member
from nodes.texts import as_key

_MOST = 100_000


class Merged(Out):
    """What came together."""

    value: Any


class Merge(Node):
    """Brings several ways together into one.

    Wait for all ways that are taken, or go on with the first value that arrives, or with the first few. A way that a decision
    left out is not waited for. Values come in the order in which their connections were drawn.

    Lists can be appended, put together row by row, or by a key that their items share, as a table is looked up in another.
    """

    family, title, icon, effect = Family.FLOW, "Merge", "merge", Effect.E0
    words = (
        "join",
        "combine",
        "wait for all",
        "together",
        "collect",
        "union",
        "first",
        "zip",
        "lookup",
        "match",
        "append",
    )
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
        Example(
            "The first two of three answers",
            {"mode": "some", "count": 2, "combine": "list"},
            {"values": ["yes", "no"]},
            {"value": ["yes", "no"]},
        ),
        Example(
            "Row by row",
            {"combine": "position"},
            {"values": [[{"name": "Ada"}, {"name": "Bo"}], [{"score": 9}, {"score": 7}]]},
            {"value": [{"name": "Ada", "score": 9}, {"name": "Bo", "score": 7}]},
        ),
        Example(
            "Orders with their customers",
            {"combine": "key", "key": "customer", "other_key": "id", "keep": "first"},
            {
                "values": [
                    [{"order": 1, "customer": "c1"}, {"order": 2, "customer": "c9"}],
                    [{"id": "c1", "name": "Ada"}, {"id": "c2", "name": "Bo"}],
                ]
            },
            {"value": [{"order": 1, "customer": "c1", "id": "c1", "name": "Ada"}, {"order": 2, "customer": "c9"}]},
        ),
    )  # fmt: skip

    mode: Literal["all", "first", "some"] = Field(
        default="all",
        title="Go on",
        description="When all ways that are taken have arrived, with the first of them, or with the first few.",
    )
    count: int = Field(
        default=2,
        ge=1,
        le=100,
        title="How many",
        description="After so many values it goes on; what comes later is not used. If fewer come, with those.",
        json_schema_extra={"show_when": {"mode": "some"}},
    )
    combine: Literal["one", "list", "records", "lists", "position", "key"] = Field(
        default="one",
        title="Make",
        description="One value (the first), a list of the values, one record of all fields (later ones win), one long list; or "
        "put the items of lists together: the first with the first (position), or those with the same key.",
        json_schema_extra={"show_when": {"mode": ["all", "some"]}},
    )
    key: Formula = Field(
        default="",
        title="Key",
        description="What items that belong together share: a formula over an item of the first list, such as `customer.id`.",
        json_schema_extra={"placeholder": "id", "show_when": {"combine": "key"}},
    )
    other_key: Formula = Field(
        default="",
        title="Key in the other lists",
        description="The same over an item of the others. Empty: it is called the same there.",
        json_schema_extra={"placeholder": "id", "show_when": {"combine": "key"}},
    )
    keep: Literal["both", "first", "all"] = Field(
        default="both",
        title="Keep",
        description="Items that have a match in both, all items of the first list, or all items of all lists.",
        json_schema_extra={"show_when": {"combine": ["position", "key"]}},
    )

    @model_validator(mode="after")
    def _is_complete(self) -> "Merge":
        if self.combine == "key" and self.mode != "first" and not self.key.strip():
            raise ValueError("say which key the items share")
        return self

    async def run(
        self,
        ctx: Context,
        values: Annotated[list[Any], PortInfo(many=True, type=PortType.ANY, help="Connect as many steps as you like.")],
    ) -> Merged:
        if not isinstance(values, list):
            values = [values]
        if self.mode == "some":
            values = values[: self.count]
        if self.mode == "first" or self.combine == "one":
            return Merged(values[0] if values else None)
        if self.combine == "list":
            return Merged(values)
        if self.combine == "lists":
            return Merged(_chained(values))
        if self.combine == "position":
            return Merged(_side_by_side(values, self.keep))
        if self.combine == "key":
            lists = _lists(values)
            whole, second = lists[0] if lists else [], self.other_key.strip() or self.key
            for number, other in enumerate(lists[1:]):
                whole = _joined(whole, other, self._key(ctx, self.key), self._key(ctx, second), number + 2, self.keep)
            return Merged(whole)
        return Merged(_one_record(values))

    @staticmethod
    def _key(ctx: Context, formula: str) -> Callable[[Any], Any]:
        return lambda item: ctx.evaluate(formula, **{**(item if isinstance(item, dict) else {}), "item": item})

    def join_here(self) -> Literal["all", "first"]:
        return "all" if self.mode == "all" else "first"

    def enough(self) -> int:
        return {"all": 0, "first": 1, "some": self.count}[self.mode]

    def known_in(self, field: str, known: Shape, arriving: Mapping[str, Shape]) -> Shape:
        if field not in ("key", "other_key"):
            return known
        lists = arriving.get("values", list_of()).items
        options = [option for option in lists.options or (lists,) if option.kind == "list"]
        # Which of the lists an item is from cannot be told, so a field that some of them have may be missing.
        return with_member(known, one_of(*(option.items for option in options)) if options else ANY)

    def as_python(self, w: Writer) -> None:
        if self.mode == "some":
            w.let("values", f"values[:{self.count}]")
        if self.mode == "first" or self.combine == "one":
            w.give(stiff("values[0] if values else None", 2))
        elif self.combine == "list":
            w.give("values")
        elif self.combine == "lists":
            w.give(w.use(_chained, "values"))
        elif self.combine == "records":
            w.give(w.use(_one_record, "values"))
        elif self.combine == "position":
            w.give(w.use(_side_by_side, "values", quoted(self.keep)))
        else:
            w.let("lists", w.use(_lists, "values"))
            keys = [
                stiff(f"lambda item: {w.formula(key, member='item')}", 1)
                for key in (self.key, self.other_key or self.key)
            ]
            w.let("whole", stiff("lists[0] if lists else []", 2))
            with w.block("for number, other in enumerate(lists[1:], 2):"):
                w.let("whole", w.use(_joined, "whole", "other", *keys, "number", quoted(self.keep)))
            w.give("whole")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        values = arriving.get("values", list_of())
        one = values.items
        if self.mode == "first" or self.combine == "one":
            return {"value": one}
        if self.combine == "list":
            return {"value": values}
        if self.combine == "lists":
            return {"value": one if one.kind == "list" else list_of()}
        if self.combine in ("position", "key"):
            return {"value": list_of()}
        return {"value": one if one.kind == "record" else record(open=True) if one.kind == "any" else ANY}

    def describe(self) -> str:
        if self.mode == "first":
            return "first to arrive"
        ways = {"one": "", "list": "as a list", "records": "as one record", "lists": "as one list"}
        said = ways | {"position": "item by item", "key": f"by {self.key.strip()}"}
        some = f"first {self.count:,} to arrive" if self.mode == "some" else ""
        return ", ".join(part for part in (some, said[self.combine]) if part)[:200]


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise NodeError(
        f"Only lists can be put together item by item, but {a_kind(value)} arrived.",
        fix="Make a list of it first, or choose another way to put the values together.",
    )


def _together(one: Any, other: Any) -> Any:
    """Two items as one: their fields in one record, of which later ones win, or else a list of both."""
    return {**one, **other} if isinstance(one, dict) and isinstance(other, dict) else [one, other]


def _chained(values: list[Any]) -> list[Any]:
    """One long list. A single value among lists is an item of its own; nothing adds nothing."""
    long: list[Any] = []
    for value in values:
        long += value if isinstance(value, list) else [] if value is None else [value]
    return long


def _one_record(values: list[Any]) -> dict[str, Any]:
    """One record of all fields; later ones win."""
    found: dict[str, Any] = {}
    for value in values:
        if value is None:
            continue
        if not isinstance(value, dict):
            raise NodeError(
                f"Only records can become one record, but {a_kind(value)} arrived.",
                fix="Make a list instead, or put the value into a field with “Set values” first.",
            )
        found.update(value)
    return found


def _side_by_side(values: list[Any], keep: str) -> list[Any]:
    """The first items of all lists together, then the second, and so on."""
    lists = _lists(values)
    whole = lists[0] if lists else []
    for other in lists[1:]:
        shared = min(len(whole), len(other))
        rest = whole[shared:] if keep != "both" else []
        if keep == "all":
            rest = rest or other[shared:]
        whole = [_together(*pair) for pair in zip(whole[:shared], other[:shared], strict=True)] + rest
    return whole


def _lists(values: list[Any]) -> list[list[Any]]:
    return [_list(value) for value in values if value is not None]


def _joined(
    one: list[Any],
    other: list[Any],
    key: Callable[[Any], Any],
    other_key: Callable[[Any], Any],
    number: int,
    keep: str,
) -> list[Any]:
    """Each item of one list with every item of the other that has its key; nothing is no key."""
    places: dict[bytes, list[int]] = {}
    for place, item in enumerate(other):
        if (found_key := _key_of(other_key, item, number)) is not None:
            places.setdefault(found_key, []).append(place)
    found: list[Any] = []
    used: set[int] = set()
    for item in one:
        own_key = _key_of(key, item, 1)
        matches = places.get(own_key, []) if own_key is not None else []
        found += [_together(item, other[place]) for place in matches]
        used.update(matches)
        if not matches and keep != "both":
            found.append(item)
        if len(found) > _MOST:
            raise NodeError(
                f"Put together, the lists come to more than {_MOST:,} items: many of them have the same key.",
                category="limit",
                fix="Choose a key that differs from item to item.",
            )
    if keep == "all":
        found += [item for place, item in enumerate(other) if place not in used]
    return found


def _key_of(key: Callable[[Any], Any], item: Any, which: int) -> bytes | None:
    try:
        found = key(item)
    except FormulaError as error:
        raise NodeError(
            f"The key of an item of list {which} cannot be found: {error.message}"[:500],
            fix="Correct the key, or filter out the items that have none. `item.id | default(none)` allows for both.",
        ) from None
    if found is None:
        return None
    return as_key(found)
