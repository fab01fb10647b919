"""The canvas in a real browser: every gesture by mouse and keyboard."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.drawing import Drawing, next_name, wires

pytestmark = pytest.mark.browser


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


def test_copy_and_paste_go_through_the_system_clipboard_and_between_agents(three: Drawing, canvas_address: str) -> None:
    three.root.focus()
    three.press("Control+a", "Control+c")
    parcel = json.loads(three.page.evaluate("navigator.clipboard.readText()"))
    assert {node["id"] for node in parcel["agent-factory/nodes"]["nodes"]} == {"start", "decide", "text"}
    three.press("Control+v")
    found = three.sees(6, 2)
    assert len({node["id"] for node in found["nodes"]}) == 6
    expect(three.page.locator(".afc-card.afc-selected")).to_have_count(3)
    other = Drawing(three.page.context.new_page(), canvas_address, next_name()).open()
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


def test_a_copy_of_a_webhook_has_an_address_of_its_own_and_one_that_is_moved_keeps_it(drawing: Drawing) -> None:
    drawing.open()
    drawing.post(
        "commit", [{"op": "add_node", "node": {"id": "h", "type": "trigger.webhook", "settings": {"path": "orders"}}}]
    )
    drawing.sees(1)
    drawing.node("trigger.webhook").click()
    drawing.press("Control+x")
    drawing.sees(0)
    drawing.press("Control+v")
    drawing.sees(1)
    drawing.until(lambda found: [node["settings"]["path"] for node in found["saved"]["nodes"]] == ["orders"])
    drawing.press("Control+v")
    drawing.sees(2)
    drawing.until(lambda found: len({node["settings"]["path"] for node in found["saved"]["nodes"]}) == 2)


def test_the_menu_copies_and_pastes_too(three: Drawing) -> None:
    three.node("validation.decide").click(button="right")
    three.page.get_by_role("menuitem", name="Copy").click()
    three.page.mouse.click(*three.below(), button="right")
    three.page.get_by_role("menuitem", name="Paste").click()
    three.sees(4, 1)


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
    heard = lambda: httpx.get(f"{three.address}/heard", verify=False).json()  # noqa: E731
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
    drawing.page.mouse.click(*drawing.below())
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
