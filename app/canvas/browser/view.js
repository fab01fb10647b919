/** Vue Flow as the picture of the document: what is in the graph is on the screen, where the graph says. */
import { MarkerType } from "@vue-flow/core";

export const GRID = 10;
export const snap = (value) => Math.round(value / GRID) * GRID;

export const pictureOf = {
  node: (node) => ({ id: node.id, type: "card", position: { x: node.x, y: node.y } }),
  note: (note) => ({ id: note.id, type: "note", position: { x: note.x, y: note.y }, zIndex: -1, connectable: false }),
  edge: (edge) => ({
    id: edge.id, type: "wire", source: edge.source, sourceHandle: edge.source_port, target: edge.target, targetHandle: edge.target_port,
    markerEnd: { type: MarkerType.ArrowClosed, width: 14, height: 14 },
  }),
};

export function createView(flow, trust) {
  function reconcile(graph, nodeIds, edgeIds) {
    const lostEdges = [], lostNodes = [], newNodes = [], newEdges = [];
    for (const id of edgeIds) if (!graph.edges.has(id) && flow.findEdge(id)) lostEdges.push(id);
    for (const id of nodeIds) {
      const part = graph.nodes.get(id) ?? graph.notes.get(id);
      const shown = flow.findNode(id);
      if (!part) {
        if (shown) lostNodes.push(id);
      } else if (!shown) {
        newNodes.push(graph.nodes.has(id) ? pictureOf.node(part) : pictureOf.note(part));
      } else if (shown.position.x !== part.x || shown.position.y !== part.y) {
        flow.updateNode(id, { position: { x: part.x, y: part.y } });
      }
    }
    for (const id of edgeIds) if (graph.edges.has(id) && !flow.findEdge(id)) newEdges.push(pictureOf.edge(graph.edges.get(id)));
    trust(() => {
      if (lostEdges.length) flow.removeEdges(lostEdges);
      if (lostNodes.length) flow.removeNodes(lostNodes, true);
      if (newNodes.length) flow.addNodes(newNodes);
      if (newEdges.length) flow.addEdges(newEdges);
    });
  }
  return { reconcile };
}
