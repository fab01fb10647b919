"""The drawing as Python, for people who program: to read, to copy, to take along."""

from __future__ import annotations

from nicegui import ui

from app.permissions import on
from app.pieces import heading
from app.studio.desk import Desk, tell
from nodes.errors import FactoryError
from runtime.policy import Permission


class CodeView:
    """A dialog that shows the compiled module of the drawing as it is now."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def open(self) -> None:
        """Compile and show it; or say which step keeps it from being compiled."""
        desk = self.desk
        desk.who.require(Permission.VIEW)
        try:
            text, refused = await desk.factory.blueprints.python(desk.who, desk.blueprint), None
        except FactoryError as error:
            text, refused = "", error
        with desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog st-python").mark("code-view"):
            with ui.element("div").classes("flex items-center w-full"):
                heading("This agent as Python", 2)
                ui.element("div").classes("af-space")
                ui.button(icon="close", on_click=dialog.close).props('flat dense round aria-label="Close"')
            if refused is not None:
                _refusal(refused)
            else:
                self._module(text)
        dialog.on("hide", dialog.delete)
        dialog.open()

    def _module(self, text: str) -> None:
        ui.label(
            "One file that runs on its own, with the packages it names at its top. Outside the factory nothing is "
            "journaled, approved or limited. To change it, change the drawing."
        ).classes("af-muted")
        ui.code(text, language="python").classes("st-python-text").props(
            'tabindex=0 role=region aria-label="The module"'
        )
        with ui.element("div").classes("af-actions w-full justify-end mt-2"):
            ui.button("Copy", icon="content_copy", on_click=on(lambda: self._copy(text), Permission.VIEW)).classes(
                "af-secondary"
            ).mark("copy-code")
            ui.button("Download", icon="download", on_click=on(lambda: self._download(text), Permission.VIEW)).mark(
                "download-code"
            )

    def _copy(self, text: str) -> None:
        ui.clipboard.write(text)
        tell("Copied.", good=True)

    def _download(self, text: str) -> None:
        name = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in self.desk.blueprint.name.lower())
        ui.download.content(text.encode(), f"{name[:60].strip('_') or 'agent'}.py", "text/x-python")


def _refusal(error: FactoryError) -> None:
    with ui.element("div").classes("w-full").mark("code-refused"):
        ui.label(error.message)
        if error.fix:
            ui.label(error.fix).classes("af-muted")
