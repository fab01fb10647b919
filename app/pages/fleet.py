"""Fleet: the workers that run code and crews, what is wanted of them, and how they are."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from nicegui import ui

from app import theme
from app.fleet import charts
from app.fleet.crews import CrewPanels
from app.fleet.engines import Engines
from app.fleet.tiles import Tiles
from app.fleet.worker import Sheet
from app.live import follow
from app.permissions import current_actor, current_factory, on, page
from app.pieces import empty_state, heading, notice
from runtime.fleet import FleetView, WorkerView

ALL = "all"
_TONES = {"ready": "good", "busy": "busy", "unhealthy": "bad", "hibernating": "calm"}
_NOTHING = {
    "levels": "The first figures come in a moment.",
    "vital": "Workers tell how they feel every few seconds; the first word is on its way.",
    "starts": "Here stands how long workers take from nothing to ready, once one has started.",
    "restarts": "Here stands how often workers were started, and how often one stopped answering.",
    "timeline": "Each step of a worker’s life is a dot here: started, ready, working, asleep, gone.",
}
_FIGURES = {"ready": "ready", "busy": "working", "starting": "starting", "hibernating": "asleep", "unhealthy": "not answering"}  # fmt: skip


class Floor:
    """What one open page shows."""

    def __init__(self) -> None:
        self.chosen = {"profile": ALL, "state": ALL, "host": ALL, "crew": ALL}
        self.selects: dict[str, ui.select] = {}
        self.plots: dict[str, ui.plotly] = {}
        self.places: dict[str, ui.element] = {}

    def build(self) -> None:
        """The places for everything."""
        self.problem = ui.element("div")
        self.numbers = ui.element("div").classes("af-numbers").mark("fleet-numbers")
        self.sheet = Sheet()
        with ui.element("div").classes("af-toolbar mt-6"):
            heading("Workers", 2)
            ui.element("div").classes("af-space")
            for name, label in (("profile", "Size"), ("state", "State"), ("host", "Engine"), ("crew", "Crew")):
                select = ui.select({ALL: "All"}, value=ALL, label=label, on_change=on(self._choose(name)))
                self.selects[name] = select.classes("af-order").mark(f"filter-{name}")
        self.tiles = Tiles(self.sheet.open)
        self.none = ui.label("No worker fits that.").classes("af-muted")
        self.crews = CrewPanels()
        self.engines = Engines()
        with ui.element("div").classes("af-charts mt-6"):
            for name, title in (
                ("levels", "Workers against what was wanted"),
                ("vital", "Processor and memory"),
                ("starts", "How long starts take"),
                ("restarts", "Starts and losses"),
            ):
                self._chart(name, title)
        self._chart("timeline", "What workers went through", wide=True)

    def _chart(self, name: str, title: str, *, wide: bool = False) -> None:
        with ui.element("section").classes("af-panel mt-4" if wide else "af-panel").props(f'aria-label="{title}"'):
            heading(title, 3)
            with ui.element("div") as self.places[name]:
                ui.label(_NOTHING[name]).classes("af-muted af-small")

    def _choose(self, name: str) -> Any:
        async def choose(event: Any) -> None:
            self.chosen[name] = event.value or ALL
            await self.refresh()

        return choose

    async def refresh(self) -> None:
        """Show how it stands now."""
        desk, who = current_factory().fleet_desk, current_actor()
        seen = desk.view(who)
        moves = await desk.lately(who, limit=200)
        self._tell(seen)
        self._offer(seen)
        fitting = [one for one in seen.workers if self._fits(one)]
        self.tiles.show(fitting)
        self.none.set_visibility(not fitting)
        crew = self.chosen["crew"]
        self.crews.show([one for one in current_factory().crews.view(who) if crew in (ALL, one.id)])
        await self.engines.show(seen.hosts, [move for move in moves if not move.worker])
        profile = None if self.chosen["profile"] == ALL else self.chosen["profile"]
        known = {one.id for one in fitting}
        unfiltered = all(value == ALL for value in self.chosen.values())
        shown = [move for move in moves if move.worker and (unfiltered or move.worker in known)]
        for name, figure in (
            ("levels", charts.levels(desk.history(who), profile)),
            ("vital", charts.vital(FleetView(workers=tuple(fitting)))),
            ("starts", charts.starts(seen)),
            ("restarts", charts.restarts(seen, desk.moves)),
            ("timeline", charts.timeline(shown, time.time())),
        ):
            self._plot(name, figure)

    def _plot(self, name: str, figure: charts.Figure) -> None:
        plot = self.plots.get(name)
        if plot is not None and plot.figure != figure:
            plot.update_figure(figure)
        elif plot is None and any(trace["x"] for trace in figure["data"]):
            # Made only now: the library cannot measure a chart that is not shown.
            self.places[name].clear()
            with self.places[name]:
                self.plots[name] = ui.plotly(figure).classes("af-chart").mark(f"chart-{name}")

    def _fits(self, one: WorkerView) -> bool:
        found = {"profile": one.profile, "state": one.state.value, "host": one.host, "crew": one.crew}
        return all(value in (ALL, found[name]) for name, value in self.chosen.items())

    def _tell(self, seen: FleetView) -> None:
        problems = [text for text in (seen.problem, *(pool.problem for pool in seen.pools)) if text]
        self.problem.clear()
        with self.problem:
            if problems:
                notice(problems[0], tone="bad", icon="report")
            elif not seen.pools:
                empty_state(
                    "dns",
                    "No workers yet",
                    "Code steps and crews run in workers: small closed boxes that are kept warm, so that they begin at "
                    "once and can harm nobody. They are started the first time something needs one.",
                )
        counted = Counter(one.state.value for one in seen.workers)
        counted["starting"] = counted["provisioning"] + counted["warming"]
        self.numbers.clear()
        with self.numbers:
            for name, words in _FIGURES.items():
                with ui.element("div").classes(f"af-figure is-{_TONES.get(name, 'calm') if counted[name] else 'calm'}"):
                    ui.label(f"{counted[name]:,}").classes("af-number")
                    ui.label(words)
            waiting = sum(pool.waiting for pool in seen.pools)
            with ui.element("div").classes(f"af-figure is-{'warn' if waiting else 'calm'}"):
                ui.label(f"{waiting:,}").classes("af-number")
                ui.label("jobs that wait")
            rates = [pool.hit_rate for pool in seen.pools if pool.jobs]
            if rates:
                with ui.element("div").classes("af-figure is-calm"):
                    ui.label(f"{min(rates) * 100:.1f} %").classes("af-number")
                    ui.label("began at once")

    def _offer(self, seen: FleetView) -> None:
        offered: dict[str, dict[str, str]] = {
            "profile": {pool.profile: pool.profile for pool in seen.pools},
            "state": {state: words.capitalize() for state, words in charts.STATE_WORDS.items()},
            "host": {host.name: host.name for host in seen.hosts},
            "crew": {one.crew: one.crew for one in seen.workers if one.crew},
        }
        for name, select in self.selects.items():
            options = {ALL: "All", **offered[name]}
            if self.chosen[name] not in options:
                options[self.chosen[name]] = self.chosen[name]
            if select.options != options:
                select.set_options(options, value=self.chosen[name])
            select.set_visibility(len(options) > 2)


@page("/fleet", "Fleet")
async def fleet() -> None:
    """Workers, pools and engines, kept true while the page is open."""
    with theme.frame("Fleet", active="fleet", width="wide"):
        floor = Floor()
        floor.build()
        await floor.refresh()
        follow((("fleet",), ("crews",)), floor.refresh, pause=1.0)
