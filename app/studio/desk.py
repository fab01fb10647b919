"""What the parts of one studio page share: the drawing, who draws, what is selected, the last test run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from app.canvas.element import Canvas
from app.canvas.session import Batch, Editor, GraphSession, Replaced, Saving
from app.permissions import current_actor, current_factory
from app.studio.known import Known, as_it_is, known_at
from nodes.base import Node
from nodes.blueprint import Blueprint, Placed
from nodes.catalog import Catalog
from runtime.environments import LIVE
from runtime.factory import Factory
from runtime.policy import Actor, Permission
from runtime.views import RunView, StepView

Listener = Callable[[], Any]


class Desk:
    """One tab's studio. Parts register what they want to hear; nothing here draws."""

    def __init__(self, id_: str, session: GraphSession, editor: Editor) -> None:
        self.id = id_
        self.session = session
        self.editor = editor
        self.canvas: Canvas
        self.place: ui.element
        """Where dialogs are put: it stays while the page does, unlike the part that asks for one."""
        self.selected: list[str] = []
        self.run: RunView | None = None
        """The last test run, as far as it has come."""
        self.printing: Mapping[tuple[str, str], str] = {}
        """What code in the test has printed so far, by node and iteration, while it runs."""
        self.saving: Saving = session.saving
        self.changed: list[Listener] = []
        self.chosen: list[Listener] = []
        self.tested: list[Listener] = []
        self.saved: list[Listener] = []
        self.printed: list[Listener] = []
        self.open_tab: Callable[[str], None] = lambda tab: None
        self.run_until: Callable[[str], Any] = lambda node: None
        self.run_from: Callable[[str], Any] = lambda node: None
        self.toggle_breakpoint: Callable[[str], Any] = lambda node: None
        self.has_breakpoint: Callable[[str], bool] = lambda node: False
        self.edit_output: Callable[[str, dict[str, Any] | None], Any] = lambda node, output: None
        self._known: tuple[str, Known] | None = None

    # --- who and what ----------------------------------------------------------------------------------------------

    @property
    def factory(self) -> Factory:
        """The services."""
        return current_factory()

    @property
    def types(self) -> Catalog:
        """The node types of this installation."""
        return self.factory.catalog

    @property
    def who(self) -> Actor:
        """Who is at this page now. Raises SignedOut."""
        return current_actor()

    def may(self, permission: Permission) -> bool:
        """Whether to offer something; the service decides again when it is done."""
        return self.who.may(permission)

    @property
    def blueprint(self) -> Blueprint:
        """The document as it stands."""
        return self.session.blueprint

    @property
    def node(self) -> str:
        """The one selected node, or nothing."""
        return self.selected[0] if len(self.selected) == 1 and self.selected[0] in self.session.graph.nodes else ""

    def placed(self, id_: str) -> Placed | None:
        """A node on the canvas."""
        return self.session.graph.nodes.get(id_)

    def title(self, id_: str) -> str:
        """What a person calls a node."""
        return self.session.graph.title(id_) if id_ in self.session.graph.nodes else "a step that is gone"

    # --- the last test ---------------------------------------------------------------------------------------------

    @property
    def steps(self) -> dict[str, StepView]:
        """The steps of the last test by node; of a loop's steps the newest iteration."""
        found: dict[str, StepView] = {}
        for step in self.run.steps if self.run else ():
            if step.state != "skipped" or step.node not in found:
                found[step.node] = step
        return found

    def known(self, node: str) -> tuple[Known, Node | None]:
        """What formulas of a node can use."""
        if self._known is None or self._known[0] != node:
            self._known = (node, known_at(self.blueprint, self.types, node, self.steps, self._variables()))
        placed = self.placed(node)
        return self._known[1], as_it_is(placed, self.types) if placed else None

    def _variables(self) -> dict[str, Any]:
        """What formulas find besides the agent's own variables, as in live."""
        return dict(self.factory.variables.of(self.editor.who.tenant, LIVE))

    # --- telling -----------------------------------------------------------------------------------------------------

    def change(self, *ops: dict[str, Any], merge: bool = False) -> None:
        """Change the document as one step of this tab's history. Raises Rejected."""
        self.canvas.commit(list(ops), merge=merge)

    def fit_soon(self) -> None:
        """Show everything once the browser has measured what is new."""
        with self.place:
            ui.timer(0.35, self.canvas.fit, once=True)

    def show(self, node: str) -> None:
        """Select a node and bring it into view."""
        if node in self.session.graph.nodes:
            self.canvas.focus_node(node)

    def on_change(self, event: Batch | Replaced) -> None:
        """The document changed, here or in another tab."""
        if not (isinstance(event, Batch) and self._known is not None and _stays(event, self._known[0])):
            self._known = None
        self.selected = [id_ for id_ in self.selected if id_ in self.session.graph.nodes]
        self._tell(self.changed)

    def on_selection(self, ids: list[str]) -> None:
        """Other nodes are selected."""
        self.selected = ids
        self._tell(self.chosen)

    def on_saving(self, saving: Saving) -> None:
        """Keeping the draft goes on."""
        self.saving = saving
        self._tell(self.saved)

    def on_tested(self, run: RunView) -> None:
        """There is news of the test run."""
        self.run = run
        self._known = None
        self._tell(self.tested)

    def on_printing(self, printing: Mapping[tuple[str, str], str]) -> None:
        """Code that runs in the test has printed more."""
        self.printing = printing
        self._tell(self.printed)

    def look_again(self) -> None:
        """Something beside the document and the test changed that parts show."""
        self._tell(self.tested)

    def _tell(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            listener()


def _stays(batch: Batch, node: str) -> bool:
    """Whether what arrives at a node is as it was: typing in its own form changes nothing before it."""
    return all(op["op"] in ("move", "set") and (op["op"] == "move" or op["id"] == node) for op in batch.ops)


def tell(text: str, *, good: bool = False) -> None:
    """A short notice of what was done."""
    ui.notify(text, type="positive" if good else "info", classes="af-notice", position="top")


def titled_input(title: str, *, value: str = "", placeholder: str = "") -> ui.input:
    """A line of text under a title of its own."""
    ui.label(title).classes("st-title").props("aria-hidden=true")
    made = ui.input(value=value, placeholder=placeholder)
    made.props["aria-label"] = title
    return made


def titled_text(title: str, *, value: str = "", placeholder: str = "") -> ui.textarea:
    """Several lines of text under a title of their own."""
    ui.label(title).classes("st-title").props("aria-hidden=true")
    made = ui.textarea(value=value, placeholder=placeholder)
    made.props["aria-label"] = title
    return made
