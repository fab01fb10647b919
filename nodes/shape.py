"""What a value looks like before it arrives: the shape that editors, checks and field pickers work with."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["any", "text", "number", "yes/no", "moment", "list", "record", "nothing", "one of"]

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?")
RESERVED = frozenset({"input", "steps", "vars", "run"})
"""Names in formulas that no field takes away."""
_DEEPEST = 12
_WIDEST = 500
_SAMPLED = 50


@dataclass(frozen=True, slots=True)
class Shape:
    """The kind of a value and, for lists, records and choices, the shapes inside."""

    kind: Kind = "any"
    item: "Shape | None" = None
    fields: Mapping[str, "Shape"] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    """Fields that some records have and others do not."""
    open: bool = False
    """Whether a record may have other fields than those known."""
    options: tuple["Shape", ...] = ()

    @property
    def items(self) -> "Shape":
        """The shape of a list's items."""
        return self.item or ANY

    def describe(self) -> str:
        """The shape in a few words."""
        if self.kind == "list":
            return "list" if self.items.kind == "any" else f"list of {self.items.describe()}"
        if self.kind == "record":
            return "record" if not self.fields else f"record with {', '.join(list(self.fields)[:6])}"
        if self.kind == "one of":
            return " or ".join(option.describe() for option in self.options)
        return self.kind

    def as_json_schema(self) -> dict[str, Any]:
        """The shape as JSON Schema."""
        match self.kind:
            case "list":
                return {"type": "array", "items": self.items.as_json_schema()}
            case "record":
                return {
                    "type": "object",
                    "properties": {name: shape.as_json_schema() for name, shape in self.fields.items()},
                    "required": [name for name in self.fields if name not in self.optional],
                    "additionalProperties": self.open,
                }
            case "one of":
                return {"anyOf": [option.as_json_schema() for option in self.options]}
            case "moment":
                return {"type": "string", "format": "date-time"}
            case "any":
                return {}
            case _:
                return {"type": {"text": "string", "number": "number", "yes/no": "boolean"}.get(self.kind, "null")}


ANY = Shape()
TEXT = Shape("text")
NUMBER = Shape("number")
YES_NO = Shape("yes/no")
MOMENT = Shape("moment")
NOTHING = Shape("nothing")


def list_of(item: Shape = ANY) -> Shape:
    """A list whose items have a shape."""
    return Shape("list", item=item)


def record(fields: Mapping[str, Shape] | None = None, *, optional: Iterable[str] = (), open: bool = False) -> Shape:
    """A record with known fields; an open one may have others too."""
    return Shape("record", fields=dict(fields or {}), optional=frozenset(optional), open=open)


def one_of(*options: Shape) -> Shape:
    """A value that has one of several shapes; as simple as it can be said."""
    flat: list[Shape] = []
    for option in options:
        for part in option.options if option.kind == "one of" else (option,):
            if part.kind == "any":
                return ANY
            same = next((index for index, other in enumerate(flat) if other.kind == part.kind), None)
            if same is None:
                flat.append(part)
            else:
                flat[same] = _together(flat[same], part)
    if {part.kind for part in flat} == {"text", "moment"}:
        return TEXT
    return flat[0] if len(flat) == 1 else Shape("one of", options=tuple(flat)) if flat else ANY


def with_member(known: Shape, member: Shape) -> Shape:
    """What a formula knows for each member of a list: besides what is known anyway its fields, `item` and `index`."""
    own = {name: shape for name, shape in member.fields.items() if name not in RESERVED}
    fields = {**known.fields, **own, "item": member, "index": NUMBER}
    optional = (known.optional - set(member.fields)) | (member.optional & set(own))
    loose = member.kind == "any" or member.open or any(option.kind in ("any", "record") for option in member.options)
    return record(fields, optional=optional - {"item", "index"}, open=known.open or loose)


def without_nothing(shape: Shape) -> Shape:
    """The shape once it is known that there is a value."""
    if shape.kind == "one of":
        return one_of(*(option for option in shape.options if option.kind != "nothing"))
    return ANY if shape.kind == "nothing" else shape


def shape_of(value: Any, *more: Any) -> Shape:
    """The shape that sample values have; fields missing in some of the samples are optional."""
    return one_of(*(_shape_of(sample, 0) for sample in (value, *more)))


def from_json_schema(schema: Any) -> Shape:
    """The shape that a JSON Schema describes; what it cannot say is `any`."""
    return _from_schema(schema, schema, 0)


def _shape_of(value: Any, depth: int) -> Shape:
    if depth > _DEEPEST:
        return ANY
    match value:
        case None:
            return NOTHING
        case bool():
            return YES_NO
        case int() | float():
            return NUMBER
        case str():
            return MOMENT if _MOMENT.fullmatch(value) else TEXT
        case list() | tuple():
            if not value:
                return list_of()
            return list_of(one_of(*(_shape_of(part, depth + 1) for part in value[:_SAMPLED])))
        case Mapping():
            fields = {str(key): _shape_of(value[key], depth + 1) for key in list(value)[:_WIDEST]}
            return record(fields, open=len(value) > _WIDEST)
    return ANY


def _together(one: Shape, other: Shape) -> Shape:
    """Two shapes of one kind as a single one."""
    if one.kind == "list":
        if one.item is None or other.item is None:
            return list_of(one.item or other.items)
        # A list without samples says nothing about its items.
        if "any" in (one.item.kind, other.item.kind):
            return list_of(one.item if other.item.kind == "any" else other.item)
        return list_of(one_of(one.item, other.item))
    if one.kind == "record":
        names = dict.fromkeys((*one.fields, *other.fields))
        fields = {
            name: one_of(*(shape.fields[name] for shape in (one, other) if name in shape.fields)) for name in names
        }
        lone = {name for name in names if name not in one.fields or name not in other.fields}
        return replace(one, fields=fields, optional=one.optional | other.optional | lone, open=one.open or other.open)
    return one


def _from_schema(schema: Any, root: Any, depth: int) -> Shape:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return ANY
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _from_schema(_referred(reference, root), root, depth + 1)
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list) and schema[choice]:
            return one_of(*(_from_schema(option, root, depth + 1) for option in schema[choice][:_SAMPLED]))
    if isinstance(schema.get("allOf"), list) and schema["allOf"]:
        parts = [_from_schema(part, root, depth + 1) for part in schema["allOf"][:_SAMPLED]]
        if all(part.kind == "record" for part in parts):
            fields = {name: shape for part in parts for name, shape in part.fields.items()}
            required = {name for part in parts for name in part.fields if name not in part.optional}
            return record(fields, optional=set(fields) - required, open=all(part.open for part in parts))
        return parts[0] if len(parts) == 1 else ANY
    if "const" in schema:
        return shape_of(schema["const"])
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return shape_of(*schema["enum"][:_SAMPLED])
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return one_of(*(_from_schema({**schema, "type": kind}, root, depth + 1) for kind in kinds[:8]))
    return _typed(schema, kinds, root, depth)


def _typed(schema: Mapping[str, Any], kind: Any, root: Any, depth: int) -> Shape:
    match kind:
        case "string":
            return MOMENT if schema.get("format") in ("date", "date-time") else TEXT
        case "integer" | "number":
            return NUMBER
        case "boolean":
            return YES_NO
        case "null":
            return NOTHING
        case "array":
            return list_of(_from_schema(schema.get("items"), root, depth + 1))
    known = schema.get("properties")
    if kind == "object" or isinstance(known, Mapping):
        properties = known if isinstance(known, Mapping) else {}
        fields = {str(name): _from_schema(part, root, depth + 1) for name, part in list(properties.items())[:_WIDEST]}
        required = schema.get("required")
        # A schema that says nothing about other fields most often lists all there are; one without any lists none.
        closed = schema.get("additionalProperties") is False or (
            bool(fields) and schema.get("additionalProperties") is None
        )
        wanted = set(required) if isinstance(required, list) else set(fields)
        return record(fields, optional=set(fields) - wanted, open=not closed)
    return ANY


def _referred(reference: str, root: Any) -> Any:
    found = root
    if not reference.startswith("#"):
        return None
    for part in reference[1:].split("/")[1:]:
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found
