"""Settings → Variables: values that formulas read as `vars.name`, for live, for test, or for both."""

from __future__ import annotations

from typing import Any

import orjson
from nicegui import ui

from app.environments import PLACES, environment_chip
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import button, confirm, empty_state, entered, heading, relative_time
from runtime.environments import SHARED
from runtime.variables import VariableInfo


def read_value(text: str) -> Any:
    """What was typed: a number, yes or no, a list or record as JSON, or else a text."""
    stripped = text.strip()
    try:
        return orjson.loads(stripped)
    except orjson.JSONDecodeError:
        return text


def show_value(value: Any) -> str:
    """The same the other way round; a text that looks like something else keeps its quotes."""
    if isinstance(value, str) and read_value(value) == value:
        return value
    return orjson.dumps(value).decode()


class Shelf:
    """The list of one open page."""

    def __init__(self) -> None:
        self.box = ui.element("div")

    async def refresh(self) -> None:
        """Show which variables there are."""
        found = await current_factory().variables.list(current_actor())
        may = current_actor().may(Permission.DEPLOY)
        self.box.clear()
        with self.box:
            if not found:
                add = (("Add a variable", on(lambda: self.ask(), Permission.DEPLOY)),) if may else ()
                empty_state(
                    "data_object",
                    "No variables yet",
                    "A variable is a value that your agents read by name, such as the address that mails come from. It can "
                    "differ between test and live, so that a test never writes to your customers. Formulas say vars.name.",
                    add,
                )
                return
            with ui.element("div").classes("af-list"):
                for one in found:
                    self._row(one, may)

    def _row(self, one: VariableInfo, may: bool) -> None:
        with ui.element("div").classes("af-row").mark(f"variable-{one.name}-{one.environment or 'both'}"):
            ui.icon("data_object").classes("af-muted").props("aria-hidden=true")
            with ui.element("div").classes("grow min-w-0"):
                ui.label(one.name).classes("af-strong af-one-line af-mono")
                with ui.element("div").classes("af-muted af-small"):
                    if one.description:
                        ui.label(f"{one.description} · ").classes("af-inline")
                    ui.label(f"set by {one.updated_by} ").classes("af-inline")
                    relative_time(one.updated_at)
            ui.label(show_value(one.value)[:60]).classes("af-mono af-small af-one-line")
            environment_chip(one.environment)
            if may:
                ui.button("Change", on_click=on(lambda: self.ask(one), Permission.DEPLOY)).props("dense").classes(
                    "af-secondary"
                )
                gone = ui.button(icon="delete", on_click=on(lambda: self.delete(one), Permission.DEPLOY))
                gone.props("flat round dense").classes("af-quiet").mark(f"delete-{one.name}")
                gone.props["aria-label"] = f"Delete {one.name}"

    def ask(self, known: VariableInfo | None = None) -> None:
        """A dialog for a new variable, or another value of a known one."""
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading(f"Change “{known.name}”" if known else "Add a variable", 2)
            name = ui.input("Name", value=known.name if known else "", placeholder="sender").props(
                "stack-label maxlength=64 autocomplete=off"
            )
            name.classes("w-full").mark("variable-name").set_enabled(known is None)
            value = ui.textarea("Value", value=show_value(known.value) if known else "").props("autogrow stack-label")
            value.classes("w-full").mark("variable-value")
            ui.label("A text, a number, true or false, or a list or record as JSON.").classes("af-muted af-small")
            place = ui.select(PLACES, value=known.environment if known else SHARED, label="Counts in")
            place.classes("w-full").mark("variable-place").set_enabled(known is None)
            about = ui.input("What it is for", value=known.description if known else "").props(
                "stack-label maxlength=500"
            )
            about.classes("w-full")
            problem = ui.element("div")

            async def keep() -> None:
                await current_factory().variables.put(
                    current_actor(),
                    name.value or "",
                    read_value(value.value or ""),
                    environment=str(place.value),
                    description=about.value or "",
                )

            async def save() -> None:
                if not await entered(problem, keep):
                    return
                dialog.close()
                await self.refresh()

            with ui.element("div").classes("af-actions w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                ui.button("Save", on_click=on(save, Permission.DEPLOY)).mark("variable-save")
        dialog.on("hide", dialog.delete)
        dialog.open()

    async def delete(self, one: VariableInfo) -> None:
        """Ask, then forget it."""
        with ui.context.client.content:
            sure = await confirm(
                f"Delete “{one.name}”?",
                "Agents that read it then use their own value of that name; those that have none fail and say so.",
            )
        if sure:
            await current_factory().variables.delete(current_actor(), one.name, environment=one.environment)
            await self.refresh()


async def build() -> None:
    """The list with a way to add."""
    shelf: Shelf
    with ui.element("div").classes("af-toolbar"):
        heading("Variables", 2)
        ui.element("div").classes("af-space")
        if current_actor().may(Permission.DEPLOY):
            button("Add a variable", on(lambda: shelf.ask(), Permission.DEPLOY), icon="add").mark("add-variable")
    shelf = Shelf()
    await shelf.refresh()
