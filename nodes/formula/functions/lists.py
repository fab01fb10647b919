"""Functions that work on lists. Settings named `field` take a field's name or a formula, worked out for each item."""

from typing import Any

from nodes.formula.functions import wants
from nodes.formula.meter import Meter
from nodes.formula.problems import Missing, too_much, wrong_type, wrong_value
from nodes.formula.table import Each, function
from nodes.formula.values import NUMBERS, a_kind, by_order, cannot, checked, contains, key_of, moment_of, same, to_text

_ATTRIBUTE = {"attribute": "field"}
_SORT = {"attribute": "field", "reverse": "descending"}
_PEOPLE = '[{"name": "Ada", "age": 36}, {"name": "Bo", "age": 20}]'


def _listed(meter: Meter, value: list[Any], field: Each | None) -> list[Any]:
    meter.step(len(value))
    return value if field is None else [field(item) for item in value]


@function("List", "text or list or record", "[1, 2, 3] | length", 3, returns="number", aliases=("len", "size"))
def length(meter: Meter, value: Any) -> int:
    """How many items, characters or fields there are."""
    return len(value)


@function("List", "list", '[1, 2, 3] | count("item > 1")', 2, returns="number")
def count(meter: Meter, value: list[Any], field: Each | None = None) -> int:
    """How many items there are, or how many fulfil a formula."""
    return len(value) if field is None else sum(1 for found in _listed(meter, value, field) if found)


@function("List", "list or text", "[1, 2] | first", 1, returns="item")
def first(meter: Meter, value: Any) -> Any:
    """The first item."""
    if not value:
        raise Missing(
            f"`first` found no item: the {_noun(value)} is empty.", code="formula.empty", fix="Add `| default(…)`."
        )
    return value[0]


@function("List", "list or text", "[1, 2] | last", 2, returns="item")
def last(meter: Meter, value: Any) -> Any:
    """The last item."""
    if not value:
        raise Missing(
            f"`last` found no item: the {_noun(value)} is empty.", code="formula.empty", fix="Add `| default(…)`."
        )
    return value[-1]


@function(
    "List",
    "list",
    '[{"price": 2}, {"price": 3}] | map("price")',
    [2, 3],
    returns="list of each",
    aliases=("pluck",),
    keywords=_ATTRIBUTE,
)
def map_(meter: Meter, value: list[Any], field: Each) -> list[Any]:
    """Takes a field of each item, or works out a formula for each; `item` is the item, `outer.…` what is around it."""
    return _listed(meter, value, field)


@function(
    "List",
    "list",
    '[1, 2, 3] | filter("item > 1")',
    [2, 3],
    returns="same",
    aliases=("select", "selectattr"),
    keywords=_ATTRIBUTE,
)
def filter_(meter: Meter, value: list[Any], field: Each) -> list[Any]:
    """Keeps the items for which a field is true or a formula holds."""
    meter.step(len(value))
    return [item for item in value if field(item)]


@function(
    "List", "list", '[1, 2, 3] | reject("item > 1")', [1], returns="same", aliases=("rejectattr",), keywords=_ATTRIBUTE
)
def reject(meter: Meter, value: list[Any], field: Each) -> list[Any]:
    """Leaves out the items for which a field is true or a formula holds."""
    meter.step(len(value))
    return [item for item in value if not field(item)]


@function("List", "list", f'{_PEOPLE} | where("age", ">", 30) | map("name")', ["Ada"], returns="same")
def where(meter: Meter, value: list[Any], field: Each, operator: Any, *to: Any) -> list[Any]:
    """Keeps the items whose field equals a value, or compares with it as an operator says."""
    if len(to) > 1:
        raise wrong_value("`where` takes a field, an operator and a value.", 'Write `where("age", ">", 30)`.')
    sign, wanted = (operator, to[0]) if to else ("==", operator)
    meter.step(len(value))
    return [item for item in value if _compare(meter, field(item), wants.text(sign, "operator"), wanted)]


@function(
    "List",
    "list",
    f'{_PEOPLE} | find_first("age < 30")',
    {"name": "Bo", "age": 20},
    returns="item",
    keywords=_ATTRIBUTE,
)
def find_first(meter: Meter, value: list[Any], field: Each) -> Any:
    """The first item for which a formula holds."""
    for item in value:
        meter.step()
        if field(item):
            return item
    raise Missing("`find_first` found no such item.", code="formula.empty", fix="Add `| default(…)`.")


@function("List", "list", '[1, 2] | any("item > 1")', True, returns="yes/no", aliases=("some",), keywords=_ATTRIBUTE)
def any_(meter: Meter, value: list[Any], field: Each | None = None) -> bool:
    """Whether at least one item is true or fulfils a formula."""
    meter.step(len(value))
    return any(item if field is None else field(item) for item in value)


@function("List", "list", '[1, 2] | all("item > 1")', False, returns="yes/no", aliases=("every",), keywords=_ATTRIBUTE)
def all_(meter: Meter, value: list[Any], field: Each | None = None) -> bool:
    """Whether all items are true or fulfil a formula."""
    meter.step(len(value))
    return all(item if field is None else field(item) for item in value)


@function("List", "list", '[{"price": 2}, {"price": 3}] | sum("price")', 5, returns="number", keywords=_ATTRIBUTE)
def sum_(meter: Meter, value: list[Any], field: Each | None = None) -> float:
    """Adds up the items, or a field of each."""
    return checked(sum(_numbers("sum", _listed(meter, value, field))))


@function("List", "list", "[1, 2, 6] | average", 3.0, returns="number", aliases=("avg", "mean"), keywords=_ATTRIBUTE)
def average(meter: Meter, value: list[Any], field: Each | None = None) -> float:
    """The average of the items, or of a field of each."""
    numbers = _numbers("average", _listed(meter, value, field))
    if not numbers:
        raise Missing("An empty list has no average.", code="formula.empty", fix="Add `| default(0)`.")
    return checked(sum(numbers) / len(numbers))


@function("List", "list or number", "min(3, 1, 2)", 1, returns="any")
def min_(meter: Meter, value: Any, *more: Any) -> Any:
    """The smallest of several numbers, or of a list's items."""
    return _sorted(meter, _several("min", value, more))[0]


@function("List", "list or number", "[3, 1, 2] | max", 3, returns="any")
def max_(meter: Meter, value: Any, *more: Any) -> Any:
    """The biggest of several numbers, or of a list's items."""
    return _sorted(meter, _several("max", value, more))[-1]


@function("List", "list", f'{_PEOPLE} | min_by("age") | get("name")', "Bo", returns="item", keywords=_ATTRIBUTE)
def min_by(meter: Meter, value: list[Any], field: Each) -> Any:
    """The item with the smallest field or formula result."""
    return sort(meter, _several("min_by", value, ()), field)[0]


@function("List", "list", f'{_PEOPLE} | max_by("age") | get("name")', "Ada", returns="item", keywords=_ATTRIBUTE)
def max_by(meter: Meter, value: list[Any], field: Each) -> Any:
    """The item with the biggest field or formula result."""
    return sort(meter, _several("max_by", value, ()), field, True)[0]


@function(
    "List",
    "list",
    "[3, 1, 2] | sort(descending=true)",
    [3, 2, 1],
    returns="same",
    aliases=("sort_by", "sorted", "toSorted"),
    keywords=_SORT,
)
def sort(meter: Meter, value: list[Any], field: Each | None = None, descending: Any = False) -> list[Any]:
    """Puts the items in order, or in the order of a field or formula; empty ones come last."""
    marks = list(_listed(meter, value, field))
    filled = [index for index, mark in enumerate(marks) if mark is not None]
    kinds = {float if type(marks[index]) in NUMBERS else type(marks[index]) for index in filled}
    if len(kinds) > 1 or kinds - {float, str, bool}:
        examples: dict[type, Any] = {type(marks[index]): marks[index] for index in filled}
        shown = " and ".join(sorted({a_kind(example) for example in examples.values()}))
        raise wrong_type(f"I cannot put {shown} in order.", 'Name a field of the items: `sort("price")`.')
    meter.step(len(filled) * max(len(filled).bit_length() - 8, 0))
    if kinds == {str} and all(mark is None or mark[4:5] == "-" for mark in marks):
        moments = [moment_of(marks[index]) for index in filled]
        if None not in moments:  # the same moment can be written in several ways
            for index, moment in zip(filled, moments, strict=True):
                marks[index] = moment
    filled.sort(key=marks.__getitem__, reverse=wants.yes_no(descending, "`descending`"))
    return [value[index] for index in filled] + [item for item, mark in zip(value, marks, strict=True) if mark is None]


@function("List", "list or text", "[1, 2, 3] | reverse", [3, 2, 1], returns="same", aliases=("reversed", "toReversed"))
def reverse(meter: Meter, value: Any) -> Any:
    """Turns the order round."""
    meter.step(len(value) if type(value) is list else 0)
    return value[::-1]


@function("List", "list", "[1, 2, 1] | unique", [1, 2], returns="same", aliases=("distinct",), keywords=_ATTRIBUTE)
def unique(meter: Meter, value: list[Any], field: Each | None = None) -> list[Any]:
    """Leaves out items that occurred before, or whose field or formula result did."""
    seen: dict[Any, Any] = {}
    for item, mark in zip(value, _listed(meter, value, field), strict=True):
        seen.setdefault(key_of(mark, meter), item)
    return list(seen.values())


@function("List", "list", '["a", "b"] | index_of("b")', 1, returns="number")
def index_of(meter: Meter, value: list[Any], item: Any) -> int:
    """Where an item first stands, counted from 0; -1 when it does not."""
    meter.step(len(value))
    return next((index for index, other in enumerate(value) if same(other, item, meter)), -1)


@function(
    "List",
    "list",
    f'{_PEOPLE} | group_by("age > 30")',
    {"true": [{"name": "Ada", "age": 36}], "false": [{"name": "Bo", "age": 20}]},
    returns="record",
    aliases=("groupby", "groupBy"),
    keywords=_ATTRIBUTE,
)
def group_by(meter: Meter, value: list[Any], field: Each) -> dict[str, Any]:
    """A record of lists: the items that share a field or formula result."""
    out: dict[str, Any] = {}
    for item, mark in zip(value, _listed(meter, value, field), strict=True):
        meter.make(16)
        out.setdefault(to_text(mark, meter), []).append(item)
    return out


@function("List", "list", '["a", "b", "a"] | count_by("item")', {"a": 2, "b": 1}, returns="record", keywords=_ATTRIBUTE)
def count_by(meter: Meter, value: list[Any], field: Each) -> dict[str, Any]:
    """A record that says how often each field or formula result occurs."""
    out: dict[str, Any] = {}
    for mark in _listed(meter, value, field):
        name = to_text(mark, meter)
        out[name] = out.get(name, 0) + 1
    return out


@function("List", "list", f'{_PEOPLE} | index_by("name") | keys', ["Ada", "Bo"], returns="record", keywords=_ATTRIBUTE)
def index_by(meter: Meter, value: list[Any], field: Each) -> dict[str, Any]:
    """A record in which each item is found by its field or formula result; a later one wins."""
    return {to_text(mark, meter): item for item, mark in zip(value, _listed(meter, value, field), strict=True)}


@function("List", "list", "[1, [2, [3]]] | flatten", [1, 2, [3]], returns="list", aliases=("flat",))
def flatten(meter: Meter, value: list[Any], depth: Any = 1) -> list[Any]:
    """Takes the items out of lists within the list."""
    for _ in range(wants.whole(depth, "depth", 1, 10)):
        out: list[Any] = []
        for item in value:
            size = len(item) if type(item) is list else 1
            meter.step(size)
            meter.make(16 * size)
            out.extend(item if type(item) is list else [item])
        value = out
    return value


@function("List", "list", '["a", null, ""] | compact', ["a"], returns="same")
def compact(meter: Meter, value: list[Any]) -> list[Any]:
    """Leaves out what is empty: nothing, empty texts, lists and records."""
    meter.step(len(value))
    return [item for item in value if item is not None and item not in ("", [], {})]


@function("List", "list or text", "[1, 2, 3, 4] | slice(1, 3)", [2, 3], returns="same", aliases=("substring", "substr"))
def slice_(meter: Meter, value: Any, start: Any = 0, end: Any = None) -> Any:
    """The items from one position up to, but not with, another; counted from 0, from the end when negative."""
    edge = 2**62
    until = None if end is None else wants.whole(end, "end", -edge, edge)
    return value[wants.whole(start, "start", -edge, edge) : until]


@function("List", "list or text", "[1, 2, 3] | take(2)", [1, 2], returns="same", aliases=("limit",))
def take(meter: Meter, value: Any, number: Any) -> Any:
    """The first so many items."""
    return value[: wants.whole(number, "number of items", 0, 2**62)]


@function("List", "list or text", "[1, 2, 3] | skip(2)", [3], returns="same")
def skip(meter: Meter, value: Any, number: Any) -> Any:
    """All but the first so many items."""
    return value[wants.whole(number, "number of items", 0, 2**62) :]


@function("List", "list", "[1, 2, 3] | batch(2)", [[1, 2], [3]], returns="list", aliases=("chunk",))
def batch(meter: Meter, value: list[Any], size: Any) -> list[Any]:
    """Cuts a list into lists of at most so many items."""
    step = wants.whole(size, "size", 1, 2**62)
    meter.step(len(value))
    meter.make(16 * len(value))
    return [value[start : start + step] for start in range(0, len(value), step)]


@function("List", "list", '[1, 2] | zip(["a", "b"])', [[1, "a"], [2, "b"]], returns="list")
def zip_(meter: Meter, value: list[Any], *others: Any) -> list[Any]:
    """Puts the first items of lists together, then the second ones, and so on, to the end of the shortest."""
    lists = [value, *(wants.items(other, "other list") for other in others)]
    size = min(len(entry) for entry in lists)
    meter.step(size * len(lists))
    meter.make(16 * size * len(lists))
    return [list(row) for row in zip(*lists, strict=False)]


@function("List", "list", "[1] | append(2)", [1, 2], returns="list", aliases=("push",))
def append(meter: Meter, value: list[Any], item: Any) -> list[Any]:
    """A list with one more item at its end."""
    meter.step(len(value))
    return [*value, item]


@function("List", "list", "[1] | concat([2, 3])", [1, 2, 3], returns="list", aliases=("union",))
def concat(meter: Meter, value: list[Any], *others: Any) -> list[Any]:
    """Puts lists one after the other."""
    out = list(value)
    for other in others:
        meter.step(len(wants.items(other, "other list")))
        meter.make(16 * len(other))
        out.extend(other)
    return out


@function("List", "list", "[1, 2, 3] | without([2])", [1, 3], returns="same", aliases=("difference",))
def without(meter: Meter, value: list[Any], others: Any) -> list[Any]:
    """Leaves out the items that another list has."""
    unwanted = {key_of(other, meter) for other in _listed(meter, wants.items(others, "other list"), None)}
    meter.step(len(value))
    return [item for item in value if key_of(item, meter) not in unwanted]


@function("List", "list", "[1, 2, 3] | common([2, 3, 4])", [2, 3], returns="same", aliases=("intersect",))
def common(meter: Meter, value: list[Any], others: Any) -> list[Any]:
    """Keeps the items that another list has too."""
    wanted = {key_of(other, meter) for other in _listed(meter, wants.items(others, "other list"), None)}
    meter.step(len(value))
    return [item for item in value if key_of(item, meter) in wanted]


@function("List", "number", "range(3)", [0, 1, 2], returns="list of number")
def range_(meter: Meter, value: Any, end: Any = None, step: Any = 1) -> list[int]:
    """Whole numbers from 0 up to, but not with, a number; or from a start to an end in steps."""
    edge = 2**62
    start, stop = (0, value) if end is None else (value, end)
    start, stop = wants.whole(start, "start", -edge, edge), wants.whole(stop, "end", -edge, edge)
    stride = wants.whole(step, "step", -edge, edge)
    if stride == 0:
        raise wrong_value("The step must not be 0.", "Write 1, or -1 to count down.")
    size = max(0, (stop - start + stride - (1 if stride > 0 else -1)) // stride)
    if size > meter.steps:
        raise too_much("This range has too many numbers.", "Use fewer, or a for-each node.")
    meter.step(size)
    return list(range(start, stop, stride))


def _noun(value: Any) -> str:
    return "list" if type(value) is list else "text"


def _numbers(name: str, values: list[Any]) -> list[Any]:
    for number in values:
        if type(number) not in NUMBERS:
            fix = (
                f'Name the field to use: `{name}("price")`.'
                if type(number) is dict
                else 'Turn texts into numbers with `map("item | number")`, or leave empty ones out with `compact`.'
            )
            raise wrong_type(f"`{name}` needs numbers, but the list has {a_kind(number)} in it.", fix)
    return values


def _several(name: str, value: Any, more: tuple[Any, ...]) -> list[Any]:
    if more:
        return [value, *more]
    if type(value) is not list:
        return [value]
    if not value:
        raise Missing(f"`{name}` found no item: the list is empty.", code="formula.empty", fix="Add `| default(…)`.")
    return value


def _sorted(meter: Meter, values: list[Any]) -> list[Any]:
    if any(item is None for item in values):
        raise wrong_type("One of the values is empty (nothing).", "Leave empty ones out with `compact`.")
    ordered: list[Any] = sort(meter, values)
    return ordered


def _compare(meter: Meter, left: Any, sign: str, right: Any) -> bool:
    if sign in ("==", "=", "eq", "equalto", "is"):
        return same(left, right, meter)
    if sign in ("!=", "ne", "is not"):
        return not same(left, right, meter)
    if sign == "in":
        return contains(right, left, meter)
    if sign == "contains":
        return contains(left, right, meter)
    if sign not in _ORDER:
        raise wrong_value(f"`{sign[:20]}` is not an operator.", "Use ==, !=, <, <=, >, >=, in or contains.")
    if type(left) is str and type(right) is str:
        left, right = by_order(left, right)
    elif not (type(left) in NUMBERS and type(right) in NUMBERS):
        raise cannot("compare", left, right)
    return bool(_ORDER[sign](left, right))


_ORDER: dict[str, Any] = {
    "<": lambda a, b: a < b,
    "lt": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "le": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "gt": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "ge": lambda a, b: a >= b,
}
