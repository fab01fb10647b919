"""What stands below a formula to choose from: the data that can arrive, and the functions. A click or a drag puts it in.

Putting in happens in the browser, where the cursor is (assets/js/studio.js, `data-insert`).
"""

from __future__ import annotations

import itertools
from typing import Any

from nicegui import ui

from app.permissions import on
from app.studio.known import Known, identifier, join
from app.studio.words import as_json, one_line
from nodes.formula import HELP, FunctionHelp

_MOST = 100


def draw_data(known: Known) -> None:
    """The tree of names, with their values."""
    said = (
        "What really arrived in the last test." if known.real else "Sample data. Run a test to see what really arrives."
    )
    ui.label(f"{said} Click to put it in, or drag it.").classes("st-help")
    sample = known.sample
    own = {name: value for name, value in sample.items() if name not in ("input", "steps", "vars", "run")}
    # The first port holds what “input” holds: once is enough.
    own = {name: value for name, value in own.items() if not (name in known.arriving and value is known.main)}
    with ui.element("div").classes("st-tree").props('role=tree aria-label="Data"'):
        if own:
            ui.label("Arrives here").classes("st-tree-head")
        for name, value in own.items():
            _branch(identifier(name), name, value, 1)
        ui.label("All of it").classes("st-tree-head")
        _branch("input", "input", known.main, 2 if isinstance(known.main, dict) else 1)
        if sample.get("steps"):
            ui.label("From other steps").classes("st-tree-head")
            for name, value in sample["steps"].items():
                _branch(join("steps", name), name, value, 1)
        if sample.get("vars"):
            ui.label("Variables").classes("st-tree-head")
            for name, value in sample["vars"].items():
                _branch(join("vars", name), name, value, 1)


def _branch(path: str, name: str, value: Any, depth: int) -> None:
    inside = _inside(path, value)
    with ui.element("div").classes("st-leaf").props("role=treeitem"):
        if inside:
            fold = (
                ui.element("button")
                .classes("af-json-fold st-fold")
                .props(f'type=button aria-expanded=false aria-label="Open {_safe(name)}"')
            )
            with fold:
                ui.icon("chevron_right").props("aria-hidden=true")
        else:
            ui.element("span").classes("st-fold")
        with ui.element("button").classes("st-pick").props("type=button draggable=true") as chip:
            chip.props["data-insert"] = path
            chip.mark(f"pick-{path}")
            ui.label(name).classes("st-pick-name")
            ui.label(_shown(value)).classes("st-pick-value")
    if not inside:
        return
    box = ui.element("div").classes("st-branch").props("role=group")
    box.set_visibility(False)
    drawn = False

    def turn() -> None:
        nonlocal drawn
        if not drawn:
            with box:
                for inner_path, inner_name, inner in inside:
                    _branch(inner_path, inner_name, inner, depth + 1)
            drawn = True
        box.set_visibility(not box.visible)
        fold.props(f"aria-expanded={'true' if box.visible else 'false'}")

    fold.on("click", on(turn))
    if depth <= 1 and len(inside) <= 12:
        turn()


def _inside(path: str, value: Any) -> list[tuple[str, str, Any]]:
    if isinstance(value, dict):
        return [(join(path, str(key)), str(key), inner) for key, inner in itertools.islice(value.items(), _MOST)]
    if isinstance(value, list) and value:
        return [(join(path, 0), "the first item", value[0])]
    return []


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{len(value)} field{'' if len(value) == 1 else 's'}"
    if isinstance(value, list):
        return f"list of {len(value)}"
    return one_line(value, 40)


def _safe(text: str) -> str:
    return "".join(char for char in text[:40] if char.isalnum() or char in " _-")


def draw_functions() -> None:
    """All functions, searchable, with an example each."""
    search = ui.input(placeholder="Search functions: round, join, days…").props(
        'dense clearable debounce=150 aria-label="Search functions"'
    )
    search.classes("w-full").mark("functions-search")
    listing = ui.element("div").classes("st-functions")

    def fill() -> None:
        words = str(search.value or "").lower().split()
        found = [one for one in HELP if all(word in _searched(one) for word in words)]
        listing.clear()
        with listing:
            if not found:
                ui.label("No function is called that.").classes("st-help")
            for group, members in itertools.groupby(found, key=lambda one: one.group):
                ui.label(group.capitalize()).classes("st-tree-head")
                for one in members:
                    _function(one)

    search.on_value_change(on(fill))
    fill()


def _function(one: FunctionHelp) -> None:
    with ui.element("button").classes("st-function").props("type=button draggable=true") as chip:
        chip.props["data-insert"] = one.example
        ui.label(one.signature).classes("st-function-name")
        ui.label(one.sentence).classes("st-function-words")
        ui.label(f"{one.example} = {_written(one.result)}").classes("st-function-example")


def _written(value: Any) -> str:
    """The result of an example: lists and records as formulas write them."""
    return as_json(value) if isinstance(value, (dict, list)) else one_line(value, 60)


def _searched(one: FunctionHelp) -> str:
    return " ".join((one.name, *one.aliases, one.group, one.sentence)).lower()
