"""The studio in a real browser: an agent is drawn, set up, tested, deployed and called."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.server import Server

pytestmark = pytest.mark.browser

EMAIL, PASSWORD = "ada@example.com", "three unrelated words"
SMALL = {
    "name": "Orders",
    "nodes": [
        {"id": "hook", "type": "trigger.webhook", "settings": {"path": "orders", "respond": "end"}, "x": 0, "y": 0},
        {"id": "dec", "type": "validation.decide", "x": 300, "y": 0},
        {"id": "set", "type": "context.set_values", "x": 620, "y": 0},
    ],
    "edges": [
        {"id": "e1", "source": "hook", "source_port": "body", "target": "dec", "target_port": "value"},
        {"id": "e2", "source": "dec", "source_port": "yes", "target": "set", "target_port": "value"},
    ],
}


class Studio:
    """One tab of the studio, driven by mouse and keyboard."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server

    def sign_in(self) -> Studio:
        """Through the set-up link the first time, by the form afterwards."""
        page = self.page
        page.goto(f"{self.server.url}/login")
        if page.locator("[name=password]").count():
            page.fill("[name=email]", EMAIL)
            page.fill("[name=password]", PASSWORD)
        else:
            page.goto(self.server.setup_link)
            page.fill("[name=name]", "Ada Lovelace")
            page.fill("[name=email]", EMAIL)
            page.fill("[name=password]", PASSWORD)
            if page.locator("[name=team]").count():
                page.fill("[name=team]", "Engine")
        page.get_by_role("button").first.click()
        page.wait_for_url(lambda url: "/login" not in url and "/setup" not in url)
        return self

    def new(self, document: object = None) -> Studio:
        """A new agent by Home's button; a document comes in through the import."""
        page = self.page
        page.goto(self.server.url)
        page.get_by_role("button", name=re.compile("^Draw")).first.click()
        page.wait_for_url("**/studio/**")
        self.ready()
        if document is not None:
            page.get_by_label("Agent settings").click()
            page.get_by_role("button", name="Import JSON").click()
            page.get_by_label("JSON of an agent").fill(json.dumps(document))
            page.get_by_role("button", name="Import", exact=True).click()
            expect(page.locator(".afc-card")).to_have_count(len(document["nodes"]))  # type: ignore[index]
            expect(page.get_by_label("JSON of an agent")).to_have_count(0)
            self.still()
        return self

    def ready(self) -> Studio:
        self.page.wait_for_function("window.__canvas?.wire.editor() && window.__canvas.stats.firstRender !== undefined")
        return self

    def still(self) -> None:
        """Until the canvas has stopped moving."""
        self.page.wait_for_function(
            """() => new Promise((done) => {
                const look = () => JSON.stringify(window.__canvas.flow.viewport.value);
                let before = look(), calm = 0;
                const tick = setInterval(() => {
                    calm = look() === before ? calm + 1 : 0;
                    before = look();
                    if (calm > 7) clearInterval(tick), done(true);
                }, 100);
            })"""
        )

    def node(self, type_: str) -> Locator:
        return self.page.locator(f'.afc-card[data-type="{type_}"]')

    def select(self, type_: str) -> Locator:
        """Click a node; its form shows on the right."""
        node = self.node(type_)
        node.locator(".afc-title").click()
        inspector = self.page.locator(".st-inspector")
        expect(inspector).to_have_attribute("data-node", node.get_attribute("data-node") or "")
        return inspector

    def drop(self, type_: str, x: float, y: float) -> None:
        """Drag an entry of the palette to a place of the canvas."""
        count = self.page.locator(".afc-card").count()
        entry = self.page.locator(f'[data-palette="{type_}"]')
        entry.scroll_into_view_if_needed()
        box, canvas = entry.bounding_box(), self.page.locator(".afc-canvas").bounding_box()
        assert box
        assert canvas
        self.page.mouse.move(box["x"] + 20, box["y"] + 12)
        self.page.mouse.down()
        self.page.mouse.move(canvas["x"] + x - 30, canvas["y"] + y - 20, steps=4)
        self.page.mouse.move(canvas["x"] + x, canvas["y"] + y, steps=3)
        self.page.mouse.up()
        expect(self.page.locator(".afc-card")).to_have_count(count + 1)

    def wire(self, source: str, out: str, target: str, into: str) -> None:
        """Drag from an output to an input."""
        wires = self.page.locator(".vue-flow__edge").count()
        ends = []
        for type_, side, port in ((source, "source", out), (target, "target", into)):
            box = self.node(type_).locator(f'.vue-flow__handle.{side}[data-handleid="{port}"]').bounding_box()
            assert box
            ends.append((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
        (x, y), (to_x, to_y) = ends
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + 2, y + 2)
        self.page.mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=4)
        self.page.mouse.move(to_x, to_y, steps=4)
        self.page.mouse.up()
        expect(self.page.locator(".vue-flow__edge")).to_have_count(wires + 1)

    def condition(self, field: str, question: str, value: str) -> None:
        """Fill in the first line of the builder."""
        line = self.page.locator(".st-line").first
        line.get_by_label("Field", exact=True).fill(field)
        self.page.get_by_role("option", name=re.compile(f"^{field} ")).first.click()
        line.get_by_label("Question", exact=True).click()
        self.page.get_by_role("option", name=question, exact=True).click()
        line.get_by_label("Value", exact=True).fill(value)


@pytest.fixture(scope="module")
def signed_in(browser: Browser, server: Server) -> Iterator[str]:
    """The cookies of somebody who signed in once, for all tests of this file."""
    context = browser.new_context()
    context.set_default_timeout(20_000)
    Studio(context.new_page(), server).sign_in()
    yield json.dumps(context.storage_state())
    context.close()


@pytest.fixture
def studio(page: Page, server: Server, signed_in: str) -> Studio:
    page.context.add_cookies(json.loads(signed_in)["cookies"])
    page.context.set_default_timeout(20_000)
    return Studio(page, server)


def test_an_agent_is_drawn_checked_tested_deployed_and_answers_a_call(
    studio: Studio, shot: Callable[[str], None]
) -> None:
    page = studio.page
    studio.new()
    shot("studio-empty")
    studio.drop("trigger.webhook", 150, 160)
    studio.drop("validation.decide", 430, 160)
    studio.drop("action.transform", 690, 60)
    studio.wire("trigger.webhook", "body", "validation.decide", "value")
    studio.wire("validation.decide", "yes", "action.transform", "value")

    inspector = studio.select("validation.decide")
    studio.condition("total", "is greater than", "1000")
    expect(inspector.locator(".st-preview-value")).to_have_text("yes")
    expect(studio.node("validation.decide").locator(".afc-line")).to_have_text("total > 1000")

    studio.select("action.transform")
    page.get_by_role("button", name="Add to “Fields”").click()
    inspector.get_by_label("Field", exact=True).fill("customer")
    inspector.get_by_label("Insert a field").click()
    inspector.locator('[data-insert="name"]').click()
    expect(inspector.locator(".st-preview-value")).to_have_text("Ada")
    shot("studio-form")

    page.keyboard.press("Control+Enter")
    expect(page.locator(".st-verdict")).to_contain_text("All went well: 3 steps.")
    expect(studio.node("action.transform")).to_have_attribute("data-state", "done")
    page.locator(".st-step", has_text="Decide").click()
    expect(inspector.locator(".st-part").first).to_contain_text("1200")
    shot("studio-test")

    studio.select("trigger.webhook")
    expect(inspector.get_by_role("textbox", name="Name of the node")).to_have_attribute("placeholder", "Webhook")
    inspector.get_by_role("tab", name="Settings").click()
    expect(inspector.get_by_role("tab", name="Settings")).to_have_attribute("aria-selected", "true")
    inspector.get_by_role("button", name="End").click()
    address = inspector.locator(".st-address-text").inner_text()
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_label("Note for the list of versions").fill("first")
    page.get_by_role("button", name="Deploy now").click()
    expect(page.get_by_text("Version 1 is live")).to_be_visible()
    expect(page.locator(".st-curl")).to_contain_text("curl -X POST")
    shot("studio-deployed")
    answer = httpx.post(address, json={"name": "Grace", "total": 5000}, timeout=10)
    assert answer.status_code == 200
    assert "Grace" in answer.text
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".st-live")).to_contain_text("Live")


def test_a_misspelt_field_shows_at_once_and_is_put_right_by_a_click(studio: Studio) -> None:
    studio.new(SMALL)
    inspector = studio.select("validation.decide")
    inspector.get_by_role("button", name="Edit the condition as text").click()
    field = inspector.get_by_label("Condition", exact=True)
    field.fill("totl > 1000")
    expect(inspector.get_by_text("did you mean “total”?")).to_be_visible()
    expect(studio.node("validation.decide").locator(".afc-badge").first).to_be_visible()
    inspector.get_by_role("button", name="Use “total”").click()
    expect(inspector.locator(".st-preview-value")).to_have_text("yes")
    expect(inspector.get_by_label("Condition", exact=True)).to_have_value("total > 1000")


def test_a_finding_leads_to_its_node_and_is_fixed_by_a_click(studio: Studio) -> None:
    page = studio.page
    studio.new(
        {
            "name": "Fix me",
            "nodes": [
                {"id": "hook", "type": "trigger.webhook", "settings": {"path": "fix-me"}},
                {"id": "r", "type": "action.respond", "x": 340},
            ],
            "edges": [{"id": "e", "source": "hook", "source_port": "body", "target": "r", "target_port": "value"}],
        }
    )
    count = page.locator(".st-count")
    expect(count).to_contain_text("finding")
    count.click()
    finding = page.locator(".st-finding", has_text="Nobody hears")
    finding.get_by_role("button", name="Fix it").click()
    expect(finding).to_have_count(0)
    page.keyboard.press("Escape")
    inspector = studio.select("trigger.webhook")
    expect(inspector.get_by_role("button", name="End")).to_have_attribute("aria-pressed", "true")


def test_pinned_data_is_used_by_the_next_test(studio: Studio) -> None:
    page = studio.page
    document = json.loads(json.dumps(SMALL))
    document["nodes"][1]["settings"] = {"condition": "total > 1000"}
    studio.new(document)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".st-verdict")).to_contain_text("3 steps")
    page.locator(".st-step", has_text="Decide").click()
    inspector = page.locator(".st-inspector")
    inspector.get_by_role("button", name="Pin", exact=True).click()
    expect(inspector.locator(".st-pinned")).to_be_visible()
    editor = page.locator(".st-json .cm-content")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.type('{"body": {"total": 1}}')
    page.get_by_role("button", name="Run all").click()
    expect(page.locator(".st-step", has_text="Decide")).to_contain_text("pinned")
    expect(page.locator(".st-verdict")).to_contain_text("3 steps")


def test_typed_input_says_its_wrong_line(studio: Studio) -> None:
    page = studio.page
    studio.new(SMALL)
    page.get_by_role("button", name="Test", exact=True).last.click()
    editor = page.locator(".st-json .cm-content")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("[1,\n2 3]")
    expect(page.locator(".st-bench-input .st-bad")).to_contain_text("Line 2")


def test_the_palette_is_searched_and_used_by_the_keyboard_alone(studio: Studio) -> None:
    page = studio.page
    studio.new()
    page.keyboard.press("/")
    expect(page.locator("#st-search")).to_be_focused()
    page.keyboard.type("no such thing")
    expect(page.locator("[data-palette]:visible")).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("daily")
    expect(page.locator("[data-palette]:visible")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(studio.node("trigger.schedule")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.press("Control+a")
    page.keyboard.type("decide")
    page.keyboard.press("Enter")
    expect(studio.node("validation.decide")).to_be_visible()


def test_a_field_is_dragged_into_a_text(studio: Studio) -> None:
    document = json.loads(json.dumps(SMALL))
    document["nodes"][1]["settings"] = {"condition": "total > 1000"}
    document["nodes"].append({"id": "t", "type": "action.text_template", "x": 900})
    document["edges"].append(
        {"id": "e3", "source": "set", "source_port": "value", "target": "t", "target_port": "value"}
    )
    studio.new(document)
    inspector = studio.select("action.text_template")
    field = inspector.get_by_label("Text", exact=True)
    field.fill("Dear ")
    inspector.get_by_label("Insert a field").click()
    inspector.locator('[data-insert="name"]').drag_to(field)
    expect(field).to_have_value(re.compile(r"\{\{ name \}\}"))
    expect(inspector.locator(".st-preview-value")).to_contain_text("Ada")


def test_a_version_is_kept_and_gone_back_to_and_every_tab_sees_it(
    studio: Studio, browser: Browser, signed_in: str
) -> None:
    page = studio.page
    studio.new(SMALL)
    context = browser.new_context(storage_state=json.loads(signed_in), viewport={"width": 1440, "height": 900})
    context.set_default_timeout(20_000)
    other = Studio(context.new_page(), studio.server)
    other.page.goto(page.url)
    other.ready()
    expect(other.page.locator(".afc-card")).to_have_count(3)

    page.keyboard.press("Control+s")
    sheet = page.locator(".st-sheet").filter(has_text="Versions")
    sheet.get_by_label("Note").fill("three nodes")
    sheet.get_by_role("button", name="Keep a version").click()
    expect(sheet.locator(".st-version")).to_contain_text("three nodes")
    page.keyboard.press("Escape")

    inspector = other.select("validation.decide")
    other.condition("total", "is at least", "500")
    expect(inspector.locator(".st-preview")).to_be_visible()
    expect(studio.node("validation.decide").locator(".afc-line")).to_have_text("total >= 500")
    studio.select("context.set_values")
    page.keyboard.press("Delete")
    expect(other.node("context.set_values")).to_have_count(0)

    page.get_by_label("Versions", exact=True).click()
    sheet.get_by_role("button", name="Compare").last.click()
    expect(sheet.get_by_text("“Set values” removed")).to_be_visible()
    sheet.get_by_role("button", name="Go back to it").last.click()
    expect(other.node("context.set_values")).to_have_count(1)
    expect(studio.node("context.set_values")).to_have_count(1)
    context.close()


def test_pausing_and_going_on_and_stopping(studio: Studio) -> None:
    page = studio.page
    document = json.loads(json.dumps(SMALL))
    document["nodes"][0]["settings"]["path"] = "pausing"
    document["nodes"][1]["settings"] = {"condition": "total > 1000"}
    studio.new(document)
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_role("button", name="Deploy now").click()
    page.get_by_role("button", name="Done").click()
    url = f"{studio.server.url}/hooks/pausing"

    def call() -> int:
        return httpx.post(url, json={"total": 2000}, timeout=10, verify=False).status_code

    assert call() == 200
    page.get_by_label("More about the deployment").click()
    page.get_by_text("Pause: refuse calls").click()
    expect(page.locator(".st-live")).to_contain_text("Paused")
    assert call() >= 400
    page.get_by_label("More about the deployment").click()
    page.get_by_text("Go on: take runs again").click()
    expect(page.locator(".st-live")).to_contain_text("Live")
    assert call() == 200
    page.get_by_label("More about the deployment").click()
    page.get_by_text("Stop: give up its addresses").click()
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator(".st-live")).to_contain_text("Draft")
    until = time.monotonic() + 5
    while call() != 404 and time.monotonic() < until:
        time.sleep(0.1)
    assert call() == 404
