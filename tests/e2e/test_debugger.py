"""Finding a fault in a real browser: a failed run is looked into, mended and gone on with; tests are held and stepped through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_studio import Studio
from tests.server import Server

pytestmark = pytest.mark.browser

ORDERS = {
    "name": "Orders",
    "nodes": [
        {"id": "go", "type": "trigger.manual", "name": "Order", "x": 0, "y": 0},
        {
            "id": "vat",
            "type": "action.transform",
            "name": "Add VAT",
            "settings": {
                "fields": [{"name": "gross", "formula": "total * 1.2"}, {"name": "parts", "formula": "parts"}]
            },
            "x": 300,
            "y": 0,
        },
        {
            "id": "pay",
            "type": "action.transform",
            "name": "Split",
            "settings": {"fields": [{"name": "rate", "formula": "gross / parts"}]},
            "x": 600,
            "y": 0,
        },
        {
            "id": "end",
            "type": "action.transform",
            "name": "Round",
            "settings": {"fields": [{"name": "rate", "formula": "rate | round(2)"}]},
            "x": 900,
            "y": 0,
        },
    ],
    "edges": [
        {"id": "e1", "source": "go", "source_port": "value", "target": "vat", "target_port": "value"},
        {"id": "e2", "source": "vat", "source_port": "value", "target": "pay", "target_port": "value"},
        {"id": "e3", "source": "pay", "source_port": "value", "target": "end", "target_port": "value"},
    ],
}


def state(page: Page, id_: str, wanted: str) -> None:
    expect(page.locator(f'.afc-card[data-node="{id_}"]')).to_have_attribute("data-state", wanted)


@pytest.fixture
def studio(page: Page, server: Server) -> Studio:
    return Studio(page, server).sign_in().new(ORDERS)


def test_a_failed_run_is_mended_in_the_studio_and_gone_on_with(
    studio: Studio, page: Page, server: Server, shot: Callable[[str], None]
) -> None:
    agent = page.url.rpartition("/")[2]
    started = page.evaluate(
        """async ([url, body]) => {
            const me = await (await fetch('/api/v1/auth/me')).json();
            const answer = await fetch(url, {method: 'POST', body, headers: {
                'Content-Type': 'application/json', 'X-CSRF-Token': me.csrf}});
            return answer.json();
        }""",
        [f"/api/v1/blueprints/{agent}/runs", '{"input": {"total": 100, "parts": 0}}'],
    )
    page.goto(f"{server.url}/runs/{started['id']}")
    expect(page.get_by_role("button", name="Retry from the failed step")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="Split").first).to_be_visible()
    page.get_by_role("button", name="Debug in the Studio").click()
    page.wait_for_url("**/studio/**debug=**")
    studio.ready()
    state(page, "vat", "done")
    state(page, "pay", "failed")
    expect(page.locator(".st-inspector")).to_have_attribute("data-node", "pay")

    page.get_by_role("tab", name="Settings").click()
    page.get_by_label("Is", exact=True).fill("gross / (parts or 1)")
    page.get_by_role("tab", name="Data").click()
    page.get_by_role("button", name="Run from here").click()
    preview = page.locator(".q-dialog .st-dialog")
    expect(preview).to_contain_text("“Split”, “Round”")
    expect(preview).to_contain_text("Uses its result of the run you brought here")
    expect(preview).to_contain_text("“Order”, “Add VAT”")
    shot("debugger-run-from")
    preview.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("All went well")).to_be_visible()
    state(page, "vat", "reused")
    state(page, "pay", "done")
    expect(page.locator(".st-verdict")).to_contain_text("120")
    shot("debugger-mended")


def test_a_test_is_held_at_a_breakpoint_and_stepped_through_by_keys(
    studio: Studio, page: Page, shot: Callable[[str], None]
) -> None:
    page.locator('.afc-card[data-node="pay"] .afc-title').click()
    expect(page.locator(".st-inspector")).to_have_attribute("data-node", "pay")
    expect(page.locator("#st-break")).to_be_enabled()
    page.keyboard.press("F9")
    expect(page.locator('.afc-card[data-node="pay"] .afc-break')).to_be_visible()
    page.get_by_role("button", name="Test", exact=True).first.click()
    page.locator(".st-bench-input .cm-content").fill('{"total": 100, "parts": 0}')
    page.keyboard.press("Control+Enter")
    held = page.locator(".st-held")
    expect(held).to_contain_text("Held before “Split”")
    state(page, "pay", "held")
    expect(page.locator(".st-inspector")).to_contain_text("What came in")
    shot("debugger-held")

    held.get_by_role("button", name="Write its output").click()
    page.get_by_label("Output as JSON, by port").fill('{"value": {"rate": 12.345}}')
    page.get_by_role("button", name="Go on with this").click()
    expect(held).to_contain_text("Held before “Round”")
    expect(page.get_by_label("Output as JSON, by port")).to_have_count(0)
    page.keyboard.press("F8")
    expect(page.get_by_text("All went well")).to_be_visible()
    expect(page.locator(".st-verdict")).to_contain_text("12.35")
    expect(held).to_be_hidden()

    page.set_viewport_size({"width": 1024, "height": 768})
    page.get_by_role("button", name="Run step by step").click()
    expect(held).to_contain_text("Held before “Order”")
    page.keyboard.press("F10")
    expect(held).to_contain_text("Held before “Add VAT”")
    held.get_by_role("button", name="Stop").click()
    expect(held).to_be_hidden()
    expect(page.locator(".st-drawer-state")).to_contain_text("Cancelled")


def test_an_output_is_edited_and_what_is_behind_it_runs(studio: Studio, page: Page) -> None:
    page.get_by_role("button", name="Test", exact=True).first.click()
    page.locator(".st-bench-input .cm-content").fill('{"total": 100, "parts": 0}')
    page.keyboard.press("Control+Enter")
    state(page, "pay", "failed")
    page.locator('.afc-card[data-node="vat"] .afc-title').click()
    page.get_by_role("tab", name="Data").click()
    page.locator(".st-inspector").get_by_role("button", name="Edit").click()
    page.get_by_label("Output as JSON, by port").fill('{"value": {"gross": 10, "parts": 4}}')
    page.get_by_role("button", name="Pin this output").click()
    page.locator('.afc-card[data-node="pay"] .afc-title').click(button="right")
    page.get_by_role("menuitem", name="Run from here").click()
    preview = page.locator(".q-dialog .st-dialog")
    expect(preview).to_contain_text("Runs because it was changed“Add VAT”")
    preview.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".st-verdict")).to_contain_text("2.5")
