/** Automatic layout from left to right; groups stay together, notes go along with the node they lie next to. */
import dagre from "@dagrejs/dagre";
import { snap } from "./view.js";

const WIDTH = 232, HEIGHT = 68;

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
  for (const id of chosen) {
    const size = flow.findNode(id)?.dimensions;
    plan.setNode(id, { width: size?.width || WIDTH, height: size?.height || HEIGHT });
  }
  if (grouped) {
    for (const group of graph.groups.values()) {
      const members = group.nodes.filter((id) => chosen.has(id));
      if (members.length < 2) continue;
      plan.setNode(group.id, {});
      for (const id of members) plan.setParent(id, group.id);
    }
  }
  for (const edge of graph.edges.values()) {
    if (!chosen.has(edge.source) || !chosen.has(edge.target)) continue;
    const back = graph.faceOf(edge.target).inputs.find((port) => port.name === edge.target_port)?.back;
    if (!back) plan.setEdge(edge.source, edge.target, {}, edge.id);
  }
  dagre.layout(plan);
  const places = new Map();
  for (const id of chosen) {
    const at = plan.node(id);
    places.set(id, { x: at.x - at.width / 2, y: at.y - at.height / 2 });
  }
  return places;
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
