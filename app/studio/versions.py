"""The drawer of versions: keep one with a note, compare it in words, go back to it."""

from __future__ import annotations

from functools import partial

from nicegui import ui

from app.permissions import on
from app.pieces import empty_state, heading, relative_time
from app.studio.deploy import Deploy, draw_changes
from app.studio.desk import Desk, tell
from app.studio.rooms import current_sessions
from app.studio.words import changes
from runtime.policy import Permission
from runtime.views import VersionInfo


class Versions:
    """The list of versions of one agent."""

    def __init__(self, desk: Desk, deploy: Deploy) -> None:
        self.desk = desk
        self.deploy = deploy

    def draw(self) -> None:
        """The drawer, closed at first."""
        with ui.dialog().props("position=right") as self._drawer, ui.card().classes("st-sheet").mark("versions-list"):
            with ui.element("div").classes("st-sheet-head"):
                heading("Versions", 2)
                ui.element("div").classes("af-space")
                ui.button(icon="close", on_click=self._drawer.close).props('flat dense round aria-label="Close"')
            with ui.element("div").classes("st-sheet-body"):
                ui.label("Everything you draw is saved by itself. A version is a state to come back to.").classes(
                    "af-muted"
                )
                if self.desk.editor.may_edit():
                    with ui.element("div").classes("st-keep"):
                        self._note = (
                            ui.input(placeholder="What is it about? (optional)")
                            .props('maxlength=500 aria-label="Note"')
                            .classes("grow")
                            .mark("version-note")
                        )
                        ui.button("Keep a version", on_click=on(self.keep, Permission.EDIT)).mark("keep-version")
                self._list = ui.element("div").classes("st-versions")

    async def open(self) -> None:
        """Show the list."""
        await self._fill()
        self._drawer.open()

    async def keep(self) -> None:
        """Keep the drawing as a numbered version."""
        await current_sessions().flush(self.desk.id)
        info = await self.desk.factory.blueprints.snapshot(
            self.desk.who, self.desk.id, str(self._note.value or "").strip()
        )
        self._note.set_value("")
        tell(f"Version {info.number} is kept.", good=True)
        await self._fill()

    async def _fill(self) -> None:
        found = await self.desk.factory.blueprints.versions(self.desk.who, self.desk.id)
        await self.deploy.refresh()
        live = self.deploy.live
        self._list.clear()
        with self._list:
            if not found:
                empty_state(
                    "history", "No versions yet", "Deploying keeps one by itself. Keep one now before a larger change."
                )
            for info in found:
                self._draw_version(info, live.version if live else None)

    def _draw_version(self, info: VersionInfo, live: int | None) -> None:
        with ui.element("article").classes("st-version").mark(f"version-{info.number}"):
            with ui.element("div").classes("flex items-center gap-2"):
                ui.label(f"Version {info.number}").classes("af-strong")
                if info.number == live:
                    with ui.element("span").classes("af-chip is-good"):
                        ui.icon("bolt").props("aria-hidden=true")
                        ui.label("Live").style("display: inline")
                ui.element("div").classes("af-space")
                relative_time(info.created_at)
            if info.note:
                ui.label(info.note).classes("break-words")
            ui.label(f"by {info.created_by}").classes("af-muted af-small")
            box = ui.element("div").classes("w-full")
            with ui.element("div").classes("af-actions"):
                ui.button("Compare", on_click=on(partial(self._compare, info.number, box))).props("flat dense").classes(
                    "st-mini"
                ).mark(f"compare-{info.number}")
                if self.desk.editor.may_edit():
                    restore = on(partial(self._restore, info.number), Permission.EDIT)
                    ui.button("Go back to it", icon="restore", on_click=restore).props("flat dense").classes(
                        "st-mini"
                    ).mark(f"restore-{info.number}")

    async def _compare(self, number: int, box: ui.element) -> None:
        info = await self.desk.factory.blueprints.version(self.desk.who, self.desk.id, number)
        box.clear()
        with box:
            said = changes(info.blueprint, self.desk.blueprint, self.desk.types) if info.blueprint else []
            ui.label("Since then:" if said else "It is the same as the drawing now.").classes("st-title")
            draw_changes(said)

    async def _restore(self, number: int) -> None:
        sessions = current_sessions()
        await sessions.flush(self.desk.id)
        await self.desk.factory.blueprints.restore(self.desk.who, self.desk.id, number)
        await sessions.take_theirs(self.desk.who, self.desk.id, f"Version {number} is the drawing again.")
        tell(f"Version {number} is the drawing again. What was there before is kept as a version.", good=True)
        await self._fill()
