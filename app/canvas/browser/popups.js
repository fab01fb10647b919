/** What opens over the canvas: the searchable list to add or connect, the menu of the right mouse button, the keys. */
import { computed, defineComponent, markRaw, nextTick, onMounted, ref, watch } from "vue";

const FAMILIES = { trigger: "Triggers", context: "Context", action: "Actions", validation: "Validation", flow: "Flow" };

/** How well an entry answers what was typed; 0 when it does not. */
function score(entry, query) {
  const title = entry.title.toLowerCase();
  if (title.startsWith(query)) return 5;
  if (title.includes(query)) return 4;
  if (entry.words?.some((word) => word.toLowerCase().startsWith(query))) return 3;
  if (entry.note?.toLowerCase().includes(query)) return 2;
  const parts = query.split(/\s+/);
  const all = `${title} ${(entry.words ?? []).join(" ")} ${entry.note ?? ""}`.toLowerCase();
  return parts.length > 1 && parts.every((part) => all.includes(part)) ? 1 : 0;
}

/** Entries are `{key, title, note, icon, family, words, group}`. */
export const Picker = markRaw(
  defineComponent({
    name: "Picker",
    props: ["entries", "heading", "empty", "place"],
    emits: ["choose", "close"],
    setup(props, { emit }) {
      const query = ref("");
      const index = ref(0);
      const field = ref(null);
      const list = ref(null);
      const shown = computed(() => {
        const wanted = query.value.trim().toLowerCase();
        if (!wanted) return props.entries;
        return props.entries.map((entry) => ({ entry, rank: score(entry, wanted) })).filter(({ rank }) => rank).sort((a, b) => b.rank - a.rank).map(({ entry }) => entry);
      });
      const headingOf = (i) => {
        if (query.value.trim()) return "";
        const group = (entry) => entry?.group ?? FAMILIES[entry?.family] ?? "";
        return i === 0 || group(shown.value[i]) !== group(shown.value[i - 1]) ? group(shown.value[i]) : "";
      };
      watch(query, () => (index.value = 0));
      watch(index, () => nextTick(() => list.value?.querySelector(".afc-chosen")?.scrollIntoView({ block: "nearest" })));
      onMounted(() => field.value.focus({ preventScroll: true }));
      function onKey(event) {
        const last = shown.value.length - 1;
        if (event.key === "ArrowDown") index.value = Math.min(last, index.value + 1);
        else if (event.key === "ArrowUp") index.value = Math.max(0, index.value - 1);
        else if (event.key === "Home") index.value = 0;
        else if (event.key === "End") index.value = Math.max(0, last);
        else if (event.key === "Enter") shown.value[index.value] && emit("choose", shown.value[index.value]);
        else if (event.key === "Escape" || event.key === "Tab") emit("close");
        else return event.stopPropagation();
        event.preventDefault();
        event.stopPropagation();
      }
      return { query, index, field, list, shown, headingOf, onKey };
    },
    template: `
      <div class="afc-popup afc-picker" :style="place" role="dialog" :aria-label="heading" @pointerdown.stop @wheel.stop @contextmenu.prevent.stop @dblclick.stop>
        <div class="afc-search"><i class="material-icons" aria-hidden="true">search</i>
          <input ref="field" v-model="query" type="text" :placeholder="heading" role="combobox" aria-expanded="true" aria-controls="afc-picker-list" aria-autocomplete="list"
                 :aria-activedescendant="shown.length ? 'afc-pick-' + index : null" :aria-label="heading" autocomplete="off" spellcheck="false" @keydown="onKey" /></div>
        <div id="afc-picker-list" ref="list" class="afc-list" role="listbox">
          <template v-for="(entry, i) in shown" :key="entry.key">
            <div v-if="headingOf(i)" class="afc-heading" role="presentation">{{ headingOf(i) }}</div>
            <div :id="'afc-pick-' + i" class="afc-entry" role="option" :class="[{'afc-chosen': i === index}, 'afc-is-' + entry.family]" :aria-selected="i === index" :data-key="entry.key"
                 @pointermove="index = i" @click="$emit('choose', entry)">
              <span class="afc-tile" aria-hidden="true"><i class="material-icons">{{ entry.icon }}</i></span>
              <span class="afc-words"><span class="afc-title">{{ entry.title }}</span><span v-if="entry.note" class="afc-line">{{ entry.note }}</span></span>
            </div>
          </template>
          <div v-if="!shown.length" class="afc-none">{{ query.trim() ? 'Nothing is called that. Try another word.' : empty }}</div>
        </div>
      </div>`,
  }),
);

/** Items are `{title, icon, key, run, danger, off}`, or null for a line between them. */
export const Menu = markRaw(
  defineComponent({
    name: "Menu",
    props: ["items", "place"],
    emits: ["close"],
    setup(props, { emit }) {
      const root = ref(null);
      const buttons = () => [...root.value.querySelectorAll("button:not(:disabled)")];
      onMounted(() => buttons()[0]?.focus({ preventScroll: true }));
      function onKey(event) {
        const all = buttons();
        const now = all.indexOf(document.activeElement);
        if (event.key === "ArrowDown") all[(now + 1) % all.length].focus();
        else if (event.key === "ArrowUp") all[(now - 1 + all.length) % all.length].focus();
        else if (event.key === "Escape" || event.key === "Tab") emit("close");
        else return event.stopPropagation();
        event.preventDefault();
        event.stopPropagation();
      }
      function run(item) {
        emit("close");
        item.run();
      }
      return { root, onKey, run };
    },
    template: `
      <div ref="root" class="afc-popup afc-menu" :style="place" role="menu" @keydown="onKey" @pointerdown.stop @contextmenu.prevent.stop @wheel.stop>
        <template v-for="(item, i) in items" :key="i">
          <hr v-if="!item" />
          <div v-else-if="item.colours" class="afc-swatches" role="presentation">
            <button v-for="colour in item.colours" :key="colour" type="button" role="menuitem" :class="'afc-note-' + colour" :aria-label="item.title + ' ' + colour" @click="$emit('close'); item.run(colour)"></button>
          </div>
          <button v-else type="button" role="menuitem" :disabled="item.off" :class="{'afc-danger': item.danger}" @click="run(item)">
            <i class="material-icons" aria-hidden="true">{{ item.icon }}</i><span>{{ item.title }}</span><kbd v-if="item.key">{{ item.key }}</kbd>
          </button>
        </template>
      </div>`,
  }),
);

const KEYS = [
  ["Tab, Shift+Tab", "Next or previous node"],
  ["Alt + arrows", "Node in that direction"],
  ["Arrows", "Move the selection (Shift: further)"],
  ["Enter", "Open the settings of a node"],
  ["A", "Add a node (after the selected one)"],
  ["C", "Connect the selected node"],
  ["N", "Add a note"],
  ["F2", "Rename"],
  ["D", "Turn nodes off or on"],
  ["Delete", "Remove"],
  ["Ctrl + C, X, V", "Copy, cut, paste"],
  ["Ctrl + D", "Duplicate"],
  ["Ctrl + G", "Put into a group"],
  ["Ctrl + A", "Select all"],
  ["Ctrl + Z, Ctrl + Shift + Z", "Undo, redo"],
  ["Shift + drag", "Select with a box"],
  ["Shift + L", "Tidy up"],
  ["F or 1", "See all"],
  ["+ and −", "Zoom"],
  ["Shift + F10", "Menu"],
];

export const Keys = markRaw(
  defineComponent({
    name: "Keys",
    emits: ["close"],
    setup() {
      const root = ref(null);
      onMounted(() => root.value.focus());
      return { KEYS, root };
    },
    template: `
      <div class="afc-veil" @pointerdown.self="$emit('close')" @wheel.stop>
        <div ref="root" class="afc-popup afc-keys" role="dialog" aria-label="Keys" tabindex="-1" @keydown.stop="($event.key === 'Escape' || $event.key === '?') && $emit('close')">
          <h2>Keys</h2>
          <dl><template v-for="[keys, words] in KEYS" :key="keys"><dt><kbd>{{ keys }}</kbd></dt><dd>{{ words }}</dd></template></dl>
        </div>
      </div>`,
  }),
);
