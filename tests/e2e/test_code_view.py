"""The studio shows an agent as Python in a real browser: highlighted, and ready to be copied."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_studio import Studio
from tests.server import Server

pytestmark = pytest.mark.browser

AGENT = {
    "name": "Big orders",
    "description": "Large orders are seen by a person.",
    "nodes": [
        {"id": "hook", "type": "trigger.webhook", "name": "Order arrives", "settings": {"path": "orders"}},
        {
            "id": "dec",
            "type": "validation.decide",
            "name": "Large?",
            "settings": {"condition": "total > 1000"},
            "x": 300,
        },
        {
            "id": "text",
            "type": "action.text_template",
            "name": "Thank the customer",
            "settings": {"template": "Dear {{ name }}, thank you."},
            "x": 620,
        },
    ],
    "edges": [
        {"id": "e1", "source": "hook", "source_port": "body", "target": "dec", "target_port": "value"},
        {"id": "e2", "source": "dec", "source_port": "no", "target": "text", "target_port": "value"},
    ],
}


def test_an_agent_is_read_and_copied_as_python(page: Page, server: Server, shot: Callable[[str], None]) -> None:
    Studio(page, server).sign_in().new(AGENT)
    page.get_by_role("button", name="As Python").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("def run(event: Any = None) -> Any:")).to_be_visible()
    expect(dialog.get_by_text("if not from_large:")).to_be_visible()
    shot("studio-python")
    dialog.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith('"""Big orders.')
    page.set_viewport_size({"width": 1024, "height": 768})
    expect(dialog.get_by_role("button", name="Download")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
