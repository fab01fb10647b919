"""The document in pieces that can be changed one operation at a time; every change knows its own inverse.

Parts are never changed in place but replaced, so that a document handed out stays what it was.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import networkx as nx
import orjson
from pydantic import BaseModel, ValidationError

from app.canvas.faces import Face, face_of, misfit
from app.canvas.operations import (
    AddEdge,
    AddGroup,
    AddNode,
    AddNote,
    Move,
    Operation,
    Rejected,
    RemoveEdge,
    RemoveGroup,
    RemoveNode,
    RemoveNote,
    SetBlueprint,
    SetGroup,
    SetNode,
    SetNote,
    explained,
)
from nodes.blueprint import MAX_BYTES, MAX_EDGES, MAX_NODES, Blueprint, Edge, Group, Note, Placed
from nodes.catalog import Catalog

MAX_NOTES: Final = 500
MAX_GROUPS: Final = 200
_ENVELOPE: Final = 200  # the brackets, commas and names of lists around the parts

Part = Placed | Edge | Note | Group
P = TypeVar("P", bound=BaseModel)


@dataclass
class Graph:
    """A blueprint's parts by id."""

    types: Catalog
    nodes: dict[str, Placed] = field(default_factory=dict)
    edges: dict[str, Edge] = field(default_factory=dict)
    notes: dict[str, Note] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    head: Blueprint = field(default_factory=Blueprint)
    """Name, description, time zone, hosts and variables: a blueprint without parts."""

    def __post_init__(self) -> None:
        self._edges_at: dict[str, set[str]] = {id_: set() for id_ in self.nodes}
        self._faces: dict[str, tuple[Placed, Face]] = {}
        for edge in self.edges.values():
            self._edges_at[edge.source].add(edge.id)
            self._edges_at[edge.target].add(edge.id)
        parts: Iterable[Part] = (
            *self.nodes.values(),
            *self.edges.values(),
            *self.notes.values(),
            *self.groups.values(),
        )
        self.bytes = _ENVELOPE + _size(self.head) + sum(map(_size, parts))

    @classmethod
    def of(cls, blueprint: Blueprint, types: Catalog) -> "Graph":
        """The pieces of a document."""
        return cls(
            types,
            {node.id: node for node in blueprint.nodes},
            {edge.id: edge for edge in blueprint.edges},
            {note.id: note for note in blueprint.notes},
            {group.id: group for group in blueprint.groups},
            blueprint.model_copy(update={"nodes": [], "edges": [], "notes": [], "groups": []}),
        )

    def blueprint(self) -> Blueprint:
        """The document as it stands."""
        return self.head.model_copy(
            update={
                "nodes": list(self.nodes.values()),
                "edges": list(self.edges.values()),
                "notes": list(self.notes.values()),
                "groups": list(self.groups.values()),
            }
        )

    # --- what can be read off --------------------------------------------------------------------------------------

    def face(self, id_: str) -> Face:
        """Ports and line of a node with its present settings."""
        placed = self.nodes[id_]
        known = self._faces.get(id_)
        if known is not None:
            seen, face = known
            if seen.settings is placed.settings and seen.policy is placed.policy and seen.type == placed.type:
                return face
        face = face_of(placed, self.types)
        self._faces[id_] = (placed, face)
        return face

    def title(self, id_: str) -> str:
        """What a person calls that part."""
        if node := self.nodes.get(id_):
            return node.name or (self.types.get(node.type).title if node.type in self.types else node.type)
        if edge := self.edges.get(id_):
            return f"{self.title(edge.source)} → {self.title(edge.target)}"
        if id_ in self.notes:
            return "a note"
        if group := self.groups.get(id_):
            return group.title or "a group"
        return "something that is gone"

    def edges_at(self, id_: str) -> list[str]:
        """The edges that begin or end at a node."""
        return sorted(self._edges_at.get(id_, ()))

    def broken(self, edge_id: str) -> str | None:
        """Why an edge no longer fits its ends; None when it does."""
        edge = self.edges[edge_id]
        names = (self.title(edge.source), self.title(edge.target))
        return misfit(edge, self.face(edge.source), self.face(edge.target), names)

    def circle(self, added: Iterable[str]) -> list[str] | None:
        """The nodes of a circle that one of these edges closes, except through an input that takes values back."""
        candidates = [self.edges[id_] for id_ in added if id_ in self.edges]
        if not candidates:
            return None
        ways: Any = nx.DiGraph()
        ways.add_edges_from((edge.source, edge.target) for edge in self.edges.values() if not self._goes_back(edge))
        knot = {node: number for number, nodes in enumerate(nx.strongly_connected_components(ways)) for node in nodes}
        for edge in candidates:
            if not self._goes_back(edge) and knot[edge.source] == knot[edge.target]:
                return [edge.source, *nx.shortest_path(ways, edge.target, edge.source)]
        return None

    def _goes_back(self, edge: Edge) -> bool:
        port = self.face(edge.target).input(edge.target_port)
        return port is not None and port.back

    # --- operations ------------------------------------------------------------------------------------------------

    def expanded(self, operation: Operation) -> list[Operation]:
        """The operation with what goes along with it.

        A new node gets the settings that are made anew each time, such as a webhook's address, and so does a copy; a removed
        one takes its edges and group memberships along.
        """
        if isinstance(operation, AddNode) and operation.node.type in self.types:
            node = operation.node
            first = self.types.get(node.type).first_settings()
            settings = {**node.settings, **first} if operation.copy_ else {**first, **node.settings}
            if settings != node.settings:
                operation = AddNode(node=node.model_copy(update={"settings": settings}))
        if not isinstance(operation, RemoveNode):
            return [operation]
        id_ = operation.id
        along: list[Operation] = [RemoveEdge(id=edge) for edge in self.edges_at(id_)]
        for group in self.groups.values():
            if id_ in group.nodes:
                left = [member for member in group.nodes if member != id_]
                along.append(SetGroup(id=group.id, patch={"nodes": left}) if left else RemoveGroup(id=group.id))
        return [*along, operation]

    def apply(self, operation: Operation, *, restoring: bool = False) -> Operation:
        """Apply one operation and return its inverse. `restoring` brings edges back that no longer fit their ports."""
        match operation:
            case AddNode(node=node):
                self._is_new(node.id)
                if len(self.nodes) >= MAX_NODES:
                    raise _full(
                        f"An agent may hold {MAX_NODES:,} nodes.", "Split it, and call one agent from the other."
                    )
                self._edges_at[node.id] = set()
                self._put(self.nodes, node)
                return RemoveNode(id=node.id)
            case RemoveNode(id=id_):
                if self._edges_at.get(id_):
                    raise Rejected(f"“{self.title(id_)}” still has connections.", where={"node": id_})
                if any(id_ in group.nodes for group in self.groups.values()):
                    raise Rejected(f"“{self.title(id_)}” is in a group.", where={"node": id_})
                node = self._pop(self.nodes, id_, "node")
                del self._edges_at[id_]
                self._faces.pop(id_, None)
                return AddNode(node=node)
            case Move(pos=pos):
                before: dict[str, tuple[float, float]] = {}
                for id_, (x, y) in pos.items():
                    placed = self.nodes.get(id_) or self.notes.get(id_)
                    if placed is None:
                        continue  # somebody removed it while it was being dragged
                    before[id_] = (placed.x, placed.y)
                    self._put(
                        self.nodes if id_ in self.nodes else self.notes, placed.model_copy(update={"x": x, "y": y})
                    )
                return Move(pos=before)
            case SetNode(id=id_, patch=patch, unset=unset):
                node = self._get(self.nodes, id_, "node")
                self._put(self.nodes, _patched(node, patch, unset))
                return _unpatch(node, patch, unset)
            case AddEdge(edge=edge):
                return self._connect(edge, restoring)
            case RemoveEdge(id=id_):
                edge = self._pop(self.edges, id_, "connection")
                self._edges_at[edge.source].discard(id_)
                self._edges_at[edge.target].discard(id_)
                return AddEdge(edge=edge)
            case AddNote(note=note):
                self._is_new(note.id)
                if len(self.notes) >= MAX_NOTES:
                    raise _full(f"A canvas may hold {MAX_NOTES} notes.", "Remove a note that is no longer needed.")
                self._put(self.notes, note)
                return RemoveNote(id=note.id)
            case RemoveNote(id=id_):
                return AddNote(note=self._pop(self.notes, id_, "note"))
            case SetNote(id=id_, patch=patch):
                note = self._get(self.notes, id_, "note")
                self._put(self.notes, _patched(note, patch))
                return SetNote(id=id_, patch={key: getattr(note, key) for key in patch})
            case AddGroup(group=group):
                self._is_new(group.id)
                if len(self.groups) >= MAX_GROUPS:
                    raise _full(
                        f"A canvas may hold {MAX_GROUPS} groups.", "Take a group apart that is no longer needed."
                    )
                self._members_are_here(group)
                self._put(self.groups, group)
                return RemoveGroup(id=group.id)
            case RemoveGroup(id=id_):
                return AddGroup(group=self._pop(self.groups, id_, "group"))
            case SetGroup(id=id_, patch=patch):
                old = self._get(self.groups, id_, "group")
                new = _patched(old, patch)
                self._members_are_here(new)
                self._put(self.groups, new)
                return SetGroup(id=id_, patch={key: old.model_dump()[key] for key in patch})
            case SetBlueprint(patch=patch):
                head = self.head
                self.head = _patched(head, patch)
                self.bytes += _size(self.head) - _size(head)
                return SetBlueprint(patch={key: head.model_dump(mode="json")[key] for key in patch})

    def standing(self, inverse: Operation) -> object:
        """What that inverse would overwrite; if it is another thing than it left, somebody else changed it since."""
        match inverse:
            case RemoveNode(id=id_):
                return self.nodes.get(id_), self.edges_at(id_)
            case AddNode(node=part) | AddNote(note=part) | AddGroup(group=part):
                return part.id in self.nodes or part.id in self.notes or part.id in self.groups
            case AddEdge(edge=edge):
                return edge.id in self.edges
            case Move(pos=pos):
                return [(p.x, p.y) if (p := self.nodes.get(id_) or self.notes.get(id_)) else None for id_ in pos]
            case SetNode(id=id_, patch=patch, unset=unset):
                node = self.nodes.get(id_)
                return node and {key: _value(node, key, patch[key], unset) for key in patch}
            case RemoveEdge(id=id_):
                return self.edges.get(id_)
            case RemoveNote(id=id_):
                return self.notes.get(id_)
            case RemoveGroup(id=id_):
                return self.groups.get(id_)
            case SetNote(id=id_, patch=patch) | SetGroup(id=id_, patch=patch):
                member = self.notes.get(id_) or self.groups.get(id_)
                return member and [getattr(member, key) for key in patch]
            case SetBlueprint(patch=patch):
                return [getattr(self.head, key) for key in patch]

    def check_size(self) -> None:
        """Raises Rejected when the document has outgrown what can be kept."""
        if self.bytes > MAX_BYTES:
            raise _full(
                f"The agent would take {self.bytes / 1024 / 1024:.1f} MB; up to {MAX_BYTES // 1024 // 1024} MB can be kept.",
                "Move long texts into a file or table that the agent reads.",
            )

    # --- parts -----------------------------------------------------------------------------------------------------

    def _connect(self, edge: Edge, restoring: bool) -> Operation:
        if edge.id in self.edges:
            raise Rejected("That connection is already here.", code="canvas.duplicate", where={"edge": edge.id})
        for end in (edge.source, edge.target):
            if end not in self.nodes:
                raise Rejected(
                    "A connection needs both its nodes, and one of them is gone.",
                    code="canvas.gone",
                    fix="Connect to a node that is on the canvas.",
                    where={"node": end},
                )
        if len(self.edges) >= MAX_EDGES:
            raise _full(f"An agent may hold {MAX_EDGES:,} connections.", "Split it, and call one agent from the other.")
        for other in self._edges_at[edge.source] & self._edges_at[edge.target]:
            if self.edges[other].model_copy(update={"id": edge.id}) == edge:
                raise Rejected("These two ports are already connected.", code="canvas.duplicate")
        names = (self.title(edge.source), self.title(edge.target))
        wrong = misfit(edge, self.face(edge.source), self.face(edge.target), names)
        if wrong is not None and not restoring:
            raise Rejected(
                wrong, code="canvas.misfit", fix="Choose a port of a fitting kind.", where={"node": edge.target}
            )
        self._put(self.edges, edge)
        self._edges_at[edge.source].add(edge.id)
        self._edges_at[edge.target].add(edge.id)
        return RemoveEdge(id=edge.id)

    def _is_new(self, id_: str) -> None:
        if id_ in self.nodes or id_ in self.notes or id_ in self.groups:
            raise Rejected(
                "Something with that id is already on the canvas.", code="canvas.duplicate", where={"id": id_}
            )

    def _members_are_here(self, group: Group) -> None:
        for id_ in group.nodes:
            if id_ not in self.nodes:
                raise Rejected(
                    "A group can only hold nodes that are on the canvas.", code="canvas.gone", where={"node": id_}
                )

    def _get(self, parts: Mapping[str, P], id_: str, what: str) -> P:
        try:
            return parts[id_]
        except KeyError:
            raise Rejected(
                f"That {what} is gone: somebody removed it.", code="canvas.gone", where={"id": id_}
            ) from None

    def _pop(self, parts: dict[str, P], id_: str, what: str) -> P:
        part = self._get(parts, id_, what)
        del parts[id_]
        self.bytes -= _size(part)
        return part

    def _put(self, parts: dict[str, Any], part: Part) -> None:
        if (old := parts.get(part.id)) is not None:
            self.bytes -= _size(old)
        parts[part.id] = part
        self.bytes += _size(part)


def _patched(part: P, patch: Mapping[Any, Any], unset: Iterable[str] = ()) -> P:
    """The part with some fields replaced; of settings and policy only the named entries."""
    values: dict[str, Any] = {}
    for key, value in patch.items():
        old = getattr(part, key)
        if key == "settings" and isinstance(value, Mapping):
            values[key] = {**old, **value}
        elif key == "policy" and isinstance(value, Mapping):
            values[key] = {**old.model_dump(), **value}
        else:
            values[key] = value
    if gone := set(unset):
        values["settings"] = {
            name: value
            for name, value in values.get("settings", getattr(part, "settings", {})).items()
            if name not in gone
        }
    try:
        checked = type(part).model_validate({**_bare(part), **values})
    except ValidationError as error:
        raise explained(error, "That cannot be set") from None
    return part.model_copy(update={key: getattr(checked, key) for key in values})


def _bare(part: BaseModel) -> dict[str, Any]:
    """The fields that a part cannot be checked without."""
    return {name: getattr(part, name) for name, info in type(part).model_fields.items() if info.is_required()}


def _unpatch(node: Placed, patch: Mapping[Any, Any], unset: Iterable[str]) -> SetNode:
    """The operation that brings back what the patch replaced."""
    back: dict[Any, Any] = {key: getattr(node, key) for key in patch if key not in ("settings", "policy")}
    if isinstance(policy := patch.get("policy"), Mapping):
        back["policy"] = {key: value for key, value in node.policy.model_dump().items() if key in policy}
    given = patch.get("settings")
    touched = {*unset, *(given if isinstance(given, Mapping) else ())}
    if touched:
        back["settings"] = {name: node.settings[name] for name in sorted(touched) if name in node.settings}
    return SetNode(id=node.id, patch=back, unset=[name for name in sorted(touched) if name not in node.settings])


def _value(node: Placed, key: str, given: Any, unset: Iterable[str]) -> object:
    if key == "settings":
        return {name: node.settings[name] for name in (*given, *unset) if name in node.settings}
    if key == "policy":
        return {name: getattr(node.policy, name) for name in given}
    return getattr(node, key)


def _size(part: BaseModel) -> int:
    return len(orjson.dumps(part.model_dump(mode="python"))) + 1


def _full(message: str, fix: str) -> Rejected:
    return Rejected(message, code="canvas.full", fix=fix, status=413)
