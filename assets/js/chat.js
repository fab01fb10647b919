// Makes a hosted conversation flow: sends messages without loading the page again. Without it the form works as it is.
"use strict";

const form = document.getElementById("say");
const talk = document.getElementById("talk");
const entry = document.getElementById("text");
const problem = document.getElementById("problem");
const send = form.querySelector("button");

function say(kind, who, text) {
  const line = document.createElement("div");
  line.className = `af-said ${kind}`;
  const hidden = document.createElement("span");
  hidden.className = "af-hidden";
  hidden.textContent = `${who}: `;
  const words = document.createElement("span");
  words.textContent = text;
  line.append(hidden, words);
  talk.append(line);
  talk.scrollTop = talk.scrollHeight;
  return line;
}

function complain(text) {
  problem.replaceChildren();
  if (!text) return;
  const note = document.createElement("div");
  note.className = "af-note is-warn";
  note.setAttribute("role", "alert");
  const words = document.createElement("span");
  words.textContent = text;
  note.append(words);
  problem.append(note);
}

function fit() {
  entry.style.height = "auto";
  entry.style.height = `${Math.min(entry.scrollHeight + 2, 200)}px`;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = entry.value.trim();
  if (!text || send.disabled) return;
  const body = new URLSearchParams(new FormData(form));
  const mine = say("is-mine", "You", text);
  const thinking = say("is-theirs is-thinking", "Agent", "…");
  entry.value = "";
  fit();
  complain("");
  send.disabled = true;
  try {
    const answer = await fetch(location.pathname, { method: "POST", body, headers: { Accept: "application/json" } });
    const told = await answer.json();
    if (told.error) throw new Error([told.error.message, told.error.fix].filter(Boolean).join(" "));
    form.elements.talk.value = told.talk;
    if (told.text) say("is-theirs", "Agent", told.text);
    complain(told.problem);
  } catch (error) {
    mine.remove();
    entry.value = text;
    fit();
    const lost = error instanceof TypeError || error instanceof SyntaxError;
    complain(lost ? "The message could not be sent. Check your connection and send it again." : error.message);
  } finally {
    thinking.remove();
    send.disabled = false;
    talk.scrollTop = talk.scrollHeight;
    entry.focus();
  }
});

entry.addEventListener("input", fit);
entry.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
talk.scrollTop = talk.scrollHeight;
