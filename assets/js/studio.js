// What the studio does without asking the server: palette search and dragging, picking fields, keys, the drawer's height.
"use strict";

(() => {
  const NODE = "application/x-agent-node";
  const PATH = "application/x-agent-path";
  const byId = (id) => document.getElementById(id);
  const inField = (target) => Boolean(target?.closest?.("input, textarea, select, [contenteditable=true], .cm-editor"));

  // ---- palette ----------------------------------------------------------------------------------------------------
  const items = () => [...document.querySelectorAll("[data-palette]")];
  const visible = () => items().filter((item) => !item.hidden);

  function filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of items()) item.hidden = !words.every((word) => item.dataset.words.includes(word));
    for (const section of document.querySelectorAll(".st-family")) section.hidden = !section.querySelector("[data-palette]:not([hidden])");
    byId("st-none").hidden = visible().length > 0;
  }
  function best(text) {
    const wanted = text.trim().toLowerCase();
    const title = (item) => item.querySelector(".st-item-title").textContent.toLowerCase();
    const rank = (item) => (title(item).startsWith(wanted) ? 0 : title(item).includes(wanted) ? 1 : 2);
    return visible().sort((a, b) => rank(a) - rank(b))[0];
  }
  function inSearch(event) {
    const field = event.target;
    if (event.key === "Escape") {
      field.value = "";
      filter("");
      field.blur();
    } else if (event.key === "ArrowDown") visible()[0]?.focus();
    else if (event.key === "Enter" && field.value.trim()) best(field.value)?.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  function inList(event, item) {
    const shown = visible();
    const at = shown.indexOf(item);
    if (event.key === "ArrowDown") shown[Math.min(shown.length - 1, at + 1)]?.focus();
    else if (event.key === "ArrowUp") at === 0 ? byId("st-search").focus() : shown[at - 1].focus();
    else if (event.key === "Escape") byId("st-search").focus();
    else return;
    event.preventDefault();
  }

  // ---- picking fields into formulas and texts -----------------------------------------------------------------------
  const fieldsOf = (box) => [...box.querySelectorAll("textarea, input[type=text]")].filter((field) => field.closest("[data-formula]"));
  const lastIn = new WeakMap();
  const opened = (text, at) => text.lastIndexOf("{{", at - 1) > text.lastIndexOf("}}", at - 1);

  function insert(field, piece) {
    const mode = field.closest("[data-formula]").dataset.formula;
    const start = field.selectionStart ?? field.value.length;
    const end = field.selectionEnd ?? start;
    const bare = mode === "formula" || opened(field.value, start);
    let text = bare ? piece : `{{ ${piece} }}`;
    if (mode === "json" && !bare && !/["'][^"']*$/.test(field.value.slice(0, start).split("\n").pop())) text = `"${text}"`;
    field.focus();
    field.setRangeText(text, start, end, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  function pick(button) {
    const box = button.closest(".st-formula");
    if (!box) return;
    const field = lastIn.get(box) ?? fieldsOf(box)[0];
    if (field?.isConnected) insert(field, button.dataset.insert);
  }

  // ---- events ---------------------------------------------------------------------------------------------------------
  document.addEventListener("input", (event) => event.target.id === "st-search" && filter(event.target.value));
  document.addEventListener("keydown", (event) => {
    if (!document.querySelector(".st-studio")) return;
    const key = event.key.toLowerCase();
    if (event.target.id === "st-search") return inSearch(event);
    const item = event.target.closest?.("[data-palette]");
    if (item) inList(event, item);
    if (key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !inField(event.target)) {
      event.preventDefault();
      byId("st-search")?.focus();
    } else if (key === "?" && !inField(event.target) && !event.target.closest?.(".afc-canvas")) {
      event.preventDefault();
      byId("st-keys")?.click();
    }
  });
  document.addEventListener(
    "keydown",
    (event) => {
      const wanted = { F8: "st-go-on", F9: "st-break", F10: "st-step-on" }[event.key];
      if (!wanted || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || !byId(wanted)) return;
      event.preventDefault();
      event.stopPropagation();
      if (!document.querySelector(".q-dialog .st-dialog")) byId(wanted).click();
    },
    true,
  );
  // Before anything else hears them: a focused button would take Ctrl+Enter for a press.
  document.addEventListener(
    "keydown",
    (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || !document.querySelector(".st-studio")) return;
      const wanted = { s: "st-keep", enter: "st-run" }[event.key.toLowerCase()];
      if (!wanted || document.querySelector(".q-dialog .st-dialog")) return;
      event.preventDefault();
      event.stopPropagation();
      byId(wanted)?.click();
    },
    true,
  );
  document.addEventListener("dragstart", (event) => {
    const item = event.target.closest?.("[data-palette]");
    const chip = event.target.closest?.("[data-insert]");
    if (item) {
      event.dataTransfer.setData(NODE, item.dataset.palette);
      event.dataTransfer.effectAllowed = "copy";
    } else if (chip) {
      event.dataTransfer.setData(PATH, chip.dataset.insert);
      event.dataTransfer.effectAllowed = "copy";
    }
  });
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes(PATH) && event.target.closest?.("[data-formula]")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const piece = event.dataTransfer.getData(PATH);
    const field = event.target.closest?.("textarea, input");
    if (!piece || !field?.closest("[data-formula]")) return;
    event.preventDefault();
    insert(field, piece);
  });
  document.addEventListener("focusin", (event) => {
    const box = event.target.closest?.("[data-formula]") && event.target.closest(".st-formula");
    if (box) lastIn.set(box, event.target);
  });
  document.addEventListener("pointerdown", (event) => {
    if (event.target.closest?.("[data-insert]") && event.pointerType === "mouse" && event.detail > 1) event.preventDefault();
    const grip = event.target.closest?.(".st-grip");
    if (!grip) return;
    const drawer = grip.closest(".st-drawer");
    const from = event.clientY, height = drawer.offsetHeight;
    grip.setPointerCapture(event.pointerId);
    grip.onpointermove = (now) => {
      const wanted = Math.max(160, Math.min(innerHeight - 240, height + from - now.clientY));
      drawer.style.setProperty("--st-drawer", `${wanted}px`);
    };
    grip.onpointerup = () => (grip.onpointermove = grip.onpointerup = null);
  });
  document.addEventListener("click", (event) => {
    const chip = event.target.closest?.("[data-insert]");
    if (chip) return pick(chip);
    const copy = event.target.closest?.("[data-copy]");
    if (!copy) return;
    navigator.clipboard?.writeText(copy.dataset.copy);
    copy.classList.add("is-done");
    setTimeout(() => copy.classList.remove("is-done"), 1500);
  });
})();
