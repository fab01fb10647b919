"""Finds the node types: the family folders of this package, and other packages' entry points `agent_factory.nodes`."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import Any

import structlog
from pydantic import ValidationError

import nodes
from nodes.agents import TOOL_PORT, may_be_tool
from nodes.base import Family, Node, Port, PortType, class_ports
from nodes.blueprint import Placed
from nodes.categories import Category
from nodes.errors import FactoryError

log = structlog.get_logger()

MOST_STRANGE = 20  # unknown settings that are named one by one

ERROR_PORT = Port("error", PortType.RECORD, "error", "What went wrong: message, category, fix.")


class UnknownNode(FactoryError):
    """A node type that is not installed here; the placed node is kept as a placeholder."""

    code = "node.unknown"
    status = 422
    category = Category.CONFIGURATION


class BadSettings(FactoryError):
    """Settings that the node type does not accept; `where` holds node and field, `problems` every field's sentence."""

    code = "node.settings"
    status = 422
    category = Category.CONFIGURATION

    def __init__(self, message: str, *, problems: dict[str, str], where: dict[str, Any] | None = None) -> None:
        super().__init__(message, where=where, fix="Open the node and correct the marked fields.")
        self.problems = problems


class Catalog:
    """Node types by name, such as `validation.decide`."""

    def __init__(self, types: list[type[Node]]) -> None:
        self._types = {cls.type: cls for cls in types}

    def __contains__(self, type_: str) -> bool:
        return type_ in self._types

    def __iter__(self) -> Iterator[type[Node]]:
        return iter(self._types.values())

    def get(self, type_: str) -> type[Node]:
        """The class of that name. Raises UnknownNode."""
        try:
            return self._types[type_]
        except KeyError:
            raise UnknownNode(
                f"The node type “{type_}” is not installed here.",
                fix="Install the package that brings it, or replace the node.",
            ) from None

    def build(self, placed: Placed) -> Node:
        """The node with its settings checked. Raises UnknownNode or BadSettings."""
        cls = self.get(placed.type)
        settings: Mapping[str, Any] = placed.settings
        if len(settings) > len(cls.model_fields) + MOST_STRANGE:
            # Every one that is strange would become a sentence; a hundred thousand of them would hold up everybody.
            rest = set([name for name in settings if name not in cls.model_fields][MOST_STRANGE:])
            settings = {name: value for name, value in settings.items() if name not in rest}
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            problems = {}
            for item in error.errors(include_url=False, include_context=False):
                field = ".".join(str(step) for step in item["loc"]) or "settings"
                problems[field] = item["msg"].removeprefix("Value error, ")
            title = placed.name or cls.title
            field, said = next(iter(problems.items()))
            raise BadSettings(
                f"“{title}” is not set up right: {field}: {said}",
                problems=problems,
                where={"node": placed.id, "field": field},
            ) from None

    def describe(self) -> list[dict[str, Any]]:
        """Every node type as JSON for editors: words, ports, settings schema, examples."""
        return [describe(cls) for cls in self]


def describe(cls: type[Node]) -> dict[str, Any]:
    """One node type as JSON: what the palette, the form and the API show of it."""
    summary, _, help_ = (cls.__doc__ or cls.title).strip().partition("\n")
    inputs, outputs = _default_ports(cls)
    return {
        "type": cls.type,
        "family": cls.family.value,
        "title": cls.title,
        "icon": cls.icon,
        "summary": summary.strip(),
        "help": "\n".join(line.strip() for line in help_.strip().splitlines()),
        "words": list(cls.words),
        "effect": cls.effect.name,
        "inputs": [port_json(port) for port in inputs],
        "outputs": [port_json(port) for port in outputs],
        "settings": cls.model_json_schema(),
        "examples": [
            {"title": e.title, "settings": dict(e.settings), "inputs": dict(e.inputs), "out": dict(e.out)}
            for e in cls.examples
        ],
    }


def port_json(port: Port) -> dict[str, Any]:
    """A port as JSON, as the canvas draws it."""
    return {
        "name": port.name,
        "type": port.type.value,
        "label": port.label,
        "help": port.help,
        "required": port.required,
        "many": port.many,
        "back": port.back,
    }


def ports_of(placed: Placed, types: Catalog) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Input and output ports of a placed node as far as they can be known; unfinished settings fall back to the defaults."""
    if placed.type not in types:
        return (), ()
    try:
        node = types.build(placed)
    except BadSettings:
        inputs, outputs = _default_ports(types.get(placed.type))
    else:
        inputs, outputs = node.inputs(), node.outputs()
    if placed.policy.on_error == "port":
        outputs = (*outputs, ERROR_PORT)
    if may_be_tool(types.get(placed.type)):
        outputs = (*outputs, TOOL_PORT)
    return inputs, outputs


@cache
def _default_ports(cls: type[Node]) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    blank = cls.model_construct()
    try:
        return blank.inputs(), blank.outputs()
    except (AttributeError, TypeError, ValueError):
        # A required setting decides over the ports and is not there yet: show what the class declares.
        return class_ports(cls)


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """Every node type there is, found once in a process."""
    types: dict[str, type[Node]] = {}
    for family in Family:
        package = importlib.import_module(f"{nodes.__name__}.{family.value}")
        for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for value in vars(module).values():
                if (
                    isinstance(value, type)
                    and issubclass(value, Node)
                    and value.__module__ == module.__name__
                    and value.type
                ):
                    types[value.type] = value
    for point in entry_points(group="agent_factory.nodes"):
        try:
            cls = point.load()
        except Exception as error:  # another package's import must not keep the product from starting
            log.warning("node package could not be loaded", package=point.value, error=repr(error))
            continue
        if isinstance(cls, type) and issubclass(cls, Node):
            types.setdefault(cls.type or point.name, cls)
    return Catalog(list(types.values()))
