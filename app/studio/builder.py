"""The condition builder: lines of field, question and value that write a formula, and read it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from app.permissions import on
from app.sentences import spoken
from app.studio.known import Known
from app.studio.lines import LISTS, ONE_WRITTEN, Block, Line, read, unfinished, written
from app.studio.words import one_line
from nodes.formula import FormulaError
from nodes.formula.conditions import OPERATORS, WITHOUT_VALUE
from runtime.policy import Permission


class Builder:
    """Shows a formula as lines; `built` gets the new formula whenever the lines make one."""

    def __init__(self, text: str, known: Known, built: Callable[[str], None], *, spec_path: str = "") -> None:
        self.known = known
        self.built = built
        self.name = spec_path
        self.paths = known.paths()
        self.block = read(text)

    def draw(self) -> None:
        """Draw all of it into the present container."""
        self._box = ui.element("div").classes("st-builder")
        self._problem = ui.label().classes("st-missing")
        self._fill()

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._box.clear()
        with self._box:
            self._draw_block(self.block, None, ())

    def _draw_block(self, block: Block, parent: Block | None, at: tuple[int, ...]) -> None:
        with ui.element("div").classes("st-block is-inner" if parent else "st-block"):
            if len(block.items) > 1 or parent:
                with ui.element("div").classes("st-match"):
                    ui.toggle(
                        {"all": "All of these", "any": "Any of these"},
                        value=block.match,
                        on_change=on(lambda event: self._set_match(block, event.value), Permission.EDIT),
                    ).props("unelevated dense no-caps").classes("st-toggle")
                    if parent:
                        ui.element("div").classes("af-space")
                        self._remove(parent, block, "Remove the group")
            for number, item in enumerate(block.items):
                place = (*at, number)
                if isinstance(item, Block):
                    self._draw_block(item, block, place)
                else:
                    self._draw_line(item, block, place)
            with ui.element("div").classes("st-adds"):
                add = on(lambda: self._add(block, Line()), Permission.EDIT)
                ui.button("Condition", icon="add", on_click=add).props("flat dense").classes("st-add").mark(
                    f"add-line-{self.name}"
                )
                if len(at) < 2:
                    group = on(
                        lambda: self._add(block, Block("any" if block.match == "all" else "all", [Line()])),
                        Permission.EDIT,
                    )
                    ui.button("Group", icon="playlist_add", on_click=group).props("flat dense").classes("st-add")

    def _draw_line(self, line: Line, block: Block, at: tuple[int, ...]) -> None:
        mark = f"{self.name}-{'-'.join(map(str, at))}"
        alone = len(self.block.items) == 1 and len(at) == 1
        with ui.element("div").classes("st-line"):
            with ui.element("div").classes("st-line-rest"):
                self._path_select(line.field, lambda path: self._set(line, field=path), "Field").mark(
                    f"line-field-{mark}"
                )
                if line.operator not in (*WITHOUT_VALUE, *ONE_WRITTEN):
                    self._draw_turn(line)
                if not alone:
                    self._remove(block, line, "Remove the condition")
            with ui.element("div").classes("st-line-rest"):
                ui.select(
                    dict(OPERATORS),
                    value=line.operator,
                    on_change=on(lambda event: self._set(line, operator=event.value), Permission.EDIT),
                ).props('options-dense aria-label="Question"').classes("st-operator").mark(f"line-operator-{mark}")
                if line.operator not in WITHOUT_VALUE:
                    self._draw_value(line, mark)

    def _draw_value(self, line: Line, mark: str) -> None:
        if line.other:
            self._path_select(line.value, lambda path: self._set(line, value=path), "Other field").classes("st-value")
        else:
            hint = "a, b, c" if line.operator in LISTS else "value"
            made = ui.input(
                value=line.value,
                placeholder=hint,
                on_change=on(lambda event: self._set(line, value=event.value or ""), Permission.EDIT),
            )
            made.props('debounce=200 aria-label="Value"').classes("st-value").mark(f"line-value-{mark}")

    def _draw_turn(self, line: Line) -> None:
        """Compare with a value, or with another field."""
        label = "Compare with a value" if line.other else "Compare with another field"
        turn = on(lambda: self._set(line, other=not line.other, value=""), Permission.EDIT)
        with ui.button(icon="edit" if line.other else "compare_arrows", on_click=turn) as made:
            ui.tooltip(label)
        made.props(f'flat dense aria-label="{label}"').classes("st-tool")

    def _path_select(self, value: str, chosen: Callable[[str], None], label: str) -> ui.select:
        options = {path: f"{path}  ·  {one_line(sample, 24)}" for path, sample in self.paths}
        if value and value not in options:
            options = {value: value, **options}
        made = ui.select(
            options,
            value=value or None,
            with_input=True,
            new_value_mode="add-unique",
            on_change=on(lambda event: chosen(event.value or ""), Permission.EDIT),
        )
        made.props(
            f'options-dense hide-selected fill-input input-debounce=0 placeholder="{label}" aria-label="{label}"'
        )
        return made.classes("st-path")

    def _remove(self, block: Block, item: Line | Block, label: str) -> None:
        ui.button(icon="close", on_click=on(lambda: self._drop(block, item), Permission.EDIT)).props(
            f'flat dense round aria-label="{label}"'
        ).classes("st-tool")

    # --- changing ----------------------------------------------------------------------------------------------------

    def _set_match(self, block: Block, match: str) -> None:
        block.match = "any" if match == "any" else "all"
        self._write()

    def _add(self, block: Block, item: Line | Block) -> None:
        block.items.append(item)
        self._fill()
        self._write()

    def _drop(self, block: Block, item: Line | Block) -> None:
        block.items = [each for each in block.items if each is not item]
        if not self.block.items:
            self.block.items.append(Line())
        self._fill()
        self._write()

    def _set(self, line: Line, **given: Any) -> None:
        before = _looks(line)
        for name, value in given.items():
            setattr(line, name, value)
        if line.operator in ONE_WRITTEN:
            line.other = False
        if _looks(line) != before:
            self._fill()
        self._write()

    def _write(self) -> None:
        """Tell the formula, or say what is still missing."""
        lines = list(self.block.lines())
        wanting = [said for line in lines if (said := unfinished(line, self.known))]
        if len(wanting) == len(lines):
            self._problem.set_text(wanting[0] if wanting else "")
            self.built("")
            return
        try:
            formula = written(self.block, self.known)
        except FormulaError as error:
            self._problem.set_text(spoken(f"{error.message} {error.fix or ''}"))
            return
        self._problem.set_text("Unfinished lines do not count." if wanting else "")
        self.built(formula)


def _looks(line: Line) -> tuple[bool, bool, bool, bool]:
    """What decides how a line is drawn; as long as it stays, a field that somebody types in is left alone."""
    return line.operator in WITHOUT_VALUE, line.operator in ONE_WRITTEN, line.operator in LISTS, line.other
