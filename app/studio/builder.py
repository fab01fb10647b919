"""The condition builder: lines of field, question and value that write a formula, and read it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from nicegui import ui

from app.permissions import on
from app.studio.known import Known
from app.studio.words import one_line
from nodes.formula import Comparison, FieldRef, FormulaError, Group, from_formula, to_formula
from nodes.formula.conditions import OPERATORS, WITHOUT_VALUE, Operator
from nodes.shape import Shape, without_nothing
from runtime.policy import Permission

_LISTS = ("one_of", "not_one_of")


@dataclass(slots=True)
class Line:
    """A line as it is being filled in; the value as it was typed."""

    field: str = ""
    operator: Operator = "equals"
    value: str = ""
    other: bool = False
    """Whether the value is another field."""
    read: tuple[str, Operator, Any] | None = None
    """What was read, as text, question and value: a line that nobody touched is written back as it was."""


@dataclass(slots=True)
class Block:
    """Lines and blocks of which all, or any, must hold."""

    match: Literal["all", "any"] = "all"
    items: list[Line | Block] = field(default_factory=list)


class Builder:
    """Shows a formula as lines; `built` gets the new formula whenever the lines make one."""

    def __init__(self, text: str, known: Known, built: Callable[[str], None], *, spec_path: str = "") -> None:
        self.known = known
        self.built = built
        self.name = spec_path
        self.paths = known.paths()
        found = from_formula(text) if text.strip() else None
        self.block = self._read(found) if found else Block()
        if not self.block.items:
            self.block.items.append(Line())

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
                if line.operator not in (*WITHOUT_VALUE, "contains", "not_contains", *_LISTS):
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
            hint = "a, b, c" if line.operator in _LISTS else "value"
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
        redraw = "operator" in given or "other" in given
        for name, value in given.items():
            setattr(line, name, value)
        if line.operator in ("contains", "not_contains", *_LISTS):
            line.other = False
        if redraw:
            self._fill()
        self._write()

    def _write(self) -> None:
        """Tell the formula, or say what is still missing."""
        unfinished = sum(not line.field for line in _lines(self.block))
        total = sum(1 for _ in _lines(self.block))
        if unfinished == total:
            self._problem.set_text("Choose a field." if total else "")
            self.built("")
            return
        try:
            formula = to_formula(self._group(self.block))
        except FormulaError as error:
            self._problem.set_text(f"{error.message} {error.fix or ''}")
            return
        self._problem.set_text("Lines without a field are left out." if unfinished else "")
        self.built(formula)

    # --- reading and writing values ------------------------------------------------------------------------------------

    def _group(self, block: Block) -> Group:
        items = [
            self._group(item) if isinstance(item, Block) else self._comparison(item)
            for item in block.items
            if not _blank(item)
        ]
        return Group(block.match, tuple(items))

    def _comparison(self, line: Line) -> Comparison:
        if line.operator in WITHOUT_VALUE:
            return Comparison(line.field, line.operator)
        if line.other:
            return Comparison(line.field, line.operator, FieldRef(line.value))
        if line.read is not None and line.read[:2] == (line.value, line.operator):
            return Comparison(line.field, line.operator, line.read[2])
        kind = self._kind(line.field)
        if line.operator in _LISTS:
            parts = [part.strip() for part in line.value.split(",")]
            return Comparison(line.field, line.operator, tuple(typed(part, kind) for part in parts if part))
        if line.operator in ("starts_with", "ends_with", "matches"):
            return Comparison(line.field, line.operator, line.value)
        return Comparison(line.field, line.operator, typed(line.value, kind))

    def _kind(self, path: str) -> str:
        """The kind of values that a field has, as far as it is known."""
        shape: Shape | None = self.known.shape
        for step in path.replace("[0]", ".0").split("."):
            shape = without_nothing(shape) if shape else None
            if shape is None:
                break
            shape = shape.items if step.isdigit() else shape.fields.get(step)
        if shape is not None and shape.kind in ("text", "number", "yes/no", "moment"):
            return "text" if shape.kind == "moment" else shape.kind
        sample = dict(self.paths).get(path)
        if isinstance(sample, bool):
            return "yes/no"
        return "number" if isinstance(sample, int | float) else "text" if isinstance(sample, str) else ""

    def _read(self, group: Group) -> Block:
        items = [self._read(item) if isinstance(item, Group) else _line(item) for item in group.items]
        return Block(group.match, items)


def typed(text: str, kind: str) -> str | int | float | bool | None:
    """What a person typed, as the kind of value that the field has; a guess when the kind is not known."""
    plain = text.strip()
    if kind == "text":
        return text
    if kind in ("yes/no", "") and plain.lower() in ("yes", "true", "no", "false"):
        return plain.lower() in ("yes", "true")
    if kind == "" and plain.lower() in ("none", "nothing"):
        return None
    try:
        number = float(plain)
    except ValueError:
        return text
    if number != number or abs(number) == float("inf"):
        return text
    return int(number) if number.is_integer() and not set(plain) & set(".eE") else number


def _line(item: Comparison) -> Line:
    value = item.value
    if isinstance(value, FieldRef):
        return Line(item.field, item.operator, value.path, other=True)
    if item.operator in WITHOUT_VALUE:
        return Line(item.field, item.operator)
    text = ", ".join(_said(part) for part in value) if isinstance(value, tuple) else _said(value)
    return Line(item.field, item.operator, text, read=(text, item.operator, value))


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value is None else str(value)


def _lines(block: Block) -> list[Line]:
    return [line for item in block.items for line in (_lines(item) if isinstance(item, Block) else [item])]


def _blank(item: Line | Block) -> bool:
    return not item.field if isinstance(item, Line) else all(_blank(each) for each in item.items)
