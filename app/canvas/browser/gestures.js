/** What a person can do to the graph: each gesture becomes one batch of operations, shown at once and then sent. */
import { nextTick } from "vue";
import { clone, newId } from "./graph.js";
import { arrange } from "./layout.js";
import { GRID, snap } from "./view.js";

export const CLIPBOARD = "agent-factory/nodes";
const GAP = 290; // from one node's left side to the next one's

export function createGestures({ graph, flow, wire, kinds, say, root, readOnly }) {
  let copied = ""; // what was copied here last, for when the system's clipboard may not be read
  let pastes = 0;

  /** Show a finished gesture and send it. Returns false when nothing may be changed. */
  function commit(ops, { shown = false } = {}) {
    if (!ops.length) return false;
    if (readOnly) {
      say("You may look at this agent, but not change it.", "bad");
      return false;
    }
    if (!shown) graph.apply(ops);
    wire.send("ops", ops);
    return true;
  }

  // ---- selection ------------------------------------------------------------------------------------------------
  const selectedIds = () => flow.getSelectedNodes.value.map((node) => node.id);
  const selectedNodes = () => selectedIds().filter((id) => graph.nodes.has(id));
  function select(ids) {
    flow.removeSelectedElements();
    const found = ids.map((id) => flow.findNode(id)).filter(Boolean);
    if (found.length) flow.addSelectedNodes(found);
  }
  const selectSoon = (ids) => nextTick(() => select(ids));
  const selectAll = () => flow.addSelectedNodes(flow.nodes.value);

  // ---- adding ---------------------------------------------------------------------------------------------------
  const blank = (type, x, y) => ({ id: newId("n"), type, name: "", settings: {}, x: snap(x), y: snap(y) });
  /** A place near this one where no node lies yet. */
  function free(x, y) {
    const place = { x: snap(x), y: snap(y) };
    const taken = () => [...graph.nodes.values()].some((node) => Math.abs(node.x - place.x) < 200 && Math.abs(node.y - place.y) < 70);
    while (taken()) place.y += 100;
    return place;
  }
  function centre() {
    const box = root.value.getBoundingClientRect();
    return flow.screenToFlowCoordinate({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
  }
  function add(type, at = null) {
    if (!kinds[type]) return null;
    let place = at;
    if (!place) {
      const middle = centre();
      place = free(middle.x - 116, middle.y - 34);
    }
    const node = blank(type, place.x, place.y);
    if (!commit([{ op: "add_node", node }])) return null;
    selectSoon([node.id]);
    say(`Added “${kinds[type].title}”.`, "quiet");
    return node.id;
  }
  /** The node types that can follow (or come before) this port, or stand on this edge; with the ports to use. */
  function candidates({ from = null, edge = null } = {}) {
    const all = Object.values(kinds);
    if (edge) {
      const line = graph.edges.get(edge);
      const out = graph.faceOf(line.source).outputs.find((port) => port.name === line.source_port) ?? { type: "any" };
      const into = graph.faceOf(line.target).inputs.find((port) => port.name === line.target_port) ?? { type: "any" };
      return all.map((kind) => ({ kind, input: graph.bestPort(kind.inputs, out, "inputs"), output: graph.bestPort(kind.outputs, into, "outputs") }))
        .filter(({ input, output }) => input && output);
    }
    if (!from) return all.map((kind) => ({ kind }));
    const port = graph.portsOf(from.node)[from.side].find((known) => known.name === from.port);
    if (!port) return [];
    return from.side === "outputs"
      ? all.map((kind) => ({ kind, input: graph.bestPort(kind.inputs, port, "inputs") })).filter(({ input }) => input)
      : all.map((kind) => ({ kind, output: graph.bestPort(kind.outputs, port, "outputs") })).filter(({ output }) => output);
  }
  const link = (source, source_port, target, target_port) => ({ op: "add_edge", edge: { id: newId("e"), source, source_port, target, target_port } });
  /** Add a node that is connected to a port at once; `at` is where the pointer was. */
  function addConnected({ kind, input, output }, from, at = null) {
    const near = graph.nodes.get(from.node);
    const after = from.side === "outputs";
    const place = at ? { x: after ? at.x : at.x - 232, y: at.y - 34 } : free(near.x + (after ? GAP : -GAP), near.y);
    const node = blank(kind.type, place.x, place.y);
    const edge = after ? link(from.node, from.port, node.id, input.name) : link(node.id, output.name, from.node, from.port);
    if (!commit([{ op: "add_node", node }, edge])) return null;
    selectSoon([node.id]);
    say(`Added “${kind.title}” and connected it.`, "quiet");
    return node.id;
  }
  /** Put a node into a connection; what comes after makes room. */
  function insert({ kind, input, output }, edgeId) {
    const edge = graph.edges.get(edgeId);
    if (!edge) return null;
    const from = graph.nodes.get(edge.source), to = graph.nodes.get(edge.target);
    const room = to.x - from.x;
    const node = blank(kind.type, room >= 2 * GAP - 60 ? (from.x + to.x) / 2 : from.x + GAP, room > 0 ? (from.y + to.y) / 2 : from.y + 100);
    const ops = [{ op: "remove_edge", id: edgeId }, { op: "add_node", node }, link(edge.source, edge.source_port, node.id, input.name), link(node.id, output.name, edge.target, edge.target_port)];
    if (room > 0 && room < 2 * GAP - 60) {
      const pos = {};
      const before = graph.after(edge.target);
      for (const id of before) {
        const later = graph.nodes.get(id);
        if (later && later.x >= to.x && id !== edge.source) pos[id] = [later.x + snap(2 * GAP - room), later.y];
      }
      ops.push({ op: "move", pos });
    }
    if (!commit(ops)) return null;
    selectSoon([node.id]);
    say(`Put “${kind.title}” in between.`, "quiet");
    return node.id;
  }
  function connect(source, sourceHandle, target, targetHandle) {
    const wrong = graph.refusal({ source, sourceHandle, target, targetHandle });
    if (wrong) {
      say(wrong, "bad");
      return false;
    }
    return commit([link(source, sourceHandle, target, targetHandle)]);
  }
  /** Lead an edge to another port. */
  function reconnect(edgeId, { source, sourceHandle, target, targetHandle }) {
    const wrong = graph.refusal({ source, sourceHandle, target, targetHandle }, edgeId);
    if (wrong) return say(wrong, "bad");
    commit([{ op: "remove_edge", id: edgeId }, link(source, sourceHandle, target, targetHandle)]);
  }
  /** Every connection that can be made from or to this node, for choosing by keyboard. */
  function possible(id) {
    const found = [];
    for (const other of graph.nodes.keys()) {
      if (other === id) continue;
      for (const [source, target] of [[id, other], [other, id]]) {
        for (const out of graph.faceOf(source).outputs) {
          for (const into of graph.faceOf(target).inputs) {
            if (!graph.refusal({ source, sourceHandle: out.name, target, targetHandle: into.name })) found.push({ source, out, target, into });
          }
        }
      }
    }
    return found.sort((a, b) => (a.source === id ? 0 : 1) - (b.source === id ? 0 : 1));
  }

  // ---- changing what is there -------------------------------------------------------------------------------------
  function moved(nodes) {
    const pos = {};
    for (const { id, position } of nodes) {
      const part = graph.nodes.get(id) ?? graph.notes.get(id);
      const x = Math.round(position.x), y = Math.round(position.y);
      if (part && (part.x !== x || part.y !== y)) pos[id] = [x, y];
    }
    if (Object.keys(pos).length && !commit([{ op: "move", pos }])) graph.apply([{ op: "move", pos: placesOf(Object.keys(pos)) }]);
  }
  const placesOf = (ids) => Object.fromEntries(ids.map((id) => graph.nodes.get(id) ?? graph.notes.get(id)).filter(Boolean).map((part) => [part.id, [part.x, part.y]]));
  function nudge(dx, dy, far) {
    const step = far ? 5 * GRID : GRID;
    const pos = placesOf(selectedIds());
    for (const id of Object.keys(pos)) pos[id] = [pos[id][0] + dx * step, pos[id][1] + dy * step];
    if (Object.keys(pos).length) commit([{ op: "move", pos }]);
  }
  function remove(ids = selectedIds()) {
    const nodes = new Set(ids.filter((id) => graph.nodes.has(id)));
    const edges = [...graph.edges.values()].filter((edge) => flow.findEdge(edge.id)?.selected || nodes.has(edge.source) || nodes.has(edge.target));
    const ops = [
      ...edges.map((edge) => ({ op: "remove_edge", id: edge.id })),
      ...[...nodes].map((id) => ({ op: "remove_node", id })),
      ...ids.filter((id) => graph.notes.has(id)).map((id) => ({ op: "remove_note", id })),
    ];
    if (commit(ops)) say(nodes.size ? `Removed ${nodes.size === 1 ? "a node" : `${nodes.size} nodes`}.` : "Removed.", "quiet");
    root.value.focus({ preventScroll: true }); // what had the focus is gone
  }
  const removeEdge = (id) => commit([{ op: "remove_edge", id }]);
  function toggle(ids = selectedNodes()) {
    const off = ids.some((id) => !graph.nodes.get(id).disabled);
    commit(ids.map((id) => ({ op: "set", id, patch: { disabled: off } })));
  }
  function rename(id, name) {
    const clean = name.trim().slice(0, 120);
    if (graph.nodes.has(id) && graph.nodes.get(id).name !== clean) commit([{ op: "set", id, patch: { name: clean } }]);
  }
  function tidy() {
    const pos = arrange(graph, flow, selectedIds());
    if (Object.keys(pos).length) commit([{ op: "move", pos }]);
    nextTick(() => flow.fitView({ padding: 0.15, maxZoom: 1, duration: calm() ? 0 : 250 }));
  }
  const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  // ---- notes and groups -------------------------------------------------------------------------------------------
  function addNote(at = centre()) {
    const note = { id: newId("t"), text: "", x: snap(at.x - 110), y: snap(at.y - 60), width: 220, height: 120, color: "yellow" };
    if (!commit([{ op: "add_note", note }])) return null;
    selectSoon([note.id]);
    return note.id;
  }
  function setNote(id, patch) {
    const note = graph.notes.get(id);
    if (note && Object.keys(patch).some((name) => note[name] !== patch[name])) commit([{ op: "set_note", id, patch }]);
  }
  function group(ids = selectedNodes()) {
    if (!ids.length) return say("Select the nodes first that shall go into the group.");
    const ops = [];
    for (const other of graph.groups.values()) {
      const left = other.nodes.filter((id) => !ids.includes(id));
      if (!left.length) ops.push({ op: "remove_group", id: other.id });
      else if (left.length !== other.nodes.length) ops.push({ op: "set_group", id: other.id, patch: { nodes: left } });
    }
    const made = { id: newId("g"), title: "Group", nodes: ids, color: "grey" };
    return commit([...ops, { op: "add_group", group: made }]) ? made.id : null;
  }
  const ungroup = (id) => commit([{ op: "remove_group", id }]);
  const setGroup = (id, patch) => commit([{ op: "set_group", id, patch }]);

  // ---- clipboard -----------------------------------------------------------------------------------------------------
  function parcel(cut = false) {
    const chosen = new Set(selectedIds());
    const nodes = [...chosen].map((id) => graph.nodes.get(id)).filter(Boolean);
    const notes = [...chosen].map((id) => graph.notes.get(id)).filter(Boolean);
    if (!nodes.length && !notes.length) return "";
    const edges = [...graph.edges.values()].filter((edge) => chosen.has(edge.source) && chosen.has(edge.target) && !graph.broken.has(edge.id));
    const groups = [...graph.groups.values()].map((group) => ({ ...group, nodes: group.nodes.filter((id) => chosen.has(id)) })).filter((group) => group.nodes.length > 1);
    return JSON.stringify({ [CLIPBOARD]: { nodes, edges, notes, groups, cut } });
  }
  function remember(text) {
    copied = text;
    pastes = 0;
  }
  /** Read what a clipboard holds; null when it holds no nodes. */
  function unpack(text) {
    if (!text || text.length > 4_000_000 || !text.includes('"nodes"') && !text.includes(CLIPBOARD)) return null;
    try {
      const value = JSON.parse(text);
      const parts = value?.[CLIPBOARD] ?? value;
      if (!Array.isArray(parts?.nodes)) return null;
      const list = (name) => (Array.isArray(parts[name]) ? parts[name].filter((part) => part && typeof part.id === "string") : []);
      return { nodes: list("nodes"), edges: list("edges"), notes: list("notes"), groups: list("groups"), cut: parts.cut === true };
    } catch {
      return null;
    }
  }
  /** Put a parcel on the canvas: at the pointer, or beside what was copied. */
  function put(parts, at = null) {
    const all = [...parts.nodes, ...parts.notes];
    if (!all.length) return;
    pastes++;
    const corner = { x: Math.min(...all.map((part) => part.x || 0)), y: Math.min(...all.map((part) => part.y || 0)) };
    const dx = at ? snap(at.x - corner.x) : 40 * pastes, dy = at ? snap(at.y - corner.y) : 40 * pastes;
    const ids = new Map();
    for (const part of parts.nodes) ids.set(part.id, newId("n"));
    const placed = (part, id) => ({ ...clone(part), id, x: (part.x || 0) + dx, y: (part.y || 0) + dy });
    const notes = parts.notes.map((note) => placed(note, newId("t")));
    // What was cut moves with all that is its own, such as a webhook's address; everything else is one of several.
    const copy = !(parts.cut && pastes === 1);
    const ops = [
      ...parts.nodes.map((node) => ({ op: "add_node", node: placed(node, ids.get(node.id)), copy })),
      ...parts.edges.filter((edge) => ids.has(edge.source) && ids.has(edge.target))
        .map((edge) => link(ids.get(edge.source), edge.source_port, ids.get(edge.target), edge.target_port)),
      ...notes.map((note) => ({ op: "add_note", note })),
      ...parts.groups.map((group) => ({ ...group, nodes: (group.nodes ?? []).map((id) => ids.get(id)).filter(Boolean) })).filter((group) => group.nodes.length)
        .map((group) => ({ op: "add_group", group: { ...group, id: newId("g") } })),
    ];
    if (!commit(ops)) return;
    selectSoon([...ids.values(), ...notes.map((note) => note.id)]);
    say(`Added ${all.length === 1 ? "a copy" : `${all.length} copies`}.`, "quiet");
  }
  function duplicate() {
    const text = parcel();
    if (!text) return;
    pastes = 0;
    put(unpack(text));
  }
  function onCopy(event, cut = false) {
    const text = parcel(cut);
    if (!text) return;
    remember(text);
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    say("Copied.", "quiet");
  }
  function onCut(event) {
    if (!parcel() || readOnly) return;
    onCopy(event, true);
    remove();
  }
  function onPaste(event, at) {
    const parts = unpack(event.clipboardData.getData("text/plain"));
    event.preventDefault();
    if (parts) put(parts, at);
    else say("The clipboard holds no nodes of an agent.");
  }
  /** Copy and paste out of a menu: the system's clipboard where the browser lets us, else what was copied here. */
  async function copyByMenu(cut = false) {
    const text = parcel(cut);
    if (!text) return;
    remember(text);
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // not allowed here: it can still be pasted in this tab
    }
    if (cut) remove();
  }
  async function pasteByMenu(at) {
    let text = copied;
    try {
      text = (await navigator.clipboard.readText()) || copied;
    } catch {
      // not allowed: what was copied in this tab
    }
    const parts = unpack(text) ?? unpack(copied);
    if (parts) put(parts, at);
    else say("The clipboard holds no nodes of an agent.");
  }

  const undo = () => !readOnly && wire.send("undo");
  const redo = () => !readOnly && wire.send("redo");

  return {
    commit, selectedIds, selectedNodes, select, selectAll, add, addConnected, candidates, insert, connect, reconnect, possible,
    moved, nudge, remove, removeEdge, toggle, rename, tidy, addNote, setNote, group, ungroup, setGroup,
    duplicate, onCopy, onCut, onPaste, copyByMenu, pasteByMenu, undo, redo, centre, calm,
  };
}
