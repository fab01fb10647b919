"""Crews on the Fleet page: who belongs to each, how they are, and who has said how much to whom."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from nicegui import ui

from app.fleet.charts import BUSY, READY, TARGET, WAITING, Figure
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import button, confirm, duration, heading, notice, relative_time, status_chip
from app.sentences import count
from runtime.crews.states import CrewView, MemberView

_COLOURS: Final = {"starting": BUSY, "running": READY, "done": TARGET, "failed": WAITING, "stopped": TARGET}
_GOING: Final = frozenset({"assembling", "running", "paused"})
_WIDEST: Final = 6.0  # the line of who talks most, in pixels


class CrewPanels:
    """One panel for each crew that lives; a panel stays while its crew does."""

    def __init__(self) -> None:
        self._panels: dict[str, _Panel] = {}
        with ui.element("section").classes("mt-6").props('aria-label="Crews"') as self.box:
            heading("Crews", 2).classes("mb-4")
            self.place = ui.element("div").classes("af-charts").mark("crews")
        self.box.set_visibility(False)

    def show(self, crews: Sequence[CrewView]) -> None:
        """Draw what is there now."""
        now = {crew.id: crew for crew in crews}
        for id_ in [known for known in self._panels if known not in now]:
            self._panels.pop(id_).box.delete()
        for id_, crew in now.items():
            if id_ not in self._panels:
                with self.place:
                    self._panels[id_] = _Panel(id_)
            self._panels[id_].show(crew)
        self.box.set_visibility(bool(now))


class _Panel:
    """One crew."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self._looks: object = None
        self._plot: ui.plotly | None = None
        with ui.element("div").classes("af-panel").mark(f"crew-{id_}") as self.box:
            self.head = ui.element("div")
            self.graph = ui.element("div")

    def show(self, crew: CrewView) -> None:
        """Draw what is other than before."""
        figure = graph(crew)
        if self._plot is None:
            with self.graph:
                self._plot = ui.plotly(figure).classes("af-chart")
        elif self._plot.figure != figure:
            self._plot.update_figure(figure)
        looks = (crew.state, crew.health, crew.why, crew.members, crew.spent.messages, crew.spent.calls)
        if looks == self._looks:
            return
        self._looks = looks
        self.head.clear()
        with self.head:
            with ui.element("div").classes("af-toolbar"):
                heading(crew.name, 3)
                status_chip(crew.state)
                ui.element("div").classes("af-space")
                relative_time(crew.created_at)
            said = f"{count(len(crew.members), 'member')} · {count(crew.spent.messages, 'message')} · "
            called = f"{count(crew.spent.calls, 'call')} to the outside"
            ui.label(f"{said}{called} · at most {duration(float(crew.budgets.get('seconds', 0)))}").classes(
                "af-muted af-small"
            )
            if crew.health in ("degraded", "down"):
                missing = "Nobody is at work." if crew.health == "down" else "Somebody is missing."
                notice(f"{missing} {crew.why}".strip(), tone="bad" if crew.health == "down" else "warn", icon="report")
            self._actions(crew)

    def _actions(self, crew: CrewView) -> None:
        if not current_actor().may(Permission.RUN) or crew.state not in _GOING:
            return
        crews = current_factory().crews
        with ui.element("div").classes("af-actions"):
            if crew.state == "paused":
                self._action("Resume", crews.resume)
            elif crew.state == "running":
                self._action("Pause", crews.pause)
            self._action("Stop", crews.stop_crew)

    def _action(self, label: str, does: Callable[[Any, str], Awaitable[Any]]) -> None:
        async def act() -> None:
            sure = "Its members end at once. What they have written and said is kept."
            if label == "Stop" and not await confirm("Stop this crew?", sure, yes="Stop", no="Leave it"):
                return
            await does(current_actor(), self.id)

        button(label, on(act, Permission.RUN), quiet=True)


def graph(crew: CrewView) -> Figure:
    """The members on a circle, and lines between those who talked, the thicker the more they said."""
    places = _circle([member.id for member in crew.members])
    most = max((said.count for said in crew.said), default=1)
    lines: list[dict[str, Any]] = []
    for said in crew.said:
        if said.source not in places or said.target not in places:
            continue
        (x0, y0), (x1, y1) = places[said.source], places[said.target]
        lines.append(
            {
                "type": "scatter", "mode": "lines+text", "x": [x0, (x0 + x1) / 2, x1], "y": [y0, (y0 + y1) / 2, y1],
                "text": ["", f"{said.count:,}", ""], "hoverinfo": "skip", "showlegend": False,
                "line": {"color": TARGET, "width": max(1.0, _WIDEST * said.count / most)},
            }
        )  # fmt: skip
    dots = {
        "type": "scatter", "mode": "markers+text", "showlegend": False, "textposition": "bottom center",
        "x": [places[member.id][0] for member in crew.members], "y": [places[member.id][1] for member in crew.members],
        "text": [member.role for member in crew.members], "hovertext": [_about(member) for member in crew.members],
        "hoverinfo": "text", "marker": {"size": 22, "color": [_COLOURS.get(member.state, TARGET) for member in crew.members]},
    }  # fmt: skip
    axis = {"visible": False, "range": [-1.4, 1.4], "fixedrange": True}
    return {
        "data": [*lines, dots],
        "layout": {
            "height": 280, "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)", "font": {"family": "inherit", "size": 12}, "hovermode": "closest",
            "xaxis": axis, "yaxis": axis, "uirevision": "kept",
        },
        "config": {"displayModeBar": False, "responsive": True},
    }  # fmt: skip


def _circle(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each stands: on a circle, the first at the top."""
    step = 2 * math.pi / max(1, len(names))
    return {
        name: (round(math.sin(step * at), 4), round(math.cos(step * at), 4)) if len(names) > 1 else (0.0, 0.0)
        for at, name in enumerate(names)
    }


def _about(member: MemberView) -> str:
    worker = f", worker {member.worker[-6:]}" if member.worker else ""
    again = f", begun anew {count(member.restarts, 'time')}" if member.restarts else ""
    return f"{member.role}: {member.state}{worker}{again}{f' · {member.why}' if member.why else ''}"
