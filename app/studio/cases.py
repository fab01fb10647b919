"""An agent's cases: inputs that were kept with what is expected of them. All have to pass before it goes live."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from app.permissions import on
from app.pieces import empty_state, entered, heading
from app.studio.desk import Desk, tell, titled_input
from app.studio.outside import Outside
from app.studio.samples import Samples
from app.studio.words import as_json, one_line
from runtime.cases import CaseInfo, CaseResult
from runtime.policy import Permission

EXPECTED = {"succeeded": "It goes well", "failed": "It fails"}


class CaseList:
    """The button of the test drawer, and its dialog."""

    def __init__(self, desk: Desk, samples: Samples, outside: Outside) -> None:
        self.desk = desk
        self.samples = samples
        self.outside = outside
        self._results: dict[str, CaseResult] = {}
        self.button = (
            ui.button("Cases", icon="rule", on_click=on(self.open)).classes("af-secondary st-slim").mark("cases")
        )

    async def open(self) -> None:
        """Show the list."""
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("case-list"):
            with ui.element("div").classes("af-toolbar w-full"):
                heading("Cases", 2)
                ui.element("div").classes("af-space")
                ui.button(icon="close", on_click=dialog.close).props('flat dense round aria-label="Close"')
            ui.label(
                "A case is an input with what you expect to come of it. The agent goes live only when all of them pass."
            ).classes("af-muted")
            self._list = ui.element("div").classes("st-scroll")
            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                if self.desk.may(Permission.EDIT):
                    ui.button(
                        "Keep the present input as a case",
                        icon="add",
                        on_click=on(lambda: self._ask(dialog, None), Permission.EDIT),
                    ).classes("af-secondary").mark("add-case")
                if self.desk.may(Permission.RUN):
                    self._run = ui.button("Run them", icon="play_arrow", on_click=on(self.run, Permission.RUN))
                    self._run.mark("run-cases")
        self._dialog = dialog
        dialog.on("hide", dialog.delete)
        await self._fill()
        dialog.open()

    async def run(self) -> None:
        """Run all on the drawing as it stands."""
        self._run.props("loading")
        try:
            report = await self.desk.factory.cases.run(self.desk.who, self.desk.id, self.desk.blueprint)
        finally:
            if not self._run.is_deleted:
                self._run.props(remove="loading")
        self._results = {result.id: result for result in report.results}
        failing = len(report.failing)
        tell(f"{failing} of {len(report.results)} cases fail." if failing else "All cases pass.", good=not failing)
        await self._fill()

    async def _fill(self) -> None:
        cases = await self.desk.factory.cases.list(self.desk.who, self.desk.id)
        if self._list.is_deleted:
            return
        self._list.clear()
        with self._list:
            if not cases:
                empty_state(
                    "rule",
                    "No case yet",
                    "Choose an input in the test drawer, such as one that went wrong once, and keep it here. "
                    "From then on nobody makes an agent live that fails on it.",
                )
            for case in cases:
                self._row(case)

    def _row(self, case: CaseInfo) -> None:
        result = self._results.get(case.id)
        look = "" if result is None else " is-passed" if result.passed else " is-error"
        with ui.element("div").classes(f"st-finding{look}").mark(f"case-{case.name}"):
            icon = "rule" if result is None else "check_circle" if result.passed else "cancel"
            ui.icon(icon).props("aria-hidden=true")
            with ui.element("div").classes("grow min-w-0"):
                ui.label(case.name).classes("st-finding-words")
                wanted = EXPECTED[case.expects] + (f", and {case.formula}" if case.formula else "")
                ui.label(wanted).classes("af-muted")
                if result is not None:
                    ui.label(result.why or "Passed.").classes("af-small" if result.passed else "af-small af-bad")
                else:
                    ui.label(one_line(case.input, 90)).classes("af-muted af-small af-mono af-one-line")
                with ui.element("div").classes("af-actions"):
                    ui.button("Use it as input", on_click=on(partial(self._use, case))).props("flat dense").classes(
                        "st-mini"
                    )
                    if self.desk.may(Permission.EDIT):
                        ui.button("Change", on_click=on(partial(self._ask, self._dialog, case), Permission.EDIT)).props(
                            "flat dense"
                        ).classes("st-mini")
                        ui.button("Delete", on_click=on(partial(self._delete, case), Permission.EDIT)).props(
                            "flat dense"
                        ).classes("st-mini").mark(f"delete-case-{case.name}")

    def _use(self, case: CaseInfo) -> None:
        self.samples.take(case.trigger, as_json(case.input, pretty=True))
        self._dialog.close()

    async def _delete(self, case: CaseInfo) -> None:
        await self.desk.factory.cases.delete(self.desk.who, case.id)
        self._results.pop(case.id, None)
        await self._fill()

    async def _ask(self, around: ui.dialog, case: CaseInfo | None) -> None:
        """Name it and say what is expected; a new case takes the input of the test drawer."""
        trigger, value = (case.trigger, case.input) if case else self.samples.given()
        pretend: dict[str, Any] = case.pretend if case else self.outside.pretend()
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog"):
            heading("Change the case" if case else "Keep this input as a case", 2)
            ui.label(one_line(value, 200)).classes("af-muted af-small af-mono break-words")
            name = titled_input("Name", value=case.name if case else "", placeholder="A large order")
            name.props("autofocus maxlength=80").classes("w-full").mark("case-name")
            expects = ui.select(EXPECTED, value=case.expects if case else "succeeded", label="What should happen")
            expects.classes("w-full").mark("case-expects")
            formula = titled_input(
                "What must be true of the result (optional)",
                value=case.formula if case else "",
                placeholder='answer == "yes" and total > 100',
            )
            formula.classes("w-full af-mono").mark("case-formula")
            ui.label("It knows the fields of the result, all of it as output, and what came in as input.").classes(
                "st-help"
            )
            problem = ui.element("div").mark("case-problem")

            async def keep() -> None:
                async def put() -> None:
                    await self.desk.factory.cases.put(
                        self.desk.who,
                        self.desk.id,
                        name=str(name.value or ""),
                        input=value,
                        trigger=trigger or "",
                        expects=expects.value,
                        formula=str(formula.value or ""),
                        pretend=pretend,
                        id=case.id if case else "",
                    )

                made.disable()  # pressed twice it would be kept twice
                try:
                    if not await entered(problem, put):
                        return
                finally:
                    made.enable()
                dialog.close()
                if case is not None:
                    self._results.pop(case.id, None)
                await self._fill()

            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                made = ui.button("Keep it", on_click=on(keep, Permission.EDIT)).mark("keep-case")
        dialog.on("hide", dialog.delete)
        dialog.open()
