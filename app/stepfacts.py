"""What one step did, unfolded: its error in words, what it waits for, input and output, its log, and what it promises."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from app.permissions import current_actor, current_factory, on
from app.pieces import ago, button, duration, json_tree, relative_time
from app.sentences import count, durability, error_words, size_words, spoken, took
from nodes.categories import Category
from runtime.events import Fact
from runtime.plan import Step
from runtime.views import StepView

_AROUND = 3
_LINES = 200
_PRINTED = 20_000


def details(step: StepView, planned: Step, wait: Fact | None) -> None:
    """Everything that is known of a step."""
    if step.error and step.state in ("failed", "retrying"):
        _error(step, planned)
    if wait is not None and step.state in ("waiting", "in doubt"):
        _wait(step, wait)
    elif step.note and step.state != "failed":
        ui.label(step.note[:1].upper() + step.note[1:] + ".").classes("af-muted")
    output, printed, files = _split(step.output)
    with ui.element("div").classes("af-two"):
        _data("What came in", step.input)
        _data("What went out", output, missing="Nothing yet." if step.finished_at is None else "Nothing.")
    if printed:
        printed_box("What the code printed", printed)
    if files:
        _files(files)
    if step.log:
        _log(step)
    _facts(step, planned)


def _error(step: StepView, planned: Step) -> None:
    error = step.error or {}
    more = error.get("details") if isinstance(error.get("details"), dict) else {}
    with ui.element("div").classes("af-note is-bad").props("role=alert"):
        ui.icon("error").props("aria-hidden=true")
        with ui.element("div").classes("min-w-0"):
            ui.label(error_words(error)).classes("af-strong break-words")
            if error.get("fix"):
                ui.label(spoken(str(error["fix"]))).classes("break-words")
            if error.get("category"):
                category = Category.read(error["category"])
                ui.label(f"{category.word}: {category.means}").classes("af-small af-muted")
    line = more.get("line") if more else None
    settings = planned.placed.settings
    code = settings.get("javascript" if settings.get("language") == "javascript" else "code")
    if isinstance(line, int) and isinstance(code, str):
        _excerpt(code, line)
    for name, words in (("stdout", "What the code printed"), ("stderr", "Its error output")):
        if more and more.get(name):
            printed_box(words, str(more[name]))
    if more and isinstance(more.get("traceback"), str):
        printed_box("The whole error", more["traceback"])
    known = ("line", "stdout", "stderr", "kind", "traceback")
    rest = {key: value for key, value in (more or {}).items() if key not in known and value not in (None, "")}
    if rest:
        _data("More about the error", rest)


def _excerpt(code: str, line: int) -> None:
    lines = code.splitlines()
    first = max(line - _AROUND, 1)
    with ui.element("div").classes("af-excerpt").props('aria-label="The code around the error"'):
        for number in range(first, min(line + _AROUND, len(lines)) + 1):
            with ui.element("div").classes("af-excerpt-line" + (" is-here" if number == line else "")):
                ui.label(str(number)).classes("af-muted")
                ui.label(lines[number - 1]).classes("whitespace-pre-wrap break-words")


def _wait(step: StepView, wait: Fact) -> None:
    data = wait.get("data") or {}
    with ui.element("div").classes("af-note is-warn"):
        ui.icon("hourglass_empty").props("aria-hidden=true")
        with ui.element("div"):
            if wait["wait"] == "until":
                ui.label("It rests until its time has come.")
                if wait.get("until"):
                    with ui.element("span"):
                        ui.label("It goes on ").classes("af-inline")
                        relative_time(wait["until"])
            elif wait["wait"] == "turn":
                ui.label("It may start only so often, and waits for its turn.")
                if wait.get("until"):
                    relative_time(wait["until"])
            elif wait["wait"] in ("call", "start", "run"):
                started = "It waits for the agent that was started before."
                ui.label(started if wait["wait"] == "run" else "It waits for the agent that it called.")
                if data.get("run"):
                    ui.link("Look at that run", f"/runs/{data['run']}")
            elif wait["wait"] == "event":
                name, key = data.get("name"), data.get("key")
                what = (
                    f"the event “{name}”" + (f" with the key “{key}”" if key else "")
                    if name
                    else "a call of its address"
                )
                ui.label(f"It waits for {what}.")
                if wait.get("until"):
                    with ui.element("span"):
                        ui.label("At the latest it goes on ").classes("af-inline")
                        relative_time(wait["until"])
            else:
                ui.label("It waits for a person: see the question above, or all under Approvals.")
                if wait.get("until"):
                    ui.label(f"Without a decision it counts as rejected {ago(wait['until'])}.").classes("af-small")
                ui.link("Go to Approvals", "/approvals")


def _split(output: Any) -> tuple[Any, str, list[Any]]:
    """The output as people think of it: a single port's value alone, and what code printed and which files it left."""
    if not isinstance(output, dict):
        return output, "", []
    ports = dict(output)
    code = "result" in ports and "printed" in ports
    printed = ports.pop("printed", "") if code else ""
    files = [file for file in ports.pop("files", ()) if isinstance(file, dict)] if code else []
    shown = next(iter(ports.values())) if len(ports) == 1 and next(iter(ports)) in ("value", "result") else ports
    return shown, printed if isinstance(printed, str) else "", files


def _data(title: str, value: Any, *, missing: str = "Nothing.") -> None:
    with ui.element("div").classes("af-data min-w-0"):
        ui.label(title).classes("af-overline")
        with ui.element("div").classes("af-well"):
            if value is None or value == {}:
                ui.label(missing).classes("af-muted af-small")
            else:
                json_tree(value)


def printed_box(title: str, text: str) -> ui.label:
    """A text as a terminal would show it."""
    with ui.element("div").classes("af-data"):
        ui.label(title).classes("af-overline")
        with ui.element("div").classes("af-well"):
            return ui.label(text[:_PRINTED]).classes("af-mono whitespace-pre-wrap break-words")


def _files(files: list[Any]) -> None:
    """The files that code left. Those of a test are gone with it."""
    durable = any("hash" in file for file in files)
    with ui.element("div").classes("af-data").mark("kept-files"):
        ui.label("Files that were kept").classes("af-overline")
        with ui.element("div").classes("af-list"):
            for file in files:
                name, size = str(file.get("name", "")), int(file.get("size", 0))
                with ui.element("div").classes("af-row"):
                    ui.icon("description").classes("af-muted").props("aria-hidden=true")
                    with ui.element("div").classes("grow"):
                        ui.label(name).classes("af-strong af-one-line")
                        ui.label(size_words(size)).classes("af-muted af-small")
                    if durable:
                        button("Download", on(partial(_download, name)), quiet=True)
        note = (
            "As they are now under Settings → Files & tables." if durable else "A test keeps them only until it ends."
        )
        ui.label(note).classes("af-muted af-small mt-2")


async def _download(name: str) -> None:
    """Hand a file to the browser, as it is now."""
    ui.download.content(await current_factory().shelves.file(current_actor(), name), name)


def _log(step: StepView) -> None:
    with ui.element("div").classes("af-data"):
        ui.label("Log").classes("af-overline")
        with ui.element("div").classes("af-well"):
            for entry in step.log[:_LINES]:
                with ui.element("div").classes("af-log"):
                    ui.label(f"+{duration(entry['at'] - step.started_at)}").classes("af-muted af-number")
                    with ui.element("div").classes("min-w-0"):
                        ui.label(str(entry["message"])).classes("break-words")
                        if entry.get("data"):
                            json_tree(entry["data"], open_levels=0)
            if len(step.log) > _LINES:
                ui.label(f"and {count(len(step.log) - _LINES, 'more line')}").classes("af-muted")


def _facts(step: StepView, planned: Step) -> None:
    with ui.element("div").classes("af-facts af-small"):
        with ui.element("span"):
            ui.label("Began ").classes("af-inline")
            relative_time(step.started_at)
        if step.finished_at is not None:
            ui.label(f"took {took(step.seconds)}")
        if step.attempt > 1:
            ui.label(f"try {step.attempt} of {planned.policy.retries + 1}")
        elif planned.policy.retries:
            ui.label(f"may try {planned.policy.retries + 1} times")
        ui.label(durability(planned.node))
