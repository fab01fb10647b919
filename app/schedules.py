"""Schedules of a deployment as people see them: what comes next in words, what came and how late, and holding one."""

from __future__ import annotations

from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import duration, heading, relative_time, status_chip
from runtime.schedules import FiringInfo, ScheduleInfo


async def show_schedules(deployment_id: str, title: str) -> None:
    """A dialog with all schedules of a deployment."""
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog is-wide"):
        with ui.element("div").classes("af-toolbar w-full"):
            heading(title, 2)
            ui.element("div").classes("af-space")
            ui.button(icon="close", on_click=dialog.close).props('flat dense round aria-label="Close"')
        box = ScheduleList(deployment_id)
    await box.refresh()
    dialog.on("hide", dialog.delete)
    dialog.open()


class ScheduleList:
    """The schedules of one deployment, where it is built."""

    def __init__(self, deployment_id: str) -> None:
        self.deployment_id = deployment_id
        self._box = ui.element("div").classes("flex flex-col flex-nowrap gap-4 w-full").mark("schedules")

    async def refresh(self) -> None:
        """Read and draw."""
        found = await current_factory().schedules.list(current_actor(), deployment_id=self.deployment_id)
        self._box.clear()
        with self._box:
            if not found:
                ui.label("It has no schedule. Add the trigger “Schedule” to the drawing, and deploy.").classes(
                    "af-muted"
                )
            for info in found:
                self._draw(info)

    def _draw(self, info: ScheduleInfo) -> None:
        with ui.element("section").classes("w-full").props(f'aria-label="{info.words}"'):
            with ui.element("div").classes("af-toolbar"):
                ui.label(info.words).classes("af-strong")
                if info.held or info.paused:
                    status_chip("paused")
                ui.element("div").classes("af-space")
                if current_actor().may(Permission.DEPLOY):
                    self._button(info)
            if info.held:
                ui.label("Somebody stopped this schedule. The agent's other triggers go on.").classes("af-muted")
            elif info.paused:
                ui.label("It rests because its deployment does.").classes("af-muted")
            if info.jitter:
                ui.label(f"It starts up to {duration(info.jitter)} later, so that not all start at once.").classes(
                    "af-muted af-small"
                )
            with ui.expansion("The next ten times", value=not info.history).classes("w-full").mark("next-times"):
                if not info.upcoming:
                    ui.label("It never comes again.").classes("af-muted")
                for words in info.upcoming:
                    ui.label(words).classes("af-small")
            if info.history:
                with ui.expansion("The last times", value=True).classes("w-full").mark("last-times"):
                    for one in info.history:
                        _fired(one)

    def _button(self, info: ScheduleInfo) -> None:
        async def switch() -> None:
            schedules = current_factory().schedules
            await (schedules.go_on if info.held else schedules.hold)(current_actor(), info.id)
            await self.refresh()

        words, icon = ("Let it go on", "play_arrow") if info.held else ("Stop this one", "pause")
        made = ui.button(words, icon=icon, on_click=on(switch, Permission.DEPLOY)).props("dense no-caps")
        made.classes("af-secondary").mark(f"hold-{info.node}")


def _fired(one: FiringInfo) -> None:
    with ui.element("div").classes("af-small"):
        if one.run_id is None:
            ui.label("Let pass, it was due ").classes("af-inline")
            relative_time(one.due_at)
            return
        with ui.link(target=f"/runs/{one.run_id}").classes("af-inline"):
            ui.label("Started").classes("af-inline")
        ui.label(" ").classes("af-inline")
        relative_time(one.due_at)
        late = "on time" if one.late_by < 2 else f"{duration(one.late_by)} late"
        ui.label(f", {late}").classes("af-inline")
