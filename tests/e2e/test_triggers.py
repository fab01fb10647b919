"""Triggers and limits in a real browser: when a schedule starts, stopping one, an agent's turn, and lowering a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_studio import Studio
from tests.server import Server

pytestmark = pytest.mark.browser

DAILY: dict[str, Any] = {
    "name": "Morning report",
    "nodes": [
        {
            "id": "at",
            "type": "trigger.schedule",
            "settings": {"mode": "weekdays", "at": "09:00", "time_zone": "Europe/Berlin", "catch_up": "all"},
            "x": 0,
            "y": 0,
        },
        {"id": "new", "type": "trigger.row_added", "settings": {"table": "orders"}, "x": 0, "y": 200},
    ],
    "edges": [],
}


def test_a_schedule_says_when_it_starts_and_is_stopped_alone(
    page: Page, server: Server, shot: Callable[[str], None]
) -> None:
    studio = Studio(page, server).sign_in().new(DAILY)
    studio.select("trigger.schedule")
    expect(page.get_by_text("The next 10 times")).to_be_visible()
    expect(page.get_by_text(", 09:00").first).to_be_visible()
    assert page.get_by_text(", 09:00").count() >= 10
    page.get_by_text("The next 10 times").scroll_into_view_if_needed()

    page.get_by_label("Agent settings").click()
    page.get_by_label("Runs at once").fill("3")
    page.get_by_label("Priority").click()
    page.get_by_role("option", name="High").click()
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_label("Runs at once")).to_have_count(0)

    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_role("button", name="Deploy now").click()
    expect(page.get_by_text("Version 1 is live")).to_be_visible()
    expect(page.get_by_text("A row was added: to “orders”")).to_be_visible()
    expect(page.get_by_text("The next ten times")).to_be_visible()
    shot("schedule-deployed")
    page.get_by_role("button", name="Stop this one").click()
    expect(page.get_by_text("Somebody stopped this schedule.")).to_be_visible()
    page.get_by_role("button", name="Let it go on").click()
    expect(page.get_by_role("button", name="Stop this one")).to_be_visible()
    page.get_by_role("button", name="Done").click()


def test_a_limit_is_lowered_in_words(page: Page, server: Server, shot: Callable[[str], None]) -> None:
    Studio(page, server).sign_in()
    page.goto(f"{server.url}/settings/limits")
    expect(page.get_by_text("Everything an agent can use has a limit")).to_be_visible()
    page.get_by_label("Change: Runs at once").click()
    page.get_by_label("At most (runs)").fill("12")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("lowered from 200 runs")).to_be_visible()
    shot("limits")
    page.set_viewport_size({"width": 1024, "height": 768})
    page.get_by_label("Change: Runs at once").click()
    page.get_by_role("button", name="Use the product's own").click()
    expect(page.get_by_text("lowered from 200 runs")).to_have_count(0)
