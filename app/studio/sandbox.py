"""The drawer at the bottom: choose what comes in, run the drawing as it stands, watch each step, see what would be done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import background_tasks, ui

from app.live import Follower
from app.permissions import on
from app.pieces import duration, notice, status_chip
from app.sentences import cost_words, last_line, spoken
from app.studio.cases import CaseList
from app.studio.debugger import Debugger
from app.studio.desk import Desk, tell
from app.studio.outside import Outside
from app.studio.samples import Samples
from app.studio.testrun import Marks
from app.studio.words import item_words, one_line
from nodes.errors import FactoryError
from runtime.forks import Past
from runtime.policy import Permission
from runtime.views import RunView, StepView

ROWS = 200
"""Steps listed; the canvas and the Data tab know the rest."""
PAUSE = 0.25
"""Seconds between two looks at a run that goes on."""
PRINTING = 0.3
"""Seconds between two looks at what code prints."""
_MORE = ("", "more")
_ENDED = ("succeeded", "failed", "cancelled")


class Sandbox:
    """One tab's test bench."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.run_id = ""
        self.running = False
        self._rows: dict[tuple[str, str], _Row] = {}
        self._client = ui.context.client
        self._factory = desk.factory
        self._watching = 0
        self._cost = ""
        self.root = ui.element("section").classes("st-drawer").props('aria-label="Test"')
        desk.changed.append(self._drawing_changed)
        desk.run_until = self.run_until
        desk.chosen.append(self._selection_changed)
        self.debugger = Debugger(desk, self)
        with self.root:
            self._draw()
        self._client.on_delete(self._left)

    def _left(self) -> None:
        """Nobody is here any more to let a held step go on."""
        if self.running:
            with contextlib.suppress(FactoryError):
                self._factory.sandbox.leave(self.desk.editor.who, self.run_id)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        may_run = self.desk.may(Permission.RUN)
        with ui.element("div").classes("st-drawer-bar"):
            ui.element("div").classes("st-grip").props(
                'role=separator aria-label="Drag to resize" aria-orientation=horizontal'
            )
            with (
                ui.element("button").classes("st-drawer-title").props("type=button aria-expanded=false") as self._title
            ):
                ui.icon("science").props("aria-hidden=true")
                ui.label("Test")
            self._title.on("click", on(lambda: self.show(not self.is_open))).mark("drawer")
            self._state = ui.element("div").classes("st-drawer-state")
            ui.element("div").classes("af-space")
            self._cancel = (
                ui.button("Cancel", icon="stop", on_click=on(self.cancel, Permission.RUN))
                .classes("af-secondary st-slim")
                .mark("cancel-run")
            )
            self._cancel.set_visibility(False)
            self._cases = ui.element("div")
            self._break = self._tool("adjust", "Hold tests before the selected step (F9)", self._toggle, "breakpoint")
            self._break.props("id=st-break")
            self._stepwise = self._tool("redo", "Run step by step", self._step_by_step, "step-by-step")
            self._from = self._tool("start", "Run from the selected step", self._run_from, "run-from")
            until = on(lambda: self.run_until(self.desk.node), Permission.RUN)
            self._until = (
                ui.button("Run to selected", icon="vertical_align_center", on_click=until)
                .classes("af-secondary st-slim")
                .mark("run-until")
            )
            self._run = (
                ui.button("Run all", icon="play_arrow", on_click=on(self.run, Permission.RUN))
                .props("id=st-run")
                .classes("st-slim")
                .mark("run-all")
            )
            with self._run:
                ui.tooltip("Ctrl+Enter")
            if not may_run:
                for button in (self._run, self._until, self._from, self._stepwise, self._break):
                    button.set_visibility(False)
            self._fold = ui.button(icon="expand_less", on_click=on(lambda: self.show(not self.is_open))).props(
                'flat dense round aria-label="Open or close the test"'
            )
        self.debugger.draw_bar()
        self._body = ui.element("div").classes("st-drawer-body")
        self._body.set_visibility(False)
        with self._body:
            with ui.element("div").classes("st-bench-input"):
                self.samples = Samples(self.desk)
            with ui.element("div").classes("st-bench-steps"):
                self._result = ui.element("div").classes("w-full")
                self._list = ui.element("div").classes("st-steps").props('role=list aria-label="Steps of the test"')
                with self._list:
                    _teach()
            self.outside = Outside(self.desk)
        with self._cases:
            CaseList(self.desk, self.samples, self.outside)
        self._selection_changed()

    def _tool(self, icon: str, words: str, act: Callable[[], Any], mark: str) -> ui.button:
        made = ui.button(icon=icon, on_click=on(act, Permission.RUN)).props(f'flat dense round aria-label="{words}"')
        with made.classes("st-icon").mark(mark):
            ui.tooltip(words)
        return made

    def _toggle(self) -> None:
        self.debugger.toggle(self.desk.node)

    async def _run_from(self) -> None:
        await self.debugger.run_from(self.desk.node)

    async def _step_by_step(self) -> None:
        await self._start(None, step=True)

    @property
    def is_open(self) -> bool:
        """Whether the drawer is open."""
        return bool(self._body.visible)

    def show(self, opening: bool = True) -> None:
        """Open or close the drawer."""
        self._body.set_visibility(opening)
        self.root.classes(add="is-open") if opening else self.root.classes(remove="is-open")
        self._title.props(f"aria-expanded={'true' if opening else 'false'}")
        self._fold.props(f"icon={'expand_more' if opening else 'expand_less'}")
        if opening:
            self.desk.factory.sandbox.opened(self.desk.who, self.desk.blueprint)
            self.samples.refresh()
            self.outside.draw()

    def _selection_changed(self) -> None:
        free = bool(self.desk.node) and not self.running
        self._until.set_enabled(free)
        self._from.set_enabled(free and bool(self.debugger.past))
        self._stepwise.set_enabled(not self.running)
        self._break.set_enabled(bool(self.desk.node))

    def _drawing_changed(self) -> None:
        if self.is_open:
            self.samples.refresh()
            if not self.running:
                self.outside.draw()

    # --- running -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the whole drawing."""
        await self._start(None)

    async def run_until(self, node: str) -> None:
        """Run what leads up to a node."""
        if not node:
            tell("Select one node first: the test then runs up to it.")
            return
        await self._start(node)

    async def go_on_with(self, past: Past, node: str) -> None:
        """Run from a step, with what a former run gave before it."""
        await self._start(None, past=past, start=node)

    async def _start(self, until: str | None, *, past: Past | None = None, start: str = "", step: bool = False) -> None:
        if self.running:
            tell("A test is running. Cancel it first, or wait for its end.")
            return
        if not self.is_open:
            self.show(True)
            self.desk.fit_soon()
        trigger, value = self.samples.given()
        blueprint = self.desk.blueprint
        self._clear()
        try:
            self.run_id = await self.desk.factory.sandbox.start(
                self.desk.who,
                blueprint,
                value,
                trigger=trigger,
                until=until,
                allow=frozenset(self.outside.allowed),
                pretend=self.outside.pretend(),
                environment=self.outside.environment,
                reuse_of=past,
                start=start,
                breakpoints=frozenset(self.debugger.breakpoints),
                step=step,
            )
        except FactoryError as problem:
            self._refused(problem)
            return
        self._marks = Marks(blueprint)
        self._watching += 1
        self._going(True)
        self.desk.open_tab("data")
        background_tasks.create(self._follow(self.run_id, self._watching), name="follow a test run")

    async def _follow(self, run_id: str, number: int) -> None:
        """Pass the facts of the run on to the canvas, and look at its steps now and then."""
        desk, looked, pause = self.desk, 0.0, PAUSE
        with self.root:
            printing = Follower(partial(self._printed, run_id), pause=PRINTING)
        deaf = desk.factory.bus.subscribe(desk.editor.who.tenant, ("printing", run_id), printing.nudge)
        try:
            async for fact in desk.factory.runs.watch(desk.editor.who, run_id):
                if self._client.is_deleted or number != self._watching:
                    return
                self._marks.tell(fact)
                desk.canvas.set_status(*self._marks.take())
                held = fact["kind"] == "step.held"
                if held or time.monotonic() - looked > pause or self._marks.finished:
                    began = time.monotonic()
                    with self.root:
                        await self._look(run_id)
                        if held:
                            self.debugger.look()
                    looked = time.monotonic()
                    pause = max(PAUSE, 5 * (looked - began))
        except FactoryError as problem:
            with self.root:
                self._refused(problem)
        finally:
            deaf()
            if not self._client.is_deleted and number == self._watching:
                with self.root:
                    self.debugger.past = run_id
                    self._going(False)
                    self.debugger.look()

    async def _look(self, run_id: str) -> None:
        run = await self.desk.factory.runs.get(self.desk.editor.who, run_id)
        if run.info.state in _ENDED:
            self._cost = cost_words(await self.desk.factory.ledger.of_run(self.desk.editor.who, run_id))
        self._show(run)

    async def _printed(self, run_id: str) -> None:
        """Code that runs has printed more: its last line stands in the list, all of it in the Data tab."""
        if run_id != self.run_id or not self.running:
            return
        printing = self.desk.factory.printing.of(self.desk.who, run_id)
        if printing.keys() - self.desk.printing.keys():
            await self._look(run_id)
        for key, text in printing.items():
            if key in self._rows:
                self._rows[key].say(last_line(text))
        self.desk.on_printing(printing)

    async def cancel(self) -> None:
        """End the test."""
        if self.run_id:
            await self.desk.factory.runs.cancel(self.desk.who, self.run_id)

    def show_past(self, past: Past, run: RunView) -> None:
        """Show a run that is over as if it had been tested here."""
        self.show(True)
        self._clear()
        self._marks = Marks(past.plan.blueprint)
        for fact in past.facts:
            self._marks.tell(fact)
        nodes, wires = self._marks.take()
        here = {id_: mark for id_, mark in nodes.items() if self.desk.placed(id_)}
        self.desk.canvas.set_status(here, wires)
        self._show(run)
        self._selection_changed()

    # --- showing -------------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self.desk.canvas.clear_status()
        self._cost = ""
        self._rows.clear()
        self._list.clear()
        self._result.clear()
        self._state.clear()

    def _going(self, running: bool) -> None:
        self.running = running
        self._cancel.set_visibility(running)
        self._run.set_enabled(not running)
        self._selection_changed()

    def _refused(self, problem: FactoryError) -> None:
        """The run could not begin; say why, and lead to the node."""
        self._result.clear()
        node = str(problem.where.get("node", ""))
        with self._result:
            notice(spoken(problem.message), tone="bad", icon="error").mark("test-refused")
            with ui.element("div").classes("st-fix"):
                if problem.fix:
                    ui.label(spoken(problem.fix)).classes("grow")
                if self.desk.placed(node):
                    ui.button("Show", on_click=on(lambda: self._go(node))).props("flat dense").classes("st-mini")

    def _go(self, node: str) -> None:
        self.desk.show(node)
        self.desk.open_tab("settings")

    def _show(self, run: RunView) -> None:
        """The run as it stands now."""
        for step in run.steps[:ROWS]:
            self._show_step(step)
        if len(run.steps) > ROWS and _MORE not in self._rows:
            with self._list:
                ui.label("More steps are not listed here; each node's Data tab shows its newest.").classes(
                    "st-help p-3"
                )
            self._rows[_MORE] = _Row(lambda step: None, None)
        self._state.clear()
        with self._state:
            status_chip(run.info.state)
            if run.info.seconds is not None:
                ui.label(duration(run.info.seconds)).classes("af-muted af-number").mark("test-time")
            if self._cost:
                ui.label(self._cost).classes("af-muted af-number").mark("test-cost")
        if run.info.state in _ENDED:
            self._in_order(run)
            self._draw_result(run)
            self.outside.draw(self._marks.effects)
        self.desk.on_tested(run)

    def _in_order(self, run: RunView) -> None:
        """While it runs, steps are listed as they come; in the end in the order of the run, skipped ones last."""
        wanted = [(step.node, step.iteration) for step in run.steps[:ROWS]]
        if wanted != [key for key in self._rows if key != _MORE]:
            self._rows.clear()
            self._list.clear()
            for step in run.steps[:ROWS]:
                self._show_step(step)

    def _show_step(self, step: StepView) -> None:
        key = (step.node, step.iteration)
        if key not in self._rows:
            with self._list:
                self._rows[key] = self._draw_step(step)
        self._rows[key].show(step)

    def _draw_step(self, step: StepView) -> _Row:
        cls = self.desk.types.get(step.type) if step.type in self.desk.types else None
        row = (
            ui.element("button")
            .classes(f"st-step is-{cls.family if cls else 'unknown'}")
            .props("type=button role=listitem")
        )
        row.mark(f"step-{step.node}")
        row.on("click", on(partial(self._choose, step.node)))
        with row:
            with ui.element("span").classes("st-tile"):
                ui.icon(cls.icon if cls else "extension_off").props("aria-hidden=true")
            with ui.element("div").classes("st-step-words"):
                name = step.name + (f"  ·  {item_words(step.iteration, step.turn)}" if step.iteration else "")
                ui.label(name).classes("st-step-name")
                line = ui.label().classes("st-step-line")
            spent = ui.label().classes("af-muted af-number st-step-time")
            chip = ui.element("span").classes("st-step-chip")

        def show(now: StepView) -> None:
            line.set_text(_line(now))
            spent.set_text(duration(now.seconds) if now.seconds is not None and now.state != "skipped" else "")
            chip.clear()
            with chip:
                status_chip(now.state)

        return _Row(show, line)

    def _choose(self, node: str) -> None:
        self.desk.show(node)
        self.desk.open_tab("data")

    def _draw_result(self, run: RunView) -> None:
        self._result.clear()
        error = run.info.error
        with self._result:
            if run.info.state == "failed" and error:
                where = error.get("where") or {}
                with notice(spoken(str(error.get("message", "The test failed."))), tone="bad", icon="error"):
                    pass
                with ui.element("div").classes("st-fix"):
                    ui.label(spoken(str(error.get("fix") or "Look at the step that failed."))).classes("grow")
                    if self.desk.placed(str(where.get("node", ""))):
                        ui.button("Show", on_click=on(partial(self._choose, str(where["node"])))).props(
                            "flat dense"
                        ).classes("st-mini")
            elif run.info.state == "succeeded":
                ran = sum(step.state == "succeeded" for step in run.steps)
                with ui.element("div").classes("st-verdict").mark("test-verdict"):
                    ui.icon("check_circle").props("aria-hidden=true")
                    ui.label(f"All went well: {ran} step{'' if ran == 1 else 's'}.").classes("af-strong")
                    if run.output is not None:
                        ui.label(f"Result: {one_line(run.output, 120)}").classes("af-muted truncate")


class _Row:
    """One step in the list."""

    def __init__(self, show: Callable[[StepView], None], line: ui.label | None) -> None:
        self.said = ""
        self._show = show
        self._line = line

    def say(self, words: str) -> None:
        """Put words below its name, until it changes."""
        if self._line is not None:
            self._line.set_text(words)

    def show(self, step: StepView) -> None:
        """Draw it again if it changed."""
        said = f"{step.state}|{step.attempt}|{step.note}|{step.finished_at}"
        if said != self.said:
            self.said = said
            self._show(step)


def _line(step: StepView) -> str:
    """What is most worth knowing of a step."""
    if step.error and step.state == "failed":
        return spoken(str(step.error.get("message", "")))
    if step.note:
        return step.note[:1].upper() + step.note[1:]
    if isinstance(step.output, dict) and step.output:
        ports = step.output
        if len(ports) == 1:
            name, value = next(iter(ports.items()))
            return f"{name}: {one_line(value, 90)}"
        return ", ".join(f"{name}: {one_line(value, 30)}" for name, value in list(ports.items())[:4])
    return ""


def _teach() -> None:
    with ui.element("div").classes("st-teach"):
        ui.label("Try the agent before it is live").classes("af-strong")
        ui.label(
            "Choose what comes in, then press Run all. Every step shows here with what came in and what went out. "
            "Nothing is sent outside: what would be sent is listed on the right."
        ).classes("af-muted")
