"""An admin sets a budget, an agent uses it up, and everybody who needs to know sees it: the run, Home and the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from threading import Thread

import orjson
import pytest
from playwright.sync_api import Page, expect

from tests.app.pages.conftest import drawn
from tests.e2e.test_dead_letters import PASSWORD, call
from tests.fakes.openai_server import KEY, OpenAiServer
from tests.server import Server

pytestmark = pytest.mark.browser

WRITER = drawn(
    "Newsletter",
    [
        ("m", "trigger.manual", "Asked for", {}),
        ("a", "action.ask_model", "Write it", {"prompt": "#say " + "word " * 1_000}),
    ],
    [("m", "value", "a", "value")],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`factory serve` with a model: gpt-4o, as the fake provider answers for it."""
    loop, provider = asyncio.new_event_loop(), OpenAiServer()
    thread = Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(provider.__aenter__(), loop).result(10)
    model = {"model": "openai/gpt-4o", "model_base_url": provider.base_url, "model_key": KEY}
    with Server(tmp_path_factory.mktemp("server") / "home", **model) as server:
        yield server
    asyncio.run_coroutine_threadsafe(provider.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_budget_is_set_in_dollars_used_up_and_said_where_people_look(
    page: Page, server: Server, shot: Callable[[str], None]
) -> None:
    page.goto(server.setup_link)
    for label, text in (("Your name", "Ada Lovelace"), ("E-mail", "ada@example.com"), ("Team name", "Engine")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button").click()
    page.wait_for_url(f"{server.url}/")
    agent = call(page, server, "POST", "/blueprints", orjson.loads(WRITER.canonical()))["id"]

    page.goto(f"{server.url}/settings/limits")
    page.get_by_label("Change: Budget of a day").click()
    field = page.get_by_label("At most (dollars)")
    expect(field).to_be_focused()
    field.fill("0.01")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("of $0.01")).to_be_visible()

    first = call(page, server, "POST", f"/blueprints/{agent}/runs", {"input": {}})["id"]
    page.goto(f"{server.url}/runs/{first}")
    expect(page.get_by_text("Succeeded").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("$0.0125 for models")).to_be_visible()

    second = call(page, server, "POST", f"/blueprints/{agent}/runs", {"input": {}})["id"]
    page.goto(f"{server.url}/runs/{second}")
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("Your team's budget for today, $0.01, is used up, so no model was asked.")
    expect(refusal).to_contain_text("under Settings → Limits. Then try the run again.")
    expect(page.get_by_role("button", name="Retry from the failed step")).to_be_visible()

    page.set_viewport_size({"width": 1024, "height": 768})
    box = refusal.bounding_box()
    assert box is not None and box["height"] < 250, "the reason is readable in a narrow window too"

    page.goto(server.url)
    expect(page.get_by_text("The budget for today is used up")).to_be_visible()
    page.get_by_text("The budget for today is used up").click()
    page.wait_for_url("**/settings/limits")
    expect(page.get_by_role("progressbar", name="Today: 100% of the budget")).to_be_visible()
    expect(page.get_by_role("link", name="Newsletter")).to_be_visible()
    for width, height in ((1024, 768), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot("budgets")
