"""Settings → Files & tables: what the team's agents read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import confirm, empty_state, heading, relative_time
from app.sentences import count, size_words
from runtime.shelves import MAX_FILE, FileInfo, TableInfo

ROWS = 200
COLUMNS = 30
_CELL = 200


class Shelf:
    """Both lists of one open page."""

    files: ui.element
    tables: ui.element

    async def refresh(self) -> None:
        """Show what there is."""
        shelves, who = current_factory().shelves, current_actor()
        files, tables = await shelves.files(who), await shelves.tables(who)
        may = who.may(Permission.EDIT)
        self.files.clear()
        with self.files:
            if not files:
                empty_state(
                    "folder_open",
                    "No files yet",
                    "Put files here that agents read, such as a price list as CSV. What agents write with “Write a file” "
                    "appears here too.",
                )
            else:
                with ui.element("div").classes("af-list"):
                    for one in files:
                        self._file(one, may)
        self.tables.clear()
        with self.tables:
            if not tables:
                ui.label("No tables yet. “Write a table row” makes one with its first row.").classes("af-muted")
            else:
                with ui.element("div").classes("af-list"):
                    for table in tables:
                        self._table(table, may)

    def _file(self, one: FileInfo, may: bool) -> None:
        with ui.element("div").classes("af-row"):
            ui.icon("description").classes("af-muted").props("aria-hidden=true")
            with ui.element("div").classes("grow"):
                ui.label(one.name).classes("af-strong af-one-line")
                with ui.element("div").classes("af-muted af-small af-one-line"):
                    ui.label(f"{size_words(one.size)}, from {one.updated_by} ").classes("af-inline")
                    relative_time(one.updated_at)
            _small("download", f"Download {one.name}", lambda: self.download(one), Permission.VIEW)
            if may:
                _small("delete", f"Delete {one.name}", lambda: self.delete(one), Permission.EDIT)

    def _table(self, one: TableInfo, may: bool) -> None:
        with ui.element("div").classes("af-row"):
            ui.icon("table_rows").classes("af-muted").props("aria-hidden=true")
            with ui.element("div").classes("grow"):
                ui.label(one.name).classes("af-strong af-one-line")
                ui.label(count(one.rows, "row")).classes("af-muted af-small")
            ui.button("View", on_click=on(lambda: self.view(one))).props("dense").classes("af-secondary")
            if may:
                _small("delete", f"Delete {one.name}", lambda: self.clear(one), Permission.EDIT)

    async def take(self, event: Any) -> None:
        """Keep an uploaded file under its own name."""
        content = await event.file.read()
        name = event.file.name.replace("\\", "/").rpartition("/")[2]
        kept = await current_factory().shelves.put_file(
            current_actor(), name, content, event.file.content_type or "application/octet-stream"
        )
        ui.notify(f"“{kept.name}” is here.", type="positive")
        await self.refresh()

    async def download(self, one: FileInfo) -> None:
        """Hand the file to the browser."""
        ui.download.content(await current_factory().shelves.file(current_actor(), one.name), one.name)

    async def delete(self, one: FileInfo) -> None:
        """Ask, then remove it."""
        with ui.context.client.content:
            sure = await confirm(f"Delete “{one.name}”?", "Agents that read it fail from now on.")
        if sure:
            await current_factory().shelves.delete_file(current_actor(), one.name)
            await self.refresh()

    async def clear(self, one: TableInfo) -> None:
        """Ask, then remove the table."""
        with ui.context.client.content:
            sure = await confirm(f"Delete “{one.name}”?", f"All its {count(one.rows, 'row')} are gone then.")
        if sure:
            await current_factory().shelves.clear(current_actor(), one.name)
            await self.refresh()

    async def view(self, one: TableInfo) -> None:
        """The first rows in a dialog."""
        rows = await current_factory().shelves.rows(current_actor(), one.name, limit=ROWS)
        names = list(dict.fromkeys(key for row in rows for key in row))[:COLUMNS]
        columns = [{"name": f"c{i}", "label": name, "field": f"c{i}", "align": "left"} for i, name in enumerate(names)]
        cells = [
            {"id": n} | {f"c{i}": _cell(row.get(name)) for i, name in enumerate(names)} for n, row in enumerate(rows)
        ]
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog is-wide"):
            heading(one.name, 2)
            shown = f"The first {len(rows):,} of {one.rows:,} rows." if one.rows > len(rows) else count(one.rows, "row")
            ui.label(shown).classes("af-muted")
            ui.table(columns=columns, rows=cells, row_key="id", pagination=20).classes("w-full af-scroll")
            with ui.element("div").classes("af-actions w-full justify-end"):
                ui.button("Close", on_click=dialog.close).classes("af-secondary")
        dialog.on("hide", dialog.delete)
        dialog.open()


def _small(icon: str, label: str, does: Callable[[], Any], needs: Permission) -> None:
    made = ui.button(icon=icon, on_click=on(does, needs)).props("flat round dense").classes("af-quiet")
    made.props["aria-label"] = label


def _cell(value: Any) -> str:
    """A value as one short text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= _CELL else text[:_CELL] + "…"


async def build() -> None:
    """Upload, then both lists."""
    shelf = Shelf()
    heading("Files", 2)
    ui.label("Agents read these by name.").classes("af-muted mb-4")
    if current_actor().may(Permission.EDIT):
        ui.upload(
            label="Add files: choose, or drop them here",
            multiple=True,
            auto_upload=True,
            max_file_size=MAX_FILE - 64 * 1024,
            on_upload=on(shelf.take, Permission.EDIT),
            on_rejected=on(lambda: ui.notify("Files up to 25 MB can be kept.", type="warning")),
        ).props("flat bordered").classes("w-full af-upload mb-4").mark("upload")
    shelf.files = ui.element("div")
    heading("Tables", 2).classes("mt-8 mb-4")
    shelf.tables = ui.element("div")
    await shelf.refresh()
