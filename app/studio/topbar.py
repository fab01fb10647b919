"""The bar over the studio: name, whether it is saved, what the checks say, versions, test, deploy."""

from __future__ import annotations

from nicegui import ui

from app.permissions import on
from app.pieces import heading, kbd
from app.studio.code import CodeView
from app.studio.deploy import Deploy
from app.studio.desk import Desk, tell
from app.studio.details import agent_settings
from app.studio.findings import Findings
from app.studio.rooms import current_sessions
from app.studio.sandbox import Sandbox
from app.studio.versions import Versions
from runtime.policy import Permission

SAVED = {
    "saved": ("cloud_done", "Saved"),
    "saving": ("cloud_sync", "Saving…"),
    "failing": ("cloud_off", "Not saved yet"),
    "conflict": ("sync_problem", "Changed elsewhere"),
}
KEYS = (
    ("Ctrl+Enter", "Run the test"),
    ("F9", "Set or clear a breakpoint at the selected node"),
    ("F8", "Continue a test that is held"),
    ("F10", "Run one step of a test that is held"),
    ("/", "Search the nodes"),
    ("Ctrl+K", "Jump to another page or agent"),
    ("Ctrl+S", "Saved by itself: this opens the versions"),
    ("Ctrl+Z", "Undo on the canvas"),
    ("Ctrl+Shift+Z", "Redo on the canvas"),
    ("?", "These keys; on the canvas, its own"),
)


class Topbar:
    """The bar, and the drawers that it opens."""

    def __init__(self, desk: Desk, findings: Findings, deploy: Deploy, versions: Versions, sandbox: Sandbox) -> None:
        self.desk = desk
        self.findings = findings
        self.deploy = deploy
        self.versions = versions
        self.sandbox = sandbox
        desk.saved.append(self._show_saving)
        desk.changed.append(self._show_name)

    def draw(self) -> None:
        """Draw it."""
        desk = self.desk
        with ui.element("div").classes("st-bar"):
            with ui.link(target="/").props('aria-label="Back to Home"').classes("st-back"):
                ui.icon("arrow_back").props("aria-hidden=true")
            with ui.element("div").classes("st-bar-name"):
                self._name = ui.input(value=desk.blueprint.name, on_change=on(self._rename, Permission.EDIT))
                self._name.props('borderless dense debounce=400 maxlength=120 aria-label="Name of the agent"').props(
                    remove="outlined"
                )
                self._name.classes("st-agent").mark("agent-name")
                if not desk.editor.may_edit():
                    self._name.props("readonly")
                with ui.element("button").classes("st-saved").props("type=button") as self._saved:
                    self._saved_icon = ui.icon("cloud_done").props("aria-hidden=true")
                    self._saved_words = ui.label("Saved")
                self._saved.on("click", on(self._ask_saving)).mark("saved")
            ui.element("div").classes("af-space")
            if not desk.editor.may_edit():
                with ui.element("span").classes("af-chip is-info").mark("read-only"):
                    ui.icon("visibility").props("aria-hidden=true")
                    ui.label("Look only").style("display: inline")
            self.findings.draw_button()
            self._icon("tune", "Agent settings", on(lambda: agent_settings(desk)), "details")
            self._icon("history", "Versions", on(self.versions.open), "versions", id_="st-keep")
            self._icon("code", "As Python, for people who program", on(CodeView(desk).open), "python")
            self._icon("keyboard", "Keys", on(self._keys), "keys", id_="st-keys")
            ui.element("span").classes("st-rule")
            ui.button("Test", icon="science", on_click=on(lambda: self.sandbox.show(not self.sandbox.is_open))).classes(
                "af-secondary"
            ).mark("test")
            self.deploy.draw_button()
        self._show_saving()

    def _icon(self, icon: str, label: str, handler: object, mark: str, id_: str = "") -> None:
        with ui.button(icon=icon, on_click=handler).props(f'flat dense round aria-label="{label}"') as made:  # type: ignore[arg-type]
            ui.tooltip(label)
        if id_:
            made.props(f"id={id_}")
        made.classes("st-icon").mark(mark)

    def _rename(self) -> None:
        name = str(self._name.value or "").strip()
        if name and name != self.desk.blueprint.name:
            self.desk.change({"op": "set_blueprint", "patch": {"name": name}}, merge=True)

    def _show_name(self) -> None:
        name = self.desk.blueprint.name
        if name != str(self._name.value or "").strip():
            self._name.set_value(name)

    def _show_saving(self) -> None:
        icon, words = SAVED[self.desk.saving.state]
        self._saved_icon.set_name(icon)
        self._saved_words.set_text(words)
        bad = self.desk.saving.state in ("failing", "conflict")
        self._saved.classes(add="is-bad") if bad else self._saved.classes(remove="is-bad")

    async def _ask_saving(self) -> None:
        """Saved by itself; only a conflict needs a person."""
        desk = self.desk
        if desk.saving.state != "conflict":
            tell(
                desk.saving.sentence
                or "Everything is saved as you draw. To have a state to come back to, keep a version."
            )
            return
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog"):
            heading("Two states of this agent", 2)
            ui.label(desk.saving.sentence)
            ui.label("Which one shall stay? The other one is lost.").classes("af-muted")
            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("Take the stored one", on_click=lambda: dialog.submit("theirs")).classes("af-secondary")
                ui.button("Keep what I see", on_click=lambda: dialog.submit("mine"))
        chosen = await dialog
        if not dialog.is_deleted:
            dialog.delete()
        if chosen == "mine":
            desk.who.require(Permission.EDIT)
            await current_sessions().keep_mine(desk.who, desk.id)
        elif chosen == "theirs":
            await current_sessions().take_theirs(desk.who, desk.id)

    def _keys(self) -> None:
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog"):
            heading("Keys", 2)
            for keys, words in KEYS:
                with ui.element("div").classes("st-key"):
                    kbd(keys)
                    ui.label(words)
            ui.label("Click on the canvas and press ? for the keys of drawing.").classes("af-muted mt-2")
        dialog.on("hide", dialog.delete)
        dialog.open()
