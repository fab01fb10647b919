"""The pages around the studio in a real browser: home, templates, runs, approvals, settings, and what agents host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from nodes.blueprint import Blueprint
from tests.app.pages.conftest import drawn, refund, sevens
from tests.server import Server

pytestmark = pytest.mark.browser

PASSWORD = "three unrelated words"
Shot = Callable[[str], None]


@pytest.fixture(scope="module")
def state(browser: Browser, server: Server) -> Iterator[Any]:
    """The cookies of the admin, signed in once for this file."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.setup_link)
    for label, text in (("Your name", "Ada Lovelace"), ("E-mail", "ada@example.com"), ("Team name", "Engine")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button").click()
    page.wait_for_url(f"{server.url}/")
    yield context.cookies()
    context.close()


@pytest.fixture
def ada(page: Page, state: Any) -> Page:
    """A tab of the admin."""
    page.context.add_cookies(state)
    return page


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


def made(page: Page, server: Server, document: Blueprint) -> str:
    """A new agent's id."""
    id_: str = call(page, server, "POST", "/blueprints", orjson.loads(document.canonical()))["id"]
    return id_


def card(page: Page, name: str) -> Locator:
    """An agent's card on the home page."""
    return page.locator("article").filter(has=page.get_by_role("heading", name=name, exact=True))


def started(page: Page, server: Server, blueprint_id: str, value: Any) -> str:
    """A new run's id."""
    run: str = call(page, server, "POST", f"/blueprints/{blueprint_id}/runs", {"input": value})["id"]
    return run


def no_wider_than_the_window(page: Page) -> bool:
    """Whether nothing makes the page scroll sideways."""
    fits: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fits


def test_a_newcomer_finds_a_way_to_begin(ada: Page, server: Server, shot: Shot) -> None:
    ada.goto(server.url)
    expect(ada.get_by_role("heading", name="Draw your first agent")).to_be_visible()
    shot("home-empty")
    ada.get_by_role("button", name="Start from a template").click()
    expect(ada.get_by_role("heading", name="Templates")).to_be_visible()
    shot("templates")
    ada.get_by_role("button", name="Order desk").click()
    expect(ada.get_by_role("heading", name=re.compile("What it does, in"))).to_be_visible()
    ada.get_by_role("dialog").get_by_role("button", name="Use this template").click()
    ada.wait_for_url("**/studio/**")
    ada.goto(server.url)
    expect(card(ada, "Order desk")).to_contain_text("Draft")


def test_a_double_click_on_a_button_counts_once(ada: Page, server: Server) -> None:
    before = len(call(ada, server, "GET", "/blueprints")["items"])
    ada.goto(server.url)
    ada.get_by_role("button", name=re.compile("^Draw")).dblclick()
    ada.wait_for_url("**/studio/**")
    ada.wait_for_function("window.__canvas?.wire.editor()")
    assert len(call(ada, server, "GET", "/blueprints")["items"]) == before + 1


def test_a_card_is_opened_renamed_copied_deleted_and_brought_back(ada: Page, server: Server) -> None:
    made(ada, server, drawn("Plain", [("m", "trigger.manual", "Start", {})]))
    ada.goto(server.url)
    card(ada, "Plain").get_by_role("button", name="More for Plain").click()
    ada.get_by_role("menuitem", name="Rename").or_(ada.get_by_text("Rename", exact=True)).first.click()
    ada.get_by_label("Name", exact=True).fill("Fancy")
    ada.get_by_role("button", name="Save").click()
    expect(card(ada, "Fancy")).to_be_visible()
    card(ada, "Fancy").get_by_role("button", name="More for Fancy").click()
    ada.get_by_text("Duplicate", exact=True).click()
    expect(card(ada, "Fancy (copy)")).to_be_visible()
    card(ada, "Fancy (copy)").get_by_role("button", name="More for").click()
    ada.get_by_text("Delete", exact=True).click()
    expect(card(ada, "Fancy (copy)")).to_have_count(0)
    ada.get_by_role("button", name="Undo").click()
    expect(card(ada, "Fancy (copy)")).to_be_visible()
    ada.get_by_label("Search your agents").fill("copy")
    expect(card(ada, "Fancy")).to_have_count(0)
    card(ada, "Fancy (copy)").get_by_role("link", name="Fancy (copy)").press("Enter")
    ada.wait_for_url("**/studio/**")


def test_an_agent_is_imported_run_and_decided_while_its_timeline_is_watched(
    ada: Page, server: Server, shot: Shot
) -> None:
    ada.goto(server.url)
    ada.get_by_role("button", name="Import").click()
    ada.get_by_label("Or paste its JSON here").fill(refund().canonical().decode())
    ada.get_by_role("dialog").get_by_role("button", name="Import", exact=True).click()
    ada.wait_for_url("**/studio/**")
    blueprint_id = ada.url.rpartition("/")[2]
    run_id = started(ada, server, blueprint_id, {"name": "Bo", "total": 80, "reason": "Arrived broken"})
    ada.goto(f"{server.url}/runs/{run_id}")
    expect(ada.get_by_role("heading", name="Refund 80 € to Bo?")).to_be_visible()
    expect(ada.get_by_role("link", name="Approvals").locator(".af-count")).to_have_text("1")
    shot("run-waiting")
    ada.get_by_label("Note", exact=True).fill("Fine by me")
    ada.get_by_role("button", name="Refund it").click()
    expect(ada.get_by_role("listitem").filter(has_text="Say yes")).to_contain_text("Succeeded")
    expect(ada.get_by_text("Not needed this time: “Say no”.")).to_be_visible()
    expect(ada.get_by_role("link", name="Approvals").locator(".af-count")).to_be_hidden()
    step = ada.get_by_role("listitem").filter(has_text="May it be refunded?")
    step.get_by_role("button").first.press("Enter")
    expect(step.get_by_text("Fine by me")).to_be_visible()
    ada.goto(f"{server.url}/approvals")
    expect(ada.get_by_text("Refunds: approved by Ada Lovelace. “Fine by me”")).to_be_visible()


def test_a_loop_of_a_hundred_items_unfolds_by_keyboard(ada: Page, server: Server, shot: Shot) -> None:
    run_id = started(ada, server, made(ada, server, sevens()), list(range(1, 101)))
    ada.goto(f"{server.url}/runs/{run_id}")
    line = ada.get_by_role("button", name="100 items: 14 failed, 86 succeeded")
    line.focus()
    ada.keyboard.press("Enter")
    expect(line).to_have_attribute("aria-expanded", "true")
    ada.get_by_role("button", name=re.compile("^Item 7 ")).or_(ada.get_by_text("Item 7", exact=True)).first.click()
    expect(ada.get_by_text("7 can be divided by seven.")).to_be_visible()
    shot("run-loop")


def test_the_bar_of_a_step_stands_where_the_step_was(ada: Page, server: Server) -> None:
    waits = drawn(
        "Waits",
        [
            ("m", "trigger.manual", "Start", {}),
            ("w", "flow.wait", "Rest", {"mode": "for", "amount": 1, "unit": "seconds"}),
            ("t", "action.text_template", "Write", {"template": "done"}),
        ],
        [("m", "value", "w", "value"), ("w", "value", "t", "value")],
    )
    run_id = started(ada, server, made(ada, server, waits), {})
    ada.goto(f"{server.url}/runs/{run_id}")
    last = ada.get_by_role("listitem").filter(has_text="Write")
    expect(last).to_contain_text("Succeeded")
    boxes = [
        ada.get_by_role("listitem").filter(has_text=name).locator(".af-span").bounding_box()
        for name in ("Start", "Rest", "Write")
    ]
    track = last.locator(".af-track").bounding_box()
    assert all(boxes) and track
    start, rest, write = (box["x"] for box in boxes if box)
    assert start <= rest <= write
    assert boxes[1] and boxes[1]["width"] > track["width"] * 0.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (390, 844)])
def test_no_page_is_wider_than_its_window(ada: Page, server: Server, width: int, height: int, scheme: Any) -> None:
    ada.set_viewport_size({"width": width, "height": height})
    ada.emulate_media(color_scheme=scheme)
    parts = ("model", "secrets", "files", "people", "tokens", "profile")
    for path in ("/", "/runs", "/approvals", "/templates", *(f"/settings/{part}" for part in parts)):
        ada.goto(server.url + path)
        expect(ada.locator("#content")).to_be_visible()
        assert no_wider_than_the_window(ada), path
        expect(ada.get_by_role("main")).to_have_count(1)


def test_settings_keep_a_secret_and_show_it_to_nobody(ada: Page, server: Server) -> None:
    ada.goto(f"{server.url}/settings/secrets")
    ada.get_by_role("button", name="Add a secret").first.click()
    ada.get_by_label("Name").fill("Orders key")
    ada.get_by_label("Value").fill("correct horse battery")
    ada.get_by_role("button", name="Save").click()
    expect(ada.get_by_role("dialog")).to_have_count(0)
    expect(ada.get_by_text("Orders key")).to_be_visible()
    assert "correct horse" not in ada.content()
    ada.goto(f"{server.url}/settings/model")
    ada.get_by_label("Key").click()
    expect(ada.get_by_role("option", name="Orders key")).to_be_visible()


def test_a_file_is_added_downloaded_and_deleted(ada: Page, server: Server) -> None:
    ada.goto(f"{server.url}/settings/files")
    ada.locator("input[type=file]").set_input_files(
        {"name": "prices.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"}
    )
    row = ada.locator(".af-row").filter(has_text="prices.csv")
    expect(row).to_contain_text("8 bytes, from Ada Lovelace")
    with ada.expect_download() as download:
        row.get_by_role("button", name="Download prices.csv").click()
    assert download.value.path().read_bytes() == b"a,b\n1,2\n"
    row.get_by_role("button", name="Delete prices.csv").click()
    ada.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)


def test_anybody_fills_in_a_form_and_talks_to_an_agent(ada: Page, page: Page, server: Server, browser: Browser) -> None:
    form = drawn(
        "Lunch",
        [
            (
                "f",
                "trigger.form",
                "Form",
                {"path": "lunch", "respond": "end", "fields": [{"name": "who", "label": "Your name"}]},
            ),
            ("t", "action.text_template", "Say", {"template": "Enjoy, {{ who }}!"}),
        ],
        [("f", "answers", "t", "value")],
    )
    chat = drawn(
        "Echo",
        [
            ("c", "trigger.chat", "Chat", {"path": "echo", "heading": "Echo"}),
            ("t", "action.text_template", "Echo", {"template": "You said: {{ value }}"}),
        ],
        [("c", "text", "t", "value")],
    )
    for document in (form, chat):
        call(ada, server, "POST", f"/blueprints/{made(ada, server, document)}/deploy", {})
    context = browser.new_context()
    visitor = context.new_page()
    visitor.goto(f"{server.url}/forms/lunch")
    visitor.get_by_role("button", name="Send").click()
    expect(visitor.get_by_label("Your name")).to_be_focused()
    expect(visitor.get_by_text("is still empty")).to_be_visible()
    visitor.keyboard.type("Bo")
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_text("Enjoy, Bo!")).to_be_visible()
    visitor.goto(f"{server.url}/chat/echo")
    expect(visitor.get_by_label("Your message")).to_be_focused()
    for text in ("one", "<b>two</b>"):
        visitor.keyboard.type(text)
        visitor.keyboard.press("Enter")
        expect(visitor.get_by_role("log")).to_contain_text(f"You said: {text}")
    assert visitor.url == f"{server.url}/chat/echo"
    assert visitor.locator(".af-talk b").count() == 0
    context.close()


def test_a_form_works_where_scripts_do_not(server: Server, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    visitor = context.new_page()
    visitor.goto(f"{server.url}/chat/echo")
    visitor.get_by_label("Your message").fill("without a script")
    visitor.get_by_role("button", name="Send").click()
    expect(visitor.get_by_role("log")).to_contain_text("You said: without a script")
    context.close()
