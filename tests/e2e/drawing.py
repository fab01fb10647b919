"""A canvas in a browser tab, as tests use one: what a hand can do with it, and its document on the server.

Its fixtures `drawing` and `three` are for every test of this folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.services import ROOT, free_port

NAMES = (f"drawing_{number}" for number in count())


def next_name() -> str:
    """A name that no other test draws under."""
    return next(NAMES)


@pytest.fixture(scope="module")
def canvas_address() -> Iterator[str]:
    """A server of its own that serves nothing but canvases."""
    port = free_port()
    # NiceGUI would take the server for a test of its own kind.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "NICEGUI"))}
    process = subprocess.Popen([sys.executable, "-m", "tests.e2e.canvas_page", str(port)], cwd=ROOT, env=kept)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.HTTPError):
            httpx.get(f"{url}/heard", verify=False)
            break
        time.sleep(0.05)
    assert process.poll() is None
    yield url
    process.terminate()
    process.wait(10)


class Drawing:
    """One canvas in one tab, and its document on the server."""

    def __init__(self, page: Page, address: str, name: str) -> None:
        self.page, self.address, self.name = page, address, name

    def open(self, **query: object) -> Drawing:
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        self.page.goto(f"{self.address}/draw/{self.name}?{asked}")
        self.page.wait_for_function("window.__canvas?.wire.editor() && window.__canvas.stats.firstRender !== undefined")
        return self

    @property
    def root(self) -> Locator:
        return self.page.locator(".afc-canvas")

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.address}/look/{self.name}", verify=False).json()
        return found

    def post(self, what: str, said: object) -> None:
        answer = httpx.post(f"{self.address}/{what}/{self.name}", content=json.dumps(said), verify=False)
        answer.raise_for_status()

    def sees(self, nodes: int, edges: int | None = None, notes: int | None = None) -> dict[str, Any]:
        """The document on the server and on the screen, once they hold that much."""
        expect(self.page.locator(".afc-card")).to_have_count(nodes)
        if edges is not None:
            expect(self.page.locator(".vue-flow__edge")).to_have_count(edges)
        if notes is not None:
            expect(self.page.locator(".afc-note")).to_have_count(notes)
        wanted = [want for want in (nodes, edges, notes) if want is not None]
        return self.until(lambda found: [len(found[k]) for k in ("nodes", "edges", "notes")][: len(wanted)] == wanted)

    def until(self, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The document on the server, once this holds of it."""
        until = time.monotonic() + 8
        while not true(found := self.look()):
            assert time.monotonic() < until, found
            time.sleep(0.02)
        return found

    def node(self, type_: str, number: int = 0) -> Locator:
        return self.page.locator(f'.afc-card[data-type="{type_}"]').nth(number)

    def id_of(self, type_: str, number: int = 0) -> str:
        return str(self.node(type_, number).get_attribute("data-node"))

    def place(self, type_: str, x: float, y: float) -> None:
        """Drag an entry of the palette to that place of the canvas."""
        before = self.page.locator(".afc-card").count()
        entry = self.page.locator(f'[data-palette="{type_}"]')
        entry.scroll_into_view_if_needed()
        box, canvas = entry.bounding_box(), self.root.bounding_box()
        assert box
        assert canvas
        self.page.mouse.move(box["x"] + 20, box["y"] + 12)
        self.page.mouse.down()
        self.page.mouse.move(canvas["x"] + x - 30, canvas["y"] + y - 20, steps=4)
        self.page.mouse.move(canvas["x"] + x, canvas["y"] + y, steps=3)
        self.page.mouse.up()
        expect(self.page.locator(".afc-card")).to_have_count(before + 1)

    def port(self, node: Locator, name: str, side: str) -> tuple[float, float]:
        box = node.locator(f'.vue-flow__handle.{side}[data-handleid="{name}"]').bounding_box()
        assert box
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, hold: bool = False) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(start[0] + 2, start[1] + 2)
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        self.page.mouse.move(*end, steps=4)
        if not hold:
            self.page.mouse.up()

    def connect(self, source: Locator, out: str, target: Locator, into: str) -> None:
        self.drag(self.port(source, out, "source"), self.port(target, into, "target"))

    def choose(self, word: str) -> None:
        """Type into the open list and take the first entry."""
        field = self.page.get_by_role("combobox")
        expect(field).to_be_focused()
        self.page.keyboard.type(word)
        self.page.keyboard.press("Enter")
        expect(field).to_have_count(0)

    def middle(self, of: Locator) -> tuple[float, float]:
        box = of.bounding_box()
        assert box
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def below(self) -> tuple[float, float]:
        """A place of the canvas where nothing lies."""
        box = self.root.bounding_box()
        assert box
        return box["x"] + 500, box["y"] + 560

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture
def drawing(page: Page, canvas_address: str) -> Drawing:
    return Drawing(page, canvas_address, next_name())


@pytest.fixture
def three(drawing: Drawing) -> Drawing:
    """Run by hand → Decide, and a text template that is not connected."""
    drawing.open()
    drawing.post(
        "commit",
        [
            {"op": "add_node", "node": {"id": "start", "type": "trigger.manual", "x": 0, "y": 0}},
            {"op": "add_node", "node": {"id": "decide", "type": "validation.decide", "x": 320, "y": 0}},
            {"op": "add_node", "node": {"id": "text", "type": "action.text_template", "x": 640, "y": 0}},
            edge("first", "start", "value", "decide", "value"),
        ],
    )
    drawing.sees(3, 1)
    drawing.page.evaluate("window.__canvas.flow.setViewport({x: 60, y: 200, zoom: 1})")
    return drawing


def edge(id_: str, source: str, source_port: str, target: str, target_port: str) -> dict[str, Any]:
    ends = {"source": source, "source_port": source_port, "target": target, "target_port": target_port}
    return {"op": "add_edge", "edge": {"id": id_, **ends}}


def wires(found: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    return {(e["source"], e["source_port"], e["target"], e["target_port"]) for e in found["edges"]}
