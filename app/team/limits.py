"""Settings → Limits: what a team may use at most, how much of it is in use, and lowering it. Money comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from app.live import follow
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import field_error, heading
from app.team.budgets import Prices, show_standing
from nodes.errors import FactoryError
from runtime.ledger import MONEY
from runtime.limits import KIB, Limit, LimitInfo, in_words
from runtime.prices import MICRO


class Sheet:
    """The list of one open page."""

    def __init__(self) -> None:
        self.money = ui.element("div").mark("budgets")
        self.prices = Prices()
        self.box = ui.element("div").mark("limits")
        self.may = current_actor().may(Permission.ADMIN)
        self.changed: Callable[[], Awaitable[None]] = self.refresh
        """Called after a limit was changed."""

    async def refresh(self) -> None:
        """Show what holds, those that a team can change first."""
        found = await current_factory().limits.list(current_actor())
        self.money.clear()
        with self.money, ui.element("div").classes("af-list"):
            for info in found:
                if _is_money(info):
                    self._row(info)
        self.box.clear()
        with self.box:
            heading("Everything else", 3).classes("mt-6 mb-2")
            with ui.element("div").classes("af-list"):
                for info in found:
                    if info.limit.lowerable and not _is_money(info):
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
                if info.used is not None and not _is_money(info):
                    ui.label(f"Now: {in_words(info.used, limit.unit)}.").classes("af-small").mark(f"used-{limit.name}")
            with ui.element("div").classes("text-right"):
                ui.label(in_words(info.value, limit.unit)).classes("af-strong").mark(f"limit-{limit.name}")
                if info.lowered:
                    how = "lowered" if info.value < limit.default else "raised"
                    ui.label(f"{how} from {in_words(limit.default, limit.unit)}").classes("af-muted af-small")
            if self.may and limit.lowerable:
                change = ui.button(icon="edit", on_click=on(lambda: self.change(info), Permission.ADMIN))
                change.props(f'flat round dense aria-label="Change: {limit.title}"').mark(f"change-{limit.name}")

    def change(self, info: LimitInfo) -> None:
        """Ask for another value."""
        limit, scale = info.limit, _scale(info.limit)
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading(limit.title, 2)
            ui.label(limit.sentence).classes("af-muted")
            unit = {"bytes": "KiB", "micro-dollars": "dollars"}.get(limit.unit, limit.unit)
            money = _is_money(info)
            shown = info.value / scale if money else info.value // scale
            value = ui.number(f"At most ({unit})", value=shown, precision=4 if money else 0).classes("w-full")
            value.props("stack-label autofocus").mark("limit-value")
            own, most = in_words(limit.default, limit.unit), in_words(limit.most, limit.unit)
            choice = f"can be up to {most}" if limit.more else "can be lower"
            ui.label(f"The product's own is {own}; a team's {choice}.").classes("af-muted af-small")
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
                await self.changed()

            async def save() -> None:
                await keep(round((value.value if value.value is not None else -1) * scale))

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
    return {"bytes": KIB, "micro-dollars": MICRO}.get(limit.unit, 1)


def _is_money(info: LimitInfo) -> bool:
    return info.limit.unit == "micro-dollars"


async def build() -> None:
    """Every limit in plain words."""
    heading("Limits", 2)
    ui.label(
        "Everything an agent can use has a limit, so that one that goes wrong cannot take the rest down with it. "
        "When one is reached, whoever asked is told which, and what to do."
    ).classes("af-muted mb-4")
    if not current_actor().may(Permission.ADMIN):
        ui.label("An admin of your team can lower these.").classes("af-muted af-small mb-4")
    heading("Money", 3).classes("mb-2")
    standing = ui.element("div").classes("w-full").mark("standing")
    sheet = Sheet()

    async def refresh() -> None:
        standing.clear()
        with standing:
            await show_standing()

    sheet.changed = refresh
    await refresh()
    await sheet.refresh()
    await sheet.prices.refresh()
    with standing:
        follow((MONEY,), refresh, pause=2.0)
