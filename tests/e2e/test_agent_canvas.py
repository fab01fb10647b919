"""An agent on the canvas in a real browser: its model, memory and tools hang below it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.assets import asset_path
from tests.e2e.drawing import Drawing, wires
from tests.e2e.test_studio import Studio, signed_in, studio

__all__ = ["signed_in", "studio"]

pytestmark = pytest.mark.browser

PARTS = [
    {"id": "agent", "type": "action.agent", "x": 300, "y": 60, "settings": {"task": "Help"}},
    {"id": "model", "type": "context.model", "x": 40, "y": 320},
    {"id": "recall", "type": "context.recall", "x": 320, "y": 320, "settings": {"key": "{{ args.city }}"}},
]


def test_a_step_becomes_a_tool_by_drawing_from_its_top_to_the_agent(drawing: Drawing) -> None:
    drawing.open()
    drawing.post("commit", [{"op": "add_node", "node": node} for node in PARTS])
    drawing.sees(3)
    agent, model, recall = (drawing.node(node["type"]) for node in PARTS)  # type: ignore[arg-type]
    recall.hover()
    drawing.connect(recall, "tool", agent, "tools")
    drawing.connect(model, "model", agent, "model")
    found = drawing.sees(3, 2)
    assert wires(found) == {("recall", "tool", "agent", "tools"), ("model", "model", "agent", "model")}
    expect(drawing.page.locator(".vue-flow__edge .afc-hangs")).to_have_count(2)
    assert agent.locator(".afc-sub").all_inner_texts() == ["model", "tools", "memory"]


def test_only_what_fits_can_hang_on_an_agent(drawing: Drawing) -> None:
    drawing.open()
    drawing.post("commit", [{"op": "add_node", "node": node} for node in PARTS])
    drawing.sees(3)
    agent, model, recall = (drawing.node(node["type"]) for node in PARTS)  # type: ignore[arg-type]
    recall.hover()
    drawing.connect(recall, "tool", agent, "model")
    drawing.connect(model, "model", agent, "tools")
    drawing.connect(recall, "value", agent, "memory")
    drawing.sees(3, 0)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768)])
def test_the_help_desk_shows_what_belongs_to_its_agent(
    drawing: Drawing, page: Page, shot: Callable[..., None], width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    document = json.loads((asset_path("templates") / "help-desk.json").read_text())
    drawing.open()
    drawing.post("commit", [{"op": "add_node", "node": node} for node in document["nodes"]])
    drawing.post("commit", [{"op": "add_edge", "edge": edge} for edge in document["edges"]])
    drawing.sees(7, 6)
    page.keyboard.press("f")
    expect(page.locator(".vue-flow__edge .afc-hangs")).to_have_count(3)
    shot(f"agent-{width}")


def test_tidying_up_puts_what_hangs_on_an_agent_below_it(drawing: Drawing) -> None:
    document = json.loads((asset_path("templates") / "help-desk.json").read_text())
    drawing.open()
    drawing.post("commit", [{"op": "add_node", "node": node | {"x": 0, "y": 0}} for node in document["nodes"]])
    drawing.post("commit", [{"op": "add_edge", "edge": edge} for edge in document["edges"]])
    drawing.sees(7, 6)
    drawing.page.get_by_label("Tidy up (Shift+L)").click()
    found = drawing.until(lambda found: len({(node["x"], node["y"]) for node in found["saved"]["nodes"]}) == 7)
    at = {node["id"]: (node["x"], node["y"]) for node in found["saved"]["nodes"]}
    assert at["chat"][0] < at["agent"][0] < at["say"][0]
    assert {at[id_][1] for id_ in ("memory", "order", "ask", "refund")} == {at["memory"][1]}
    assert at["memory"][1] > at["agent"][1] + 100
    assert at["ask"][0] < at["refund"][0]


def test_the_help_desk_is_tried_out_in_the_studio(studio: Studio, shot: Callable[..., None]) -> None:
    page = studio.page
    document = json.loads((asset_path("templates") / "help-desk.json").read_text())
    studio.new(document)
    inspector = studio.select("action.agent")
    expect(inspector).to_contain_text("Most turns")
    shot("agent-form")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".st-verdict")).to_contain_text("steps")
    expect(page.locator('.afc-card[data-node="refund"]')).to_have_attribute("data-state", "simulated")
    expect(page.locator('.afc-card[data-node="order"]')).to_have_attribute("data-state", "done")
    expect(page.locator('.afc-card[data-node="agent"]')).to_have_attribute("data-state", "done")
    shot("agent-tested")


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768)])
def test_the_form_of_an_agent_leads_to_its_tools_and_a_tool_asks_a_person_first(
    studio: Studio, shot: Callable[..., None], width: int, height: int
) -> None:
    page = studio.page
    page.set_viewport_size({"width": width, "height": height})
    document = json.loads((asset_path("templates") / "help-desk.json").read_text())
    studio.new(document)
    inspector = studio.select("action.agent")
    expect(inspector).to_contain_text("What the model sees")
    shot(f"agent-tools-{width}")
    inspector.get_by_text("What the model sees").first.click()
    expect(inspector).to_contain_text("parameters")
    shot(f"agent-tools-open-{width}")
    inspector.get_by_role("button", name="Select").nth(1).click()
    expect(inspector).not_to_have_attribute("data-node", "agent")
    inspector.get_by_role("tab", name="Rules").click()
    inspector.get_by_text("Ask a person first").click()
    expect(inspector).to_contain_text("Wait for an answer at most")
    shot(f"ask-first-{width}")
