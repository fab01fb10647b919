"""What the checks say: asked a moment after each change, shown as badges on nodes and as a list with fixes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from nicegui import background_tasks, ui

from app.permissions import on
from app.pieces import empty_state, heading
from app.sentences import spoken
from app.studio.desk import Desk, tell
from nodes.check import Finding
from nodes.errors import FactoryError
from runtime.policy import Permission

QUIET = 0.5
"""Seconds without a change after which the checks are asked."""
TIERS = {
    "structure": "Structure: can it run?",
    "security": "Security: can it do harm?",
    "performance": "Speed and cost",
    "business": "Does it make sense?",
}
ICONS = {"error": "error", "warning": "warning", "hint": "lightbulb"}
WORDS = {"error": "must be fixed", "warning": "worth a look", "hint": "a hint"}


class Findings:
    """Asks the checks and shows what they say."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.found: Sequence[Finding] = ()
        self._asked = -1
        self._waiting: asyncio.TimerHandle | None = None
        self._client = ui.context.client
        desk.changed.append(self.later)
        self._client.on_connect(self.later)

    # --- asking --------------------------------------------------------------------------------------------------------

    def later(self) -> None:
        """Ask once it is quiet."""
        if self._waiting is not None:
            self._waiting.cancel()
        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(QUIET, lambda: background_tasks.create(self.ask(), name="check the drawing"))

    async def ask(self) -> Sequence[Finding]:
        """What the checks say of the drawing as it stands."""
        self._waiting = None
        desk, revision = self.desk, self.desk.session.revision
        if self._client.is_deleted:
            return self.found
        try:
            self.found = await desk.factory.blueprints.check(desk.editor.who, desk.blueprint, id=desk.id)
        except FactoryError:
            return self.found
        self._asked = revision
        if not self._client.is_deleted:
            with self._button:
                desk.canvas.set_findings(cast(Any, self.found))
                self._show_count()
                if self._drawer.value:
                    self._fill()
        return self.found

    # --- drawing -------------------------------------------------------------------------------------------------------

    def draw_button(self) -> None:
        """The count in the top bar."""
        with (
            ui.element("button")
            .classes("st-count")
            .props('type=button aria-label="Findings of the checks"') as self._button
        ):
            self._icon = ui.icon("task_alt").props("aria-hidden=true")
            self._count = ui.label("Checks")
        self._button.on("click", on(self.open)).mark("findings")

    def draw_drawer(self) -> None:
        """The list, closed at first."""
        with ui.dialog().props("position=right maximized=false") as self._drawer, ui.card().classes("st-sheet"):
            with ui.element("div").classes("st-sheet-head"):
                heading("What the checks say", 2)
                ui.element("div").classes("af-space")
                ui.button(icon="close", on_click=self._drawer.close).props('flat dense round aria-label="Close"')
            self._list = ui.element("div").classes("st-sheet-body")

    def _show_count(self) -> None:
        errors = sum(finding.severity == "error" for finding in self.found)
        others = len(self.found) - errors
        self._button.classes(remove="is-bad is-warn is-good")
        if not self.desk.session.graph.nodes:
            self._icon.set_name("task_alt")
            self._count.set_text("Checks")
        elif errors:
            self._button.classes("is-bad")
            self._icon.set_name("error")
            self._count.set_text(f"{errors} to fix")
        elif others:
            self._button.classes("is-warn")
            self._icon.set_name("warning")
            self._count.set_text(f"{others} finding{'' if others == 1 else 's'}")
        else:
            self._button.classes("is-good")
            self._icon.set_name("task_alt")
            self._count.set_text("All good")

    async def open(self) -> None:
        """Show the list, asked anew if the drawing changed meanwhile."""
        if self._asked != self.desk.session.revision:
            await self.ask()
        self._fill()
        self._drawer.open()

    def _fill(self) -> None:
        self._list.clear()
        with self._list:
            if not self.found:
                empty_state(
                    "task_alt",
                    "Nothing to complain about",
                    "Structure, security, speed and sense: the checks found nothing.",
                )
            draw_findings(self.desk, self.found, self._drawer.close, self._repair)

    def _repair(self, finding: Finding) -> None:
        self.desk.change(*(dict(op) for op in finding.repair))
        tell("It is fixed. Undo takes it back.", good=True)


def draw_findings(desk: Desk, found: Sequence[Finding], close: object, repair: object) -> None:
    """Findings by tier, each with its fix and the way there."""
    for tier, title in TIERS.items():
        members = [finding for finding in found if finding.tier == tier]
        if not members:
            continue
        ui.label(title).classes("af-overline st-tier")
        for finding in members[:100]:
            _draw_finding(desk, finding, close, repair)


def _draw_finding(desk: Desk, finding: Finding, close: object, repair: object) -> None:
    def show() -> None:
        if callable(close):
            close()
        desk.show(finding.node)
        desk.open_tab("settings")

    with ui.element("article").classes(f"st-finding is-{finding.severity}").mark(f"finding-{finding.code}"):
        ui.icon(ICONS[finding.severity]).props(f'role=img aria-label="{WORDS[finding.severity]}"')
        with ui.element("div").classes("grow"):
            ui.label(spoken(finding.sentence)).classes("st-finding-words")
            if finding.fix:
                ui.label(spoken(finding.fix)).classes("af-muted")
            with ui.element("div").classes("af-actions"):
                if finding.node and desk.placed(finding.node):
                    ui.button("Show", on_click=on(show)).props("flat dense").classes("st-mini")
                if finding.repair and desk.editor.may_edit() and callable(repair):
                    ui.button(
                        "Fix it", icon="auto_fix_high", on_click=on(partial(repair, finding), Permission.EDIT)
                    ).props("flat dense").classes("st-add").mark("fix-it")
