/** Automatic layout from left to right; what hangs on an agent stands below it, groups stay together, notes go along with the node
 *  they lie next to. */
import dagre from "@dagrejs/dagre";
import { snap } from "./view.js";

const WIDTH = 232, HEIGHT = 68;
const BELOW = 70, BESIDE = 48;
const SUB_TYPES = new Set(["model", "tool", "memory"]);

/** New places of these nodes (all when `ids` is empty) and of the notes next to them. */
export function arrange(graph, flow, ids) {
  const chosen = new Set(ids.length > 1 ? ids.filter((id) => graph.nodes.has(id)) : graph.nodes.keys());
  if (!chosen.size) return {};
  let places;
  try {
    places = solve(graph, flow, chosen, true);
  } catch {
    places = solve(graph, flow, chosen, false); // a node in two groups has no tree of clusters
  }
  const whole = chosen.size === graph.nodes.size;
  const before = corner([...chosen].map((id) => graph.nodes.get(id)));
  const now = corner([...places.values()]);
  const shift = whole ? { x: -now.x, y: -now.y } : { x: before.x - now.x, y: before.y - now.y };
  const pos = {};
  for (const [id, at] of places) pos[id] = [snap(at.x + shift.x), snap(at.y + shift.y)];
  if (whole) for (const note of graph.notes.values()) follow(graph, note, pos);
  for (const [id, [x, y]] of Object.entries(pos)) {
    const part = graph.nodes.get(id) ?? graph.notes.get(id);
    if (part.x === x && part.y === y) delete pos[id];
  }
  return pos;
}

function solve(graph, flow, chosen, grouped) {
  const plan = new dagre.graphlib.Graph({ compound: grouped, multigraph: true }).setGraph({ rankdir: "LR", nodesep: 36, ranksep: 84, edgesep: 16 });
  plan.setDefaultEdgeLabel(() => ({}));
  const below = hanging(graph, flow, chosen);
  for (const id of chosen) if (!below.hung.has(id)) plan.setNode(id, { width: below.size(id).width, height: below.size(id).height });
  if (grouped) {
    for (const group of graph.groups.values()) {
      const members = group.nodes.filter((id) => chosen.has(id) && !below.hung.has(id));
      if (members.length < 2) continue;
      plan.setNode(group.id, {});
      for (const id of members) plan.setParent(id, group.id);
    }
  }
  for (const edge of graph.edges.values()) {
    if (!plan.hasNode(edge.source) || !plan.hasNode(edge.target)) continue;
    const back = graph.faceOf(edge.target).inputs.find((port) => port.name === edge.target_port)?.back;
    if (!back) plan.setEdge(edge.source, edge.target, {}, edge.id);
  }
  dagre.layout(plan);
  const places = new Map();
  for (const id of chosen) {
    if (below.hung.has(id)) continue;
    const at = plan.node(id);
    below.place(id, at.x - at.width / 2, at.y - at.height / 2, places);
  }
  return places;
}

/** What stands below agents: their models, memories and tools with the steps that follow from these. */
function hanging(graph, flow, chosen) {
  const next = new Map(), rows = new Map(), hung = new Set();
  const heads = [];
  for (const edge of graph.edges.values()) {
    if (!chosen.has(edge.source) || !chosen.has(edge.target)) continue;
    const out = graph.faceOf(edge.source).outputs.find((port) => port.name === edge.source_port);
    if (out && SUB_TYPES.has(out.type)) heads.push(edge);
    else next.set(edge.source, [...(next.get(edge.source) ?? []), edge.target]);
  }
  for (const { source, target } of heads) {
    if (hung.has(source) || source === target) continue;
    const row = [source];
    hung.add(source);
    for (const id of row) {
      for (const after of next.get(id) ?? []) if (!hung.has(after) && after !== target) row.push(after), hung.add(after);
    }
    rows.set(target, [...(rows.get(target) ?? []), row]);
  }
  // Agents that hang on each other in a circle have no place to begin: they stand like any other node.
  for (const id of [...hung]) {
    const seen = new Set();
    for (let at = id; hung.has(at) && !seen.has(at); ) {
      seen.add(at);
      at = [...rows].find(([, found]) => found.some((row) => row.includes(at)))?.[0];
      if (at === id) hung.clear(), rows.clear();
    }
  }
  const own = (id) => ({ width: flow.findNode(id)?.dimensions?.width || WIDTH, height: flow.findNode(id)?.dimensions?.height || HEIGHT });
  function size(id) {
    const box = own(id);
    const found = rows.get(id);
    if (!found) return box;
    const sizes = found.map((row) => row.map(size));
    const width = sizes.flat().reduce((sum, one) => sum + one.width + BESIDE, -BESIDE);
    return { width: Math.max(box.width, width), height: box.height + BELOW + Math.max(...sizes.flat().map((one) => one.height)) };
  }
  function place(id, x, y, places) {
    places.set(id, { x, y });
    const top = y + own(id).height + BELOW;
    for (const row of rows.get(id) ?? []) {
      for (const inside of row) {
        place(inside, x, top, places);
        x += size(inside).width + BESIDE;
      }
    }
  }
  return { hung, size, place };
}

function corner(points) {
  return { x: Math.min(...points.map((point) => point.x)), y: Math.min(...points.map((point) => point.y)) };
}

function follow(graph, note, pos) {
  let nearest = null, least = Infinity;
  for (const node of graph.nodes.values()) {
    const away = Math.hypot(node.x + WIDTH / 2 - (note.x + note.width / 2), node.y + HEIGHT / 2 - (note.y + note.height / 2));
    if (away < least) [nearest, least] = [node, away];
  }
  const moved = nearest && pos[nearest.id];
  if (moved) pos[note.id] = [snap(note.x + moved[0] - nearest.x), snap(note.y + moved[1] - nearest.y)];
}
