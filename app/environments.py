"""How pages say where something is deployed or kept: live, test, or both."""

from __future__ import annotations

from nicegui import ui

from app.pieces import status_chip
from runtime.environments import LIVE, SHARED, TEST

WORDS = {LIVE: "Live", TEST: "Test", SHARED: "Live and test"}
PLACES = {SHARED: "Live and test", LIVE: "Live only", TEST: "Test only"}
"""Where a value may count, as choices."""
_LOOKS = {LIVE: ("bolt", ""), TEST: ("science", "is-info"), SHARED: ("join_full", "")}


def environment_chip(environment: str) -> ui.element:
    """Where, as icon and word."""
    icon, tone = _LOOKS.get(environment, ("circle", ""))
    with ui.element("span").classes(f"af-chip {tone}".strip()) as chip:
        ui.icon(icon).props("aria-hidden=true")
        ui.label(WORDS.get(environment, environment)).style("display: inline")
    return chip


def deployment_chip(state: str, environment: str) -> ui.element:
    """The state of a deployment: what is active is live, or in test."""
    return status_chip("in test" if environment == TEST and state == "active" else state)
