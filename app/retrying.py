"""Trying a failed run again: where from, on which version, on which data; and dismissing it with a reason."""

from __future__ import annotations

import copy
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import heading, notice
from app.sentences import listed
from app.studio.words import as_json, item_words, json_problem
from nodes.errors import FactoryError
from runtime.dead_letters import MAX_REASON, DeadLetterView, From
from runtime.runs import SAME_INPUT, Version

_MOST_FIELDS: Final = 12
Then = Callable[[str], Awaitable[None]]


class Data:
    """A value to change: a field for each of its parts when it is a plain record, else JSON; people may switch."""

    def __init__(self, title: str, value: Any) -> None:
        self.title = title
        self.before = value
        self.value = copy.deepcopy(value)
        self.text = as_json(value, pretty=True)
        self.problem = ""
        self.as_fields = _is_plain(value)
        self._box = ui.element("div").classes("flex flex-col gap-2 w-full")
        self._fill()

    @property
    def changed(self) -> bool:
        """Whether it is not what it was."""
        return bool(self.value != self.before)

    def _fill(self) -> None:
        self._box.clear()
        with self._box:
            with ui.element("div").classes("flex items-center gap-3"):
                ui.label(self.title).classes("af-overline grow")
                if _is_plain(self.value):
                    words = "Edit as JSON" if self.as_fields else "Edit as fields"
                    turn = ui.button(words, on_click=on(self._turn)).props("flat dense").classes("af-quiet")
                    turn.mark("turn-data")
            if self.as_fields:
                self._fields()
            else:
                self._json()

    def _turn(self) -> None:
        self.as_fields = not self.as_fields
        self.text, self.problem = as_json(self.value, pretty=True), ""
        self._fill()

    def _fields(self) -> None:
        with ui.element("div").classes("af-data-fields"):
            for name, part in self.value.items():
                self._field(name, part)

    def _field(self, name: str, part: Any) -> None:
        kind = _kind(part)
        with ui.element("div").classes("af-data-field"):

            def put(value: Any) -> None:
                self.value[name] = value

            def turn(wanted: str) -> None:
                put(_as(wanted, self.value[name]))
                self._fill()

            if kind == "yes/no":
                made: Any = ui.switch(name, value=part, on_change=on(lambda event: put(bool(event.value))))
            elif kind == "number":
                made = ui.number(name, value=part, on_change=on(lambda event: put(_whole(event.value))))
            else:
                made = ui.textarea(name, value=part or "", on_change=on(lambda event: put(event.value or "")))
                made.props("autogrow rows=1 maxlength=100000")
            made.mark(f"data-{name}").classes("grow")
            kinds = ui.select(list(_KINDS), value=kind, on_change=on(lambda event: turn(str(event.value))))
            kinds.props["aria-label"] = f"Kind of {name}"
            kinds.props("options-dense").mark(f"kind-{name}")

    def _json(self) -> None:
        def typed(text: str) -> None:
            self.text = text
            value, _, self.problem = json_problem(text)
            said.set_text(self.problem)
            if not self.problem:
                self.value = value

        made = ui.textarea(value=self.text, on_change=on(lambda event: typed(event.value or "")))
        made.props(f'autogrow rows=4 input-class=af-mono aria-label="{self.title}, as JSON"').classes("w-full")
        made.mark("data-json")
        said = ui.label(self.problem).classes("af-bad af-small").props("role=alert")

    def read(self) -> Any:
        """The value as it is now. Raises FactoryError when what was typed is no JSON."""
        if self.problem:
            raise FactoryError(f"{self.title}: {self.problem}", code="request.json", fix="Correct the text first.")
        return self.value


def _is_plain(value: Any) -> bool:
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST_FIELDS:
        return False
    return all(
        isinstance(name, str) and (part is None or isinstance(part, str | int | float)) for name, part in value.items()
    )


_KINDS: Final = ("text", "number", "yes/no")


def _kind(part: Any) -> str:
    if isinstance(part, bool):
        return "yes/no"
    return "number" if isinstance(part, int | float) else "text"


def _as(kind: str, part: Any) -> Any:
    """A part as another kind; what does not fit becomes the plainest value of that kind."""
    text = "" if part is None else str(part).strip()
    if kind == "yes/no":
        return text.lower() in ("true", "yes", "1")
    if kind == "number":
        try:
            found = float(text)
        except ValueError:
            return 0
        return _whole(found) if math.isfinite(found) else 0
    return text if isinstance(part, str | int | float) and not isinstance(part, bool) else text.lower()


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Again:
    """The form by which one failed run is tried again."""

    def __init__(self, letter: DeadLetterView, then: Then) -> None:
        self.letter = letter
        self.then = then
        self.start: From = "failure" if letter.ways is not None else "beginning"
        self.version: Version = "same"
        with ui.element("section").classes("af-card af-again").props('aria-label="Try again"'):
            heading("Try again", 2)
            self._where()
            self._which()
            self._place = ui.element("div").classes("w-full")
            self._draw_data()
            with ui.element("div").classes("af-actions"):
                ui.button("Try again", icon="replay", on_click=on(self._go, Permission.RUN)).mark("try-again")

    def _where(self) -> None:
        letter = self.letter
        if letter.ways is None:
            ui.label("It can only be tried again from the start.").classes("af-muted")
            return
        options = {"failure": f"From the step that failed, “{letter.name}”", "beginning": "From the start"}
        ui.radio(options, value=self.start, on_change=on(lambda event: self._begin(event.value))).mark("start")
        self._said = ui.label().classes("af-muted af-small")
        self._warned = notice("", tone="warn", icon="warning")
        self._say()

    def _begin(self, start: From) -> None:
        self.start = start
        self._say()
        self._draw_data()

    def _say(self) -> None:
        ways = self.letter.ways
        assert ways is not None
        kept = f"{listed([f'“{name}”' for name in ways.kept])} will not run again; what came of it is used. "
        runs = f"It goes on with {listed([f'“{name}”' for name in ways.runs])}."
        whole = "Every step runs again, also those that went well."
        self._said.set_text((kept if ways.kept else "") + runs if self.start == "failure" else whole)
        again = ways.again if self.start == "failure" else ()
        names = listed([f"“{name}”" for name in again])
        self._warned.set_visibility(bool(again))
        if again:
            self._warned.clear()
            with self._warned:
                ui.icon("warning").props("aria-hidden=true")
                ui.label(f"{names} had begun, and nobody knows how far it came: outside it may happen a second time.")

    def _which(self) -> None:
        if not self.letter.newer:
            return
        info = self.letter.info.run
        ran = f"Version {info.version}, as it ran" if info.version is not None else "The draft, as it ran"
        newest = self.letter.newest
        options = {"same": ran, "newest": f"The newest, version {newest}" if newest else "The newest draft"}

        def choose(event: Any) -> None:
            self.version = event.value

        ui.radio(options, value="same", on_change=on(choose)).mark("version")

    def _draw_data(self) -> None:
        self._place.clear()
        self.data: dict[str, Data] = {}
        with self._place:
            if self.start == "beginning":
                self.data[""] = Data("What came in", self.letter.input)
                return
            given = self.letter.step_input
            if given is None:
                ui.label(
                    "What the failed step gets is put together from several places; to change data, try again from the start."
                ).classes("af-muted af-small")
                return
            at = f" for {item_words(self.letter.iteration)}" if self.letter.iteration else ""
            for port, value in given.items():
                by = "" if len(given) == 1 else f" by “{port}”"
                title = f"What “{self.letter.name}” gets{by}{at}"
                self.data[port] = Data(title, value)

    async def _go(self) -> None:
        given = {port: data.read() for port, data in self.data.items()}
        changed = {port: given[port] for port, data in self.data.items() if data.changed}
        service, run_id = current_factory().dead_letters, self.letter.info.run.id
        if self.start == "beginning":
            new = await service.retry(
                current_actor(), run_id, start="beginning", version=self.version, input=changed.get("", SAME_INPUT)
            )
        else:
            new = await service.retry(current_actor(), run_id, version=self.version, step_input=changed or None)
        await self.then(new)


async def ask_how(number: int) -> tuple[From, Version] | None:
    """How several are to be tried again; None when they are not."""
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 af-dialog"):
        heading(f"Try {number} runs again" if number > 1 else "Try this run again", 2)
        start = ui.radio(
            {"failure": "From the step that failed, keeping what went well", "beginning": "From the start"},
            value="failure",
        ).mark("many-start")
        version = ui.radio(
            {"same": "On the version that they ran on", "newest": "On the newest version of each agent"}, value="same"
        ).mark("many-version")
        with ui.element("div").classes("af-actions mt-4 w-full justify-end"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).classes("af-secondary")
            ui.button("Try again", on_click=lambda: dialog.submit((start.value, version.value))).mark("many-again")
    try:
        found = await dialog
        return found if isinstance(found, tuple) else None
    finally:
        if not dialog.is_deleted and not dialog.client.is_deleted:
            dialog.delete()


async def ask_why(number: int) -> str:
    """Why nothing has to be done about so many; empty when they are not dismissed."""
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 af-dialog"):
        heading(f"Dismiss {number} runs" if number > 1 else "Dismiss this run", 2)
        ui.label("Nothing is run. It is kept under “Dismissed” with your reason, and can be opened again.").classes(
            "af-muted"
        )
        reason = ui.input("Why does nothing have to be done?").props(f"autofocus maxlength={MAX_REASON}")
        reason.classes("w-full").mark("reason")
        missing = ui.label("Say why in a few words.").classes("af-bad af-small").props("role=alert")
        missing.set_visibility(False)

        def submit() -> None:
            words = str(reason.value or "").strip()
            missing.set_visibility(not words)
            if words:
                dialog.submit(words)

        reason.on("keydown.enter", submit)
        with ui.element("div").classes("af-actions mt-4 w-full justify-end"):
            ui.button("Cancel", on_click=lambda: dialog.submit("")).classes("af-secondary")
            ui.button("Dismiss", on_click=submit).mark("dismiss-now")
    try:
        return str(await dialog or "")
    finally:
        if not dialog.is_deleted and not dialog.client.is_deleted:
            dialog.delete()
