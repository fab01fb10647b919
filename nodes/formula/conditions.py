"""Conditions as a visual builder shows them, groups of comparisons, and as formula text: each from the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import nodes

from nodes.formula.parse import parse
from nodes.formula.problems import FormulaError

Operator = Literal[
    "equals",
    "not_equals",
    "greater",
    "greater_or_equal",
    "less",
    "less_or_equal",
    "contains",
    "not_contains",
    "one_of",
    "not_one_of",
    "starts_with",
    "ends_with",
    "matches",
    "is_empty",
    "is_not_empty",
    "exists",
    "not_exists",
    "is_yes",
    "is_no",
]

OPERATORS: Mapping[Operator, str] = {
    "equals": "is",
    "not_equals": "is not",
    "greater": "is greater than",
    "greater_or_equal": "is at least",
    "less": "is less than",
    "less_or_equal": "is at most",
    "contains": "contains",
    "not_contains": "does not contain",
    "one_of": "is one of",
    "not_one_of": "is none of",
    "starts_with": "starts with",
    "ends_with": "ends with",
    "matches": "matches the pattern",
    "is_empty": "is empty",
    "is_not_empty": "is not empty",
    "exists": "is there",
    "not_exists": "is not there",
    "is_yes": "is true",
    "is_no": "is not true",
}
"""What each operator is called in the builder."""

WITHOUT_VALUE: frozenset[Operator] = frozenset({"is_empty", "is_not_empty", "exists", "not_exists", "is_yes", "is_no"})


@dataclass(frozen=True, slots=True)
class FieldRef:
    """Another field as the value to compare with."""

    path: str


Value = str | int | float | bool | None | FieldRef | tuple[str | int | float | bool | None, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the builder: a field, what is asked of it, and with what. Fields are paths as in a formula."""

    field: str
    operator: Operator
    value: Value = None


@dataclass(frozen=True, slots=True)
class Group:
    """Lines and groups of which all, or any, must hold."""

    match: Literal["all", "any"] = "all"
    items: tuple["Comparison | Group", ...] = ()

    def simplified(self) -> "Group":
        """The same condition without groups that say nothing: of one line, or within one of the same kind."""
        items: list[Comparison | Group] = []
        for item in self.items:
            if isinstance(item, Comparison):
                items.append(item)
                continue
            inner = item.simplified()
            if inner.items and (inner.match == self.match or len(inner.items) == 1):
                items.extend(inner.items)
            else:
                items.append(inner)
        if len(items) == 1:
            only = items[0]
            return only if isinstance(only, Group) else Group("all", (only,))
        return Group(self.match, tuple(items))


def to_formula(group: Group) -> str:
    """The formula that says the same as a group; raises FormulaError when a field or value cannot be written."""
    return _group(group.simplified(), top=True)


def from_formula(text: str) -> Group | None:
    """The group that says the same as a formula; None when the builder cannot show it."""
    try:
        tree = parse(text)
    except FormulaError:
        return None
    found = _read(tree.root)
    if found is None:
        return None
    return (Group("all", (found,)) if isinstance(found, Comparison) else found).simplified()


_SIGNS: Mapping[Operator, str] = {
    "equals": "==",
    "not_equals": "!=",
    "greater": ">",
    "greater_or_equal": ">=",
    "less": "<",
    "less_or_equal": "<=",
}
_BY_TOKEN: Mapping[str, Operator] = {
    "eq": "equals",
    "ne": "not_equals",
    "gt": "greater",
    "gteq": "greater_or_equal",
    "lt": "less",
    "lteq": "less_or_equal",
}
_FILTERS: Mapping[str, Operator] = {
    "starts_with": "starts_with",
    "startswith": "starts_with",
    "startsWith": "starts_with",
    "ends_with": "ends_with",
    "endswith": "ends_with",
    "endsWith": "ends_with",
    "matches": "matches",
}
_TESTS: Mapping[tuple[str, bool], Operator] = {
    ("empty", True): "is_empty",
    ("empty", False): "is_not_empty",
    ("defined", True): "exists",
    ("defined", False): "not_exists",
    ("undefined", True): "not_exists",
    ("undefined", False): "exists",
}
_WRITERS: Mapping[Operator, Callable[[str, str], str]] = {
    "contains": lambda field, value: f"{value} in {field}",
    "not_contains": lambda field, value: f"{value} not in {field}",
    "one_of": lambda field, value: f"{field} in {value}",
    "not_one_of": lambda field, value: f"{field} not in {value}",
    "starts_with": lambda field, value: f"{field} | starts_with({value})",
    "ends_with": lambda field, value: f"{field} | ends_with({value})",
    "matches": lambda field, value: f"{field} | matches({value})",
    "is_empty": lambda field, value: f"{field} is empty",
    "is_not_empty": lambda field, value: f"{field} is not empty",
    "exists": lambda field, value: f"{field} is defined",
    "not_exists": lambda field, value: f"{field} is undefined",
    "is_yes": lambda field, value: field,
    "is_no": lambda field, value: f"not {field}",
}


def _group(group: Group, *, top: bool = False) -> str:
    if not group.items:
        return "true" if group.match == "all" else "false"
    parts = [_comparison(item) if isinstance(item, Comparison) else _group(item) for item in group.items]
    text = (" and " if group.match == "all" else " or ").join(parts)
    return text if top or len(parts) == 1 else f"({text})"


def _comparison(line: Comparison) -> str:
    field = _path(line.field)
    if line.operator in WITHOUT_VALUE:
        return _WRITERS[line.operator](field, "")
    lists = line.operator in ("one_of", "not_one_of")
    if lists is not isinstance(line.value, tuple) and not (lists and isinstance(line.value, FieldRef)):
        raise _unwritable("This operator needs " + ("a list of values." if lists else "one value."))
    if line.operator in ("contains", "not_contains") and isinstance(line.value, FieldRef):
        # `a in b` between two fields reads back as "a is one of b": it is written so from the start.
        raise _unwritable("`contains` needs a written value here.")
    value = _literal(line.value)
    sign = _SIGNS.get(line.operator)
    return f"{field} {sign} {value}" if sign else _WRITERS[line.operator](field, value)


def _path(path: str) -> str:
    try:
        root = parse(path).root
    except FormulaError:
        root = None
    if root is None or _field(root) is None:
        raise _unwritable(f"`{path[:60]}` is not a field.")
    written = _field(root)
    assert written is not None
    return written


def _literal(value: Any) -> str:
    if isinstance(value, FieldRef):
        return _path(value.path)
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(part) for part in value)}]"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value):
        return quoted(value)
    raise _unwritable("This value cannot be written in a formula.")


def quoted(text: str) -> str:
    """A text as it is written in a formula."""
    for sign, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(sign, escape)
    return f'"{text}"'


def _unwritable(message: str) -> FormulaError:
    return FormulaError(
        message, code="formula.condition", fix="Choose a field and a value, or write the formula by hand."
    )


def _read(node: nodes.Node) -> Comparison | Group | None:
    if isinstance(node, nodes.And | nodes.Or):
        left, right = _read(node.left), _read(node.right)
        if left is None or right is None:
            return None
        return Group("all" if isinstance(node, nodes.And) else "any", (left, right))
    if isinstance(node, nodes.Const) and type(node.value) is bool:
        return Group("all" if node.value else "any")
    if isinstance(node, nodes.Compare):
        return _read_compare(node)
    if isinstance(node, nodes.Not):
        if isinstance(node.node, nodes.Test):
            return _read_test(node.node, False)
        field = _field(node.node)
        return Comparison(field, "is_no") if field else None
    if isinstance(node, nodes.Test):
        return _read_test(node, True)
    if isinstance(node, nodes.Filter | nodes.Call):
        return _read_call(node)
    field = _field(node)
    return Comparison(field, "is_yes") if field else None


def _read_compare(node: nodes.Compare) -> Comparison | None:
    if len(node.ops) != 1:
        return None
    sign, right = node.ops[0].op, node.ops[0].expr
    field = _field(node.expr)
    if sign in ("in", "notin"):
        if field is not None:
            known, value = _value(right)
            fits = known and isinstance(value, tuple | FieldRef)
            return Comparison(field, "one_of" if sign == "in" else "not_one_of", value) if fits else None
        container = _field(right)
        known, value = _value(node.expr)
        if container is None or not known or isinstance(value, tuple):
            return None
        return Comparison(container, "contains" if sign == "in" else "not_contains", value)
    known, value = _value(right)
    if field is None or not known or isinstance(value, tuple):
        return None
    return Comparison(field, _BY_TOKEN[sign], value)


def _read_test(node: nodes.Test, holds: bool) -> Comparison | None:
    field, operator = _field(node.node), _TESTS.get((node.name, holds))
    return Comparison(field, operator) if field and operator and not node.args and not node.kwargs else None


def _read_call(node: nodes.Filter | nodes.Call) -> Comparison | None:
    if isinstance(node, nodes.Filter):
        name, target = node.name, node.node
    elif isinstance(node.node, nodes.Getattr):
        name, target = node.node.attr, node.node.node
    else:
        return None
    operator = _FILTERS.get(name)
    field = _field(target) if target is not None else None
    if field is None or operator is None or len(node.args) != 1 or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return None
    known, value = _value(node.args[0])
    return Comparison(field, operator, value) if known and not isinstance(value, tuple) else None


def _field(node: nodes.Node) -> str | None:
    """A path as it is written most simply; None when it is not a plain path."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        owner = _field(node.node)
        return f"{owner}.{node.attr}" if owner else None
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        owner, key = _field(node.node), node.arg.value
        if owner and type(key) is str:
            return f"{owner}[{quoted(key)}]"
        if owner and type(key) is int:
            return f"{owner}[{key}]"
    return None


def _value(node: nodes.Node) -> tuple[bool, Any]:
    """Whether a node is a value that the builder can show, and the value."""
    if isinstance(node, nodes.Const):
        return True, node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const) and type(node.node.value) in (int, float):
        return True, -node.node.value
    if isinstance(node, nodes.List | nodes.Tuple):
        parts = [_value(part) for part in node.items]
        plain = all(known and not isinstance(value, tuple | FieldRef) for known, value in parts)
        return plain, tuple(value for _, value in parts)
    field = _field(node)
    return (True, FieldRef(field)) if field else (False, None)
