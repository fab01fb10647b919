// What the frame does without asking the server: Ctrl+K, one press per double click, clocks in the person's own time zone, and the theme.
"use strict";

addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") {
    const search = document.getElementById("af-search");
    if (search) {
      event.preventDefault();
      search.click();
    }
  }
});

// A double click on a button means it once: nobody wants two agents, two runs or two deployments.
addEventListener(
  "click",
  (event) => {
    const button = event.detail > 1 && event.target.closest?.(".q-btn--unelevated, button[type=submit]");
    if (button && !button.closest(".q-btn-toggle, .q-date, [data-again]")) {
      event.stopImmediatePropagation();
      event.preventDefault();
    }
  },
  true,
);

const STEPS = [
  [60, 1, "second"],
  [3600, 60, "minute"],
  [86400, 3600, "hour"],
  [604800, 86400, "day"],
  [2629800, 604800, "week"],
  [31557600, 2629800, "month"],
  [Infinity, 31557600, "year"],
];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });
const exact = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});

function tellTime() {
  for (const time of document.querySelectorAll("time[data-epoch]")) {
    const epoch = Number(time.dataset.epoch);
    const past = epoch - Date.now() / 1000;
    const size = Math.abs(past);
    const [, unit, name] = STEPS.find(([limit]) => size < limit);
    const text = size < 10 ? "just now" : words.format(Math.trunc(past / unit), name);
    if (time.textContent !== text) time.textContent = text;
    time.title = exact.format(new Date(epoch * 1000));
    time.dateTime = new Date(epoch * 1000).toISOString();
  }
}

setInterval(tellTime, 10000);
addEventListener("load", () => {
  let waiting = 0;
  new MutationObserver(() => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      tellTime();
    });
  }).observe(document.body, { childList: true, subtree: true });
});

globalThis.setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `factory_theme=${theme}; path=/; max-age=31536000; samesite=lax${secure}`;
};
