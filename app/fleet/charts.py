"""The charts of the Fleet page as plain Plotly figures: no library is loaded on the server to make them.

Colours of axes and texts come from the style sheet, so that they fit light and dark; those of lines are readable on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.fleet import FleetView
from runtime.fleet_desk import Move, Sample

Figure = dict[str, Any]

READY: Final = "#2f9e6b"
BUSY: Final = "#6478e0"
WAITING: Final = "#d0574d"
TARGET: Final = "#8a8d98"
ASLEEP: Final = "#b08a2e"
STATE_COLOURS: Final = {
    "provisioning": "#4a9cc7", "warming": "#4a9cc7", "ready": READY, "busy": BUSY, "hibernating": ASLEEP,
    "unhealthy": WAITING, "draining": TARGET, "gone": "#a9abb3",
}  # fmt: skip
STATE_WORDS: Final = {
    "provisioning": "starting", "warming": "warming up", "ready": "ready", "busy": "working", "hibernating": "asleep",
    "unhealthy": "not answering", "draining": "ending", "gone": "gone",
}  # fmt: skip
_CONFIG: Final = {"displayModeBar": False, "responsive": True}
MIB: Final = 1024 * 1024
POINTS: Final = 180
"""Samples that one line shows."""
SHOWN: Final = 40
"""Workers, or moves' rows, that one chart shows: more cannot be told apart."""


def _figure(data: list[dict[str, Any]], *, y: str, **layout: Any) -> Figure:
    base: dict[str, Any] = {
        "height": 280,
        "margin": {"l": 52, "r": 12, "t": 44, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hovermode": "x unified",
        "uirevision": "kept",
        "xaxis": {"gridcolor": "rgba(128,128,128,0.18)", "zeroline": False},
        "yaxis": {
            "title": {"text": y},
            "rangemode": "tozero",
            "gridcolor": "rgba(128,128,128,0.18)",
            "zeroline": False,
        },
    }
    for name, value in layout.items():
        base[name] = {**base[name], **value} if isinstance(base.get(name), dict) else value
    return {"data": data, "layout": base, "config": _CONFIG}


def _whole(peak: float) -> dict[str, Any]:
    """Ticks for what is counted: few of them would else be cut into fractions."""
    return {"dtick": 1} if peak <= 6 else {}


def _thinned(history: Sequence[Sample]) -> Sequence[Sample]:
    """No more samples than a chart has room for, the newest among them."""
    step = max(1, len(history) // POINTS)
    return history[(len(history) - 1) % step :: step] if history else history


def _ago(at: float, now: float) -> float:
    """Where a moment stands on an axis that needs no time zone."""
    return round((now - at) / 60, 3)


_AGO: Final = {"title": {"text": "minutes ago"}, "autorange": "reversed"}


def levels(history: Sequence[Sample], profile: str | None) -> Figure:
    """Workers of the pools against what was wanted of them, over the last half hour; `profile` None adds all pools up."""
    history, now = _thinned(history), history[-1].at if history else 0.0
    at = [_ago(sample.at, now) for sample in history]

    def line(name: str, colour: str, *fields: str, dash: str = "solid", **more: str) -> dict[str, Any]:
        values = [
            sum(
                getattr(pool, field)
                for which, pool in sample.pools.items()
                if profile in (None, which)
                for field in fields
            )
            for sample in history
        ]
        look = {"color": colour, "dash": dash}
        return {"type": "scatter", "mode": "lines", "name": name, "x": at, "y": values, "line": look, **more}

    lines = [
        line("Ready", READY, "ready", stackgroup="workers"),
        line("Working", BUSY, "busy", "held", stackgroup="workers"),
        line("Asleep", ASLEEP, "hibernating", stackgroup="workers"),
        line("Wanted", TARGET, "target", dash="dot"),
        line("Jobs that wait", WAITING, "waiting"),
    ]
    peak = max((sum(stack) for stack in zip(*(one["y"] for one in lines), strict=True)), default=0)
    return _figure(lines, y="workers", xaxis=_AGO, yaxis=_whole(peak))


def starts(seen: FleetView) -> Figure:
    """How long workers took from nothing to ready: half of them, and all but the slowest twentieth."""
    pools = [pool for pool in seen.pools if pool.starts_p50 is not None]
    names = [pool.profile for pool in pools]
    bars = [
        {"type": "bar", "name": "Half within", "x": names, "y": [pool.starts_p50 for pool in pools],
         "marker": {"color": BUSY}},
        {"type": "bar", "name": "95 % within", "x": names, "y": [pool.starts_p95 for pool in pools],
         "marker": {"color": ASLEEP}},
    ]  # fmt: skip
    return _figure(bars, y="milliseconds", barmode="group", bargap=0.4)


def vital(seen: FleetView) -> Figure:
    """Processor and memory of each worker, as its last heartbeat told."""
    told = [one for one in seen.workers if one.vital is not None][:SHOWN]
    names = [short(one.id) for one in told]
    bars = [
        {"type": "bar", "name": "Memory, MiB", "x": names, "marker": {"color": BUSY}, "offsetgroup": "memory",
         "y": [round(one.vital.memory / MIB, 1) for one in told if one.vital]},
        {"type": "bar", "name": "Processor, %", "x": names, "yaxis": "y2", "marker": {"color": READY}, "offsetgroup": "cpu",
         "y": [round(one.vital.cpu * 100, 1) for one in told if one.vital]},
    ]  # fmt: skip
    second = {"overlaying": "y", "side": "right", "rangemode": "tozero", "title": {"text": "%"}, "showgrid": False}
    return _figure(bars, y="MiB", yaxis2=second, barmode="group", margin={"r": 44}, xaxis={"tickangle": -30})


def one_vital(history: Sequence[Sample], worker: str) -> Figure:
    """Processor and memory of one worker over the last half hour."""
    now = history[-1].at if history else 0.0
    told = [(_ago(sample.at, now), *sample.workers[worker]) for sample in _thinned(history) if worker in sample.workers]
    at = [when for when, _, _ in told]
    lines = [
        {"type": "scatter", "mode": "lines", "name": "Memory, MiB", "x": at, "line": {"color": BUSY},
         "y": [round(memory / MIB, 1) for _, _, memory in told]},
        {"type": "scatter", "mode": "lines", "name": "Processor, %", "x": at, "yaxis": "y2", "line": {"color": READY},
         "y": [round(cpu * 100, 1) for _, cpu, _ in told]},
    ]  # fmt: skip
    second = {"overlaying": "y", "side": "right", "rangemode": "tozero", "title": {"text": "%"}, "showgrid": False}
    return _figure(lines, y="MiB", yaxis2=second, height=240, xaxis=_AGO, margin={"r": 44})


def restarts(seen: FleetView, moves: Mapping[tuple[str, str], int]) -> Figure:
    """How often workers of each size were found not answering, and how often one was started, since the server's start."""
    names = sorted({pool.profile for pool in seen.pools})
    bars = [
        {"type": "bar", "name": "Not answering", "x": names, "marker": {"color": WAITING},
         "y": [moves.get((name, "unhealthy"), 0) for name in names]},
        {"type": "bar", "name": "Started", "x": names, "marker": {"color": READY},
         "y": [moves.get((name, "warming"), 0) for name in names]},
    ]  # fmt: skip
    peak = max((moves.get((name, state), 0) for name in names for state in ("unhealthy", "warming")), default=0)
    return _figure(bars, y="times", yaxis=_whole(peak), barmode="group", bargap=0.4)


def timeline(moves: Sequence[Move], now: float) -> Figure:
    """The newest moves, a row for each worker, a dot for each state it came into."""
    workers = list(dict.fromkeys(move.worker for move in moves))[:SHOWN]
    rows = {worker: short(worker) for worker in workers}
    shown = [move for move in moves if move.worker in rows]
    dots = []
    for state, words in STATE_WORDS.items():
        some = [move for move in shown if move.after == state]
        if some:
            dots.append(
                {
                    "type": "scatter", "mode": "markers", "name": words.capitalize(),
                    "x": [_ago(move.at, now) for move in some], "y": [rows[move.worker] for move in some],
                    "text": [move.why or words for move in some], "hovertemplate": "%{y}: %{text}<extra></extra>",
                    "marker": {"color": STATE_COLOURS[state], "size": 9},
                }
            )  # fmt: skip
    height = max(220, 110 + 18 * len(rows))
    first = max((_ago(move.at, now) for move in shown), default=1.0)
    return _figure(
        dots, y="", height=height, hovermode="closest", xaxis={"title": _AGO["title"], "range": [max(first * 1.05, 1.0), -0.1]},
        yaxis={"type": "category", "autorange": "reversed"}, margin={"l": 90},
    )  # fmt: skip


def short(worker: str) -> str:
    """The end of an id, which is what tells workers apart."""
    return worker[-6:]
