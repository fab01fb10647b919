"""Rounds and reply addresses as people see them: on the canvas, on the timeline, and by a link in a mail."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from nodes.blueprint import Blueprint
from tests.e2e.test_pages import Shot, ada, call, made, started, state  # noqa: F401 - fixtures
from tests.server import Server

pytestmark = pytest.mark.browser


def counting() -> Blueprint:
    """Counts up to three in rounds, then gives out a link and waits for it."""
    return Blueprint.parse(
        {
            "name": "Counts and asks",
            "nodes": [
                {"id": "s", "type": "trigger.manual", "x": 0, "y": 100},
                {"id": "r", "type": "flow.repeat", "settings": {"until": "n >= 3", "most": 20}, "x": 280, "y": 100},
                {
                    "id": "add",
                    "type": "context.set_values",
                    "name": "Add one",
                    "settings": {"values": [{"name": "n", "value": "n + 1", "kind": "formula"}]},
                    "x": 560,
                    "y": 0,
                },
                {"id": "link", "type": "flow.reply_address", "x": 560, "y": 240},
                {
                    "id": "wait",
                    "type": "flow.wait_event",
                    "settings": {"mode": "call", "address": "steps.make_a_reply_address.address", "amount": 3},
                    "x": 840,
                    "y": 240,
                },
            ],
            "edges": [
                {"id": "e1", "source": "s", "source_port": "value", "target": "r", "target_port": "value"},
                {"id": "e2", "source": "r", "source_port": "item", "target": "add", "target_port": "value"},
                {"id": "e3", "source": "add", "source_port": "value", "target": "r", "target_port": "result"},
                {"id": "e4", "source": "r", "source_port": "done", "target": "link", "target_port": "value"},
                {"id": "e5", "source": "link", "source_port": "value", "target": "wait", "target_port": "value"},
            ],
        }
    )


def test_rounds_are_looked_into_and_a_link_is_confirmed_once(
    ada: Page,  # noqa: F811
    server: Server,
    browser: Browser,
    shot: Shot,
) -> None:
    agent = made(ada, server, counting())
    ada.goto(f"{server.url}/studio/{agent}")
    repeat = ada.locator('.afc-card[data-type="flow.repeat"]')
    expect(repeat.locator(".afc-line")).to_have_text("until n >= 3, at most 20 times")
    expect(ada.locator('.afc-card[data-type="flow.wait_event"] .afc-line')).to_have_text("a call, at most 3 days")
    repeat.locator(".afc-title").click()
    expect(ada.locator(".st-inspector").get_by_text("At most", exact=True)).to_be_visible()
    shot("studio-rounds")

    run_id = started(ada, server, agent, {"n": 0})
    ada.goto(f"{server.url}/runs/{run_id}")
    line = ada.get_by_role("button", name="3 rounds: 3 succeeded")
    line.click()
    expect(ada.get_by_text("Round 3", exact=True)).to_be_visible()
    waiting = ada.locator(".af-step-line", has_text="Wait for an event")
    waiting.click()
    expect(ada.get_by_text("It waits for a call of its address.")).to_be_visible()
    shot("run-rounds")

    view: Any = call(ada, server, "GET", f"/runs/{run_id}")
    address = next(step["output"]["address"] for step in view["steps"] if step["node"] == "link")
    assert address.startswith(f"{server.url}/hooks/resume/")
    guest = browser.new_context().new_page()
    guest.goto(address)
    guest.get_by_role("button", name="Confirm").click()
    expect(guest.get_by_role("heading", name="Thank you")).to_be_visible()
    guest.goto(address)
    expect(guest.get_by_role("heading", name="This link was used")).to_be_visible()
    guest.context.close()
    expect(ada.get_by_text(re.compile("^Succeeded")).first).to_be_visible()
