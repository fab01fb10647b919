"""The canvas as a NiceGUI element: Vue Flow in the browser draws and takes gestures, a `GraphSession` here has the last word.

A page makes one for each tab: `Canvas(session, Editor(name, who, may_edit), ...)`. It joins the session, and leaves it when
the tab is closed. Palette entries are dragged in as HTML drag data of the type `DRAGGED` that holds the node type's name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

import orjson
from nicegui import background_tasks, ui
from nicegui.events import GenericEventArguments
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from app.canvas.faces import fitting, kinds
from app.canvas.operations import Rejected
from app.canvas.session import Batch, Editor, Event, Gap, GraphSession, Presence, Replaced, Saving
from nodes.catalog import Catalog, catalog

HERE: Final = Path(__file__).parent
VENDOR: Final = HERE / "vendor"
MODULES: Final = {
    "@vue-flow/core": VENDOR / "vue-flow__core",
    "@vue-flow/background": VENDOR / "vue-flow__background",
    "@vue-flow/minimap": VENDOR / "vue-flow__minimap",
    "@dagrejs/dagre": VENDOR / "dagrejs__dagre",
    "agent-factory-canvas": HERE / "browser",
}
STYLES: Final = (
    VENDOR / "vue-flow__core" / "style.css",
    VENDOR / "vue-flow__minimap" / "style.css",
    HERE / "canvas.css",
)
DRAGGED: Final = "application/x-agent-node"
FRAME: Final = 0.016

State = Literal["running", "retrying", "done", "failed", "waiting", "skipped", "simulated"]


class Finding(Protocol):
    """What the canvas shows of a check's finding."""

    severity: Any
    node: str | None
    sentence: str
    fix: Any


class _FromBrowser(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


T = TypeVar("T", bound=_FromBrowser)


class _Hello(_FromBrowser):
    previous: str = Field(default="", max_length=64)
    revision: int = -1


class _Batch(_FromBrowser):
    seq: int = Field(ge=1, le=2**53)
    todo: Literal["ops", "undo", "redo"]
    ops: list[JsonValue] = Field(default_factory=list)
    late: bool = False


class _Sync(_FromBrowser):
    revision: int


class _Selection(_FromBrowser):
    ids: list[str] = Field(max_length=2_000)


class _Action(_FromBrowser):
    name: str = Field(max_length=64)
    node: str = Field(max_length=64)


class Canvas(ui.element, component="canvas.js", esm={name: str(path) for name, path in MODULES.items()}):
    """One tab's view of a session.

    `actions` adds entries to the menu of a node, as `{"name", "label", "icon"}`; choosing one calls `on_action(name, node)`.
    The callbacks may be plain or async functions.
    """

    takes_much = True

    def __init__(
        self,
        session: GraphSession,
        editor: Editor,
        *,
        types: Catalog | None = None,
        minimap: bool = True,
        actions: Iterable[Mapping[str, str]] = (),
        on_selection: Callable[[list[str]], Any] | None = None,
        on_open: Callable[[str], Any] | None = None,
        on_action: Callable[[str, str], Any] | None = None,
        on_change: Callable[[Batch | Replaced], Any] | None = None,
        on_saving: Callable[[Saving], Any] | None = None,
    ) -> None:
        super().__init__()
        for path in STYLES:
            ui.add_css(path)
        self.session = session
        self.editor = editor
        self._on_selection = on_selection
        self._on_open = on_open
        self._on_action = on_action
        self._on_change = on_change
        self._on_saving = on_saving
        self._status: dict[str, Any] = {}
        self._traffic: dict[str, Any] = {}
        self._flushing: asyncio.TimerHandle | None = None
        # As texts: NiceGUI and Vue would else wrap every value in them to watch it.
        self._props["graph"] = orjson.dumps(session.snapshot()).decode()
        shown = {"kinds": kinds(types if types is not None else catalog()), "fitting": fitting()}
        self._props["types"] = orjson.dumps(shown).decode()
        self._props["options"] = {
            "key": session.id,
            "readOnly": not editor.may_edit(),
            "minimap": minimap,
            "actions": [dict(action) for action in actions],
        }
        self.style("width: 100%; height: 100%")
        self.on("hello", self._hello)
        self.on("batch", self._batch)
        self.on("sync", self._sync)
        self.on("selection", self._selected)
        self.on("open", self._open)
        self.on("action", self._acted)
        self._leave = session.subscribe(editor, self._tell)
        self.client.on_delete(self._left)
        self.client.on_disconnect(self._connection_changed)
        self.client.on_connect(self._connection_changed)

    # --- what a page asks of it ------------------------------------------------------------------------------------

    def commit(self, ops: list[dict[str, Any]], *, merge: bool = False) -> Batch:
        """Change the document from here (a form, the assistant) as a step of this editor's history. Raises Rejected."""
        return self.session.commit(self.editor, ops, merge=merge)

    def undo(self) -> None:
        """Take back this editor's last step, after the gestures that are still under way."""
        self.run_method("undo")

    def redo(self) -> None:
        """Do again what was taken back."""
        self.run_method("redo")

    def add(self, type_: str) -> None:
        """Add a node of that type in the middle of the view, as a palette's double click or Enter key does."""
        self.run_method("add", type_)

    def select(self, ids: Iterable[str]) -> None:
        """Select these nodes."""
        self.run_method("select", list(ids))

    def focus_node(self, id_: str) -> None:
        """Select a node, bring it into view, and put the keyboard's focus on it."""
        self.run_method("focus_node", id_)

    def fit(self) -> None:
        """Show everything."""
        self.run_method("fit")

    def layout(self) -> None:
        """Arrange the nodes from left to right, as one step."""
        self.run_method("layout")

    def say(self, sentence: str, *, bad: bool = False) -> None:
        """Show a sentence on the canvas for a moment."""
        self.run_method("say", sentence, "bad" if bad else "info")

    def set_findings(self, found: Iterable[Finding]) -> None:
        """Show these findings as badges, in place of those shown before. Findings of no node are for the page to show."""
        by_node: dict[str, list[dict[str, str]]] = {}
        for finding in found:
            if finding.node:
                severity = str(getattr(finding.severity, "value", finding.severity))
                fix = finding.fix if isinstance(finding.fix, str) else ""
                shown = {"severity": severity, "sentence": finding.sentence, "fix": fix}
                by_node.setdefault(finding.node, []).append(shown)
        self.run_method("set_findings", by_node)

    def set_status(
        self, nodes: Mapping[str, Mapping[str, Any] | None], edges: Mapping[str, int | None] | None = None
    ) -> None:
        """Show how a run goes: `{node: {"state": State, "count", "total", "detail"}}` and items for each edge.

        Only what changed needs to be given; None takes a mark away. Many calls in one frame become one message.
        """
        self._status.update(nodes)
        self._traffic.update(edges or {})
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FRAME, self._flush_status)

    def set_breakpoints(self, ids: Iterable[str]) -> None:
        """Show that tests are held before these nodes."""
        self.run_method("set_breakpoints", list(ids))

    def clear_status(self) -> None:
        """Take all marks of a run away."""
        self._status.clear()
        self._traffic.clear()
        self.run_method("clear_status")

    # --- from the browser --------------------------------------------------------------------------------------------

    def _hello(self, event: GenericEventArguments) -> None:
        """The page is up; perhaps it was here before, with changes that did not get through."""
        said = _read(_Hello, event.args)
        if said is None:
            return
        outcome, seq = self.session.take_over(self.editor, said.previous) if said.previous else ("unknown", 0)
        stale = said.revision != self.session.revision
        self._send(
            "welcome",
            editor=self.editor.id,
            outcome=outcome,
            seq=seq,
            revision=self.session.revision,
            graph=self.session.snapshot() if stale else None,
        )
        with self._props.suspend_updates():
            self._props["graph"] = (
                ""  # from here on the browser follows; the old one is not sent again with every update
            )
        self._show_people([editor.as_json() for editor in self.session.editors if not editor.away])

    def _batch(self, event: GenericEventArguments) -> None:
        """A gesture was finished in the browser, which already shows it."""
        said = _read(_Batch, event.args)
        if said is None:
            seq = event.args.get("seq") if isinstance(event.args, dict) else None
            self._refuse(seq if isinstance(seq, int) else 0, "That change could not be read.", None)
            return
        try:
            batch = self.session.receive(self.editor, said.seq, said.todo, said.ops)
        except Gap as gap:
            self.run_method("resend", gap.expected)
        except Rejected as error:
            # What was sent before a restart and is here already has arrived: nothing to complain about.
            known = said.late and error.code == "canvas.duplicate"
            self._refuse(said.seq, "" if known else error.message, None if known else error.fix)
        else:
            if batch is None:
                self._refuse(said.seq, "", None)

    def _sync(self, event: GenericEventArguments) -> None:
        """The browser is not sure that it has everything."""
        said = _read(_Sync, event.args)
        if said is not None and said.revision != self.session.revision:
            self._reset("")

    def _selected(self, event: GenericEventArguments) -> Any:
        said = _read(_Selection, event.args)
        if said is None:
            return None
        self.session.select(self.editor, said.ids)
        return self._on_selection(said.ids) if self._on_selection else None

    def _open(self, event: GenericEventArguments) -> Any:
        id_ = event.args
        if self._on_open and isinstance(id_, str) and id_ in self.session.graph.nodes:
            return self._on_open(id_)
        return None

    def _acted(self, event: GenericEventArguments) -> Any:
        said = _read(_Action, event.args)
        if said is not None and self._on_action and said.node in self.session.graph.nodes:
            return self._on_action(said.name, said.node)
        return None

    # --- to the browser ------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        """Something happened to the document: pass it on to this tab, and to its page."""
        match event:
            case Batch():
                self._send(
                    "applied",
                    ops=event.ops,
                    revision=event.revision,
                    own=event.editor == self.editor.id,
                    seq=event.seq if event.editor == self.editor.id else None,
                    faces=event.faces,
                    broken=event.broken,
                    said=list(event.said) if event.editor == self.editor.id else [],
                    counts=self.session.counts,
                )
            case Replaced(said=said):
                self._reset(said)
            case Presence(editors=editors):
                self._show_people(editors)
            case Saving():
                self._call(self._on_saving, event)
        if isinstance(event, Batch | Replaced):
            self._call(self._on_change, event)

    def _call(self, callback: Callable[[Any], Any] | None, event: Event) -> None:
        """Call back into the page, in its place; an async callback goes on by itself."""
        if callback is None or self.is_deleted:
            return
        with self:
            result = callback(event)
        if isinstance(result, Awaitable):

            async def finish() -> None:
                with self:
                    await result

            background_tasks.create(finish(), name="canvas callback")

    def _show_people(self, editors: list[dict[str, Any]]) -> None:
        if not self.is_deleted:
            self.run_method("set_presence", editors)

    def _send(self, method: str, **said: Any) -> None:
        if not self.is_deleted:
            self.run_method(method, said)

    def _refuse(self, seq: int, message: str, fix: str | None) -> None:
        self._send("refused", seq=seq, message=message, fix=fix, graph=self.session.snapshot())

    def _reset(self, said: str) -> None:
        self._send("reset", graph=self.session.snapshot(), said=said)

    def _flush_status(self) -> None:
        self._flushing = None
        nodes, edges, self._status, self._traffic = self._status, self._traffic, {}, {}
        if not self.is_deleted:
            self.run_method("set_status", nodes, edges)

    def _connection_changed(self) -> None:
        self.session.set_away(self.editor, not self.client.has_socket_connection)

    def _left(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        self._leave()

    def _handle_delete(self) -> None:
        self._left()
        super()._handle_delete()


def _read(kind: type[T], raw: object) -> T | None:
    """What the browser said, if it makes sense."""
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None
