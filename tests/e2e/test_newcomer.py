"""The newcomer's whole path by mouse and keyboard: from the set-up link to a live agent that answers a real call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.drawing import Drawing
from tests.server import Server

pytestmark = pytest.mark.browser

Shot = Callable[[str], None]


class Studio(Drawing):
    """The studio of one agent, as hands use it."""

    @property
    def inspector(self) -> Locator:
        return self.page.locator(".st-inspector")

    def select(self, type_: str) -> None:
        self.node(type_).locator(".afc-head").click()
        expect(self.inspector.get_by_role("tab", name="Settings")).to_be_visible()

    def fill(self, label: str, text: str) -> None:
        """Type into the field of the inspector with that label."""
        field = self.inspector.get_by_role("textbox", name=label, exact=True).last
        field.click()
        field.fill(text)
        expect(field).to_have_value(text)

    def pick(self, label: str, option: str) -> None:
        """Choose from a list of the inspector."""
        self.inspector.get_by_role("combobox", name=label, exact=True).last.click()
        self.page.get_by_role("option", name=re.compile(rf"^{option}\b")).first.click()

    def saved(self) -> None:
        expect(self.page.get_by_text("Saved", exact=True)).to_be_visible()


def set_up(page: Page, server: Server) -> None:
    page.goto(server.setup_link)
    for label, text in (
        ("Your name", "Ada Lovelace"),
        ("E-mail", "ada@example.com"),
        ("Password", "correct horse battery"),
        ("Team", "Engines"),
    ):
        page.get_by_label(label).first.fill(text)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/")


def new_agent(page: Page, server: Server) -> Studio:
    page.get_by_role("button", name=re.compile("^(Draw|Draw a new agent)$")).first.click()
    page.wait_for_url("**/studio/**")
    expect(page.locator(".afc-canvas")).to_be_visible()
    page.wait_for_function("window.__canvas?.wire.editor()")
    return Studio(page, server.url, "")


def test_from_the_set_up_link_to_an_agent_that_answers(page: Page, server: Server, shot: Shot) -> None:
    set_up(page, server)
    shot("home-empty")
    studio = new_agent(page, server)
    shot("studio-empty")
    for type_, x, y in (
        ("trigger.webhook", 150, 110),
        ("validation.decide", 440, 110),
        ("action.transform", 150, 400),
        ("action.respond", 440, 400),
    ):
        studio.place(type_, x, y)
    webhook, decide = studio.node("trigger.webhook"), studio.node("validation.decide")
    transform, respond = studio.node("action.transform"), studio.node("action.respond")
    studio.connect(webhook, "body", decide, "value")
    studio.connect(decide, "yes", transform, "value")
    studio.connect(transform, "value", respond, "value")
    expect(page.locator(".vue-flow__edge")).to_have_count(3)

    studio.select("validation.decide")
    studio.pick("Field", "total")
    studio.pick("Question", "is greater than")
    studio.fill("Value", "100")
    studio.select("action.transform")
    studio.inspector.get_by_role("button", name=re.compile("Add")).first.click()
    studio.fill("Field", "greeting")
    studio.fill("Is", '"Hello " ~ nme')
    expect(studio.inspector.get_by_role("alert")).to_contain_text("Unknown name “nme”, did you mean “name”?")
    studio.inspector.get_by_role("button", name="Use “name”").click()
    expect(studio.inspector.get_by_role("textbox", name="Is")).to_have_value('"Hello " ~ name')

    # The checks noticed that nobody would hear the answer, and can mend that themselves.
    page.get_by_role("button", name="Findings of the checks").click()
    unheard = page.get_by_role("dialog").get_by_text("Nobody hears “Respond”", exact=False)
    expect(unheard).to_be_visible()
    shot("studio-findings")
    page.get_by_role("button", name="Fix it").first.click()
    expect(unheard).to_have_count(0)
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Run all").click()
    expect(transform).to_have_attribute("data-state", "done")
    expect(respond).to_have_attribute("data-state", "done")
    shot("studio-test")

    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^Deploy")).click()
    address = page.get_by_role("dialog").get_by_text("/hooks/", exact=False).first
    expect(address).to_be_visible()
    found = re.search(r"/hooks/[\w-]+", address.inner_text())
    assert found
    shot("studio-deployed")
    page.keyboard.press("Escape")

    answer = httpx.post(f"{server.url}{found.group()}", json={"name": "Grace", "total": 250})
    assert (answer.status_code, answer.json()) == (200, {"greeting": "Hello Grace"})

    page.goto(f"{server.url}/runs")
    page.get_by_text("Untitled agent").first.click()
    page.wait_for_url("**/runs/run_*")
    for name in ("Webhook", "Decide", "Transform", "Respond"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    shot("run-timeline")
    page.goto(f"{server.url}/")
    expect(page.get_by_text("Untitled agent").first).to_be_visible()
    shot("home")


@pytest.fixture
def server_with_workers(tmp_path: Path, docker_engine: str) -> Iterator[Server]:
    with Server(tmp_path / "home", docker=docker_engine, pool_size="1") as server:
        yield server


@pytest.mark.docker
def test_a_schedule_runs_code_and_asks_a_person(page: Page, server_with_workers: Server, shot: Shot) -> None:
    server = server_with_workers
    set_up(page, server)
    studio = new_agent(page, server)
    for type_, x, y in (
        ("trigger.schedule", 150, 110),
        ("action.run_code", 440, 110),
        ("validation.approve", 150, 380),
        ("action.write_row", 440, 380),
    ):
        studio.place(type_, x, y)
    schedule, code = studio.node("trigger.schedule"), studio.node("action.run_code")
    approve, row = studio.node("validation.approve"), studio.node("action.write_row")
    studio.connect(schedule, "date", code, "value")
    studio.connect(code, "result", approve, "value")
    studio.connect(approve, "approved", row, "value")
    expect(page.locator(".vue-flow__edge")).to_have_count(3)

    studio.select("trigger.schedule")
    studio.inspector.get_by_role("button", name="Cron").or_(
        studio.inspector.get_by_text("Cron", exact=True)
    ).first.click()
    studio.fill("Cron text", "* * * * *")
    expect(studio.inspector.get_by_text("Every minute", exact=False).first).to_be_visible()
    studio.select("action.run_code")
    editor = studio.inspector.locator(".cm-content:visible")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("print('working')\nresult = {'answer': 6 * 7, 'day': input}")
    studio.select("validation.approve")
    studio.fill("Question", "Keep {{ answer }}?")
    studio.select("action.write_row")
    studio.inspector.get_by_role("combobox", name="Table").click()
    page.keyboard.type("answers")
    page.keyboard.press("Enter")
    studio.saved()

    page.get_by_role("button", name="Run all").click()
    expect(row).to_have_attribute("data-state", re.compile("done|simulated"), timeout=30_000)
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^Deploy")).click()
    expect(page.get_by_role("dialog").get_by_text("Every minute", exact=False).first).to_be_visible()
    page.goto(f"{server.url}/approvals")
    expect(page.get_by_text("Keep 42?").first).to_be_visible(timeout=90_000)
    shot("approvals")
    page.get_by_role("button", name="Approve").first.click()
    page.goto(f"{server.url}/runs")
    expect(page.get_by_text("succeeded", exact=False).first).to_be_visible(timeout=15_000)
