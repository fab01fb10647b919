/** The keyboard of the canvas: everything the mouse can do, from node to node in reading order. */

const inField = (target) => Boolean(target.closest("input, textarea, select, [contenteditable]"));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function createKeyboard({ graph, flow, gestures, root, end, ui, open }) {
  const element = (id) => root.value.querySelector(`.vue-flow__node[data-id="${CSS.escape(id)}"]`);
  const inOrder = () => [...graph.nodes.values()].sort((a, b) => a.x - b.x || a.y - b.y).map((node) => node.id);
  const focused = () => document.activeElement?.closest?.(".vue-flow__node")?.dataset.id ?? null;
  const current = () => focused() ?? gestures.selectedNodes()[0] ?? null;

  function visit(id) {
    gestures.select([id]);
    element(id)?.focus({ preventScroll: true });
    reveal(id);
  }
  /** Bring a node into view if it is not. */
  function reveal(id) {
    const box = root.value.getBoundingClientRect();
    const at = element(id)?.getBoundingClientRect();
    if (!at || (at.left >= box.left && at.right <= box.right && at.top >= box.top && at.bottom <= box.bottom)) return;
    const node = flow.findNode(id);
    const zoom = flow.viewport.value.zoom;
    flow.setCenter(node.position.x + node.dimensions.width / 2, node.position.y + node.dimensions.height / 2, { zoom, duration: gestures.calm() ? 0 : 150 });
  }
  function tab(back) {
    const order = inOrder();
    if (!order.length) return false;
    const now = focused();
    const next = now === null ? (back ? -1 : 0) : order.indexOf(now) + (back ? -1 : 1);
    if (next >= 0 && next < order.length) {
      visit(order[next]);
      return true;
    }
    if (now === null) return false;
    (back ? root.value : end.value).focus({ preventScroll: true }); // and from there on, out of the canvas
    return back;
  }
  /** The nearest node in a direction. */
  function towards([dx, dy]) {
    const from = graph.nodes.get(current());
    if (!from) return inOrder()[0] && visit(inOrder()[0]);
    let best = null, least = Infinity;
    for (const node of graph.nodes.values()) {
      const x = node.x - from.x, y = node.y - from.y;
      const along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (node.id === from.id || along <= 0) continue;
      const far = along + 2.5 * aside;
      if (far < least) [best, least] = [node.id, far];
    }
    if (best) visit(best);
  }

  function withModifier(key, shift) {
    if (key === "z") return shift ? gestures.redo() : gestures.undo();
    if (key === "y") return gestures.redo();
    if (key === "a") return gestures.selectAll();
    if (key === "d") return gestures.duplicate();
    if (key === "g") return ui.groupSelected();
    return false;
  }
  function plain(event) {
    const { key, shiftKey: shift, altKey: alt } = event;
    const id = current();
    if (ARROWS[key]) {
      if (alt) return towards(ARROWS[key]);
      return gestures.selectedIds().length ? gestures.nudge(...ARROWS[key], shift) : towards(ARROWS[key]);
    }
    if (alt) return false;
    if (key === "Tab") return tab(shift);
    if (key === "Delete" || key === "Backspace") return gestures.remove();
    if (key === "Enter" || key === " ") {
      const note = focused();
      if (graph.notes.has(note)) return ui.edit(note);
      return id ? (key === "Enter" ? open(id) : visit(id)) : false;
    }
    if (key === "Escape") return ui.escape();
    if (key === "F2") return id ? ui.edit(id) : false;
    if (key === "F10" && shift) return ui.menuByKeyboard(id);
    if (key === "ContextMenu") return ui.menuByKeyboard(id);
    if (key === "?") return ui.showKeys();
    if (key === "+" || key === "=") return flow.zoomIn();
    if (key === "-") return flow.zoomOut();
    switch (key.toLowerCase()) {
      case "a": return ui.pickAfter(id);
      case "c": return ui.pickTarget(id);
      case "d": return gestures.selectedNodes().length ? gestures.toggle() : false;
      case "n": return ui.addNote();
      case "f":
      case "1": return ui.fit();
      case "l": return shift ? gestures.tidy() : false;
    }
    return false;
  }
  function onKeydown(event) {
    if (inField(event.target) || event.isComposing || ui.writing()) return;
    const button = event.target.closest("button, [role=menuitem]");
    if (button && ["Enter", " ", "Tab"].includes(event.key)) return;
    const used = event.ctrlKey || event.metaKey ? withModifier(event.key.toLowerCase(), event.shiftKey) : plain(event);
    if (used === false) return;
    event.preventDefault();
    event.stopPropagation();
  }
  return { onKeydown, visit, inField };
}
