"""The first minute, by mouse and keyboard: the set-up link, signing out and in, light and dark, small and large."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.server import Server

pytestmark = pytest.mark.browser
PASSWORD = "three unrelated words"


def no_wider_than_the_window(page: Page) -> bool:
    """Whether nothing sticks out to the right."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_from_the_link_to_a_session_with_the_keyboard_alone(page: Page, server: Server) -> None:
    page.goto(server.setup_link)
    expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
    for width, height in ((1440, 900), (1024, 768), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        assert no_wider_than_the_window(page)
    page.get_by_label("Your name").focus()
    for text in ("Ada Lovelace", "ada@example.com", PASSWORD, "Engine"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/")
    page.goto(server.setup_link)
    assert page.url == f"{server.url}/"


def test_signing_in_says_what_is_wrong_and_then_works(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/settings?tab=model")
    expect(page).to_have_title("Sign in · Agent Factory")
    page.keyboard.type("ada@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type("something else")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("do not fit together")
    expect(page.get_by_label("E-mail")).to_have_value("ada@example.com")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/settings?tab=model")


def test_plain_pages_follow_the_systems_colours(page: Page, server: Server) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{server.url}/login")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_a_script_that_gets_into_a_plain_page_does_not_run(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/login")
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.__xss = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.__xss = 2'>");
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.__xss") is None
