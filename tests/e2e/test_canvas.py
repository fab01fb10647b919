"""The canvas in a real browser: every gesture by mouse and keyboard, two tabs, a lost connection."""

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
from playwright.sync_api import Browser, Locator, Page, expect

from tests.services import ROOT, free_port

pytestmark = pytest.mark.browser
NAMES = (f"drawing_{number}" for number in count())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of its own that serves nothing but canvases."""
    port = free_port()
    # NiceGUI would take the server for a test of its own kind.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "NICEGUI"))}
    process = subprocess.Popen([sys.executable, "-m", "tests.e2e.canvas_page", str(port)], cwd=ROOT, env=kept)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.HTTPError):
            httpx.get(f"{url}/heard")
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
        found: dict[str, Any] = httpx.get(f"{self.address}/look/{self.name}").json()
        return found

    def post(self, what: str, said: object) -> None:
        httpx.post(f"{self.address}/{what}/{self.name}", content=json.dumps(said)).raise_for_status()

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

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture
def drawing(page: Page, address: str) -> Drawing:
    return Drawing(page, address, next(NAMES))


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


# --- adding and connecting ---------------------------------------------------------------------------------------------


def test_a_graph_is_drawn_by_mouse(drawing: Drawing) -> None:
    drawing.open()
    expect(drawing.page.get_by_text("Start with what sets your agent off")).to_be_visible()
    drawing.place("trigger.manual", 200, 200)
    expect(drawing.page.get_by_text("Start with what sets your agent off")).to_have_count(0)
    drawing.place("validation.decide", 560, 200)
    drawing.place("action.text_template", 900, 340)
    start, decide, text = (drawing.node(t) for t in ("trigger.manual", "validation.decide", "action.text_template"))
    drawing.connect(start, "value", decide, "value")
    drawing.connect(decide, "no", text, "value")
    found = drawing.sees(3, 2)
    ids = [drawing.id_of(t) for t in ("trigger.manual", "validation.decide", "action.text_template")]
    assert wires(found) == {(ids[0], "value", ids[1], "value"), (ids[1], "no", ids[2], "value")}
    assert {node["id"]: node["x"] % 10 for node in found["saved"]["nodes"]} == dict.fromkeys(ids, 0)


def test_the_empty_canvas_offers_triggers(drawing: Drawing) -> None:
    drawing.open()
    drawing.page.get_by_role("button", name="Run by hand").click()
    assert drawing.sees(1)["nodes"][0]["type"] == "trigger.manual"


def test_a_double_click_in_the_palette_adds_beside_what_is_there(drawing: Drawing) -> None:
    drawing.open()
    for _ in range(2):
        drawing.page.locator('[data-palette="validation.decide"]').dblclick()
    found = drawing.sees(2)
    assert found["nodes"][0]["y"] != found["nodes"][1]["y"]


def test_fitting_ports_light_up_and_a_wrong_one_is_refused_in_words(three: Drawing) -> None:
    three.post(
        "commit",
        [
            {"op": "add_node", "node": {"id": "split", "type": "action.split_list", "x": 320, "y": 220}},
            {"op": "add_node", "node": {"id": "aggregate", "type": "action.aggregate", "x": 640, "y": 220}},
        ],
    )
    three.sees(5)
    text, many = three.node("action.text_template"), three.node("action.aggregate")
    out = text.locator(".vue-flow__handle.source").first.get_attribute("data-handleid") or ""
    into = many.locator(".vue-flow__handle.target").first.get_attribute("data-handleid") or ""
    port = many.locator(".vue-flow__handle.target").first
    fits = three.page.evaluate(
        "([a, b, c, d]) => window.__canvas.graph.refusal({source: a, sourceHandle: b, target: c, targetHandle: d})",
        ["text", out, "aggregate", into],
    )
    three.drag(three.port(text, out, "source"), three.port(many, into, "target"), hold=True)
    expect(port).to_have_attribute("data-fits", "no" if fits else "yes")
    expect(three.node("trigger.manual").locator("xpath=..")).to_have_attribute("data-fits", "no")
    three.page.mouse.up()
    expect(three.page.locator("[data-fits]")).to_have_count(0)
    assert fits
    expect(three.page.get_by_role("alert")).to_contain_text("takes list")
    three.sees(5, 1)


def test_a_circle_is_refused_before_it_is_drawn(three: Drawing) -> None:
    three.connect(three.node("validation.decide"), "yes", three.node("action.text_template"), "value")
    three.sees(3, 2)
    text, decide = three.node("action.text_template"), three.node("validation.decide")
    out = text.locator(".vue-flow__handle.source").first.get_attribute("data-handleid") or ""
    three.connect(text, out, decide, "value")
    expect(three.page.get_by_role("alert")).to_contain_text("circle")
    three.sees(3, 2)


def test_a_line_let_go_over_a_node_takes_the_port_that_fits(three: Drawing) -> None:
    text = three.node("action.text_template")
    three.drag(three.port(three.node("validation.decide"), "yes", "source"), three.middle(text.locator(".afc-title")))
    assert ("decide", "yes", "text", "value") in wires(three.sees(3, 2))


def test_a_line_dragged_into_the_open_adds_a_fitting_node(three: Drawing) -> None:
    start = three.port(three.node("validation.decide"), "no", "source")
    three.drag(start, (start[0] + 120, start[1] + 260))
    expect(three.page.get_by_role("listbox")).to_be_visible()
    expect(three.page.locator('[role=option][data-key^="trigger."]')).to_have_count(0)
    three.choose("text templ")
    found = three.sees(4, 2)
    new = next(n["id"] for n in found["nodes"] if n["id"] not in ("start", "decide", "text"))
    assert ("decide", "no", new, "value") in wires(found)


def test_a_line_dragged_backwards_adds_what_comes_before(three: Drawing) -> None:
    end = three.port(three.node("action.text_template"), "value", "target")
    three.drag(end, (end[0] - 60, end[1] + 240))
    three.choose("webhook")
    found = three.sees(4, 2)
    assert any(target == "text" and port == "value" for _, _, target, port in wires(found))


def test_a_click_on_a_port_asks_what_comes_next_and_escape_closes(three: Drawing) -> None:
    x, y = three.port(three.node("validation.decide"), "yes", "source")
    three.page.mouse.click(x, y)
    expect(three.page.get_by_role("combobox")).to_be_focused()
    three.press("Escape")
    expect(three.page.get_by_role("combobox")).to_have_count(0)
    three.sees(3, 1)


def test_the_plus_on_a_connection_puts_a_node_in_between(three: Drawing) -> None:
    path = three.page.locator('.vue-flow__edge[data-id="first"] .vue-flow__edge-interaction')
    three.page.mouse.move(*three.middle(path))
    three.page.get_by_role("button", name="Put a node in between").click()
    three.choose("text templ")
    found = three.sees(4, 2)
    new = next(n for n in found["nodes"] if n["id"] not in ("start", "decide", "text"))
    assert {(a, c) for a, _, c, _ in wires(found)} == {("start", new["id"]), (new["id"], "decide")}
    moved = {n["id"]: n["x"] for n in found["nodes"]}
    assert moved["start"] < new["x"] < moved["decide"]
    three.press("Control+z")
    assert wires(three.sees(3, 1)) == {("start", "value", "decide", "value")}


def test_a_node_dropped_on_a_connection_goes_in_between(three: Drawing) -> None:
    path = three.page.locator('.vue-flow__edge[data-id="first"] .vue-flow__edge-interaction')
    x, y = three.middle(path)
    canvas = three.root.bounding_box()
    assert canvas
    three.place("action.text_template", x - canvas["x"], y - canvas["y"])
    three.sees(4, 2)


def test_the_end_of_a_connection_is_led_to_another_port(three: Drawing) -> None:
    x, y = three.port(three.node("validation.decide"), "value", "target")
    three.drag((x - 16, y), three.port(three.node("action.text_template"), "value", "target"))
    found = three.until(lambda found: wires(found) == {("start", "value", "text", "value")})
    assert found["revision"] == 2
    three.press("Control+z")
    three.until(lambda found: wires(found) == {("start", "value", "decide", "value")})


def test_a_connection_is_removed_by_menu_and_by_key(three: Drawing) -> None:
    path = three.page.locator('.vue-flow__edge[data-id="first"] .vue-flow__edge-path')
    three.page.mouse.click(*three.middle(path), button="right")
    three.page.get_by_role("menuitem", name="Remove the connection").click()
    three.sees(3, 0)
    three.press("Control+z")
    three.sees(3, 1)
    x, y = three.page.evaluate(
        """() => { const path = document.querySelector('.vue-flow__edge[data-id="first"] .vue-flow__edge-path');
                   const { x, y } = path.getPointAtLength(path.getTotalLength() * 0.2).matrixTransform(path.getScreenCTM());
                   return [x, y]; }"""
    )
    three.page.mouse.click(x, y)
    three.press("Delete")
    three.sees(3, 0)


# --- moving, selecting, removing, taking back ----------------------------------------------------------------------------


def test_drag_undo_redo(three: Drawing) -> None:
    x, y = three.middle(three.node("validation.decide").locator(".afc-title"))
    three.drag((x, y), (x + 100, y + 150))
    moved = three.until(lambda found: found["nodes"][1]["y"] > 0)
    at = (moved["nodes"][1]["x"], moved["nodes"][1]["y"])
    assert at == (420, 150)
    for keys, wanted in (("Control+z", (320, 0)), ("Control+Shift+z", at), ("Control+z", (320, 0)), ("Control+y", at)):
        three.press(keys)
        three.until(lambda found, wanted=wanted: (found["nodes"][1]["x"], found["nodes"][1]["y"]) == wanted)
        three.page.wait_for_function(
            "([x, y]) => { const at = window.__canvas.flow.findNode('decide').position; return at.x === x && at.y === y; }",
            arg=list(wanted),
        )


def test_box_select_moves_and_removes_together_and_undo_brings_back_the_connections(three: Drawing) -> None:
    canvas = three.root.bounding_box()
    assert canvas
    three.page.keyboard.down("Shift")
    three.drag((canvas["x"] + 20, canvas["y"] + 120), (canvas["x"] + 520, canvas["y"] + 420))
    three.page.keyboard.up("Shift")
    expect(three.page.locator(".afc-card.afc-selected")).to_have_count(2)
    x, y = three.middle(three.node("trigger.manual").locator(".afc-title"))
    three.drag((x, y), (x, y + 100))
    found = three.until(lambda found: found["nodes"][0]["y"] == 100)
    assert [node["y"] for node in found["nodes"]] == [100, 100, 0]
    assert found["revision"] == 2
    three.press("ArrowDown", "Shift+ArrowRight")
    three.until(lambda found: [(n["x"], n["y"]) for n in found["nodes"][:2]] == [(50, 110), (370, 110)])
    three.press("Delete")
    three.sees(1, 0)
    three.press("Control+z")
    assert wires(three.sees(3, 1)) == {("start", "value", "decide", "value")}


def test_select_all_and_escape(three: Drawing) -> None:
    three.root.focus()
    three.press("Control+a")
    expect(three.page.locator(".afc-card.afc-selected")).to_have_count(3)
    three.press("Escape")
    expect(three.page.locator(".afc-card.afc-selected")).to_have_count(0)


def test_tidy_up_is_one_step(three: Drawing) -> None:
    three.post("commit", [{"op": "move", "pos": {"start": [500, 400], "decide": [0, 0], "text": [30, 10]}}])
    three.until(lambda found: found["nodes"][0]["x"] == 500)
    three.root.focus()
    three.press("Shift+L")
    found = three.until(lambda found: found["nodes"][0]["x"] < found["nodes"][1]["x"])
    assert found["revision"] == 3
    three.press("Control+z")
    three.until(lambda found: [n["x"] for n in found["nodes"]] == [500, 0, 30])


# --- clipboard -----------------------------------------------------------------------------------------------------------


def test_copy_and_paste_go_through_the_system_clipboard_and_between_agents(three: Drawing, address: str) -> None:
    three.root.focus()
    three.press("Control+a", "Control+c")
    parcel = json.loads(three.page.evaluate("navigator.clipboard.readText()"))
    assert {node["id"] for node in parcel["agent-factory/nodes"]["nodes"]} == {"start", "decide", "text"}
    three.press("Control+v")
    found = three.sees(6, 2)
    assert len({node["id"] for node in found["nodes"]}) == 6
    expect(three.page.locator(".afc-card.afc-selected")).to_have_count(3)
    other = Drawing(three.page.context.new_page(), address, next(NAMES)).open()
    other.root.focus()
    other.press("Control+v")
    assert len(wires(other.sees(3, 1))) == 1


def test_cut_duplicate_and_paste_of_something_else(three: Drawing) -> None:
    three.node("validation.decide").click()
    three.press("Control+d")
    three.sees(4, 1)
    three.press("Control+x")
    three.sees(3, 1)
    three.press("Control+v")
    three.sees(4, 1)
    three.page.evaluate("navigator.clipboard.writeText('just a sentence')")
    three.press("Control+v")
    expect(three.page.locator(".afc-toast")).to_contain_text("no nodes")
    three.page.evaluate(
        """navigator.clipboard.writeText('{"agent-factory/nodes": {"nodes": [{"id": "x", "evil": 1}]}}')"""
    )
    three.press("Control+v")
    expect(three.page.get_by_role("alert")).to_contain_text("not valid")
    three.sees(4, 1)


def test_the_menu_copies_and_pastes_too(three: Drawing) -> None:
    three.node("validation.decide").click(button="right")
    three.page.get_by_role("menuitem", name="Copy").click()
    three.page.mouse.click(*_below(three), button="right")
    three.page.get_by_role("menuitem", name="Paste").click()
    three.sees(4, 1)


def _below(drawing: Drawing) -> tuple[float, float]:
    box = drawing.root.bounding_box()
    assert box
    return box["x"] + 500, box["y"] + 560


# --- keyboard ------------------------------------------------------------------------------------------------------------


def test_a_graph_is_drawn_by_keyboard_alone(drawing: Drawing) -> None:
    drawing.open()
    drawing.root.focus()
    drawing.press("a")
    drawing.choose("run by hand")
    drawing.sees(1)
    expect(drawing.page.locator(".afc-card.afc-selected")).to_have_count(1)
    drawing.press("a")
    drawing.choose("decide")
    drawing.sees(2, 1)
    drawing.press("Escape", "a")
    drawing.choose("text templ")
    drawing.sees(3, 1)
    drawing.press("c")
    drawing.choose("decide yes")
    found = drawing.sees(3, 2)
    assert any(port == "yes" for _, port, _, _ in wires(found))


def test_tab_and_arrows_go_from_node_to_node_and_out_again(three: Drawing) -> None:
    focused = "document.activeElement.closest('.vue-flow__node')?.dataset.id ?? null"
    three.root.focus()
    for wanted in ("start", "decide", "text"):
        three.press("Tab")
        assert three.page.evaluate(focused) == wanted
    three.press("Alt+ArrowLeft")
    assert three.page.evaluate(focused) == "decide"
    three.press("Shift+Tab")
    assert three.page.evaluate(focused) == "start"
    label = three.page.locator('.vue-flow__node[data-id="start"]').get_attribute("aria-label")
    assert label
    assert label.startswith("Run by hand")
    three.press("Alt+ArrowRight", "Alt+ArrowRight", "Tab")
    assert three.page.evaluate(focused) is None
    three.press("Tab")
    assert not three.page.evaluate("document.querySelector('.afc-canvas .vue-flow').contains(document.activeElement)")


def test_rename_turn_off_open_and_what_the_page_hears(three: Drawing) -> None:
    three.root.focus()
    three.press("Tab", "F2")
    three.page.keyboard.type("Every morning")
    three.press("Enter")
    three.until(lambda found: found["nodes"][0]["name"] == "Every morning")
    three.press("d")
    three.until(lambda found: found["nodes"][0]["disabled"])
    expect(three.node("trigger.manual").get_by_text("Off")).to_be_visible()
    three.press("Enter")
    three.node("validation.decide").dblclick()
    three.node("validation.decide").click(button="right")
    three.page.get_by_role("menuitem", name="Test up to here").click()
    heard = lambda: httpx.get(f"{three.address}/heard").json()  # noqa: E731
    until = time.monotonic() + 5
    while ["action", "until", "decide"] not in heard():
        assert time.monotonic() < until
    assert [said for said in heard() if said[0] == "open"][-2:] == [["open", "start"], ["open", "decide"]]
    assert ["selection", ["start"]] in heard()


def test_the_keys_are_shown(drawing: Drawing) -> None:
    drawing.open()
    drawing.root.focus()
    drawing.press("?")
    expect(drawing.page.get_by_role("dialog", name="Keys")).to_be_visible()
    drawing.press("Escape")
    expect(drawing.page.get_by_role("dialog", name="Keys")).to_have_count(0)


# --- notes, groups -------------------------------------------------------------------------------------------------------


def test_notes_are_written_coloured_resized_and_their_text_is_only_text(drawing: Drawing) -> None:
    drawing.open()
    drawing.root.focus()
    drawing.press("n")
    expect(drawing.page.get_by_label("Text of the note")).to_be_focused()
    drawing.page.keyboard.type("Why <img src=x onerror=alert(1)> {{ 1 + 1 }}")
    drawing.page.mouse.click(*_below(drawing))
    drawing.until(lambda found: found["notes"][0]["text"] == "Why <img src=x onerror=alert(1)> {{ 1 + 1 }}")
    expect(drawing.page.locator(".afc-note img")).to_have_count(0)
    drawing.page.locator(".afc-note").click()
    drawing.page.get_by_role("button", name="Make the note pink").click()
    drawing.until(lambda found: found["notes"][0]["color"] == "pink")
    box = drawing.page.locator(".afc-note").bounding_box()
    assert box
    corner = (box["x"] + box["width"] - 6, box["y"] + box["height"] - 6)
    drawing.drag(corner, (corner[0] + 80, corner[1] + 60))
    drawing.until(lambda found: (found["notes"][0]["width"], found["notes"][0]["height"]) == (300, 180))
    drawing.press("Delete")
    drawing.sees(0, 0, 0)
    drawing.press("Control+z")
    drawing.sees(0, 0, 1)


def test_a_group_frames_its_nodes_moves_them_and_is_taken_apart(three: Drawing) -> None:
    three.root.focus()
    three.press("Control+a", "Control+g")
    expect(three.page.get_by_label("Title of the group")).to_be_focused()
    three.page.keyboard.type("Morning mail")
    three.press("Enter")
    three.until(lambda found: [g["title"] for g in found["groups"]] == ["Morning mail"])
    title = three.page.locator(".afc-frametitle")
    x, y = three.middle(title)
    three.drag((x, y), (x + 50, y + 70))
    three.until(lambda found: [(n["x"], n["y"]) for n in found["nodes"]] == [(50, 70), (370, 70), (690, 70)])
    title.click(button="right")
    three.page.get_by_role("menuitem", name="Take apart").click()
    three.until(lambda found: not found["groups"])
    three.sees(3, 1)


# --- what the server shows -------------------------------------------------------------------------------------------------


def test_a_run_is_shown_on_nodes_and_connections(three: Drawing) -> None:
    three.post(
        "status", {"nodes": {"start": {"state": "done"}, "decide": {"state": "running", "count": 3, "total": 10}}}
    )
    expect(three.node("trigger.manual")).to_have_attribute("data-state", "done")
    expect(three.node("validation.decide").locator(".afc-state")).to_contain_text("3/10")
    three.post("status", {"nodes": {"decide": {"state": "failed"}, "start": None}, "edges": {"first": 12}})
    expect(three.node("validation.decide")).to_have_attribute("data-state", "failed")
    expect(three.node("trigger.manual")).to_have_attribute("data-state", "")
    expect(three.page.locator(".afc-count")).to_have_text("12")


def test_findings_are_badges_with_their_sentences(three: Drawing) -> None:
    found = {"node": "decide", "severity": "error", "sentence": "The condition is missing.", "fix": "Write one."}
    three.post("findings", [found, {**found, "severity": "warning", "sentence": "Nothing follows “no”."}])
    badge = three.node("validation.decide").get_by_role("button", name="2 findings")
    badge.hover()
    expect(badge.get_by_role("tooltip")).to_contain_text("The condition is missing. Write one.")
    three.post("findings", [])
    expect(badge).to_have_count(0)


def test_an_unknown_node_type_is_a_placeholder_with_its_connections(three: Drawing) -> None:
    three.post(
        "commit",
        [
            {"op": "add_node", "node": {"id": "far", "type": "action.from_elsewhere", "x": 640, "y": 220}},
            edge("second", "decide", "no", "far", "anything"),
        ],
    )
    three.sees(4, 2)
    expect(three.node("action.from_elsewhere")).to_contain_text("not installed here")
    expect(three.node("action.from_elsewhere").locator('[data-handleid="anything"]')).to_have_count(1)


def test_a_connection_to_a_lost_port_is_marked_and_kept(three: Drawing) -> None:
    three.post("commit", [{"op": "set", "id": "decide", "patch": {"policy": {"on_error": "port"}}}])
    expect(three.node("validation.decide").locator('[data-handleid="error"]')).to_have_count(1)
    three.post("commit", [edge("second", "decide", "error", "text", "value")])
    three.sees(3, 2)
    three.post("commit", [{"op": "set", "id": "decide", "patch": {"policy": {"on_error": "stop"}}}])
    expect(three.page.locator(".afc-broken")).to_have_count(1)
    expect(three.page.locator(".afc-why")).to_have_attribute(
        "aria-label", "“Decide” has no output “error” with its present settings."
    )
    three.post("commit", [{"op": "set", "id": "decide", "patch": {"policy": {"on_error": "port"}}}])
    expect(three.page.locator(".afc-broken")).to_have_count(0)


# --- two tabs, reloads, lost connections -------------------------------------------------------------------------------------


def test_two_people_see_each_other_and_undo_only_own_steps(three: Drawing, browser: Browser) -> None:
    context = browser.new_context()
    bo = Drawing(context.new_page(), three.address, three.name).open(person="Bo")
    bo.sees(3, 1)
    bo.node("action.text_template").click()
    expect(three.node("action.text_template").locator(".afc-other")).to_have_text("Bo")
    bo.press("Delete")
    three.sees(2, 1)
    three.page.get_by_role("button", name="Undo").click()
    expect(three.page.locator(".afc-toast")).to_contain_text("Bo removed what it changed")
    three.sees(0, 0)
    bo.press("Control+z")
    bo.sees(1)
    three.sees(1)
    context.close()
    expect(three.page.locator(".afc-other")).to_have_count(0, timeout=30_000)


def test_who_may_only_look_cannot_change_anything(three: Drawing, browser: Browser) -> None:
    context = browser.new_context()
    guest = Drawing(context.new_page(), three.address, three.name).open(person="Vi", look=1)
    guest.sees(3, 1)
    guest.node("validation.decide").click()
    guest.press("Delete", "ArrowDown", "Control+d")
    x, y = guest.middle(guest.node("validation.decide").locator(".afc-title"))
    guest.drag((x, y), (x + 80, y + 80))
    guest.page.evaluate("window.__canvas.wire.send('ops', [{op: 'remove_node', id: 'decide'}])")
    expect(guest.page.get_by_role("alert").last).to_contain_text("not change it")
    three.sees(3, 1)
    context.close()


def test_a_reload_keeps_the_graph_and_the_history(three: Drawing) -> None:
    three.node("action.text_template").click()
    three.press("Delete")
    three.sees(2, 1)
    three.page.reload()
    three.page.wait_for_function("window.__canvas?.wire.editor()")
    three.sees(2, 1)
    three.root.focus()
    three.press("Control+z")
    three.sees(3, 1)


def test_a_lost_connection_shows_and_what_was_done_meanwhile_arrives_once(three: Drawing) -> None:
    three.page.evaluate("window.socket.disconnect()")
    expect(
        three.page.get_by_text("Connection lost. Your changes are kept here and sent when it is back.")
    ).to_be_visible()
    three.root.focus()
    three.press("Control+a", "ArrowDown", "ArrowDown")
    three.press("Escape", "n")
    expect(three.page.get_by_label("Text of the note")).to_be_focused()
    three.page.keyboard.type("Written without a connection")
    three.page.mouse.click(*_below(three))
    assert three.look()["notes"] == []
    three.page.evaluate("window.socket.connect()")
    found = three.sees(3, 1, 1)
    assert found["notes"][0]["text"] == "Written without a connection"
    assert [node["y"] for node in found["nodes"]] == [20, 20, 20]
    expect(three.page.locator(".afc-banner")).to_have_count(0)
    three.page.wait_for_function("window.__canvas.wire.waiting() === 0")


def test_changes_made_without_a_connection_survive_a_reload(three: Drawing) -> None:
    three.page.evaluate("window.socket.disconnect()")
    three.root.focus()
    three.press("Control+a", "ArrowDown")
    expect(three.page.locator(".afc-banner")).to_be_visible()
    three.page.reload()
    three.until(lambda found: [node["y"] for node in found["nodes"]] == [10, 10, 10])
    expect(three.page.locator(".afc-toast")).to_contain_text("sent now")


def test_after_a_restart_what_had_arrived_is_not_done_twice_and_the_rest_is_done(three: Drawing) -> None:
    start = {"op": "add_node", "node": {"id": "start", "type": "trigger.manual", "x": 0, "y": 0}}
    late = {"op": "add_node", "node": {"id": "late", "type": "flow.wait", "x": 640, "y": 200}}
    kept = [{"seq": 7, "todo": "ops", "ops": [start]}, {"seq": 8, "todo": "ops", "ops": [late]}]
    three.page.evaluate(
        "([name, kept]) => sessionStorage.setItem(`agent-factory-canvas:${name}`, JSON.stringify(kept))",
        [three.name, {"editor": "editor_of_a_server_that_is_gone", "seq": 8, "pending": kept}],
    )
    three.page.reload()
    three.sees(4, 1)
    three.page.wait_for_function("window.__canvas.wire.waiting() === 0")
    expect(three.page.get_by_role("alert")).to_have_count(0)


def test_a_refused_change_is_taken_back_with_its_reason(three: Drawing) -> None:
    three.page.evaluate(
        """window.__canvas.gestures.commit([{op: 'add_edge',
           edge: {id: 'bad', source: 'decide', source_port: 'maybe', target: 'text', target_port: 'value'}}])"""
    )
    expect(three.page.get_by_role("alert")).to_contain_text("no output “maybe”")
    three.sees(3, 1)
    three.root.focus()
    three.press("n", "Escape")
    three.sees(3, 1, 1)


def test_a_message_that_makes_no_sense_is_answered_and_work_goes_on(three: Drawing) -> None:
    three.page.evaluate("window.__canvas.wire.send('explode')")
    expect(three.page.get_by_role("alert")).to_contain_text("could not be read")
    three.root.focus()
    three.press("Control+a", "ArrowDown")
    three.until(lambda found: [node["y"] for node in found["nodes"]] == [10, 10, 10])
    three.page.wait_for_function("window.__canvas.wire.waiting() === 0")


def test_a_missing_batch_is_sent_again(three: Drawing) -> None:
    three.page.evaluate(
        """() => {
             const { wire, graph } = window.__canvas;
             const emit = window.socket.emit;
             window.socket.emit = () => {};               // this one is lost on its way
             graph.apply([{op: 'move', pos: {start: [10, 10]}}]);
             wire.send('ops', [{op: 'move', pos: {start: [10, 10]}}]);
             window.socket.emit = emit;
             graph.apply([{op: 'move', pos: {decide: [330, 10]}}]);
             wire.send('ops', [{op: 'move', pos: {decide: [330, 10]}}]);
           }"""
    )
    three.until(lambda found: [node["y"] for node in found["nodes"]] == [10, 10, 0])
    three.page.wait_for_function("window.__canvas.wire.waiting() === 0")


# --- many nodes, small screens, contrast ---------------------------------------------------------------------------------------


def test_two_hundred_nodes_are_drawn_moved_and_sent(drawing: Drawing) -> None:
    drawing.open(nodes=200)
    expect(drawing.page.locator(".afc-card")).to_have_count(200)
    stats = drawing.page.evaluate("window.__canvas.stats")
    assert stats["firstRender"] > 0
    drawing.root.focus()
    drawing.press("Control+a", "ArrowDown")
    drawing.until(lambda found: found["revision"] == 1)
    drawing.page.wait_for_function("window.__canvas.stats.rtt.length > 0")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_on_the_canvas_can_be_read(three: Drawing, theme: str, size: tuple[int, int]) -> None:
    three.page.set_viewport_size({"width": size[0], "height": size[1]})
    three.open(theme=theme)
    three.sees(3, 1)
    three.node("validation.decide").click(button="right")
    expect(three.page.get_by_role("menu")).to_be_visible()
    poor = three.page.evaluate(
        CONTRAST, [".afc-title", ".afc-line", ".afc-port > span", ".afc-zoom", ".afc-menu button > span"]
    )
    assert poor == []
    inside = three.page.evaluate(
        """() => { const a = document.querySelector('.afc-menu').getBoundingClientRect(),
                         b = document.querySelector('.afc-canvas').getBoundingClientRect();
                   return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom; }"""
    )
    assert inside


CONTRAST = """
(selectors) => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => { for (let at = element; at; at = at.parentElement) { const c = rgb(getComputedStyle(at).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255]; };
  const poor = [];
  for (const selector of selectors) for (const element of document.querySelectorAll(selector)) {
    const a = light(rgb(getComputedStyle(element).color)), b = light(ground(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([selector, element.textContent, Math.round(ratio * 100) / 100]);
  }
  return poor;
}
"""
