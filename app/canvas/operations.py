"""What may be done to a blueprint on the canvas: the operations as JSON, read strictly.

A finished gesture is one batch of these. `set` merges: of `settings` and `policy` only the named entries change, so that two
people who fill in different fields of one node do not undo each other's work; `unset` takes settings out.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from nodes.blueprint import BlueprintError, Coordinate, Edge, Group, Id, Note, Placed, check_json
from nodes.errors import FactoryError

MAX_OPERATIONS: Final = 12_000


class Rejected(FactoryError):
    """The document does not allow it; nothing of the batch was applied."""

    code = "canvas.rejected"
    status = 409


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AddNode(_Operation):
    """Put a node on the canvas."""

    op: Literal["add_node"] = "add_node"
    node: Placed
    copy_: bool = Field(default=False, alias="copy", exclude=True)
    """A copy of another node: what each must have for itself is made anew."""


class RemoveNode(_Operation):
    """Take a node away, with its connections and its place in groups."""

    op: Literal["remove_node"] = "remove_node"
    id: Id


class Move(_Operation):
    """New places of nodes and notes."""

    op: Literal["move"] = "move"
    pos: dict[Id, tuple[Coordinate, Coordinate]]


class SetNode(_Operation):
    """Change what a node is called, how it is set up, or how the engine treats it."""

    op: Literal["set"] = "set"
    id: Id
    patch: dict[Literal["name", "settings", "policy", "disabled", "pinned"], JsonValue] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)


class AddEdge(_Operation):
    """Connect an output port to an input port."""

    op: Literal["add_edge"] = "add_edge"
    edge: Edge


class RemoveEdge(_Operation):
    """Take a connection away."""

    op: Literal["remove_edge"] = "remove_edge"
    id: Id


class AddNote(_Operation):
    """Put a note on the canvas."""

    op: Literal["add_note"] = "add_note"
    note: Note


class RemoveNote(_Operation):
    """Take a note away."""

    op: Literal["remove_note"] = "remove_note"
    id: Id


class SetNote(_Operation):
    """Change a note's text, size or colour."""

    op: Literal["set_note"] = "set_note"
    id: Id
    patch: dict[Literal["text", "width", "height", "color"], JsonValue]


class AddGroup(_Operation):
    """Frame nodes together."""

    op: Literal["add_group"] = "add_group"
    group: Group


class RemoveGroup(_Operation):
    """Take a frame away; its nodes stay."""

    op: Literal["remove_group"] = "remove_group"
    id: Id


class SetGroup(_Operation):
    """Change a frame's title, colour or members."""

    op: Literal["set_group"] = "set_group"
    id: Id
    patch: dict[Literal["title", "nodes", "color"], JsonValue]


class SetBlueprint(_Operation):
    """Change what belongs to the whole agent."""

    op: Literal["set_blueprint"] = "set_blueprint"
    patch: dict[
        Literal[
            "name", "description", "time_zone", "allowed_hosts", "variables", "on_failure", "concurrency", "priority"
        ],
        JsonValue,
    ]


Operation = Annotated[
    AddNode
    | RemoveNode
    | Move
    | SetNode
    | AddEdge
    | RemoveEdge
    | AddNote
    | RemoveNote
    | SetNote
    | AddGroup
    | RemoveGroup
    | SetGroup
    | SetBlueprint,
    Field(discriminator="op"),
]
_BATCH: Final[TypeAdapter[list[Operation]]] = TypeAdapter(list[Operation])


def read_batch(raw: object) -> list[Operation]:
    """The operations of a batch. Raises Rejected for anything that is not one."""
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        raise Rejected("A batch of changes is a list of operations.", code="canvas.malformed", status=422)
    if len(raw) > MAX_OPERATIONS:
        raise Rejected(
            f"{len(raw):,} changes at once are more than the {MAX_OPERATIONS:,} that are taken in one go.",
            code="canvas.too_many",
            fix="Do it in several smaller steps.",
            status=413,
        )
    try:
        check_json(raw)
        return _BATCH.validate_python(raw)
    except BlueprintError as error:
        raise Rejected(error.message, code=error.code, fix=error.fix, status=error.status) from None
    except ValidationError as error:
        raise explained(error, "The change is not valid") from None


def explained(error: ValidationError, what: str) -> Rejected:
    """The first thing wrong with it, as a sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"] if not isinstance(step, int)) or "the change"
    said = first["msg"].removeprefix("Value error, ")
    return Rejected(f"{what}: {place}: {said}.", code="canvas.malformed", where={"field": place}, status=422)


def as_json(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """The operations as they travel to browsers."""
    return [operation.model_dump(mode="json") for operation in operations]
