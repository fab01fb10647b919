/** The canvas: Vue Flow shows the document, people draw in it, the server keeps it. */
import { computed, nextTick, onBeforeUnmount, onMounted, provide, reactive, ref, shallowReactive, shallowRef, watch } from "vue";
import { ConnectionMode, VueFlow, useVueFlow } from "@vue-flow/core";
import { Background } from "@vue-flow/background";
import { MiniMap } from "@vue-flow/minimap";
import { WireLine } from "agent-factory-canvas/edge.js";
import { FRAME_COLOURS, Frames } from "agent-factory-canvas/frames.js";
import { createGestures } from "agent-factory-canvas/gestures.js";
import { clone, createGraph, newId } from "agent-factory-canvas/graph.js";
import { createKeyboard } from "agent-factory-canvas/keyboard.js";
import { NodeCard, NoteCard } from "agent-factory-canvas/node.js";
import { Keys, Menu, Picker } from "agent-factory-canvas/popups.js";
import { createView, pictureOf } from "agent-factory-canvas/view.js";
import { createWire } from "agent-factory-canvas/wire.js";

const DRAGGED = "application/x-agent-node";
const NOTE_COLOURS = ["yellow", "blue", "green", "pink", "grey"];
const STARTERS = ["trigger.webhook", "trigger.schedule", "trigger.form", "trigger.manual"];
const nodeTypes = { card: NodeCard, note: NoteCard };
const edgeTypes = { wire: WireLine };

export default {
  components: { Background, Frames, Keys, Menu, MiniMap, Picker, VueFlow },
  props: { graph: String, types: String, options: Object },
  emits: ["hello", "batch", "sync", "selection", "open", "action"],
  setup(props, { emit }) {
    const began = performance.now();
    const { kinds, fitting } = JSON.parse(props.types);
    const options = { minimap: true, readOnly: false, hint: true, actions: [], key: "", ...clone(props.options ?? {}) };
    const readOnly = options.readOnly;
    const root = ref(null);
    const end = ref(null);
    const stats = { firstRender: undefined, rtt: [], frames: [], revision: 0 };
    const flowId = newId("flow");
    const flow = useVueFlow(flowId);

    // ---- what is said to the person ---------------------------------------------------------------------------------
    const toasts = shallowReactive([]);
    const spoken = ref("");
    function say(text, tone = "info") {
      spoken.value = text;
      if (tone === "quiet") return;
      const toast = { id: newId("s"), text, tone };
      toasts.push(toast);
      if (toasts.length > 3) toasts.shift();
      setTimeout(() => forget(toast), 3500 + text.length * 50);
    }
    const forget = (toast) => toasts.includes(toast) && toasts.splice(toasts.indexOf(toast), 1);

    // ---- the document, its picture, the line to the server ---------------------------------------------------------------
    let trusting = 0; // Vue Flow asks for each edge whether it is valid; what the document holds is
    const view = createView(flow, (change) => {
      trusting++;
      try {
        change();
      } finally {
        trusting--;
      }
    });
    const graph = createGraph(kinds, fitting, view);
    const wire = createWire({ key: options.key, graph, emit, say, stats, readOnly });
    const gestures = createGestures({ graph, flow, wire, kinds, say, root, readOnly });
    const status = shallowReactive(new Map());
    const breakpoints = shallowReactive(new Set());
    const counts = shallowReactive(new Map());
    const findings = shallowReactive(new Map());
    const others = shallowReactive(new Map());
    const people = shallowRef([]);
    const hovered = shallowRef(null);
    const naming = shallowRef(null); // what is being renamed or written on
    const zoom = ref(1);

    const first = props.graph ? JSON.parse(props.graph) : { revision: -1, nodes: [], edges: [], notes: [], groups: [], faces: {}, broken: {} };
    graph.fill(first);
    const initialNodes = [...[...graph.nodes.values()].map(pictureOf.node), ...[...graph.notes.values()].map(pictureOf.note)];
    const initialEdges = [...graph.edges.values()].map(pictureOf.edge);
    const empty = computed(() => graph.nodes.size === 0 && graph.notes.size === 0);

    // ---- popups -------------------------------------------------------------------------------------------------------------
    const popup = reactive({ kind: null, place: {}, entries: [], heading: "", empty: "", items: [], choose: null });
    function placeOf(x, y, width, height) {
      const box = root.value.getBoundingClientRect();
      const left = Math.max(8, Math.min(x - box.x, box.width - width - 8)), top = Math.max(8, Math.min(y - box.y, box.height - height - 8));
      return { left: `${left}px`, top: `${top}px`, maxHeight: `${Math.max(120, box.height - 16)}px` };
    }
    function showPicker(x, y, heading, entries, choose, none) {
      Object.assign(popup, { kind: "picker", place: placeOf(x, y, 320, 380), heading, entries, choose, empty: none });
    }
    function showMenu(x, y, items) {
      Object.assign(popup, { kind: "menu", place: placeOf(x, y, 240, items.length * 33 + 16), items });
    }
    function close() {
      if (!popup.kind) return false;
      popup.kind = null;
      nextTick(() => root.value?.contains(document.activeElement) || root.value?.focus({ preventScroll: true }));
      return true;
    }
    function chosen(entry) {
      const { choose } = popup;
      close();
      choose(entry);
    }
    const asEntries = (found) => found.map((each) => ({ ...each, key: each.kind.type, title: each.kind.title, note: each.kind.summary, icon: each.kind.icon, family: each.kind.family, words: each.kind.words }));
    const none = "No node type fits here.";
    function pick(x, y, at = null) {
      showPicker(x, y, "Add a node", asEntries(gestures.candidates()), ({ kind }) => gestures.add(kind.type, at), none);
    }
    function pickConnected(x, y, from, at) {
      const heading = from.side === "outputs" ? "What comes next?" : "What comes before?";
      showPicker(x, y, heading, asEntries(gestures.candidates({ from })), (entry) => gestures.addConnected(entry, from, at), none);
    }
    function pickBetween(edge, event) {
      const { x, y } = event.currentTarget.getBoundingClientRect();
      showPicker(x, y, "Put a node in between", asEntries(gestures.candidates({ edge })), (entry) => gestures.insert(entry, edge), "No node type fits between these two.");
    }
    const cornerOf = (id) => {
      const box = root.value.querySelector(`.vue-flow__node[data-id="${CSS.escape(id)}"]`)?.getBoundingClientRect();
      return box ? [box.right + 12, box.top] : middle();
    };
    const middle = () => {
      const box = root.value.getBoundingClientRect();
      return [box.x + box.width / 2 - 160, box.y + box.height / 2 - 190];
    };
    function pickAfter(id) {
      if (readOnly) return;
      const port = id && graph.portsOf(id).outputs.find((out) => !out.lost);
      if (port) pickConnected(...cornerOf(id), { node: id, side: "outputs", port: port.name }, null);
      else pick(...middle());
    }
    function pickTarget(id) {
      if (readOnly) return;
      if (!id) return say("Select the node first that you want to connect.");
      const entries = gestures.possible(id).map(({ source, out, target, into }, i) => {
        const away = source === id;
        const kind = kinds[graph.nodes.get(away ? target : source).type];
        return {
          key: `${i}`, source, out, target, into, icon: kind?.icon ?? "extension_off", family: kind?.family ?? "unknown",
          title: away ? `${out.label} → ${graph.titleOf(target)}` : `${graph.titleOf(source)} → ${into.label}`,
          note: away ? `into “${into.label}”` : `from “${out.label}”`, group: away ? "To" : "From",
        };
      });
      showPicker(...cornerOf(id), `Connect “${graph.titleOf(id)}”`, entries, ({ source, out, target, into }) => {
        if (gestures.connect(source, out.name, target, into.name)) say(`Connected “${graph.titleOf(source)}” to “${graph.titleOf(target)}”.`, "quiet");
      }, "There is nothing that it can be connected to.");
    }

    // ---- menus -----------------------------------------------------------------------------------------------------------------
    const flowPoint = (event) => flow.screenToFlowCoordinate({ x: event.clientX, y: event.clientY });
    function menuForNode(id, event) {
      if (!flow.findNode(id)?.selected) gestures.select([id]);
      const node = graph.nodes.get(id);
      const many = gestures.selectedNodes().length > 1;
      const own = options.actions.map((action) => ({ title: action.label, icon: action.icon, run: () => emit("action", { name: action.name, node: id }) }));
      const copy = { title: "Copy", icon: "content_copy", key: "Ctrl+C", run: () => gestures.copyByMenu() };
      if (graph.notes.has(id)) {
        if (readOnly) return showMenu(event.clientX, event.clientY, [copy]);
        return showMenu(event.clientX, event.clientY, [
          { title: "Write", icon: "edit", run: () => edit(id) }, copy, { title: "Duplicate", icon: "control_point_duplicate", key: "Ctrl+D", run: gestures.duplicate },
          null, { title: "Make the note", colours: NOTE_COLOURS, run: (color) => gestures.setNote(id, { color }) },
          null, { title: "Remove", icon: "delete", key: "Del", danger: true, run: () => gestures.remove() }]);
      }
      const open_ = { title: "Open settings", icon: "tune", key: "Enter", run: () => open(id) };
      if (readOnly) return showMenu(event.clientX, event.clientY, [open_, copy, ...own]);
      showMenu(event.clientX, event.clientY, [
        ...(many ? [] : [open_, ...own, null, { title: "Add what comes next", icon: "add", key: "A", run: () => pickAfter(id) }, { title: "Connect to…", icon: "cable", key: "C", run: () => pickTarget(id) }, { title: "Rename", icon: "edit", key: "F2", run: () => edit(id) }]),
        { title: node.disabled ? "Turn on" : "Turn off", icon: node.disabled ? "toggle_on" : "toggle_off", key: "D", run: () => gestures.toggle() },
        { title: "Put into a group", icon: "select_all", key: "Ctrl+G", run: groupSelected }, null,
        copy, { title: "Cut", icon: "content_cut", key: "Ctrl+X", run: () => gestures.copyByMenu(true) },
        { title: "Duplicate", icon: "control_point_duplicate", key: "Ctrl+D", run: gestures.duplicate }, null,
        { title: many ? "Remove all of these" : "Remove", icon: "delete", key: "Del", danger: true, run: () => gestures.remove() }]);
    }
    function menuForPane(event) {
      const at = flowPoint(event);
      const { clientX: x, clientY: y } = event;
      const look = [{ title: "Select all", icon: "select_all", key: "Ctrl+A", run: gestures.selectAll }, { title: "See all", icon: "fit_screen", key: "F", run: fit }, { title: "Keys", icon: "keyboard", key: "?", run: showKeys }];
      if (readOnly) return showMenu(x, y, look);
      showMenu(x, y, [
        { title: "Add a node…", icon: "add", key: "A", run: () => pick(x, y, { x: at.x, y: at.y - 34 }) }, { title: "Add a note", icon: "sticky_note_2", key: "N", run: () => addNote(at) },
        { title: "Paste", icon: "content_paste", key: "Ctrl+V", run: () => gestures.pasteByMenu(at) }, null,
        { title: "Tidy up", icon: "auto_awesome_mosaic", key: "Shift+L", run: gestures.tidy }, ...look]);
    }
    function menuForEdge(id, event) {
      if (readOnly) return;
      const { clientX: x, clientY: y } = event;
      const between = { title: "Put a node in between…", icon: "add", off: graph.broken.has(id), run: () => pickBetween(id, { currentTarget: { getBoundingClientRect: () => ({ x, y }) } }) };
      showMenu(x, y, [between, { title: "Remove the connection", icon: "link_off", danger: true, run: () => gestures.removeEdge(id) }]);
    }
    function menuForGroup(id, event) {
      if (readOnly) return;
      showMenu(event.clientX, event.clientY, [
        { title: "Rename", icon: "edit", run: () => edit(id) }, { title: "Select its nodes", icon: "select_all", run: () => gestures.select(graph.groups.get(id).nodes) }, null,
        { title: "Make the frame", colours: FRAME_COLOURS, run: (color) => gestures.setGroup(id, { color }) }, null,
        { title: "Take apart", icon: "layers_clear", run: () => gestures.ungroup(id) }]);
    }
    function menuByKeyboard(id) {
      const [x, y] = id ? cornerOf(id) : middle();
      id ? menuForNode(id, { clientX: x, clientY: y }) : menuForPane({ clientX: x, clientY: y });
    }

    // ---- small gestures ------------------------------------------------------------------------------------------------------------
    const open = (id) => emit("open", id);
    const edit = (id) => !readOnly && (naming.value = id);
    function named(id, name) {
      if (naming.value !== id) return;
      naming.value = null;
      if (name !== null) gestures.rename(id, name);
      root.value.querySelector(`.vue-flow__node[data-id="${CSS.escape(id)}"]`)?.focus({ preventScroll: true });
    }
    function noted(id, text) {
      naming.value = null;
      gestures.setNote(id, { text });
    }
    function addNote(at) {
      const id = gestures.addNote(at);
      if (id) nextTick(() => edit(id));
    }
    function groupSelected() {
      const id = gestures.group();
      if (typeof id === "string") nextTick(() => edit(id));
    }
    const fit = () => flow.fitView({ padding: 0.15, maxZoom: 1, duration: gestures.calm() ? 0 : 250 });
    const showKeys = () => (popup.kind = "keys");
    function escape() {
      if (close()) return;
      flow.removeSelectedElements();
      root.value.focus({ preventScroll: true });
    }
    let leaving = null;
    const hover = (id) => (clearTimeout(leaving), (hovered.value = id));
    const unhover = (id) => (leaving = setTimeout(() => hovered.value === id && (hovered.value = null), 180));
    const keyboard = createKeyboard({ graph, flow, gestures, root, end, open, ui: { edit, escape, fit, groupSelected, menuByKeyboard, pickAfter, pickTarget, showKeys, addNote: () => addNote(), writing: () => naming.value !== null } });

    // ---- connecting by mouse ----------------------------------------------------------------------------------------------------------
    let drag = null;
    let pressed = null;
    let dropped = false; // a line let go over the canvas ends with a click on it, which is not meant
    const asConnection = (from, to) => (from.type === "source" ? { source: from.nodeId, sourceHandle: from.handleId, target: to.nodeId, targetHandle: to.handleId } : { source: to.nodeId, sourceHandle: to.handleId, target: from.nodeId, targetHandle: from.handleId });
    const isValid = (connection) => trusting > 0 || !drag || graph.refusal(connection, drag.edge) === null;
    function startDrag(from, edge = null) {
      drag = { from, edge, made: false };
      for (const handle of root.value.querySelectorAll(".vue-flow__handle")) {
        const to = { nodeId: handle.dataset.nodeid, handleId: handle.dataset.handleid };
        const opposite = handle.classList.contains(from.type === "source" ? "target" : "source");
        handle.dataset.fits = opposite && graph.refusal(asConnection(from, to), edge) === null ? "yes" : "no";
      }
      for (const node of root.value.querySelectorAll(".vue-flow__node-card")) {
        const takes = node.dataset.id === from.nodeId || node.querySelector('[data-fits="yes"]');
        node.dataset.fits = takes ? "yes" : "no";
      }
      root.value.classList.add("afc-connecting");
    }
    function endDrag() {
      const ended = drag;
      drag = null;
      root.value.classList.remove("afc-connecting");
      for (const element of root.value.querySelectorAll("[data-fits]")) delete element.dataset.fits;
      return ended;
    }
    flow.onConnectStart(({ nodeId, handleId, handleType, event }) => {
      const at = event?.touches?.[0] ?? event;
      pressed = at ? { x: at.clientX, y: at.clientY } : null;
      startDrag({ nodeId, handleId, type: handleType });
    });
    flow.onConnect((connection) => {
      if (drag) drag.made = true;
      gestures.connect(connection.source, connection.sourceHandle, connection.target, connection.targetHandle);
    });
    flow.onConnectEnd((event) => {
      const ended = endDrag();
      dropped = true;
      setTimeout(() => (dropped = false));
      if (!ended || ended.made || !event || ended.edge) return;
      const { clientX: x, clientY: y } = event.changedTouches?.[0] ?? event;
      const under = document.elementFromPoint(x, y);
      const from = { node: ended.from.nodeId, side: ended.from.type === "source" ? "outputs" : "inputs", port: ended.from.handleId };
      const clicked = pressed && Math.hypot(x - pressed.x, y - pressed.y) < 4;
      if (readOnly) return;
      if (clicked) return pickConnected(x + 12, y, from, null);
      const handle = under?.closest(".vue-flow__handle");
      const card = under?.closest(".vue-flow__node-card");
      if (handle) {
        const wrongWay = handle.classList.contains(ended.from.type);
        const words = wrongWay ? "Connections lead from an output (right) to an input (left)." : graph.refusal(asConnection(ended.from, { nodeId: handle.dataset.nodeid, handleId: handle.dataset.handleid }));
        if (words) say(words, "bad");
      } else if (card && card.dataset.id !== from.node) {
        dropOnNode(card.dataset.id, ended.from, from);
      } else if (!card && root.value.contains(under)) {
        const at = flow.screenToFlowCoordinate({ x, y });
        pickConnected(x, y, from, at);
      }
    });
    /** Let go over a node instead of a port: take the port that fits. */
    function dropOnNode(id, start, from) {
      const port = graph.portsOf(from.node)[from.side].find((known) => known.name === from.port);
      const other = graph.bestPort(graph.faceOf(id)[from.side === "outputs" ? "inputs" : "outputs"], port, from.side === "outputs" ? "inputs" : "outputs");
      if (!other) return say(`“${graph.titleOf(id)}” has no ${from.side === "outputs" ? "input" : "output"} that fits “${port.label}” (${port.type}).`, "bad");
      const { source, sourceHandle, target, targetHandle } = asConnection(start, { nodeId: id, handleId: other.name });
      gestures.connect(source, sourceHandle, target, targetHandle);
    }
    flow.onEdgeUpdateStart(({ edge }) => !readOnly && nextTick(() => drag && (drag.edge = edge.id)));
    flow.onEdgeUpdate(({ edge, connection }) => gestures.reconnect(edge.id, connection));
    flow.onEdgeUpdateEnd(() => endDrag());

    // ---- moving, opening, selecting ----------------------------------------------------------------------------------------------------
    let watching = null;
    function watchFrames() {
      let last = performance.now();
      const tick = (now) => {
        stats.frames.push(now - last);
        last = now;
        watching = requestAnimationFrame(tick);
      };
      stats.frames = [];
      cancelAnimationFrame(watching);
      watching = requestAnimationFrame(tick);
    }
    const stopDrag = ({ nodes }) => {
      cancelAnimationFrame(watching);
      gestures.moved(nodes);
    };
    flow.onNodeDragStart(watchFrames);
    flow.onNodeDragStop(stopDrag);
    flow.onSelectionDragStart(watchFrames);
    flow.onSelectionDragStop(stopDrag);
    flow.onNodeDoubleClick(({ node }) => (graph.notes.has(node.id) ? edit(node.id) : open(node.id)));
    flow.onNodeContextMenu(({ node, event }) => (event.preventDefault(), menuForNode(node.id, event)));
    flow.onEdgeContextMenu(({ edge, event }) => (event.preventDefault(), menuForEdge(edge.id, event)));
    flow.onPaneContextMenu((event) => (event.preventDefault(), menuForPane(event)));
    flow.onSelectionContextMenu(({ event }) => (event.preventDefault(), menuForNode(gestures.selectedIds()[0], event)));
    flow.onPaneClick(() => dropped || (close(), root.value.focus({ preventScroll: true })));
    flow.onEdgeMouseEnter(({ edge }) => hover(edge.id));
    flow.onEdgeMouseLeave(({ edge }) => unhover(edge.id));
    flow.onViewportChange((port) => (zoom.value = port.zoom));
    let telling = null;
    watch(() => gestures.selectedIds().join(" "), () => {
      clearTimeout(telling);
      telling = setTimeout(() => emit("selection", { ids: gestures.selectedIds() }), 40);
    });

    // ---- palette, clipboard ---------------------------------------------------------------------------------------------------------------
    const pointer = { x: 0, y: 0, inside: false };
    const onPointermove = (event) => Object.assign(pointer, { x: event.clientX, y: event.clientY, inside: true });
    /** Shift draws a box; the browser would stretch a selection of text over the whole page as well. */
    function onMousedown(event) {
      if (!event.shiftKey || keyboard.inField(event.target)) return;
      event.preventDefault();
      root.value.focus({ preventScroll: true });
    }
    function onDragover(event) {
      if (readOnly || !event.dataTransfer.types.includes(DRAGGED)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
    }
    function onDrop(event) {
      const type = event.dataTransfer.getData(DRAGGED);
      if (!type) return;
      event.preventDefault();
      const at = flowPoint(event);
      const edge = document.elementFromPoint(event.clientX, event.clientY)?.closest(".vue-flow__edge")?.dataset.id;
      const between = edge && gestures.candidates({ edge }).find(({ kind }) => kind.type === type);
      if (between) gestures.insert(between, edge);
      else gestures.add(type, { x: at.x - 116, y: at.y - 34 });
      root.value.focus({ preventScroll: true });
    }
    let mine = false; // whether the canvas was used last: after a removal the focus is on nothing
    const claim = (event) => (mine = root.value?.contains(event.target) ?? false);
    const concerns = (event) => !keyboard.inField(event.target) && (root.value.contains(event.target) || (mine && event.target === document.body));
    const onCopy = (event) => concerns(event) && !String(document.getSelection()) && gestures.onCopy(event);
    const onCut = (event) => concerns(event) && gestures.onCut(event);
    const onPaste = (event) => concerns(event) && gestures.onPaste(event, pointer.inside ? flow.screenToFlowCoordinate(pointer) : null);

    // ---- life ---------------------------------------------------------------------------------------------------------------------------------
    flow.onNodesInitialized(() => {
      if (stats.firstRender !== undefined) return;
      stats.firstRender = performance.now() - began;
      flow.fitView({ padding: 0.15, maxZoom: 1 });
    });
    onMounted(() => {
      wire.start(first.revision);
      document.addEventListener("pointerdown", claim, true);
      document.addEventListener("copy", onCopy);
      document.addEventListener("cut", onCut);
      document.addEventListener("paste", onPaste);
      if (!initialNodes.length) stats.firstRender = performance.now() - began;
      window.__canvas = { stats, flow, graph, gestures, wire };
    });
    onBeforeUnmount(() => {
      wire.stop();
      document.removeEventListener("pointerdown", claim, true);
      document.removeEventListener("copy", onCopy);
      document.removeEventListener("cut", onCut);
      document.removeEventListener("paste", onPaste);
    });

    // ---- methods called from Python ---------------------------------------------------------------------------------------------------------------
    const replaceMap = (map, entries) => {
      const fresh = new Map(entries);
      for (const key of [...map.keys()]) if (!fresh.has(key)) map.delete(key);
      for (const [key, value] of fresh) if (JSON.stringify(map.get(key)) !== JSON.stringify(value)) map.set(key, value);
    };
    function set_status(nodes, edges) {
      for (const [id, value] of Object.entries(nodes)) value ? status.set(id, value) : status.delete(id);
      for (const [id, value] of Object.entries(edges)) value ? counts.set(id, value) : counts.delete(id);
    }
    function set_breakpoints(ids) {
      breakpoints.clear();
      for (const id of ids) breakpoints.add(id);
    }
    function clear_status() {
      status.clear();
      counts.clear();
    }
    const set_findings = (byNode) => replaceMap(findings, Object.entries(byNode));
    function set_presence(editors) {
      const rest = editors.filter((person) => person.id !== wire.editor());
      people.value = rest;
      const seen = new Map();
      for (const person of rest) for (const id of person.selection) seen.set(id, [...(seen.get(id) ?? []), { id: person.id, name: person.name, colour: person.colour }]);
      replaceMap(others, seen);
    }
    const focus_node = (id) => graph.nodes.has(id) && keyboard.visit(id);
    const add = (type) => gestures.add(type);
    const initials = (name) => name.split(/\s+/).map((word) => word[0]).join("").slice(0, 2).toUpperCase();

    const triggers = Object.values(kinds).filter((kind) => kind.family === "trigger");
    const starters = [...STARTERS.map((type) => kinds[type]).filter(Boolean), ...triggers.filter((kind) => !STARTERS.includes(kind.type))].slice(0, 4);
    const minimapColour = (node) => {
      const now = status.get(node.id)?.state;
      const known = { running: "info", done: "good", failed: "bad", waiting: "warn" }[now] ?? kinds[graph.nodes.get(node.id)?.type]?.family;
      return known ? `var(--c-${known})` : "var(--c-line)";
    };
    const toolbar = [
      { icon: "remove", title: "Zoom out", run: () => flow.zoomOut() }, { icon: "add", title: "Zoom in", run: () => flow.zoomIn() },
      { icon: "fit_screen", title: "See all (F)", run: fit },
      ...(readOnly ? [] : [null, { icon: "undo", title: "Undo (Ctrl+Z)", run: gestures.undo }, { icon: "redo", title: "Redo (Ctrl+Shift+Z)", run: gestures.redo }, null,
        { icon: "auto_awesome_mosaic", title: "Tidy up (Shift+L)", run: gestures.tidy }, { icon: "sticky_note_2", title: "Add a note (N)", run: () => addNote() }]),
      null, { icon: "keyboard", title: "Keys (?)", run: showKeys },
    ];

    const canvas = { graph, kinds, flow, gestures, status, breakpoints, counts, findings, others, hovered, naming, readOnly, open, edit, named, noted, hover, unhover, pickBetween, menuForEdge, menuForGroup };
    provide("canvas", canvas);
    return {
      nodeTypes, edgeTypes, flowId, root, end, options, readOnly, initialNodes, initialEdges, isValid, empty, popup, toasts, spoken, forget, online: wire.online, people, zoom,
      starters, toolbar, minimapColour, initials, close, chosen, pick, middle, add, ConnectionMode,
      onKeydown: keyboard.onKeydown, onMousedown, onPointermove, onPointerleave: () => (pointer.inside = false), onDragover, onDrop,
      welcome: wire.welcome, applied: wire.applied, refused: wire.refused, reset: wire.reset, resend: wire.resend,
      set_status, set_breakpoints, clear_status, set_findings, set_presence, select: gestures.select, fit, layout: gestures.tidy, focus_node, undo: gestures.undo, redo: gestures.redo, say,
    };
  },
  template: `
    <div ref="root" class="afc-canvas" :class="{'afc-far': zoom < 0.55, 'afc-farther': zoom < 0.3, 'afc-readonly': readOnly}" tabindex="0" role="application" aria-label="Canvas. Press question mark for the keys."
         @keydown="onKeydown" @mousedown="onMousedown" @dragover="onDragover" @drop="onDrop" @pointermove="onPointermove" @pointerleave="onPointerleave" @pointerdown="popup.kind && close()">
      <VueFlow :id="flowId" :nodes="initialNodes" :edges="initialEdges" :node-types="nodeTypes" :edge-types="edgeTypes" :is-valid-connection="isValid" :connection-mode="ConnectionMode.Strict"
               :delete-key-code="null" :multi-selection-key-code="['Control', 'Meta']" selection-key-code="Shift" selection-mode="partial" :min-zoom="0.08" :max-zoom="2" :zoom-on-double-click="false"
               :elevate-edges-on-select="true" :edges-updatable="!readOnly" :edge-updater-radius="14" :nodes-draggable="!readOnly" :nodes-connectable="!readOnly" :connection-radius="26" :connect-on-click="false"
               :disable-keyboard-a11y="true" :edges-focusable="false" :snap-to-grid="true" :snap-grid="[10, 10]" :node-drag-threshold="2">
        <template #zoom-pane><Frames /></template>
        <Background :gap="20" :size="1.4" color="var(--c-dot)" />
        <MiniMap v-if="options.minimap && !empty" pannable zoomable :node-color="minimapColour" :node-border-radius="10" :width="168" :height="112" mask-color="var(--c-mask)" aria-label="Overview" />
      </VueFlow>
      <div v-if="empty && options.hint" class="afc-hint">
        <h2>{{ readOnly ? 'This agent is empty' : 'Start with what sets your agent off' }}</h2>
        <template v-if="!readOnly">
          <p>Drag a trigger here from the list, or choose one:</p>
          <div class="afc-starters"><button v-for="kind in starters" :key="kind.type" type="button" class="afc-is-trigger" :title="kind.summary" @click="add(kind.type)">
            <span class="afc-tile" aria-hidden="true"><i class="material-icons">{{ kind.icon }}</i></span>{{ kind.title }}</button></div>
          <p class="afc-small">Then drag from its port to choose what comes next. <button type="button" class="afc-link" @click="pick(...middle())">All nodes</button></p>
        </template>
      </div>
      <div v-if="people.length" class="afc-people" aria-label="Also here"><span v-for="person in people.slice(0, 6)" :key="person.id" :style="{'--person': person.colour}" :title="person.name">{{ initials(person.name) }}</span></div>
      <div class="afc-toolbar" role="toolbar" aria-label="View">
        <template v-for="(tool, i) in toolbar" :key="i"><span v-if="!tool" class="afc-gap"></span>
          <button v-else type="button" :aria-label="tool.title" :title="tool.title" @click="tool.run()"><i class="material-icons" aria-hidden="true">{{ tool.icon }}</i></button></template>
        <span class="afc-zoom">{{ Math.round(zoom * 100) }} %</span>
      </div>
      <div v-if="!online" class="afc-banner" role="alert"><i class="material-icons" aria-hidden="true">cloud_off</i>Connection lost. Your changes are kept here and sent when it is back.</div>
      <Picker v-if="popup.kind === 'picker'" :entries="popup.entries" :heading="popup.heading" :empty="popup.empty" :place="popup.place" @choose="chosen" @close="close" />
      <Menu v-else-if="popup.kind === 'menu'" :items="popup.items" :place="popup.place" @close="close" />
      <Keys v-else-if="popup.kind === 'keys'" @close="close" />
      <div class="afc-toasts"><div v-for="toast in toasts" :key="toast.id" class="afc-toast" :class="'afc-tone-' + toast.tone" :role="toast.tone === 'bad' ? 'alert' : 'status'">
        <i class="material-icons" aria-hidden="true">{{ toast.tone === 'bad' ? 'error_outline' : 'info' }}</i><span>{{ toast.text }}</span><button type="button" aria-label="Close" @click="forget(toast)"><i class="material-icons" aria-hidden="true">close</i></button></div></div>
      <div class="afc-hidden" aria-live="polite">{{ spoken }}</div>
      <span ref="end" class="afc-hidden" tabindex="-1"></span>
    </div>`,
};
