"""Settings → Limits: what a team may use at most, how much of it is in use, and lowering it."""

from __future__ import annotations

from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import field_error, heading
from nodes.errors import FactoryError
from runtime.limits import KIB, Limit, LimitInfo, in_words


class Sheet:
    """The list of one open page."""

    def __init__(self) -> None:
        self.box = ui.element("div").mark("limits")
        self.may = current_actor().may(Permission.ADMIN)

    async def refresh(self) -> None:
        """Show what holds, those that a team can change first."""
        found = await current_factory().limits.list(current_actor())
        self.box.clear()
        with self.box:
            with ui.element("div").classes("af-list"):
                for info in found:
                    if info.limit.lowerable:
                        self._row(info)
            heading("The same for everybody", 3).classes("mt-6 mb-2")
            with ui.element("div").classes("af-list"):
                for info in found:
                    if not info.limit.lowerable:
                        self._row(info)

    def _row(self, info: LimitInfo) -> None:
        limit = info.limit
        with ui.element("div").classes("af-row items-start"):
            with ui.element("div").classes("grow"):
                ui.label(limit.title).classes("af-strong")
                ui.label(limit.sentence).classes("af-muted af-small break-words")
                if info.used is not None:
                    ui.label(f"Now: {in_words(info.used, limit.unit)}.").classes("af-small").mark(f"used-{limit.name}")
            with ui.element("div").classes("text-right"):
                ui.label(in_words(info.value, limit.unit)).classes("af-strong").mark(f"limit-{limit.name}")
                if info.lowered:
                    ui.label(f"lowered from {in_words(limit.default, limit.unit)}").classes("af-muted af-small")
            if self.may and limit.lowerable:
                change = ui.button(icon="edit", on_click=on(lambda: self.change(info), Permission.ADMIN))
                change.props(f'flat round dense aria-label="Change: {limit.title}"').mark(f"change-{limit.name}")

    def change(self, info: LimitInfo) -> None:
        """Ask for a lower value."""
        limit, scale = info.limit, _scale(info.limit)
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading(limit.title, 2)
            ui.label(limit.sentence).classes("af-muted")
            unit = "KiB" if limit.unit == "bytes" else limit.unit
            value = ui.number(f"At most ({unit})", value=info.value // scale, precision=0).classes("w-full")
            value.props("stack-label autofocus").mark("limit-value")
            ui.label(f"The product's own is {in_words(limit.default, limit.unit)}; a team's can be lower.").classes(
                "af-muted af-small"
            )
            problem = ui.element("div")

            async def keep(to: int | None) -> None:
                problem.clear()
                try:
                    await current_factory().limits.set(current_actor(), limit.name, to)
                except FactoryError as wrong:
                    with problem:
                        field_error(wrong.message)
                    return
                dialog.close()
                await self.refresh()

            async def save() -> None:
                await keep(int(value.value if value.value is not None else -1) * scale)

            async def reset() -> None:
                await keep(None)

            with ui.element("div").classes("af-actions w-full"):
                if info.lowered:
                    ui.button("Use the product's own", on_click=on(reset, Permission.ADMIN)).props("flat").mark(
                        "limit-reset"
                    )
                ui.element("div").classes("af-space")
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                ui.button("Keep", on_click=on(save, Permission.ADMIN)).mark("limit-save")
        dialog.on("hide", dialog.delete)
        dialog.open()


def _scale(limit: Limit) -> int:
    return KIB if limit.unit == "bytes" else 1


async def build() -> None:
    """Every limit in plain words."""
    heading("Limits", 2)
    ui.label(
        "Everything an agent can use has a limit, so that one that goes wrong cannot take the rest down with it. "
        "When one is reached, whoever asked is told which, and what to do."
    ).classes("af-muted mb-4")
    sheet = Sheet()
    if not sheet.may:
        ui.label("An admin of your team can lower these.").classes("af-muted af-small mb-4")
    await sheet.refresh()
