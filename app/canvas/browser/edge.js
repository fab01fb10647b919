/** One connection: its line, the plus on it, how many items went through, and why it is broken if it is. */
import { computed, defineComponent, inject, markRaw } from "vue";
import { BaseEdge, EdgeLabelRenderer, getBezierPath, getSmoothStepPath } from "@vue-flow/core";

export const WireLine = markRaw(
  defineComponent({
    name: "WireLine",
    components: { BaseEdge, EdgeLabelRenderer },
    inheritAttrs: false,
    props: ["id", "sourceX", "sourceY", "targetX", "targetY", "sourcePosition", "targetPosition", "selected", "markerEnd"],
    setup(props) {
      const canvas = inject("canvas");
      const hangs = computed(() => props.sourcePosition === "top"); // a model, memory or tool of an agent
      const path = computed(() => {
        if (hangs.value) return getBezierPath(props);
        // A line that leads back goes around below its nodes instead of through them.
        if (props.targetX < props.sourceX - 40) return getSmoothStepPath({ ...props, borderRadius: 18, offset: 34, centerY: Math.max(props.sourceY, props.targetY) + 90 });
        return getBezierPath(props);
      });
      const why = computed(() => canvas.graph.broken.get(props.id) ?? "");
      const count = computed(() => canvas.counts.get(props.id));
      const busy = computed(() => {
        const edge = canvas.graph.edges.get(props.id);
        return Boolean(edge && canvas.status.get(edge.target)?.state === "running");
      });
      const open = computed(() => !canvas.readOnly && !why.value && !hangs.value && (props.selected || canvas.hovered.value === props.id));
      const at = computed(() => ({ transform: `translate(-50%, -50%) translate(${path.value[1]}px, ${path.value[2]}px)` }));
      return { canvas, path, hangs, why, count, busy, open, at };
    },
    template: `
      <BaseEdge :id="id" :path="path[0]" :marker-end="hangs ? undefined : markerEnd" :interaction-width="22" :class="{'afc-broken': why, 'afc-busy': busy && !hangs, 'afc-hangs': hangs}" />
      <EdgeLabelRenderer v-if="open || why || count">
        <div class="afc-edgelabel nodrag nopan" :style="at" :data-edge="id" @mouseenter="canvas.hover(id)" @mouseleave="canvas.unhover(id)" @contextmenu.stop.prevent="canvas.menuForEdge(id, $event)">
          <button v-if="open" type="button" class="afc-plus" aria-label="Put a node in between" title="Put a node in between" @click.stop="canvas.pickBetween(id, $event)"><i class="material-icons">add</i></button>
          <span v-else-if="why" class="afc-why" tabindex="0" :aria-label="why"><i class="material-icons">link_off</i><span class="afc-tip" role="tooltip"><span>{{ why }}</span></span></span>
          <span v-else class="afc-count">{{ count }}</span>
        </div>
      </EdgeLabelRenderer>`,
  }),
);
