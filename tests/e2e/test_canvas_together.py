"""The canvas in a real browser: what the server shows on it, two people, lost connections, many nodes, words to read."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.drawing import Drawing, edge

pytestmark = pytest.mark.browser


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
    three.page.mouse.click(*three.below())
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
