"""The document a person draws: placed nodes, edges, notes, groups and variables; its JSON, hash, schema and differences.

A blueprint is inert data. Reading one never resolves a node type, evaluates a formula or opens anything: node types that are
not installed here survive a round trip untouched, and what is wrong inside settings is for `check()` to say.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from nodes.categories import Category
from nodes.errors import FactoryError
from nodes.plain import in_words

FORMAT: Final = 1
MAX_NODES: Final = 500
MAX_EDGES: Final = 2_000
MAX_BYTES: Final = 2 * 1024 * 1024
MAX_DEPTH: Final = 64

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
PortName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_ -]{1,64}$")]
Coordinate = Annotated[float, Field(ge=-1_000_000, le=1_000_000, allow_inf_nan=False)]


class BlueprintError(FactoryError):
    """The document cannot be read as a blueprint; `where` is the path of the place, such as `{"path": "nodes.3.id"}`."""

    code = "blueprint.invalid"
    status = 422
    category = Category.CONFIGURATION


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=False)


_TRIED_AGAIN: Final[dict[str, Any]] = {"retries": [1, 2, 3, 4, 5]}


class Policy(_Part):
    """How the engine treats one placed node: whom it asks first, how often it may start, and what happens on an error."""

    ask_first: bool = Field(
        default=False,
        title="Ask a person first",
        description="Before the step does anything, the run waits under “Approvals” until somebody has seen what it is about to do and says yes.",
        json_schema_extra={"section": "When it runs"},
    )
    ask_hours: float = Field(
        default=72.0,
        ge=0,
        le=2_160,
        title="Wait for an answer at most",
        description="Hours until no answer counts as a no; 0 waits for ever.",
        json_schema_extra={"show_when": {"ask_first": True}},
    )
    at_most: int = Field(
        default=0,
        ge=0,
        le=10_000,
        title="Starts at most",
        description="How often it may start in the time below, over all runs of this agent; more have to wait. 0: no limit.",
    )
    per: float = Field(
        default=60.0,
        ge=1,
        le=86_400,
        title="In so many seconds",
        description="The time that “Starts at most” is about.",
    )
    timeout: float = Field(default=120.0, gt=0, le=3600, title="Time limit", description="Seconds one try may take.")
    retries: int = Field(
        default=0,
        ge=0,
        le=5,
        title="Try again",
        description="How often to try again after a failure.",
        json_schema_extra={"section": "If it fails"},
    )
    retry_on: list[Category] = Field(
        default_factory=list,
        max_length=len(Category),
        title="Try again only after",
        description="With none chosen, a step is tried again whenever the error itself says that it can help.",
        json_schema_extra={
            "show_when": _TRIED_AGAIN,
            "words": {each.value: each.word for each in Category},
            "means": {each.value: each.means for each in Category},
        },
    )
    first_delay: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        title="First pause",
        description="Seconds before the first new try, a bit less by chance so that not all come back at once.",
        json_schema_extra={"show_when": _TRIED_AGAIN},
    )
    max_delay: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        title="Longest pause",
        description="Pauses double up to this many seconds.",
        json_schema_extra={"show_when": _TRIED_AGAIN},
    )
    on_error: Literal["stop", "continue", "port"] = Field(
        default="stop",
        title="If it still fails",
        description="What happens when the last try has failed.",
        json_schema_extra={
            "words": {
                "stop": "Stop the run",
                "continue": "Go on with a value",
                "port": "Send the error out of an “error” port",
            }
        },
    )
    on_error_value: JsonValue = Field(
        default=None,
        title="The value to go on with",
        description="As JSON: a text in quotes, a number, true, a list or a record. Empty means nothing.",
        json_schema_extra={"show_when": {"on_error": "continue"}},
    )


class Placed(_Part):
    """A node on the canvas: a type by name, its settings as they were typed, and where it stands."""

    id: Id
    type: str = Field(min_length=1, max_length=100)
    name: str = Field(default="", max_length=120)
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    x: Coordinate = 0.0
    y: Coordinate = 0.0
    policy: Policy = Field(default_factory=Policy)
    disabled: bool = False
    pinned: dict[str, JsonValue] | None = None


class Edge(_Part):
    """A wire from an output port to an input port."""

    id: Id
    source: Id
    source_port: PortName
    target: Id
    target_port: PortName


class Note(_Part):
    """A coloured paper on the canvas for people."""

    id: Id
    text: str = Field(default="", max_length=10_000)
    x: Coordinate = 0.0
    y: Coordinate = 0.0
    width: float = Field(default=220.0, ge=40, le=4000)
    height: float = Field(default=120.0, ge=40, le=4000)
    color: Literal["yellow", "blue", "green", "pink", "grey"] = "yellow"


class Group(_Part):
    """Nodes framed together under a title."""

    id: Id
    title: str = Field(default="", max_length=120)
    nodes: list[Id] = Field(default_factory=list, max_length=MAX_NODES)
    color: Literal["yellow", "blue", "green", "pink", "grey"] = "grey"


class Variable(_Part):
    """A named value that formulas read as `vars.<name>`."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    value: JsonValue = None
    description: str = Field(default="", max_length=500)


class Blueprint(_Part):
    """The document. Ids are unique, edges join nodes that are here; everything else is for `check()` to judge."""

    format: Literal[1] = FORMAT
    name: str = Field(default="Untitled agent", min_length=1, max_length=120)
    description: str = Field(default="", max_length=5_000)
    time_zone: str = Field(default="UTC", max_length=64)
    allowed_hosts: list[Annotated[str, Field(max_length=253)]] = Field(default_factory=list, max_length=200)
    on_failure: str = Field(default="", max_length=64)
    """The agent that is started when a run of this one has failed for good; empty for none."""
    concurrency: int = Field(default=0, ge=0, le=200)
    """How many of its runs are worked on at the same time; 0 for as many as the team may have."""
    priority: Literal["low", "normal", "high"] = "normal"
    """Whose turn it is when runs of several agents wait."""
    nodes: list[Placed] = Field(default_factory=list)
    edges: list[Edge] = Field(default_factory=list)
    notes: list[Note] = Field(default_factory=list, max_length=500)
    groups: list[Group] = Field(default_factory=list, max_length=200)
    variables: list[Variable] = Field(default_factory=list, max_length=200)

    @field_validator("name")
    @classmethod
    def _name_is_visible(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("give the agent a name")
        return name

    @model_validator(mode="after")
    def _is_one_document(self) -> "Blueprint":
        ids: set[str] = set()
        for id_ in (part.id for parts in (self.nodes, self.notes, self.groups) for part in parts):
            if id_ in ids:
                raise ValueError(f"two parts have the id {id_!r}")
            ids.add(id_)
        nodes = {node.id for node in self.nodes}
        edges: set[str] = set()
        for edge in self.edges:
            if edge.id in edges:
                raise ValueError(f"two connections have the id {edge.id!r}")
            edges.add(edge.id)
            for end in (edge.source, edge.target):
                if end not in nodes:
                    raise ValueError(f"connection {edge.id!r} leads to {end!r}, which is not here")
        return self

    @classmethod
    def parse(cls, data: bytes | str | Mapping[str, Any], *, kept: bool = False) -> "Blueprint":
        """Read a document from JSON text or plain values. Raises BlueprintError for anything that is not one.

        `kept` reads one that was kept already: what was taken once is not refused for the number of its nodes later.
        """
        if isinstance(data, str):
            try:
                data = data.encode()
            except UnicodeEncodeError:
                raise BlueprintError(
                    "The text holds characters that are not valid Unicode.", code="blueprint.unicode"
                ) from None
        if isinstance(data, bytes):
            if len(data) > MAX_BYTES:
                raise _too_big(len(data))
            try:
                data = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise BlueprintError(
                    f"This is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
                    code="blueprint.json",
                    fix="Export the blueprint again, or correct the text at that place.",
                    where={"line": error.lineno, "column": error.colno},
                ) from None
        if not isinstance(data, Mapping):
            raise BlueprintError("A blueprint is a JSON object with nodes and edges.", code="blueprint.json")
        check_json(data)
        version = data.get("format", FORMAT)
        if isinstance(version, int) and version > FORMAT:
            raise BlueprintError(
                f"This blueprint has format {version}, and this Agent Factory reads up to format {FORMAT}.",
                code="blueprint.format",
                fix="Update Agent Factory, or export the blueprint from the older version.",
            )
        try:
            found = cls.model_validate(data, strict=False)
        except ValidationError as error:
            raise _explained(error) from None
        for what, count, most in (("nodes", len(found.nodes), MAX_NODES), ("connections", len(found.edges), MAX_EDGES)):
            if count > most and not kept:
                raise BlueprintError(
                    f"{count:,} {what} are more than the {most:,} an agent may have.",
                    code="blueprint.too_large",
                    fix="Split it, and call one agent from the other.",
                    where={"path": "nodes" if what == "nodes" else "edges"},
                )
        if len(size := found.canonical()) > MAX_BYTES:
            raise _too_big(len(size))
        return found

    def canonical(self) -> bytes:
        """The one JSON text of this document: keys sorted, no spaces, UTF-8."""
        return orjson.dumps(self.model_dump(mode="python"), option=orjson.OPT_SORT_KEYS)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def node(self, id_: str) -> Placed | None:
        """The placed node with that id."""
        return next((node for node in self.nodes if node.id == id_), None)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, for editors and other tools."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Agent Factory blueprint",
    } | Blueprint.model_json_schema()


def check_json(value: Any) -> None:
    """Refuse what plain JSON cannot carry: too deep, not finite, beyond 64 bits, lone surrogates. Raises BlueprintError."""
    stack: list[tuple[Any, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise BlueprintError(f"Values are nested deeper than {MAX_DEPTH} levels.", code="blueprint.depth")
        if isinstance(item, str):
            if not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError:
                    raise BlueprintError(
                        "A text holds characters that are not valid Unicode.", code="blueprint.unicode"
                    ) from None
        elif item is None or isinstance(item, bool):
            continue
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**63:
                raise BlueprintError("A number is too large: up to 64 bits can be kept.", code="blueprint.number")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise BlueprintError("A number is not finite.", code="blueprint.number")
        elif isinstance(item, Mapping):
            for key, entry in item.items():
                if not isinstance(key, str):
                    raise BlueprintError("Names of fields must be texts.", code="blueprint.json")
                stack.append((key, depth))
                stack.append((entry, depth + 1))
        elif isinstance(item, list | tuple):
            stack.extend((entry, depth + 1) for entry in item)
        else:
            raise BlueprintError(
                f"A value of kind {type(item).__name__} cannot be kept in a blueprint.", code="blueprint.json"
            )


def _too_big(size: int) -> BlueprintError:
    return BlueprintError(
        f"The blueprint takes {size / 1024 / 1024:.1f} MB; up to {MAX_BYTES // 1024 // 1024} MB can be kept.",
        code="blueprint.size",
        fix="Move long texts into a file or table that the agent reads.",
        status=413,
    )


def _explained(error: ValidationError) -> BlueprintError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(str(step) for step in first["loc"])
    said = in_words(first["msg"].removeprefix("Value error, ")).removesuffix(".")
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    at = f" at {path}" if path else ""
    return BlueprintError(f"The blueprint is not valid{at}: {said}{more}.", where={"path": path})


# --- differences of two versions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `what` is added, removed or changed; `part` names the list, `id` the member, `fields` what differs."""

    what: Literal["added", "removed", "changed"]
    part: str
    id: str
    label: str
    fields: tuple[str, ...] = ()


def diff(before: Blueprint, after: Blueprint) -> list[Change]:
    """What changed from one version to another, in the order of the document; moves on the canvas do not count."""
    changes = [
        Change("changed", "blueprint", field, field.replace("_", " "), (field,))
        for field in ("name", "description", "time_zone", "allowed_hosts", "on_failure", "concurrency", "priority")
        if getattr(before, field) != getattr(after, field)
    ]
    for part in ("nodes", "edges", "notes", "groups", "variables"):
        changes += _diff_part(part, getattr(before, part), getattr(after, part))
    return changes


def _diff_part(part: str, before: list[Any], after: list[Any]) -> Iterator[Change]:
    def key(member: Any) -> str:
        return member.name if isinstance(member, Variable) else member.id

    def label(member: Any) -> str:
        if isinstance(member, Edge):
            return f"{member.source}.{member.source_port} → {member.target}.{member.target_port}"
        return getattr(member, "name", "") or getattr(member, "title", "") or getattr(member, "type", "") or key(member)

    old, new = {key(m): m for m in before}, {key(m): m for m in after}
    for id_, member in new.items():
        if id_ not in old:
            yield Change("added", part, id_, label(member))
        elif old[id_] != member:
            a, b = old[id_].model_dump(), member.model_dump()
            fields = tuple(name for name in b if a[name] != b[name] and name not in ("x", "y"))
            if fields:
                yield Change("changed", part, id_, label(member), fields)
    for id_, member in old.items():
        if id_ not in new:
            yield Change("removed", part, id_, label(member))
