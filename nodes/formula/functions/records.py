"""Functions that work on records."""

from typing import Any

from nodes.formula.functions import wants
from nodes.formula.meter import Meter
from nodes.formula.problems import short, wrong_type
from nodes.formula.table import function
from nodes.formula.values import a_kind


@function("Record", "record", '{"a": 1, "b": 2} | keys', ["a", "b"], returns="list of text")
def keys(meter: Meter, value: dict[str, Any]) -> list[Any]:
    """The field names of a record."""
    meter.step(len(value))
    return list(value)


@function("Record", "record", '{"a": 1, "b": 2} | values', [1, 2], returns="list")
def values(meter: Meter, value: dict[str, Any]) -> list[Any]:
    """The values of a record."""
    meter.step(len(value))
    return list(value.values())


@function(
    "Record", "record", '{"a": 1} | items', [{"key": "a", "value": 1}], returns="list", aliases=("entries", "dictsort")
)
def items(meter: Meter, value: dict[str, Any]) -> list[Any]:
    """The fields of a record as a list of records with `key` and `value`."""
    meter.step(len(value) * 2)
    meter.make(len(value) * 48)
    return [{"key": key, "value": part} for key, part in value.items()]


@function("Record", "record or list or nothing", '{"a": {"b": 1}} | get("a.b", 0)', 1)
def get(meter: Meter, value: Any, path: Any, default: Any = None) -> Any:
    """The value at a path, or the default when something on the way is missing."""
    if type(path) is int:
        return value[path] if type(value) is list and -len(value) <= path < len(value) else default
    steps = wants.text(path, "path")
    if type(value) is dict and steps in value:
        return value[steps]
    meter.step(len(steps) >> 3)
    for step in steps.split("."):
        if type(value) is dict and step in value:
            value = value[step]
        elif type(value) is list and step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(value):
            value = value[int(step)]
        else:
            return default
    return value


@function(
    "Record", "record", '{"a": 1, "b": 2} | merge({"b": 3})', {"a": 1, "b": 3}, returns="record", aliases=("update",)
)
def merge(meter: Meter, value: dict[str, Any], *more: Any) -> dict[str, Any]:
    """Puts records together; a later one wins."""
    out = dict(value)
    meter.make(16 * len(out))
    for other in more:
        if type(other) is not dict:
            raise wrong_type(
                f"`merge` needs records, but got {a_kind(other)}.", 'A record is written `{"name": "value"}`.'
            )
        meter.step(len(other))
        meter.make(16 * len(other))
        out.update(other)
    return out


@function("Record", "record", '{"a": 1, "b": 2} | pick("a")', {"a": 1}, returns="record")
def pick(meter: Meter, value: dict[str, Any], *names: Any) -> dict[str, Any]:
    """Keeps only the fields named."""
    wanted = _names(meter, names)
    return {name: value[name] for name in wanted if name in value}


@function("Record", "record", '{"a": 1, "b": 2} | omit("a")', {"b": 2}, returns="record")
def omit(meter: Meter, value: dict[str, Any], *names: Any) -> dict[str, Any]:
    """Leaves out the fields named."""
    unwanted = frozenset(_names(meter, names))
    meter.step(len(value))
    return {name: part for name, part in value.items() if name not in unwanted}


@function(
    "Record", "list", '[{"key": "a", "value": 1}] | to_record', {"a": 1}, returns="record", aliases=("fromEntries",)
)
def to_record(meter: Meter, value: list[Any], key: Any = "key", content: Any = "value") -> dict[str, Any]:
    """Makes one record from a list of records: one field gives the names, another the values."""
    name, part = wants.text(key, "name of the key field"), wants.text(content, "name of the value field")
    meter.step(len(value))
    out: dict[str, Any] = {}
    for item in value:
        if type(item) is not dict or name not in item or part not in item:
            raise wrong_type(
                f"Each item needs the fields `{short(name)}` and `{short(part)}`.",
                'Name them: `to_record("id", "total")`.',
            )
        out[wants.text(item[name], "key")] = item[part]
    return out


def _names(meter: Meter, names: tuple[Any, ...]) -> list[str]:
    flat = [name for entry in names for name in (entry if type(entry) is list else [entry])]
    meter.step(len(flat))
    return [wants.text(name, "field name") for name in flat]
