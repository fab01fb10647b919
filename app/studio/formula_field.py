"""The field of a formula, a text with formulas in it, or JSON with formulas in it: written by hand or picked from data,
checked and tried out on the sample while it is typed."""

from __future__ import annotations

import re
from typing import Any, Literal

from nicegui import ui

from app.permissions import on
from app.pieces import field_error
from app.sentences import spoken
from app.studio.builder import Builder
from app.studio.form import Form, Spec
from app.studio.known import Known
from app.studio.picker import draw_data, draw_functions
from app.studio.words import as_json, one_line
from nodes.base import Family
from nodes.formula import (
    Budget,
    FormulaError,
    Problem,
    check_formula,
    check_text,
    compile_formula,
    compile_text,
    from_formula,
)
from runtime.policy import Permission

TRIED: Budget = Budget(steps=200_000, size=1_000_000)
"""What trying a formula out may cost: it happens at every key."""
CONDITIONS = frozenset({"condition"})
"""Settings of this name hold a formula that is true or not: they get the builder."""

_MEANT = re.compile(r"Write `([A-Za-z_][A-Za-z0-9_]*)`.*", re.DOTALL)

Mode = Literal["formula", "template", "json"]


def formula_field(form: Form, spec: Spec) -> None:
    """Draw the field."""
    FormulaField(form, spec).draw()


def problems_of(text: str, mode: Mode, known: Known) -> list[Problem]:
    """What is wrong with it, given what can arrive."""
    if not text.strip():
        return []
    if mode == "formula":
        return check_formula(text, known.shape)
    return check_text(text, known.shape) if "{{" in text or "{%" in text or "{#" in text else []


def tried(text: str, mode: Mode, known: Known) -> tuple[bool, str]:
    """Whether it works on the sample, and the result or the reason in one line. Empty when there is nothing to say."""
    if not text.strip() or mode == "json" or (mode == "template" and "{{" not in text):
        return True, ""
    try:
        compiled = compile_formula(text) if mode == "formula" else compile_text(text)
        value = compiled.evaluate(known.sample, budget=TRIED)
    except FormulaError as error:
        return False, spoken(error.message)
    return True, one_line(value, 160)


class FormulaField:
    """One field; its help opens below it and is drawn only then."""

    def __init__(self, form: Form, spec: Spec) -> None:
        self.form = form
        self.spec = spec
        self.mode: Mode = spec.format if spec.format in ("formula", "json") else "template"  # type: ignore[assignment]
        self.text = spec.value if isinstance(spec.value, str) else "" if spec.value is None else as_json(spec.value)
        self.builder: Builder | None = None
        self.open: str = ""

    @property
    def known(self) -> Known:
        """What can be used in this setting."""
        known, node = self.form.desk.known(self.form.node)
        return known.within(node, self.spec.kind)

    def draw(self) -> None:
        """Draw the head with its tools, the input, and what is known of it."""
        with ui.element("div").classes("st-formula"):
            with self.form.head(self.spec):
                if self.spec.path[-1] in CONDITIONS and self.mode == "formula" and self.form.editable:
                    self._switch = (
                        ui.button("", on_click=on(self._turn, Permission.EDIT)).props("flat dense").classes("st-mini")
                    )
                    self._switch.mark(f"turn-{'.'.join(map(str, self.spec.path))}")
                else:
                    self._switch = None  # type: ignore[assignment]
                if self.form.editable and self._something_arrives():
                    self._tool("data", "data_object", "Insert a field")
                    self._tool("functions", "functions", "Functions")
            self._body = ui.element("div").classes("w-full")
            self._said = ui.element("div").classes("st-errors")
            self._panel = ui.element("div").classes("st-panel")
            self._panel.set_visibility(False)
        builds = (
            self._switch is not None and from_formula(self.text) is not None
            if self.text.strip()
            else self._switch is not None
        )
        self._show_builder() if builds else self._show_text()
        self._judge()

    def _something_arrives(self) -> bool:
        """Whether formulas make sense here: not in a trigger, where nothing has arrived yet."""
        placed = self.form.desk.placed(self.form.node)
        return placed is None or not placed.type.startswith(f"{Family.TRIGGER.value}.")

    # --- two ways to write it ----------------------------------------------------------------------------------------

    def _show_text(self) -> None:
        self.builder = None
        self._body.clear()
        lines = int(self.spec.schema.get("lines", 1))
        with self._body, ui.element("div").classes("w-full").props(f"data-formula={self.mode}"):
            made = ui.textarea(
                value=self.text, placeholder=self.spec.placeholder, on_change=on(self._typed, Permission.EDIT)
            )
            made.props(
                f"autogrow debounce=200 rows={min(lines, 4)} spellcheck={'true' if self.mode == 'template' else 'false'}"
            )
            made.classes("w-full st-text").classes("af-mono" if self.mode != "template" else "")
            made.mark(f"input-{'.'.join(map(str, self.spec.path))}")
            made.props["aria-label"] = self.spec.title
            if not self.form.editable:
                made.props("readonly")
        if self._switch is not None:
            self._switch.set_text("Build it")
            self._switch.props('icon="rule" aria-label="Build the condition from parts"')

    def _show_builder(self) -> None:
        self._body.clear()
        with self._body:
            self.builder = Builder(self.text, self.known, self._built, spec_path=".".join(map(str, self.spec.path)))
            self.builder.draw()
        if self._switch is not None:
            self._switch.set_text("Edit as text")
            self._switch.props('icon="edit" aria-label="Edit the condition as text"')

    def _turn(self) -> None:
        if self.builder is not None:
            self._show_text()
            return
        if self.text.strip() and from_formula(self.text) is None:
            ui.notify(
                "This condition is more than the builder can show. Go on as text, or clear it to build a new one.",
                type="info",
                classes="af-notice",
            )
            return
        self._show_builder()

    def _typed(self, event: Any) -> None:
        self._keep(event.value or "")

    def _built(self, formula: str) -> None:
        self._keep(formula)

    def _keep(self, text: str) -> None:
        if text == self.text:
            return
        self.text = text
        self.form.put(self.spec.path, text)
        self._judge()

    # --- what is known of it -----------------------------------------------------------------------------------------

    def _judge(self) -> None:
        known = self.known
        problems = problems_of(self.text, self.mode, known)
        works, result = tried(self.text, self.mode, known)
        self._said.clear()
        with self._said:
            for problem in problems[:3]:
                self._draw_problem(problem)
            if problems or not result:
                return
            with ui.element("div").classes("st-preview" if works else "st-preview is-bad"):
                source = "in the last test" if known.real else "with sample data"
                ui.label("=" if works else "!").classes("st-preview-sign").props("aria-hidden=true")
                ui.label(result).classes("st-preview-value").mark("preview")
                ui.label(source).classes("st-preview-source")

    def _draw_problem(self, problem: Problem) -> None:
        meant = _MEANT.fullmatch(problem.fix or "") or _MEANT.match(problem.fix or "")
        place = problem.position
        if meant is None or place is None or not self.form.editable:
            field_error(spoken(f"{problem.message} {problem.fix or ''}"))
            return
        with field_error(spoken(problem.message)):
            fixed = self.text[: place.start] + meant[1] + self.text[place.end :]
            use = ui.button(f"Use “{meant[1]}”", on_click=on(lambda: self._replace(fixed), Permission.EDIT))
            use.props("flat dense").classes("st-mini").mark("use-meant")

    def _replace(self, text: str) -> None:
        self._keep(text)
        if self.builder is None:
            self._show_text()
        else:
            self._show_builder()

    # --- help ----------------------------------------------------------------------------------------------------------

    def _tool(self, name: str, icon: str, label: str) -> None:
        made = ui.button(icon=icon, on_click=on(lambda: self._help(name))).props(f'flat dense aria-label="{label}"')
        made.classes("st-mini")
        made.mark(f"{name}-{'.'.join(map(str, self.spec.path))}")
        with made:
            ui.tooltip(label)

    def _help(self, name: str) -> None:
        self._panel.clear()
        self.open = "" if self.open == name else name
        self._panel.set_visibility(bool(self.open))
        if not self.open:
            return
        if self.builder is not None:
            self._show_text()
        with self._panel:
            if name == "data":
                draw_data(self.known)
            else:
                draw_functions()
