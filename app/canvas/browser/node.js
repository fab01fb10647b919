/** One node on the canvas. It draws itself again only when something of its own changed. */
import { computed, defineComponent, inject, markRaw, nextTick, ref, watch } from "vue";
import { Handle, Position } from "@vue-flow/core";

const STATES = {
  running: { icon: "sync", words: "running" },
  retrying: { icon: "refresh", words: "trying again" },
  done: { icon: "check", words: "done" },
  simulated: { icon: "science", words: "simulated" },
  failed: { icon: "priority_high", words: "failed" },
  waiting: { icon: "hourglass_top", words: "waiting" },
  held: { icon: "pause", words: "held: waits for you" },
  reused: { icon: "inventory_2", words: "used an earlier result" },
  skipped: { icon: "redo", words: "skipped" },
};
const SUB_TYPES = new Set(["model", "tool", "memory"]);
/** Put the focus into a field as soon as it can take it: Vue Flow hides a new node until it has measured it. */
export function focusSoon(field, frames = 30) {
  field.value?.focus({ preventScroll: true });
  if (field.value && document.activeElement === field.value) return field.value.select?.();
  if (frames) requestAnimationFrame(() => focusSoon(field, frames - 1));
}

export const NodeCard = markRaw(
  defineComponent({
    name: "NodeCard",
    components: { Handle },
    inheritAttrs: false,
    props: ["id", "selected"],
    setup(props) {
      const canvas = inject("canvas");
      const { graph, kinds, status, breakpoints, findings, others } = canvas;
      const placed = computed(() => graph.nodes.get(props.id));
      const kind = computed(() => kinds[placed.value?.type]);
      const face = computed(() => graph.portsOf(props.id));
      // What hangs on an agent is drawn below it, and hangs there by the port on its own top.
      const sides = computed(() => {
        const isSub = (port) => SUB_TYPES.has(port.type);
        const { inputs, outputs } = face.value;
        return { inputs: inputs.filter((port) => !isSub(port)), outputs: outputs.filter((port) => !isSub(port)), below: inputs.filter(isSub), above: outputs.filter(isSub) };
      });
      const compact = computed(() => sides.value.inputs.length < 2 && sides.value.outputs.length < 2 && ![...face.value.inputs, ...face.value.outputs].some((port) => port.lost));
      const title = computed(() => placed.value?.name || kind.value?.title || placed.value?.type || "");
      const line = computed(() => {
        if (!kind.value) return "This node type is not installed here";
        return face.value.line || (placed.value?.name ? kind.value.title : kind.value.summary);
      });
      const state = computed(() => status.get(props.id) ?? null);
      const look = computed(() => STATES[state.value?.state] ?? null);
      const count = computed(() => {
        const now = state.value;
        if (!now) return "";
        if (now.total) return `${now.count ?? 0}/${now.total}`;
        return now.count > 1 ? String(now.count) : "";
      });
      const breaks = computed(() => breakpoints.has(props.id));
      const found = computed(() => findings.get(props.id) ?? []);
      const worst = computed(() => (found.value.some((finding) => finding.severity === "error") ? "error" : found.value.some((finding) => finding.severity === "warning") ? "warning" : "info"));
      const label = computed(() => {
        const words = [title.value, line.value];
        if (placed.value?.disabled) words.push("turned off");
        if (placed.value?.pinned) words.push("output is pinned");
        if (breaks.value) words.push("breakpoint");
        if (look.value) words.push(look.value.words);
        if (found.value.length) words.push(`${found.value.length} ${found.value.length === 1 ? "finding" : "findings"}: ${found.value[0].sentence}`);
        return words.filter(Boolean).join(", ");
      });
      const family = computed(() => kind.value?.family ?? "unknown");
      const naming = computed(() => canvas.naming.value === props.id);
      const field = ref(null);
      watch(naming, (now) => now && nextTick(() => focusSoon(field)));
      // Vue Flow measures handles when a node changes its size, not when they change places inside it.
      watch(() => JSON.stringify([face.value.inputs.map((port) => port.name), face.value.outputs.map((port) => port.name)]), () =>
        nextTick(() => canvas.flow.updateNodeInternals([props.id])));
      watch(label, (words) => canvas.flow.updateNode(props.id, { ariaLabel: words }), { immediate: true });
      const named = (save) => canvas.named(props.id, save ? field.value.value : null);
      const shape = (port) => [`afc-port-${port.type.replace("/", "-")}`, port.lost ? "afc-lost" : "", port.back ? "afc-back" : ""];
      const hint = (port) => [port.label, port.type === "any" ? "" : `(${port.type})`, port.help ? `– ${port.help}` : ""].filter(Boolean).join(" ");
      return { canvas, placed, kind, face, sides, compact, title, line, state, look, count, breaks, found, worst, label, family, naming, field, named, shape, hint, others, Position, SUB_TYPES };
    },
    template: `
      <div v-if="placed" class="afc-card" :class="['afc-is-' + family, {'afc-selected': selected, 'afc-off': placed.disabled, 'afc-rows': !compact, 'afc-unknown': !kind}]"
           :data-node="id" :data-type="placed.type" :data-state="state ? state.state : ''">
        <div class="afc-head">
          <Handle v-for="port in compact ? sides.inputs : []" :key="'i' + port.name" :id="port.name" type="target" :position="Position.Left" :class="shape(port)" :title="hint(port)" />
          <span class="afc-tile" aria-hidden="true"><i class="material-icons">{{ kind ? kind.icon : 'extension_off' }}</i></span>
          <div class="afc-words">
            <input v-if="naming" ref="field" class="afc-name nodrag nopan" :value="placed.name" :placeholder="kind ? kind.title : placed.type" maxlength="120"
                   aria-label="Name of the node" @keydown.enter.stop.prevent="named(true)" @keydown.esc.stop.prevent="named(false)" @keydown.stop @blur="named(true)" />
            <div v-else class="afc-title">{{ title }}</div>
            <div class="afc-line">{{ line }}</div>
          </div>
          <Handle v-for="port in compact ? sides.outputs : []" :key="'o' + port.name" :id="port.name" type="source" :position="Position.Right" :class="shape(port)" :title="hint(port)" />
        </div>
        <div v-if="!compact" class="afc-ports">
          <div class="afc-in">
            <div v-for="port in sides.inputs" :key="port.name" class="afc-port" :class="{'afc-lost': port.lost}">
              <Handle :id="port.name" type="target" :position="Position.Left" :class="shape(port)" :title="hint(port)" /><span>{{ port.label }}</span>
            </div>
          </div>
          <div class="afc-out">
            <div v-for="port in sides.outputs" :key="port.name" class="afc-port" :class="{'afc-lost': port.lost}">
              <span>{{ port.label }}</span><Handle :id="port.name" type="source" :position="Position.Right" :class="shape(port)" :title="hint(port)" />
            </div>
          </div>
        </div>
        <div v-if="sides.below.length" class="afc-below">
          <div v-for="port in sides.below" :key="port.name" class="afc-sub">
            <span>{{ port.label }}</span><Handle :id="port.name" type="target" :position="Position.Bottom" :class="['afc-hang', ...shape(port)]" :title="hint(port)" />
          </div>
        </div>
        <Handle v-for="port in sides.above" :key="'a' + port.name" :id="port.name" type="source" :position="Position.Top" :class="['afc-hang', 'afc-above', ...shape(port), kind && SUB_TYPES.has(kind.outputs[0]?.type) ? 'afc-always' : '']" :title="hint(port)" />
        <span v-if="breaks" class="afc-break" title="Tests are held before this step (F9)."></span>
        <div class="afc-badges">
          <span v-if="placed.pinned" class="afc-badge afc-pin" title="The output of this node is pinned: runs in the sandbox take it instead of running the node."><i class="material-icons">push_pin</i></span>
          <span v-if="placed.disabled" class="afc-badge afc-offmark" title="This node is turned off.">Off</span>
          <button v-if="found.length" type="button" class="afc-badge afc-finding nodrag" :class="'afc-' + worst" tabindex="-1" :aria-label="found.length + (found.length === 1 ? ' finding' : ' findings')"
                  @click.stop="canvas.open(id)" @dblclick.stop>
            <i class="material-icons">{{ worst === 'error' ? 'error' : worst === 'warning' ? 'warning' : 'info' }}</i>{{ found.length > 1 ? found.length : '' }}
            <span class="afc-tip" role="tooltip"><span v-for="(finding, i) in found.slice(0, 5)" :key="i">{{ finding.sentence }} <em v-if="finding.fix">{{ finding.fix }}</em></span>
              <span v-if="found.length > 5">and {{ found.length - 5 }} more</span></span>
          </button>
          <span v-if="look" class="afc-badge afc-state" :class="'afc-state-' + state.state" :title="state.detail || look.words"><i class="material-icons">{{ look.icon }}</i>{{ count }}</span>
        </div>
        <div v-for="person in others.get(id) || []" :key="person.id" class="afc-other" :style="{'--person': person.colour}"><span>{{ person.name }}</span></div>
      </div>`,
  }),
);

const COLOURS = ["yellow", "blue", "green", "pink", "grey"];

export const NoteCard = markRaw(
  defineComponent({
    name: "NoteCard",
    inheritAttrs: false,
    props: ["id", "selected"],
    setup(props) {
      const canvas = inject("canvas");
      const note = computed(() => canvas.graph.notes.get(props.id));
      const size = ref(null); // while it is being resized
      const field = ref(null);
      const editing = computed(() => canvas.naming.value === props.id);
      watch(editing, (now) => now && nextTick(() => focusSoon(field)), { immediate: true });
      watch(note, (now) => now && canvas.flow.updateNode(props.id, { ariaLabel: `Note: ${now.text || "empty"}` }), { immediate: true });
      function done() {
        if (editing.value) canvas.noted(props.id, field.value.value.slice(0, 10_000));
      }
      function resize(event) {
        const zoom = canvas.flow.viewport.value.zoom;
        const { width, height } = note.value;
        const from = { x: event.clientX, y: event.clientY };
        event.target.setPointerCapture(event.pointerId);
        event.target.onpointermove = (now) => {
          const round = (value) => Math.min(4000, Math.max(80, Math.round(value / 10) * 10));
          size.value = { width: round(width + (now.clientX - from.x) / zoom), height: round(height + (now.clientY - from.y) / zoom) };
        };
        event.target.onpointerup = () => {
          event.target.onpointermove = event.target.onpointerup = null;
          if (size.value) canvas.gestures.setNote(props.id, size.value);
          size.value = null;
        };
      }
      const box = computed(() => {
        const { width, height } = size.value ?? note.value;
        return { width: `${width}px`, height: `${height}px` };
      });
      return { canvas, note, field, editing, done, resize, box, COLOURS };
    },
    template: `
      <div v-if="note" class="afc-note" :class="['afc-note-' + note.color, {'afc-selected': selected}]" :style="box" :data-note="id" @dblclick.stop="canvas.edit(id)">
        <div v-if="selected && !canvas.readOnly && !editing" class="afc-swatches nodrag">
          <button v-for="colour in COLOURS" :key="colour" type="button" :class="'afc-note-' + colour" :aria-label="'Make the note ' + colour" :aria-pressed="note.color === colour"
                  @click.stop="canvas.gestures.setNote(id, {color: colour})"></button>
        </div>
        <textarea v-if="editing" ref="field" class="nodrag nopan nowheel" :value="note.text" maxlength="10000" aria-label="Text of the note"
                  placeholder="What should people know?" @blur="done" @keydown.esc.stop.prevent="done" @keydown.stop></textarea>
        <div v-else class="afc-notetext" :class="{'afc-empty': !note.text}">{{ note.text || 'Double-click to write' }}</div>
        <div v-if="!canvas.readOnly" class="afc-resize nodrag" @pointerdown.stop="resize"></div>
      </div>`,
  }),
);
