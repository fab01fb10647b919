"""What a model must say to use a tool: read off the formulas of the tool's steps (`args.city`) and the ports of its first."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nodes.answers import read_number
from nodes.base import Node, Port, PortType
from nodes.check.findings import asked
from nodes.check.written import Written, written
from nodes.formula import Compiled, CompiledText, FormulaError, check_formula, check_text, compile_formula, compile_text
from nodes.formula.values import a_kind
from nodes.shape import NUMBER, TEXT, YES_NO, Shape, list_of, record

INPUT: Final = "input"
"""The one argument of a tool whose formulas name none, and which works on what it is given."""
MOST_BYTES: Final = 100_000
_WHOLE: Final = frozenset({PortType.ANY, PortType.RECORD, PortType.MESSAGE, PortType.FILE})
_KINDS: Final[Mapping[PortType, str]] = {
    PortType.NUMBER: "number",
    PortType.YES_NO: "boolean",
    PortType.LIST: "array",
    PortType.RECORD: "object",
}
_SHAPES: Final[Mapping[PortType, Shape]] = {PortType.NUMBER: NUMBER, PortType.YES_NO: YES_NO, PortType.LIST: list_of()}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument that the model gives."""

    name: str
    type: PortType = PortType.TEXT
    required: bool = True
    help: str = ""


@dataclass(frozen=True, slots=True)
class Arguments:
    """All arguments of a tool, and which of them reach the ports of its first step: a name, or empty for the whole record."""

    parameters: tuple[Parameter, ...] = ()
    feeds: Mapping[str, str] = field(default_factory=dict)

    def json_schema(self) -> dict[str, Any]:
        """As models are told of them."""
        properties: dict[str, Any] = {}
        for parameter in self.parameters:
            properties[parameter.name] = {"type": _KINDS.get(parameter.type, "string")}
            if parameter.help:
                properties[parameter.name]["description"] = parameter.help
        required = [parameter.name for parameter in self.parameters if parameter.required]
        return {"type": "object", "properties": properties, "required": required}

    def told(self, name: str, description: str) -> dict[str, Any]:
        """A tool with these arguments, as models are told of it."""
        return {"name": name, "description": description, "parameters": self.json_schema()}

    def shape(self) -> Shape:
        """What formulas know of `args`."""
        optional = [parameter.name for parameter in self.parameters if not parameter.required]
        fields = {parameter.name: _SHAPES.get(parameter.type, TEXT) for parameter in self.parameters}
        return record(fields, optional=optional)

    def read(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The arguments as values, and what is wrong with them as a sentence for the model."""
        known = {parameter.name: parameter for parameter in self.parameters}
        listed = ", ".join(f"`{name}`" for name in known) or "none"
        for name in given:
            if name not in known:
                return {}, f"There is no argument `{str(name)[:60]}`; there are: {listed}."
        found: dict[str, Any] = {}
        for name, parameter in known.items():
            value = given.get(name)
            if value is None:
                if parameter.required:
                    return {}, f"The argument `{name}` is missing."
                continue
            try:
                found[name] = _value(parameter, value)
            except ValueError as error:
                return {}, f"The argument `{name}` {error}."
        try:
            size = len(orjson.dumps(found))
        except orjson.JSONEncodeError as error:
            return {}, f"The arguments cannot be kept: {error}."
        if size > MOST_BYTES:
            return {}, f"The arguments are longer than {MOST_BYTES:,} characters."
        return found, ""


def _value(parameter: Parameter, value: Any) -> Any:
    if parameter.type is PortType.NUMBER:
        number = read_number(value)
        if number is None:
            raise ValueError("must be a number")
        return number
    wanted: type | None = {PortType.YES_NO: bool, PortType.LIST: list, PortType.RECORD: dict}.get(parameter.type)
    if wanted is not None:
        if not isinstance(value, wanted):
            raise ValueError(f"must be {a_kind(wanted())}, not {a_kind(value)}")
    elif isinstance(value, list | dict):
        raise ValueError(f"must be a text, not {a_kind(value)}")
    return value


def arguments(steps: Sequence[Node], inputs: Sequence[Port], fed: Collection[str] = ()) -> Arguments:
    """The arguments of a tool made of these steps; `inputs` are the ports of the first, `fed` those that get something else."""
    texts = [text for node in steps for text in _texts(node)]
    formulas = list(_formulas(texts))
    found: dict[str, Parameter] = {}
    for compiled, _, _ in formulas:
        for path in compiled.paths:
            first, _, rest = path.partition(".")
            name = rest.partition(".")[0]
            if first == "args" and name:
                found.setdefault(name, Parameter(name))
    for name in found:
        known = record({"args": record({name: TEXT}, optional=[name], open=True)}, open=True)
        if not any(
            _needed(kind, source, known, name) for compiled, kind, source in formulas if "args" in compiled.names
        ):
            found[name] = Parameter(name, required=False)
    feeds: dict[str, str] = {}
    for number, port in enumerate(inputs):
        if port.back or port.name in fed or port.type in (PortType.MODEL, PortType.TOOL, PortType.MEMORY):
            continue
        if number == 0 and port.type in _WHOLE:
            feeds[port.name] = ""
            used = {name for compiled, _, _ in formulas for name in compiled.names}
            passes_on = port.required or used & {INPUT, port.name} or any(text.format == "blueprint" for text in texts)
            if not found and passes_on:
                found[INPUT] = Parameter(INPUT, help=port.help)
                feeds[port.name] = INPUT
        elif port.required:
            found[port.name] = Parameter(port.name, port.type, help=port.help)
            feeds[port.name] = port.name
    return Arguments(tuple(found.values()), feeds)


def _texts(node: Node) -> list[Written]:
    nothing: list[Written] = []
    return asked(lambda: list(written(node)), nothing)


def _formulas(texts: Sequence[Written]) -> Iterator[tuple[Compiled | CompiledText, str, str]]:
    for text in texts:
        for kind, source in text.formulas():
            try:
                yield compile_formula(source) if kind == "formula" else compile_text(source), kind, source
            except FormulaError:
                continue  # a finding of its own says so


def _needed(kind: str, source: str, known: Shape, name: str) -> bool:
    """Whether a formula fails without this argument."""
    problems = check_formula(source, known) if kind == "formula" else check_text(source, known)
    return any(
        problem.code == "formula.may_be_missing" and problem.message.startswith(f"`{name}` in `args`")
        for problem in problems
    )
