"""What comes into a test: the trigger's own sample, the last real input, an example kept before, or typed JSON."""

from __future__ import annotations

from typing import Any

from nicegui import app as web
from nicegui import ui

from app.permissions import on
from app.studio.desk import Desk, tell, titled_input
from app.studio.words import as_json, json_problem
from nodes.base import Family
from nodes.catalog import BadSettings, UnknownNode
from nodes.errors import FactoryError
from runtime.policy import Permission

SAMPLE, LAST = "sample", "last"
_KEPT = "kept:"
_TYPED = "typed"
MOST_KEPT = 20


class NoInput(FactoryError):
    """What was typed cannot be used as input."""

    code = "sandbox.input"
    status = 422


class Samples:
    """The left side of the drawer."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.trigger = ""
        self.source = SAMPLE
        self.text = ""
        self._filling = False
        self._draw()
        self.refresh()

    def _draw(self) -> None:
        with ui.element("div").classes("st-bench-row"):
            self._triggers = ui.select({}, on_change=on(lambda event: self._choose_trigger(event.value))).props(
                'options-dense aria-label="Trigger"'
            )
            self._triggers.classes("grow").mark("test-trigger")
            self._sources = ui.select(
                {SAMPLE: "Sample"}, value=SAMPLE, on_change=on(lambda event: self._choose(str(event.value or "")))
            ).props('options-dense aria-label="Input"')
            self._sources.classes("grow").mark("test-source")
        # What is wrong shows around the editor: an update of the editor itself would bring back an older text.
        self._around = ui.element("div").classes("st-json")
        with self._around:
            self._code = ui.codemirror(
                "", language="JSON", line_wrapping=True, on_change=on(lambda event: self._typed(event.value or ""))
            )
            self._code.mark("test-input")
        self._problem = ui.label().classes("st-bad")
        with ui.element("div").classes("st-bench-row"):
            keep = ui.button(
                "Keep as example", icon="bookmark_add", on_click=on(self._keep_example, Permission.RUN)
            ).props("flat dense")
            keep.classes("st-mini")
            self._forget = ui.button(
                "Forget it", icon="delete", on_click=on(self._forget_example, Permission.RUN)
            ).props("flat dense")
            self._forget.classes("st-mini")

    # --- what there is to choose from ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Follow the drawing: its triggers and their samples."""
        found = {
            node.id: self.desk.title(node.id)
            for node in self.desk.session.graph.nodes.values()
            if node.type in self.desk.types and self.desk.types.get(node.type).family is Family.TRIGGER
        }
        if self.trigger not in found:
            self.trigger = next(iter(found), "")
        self._triggers.set_options(found, value=self.trigger or None)
        self._triggers.set_visibility(len(found) > 1)
        self._offer()
        if self.source == SAMPLE:
            self._fill(self._sample())

    def _offer(self) -> None:
        kept = {f"{_KEPT}{name}": f"Example: {name}" for name in self._examples()}
        options = {SAMPLE: "Sample of the trigger", LAST: "Last real input", **kept, _TYPED: "Typed here"}
        if self.source not in options:
            self.source = _TYPED
        self._sources.set_options(options, value=self.source)
        self._forget.set_visibility(self.source.startswith(_KEPT))

    def _sample(self) -> str:
        placed = self.desk.placed(self.trigger)
        if placed is None:
            return "{}"
        try:
            return as_json(self.desk.types.build(placed).sample(), pretty=True)
        except (BadSettings, UnknownNode, ValueError):
            return "{}"

    def given(self) -> tuple[str | None, Any]:
        """The trigger to begin with and its input. Raises NoInput with the line that is wrong."""
        value, _, problem = json_problem(self.text)
        if problem:
            raise NoInput(
                f"The input of the test cannot be read. {problem}", fix="Correct it at the left of the test drawer."
            )
        return self.trigger or None, value

    def take(self, trigger: str, text: str) -> None:
        """Put an input in, as if it had been typed."""
        if self.desk.placed(trigger) is not None:
            self.trigger = trigger
        self.source = _TYPED
        self.refresh()
        self._fill(text)

    # --- choosing and typing -------------------------------------------------------------------------------------------

    def _choose_trigger(self, trigger: Any) -> None:
        if isinstance(trigger, str) and trigger != self.trigger:
            self.trigger = trigger
            self.source = SAMPLE
            self.refresh()

    async def _choose(self, source: str) -> None:
        if source == self.source or not source:
            return
        self.source = source
        if source == SAMPLE:
            self._fill(self._sample())
        elif source == LAST:
            last = await self.desk.factory.runs.last_input(self.desk.who, self.desk.id, self.trigger)
            if last is None:
                tell("No real input has arrived by this trigger yet.")
                self.source = SAMPLE
            else:
                self._fill(as_json(last, pretty=True))
        elif source.startswith(_KEPT):
            self._fill(self._examples().get(source.removeprefix(_KEPT), "{}"))
        self._offer()

    def _fill(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self._code.set_value(text)
        self._judge()

    def _typed(self, text: str) -> None:
        if text == self.text:
            return
        self.text = text
        self.source = _TYPED
        self._offer()
        self._judge()

    def _judge(self) -> None:
        _, line, problem = json_problem(self.text)
        self._problem.set_text(problem)
        self._around.classes(add="is-wrong") if line else self._around.classes(remove="is-wrong")

    # --- examples ------------------------------------------------------------------------------------------------------

    def _examples(self) -> dict[str, str]:
        kept = web.storage.user.get(self._place(), {})
        return dict(kept) if isinstance(kept, dict) else {}

    def _place(self) -> str:
        return f"examples:{self.desk.editor.who.id}:{self.desk.id}:{self.trigger}"

    async def _keep_example(self) -> None:
        self.given()
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog"):
            ui.label("Keep this input as an example").classes("af-h2")
            name = (
                titled_input("Name", placeholder="A large order")
                .props("autofocus maxlength=60")
                .classes("w-full")
                .mark("example-name")
            )
            name.on("keydown.enter", lambda: dialog.submit(True))
            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("Cancel", on_click=lambda: dialog.submit(False)).classes("af-secondary")
                ui.button("Keep it", on_click=lambda: dialog.submit(True)).mark("keep-example")
        agreed = await dialog
        chosen = (name.value or "").strip()[:60]
        if not dialog.is_deleted:
            dialog.delete()
        if not agreed or not chosen:
            return
        kept = self._examples() | {chosen: self.text}
        web.storage.user[self._place()] = dict(list(kept.items())[-MOST_KEPT:])
        self.source = f"{_KEPT}{chosen}"
        self._offer()
        tell(f"“{chosen}” is kept for your tests in this browser.", good=True)

    def _forget_example(self) -> None:
        kept = self._examples()
        kept.pop(self.source.removeprefix(_KEPT), None)
        web.storage.user[self._place()] = kept
        self.source = _TYPED
        self._offer()
