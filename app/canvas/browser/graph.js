/** The document as this browser knows it. Vue Flow only shows it: every change comes through `apply`. */
import { shallowReactive } from "vue";

const ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz";

/** A new id such as `n_4f0k2m9x1c`. */
export function newId(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `${prefix}_${Array.from(bytes, (byte) => ALPHABET[byte % 36]).join("")}`;
}

export const clone = (value) => JSON.parse(JSON.stringify(value));

const fullNode = (node) => ({ name: "", settings: {}, policy: {}, disabled: false, pinned: null, x: 0, y: 0, ...node });
const fullNote = (note) => ({ text: "", x: 0, y: 0, width: 220, height: 120, color: "yellow", ...note });
const sameNames = (a, b) => a.length === b.length && a.every((name, i) => name === b[i]);

/**
 * `kinds` are the node types by name, `fitting` says which input types take an output type, `view` shows nodes and edges:
 * `view.reconcile(graph, nodeIds, edgeIds)`.
 */
export function createGraph(kinds, fitting, view) {
  const nodes = shallowReactive(new Map());
  const edges = shallowReactive(new Map());
  const notes = shallowReactive(new Map());
  const groups = shallowReactive(new Map());
  const faces = shallowReactive(new Map());
  const broken = shallowReactive(new Map());
  const ghosts = shallowReactive(new Map());

  // ---- reading --------------------------------------------------------------------------------------------------
  function faceOf(id) {
    const face = faces.get(id);
    if (face) return face;
    const kind = kinds[nodes.get(id)?.type];
    return kind ? { inputs: kind.inputs, outputs: kind.outputs, line: "", known: true } : { inputs: [], outputs: [], line: "", known: false };
  }
  /** Ports to draw: the node's own, then those that edges still lead to although they are gone. */
  function portsOf(id) {
    const face = faceOf(id);
    const ghost = ghosts.get(id);
    if (!ghost) return face;
    const lost = (name) => ({ name, label: name, type: "any", lost: face.known, help: face.known ? "This port is gone." : "" });
    return { ...face, inputs: [...face.inputs, ...ghost.inputs.map(lost)], outputs: [...face.outputs, ...ghost.outputs.map(lost)] };
  }
  const titleOf = (id) => {
    const node = nodes.get(id);
    return node ? node.name || kinds[node.type]?.title || node.type : "";
  };
  const fits = (out, into) => Boolean(fitting[out.type]?.includes(into.type));

  /** Why this connection cannot be, in words; null when it can. `gone` is an edge that would be replaced. */
  function refusal({ source, sourceHandle, target, targetHandle }, gone = null) {
    if (source === target) return "A node cannot be connected to itself.";
    const from = faceOf(source), to = faceOf(target);
    const out = from.outputs.find((port) => port.name === sourceHandle);
    const into = to.inputs.find((port) => port.name === targetHandle);
    if (from.known && !out) return "That output is not there any more.";
    if (to.known && !into) return "That input is not there any more.";
    if (out && into && !fits(out, into)) {
      return `“${out.label}” gives ${out.type}, and “${into.label}” of “${titleOf(target)}” takes ${into.type}.`;
    }
    for (const edge of edges.values()) {
      if (edge.id !== gone && edge.source === source && edge.target === target && edge.source_port === sourceHandle && edge.target_port === targetHandle) {
        return "These two ports are already connected.";
      }
    }
    if (!into?.back && leadsTo(target, source, gone)) {
      return `That would make a circle, because “${titleOf(target)}” already leads to “${titleOf(source)}”. To repeat steps, use “For each”.`;
    }
    return null;
  }
  function leadsTo(start, goal, gone) {
    const next = new Map();
    for (const edge of edges.values()) {
      if (edge.id === gone || faceOf(edge.target).inputs.find((port) => port.name === edge.target_port)?.back) continue;
      if (!next.has(edge.source)) next.set(edge.source, []);
      next.get(edge.source).push(edge.target);
    }
    const seen = new Set([start]);
    const queue = [start];
    for (const id of queue) {
      if (id === goal) return true;
      for (const after of next.get(id) ?? []) if (!seen.has(after)) seen.add(after), queue.push(after);
    }
    return false;
  }
  /** All nodes that come after this one. */
  function after(start) {
    const seen = new Set([start]);
    for (const id of seen) for (const edge of edges.values()) if (edge.source === id) seen.add(edge.target);
    return seen;
  }
  /** The port of `ports` that best takes (or gives) what the other port gives (or takes). */
  function bestPort(ports, other, side) {
    const fitted = ports.filter((port) => !port.lost && !port.back && (side === "inputs" ? fits(other, port) : fits(port, other)));
    return fitted.find((port) => port.type === other.type && port.required !== false) ?? fitted.find((port) => port.required !== false) ?? fitted[0];
  }

  // ---- changing -------------------------------------------------------------------------------------------------
  /** Apply operations as far as they make sense here; the server has the last word about them. */
  function apply(ops) {
    const touched = { nodes: new Set(), edges: new Set(), ends: new Set() };
    for (const op of ops) applyOne(op, touched);
    haunt(touched.ends);
    view.reconcile(graph, touched.nodes, touched.edges);
  }
  function applyOne(op, touched) {
    switch (op.op) {
      case "add_node":
        if (!nodes.has(op.node.id)) nodes.set(op.node.id, fullNode(op.node));
        touched.nodes.add(op.node.id);
        break;
      case "remove_node":
        for (const edge of [...edges.values()]) if (edge.source === op.id || edge.target === op.id) dropEdge(edge.id, touched);
        for (const group of [...groups.values()]) {
          if (!group.nodes.includes(op.id)) continue;
          const left = group.nodes.filter((id) => id !== op.id);
          if (left.length) groups.set(group.id, { ...group, nodes: left });
          else groups.delete(group.id);
        }
        nodes.delete(op.id);
        faces.delete(op.id);
        ghosts.delete(op.id);
        touched.nodes.add(op.id);
        break;
      case "move":
        for (const [id, [x, y]] of Object.entries(op.pos)) {
          const parts = nodes.has(id) ? nodes : notes;
          const part = parts.get(id);
          if (!part) continue;
          parts.set(id, { ...part, x, y });
          touched.nodes.add(id);
        }
        break;
      case "set":
        setNode(op);
        touched.ends.add(op.id);
        break;
      case "add_edge":
        if (nodes.has(op.edge.source) && nodes.has(op.edge.target)) edges.set(op.edge.id, op.edge);
        touched.edges.add(op.edge.id);
        touched.ends.add(op.edge.source).add(op.edge.target);
        break;
      case "remove_edge":
        dropEdge(op.id, touched);
        break;
      case "add_note":
        if (!notes.has(op.note.id)) notes.set(op.note.id, fullNote(op.note));
        touched.nodes.add(op.note.id);
        break;
      case "remove_note":
        notes.delete(op.id);
        touched.nodes.add(op.id);
        break;
      case "set_note":
        if (notes.has(op.id)) notes.set(op.id, { ...notes.get(op.id), ...op.patch });
        break;
      case "add_group":
        groups.set(op.group.id, { title: "", nodes: [], color: "grey", ...op.group });
        break;
      case "remove_group":
        groups.delete(op.id);
        break;
      case "set_group":
        if (groups.has(op.id)) groups.set(op.id, { ...groups.get(op.id), ...op.patch });
        break;
    }
  }
  function setNode({ id, patch, unset = [] }) {
    const node = nodes.get(id);
    if (!node) return;
    const changed = { ...node, ...patch, settings: { ...node.settings, ...patch.settings }, policy: { ...node.policy, ...patch.policy } };
    for (const name of unset) delete changed.settings[name];
    nodes.set(id, changed);
  }
  function dropEdge(id, touched) {
    const edge = edges.get(id);
    if (edge) touched.ends.add(edge.source).add(edge.target);
    edges.delete(id);
    broken.delete(id);
    touched.edges.add(id);
  }
  /** Find the ports that edges at these nodes still lead to although the nodes have them no more. */
  function haunt(ids) {
    if (!ids.size) return;
    const found = new Map();
    const note = (id, side, name) => {
      if (!ids.has(id) || !nodes.has(id) || faceOf(id)[side].some((port) => port.name === name)) return;
      if (!found.has(id)) found.set(id, { inputs: [], outputs: [] });
      const names = found.get(id)[side];
      if (!names.includes(name)) names.push(name);
    };
    for (const edge of edges.values()) {
      note(edge.source, "outputs", edge.source_port);
      note(edge.target, "inputs", edge.target_port);
    }
    for (const id of ids) {
      const now = found.get(id), before = ghosts.get(id);
      if (!now) ghosts.delete(id);
      else if (!before || !sameNames(now.inputs, before.inputs) || !sameNames(now.outputs, before.outputs)) ghosts.set(id, now);
    }
  }
  /** What the server worked out after a change: faces of nodes, and edges that fit no more (or again). */
  function learn(newFaces = {}, newBroken = {}) {
    for (const [id, face] of Object.entries(newFaces)) if (nodes.has(id)) faces.set(id, face);
    for (const [id, sentence] of Object.entries(newBroken)) {
      if (sentence && edges.has(id)) broken.set(id, sentence);
      else broken.delete(id);
    }
    haunt(new Set(Object.keys(newFaces)));
  }
  /** Take the server's snapshot in place of everything. */
  function load(snapshot) {
    const gone = new Set([...nodes.keys(), ...notes.keys()]);
    const goneEdges = new Set(edges.keys());
    for (const parts of [nodes, edges, notes, groups, faces, broken, ghosts]) parts.clear();
    fill(snapshot);
    for (const id of [...nodes.keys(), ...notes.keys()]) gone.add(id);
    for (const id of edges.keys()) goneEdges.add(id);
    view.reconcile(graph, gone, goneEdges);
  }
  /** Take the snapshot without showing it: Vue Flow is given the first one as a whole. */
  function fill(snapshot) {
    for (const node of snapshot.nodes) nodes.set(node.id, node);
    for (const edge of snapshot.edges) edges.set(edge.id, edge);
    for (const note of snapshot.notes) notes.set(note.id, note);
    for (const group of snapshot.groups) groups.set(group.id, group);
    for (const [id, face] of Object.entries(snapshot.faces)) faces.set(id, face);
    for (const [id, sentence] of Object.entries(snapshot.broken)) broken.set(id, sentence);
    haunt(new Set(nodes.keys()));
  }
  const counts = () => [nodes.size, edges.size, notes.size, groups.size];

  const graph = {
    nodes, edges, notes, groups, faces, broken,
    faceOf, portsOf, titleOf, fits, refusal, after, bestPort, apply, learn, load, fill, counts,
  };
  return graph;
}
