"""Settings → System: what was found on this machine, what is missing, and what it would add."""

from __future__ import annotations

from nicegui import app as web
from nicegui import ui

from app.doctor import Line, examine
from app.permissions import Permission, on
from app.pieces import heading


async def build() -> None:
    """The findings, looked for once the page is there."""
    with ui.element("div").classes("af-toolbar"):
        heading("System", 2)
        ui.element("div").classes("af-space")
        again = ui.button("Look again", icon="refresh").classes("af-secondary")
    ui.label("The same as “factory doctor” says at a terminal.").classes("af-muted mb-4")
    box = ui.element("div").mark("doctor")

    async def look() -> None:
        box.clear()
        with box:
            ui.label("Looking at this machine…").classes("af-muted").props("role=status")
        lines = await examine(web.state.settings)
        box.clear()
        with box, ui.element("div").classes("af-list"):
            for line in lines:
                _line(line)

    again.on_click(on(look, Permission.ADMIN))
    ui.timer(0.05, on(look, Permission.ADMIN), once=True)


def _line(line: Line) -> None:
    with ui.element("div").classes("af-row items-start"):
        icon = ui.icon("check_circle" if line.found else "radio_button_unchecked")
        icon.classes("af-good" if line.found else "af-warn").props(
            f'aria-label="{"found" if line.found else "missing"}"'
        )
        with ui.element("div").classes("grow"):
            ui.label(line.name).classes("af-strong")
            ui.label(f"{line.detail[:1].upper()}{line.detail[1:]}").classes("break-words")
            words = f"For {line.adds}." if line.found else f"It would add {line.adds}. {line.get}"
            ui.label(words).classes("af-muted af-small break-words")
