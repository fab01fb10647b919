/** Groups: a frame behind its members, with a title that can be dragged to move them all. */
import { computed, defineComponent, inject, markRaw, nextTick, ref, watch } from "vue";
import { focusSoon } from "./node.js";

const PAD = 20, TOP = 44;
const COLOURS = ["grey", "yellow", "blue", "green", "pink"];

const Frame = markRaw(
  defineComponent({
    name: "Frame",
    props: ["id"],
    setup(props) {
      const canvas = inject("canvas");
      const group = computed(() => canvas.graph.groups.get(props.id));
      const members = computed(() => (group.value?.nodes ?? []).map((id) => canvas.flow.findNode(id)).filter(Boolean));
      const box = computed(() => {
        if (!members.value.length) return null;
        let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
        for (const { computedPosition: at, dimensions } of members.value) {
          left = Math.min(left, at.x);
          top = Math.min(top, at.y);
          right = Math.max(right, at.x + (dimensions.width || 232));
          bottom = Math.max(bottom, at.y + (dimensions.height || 68));
        }
        return { transform: `translate(${left - PAD}px, ${top - TOP}px)`, width: `${right - left + 2 * PAD}px`, height: `${bottom - top + PAD + TOP}px` };
      });
      const field = ref(null);
      const editing = computed(() => canvas.naming.value === props.id);
      watch(editing, (now) => now && nextTick(() => focusSoon(field)), { immediate: true });
      function done(save) {
        if (!editing.value) return;
        const title = field.value.value.trim().slice(0, 120);
        canvas.naming.value = null;
        if (save && title !== group.value.title) canvas.gestures.setGroup(props.id, { title });
      }
      function drag(event) {
        if (event.button !== 0 || canvas.readOnly || editing.value) return;
        const zoom = canvas.flow.viewport.value.zoom;
        const start = members.value.map((node) => ({ id: node.id, ...node.position }));
        let moved = false;
        const target = event.currentTarget;
        target.setPointerCapture(event.pointerId);
        target.onpointermove = (now) => {
          const dx = Math.round((now.clientX - event.clientX) / zoom / 10) * 10, dy = Math.round((now.clientY - event.clientY) / zoom / 10) * 10;
          if (dx || dy) moved = true;
          for (const { id, x, y } of start) canvas.flow.updateNode(id, { position: { x: x + dx, y: y + dy } });
        };
        target.onpointerup = () => {
          target.onpointermove = target.onpointerup = null;
          if (moved) canvas.gestures.moved(members.value);
          else canvas.gestures.select(group.value.nodes);
        };
      }
      return { canvas, group, box, field, editing, done, drag };
    },
    template: `
      <div v-if="group && box" class="afc-frame" :class="'afc-frame-' + group.color" :style="box" :data-group="id">
        <div class="afc-frametitle" tabindex="0" role="group" :aria-label="'Group ' + group.title" @pointerdown.stop="drag" @dblclick.stop="canvas.edit(id)"
             @contextmenu.stop.prevent="canvas.menuForGroup(id, $event)" @keydown.enter.stop.prevent="canvas.edit(id)">
          <input v-if="editing" ref="field" :value="group.title" maxlength="120" aria-label="Title of the group" @keydown.enter.stop.prevent="done(true)"
                 @keydown.esc.stop.prevent="done(false)" @keydown.stop @pointerdown.stop @blur="done(true)" />
          <span v-else>{{ group.title || 'Group' }}</span>
        </div>
      </div>`,
  }),
);

export const Frames = markRaw(
  defineComponent({
    name: "Frames",
    components: { Frame },
    setup() {
      const { graph } = inject("canvas");
      const ids = computed(() => [...graph.groups.keys()]);
      return { ids };
    },
    template: `<Frame v-for="id in ids" :key="id" :id="id" />`,
  }),
);

export const FRAME_COLOURS = COLOURS;
