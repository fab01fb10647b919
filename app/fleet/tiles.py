"""Workers as tiles: what each is doing, for whom, and how it feels. A tile stays while its worker does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from app.fleet.charts import MIB, short
from app.permissions import on
from app.pieces import relative_time, status_chip
from app.sentences import count
from runtime.fleet import WorkerView


class Tiles:
    """The grid of one open page. `opened` is told which worker was chosen."""

    def __init__(self, opened: Callable[[str], Any]) -> None:
        self._opened = opened
        self._tiles: dict[str, tuple[ui.element, object]] = {}
        self.grid = ui.element("div").classes("af-workers").mark("workers").props('aria-label="Workers"')

    def show(self, workers: Sequence[WorkerView]) -> None:
        """Draw what is new or other than before, and nothing else."""
        now = {one.id: one for one in workers}
        for id_ in [known for known in self._tiles if known not in now]:
            self._tiles.pop(id_)[0].delete()
        for id_, one in now.items():
            known = self._tiles.get(id_)
            looks = _looks(one)
            if known is not None and known[1] == looks:
                continue
            if known is None:
                with self.grid:
                    tile = ui.element("button").classes("af-worker").props("type=button").mark(f"worker-{id_}")
                tile.on("click", on(lambda id_=id_: self._opened(id_)))
            else:
                tile = known[0]
            self._tiles[id_] = (tile, looks)
            self._fill(tile, one)

    def _fill(self, tile: ui.element, one: WorkerView) -> None:
        tile.clear()
        tile.classes(replace=f"af-worker is-{one.state.value}")
        tile.props(f'aria-label="Worker {short(one.id)}, {one.state.value}"')
        with tile:
            with ui.element("div").classes("af-worker-head"):
                status_chip(one.state.value)
                relative_time(one.since)
            ui.label(f"{one.profile} · {short(one.id)}").classes("af-strong af-one-line")
            ui.label(_for_whom(one)).classes("af-muted af-small af-one-line")
            if one.vital is not None:
                figures = f"{one.vital.memory / MIB:.0f} MiB · {one.vital.cpu * 100:.0f} % of a processor"
                ui.label(figures).classes("af-small af-number")


def _looks(one: WorkerView) -> object:
    vital = one.vital and (round(one.vital.cpu, 2), one.vital.memory // MIB)
    return one.state, one.since, one.crew, one.member, one.tenant is None, one.jobs, one.host, one.restarts, vital


def _for_whom(one: WorkerView) -> str:
    done = f"{count(one.jobs, 'job')} so far"
    if one.crew:
        return f"{one.member or 'A member'} of a crew · {one.host}"
    return f"{'Free for anybody' if one.tenant is None else 'Your team’s'} · {done} · {one.host}"
