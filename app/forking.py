"""Asks before a run goes on from a former one: what will run, what is used again, and what would happen a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nicegui import ui

from app.pieces import heading
from runtime.forks import Reuse

_NAMES = 8


async def agree(
    title: str, plan: Reuse, name_of: Callable[[str], str], *, source: str, live: bool, about: str = ""
) -> bool:
    """Show what is known of it beforehand; whether it is to be done. `name_of` gives a step's name, `source` the former run's."""

    def listed(icon: str, words: str, ids: Iterable[str], nothing: str = "") -> None:
        names = [f"“{name_of(id_)}”" for id_ in ids]
        if not names and not nothing:
            return
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        with ui.element("div").classes("af-plan"):
            ui.icon(icon).props("aria-hidden=true")
            with ui.element("div").classes("min-w-0"):
                ui.label(words).classes("af-strong")
                ui.label((", ".join(names[:_NAMES]) + more) or nothing).classes("break-words")

    with (
        ui.context.client.content,
        ui.dialog() as dialog,
        ui.card().classes("p-6 gap-3 st-dialog").mark("fork-preview"),
    ):
        heading(title, 2)
        if about:
            ui.label(about).classes("af-muted")
        listed("play_arrow", "Runs", [id_ for id_ in plan.runs if id_ not in plan.partly], "Nothing.")
        listed("repeat", "Goes on at the items that are not done", plan.partly)
        listed("inventory_2", f"Uses its result of {source}", plan.kept, "Nothing: everything runs.")
        listed("edit", "Runs because it was changed", [id_ for id_ in plan.changed if id_ != plan.start])
        if live:
            listed("warning", "Acts outside a second time", plan.again)
        with ui.element("div").classes("af-actions w-full justify-end mt-2"):
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).classes("af-secondary")
            yes = ui.button("Run", icon="play_arrow", on_click=lambda: dialog.submit(True))
            yes.props("autofocus").mark("fork-yes")
    agreed = bool(await dialog)
    if not dialog.is_deleted:
        dialog.delete()
    return agreed
