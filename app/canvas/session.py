"""One open blueprint: the server's authority over the document that several tabs and people draw on.

A browser applies a finished gesture at once and sends it as one numbered batch; the session applies all of it or nothing,
raises the revision, tells every other listener, and keeps the inverse in the history of the editor who did it. Each editor
(one tab of one person) undoes only own steps; what others changed since is left as it is, with a sentence that says so.
Nothing here knows of a user interface.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import structlog

from app.canvas.graph import Graph
from app.canvas.operations import (
    AddEdge,
    AddNode,
    Move,
    Operation,
    Rejected,
    RemoveNode,
    SetNode,
    as_json,
    read_batch,
)
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from nodes.errors import FactoryError
from nodes.ids import new_id

log = structlog.get_logger()

HISTORY: Final = 200
COLOURS: Final = ("#7c3aed", "#0284c7", "#c2410c", "#15803d", "#be185d", "#4d7c0f", "#0f766e", "#a16207")
ORPHANS: Final = 32
Todo = Literal["ops", "undo", "redo"]
Takeover = Literal["resumed", "unknown", "busy"]


class Gap(FactoryError):
    """A batch is missing before this one; the browser sends again from `expected`."""

    code = "canvas.gap"
    status = 409

    def __init__(self, expected: int) -> None:
        super().__init__("A change did not arrive; it is being sent again.")
        self.expected = expected


@dataclass(slots=True)
class Editor:
    """One tab of one person. `who` is what the services are asked with; `may_edit` is asked at every change."""

    name: str = "Someone"
    who: Any = None
    may_edit: Callable[[], bool] = lambda: True
    id: str = field(default_factory=lambda: new_id("editor"))
    colour: str = ""
    selection: tuple[str, ...] = ()
    away: bool = False

    def as_json(self) -> dict[str, Any]:
        """As other people's browsers show it."""
        return {"id": self.id, "name": self.name, "colour": self.colour, "selection": list(self.selection)}


@dataclass(frozen=True, slots=True)
class Batch:
    """A change that was applied: published to every listener, the editor's own included."""

    ops: list[dict[str, Any]]
    revision: int
    editor: str
    seq: int | None = None
    faces: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str | None] = field(default_factory=dict)
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is here, and what they have selected."""

    editors: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another document took this one's place (a version was restored): take a new snapshot."""

    said: str


@dataclass(frozen=True, slots=True)
class Saving:
    """How keeping the document goes: saved, saving, failing (tried again by itself) or conflict (a person decides)."""

    state: Literal["saved", "saving", "failing", "conflict"]
    sentence: str = ""


Event = Batch | Presence | Replaced | Saving
Listener = Callable[[Event], None]
OnChange = Callable[[Blueprint, int, Editor], None]
Limit = Callable[[Any, str, int], None]
"""`(who, limit, amount)` raises FactoryError when a drawing of that person's team may not have so much."""


@dataclass(frozen=True, slots=True)
class _Undoing:
    """One inverse, and what it must find standing."""

    op: Operation
    standing: object


@dataclass(slots=True)
class _History:
    done: list[list[_Undoing]] = field(default_factory=list)
    undone: list[list[_Undoing]] = field(default_factory=list)
    seq: int = 0


class GraphSession:
    """A blueprint that is open. All methods are called from one event loop and never wait."""

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        id: str = "",
        types: Catalog | None = None,
        on_change: OnChange | None = None,
        on_empty: Callable[[], None] | None = None,
        limit: Limit | None = None,
    ) -> None:
        self.id = id
        self.revision = 0
        self.saving = Saving("saved")
        self._types = types if types is not None else catalog()
        self._graph = Graph.of(blueprint, self._types)
        self._on_change = on_change
        self._on_empty = on_empty
        self._limit = limit
        self._editors: dict[str, Editor] = {}
        self._histories: dict[str, _History] = {}
        self._listeners: dict[int, tuple[str | None, Listener]] = {}
        self._last_by: dict[str, str] = {}
        self._counter = 0

    # --- reading ---------------------------------------------------------------------------------------------------

    @property
    def blueprint(self) -> Blueprint:
        """The document as it stands; it stays what it was when the session goes on."""
        return self._graph.blueprint()

    @property
    def graph(self) -> Graph:
        """The parts by id, their faces and titles; to be read only."""
        return self._graph

    @property
    def editors(self) -> list[Editor]:
        """Who has it open."""
        return list(self._editors.values())

    @property
    def counts(self) -> list[int]:
        """How many nodes, edges, notes and groups there are, for a browser to compare with."""
        graph = self._graph
        return [len(graph.nodes), len(graph.edges), len(graph.notes), len(graph.groups)]

    def snapshot(self) -> dict[str, Any]:
        """All a browser needs to draw it."""
        graph = self._graph
        broken = {id_: said for id_ in graph.edges if (said := graph.broken(id_))}
        return {
            "revision": self.revision,
            "nodes": [node.model_dump(mode="json") for node in graph.nodes.values()],
            "edges": [edge.model_dump(mode="json") for edge in graph.edges.values()],
            "notes": [note.model_dump(mode="json") for note in graph.notes.values()],
            "groups": [group.model_dump(mode="json") for group in graph.groups.values()],
            "faces": {id_: graph.face(id_).as_json() for id_ in graph.nodes},
            "broken": broken,
        }

    def can_undo(self, editor: str) -> bool:
        """Whether that editor has a step to take back."""
        return bool(self._history(editor).done)

    def can_redo(self, editor: str) -> bool:
        """Whether that editor has a step to do again."""
        return bool(self._history(editor).undone)

    # --- who is here -----------------------------------------------------------------------------------------------

    def subscribe(self, editor: Editor | None, callback: Listener) -> Callable[[], None]:
        """Listen to every event, as an editor or as a mere listener; returns what ends it (once)."""
        self._counter += 1
        key = self._counter
        self._listeners[key] = (editor.id if editor else None, callback)
        if editor is not None:
            taken = {other.colour for other in self._editors.values()}
            editor.colour = editor.colour or next((c for c in COLOURS if c not in taken), COLOURS[key % len(COLOURS)])
            self._editors[editor.id] = editor
            self._histories.setdefault(editor.id, _History())
            self._publish(Presence(self._present()))

        def leave() -> None:
            if self._listeners.pop(key, None) is None:
                return
            if editor is not None and self._editors.pop(editor.id, None) is not None:
                self._publish(Presence(self._present()))
                self._forget()
            if not self._editors and self._on_empty is not None:
                self._on_empty()

        return leave

    def take_over(self, editor: Editor, previous: str) -> tuple[Takeover, int]:
        """Go on with the history of the same tab before its page was loaded again.

        `resumed` comes with the number of its last batch that arrived; `busy` means that the other tab is still at work
        (this one is its duplicate), `unknown` that nothing is remembered of it.
        """
        old = self._histories.get(previous)
        if previous == editor.id or old is None:
            return "unknown", 0
        working = self._editors.get(previous)
        if working is not None and not working.away:
            return "busy", 0
        self._histories[editor.id] = old
        del self._histories[previous]
        if working is not None:
            del self._editors[previous]
            self._publish(Presence(self._present()))
        return "resumed", old.seq

    def select(self, editor: Editor, ids: Iterable[str]) -> None:
        """Tell the others what that editor has selected."""
        chosen = tuple(id_ for id_ in ids if id_ in self._graph.nodes or id_ in self._graph.notes)[:200]
        if chosen != editor.selection:
            editor.selection = chosen
            self._publish(Presence(self._present()))

    def set_away(self, editor: Editor, away: bool) -> None:
        """Note that the editor's connection was lost, or is back."""
        if editor.away is not away:
            editor.away = away
            self._publish(Presence(self._present()))

    def _present(self) -> list[dict[str, Any]]:
        return [editor.as_json() for editor in self._editors.values() if not editor.away]

    # --- changing --------------------------------------------------------------------------------------------------

    def receive(self, editor: Editor, seq: int, todo: Todo, ops: object = ()) -> Batch | None:
        """A numbered batch from a browser; None when it was here before. Raises Gap or Rejected (which uses the number up)."""
        history = self._history(editor.id)
        if seq <= history.seq:
            return None
        if seq > history.seq + 1:
            raise Gap(history.seq + 1)
        history.seq = seq
        if todo == "undo":
            return self.undo(editor, seq=seq)
        if todo == "redo":
            return self.redo(editor, seq=seq)
        return self.commit(editor, ops, seq=seq)

    def commit(self, editor: Editor, ops: object, *, seq: int | None = None, merge: bool = False) -> Batch:
        """Apply one gesture as one step of the editor's history. Raises Rejected when nothing was applied.

        `merge` adds it to the step before when that changed the same thing (typing in a field is one step).
        """
        self._may_edit(editor)
        wanted = read_batch(ops)
        history = self._history(editor.id)
        merge = merge and bool(history.done) and self._stands(history.done[-1])
        step: list[_Undoing] = []
        applied: list[Operation] = []
        before = self._amounts()
        try:
            for operation in wanted:
                for each in self._graph.expanded(operation):
                    step += self._do(each)
                    applied.append(each)
            self._check_whole(applied)
            self._check_growth(editor, before)
        except Rejected:
            self._take_back(step)
            raise
        history.undone.clear()
        if not (merge and _joined(history.done, step)):
            history.done.append(step)
            del history.done[:-HISTORY]
        return self._changed(editor, applied, seq)

    def undo(self, editor: Editor, *, seq: int | None = None) -> Batch:
        """Take back the editor's last step; what others changed since stays, and `said` tells."""
        history = self._history(editor.id)
        return self._revert(editor, history.done, history.undone, seq, "undo")

    def redo(self, editor: Editor, *, seq: int | None = None) -> Batch:
        """Do again what the editor took back last."""
        history = self._history(editor.id)
        return self._revert(editor, history.undone, history.done, seq, "redo")

    def replace(self, blueprint: Blueprint, said: str) -> None:
        """Put another document in this one's place; histories end here."""
        self._graph = Graph.of(blueprint, self._types)
        self.revision += 1
        for history in self._histories.values():
            history.done.clear()
            history.undone.clear()
        self._publish(Replaced(said))

    def report(self, saving: Saving) -> None:
        """Tell the listeners how keeping the document goes."""
        self.saving = saving
        self._publish(saving)

    def _revert(
        self, editor: Editor, take: list[list[_Undoing]], give: list[list[_Undoing]], seq: int | None, what: str
    ) -> Batch:
        self._may_edit(editor)
        if not take:
            return self._changed(editor, [], seq, (f"There is nothing to {what}.",))
        back: list[_Undoing] = []
        applied: list[Operation] = []
        left: list[str] = []
        before = self._amounts()
        for undoing in reversed(take.pop()):
            if self._graph.standing(undoing.op) != undoing.standing:
                left.append(self._left(editor, undoing.op))
                continue
            try:
                back += self._do(undoing.op, restoring=True)
            except Rejected as error:
                left.append(error.message)
            else:
                applied.append(undoing.op)
        try:
            self._check_whole(applied)
            self._check_growth(editor, before)
        except Rejected as error:
            self._take_back(back)
            return self._changed(editor, [], seq, (error.message,))
        if back:
            give.append(back)
        return self._changed(editor, _together(applied), seq, tuple(dict.fromkeys(left)))

    def _do(self, operation: Operation, *, restoring: bool = False) -> list[_Undoing]:
        """Apply one operation; moves are remembered one by one, so that each can be taken back for itself."""
        inverse = self._graph.apply(operation, restoring=restoring)
        parts: list[Operation] = [inverse]
        if isinstance(inverse, Move):
            parts = [Move(pos={id_: place}) for id_, place in inverse.pos.items()]
        return [_Undoing(part, self._graph.standing(part)) for part in parts]

    def _stands(self, step: Sequence[_Undoing]) -> bool:
        return all(self._graph.standing(undoing.op) == undoing.standing for undoing in step)

    def _take_back(self, step: Sequence[_Undoing]) -> None:
        for undoing in reversed(step):
            self._graph.apply(undoing.op, restoring=True)

    def _check_whole(self, applied: Sequence[Operation]) -> None:
        self._graph.check_size()
        if around := self._graph.circle(op.edge.id for op in applied if isinstance(op, AddEdge)):
            names = [self._graph.title(id_) for id_ in around]
            shown = names if len(names) <= 6 else [*names[:3], "…", *names[-2:]]
            raise Rejected(
                f"That would make a circle: {' → '.join(shown)}.",
                code="canvas.circle",
                fix="To repeat steps, use “For each”, and lead the last step back into its “result”.",
                where={"node": around[0]},
            )

    def _amounts(self) -> dict[str, int]:
        graph = self._graph
        return {"graph_nodes": len(graph.nodes), "graph_edges": len(graph.edges), "graph_bytes": graph.bytes}

    def _check_growth(self, editor: Editor, before: dict[str, int]) -> None:
        """What has grown must be within the team's limits; what is too large already may still be made smaller."""
        if self._limit is None:
            return
        for name, amount in self._amounts().items():
            if amount > before[name]:
                try:
                    self._limit(editor.who, name, amount)
                except FactoryError as error:
                    raise Rejected(error.message, code=error.code, fix=error.fix, status=error.status) from None

    def _changed(
        self, editor: Editor, applied: Sequence[Operation], seq: int | None, said: tuple[str, ...] = ()
    ) -> Batch:
        graph = self._graph
        if not applied:
            batch = Batch([], self.revision, editor.id, seq, said=said)
            self._publish(batch)
            return batch
        self.revision += 1
        faces, edges = set(), set()
        for operation in applied:
            for id_ in _touched(operation):
                self._last_by[id_] = editor.name
            if isinstance(operation, AddNode | SetNode):
                id_ = operation.node.id if isinstance(operation, AddNode) else operation.id
                faces.add(id_)
                edges.update(graph.edges_at(id_))
            elif isinstance(operation, AddEdge):
                edges.add(operation.edge.id)
        batch = Batch(
            as_json(applied),
            self.revision,
            editor.id,
            seq,
            {id_: graph.face(id_).as_json() for id_ in faces if id_ in graph.nodes},
            {id_: graph.broken(id_) for id_ in edges if id_ in graph.edges},
            said,
        )
        self._publish(batch)
        if self._on_change is not None:
            self._on_change(self.blueprint, self.revision, editor)
        return batch

    def _left(self, editor: Editor, op: Operation) -> str:
        """Why a step was not taken back: somebody else was there since."""
        id_ = _touched(op)[0]
        by = self._last_by.get(id_, "")
        who = by if by and by != editor.name else "somebody"
        if (
            isinstance(op, RemoveNode | SetNode | Move)
            and id_ not in self._graph.nodes
            and id_ not in self._graph.notes
        ):
            return f"One step was left out: {who} removed what it changed."
        title = "the agent" if id_ == "blueprint" else f"“{self._graph.title(id_)}”"
        return f"{title[0].upper()}{title[1:]} was left as it is: {who} changed it after you."

    def _may_edit(self, editor: Editor) -> None:
        if not editor.may_edit():
            raise Rejected(
                "You may look at this agent, but not change it.",
                code="canvas.denied",
                fix="Ask an administrator for the developer role.",
                status=403,
            )

    def _forget(self) -> None:
        """Keep the histories of those who left last (a page that is loaded again takes its own over), not of everybody."""
        gone = [id_ for id_ in self._histories if id_ not in self._editors]
        for id_ in gone[:-ORPHANS]:
            del self._histories[id_]

    def _history(self, editor: str) -> _History:
        return self._histories.setdefault(editor, _History())

    def _publish(self, event: Event) -> None:
        for _, callback in list(self._listeners.values()):
            try:
                callback(event)
            except Exception as error:  # one broken tab must not cut off the others
                log.exception("a listener of the canvas failed", error=repr(error))


def _joined(done: list[list[_Undoing]], step: list[_Undoing]) -> bool:
    """Make the step one with the last of the history if both set the same fields of the same thing."""
    if not done or len(done[-1]) != 1 or len(step) != 1:
        return False
    last, new = done[-1][0].op, step[0].op
    if not (isinstance(last, SetNode) and isinstance(new, SetNode) and _fields(last) == _fields(new)):
        return False
    done[-1] = [_Undoing(last, step[0].standing)]
    return True


def _fields(op: SetNode) -> object:
    settings, policy = op.patch.get("settings"), op.patch.get("policy")
    inside = {
        *op.unset,
        *(settings if isinstance(settings, dict) else ()),
        *(policy if isinstance(policy, dict) else ()),
    }
    return op.id, set(op.patch), inside


def _together(ops: Iterable[Operation]) -> list[Operation]:
    """Moves that follow each other as one."""
    joined: list[Operation] = []
    for op in ops:
        if joined and isinstance(op, Move) and isinstance(joined[-1], Move):
            joined[-1] = Move(pos={**joined[-1].pos, **op.pos})
        else:
            joined.append(op)
    return joined


def _touched(op: Operation) -> list[str]:
    match op:
        case Move(pos=pos):
            return list(pos)
        case AddEdge(edge=edge):
            return [edge.source, edge.target, edge.id]
        case AddNode(node=node):
            return [node.id]
        case _:
            part = getattr(op, "id", None) or getattr(getattr(op, "note", None) or getattr(op, "group", None), "id", "")
            return [part] if part else ["blueprint"]
