"""A deployed agent fails on a real call; a person reads why, corrects the data, tries again, and dismisses another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from playwright.sync_api import Page, expect

from tests.app.pages.conftest import drawn
from tests.server import Server

pytestmark = pytest.mark.browser

PASSWORD = "three unrelated words"
ORDERS = drawn(
    "Order intake",
    [
        ("w", "trigger.webhook", "Order arrives", {"path": "orders", "respond": "now"}),
        ("g", "action.text_template", "Greet", {"template": "Dear {{ name }}"}),
        (
            "s",
            "action.transform",
            "Split the price",
            {"fields": [{"name": "half", "formula": "total / 2"}, {"name": "who", "formula": "steps.greet.text"}]},
        ),
        ("t", "action.text_template", "Confirm", {"template": "{{ input.who }}, you pay {{ input.half }}"}),
    ],
    [("w", "body", "g", "value"), ("w", "body", "s", "value"), ("s", "value", "t", "value")],
)


def call(page: Page, server: Server, method: str, path: str, data: Any = None) -> Any:
    """Ask the API as the person of this tab."""
    csrf = page.request.get(f"{server.url}/api/v1/auth/me").json()["csrf"]
    answer = page.request.fetch(
        f"{server.url}/api/v1{path}",
        method=method,
        headers={"X-CSRF-Token": csrf, "Origin": server.url, "Content-Type": "application/json"},
        data=orjson.dumps(data).decode() if data is not None else None,
    )
    assert answer.ok, answer.text()
    return answer.json()


def test_a_failed_call_is_understood_mended_and_done(page: Page, server: Server, shot: Callable[[str], None]) -> None:
    page.goto(server.setup_link)
    for label, text in (("Your name", "Ada Lovelace"), ("E-mail", "ada@example.com"), ("Team name", "Engine")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button").click()
    page.wait_for_url(f"{server.url}/")
    agent = call(page, server, "POST", "/blueprints", orjson.loads(ORDERS.canonical()))["id"]
    call(page, server, "POST", f"/blueprints/{agent}/deploy", {"note": "First"})

    page.goto(f"{server.url}/attention")
    expect(page.get_by_text("Nothing needs attention")).to_be_visible()

    for order in ({"name": "Bo", "total": "twelve"}, {"name": "Cy", "total": "?"}):
        answer = page.request.post(f"{server.url}/hooks/orders", data=order)
        assert answer.status == 202, answer.text()

    # They appear by themselves, on the page and in the navigation.
    rows = page.get_by_role("listitem").filter(has_text="Order intake")
    expect(rows).to_have_count(2)
    expect(page.get_by_role("link", name="Attention")).to_contain_text("2")
    shot("needs-attention")

    rows.nth(1).get_by_role("link").click()
    story = page.get_by_role("region", name="What happened")
    expect(story).to_contain_text("“Order arrives” started a run of version 1.")
    expect(story).to_contain_text("“Greet” did what it was set up to do.")
    expect(story).to_contain_text("Then “Split the price” failed")
    expect(story).to_contain_text("So “Confirm” did not run.")
    expect(page.get_by_text("“Greet” will not run again")).to_be_visible()
    for width, height in ((1024, 768), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot("failed-run")

    total = page.get_by_label("total", exact=True)
    expect(total).to_have_value("twelve")
    page.get_by_label("Kind of total").click()
    page.get_by_role("option", name="number").click()
    page.get_by_role("spinbutton", name="total").fill("12")
    page.get_by_role("button", name="Edit as JSON").click()
    expect(page.get_by_label("What “Split the price” gets, as JSON")).to_have_value(
        '{\n  "name": "Bo",\n  "total": 12\n}'
    )
    page.get_by_role("button", name="Try again").click()
    page.wait_for_url("**/runs/run_*")
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    expect(page.get_by_text("Dear Bo, you pay 6").first).to_be_visible()

    page.get_by_role("link", name="Attention").click()
    expect(rows).to_have_count(1)
    rows.first.get_by_role("checkbox").click()
    page.get_by_role("button", name="Dismiss", exact=True).click()
    page.get_by_label("Why does nothing have to be done?").fill("Cy ordered by telephone")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing needs attention")).to_be_visible()
    page.get_by_role("button", name="Dismissed").click()
    expect(page.get_by_text("Dismissed by Ada Lovelace: Cy ordered by telephone")).to_be_visible()
    page.get_by_role("button", name="Tried again").click()
    expect(page.get_by_text("Tried again by Ada Lovelace.")).to_be_visible()
