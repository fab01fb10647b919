"""One worker looked at closely: its vital signs, jobs, moves and log, and what may be done to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from app.fleet import charts
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import button, confirm, duration, heading, relative_time, status_chip
from nodes.errors import FactoryError, NotFound
from runtime.fleet import WorkerView
from runtime.policy import Actor

_SURE = {
    "Restart": "Its job ends with it and is begun anew elsewhere if its step allows that.",
    "Remove": "Its job ends with it. The pool starts another one when it needs one.",
}


class Sheet:
    """The dialog that shows a worker."""

    def __init__(self) -> None:
        self.worker = ""
        with ui.dialog() as self.dialog, ui.card().classes("af-sheet").mark("worker-sheet"):
            self.box = ui.element("div").classes("w-full")

    async def open(self, worker: str) -> None:
        """Show it."""
        self.worker = worker
        await self._draw()
        self.dialog.open()

    async def _draw(self) -> None:
        desk, who = current_factory().fleet_desk, current_actor()
        seen = next((one for one in desk.view(who).workers if one.id == self.worker), None)
        moves = await desk.lately(who, worker=self.worker, limit=30)
        try:
            logs, jobs = await desk.logs(who, self.worker), desk.jobs(who, self.worker)
        except NotFound:
            logs, jobs = [], ()
        except FactoryError as error:
            logs, jobs = [error.message], ()
        self.box.clear()
        with self.box:
            with ui.element("div").classes("af-toolbar"):
                heading(f"Worker {charts.short(self.worker)}", 2)
                status_chip(seen.state.value if seen else "gone")
                ui.element("div").classes("af-space")
                ui.button(icon="close", on_click=self.dialog.close).props('flat round dense aria-label="Close"')
            if seen is not None:
                self._about(seen)
                if current_actor().may(Permission.ADMIN):
                    self._actions(seen)
            figure = charts.one_vital(desk.history(who), self.worker)
            if figure["data"][0]["x"]:
                ui.plotly(figure).classes("af-chart")
            heading("Jobs", 3).classes("mt-4")
            if not jobs:
                ui.label("It has had no job yet.").classes("af-muted")
            for job in jobs[:10]:
                with _line(job.began):
                    how = "went well" if job.how == "ok" else job.how
                    ui.label(f"{how}, took {duration(job.ended - job.began)}" if job.ended else "is under way")
            heading("What it went through", 3).classes("mt-4")
            for move in moves:
                with _line(move.at):
                    state = charts.STATE_WORDS.get(move.after, move.after)
                    ui.label(f"{move.by} {move.why}" if move.by else f"{state}: {move.why}" if move.why else state)
            heading("Its own log", 3).classes("mt-4")
            if logs:
                ui.label("\n".join(logs[-100:])).classes("af-log")
            else:
                ui.label("It wrote nothing about itself, which is how it should be.").classes("af-muted")

    def _about(self, seen: WorkerView) -> None:
        with ui.element("div").classes("af-toolbar"):
            whose = "free for anybody" if seen.tenant is None else "your team’s"
            crew = f" · {seen.member} of a crew" if seen.crew else ""
            ui.label(f"{seen.profile} on {seen.host} · {whose}{crew} · since").classes("af-muted")
            relative_time(seen.since)

    def _actions(self, seen: WorkerView) -> None:
        desk = current_factory().fleet_desk
        with ui.element("div").classes("af-actions"):
            self._action("Drain", desk.drain, "It ends its job, then it is removed.")
            if seen.state.value == "ready":
                self._action("Put to sleep", desk.hibernate, "It rests until it is wanted.")
            self._action("Restart", desk.restart, "It ends at once, and another one takes its place.")
            self._action("Remove", desk.remove, "It ends at once.")

    def _action(self, label: str, does: Callable[[Actor, str], Awaitable[None]], told: str) -> None:
        async def act() -> None:
            if label in _SURE and not await confirm(f"{label} this worker?", _SURE[label], yes=label, no="Leave it"):
                return
            await does(current_actor(), self.worker)
            ui.notify(told, type="positive")
            self.dialog.close()

        button(label, on(act, Permission.ADMIN), quiet=True).mark(f"do-{label.lower().replace(' ', '-')}")


def _line(at: float) -> ui.element:
    """A line of a list that begins with how long ago it was."""
    with ui.element("div").classes("af-small flex gap-3 break-words") as line:
        relative_time(at)
    return line
