"""Below the form of a schedule: the next ten times at which it would start, in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from nicegui import ui

from app.studio.desk import Desk
from nodes.blueprint import Placed
from nodes.catalog import BadSettings, UnknownNode
from nodes.listen import Schedule
from nodes.moments import moment_in_words, upcoming, zone

COUNT = 10


def next_times(desk: Desk, node: Placed) -> Callable[[], None]:
    """Draw them where we are, if the node is a schedule; call the result after a change to draw them anew."""
    if not isinstance(_schedule(desk, node.id), Schedule) and node.type != "trigger.schedule":
        return lambda: None
    with ui.element("div").classes("st-next mt-6").props('aria-live="polite"'):
        ui.label(f"The next {COUNT} times").classes("st-title")
        box = ui.element("div").mark("next-times")

    def draw() -> None:
        found = _schedule(desk, node.id)
        box.clear()
        with box:
            if found is None:
                ui.label("They show here when the settings above are right.").classes("st-help")
                return
            here = zone(found.time_zone)
            for moment in upcoming(found, datetime.now(UTC), COUNT):
                ui.label(moment_in_words(moment.astimezone(here))).classes("af-small")

    draw()
    return draw


def _schedule(desk: Desk, id_: str) -> Schedule | None:
    placed = desk.placed(id_)
    if placed is None:
        return None
    try:
        listen = desk.types.build(placed).listens()
    except (BadSettings, UnknownNode, ValueError):
        return None
    return listen if isinstance(listen, Schedule) else None
