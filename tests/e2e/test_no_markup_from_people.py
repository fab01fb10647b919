"""What people, agents and callers write is shown as text on every page: none of it becomes markup, and no script of it runs.

A small corpus goes into every name, note, title, input, output and file name. Then each page is opened in a real browser:
`window.__xss` must not be set, and no element with the mark `data-xss` may exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.conftest import SIZE
from tests.server import Server

pytestmark = pytest.mark.browser
PASSWORD = "three unrelated words"
ACT = "window.__xss=1"
PAYLOADS = [
    f"<script data-xss>{ACT}</script>",
    f"</script><script data-xss>{ACT}</script>",
    f"</title><script data-xss>{ACT}</script>",
    f"</textarea><script data-xss>{ACT}</script>",
    f"</style><script data-xss>{ACT}</script>",
    f"--><script data-xss>{ACT}</script><!--",
    f"<img data-xss src=x onerror={ACT}>",
    f"<img data-xss src=x onerror='{ACT}' //",
    f'"><img data-xss src=x onerror="{ACT}">',
    f"'><img data-xss src=x onerror='{ACT}'>",
    f"`><img data-xss src=x onerror=`{ACT}`>",
    f"<svg data-xss onload={ACT}>",
    f"<svg data-xss/onload={ACT}//",
    f"<svg data-xss><script>{ACT}</script></svg>",
    f"<svg data-xss><animate onbegin={ACT} attributeName=x dur=1s>",
    f"<math data-xss><mtext></form><form><mglyph><style></math><img src onerror={ACT}>",
    f"<iframe data-xss src=javascript:parent.{ACT}></iframe>",
    f"<iframe data-xss srcdoc='<script>parent.{ACT}</script>'></iframe>",
    f"<body data-xss onload={ACT}>",
    f"<details data-xss open ontoggle={ACT}>",
    f"<video data-xss><source onerror={ACT}></video>",
    f"<audio data-xss src=x onerror={ACT}>",
    f"<input data-xss autofocus onfocus={ACT}>",
    f"<marquee data-xss onstart={ACT}>x</marquee>",
    f"<object data-xss data=javascript:{ACT}></object>",
    f"<a data-xss href=javascript:{ACT}>x</a>",
    f"[x](javascript:{ACT})<b data-xss>",
    f'![x](x"onerror="{ACT})<b data-xss>',
    f"<style data-xss>@import 'javascript:{ACT}'</style>",
    f"<link data-xss rel=stylesheet href=javascript:{ACT}>",
    f"<meta data-xss http-equiv=refresh content='0;url=javascript:{ACT}'>",
    f"<base data-xss href='javascript:{ACT}//'>",
    f"{{{{constructor.constructor('{ACT}')()}}}}<b data-xss>",
    f"${{{ACT}}}<b data-xss>",
    f"<%= {ACT} %><b data-xss>",
    f"\\u003cimg data-xss src=x onerror={ACT}\\u003e",
    f"&lt;img data-xss src=x onerror={ACT}&gt;",
    f"&#60;img data-xss src=x onerror={ACT}&#62;",
    f"%3Cimg%20data-xss%20src=x%20onerror={ACT}%3E",
    f"\u202e<b data-xss onmouseover={ACT}>",
    f'" data-xss onmouseover="{ACT}" x="',
    f"' data-xss autofocus onfocus='{ACT}' x='",
    f"javascript:{ACT}//<b data-xss>",
    f"<template data-xss><s onclick={ACT}></template>",
]


class House:
    """A server full of the corpus."""

    def __init__(self, server: Server) -> None:
        self.server = server
        word = parse_qs(urlsplit(server.setup_link).query)["token"][0]
        self.api = httpx.Client(base_url=f"{server.url}/api/v1", headers={"Origin": server.url}, timeout=60)
        made = self.api.post(
            "/setup",
            json={
                "token": word,
                "name": PAYLOADS[0],
                "email": "ada@example.com",
                "password": PASSWORD,
                "team": PAYLOADS[6],
            },
        )
        assert made.status_code == 201, made.text
        self.api.headers["X-CSRF-Token"] = made.json()["csrf"]

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.api.post(path, json=body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else None

    def fill(self) -> dict[str, str]:
        """Put the corpus everywhere; the addresses of the pages that show it."""
        for payload in PAYLOADS:
            self.post("/blueprints", {"name": payload[:120], "description": payload})
        everything = self.post("/blueprints", drawing())["id"]
        test = self.post(
            "/sandbox", {"blueprint": everything, "input": {"said": PAYLOADS, **dict.fromkeys(PAYLOADS, 1)}}
        )["id"]
        self.post(f"/blueprints/{everything}/versions", {"note": PAYLOADS[6]})
        failed = self.post(f"/blueprints/{self.post('/blueprints', failing())['id']}/runs", {"input": PAYLOADS})["id"]
        asking = self.post("/blueprints", questions())["id"]
        waiting = self.post(f"/blueprints/{asking}/runs", {"input": {"said": PAYLOADS}})["id"]
        self.post(f"/blueprints/{self.post('/blueprints', hosted())['id']}/deploy")
        for payload in PAYLOADS:
            name = payload.replace("/", "|").replace("\\", "|")
            self.api.post("/files", files={"file": (f"{name}.txt", payload.encode(), "text/html")})
            refused = self.api.put(f"/secrets/{quote(payload, safe='')}", json={"value": "x"})
            assert refused.status_code in (404, 422), refused.text
        self.post("/auth/tokens", {"name": PAYLOADS[6], "role": "viewer", "days": 1})
        return {
            "home": "/",
            "studio": f"/studio/{everything}",
            "runs": "/runs",
            "test run": f"/runs/{test}",
            "failed run": f"/runs/{failed}",
            "what needs attention": "/attention",
            "failed run to deal with": f"/attention/{failed}",
            "waiting run": f"/runs/{waiting}",
            "approvals": "/approvals",
            "templates": "/templates",
            **{
                f"settings {part}": f"/settings/{part}"
                for part in ("", "people", "secrets", "files", "model", "tokens", "system")
            },
            "form": "/forms/form",
            "chat": "/chat/talk",
        }


def drawing() -> dict[str, Any]:
    """An agent whose every part is named after the corpus."""
    nodes: list[dict[str, Any]] = [{"id": "go", "type": "trigger.manual", "name": PAYLOADS[0]}]
    edges, notes = [], []
    for number, payload in enumerate(PAYLOADS):
        settings = {"values": [{"name": "x", "value": payload}]} if number % 2 else {"template": payload}
        type_ = "context.set_values" if number % 2 else "action.text_template"
        place = {"x": 260 * (number % 7), "y": 140 * (number // 7)}
        nodes.append({"id": f"n{number}", "type": type_, "name": payload[:120], "settings": settings, **place})
        edges.append(
            {"id": f"e{number}", "source": "go", "source_port": "value", "target": f"n{number}", "target_port": "value"}
        )
        notes.append({"id": f"t{number}", "text": payload, "x": -400, "y": 140 * number})
    return {
        "name": PAYLOADS[8][:120],
        "description": PAYLOADS[6],
        "nodes": nodes,
        "edges": edges,
        "notes": notes,
        "groups": [{"id": "g", "title": PAYLOADS[6], "nodes": ["n1", "n2"]}],
        "variables": [{"name": "v", "value": PAYLOADS, "description": PAYLOADS[6]}],
    }


def failing() -> dict[str, Any]:
    """An agent that ends with an error in the words of the corpus."""
    return {
        "name": PAYLOADS[9],
        "nodes": [
            {"id": "go", "type": "trigger.manual"},
            {
                "id": "stop",
                "type": "validation.stop_error",
                "name": PAYLOADS[6],
                "settings": {"message": "{{ input }}"},
            },
        ],
        "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "stop", "target_port": "value"}],
    }


def questions() -> dict[str, Any]:
    """An agent that asks people what the corpus asks."""
    nodes: list[dict[str, Any]] = [{"id": "go", "type": "trigger.manual"}]
    edges = []
    for number, payload in enumerate(PAYLOADS[:20]):
        words = {
            "question": f"{{{{ said[{number}] }}}}",
            "details": payload.replace("{{", "("),
            "approve_label": payload[:40],
        }
        nodes.append({"id": f"n{number}", "type": "validation.approve", "name": payload[:120], "settings": words})
        edges.append(
            {"id": f"e{number}", "source": "go", "source_port": "value", "target": f"n{number}", "target_port": "value"}
        )
    return {"name": PAYLOADS[11], "nodes": nodes, "edges": edges}


def hosted() -> dict[str, Any]:
    """An agent with a form and a conversation, that says again what it was told."""
    fields = [
        {"name": f"f{number}", "label": payload[:100], "help": payload[:200], "required": False}
        for number, payload in enumerate(PAYLOADS)
    ]
    fields[0] |= {"kind": "choice", "choices": PAYLOADS[:4]}
    fields[1] |= {"kind": "choice", "choices": PAYLOADS[:9]}
    words = {"heading": PAYLOADS[2], "intro": "\n".join(PAYLOADS), "thanks": PAYLOADS[6]}
    chat = {"path": "talk", "heading": PAYLOADS[2], "welcome": "\n".join(PAYLOADS)[:2_000]}
    return {
        "name": PAYLOADS[12],
        "nodes": [
            {
                "id": "form",
                "type": "trigger.form",
                "settings": {"path": "form", "fields": fields, "respond": "end", **words},
            },
            {"id": "chat", "type": "trigger.chat", "settings": chat},
            {"id": "any", "type": "flow.merge", "settings": {"mode": "first"}},
            {"id": "back", "type": "action.respond", "settings": {}},
        ],
        "edges": [
            {"id": "e1", "source": "form", "source_port": "answers", "target": "any", "target_port": "values"},
            {"id": "e2", "source": "chat", "source_port": "text", "target": "any", "target_port": "values"},
            {"id": "e3", "source": "any", "source_port": "value", "target": "back", "target_port": "value"},
        ],
    }


@pytest.fixture(scope="module")
def pages(server: Server) -> dict[str, str]:
    """The pages by name, with the corpus in them."""
    return House(server).fill()


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server, pages: dict[str, str]) -> Iterator[Page]:
    """A tab of the admin that notes every dialog."""
    context = browser.new_context(viewport=SIZE)
    page = context.new_page()
    page.on("dialog", lambda dialog: (page.evaluate("window.__xss = 1"), dialog.dismiss()))
    page.goto(f"{server.url}/login")
    page.get_by_label("E-mail").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/")
    yield page
    context.close()


def assert_only_text(page: Page, name: str, *, shown: bool = True) -> None:
    """Nothing of the corpus has become anything but text, also after a moment, and under the mouse."""
    page.mouse.move(400, 300)
    page.mouse.move(500, 420)
    page.wait_for_timeout(250)
    assert page.evaluate("window.__xss") is None, name
    assert page.evaluate("document.querySelectorAll('[data-xss]').length") == 0, name
    if shown:
        assert "data-xss" in page.evaluate("document.body.innerText + document.title"), (
            f"{name} shows nothing of the corpus"
        )


SILENT = {"templates", "settings ", "settings model", "settings system", "settings secrets"}


def test_the_corpus_would_be_noticed(browser: Browser) -> None:
    """On a page that took it for markup, every payload leaves a trace or names itself harmless."""
    page = browser.new_page()
    noticed = 0
    for payload in PAYLOADS:
        page.set_content(f"<p>{payload}</p><p title='{payload}'></p>")
        noticed += bool(page.evaluate("window.__xss === 1 || document.querySelectorAll('[data-xss]').length > 0"))
    page.close()
    assert noticed >= len(PAYLOADS) - 6


def test_no_page_makes_markup_of_what_was_written(tab: Page, server: Server, pages: dict[str, str]) -> None:
    for name, path in pages.items():
        answer = tab.goto(f"{server.url}{path}", wait_until="load")
        assert answer is not None and answer.status < 400, (name, answer and answer.status)
        tab.wait_for_timeout(400)
        assert_only_text(tab, name, shown=name not in SILENT)


def test_the_studio_shows_settings_and_results_as_text(tab: Page, server: Server, pages: dict[str, str]) -> None:
    tab.goto(f"{server.url}{pages['studio']}")
    nodes = tab.locator(".vue-flow__node")
    nodes.first.wait_for()
    for number in (1, 2, 7, 8, 12):
        nodes.nth(number).dispatch_event("click")
        tab.wait_for_timeout(250)
        assert "data-xss" in tab.locator(".st-inspector").inner_html()
        assert_only_text(tab, f"node {number}")


def test_hosted_pages_say_again_what_they_were_told_as_text(tab: Page, server: Server, pages: dict[str, str]) -> None:
    tab.goto(f"{server.url}{pages['form']}")
    tab.locator("input[name=f7]").fill(PAYLOADS[6])
    tab.get_by_role("button", name="Send").click()
    tab.wait_for_load_state()
    assert_only_text(tab, "form's answer")
    tab.goto(f"{server.url}{pages['chat']}")
    for payload in PAYLOADS[:12]:
        tab.locator("#text").fill(payload)
        tab.get_by_role("button", name="Send").click()
        tab.wait_for_timeout(150)
    assert_only_text(tab, "conversation")
