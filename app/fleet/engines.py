"""Engines on the Fleet page: how each is, how much of it is promised to workers, and what an admin may do to one."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from app.fleet.charts import MIB
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import button, confirm, heading, relative_time, status_chip
from app.sentences import count
from runtime.fleet import HostView
from runtime.fleet_desk import Move

MOST = 100
"""Engines that a plan can be asked for."""
LATELY = 3
"""Lines about what people did to engines."""


class Engines:
    """The section of one open page. It is drawn anew only when something has changed."""

    def __init__(self) -> None:
        self._looks: object = None
        with ui.element("section").classes("mt-6").props('aria-label="Engines"').mark("engines") as self.box:
            heading("Engines", 2).classes("mb-4")
            self.rows = ui.element("div").classes("af-list")
            self.lately = ui.element("div").classes("af-small mt-2")
            with ui.element("div").classes("af-panel mt-4") as self.plan:
                with ui.element("div").classes("af-toolbar"):
                    ui.label("What would change if this many engines served?")
                    asked = ui.number(
                        min=1, max=MOST, precision=0, label="Engines", on_change=on(self._ask, Permission.ADMIN)
                    )
                    self.wanted = asked.classes("af-order").mark("engines-wanted")
                self.words = ui.element("div").classes("af-small").mark("engines-plan")
        self.box.set_visibility(False)

    async def show(self, hosts: Sequence[HostView], moves: Sequence[Move]) -> None:
        """Draw what is other than before; `moves` are what people did to engines, newest first."""
        may = await current_factory().fleet_desk.keeps_engines(current_actor())
        looks = (tuple(hosts), tuple(moves[:LATELY]), may)
        if looks == self._looks:
            return
        self._looks = looks
        self.box.set_visibility(bool(hosts))
        self.plan.set_visibility(may)
        self.lately.clear()
        with self.lately:
            for move in moves[:LATELY]:
                with ui.element("div").classes("flex gap-3"):
                    relative_time(move.at)
                    ui.label(f"{move.by} {move.why} {move.host}")
        self.rows.clear()
        with self.rows:
            for host in hosts:
                with ui.element("div").classes("af-engine").mark(f"engine-{host.name}"):
                    self._row(host, may)
        if may:
            await self._ask()  # a plan is about what there is now

    def _row(self, host: HostView, may: bool) -> None:
        with ui.element("div").classes("af-engine-name"):
            ui.label(host.name).classes("af-strong af-one-line")
            if may and host.url:
                ui.label(host.url).classes("af-muted af-small af-one-line").props(f'title="{_quoted(host.url)}"')
        status_chip(host.state if host.state != "draining" else "emptying")
        ui.label(count(host.workers, "worker")).classes("af-number")
        with ui.element("div").classes("af-engine-used"):
            ui.label("Workers may use at most").classes("af-muted af-small")
            noun = "processor" if host.reserved_cpus == 1 else "processors"
            ui.label(f"{host.reserved_cpus:g} {noun}; it has {host.cpus:g}").classes("af-small af-number")
            ui.label(f"{_memory(host.reserved_memory)}; it has {_memory(host.memory)}").classes("af-small af-number")
        with ui.element("div").classes("af-engine-does"):
            if may and host.state == "draining":
                button("Take back into use", on(lambda: self._reopen(host.name), Permission.ADMIN), quiet=True).mark(
                    "reopen"
                )
            elif may and host.state == "up":
                button("Drain", on(lambda: self._drain(host.name), Permission.ADMIN), quiet=True).mark("drain-engine")

    async def _drain(self, name: str) -> None:
        desk = current_factory().fleet_desk
        words = " ".join(await desk.plan_drain_engine(current_actor(), name))
        if await confirm(f"Drain {name}?", words, yes="Drain", no="Leave it"):
            await desk.drain_engine(current_actor(), name)
            ui.notify("Nothing new is placed on it any more.", type="positive")

    async def _reopen(self, name: str) -> None:
        desk = current_factory().fleet_desk
        words = "New workers are placed on it again when they fit best there. Those elsewhere stay where they are."
        if await confirm(f"Take {name} back into use?", words, yes="Take it back", no="Leave it", danger=False):
            await desk.reopen_engine(current_actor(), name)
            ui.notify("Workers are placed on it again.", type="positive")

    async def _ask(self) -> None:
        self.words.clear()
        if self.wanted.value is None:
            return
        words = await current_factory().fleet_desk.plan_engines(current_actor(), int(self.wanted.value))
        with self.words:
            for sentence in words:
                ui.label(sentence)
            ui.label("This is only a plan: nothing is done.").classes("af-muted")


def _memory(size: int) -> str:
    return f"{size / MIB / 1024:,.1f} GiB" if size >= 1024 * MIB else f"{size / MIB:,.0f} MiB"


def _quoted(text: str) -> str:
    return text.replace('"', "'")
