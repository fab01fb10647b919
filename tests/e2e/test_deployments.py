"""Deployments in a real browser: to test, to live, paused with its calls kept, resumed, and rolled back in one click."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_studio import Studio
from tests.server import Server

pytestmark = pytest.mark.browser

SAYS: dict[str, Any] = {
    "name": "Greeter",
    "nodes": [
        {"id": "in", "type": "trigger.webhook", "settings": {"path": "greet", "respond": "end"}, "x": 0, "y": 0},
        {
            "id": "say",
            "type": "context.set_values",
            "settings": {
                "values": [{"name": "said", "value": "one"}, {"name": "by", "value": "{{ vars.sender }}"}],
                "keep": False,
            },
            "x": 320,
            "y": 0,
        },
    ],
    "edges": [{"id": "e1", "source": "in", "source_port": "body", "target": "say", "target_port": "value"}],
}


def call(server: Server, path: str) -> tuple[int, Any]:
    answer = httpx.post(f"{server.url}/hooks/{path}", json={"name": "Ada"}, timeout=10)
    return answer.status_code, answer.json()


def until(right: Callable[[], bool]) -> None:
    """Until it is so."""
    end = time.monotonic() + 10
    while not right():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def variable(page: Page, name: str, value: str, place: str) -> None:
    page.get_by_role("button", name="Add a variable").first.click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Value", exact=True).fill(value)
    page.get_by_label("Counts in").click()
    page.get_by_role("option", name=place).click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)


def test_to_test_to_live_paused_resumed_and_rolled_back(
    page: Page, server: Server, shot: Callable[[str], None]
) -> None:
    studio = Studio(page, server).sign_in()

    page.goto(f"{server.url}/settings/variables")
    variable(page, "sender", "a tester", "Test only")
    variable(page, "sender", "the team", "Live only")
    shot("variables")

    # A case that guards what goes live.
    studio.new(SAYS)
    page.get_by_role("button", name="Test", exact=True).last.click()
    page.get_by_role("button", name="Cases").click()
    page.get_by_role("button", name="Keep the present input as a case").click()
    page.get_by_label("Name", exact=True).fill("It greets")
    page.get_by_label("What must be true of the result (optional)").fill('said == "one"')
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Run them").click()
    expect(page.get_by_text("Passed.")).to_be_visible()
    shot("cases")
    page.get_by_role("button", name="Close", exact=True).click()

    # To test, with its own address and variable.
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Test", exact=True).click()
    page.get_by_text("In test it has addresses").wait_for()
    page.get_by_role("button", name="Deploy now").click()
    expect(page.get_by_text("Version 1 is in test")).to_be_visible()
    expect(page.locator(".st-address-text").last).to_contain_text("/hooks/test/greet")
    page.get_by_role("button", name="Done").click()
    assert call(server, "test/greet") == (200, {"said": "one", "by": "a tester"})
    assert call(server, "greet")[0] == 404

    # To live.
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_text("Its case is run first")).to_be_visible()
    page.get_by_role("button", name="Deploy now").click()
    expect(page.get_by_text("Version 1 is live")).to_be_visible()
    page.get_by_role("button", name="Done").click()
    assert call(server, "greet") == (200, {"said": "one", "by": "the team"})

    # A change that the case refuses, deployed anyway by an admin who says why.
    changed = json.loads(json.dumps(SAYS))
    changed["nodes"][1]["settings"]["values"][0]["value"] = "two"
    page.get_by_label("Agent settings").click()
    page.get_by_role("button", name="Import JSON").click()
    page.get_by_label("JSON of an agent").fill(json.dumps(changed))
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_label("JSON of an agent")).to_have_count(0)
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_role("button", name="Deploy now").click()
    expect(page.get_by_text("1 of 1 cases fail")).to_be_visible()
    shot("deploy-refused")
    page.get_by_label("Deploy it anyway, because").fill("The new word is right")
    page.get_by_role("button", name="Deploy anyway").click()
    expect(page.get_by_text("Version 2 is live")).to_be_visible()
    page.get_by_role("button", name="Done").click()
    assert call(server, "greet")[1]["said"] == "two"

    # The live panel: paused with its calls kept, resumed, and rolled back in one click.
    page.get_by_label("How the deployments are doing").click()
    live = page.get_by_role("region", name="Live deployment")
    expect(live).to_contain_text("version 2")
    expect(live).to_contain_text("The new word is right")
    expect(page.get_by_role("region", name="Test deployment")).to_contain_text("version 1")
    live.get_by_role("button", name="Pause, keep calls").click()
    expect(live).to_contain_text("Calls are kept and run when it goes on.")
    status, said = call(server, "greet")
    assert (status, said["state"]) == (202, "held")
    expect(live.locator(".af-figure", has_text="calls kept")).to_contain_text("1")
    shot("deployment-panel")
    live.get_by_role("button", name="Resume").click()
    expect(live.locator(".af-figure", has_text="calls kept")).to_contain_text("0")
    until(lambda: page.request.get(f"{server.url}/api/v1/runs/{said['run']}").status == 200)
    until(lambda: page.request.get(f"{server.url}/api/v1/runs/{said['run']}").json()["state"] == "succeeded")
    expect(live.locator(".af-figure", has_text="runs in the last hour")).to_contain_text("3")
    live.get_by_role("button", name="Roll back to version 1").click()
    expect(live).to_contain_text("version 1")
    expect(live.get_by_role("button", name="Roll back to version 2")).to_be_visible()
    assert call(server, "greet")[1]["said"] == "one"

    # Home says both, and the runs say where they ran.
    page.goto(server.url)
    card = page.locator(".af-agent", has_text="Greeter")
    expect(card).to_contain_text("version 1")
    expect(card).to_contain_text("In test")
    page.goto(f"{server.url}/runs")
    expect(page.locator(".af-run", has_text="Test")).to_have_count(1)
