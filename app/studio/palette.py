"""The list of node types on the left: search, sections by family, drag or double-click to add."""

from __future__ import annotations

from nicegui import ui

from app.permissions import on
from app.sentences import spoken
from app.studio.desk import Desk
from nodes.base import Family
from nodes.catalog import describe
from runtime.policy import Permission

SECTIONS = {
    Family.TRIGGER: ("Triggers", "What sets the agent off"),
    Family.CONTEXT: ("Context", "What it knows and looks up"),
    Family.ACTION: ("Actions", "What it does"),
    Family.VALIDATION: ("Validation", "What it decides and checks"),
    Family.FLOW: ("Flow", "Loops, waiting, other agents"),
}


def palette(desk: Desk) -> None:
    """Draw the palette. Filtering and dragging happen in the browser (assets/js/studio.js)."""
    with ui.element("aside").classes("st-palette").props('aria-label="Nodes"'):
        with ui.element("div").classes("st-search"):
            ui.icon("search").props("aria-hidden=true")
            ui.element("input").props(
                'type=search placeholder="Search nodes" aria-label="Search nodes" autocomplete=off spellcheck=false id=st-search'
            )
            with ui.element("kbd"):
                ui.label("/").style("display: contents")
        with ui.element("div").classes("st-shelf"):
            for family, (title, line) in SECTIONS.items():
                _section(desk, family, title, line)
            ui.label("No node is called that. Try another word, such as “if”, “mail” or “ai”.").classes(
                "st-none"
            ).props("hidden=true id=st-none")


def _section(desk: Desk, family: Family, title: str, line: str) -> None:
    with ui.element("section").classes(f"st-family is-{family}").props(f'aria-label="{title}"'):
        with ui.element("div").classes("st-family-head"):
            ui.label(title)
            ui.tooltip(line)
        for cls in desk.types:
            if cls.family is family:
                _item(desk, describe(cls))


def _item(desk: Desk, said: dict[str, object]) -> None:
    type_, title = str(said["type"]), str(said["title"])
    words = said["words"] if isinstance(said["words"], list) else []
    with ui.element("div").classes("st-item").props("tabindex=0 role=button draggable=true") as item:
        item.props["data-palette"] = type_
        item.props["data-words"] = " ".join([title, *map(str, words), str(said["summary"])]).lower()
        item.props["aria-label"] = f"Add {title}"
        with ui.element("span").classes("st-tile"):
            ui.icon(str(said["icon"])).props("aria-hidden=true")
        ui.label(title).classes("st-item-title")
        ui.tooltip(spoken(str(said["summary"]))).props(
            'anchor="center right" self="center left" :delay="350" max-width=260px'
        )
    add = on(lambda: desk.canvas.add(type_), Permission.EDIT)
    item.on("dblclick", add)
    item.on("keydown.enter", add)
    item.mark(f"palette-{type_}")
