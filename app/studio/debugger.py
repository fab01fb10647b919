"""Finding a fault in a test: run from a step with what is known before it, hold at breakpoints, write what a step gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from nicegui import ui

from app.forking import agree
from app.permissions import on
from app.pieces import heading
from app.sentences import spoken
from app.studio.desk import Desk, tell
from app.studio.words import as_json, item_words, json_problem, one_line
from nodes.errors import FactoryError, NotFound
from runtime.debugger import Command, Held
from runtime.forks import Past, Reuse, failed_steps
from runtime.policy import Permission

if TYPE_CHECKING:
    from app.studio.sandbox import Sandbox

_COMMANDS: tuple[Command, ...] = ("step", "continue", "stop")


class Debugger:
    """What the test drawer can do beyond running from the start."""

    def __init__(self, desk: Desk, sandbox: Sandbox) -> None:
        self.desk = desk
        self.sandbox = sandbox
        self.breakpoints: set[str] = set()
        self.past = ""
        """The run that is gone on with: the last test, or a run that was brought here."""
        self._at = ""
        desk.run_from = self.run_from
        desk.toggle_breakpoint = self.toggle
        desk.has_breakpoint = self.breakpoints.__contains__
        desk.edit_output = self.edit_output
        desk.changed.append(self._drop_gone)

    def draw_bar(self) -> None:
        """The line that shows while a step is held."""
        with ui.element("div").classes("st-held").props("role=status aria-live=polite").mark("held") as self.bar:
            ui.icon("pause_circle").props("aria-hidden=true")
            self._words = ui.label().classes("grow truncate")
            step, go, stop = (on(partial(self.go_on, command), Permission.RUN) for command in _COMMANDS)
            self._button("Step", "redo", step, "st-step-on", "F10", "step-on")
            self._button("Continue", "play_arrow", go, "st-go-on", "F8", "go-on")
            self._button("Write its output", "edit", on(self._write, Permission.RUN), "", "", "write-output")
            self._button("Stop", "stop", stop, "", "", "stop-held")
        self.bar.set_visibility(False)

    @staticmethod
    def _button(words: str, icon: str, act: Callable[..., Any], id_: str, key: str, mark: str) -> None:
        with ui.button(words, icon=icon, on_click=act).classes("af-secondary st-slim").mark(mark) as made:
            if key:
                ui.tooltip(key)
        if id_:
            made.props(f"id={id_} data-again")

    # --- breakpoints -----------------------------------------------------------------------------------------------------

    def toggle(self, node: str) -> None:
        """Hold tests before this step, or do not any more."""
        if not node:
            tell("Select one node first.")
            return
        self.breakpoints.symmetric_difference_update({node})
        self._tell_breakpoints()
        tell(
            f"Tests are held before “{self.desk.title(node)}”."
            if node in self.breakpoints
            else f"Tests are not held before “{self.desk.title(node)}” any more."
        )
        self.desk.look_again()

    def _drop_gone(self) -> None:
        gone = {id_ for id_ in self.breakpoints if self.desk.placed(id_) is None}
        if gone:
            self.breakpoints.difference_update(gone)
            self._tell_breakpoints()

    def _tell_breakpoints(self) -> None:
        self.desk.canvas.set_breakpoints(sorted(self.breakpoints))
        if self.sandbox.running:
            self.desk.factory.sandbox.break_at(self.desk.who, self.sandbox.run_id, self.breakpoints)

    # --- a held step -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Show or hide the bar, after something happened in the test."""
        try:
            held = (
                self.desk.factory.sandbox.held(self.desk.editor.who, self.sandbox.run_id)
                if self.sandbox.running
                else None
            )
        except NotFound:
            held = None
        self.bar.set_visibility(held is not None)
        if held is None:
            self._at = ""
            return
        self._words.set_text(self._sentence(held))
        if (at := f"{held.node} {held.iteration}") != self._at:
            self._at = at
            self.desk.show(held.node)
            self.desk.open_tab("data")

    def _sentence(self, held: Held) -> str:
        item = f", {item_words(held.iteration)}" if held.iteration else ""
        return f"Held before “{self.desk.title(held.node)}”{item}. What comes in: {one_line(held.input, 120)}"

    def go_on(self, command: Command) -> None:
        """Step, continue or stop."""
        self.desk.factory.sandbox.go_on(self.desk.who, self.sandbox.run_id, command)
        self.bar.set_visibility(False)

    async def _write(self) -> None:
        held = self.desk.factory.sandbox.held(self.desk.who, self.sandbox.run_id)
        if held is None:
            return
        said = await self._ask_output(
            held.node,
            self._blank(held.node),
            "The test goes on with this, and the step does not run this time.",
            "Go on with this",
        )
        if said is not None:
            self.desk.factory.sandbox.put(self.desk.who, self.sandbox.run_id, held.node, said)
            self.go_on("step")

    # --- writing outputs ---------------------------------------------------------------------------------------------------

    async def edit_output(self, node: str, output: Mapping[str, Any] | None) -> None:
        """Change what a step gives in tests, and pin it."""
        said = await self._ask_output(
            node,
            dict(output) if output else self._blank(node),
            "Tests use this output instead of running the step, until you unpin it. A deployed agent does run it.",
            "Pin this output",
        )
        if said is not None:
            with self.desk.place:
                self.desk.change({"op": "set", "id": node, "patch": {"pinned": said}})
                tell("Tests now use this output. “Run from here” tries what is behind it.", good=True)

    def _blank(self, node: str) -> dict[str, Any]:
        face = self.desk.session.graph.face(node)
        return {port.name: None for port in face.outputs[:1]}

    async def _ask_output(self, node: str, output: dict[str, Any], about: str, yes: str) -> dict[str, Any] | None:
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("output"):
            heading(f"What “{self.desk.title(node)}” gives", 2)
            ui.label(about).classes("af-muted")
            text = (
                ui.textarea(value=as_json(output, pretty=True))
                .props('rows=10 input-class=af-mono aria-label="Output as JSON, by port" autofocus')
                .classes("w-full")
                .mark("output-text")
            )
            problem = ui.label().classes("st-bad").props("role=alert")

            def submit() -> None:
                value, _, wrong = json_problem(str(text.value or ""))
                if not wrong and not isinstance(value, dict):
                    wrong = 'Write a record with a value for each port, such as {"value": 1}.'
                problem.set_text(wrong)
                if not wrong:
                    dialog.submit(value)

            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("Cancel", on_click=lambda: dialog.submit(None)).classes("af-secondary")
                ui.button(yes, on_click=on(submit)).mark("output-yes")
        said = await dialog
        if not dialog.is_deleted:
            dialog.delete()
        return said if isinstance(said, dict) else None

    # --- running from a step -------------------------------------------------------------------------------------------------

    async def run_from(self, node: str) -> None:
        """Show what is used again and what will run, then run from this step."""
        if not node:
            tell("Select one node first: the test then runs from there.")
            return
        if self.sandbox.running:
            tell("A test is running. Stop it first, or wait for its end.")
            return
        if not self.past:
            tell("Nothing is known yet of the steps before. Run the test once from the start.")
            return
        desk = self.desk
        # The button that was pressed may be drawn anew meanwhile; this place stays.
        with desk.place:
            past = await desk.factory.runs.past(desk.who, self.past)
            plan = await desk.factory.sandbox.preview(desk.who, desk.blueprint, past, node)
            if await self._agree(node, plan, past):
                await self.sandbox.go_on_with(past, node)

    async def _agree(self, node: str, plan: Reuse, past: Past) -> bool:
        title = self.desk.title
        with self.desk.place:
            return await agree(
                f"Run from “{title(node)}”",
                plan,
                title,
                source="the last test" if past.sandbox else "the run you brought here",
                live=False,
                about="" if node in plan.runs else "It is inside a loop, so the loop is gone through again.",
            )

    # --- a run from outside --------------------------------------------------------------------------------------------------

    async def bring(self, run_id: str) -> None:
        """Load a run that has ended: what came in, what each step did, and the failed step selected."""
        desk = self.desk
        try:
            past = await desk.factory.runs.past(desk.who, run_id)
            run = await desk.factory.runs.get(desk.who, run_id)
        except FactoryError as problem:
            tell(spoken(problem.message))
            return
        if run.info.blueprint_id != desk.id:
            tell("That run is of another agent.")
            return
        self.past = run_id
        self.sandbox.show_past(past, run)
        self.sandbox.samples.take(past.trigger or "", as_json(past.input, pretty=True))
        node = next((id_ for id_ in failed_steps(past) if desk.placed(id_)), "")
        if node:
            desk.show(node)
            desk.open_tab("data")
        tell("This run is loaded. Mend the step, then choose “Run from here”.")
