"""A form made from a JSON Schema: the settings of a node, the policy of a step. No node type is known here.

Settings may be unfinished: what is typed is kept as it is, and what is wrong with it shows at the field.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from nicegui import ui

from app.permissions import on
from app.pieces import field_error
from app.sentences import spoken
from app.studio.desk import Desk
from app.studio.words import EMPTY, plain_problem
from runtime.policy import Permission

Path = tuple[str | int, ...]
UNSET: Final[Any] = object()
"""Takes a setting out, so that its default counts."""


@dataclass(slots=True)
class Spec:
    """One field: where its value is, what it is called, what it may hold."""

    path: Path
    title: str
    schema: dict[str, Any]
    value: Any
    required: bool = False
    nullable: bool = False
    bare: bool = False
    """Without a title of its own, as in a list of texts."""

    @property
    def kind(self) -> str:
        """Which setting it is, without the numbers of rows: `cases.condition`."""
        return ".".join(str(step) for step in self.path if isinstance(step, str))

    @property
    def format(self) -> str:
        """What sort of text it is."""
        return str(self.schema.get("format", ""))

    @property
    def placeholder(self) -> str:
        """An example in grey."""
        return str(self.schema.get("placeholder", ""))


class Draw(Protocol):
    """Draws one field into the present container."""

    def __call__(self, form: Form, spec: Spec) -> None: ...


@dataclass(slots=True)
class _Shown:
    box: ui.element
    owner: Path
    when: Mapping[str, Any]


@dataclass(slots=True)
class Form:
    """A form over one record of values. `change(name, value)` is told of every change of a top-level setting."""

    desk: Desk
    node: str
    schema: dict[str, Any]
    values: dict[str, Any]
    change: Callable[[str, Any], None]
    find_problems: Callable[[], Mapping[str, str]]
    draw_leaf: Draw
    editable: bool = True
    _errors: dict[str, ui.element] = field(default_factory=dict)
    _shown: list[_Shown] = field(default_factory=list)
    _redrawn: list[tuple[Path, str, Any, Callable[[], None]]] = field(default_factory=list)
    _top: ui.element | None = None

    def draw(self) -> None:
        """Draw all fields into the present container."""
        self.values = copy.deepcopy(self.values)
        self._top = ui.element("div").classes("st-errors")
        with ui.element("div").classes("st-form"):
            self._draw_fields(self.schema, ())
        self.refresh()

    # --- values ------------------------------------------------------------------------------------------------------

    def value(self, path: Path) -> Any:
        """What was typed at a path, or UNSET."""
        found: Any = self.values
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return UNSET
        return found

    def put(self, path: Path, value: Any) -> None:
        """Keep what was typed and tell of it."""
        owner = self._owner(path)
        step = path[-1]
        if value is UNSET:
            if isinstance(owner, dict):
                owner.pop(str(step), None)
        elif isinstance(owner, list) and isinstance(step, int):
            owner[step] = value
        else:
            owner[step] = value
        top = str(path[0])
        self.change(top, copy.deepcopy(self.values[top]) if top in self.values else UNSET)
        self.refresh()

    def _owner(self, path: Path) -> Any:
        """The record or list that holds the value; defaults on the way become values."""
        owner: Any = self.values
        schema = self.schema
        for number, step in enumerate(path[:-1]):
            schema = self.resolve(self._inside(schema, step))[0]
            inside = owner.get(step, UNSET) if isinstance(owner, dict) else owner[step]
            wanted = list if isinstance(path[number + 1], int) else dict
            if not isinstance(inside, wanted):
                given = schema.get("default")
                inside = copy.deepcopy(given) if isinstance(given, wanted) else wanted()
                owner[step] = inside
            owner = inside
        return owner

    def _inside(self, schema: dict[str, Any], step: str | int) -> dict[str, Any]:
        found = schema.get("items") if isinstance(step, int) else schema.get("properties", {}).get(step)
        return found if isinstance(found, dict) else {}

    def resolve(self, schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The schema behind references, and whether nothing is a value too."""
        nullable = False
        for _ in range(8):
            if "$ref" in schema:
                name = str(schema["$ref"]).rpartition("/")[2]
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self.schema.get("$defs", {}).get(name, {}), **rest}
            elif len(schema.get("allOf", ())) == 1:
                schema = {**schema["allOf"][0], **{key: value for key, value in schema.items() if key != "allOf"}}
            elif "anyOf" in schema:
                options = [option for option in schema["anyOf"] if option.get("type") != "null"]
                nullable = nullable or len(options) < len(schema["anyOf"])
                if len(options) != 1:
                    break
                schema = {**{key: value for key, value in schema.items() if key != "anyOf"}, **options[0]}
            else:
                break
        return schema, nullable

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _draw_fields(self, schema: dict[str, Any], owner: Path) -> None:
        required = set(schema.get("required", ()))
        for name, raw in schema.get("properties", {}).items():
            if section := raw.get("section"):
                ui.label(str(section)).classes("st-section").props("role=heading aria-level=3")
            self.draw_field(raw, (*owner, name), required=name in required)

    def draw_field(self, raw: dict[str, Any], path: Path, *, required: bool = False, bare: bool = False) -> None:
        """One field with its title, help and error."""
        schema, nullable = self.resolve(raw)
        owner, name = path[:-1], str(path[-1])
        given = self.value(path)
        value = copy.deepcopy(schema.get("default")) if given is UNSET else given
        title = str(schema.get("title") or name.replace("_", " ").capitalize())
        if switched := schema.get("format_when"):
            schema = {**schema, "format": self._format(owner, schema, switched)}
        spec = Spec(path, title, schema, value, required, nullable, bare)
        with ui.element("div").classes("st-field") as box:
            box.mark(f"field-{'.'.join(map(str, path))}")
            self._draw_kind(spec)
            self._errors[".".join(map(str, path))] = ui.element("div").classes("st-errors")
            if (text := schema.get("description")) and not bare:
                ui.label(spoken(str(text))).classes("st-help")
        if when := schema.get("show_when"):
            self._shown.append(_Shown(box, owner, when))
        if switched:
            self._redrawn.append(
                (owner, str(schema["format"]), switched, lambda: self._redraw(box, raw, path, required))
            )

    def _draw_kind(self, spec: Spec) -> None:
        schema = spec.schema
        if schema.get("type") == "array":
            items, _ = self.resolve(schema.get("items", {}))
            if not (items.get("enum") or "const" in items):
                self._draw_rows(spec, items)
                return
        elif schema.get("type") == "object" and schema.get("properties"):
            self.head(spec)
            with ui.element("div").classes("st-nested"):
                self._draw_fields(schema, spec.path)
            return
        self.draw_leaf(self, spec)

    def head(self, spec: Spec) -> ui.element:
        """The title line of a field; buttons may be put into it."""
        with ui.element("div").classes("st-head") as made:
            if not spec.bare:
                ui.label(spec.title).classes("st-title")
                if not spec.required and spec.value in (None, "", []) and spec.schema.get("type") == "string":
                    ui.label("optional").classes("st-optional")
            ui.element("div").classes("af-space")
        if spec.bare:
            made.classes("is-bare")
        return made

    def _redraw(self, box: ui.element, raw: dict[str, Any], path: Path, required: bool) -> None:
        """A field whose sort depends on another one."""
        parent = box.parent_slot.parent if box.parent_slot else None
        if parent is None:
            return
        place = parent.default_slot.children.index(box)
        box.delete()
        with parent:
            self.draw_field(raw, path, required=required)
        parent.default_slot.children[-1].move(parent, target_index=place)

    # --- rows --------------------------------------------------------------------------------------------------------

    def _draw_rows(self, spec: Spec, items: dict[str, Any]) -> None:
        with self.head(spec):
            pass
        box = ui.element("div").classes("st-rows")
        self._fill_rows(box, spec, items)

    def _fill_rows(self, box: ui.element, spec: Spec, items: dict[str, Any]) -> None:
        rows = self._rows(spec)
        simple = not items.get("properties")
        box.clear()
        with box:
            for number in range(len(rows)):
                with ui.element("div").classes("st-row is-simple" if simple else "st-row"):
                    with ui.element("div").classes("st-row-tools"):
                        if not simple:
                            ui.label(f"{number + 1}").classes("st-row-number")
                            ui.element("div").classes("af-space")
                        if self.editable:
                            self._row_tools(box, spec, items, number, len(rows))
                    with ui.element("div").classes("st-row-fields"):
                        path = (*spec.path, number)
                        if simple:
                            self.draw_field({**items, "title": f"{spec.title} {number + 1}"}, path, bare=True)
                        else:
                            self._draw_fields(items, path)
                            self._errors[".".join(map(str, path))] = ui.element("div").classes("st-errors")
            if self.editable and len(rows) < int(spec.schema.get("maxItems", 1000)):
                label = "Add" if rows else f"Add to “{spec.title}”"
                ui.button(
                    label, icon="add", on_click=on(lambda: self._add_row(box, spec, items), Permission.EDIT)
                ).props("flat dense").classes("st-add").mark(f"add-{'.'.join(map(str, spec.path))}")

    def _rows(self, spec: Spec) -> list[Any]:
        given = self.value(spec.path)
        rows = spec.schema.get("default") if given is UNSET else given
        return rows if isinstance(rows, list) else []

    def _row_tools(self, box: ui.element, spec: Spec, items: dict[str, Any], number: int, count: int) -> None:
        def tool(icon: str, label: str, act: Callable[[list[Any]], Any], off: bool = False) -> None:
            handler = on(lambda: self._edit_rows(box, spec, items, act), Permission.EDIT)
            made = ui.button(icon=icon, on_click=handler).props(
                f'flat dense round aria-label="{label} row {number + 1}"'
            )
            made.classes("st-tool").mark(f"{icon}-{'.'.join(map(str, spec.path))}.{number}")
            made.set_enabled(not off)

        def swap(rows: list[Any], one: int, other: int) -> None:
            rows[one], rows[other] = rows[other], rows[one]

        if count > 1:
            tool("arrow_upward", "Move up", lambda rows: swap(rows, number, number - 1), number == 0)
            tool("arrow_downward", "Move down", lambda rows: swap(rows, number, number + 1), number == count - 1)
        tool("close", "Remove", lambda rows: rows.pop(number))

    def _add_row(self, box: ui.element, spec: Spec, items: dict[str, Any]) -> None:
        properties = items.get("properties")
        row: Any = "" if items.get("type", "string") == "string" else None
        if properties:
            texts = {
                name for name in items.get("required", ()) if self.resolve(properties[name])[0].get("type") == "string"
            }
            row = {name: "" for name in properties if name in texts}
        self._edit_rows(box, spec, items, lambda rows: rows.append(row))

    def _edit_rows(self, box: ui.element, spec: Spec, items: dict[str, Any], act: Callable[[list[Any]], Any]) -> None:
        rows = copy.deepcopy(self._rows(spec))
        act(rows)
        prefix = ".".join(map(str, spec.path)) + "."
        self._errors = {path: element for path, element in self._errors.items() if not path.startswith(prefix)}
        self._shown = [one for one in self._shown if one.owner[: len(spec.path)] != spec.path]
        self._redrawn = [one for one in self._redrawn if one[0][: len(spec.path)] != spec.path]
        self._owner(spec.path)[spec.path[-1]] = rows
        self._fill_rows(box, spec, items)
        self.put(spec.path, rows)

    # --- after every change ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show and hide what depends on other fields, and say what is wrong."""
        for one in self._shown:
            one.box.set_visibility(all(_is(self._effective(one.owner, key), want) for key, want in one.when.items()))
        for entry in list(self._redrawn):
            owner, drawn, switched, again = entry
            if self._format(owner, {"format": drawn}, switched) != drawn and entry in self._redrawn:
                self._redrawn.remove(entry)
                again()
        self.show_problems(self.find_problems())

    def show_problems(self, problems: Mapping[str, str]) -> None:
        """Put each sentence at its field, or at the nearest one around it."""
        said: dict[str, list[str]] = {}
        for path, sentence in problems.items():
            place = path
            while place and place not in self._errors:
                place = place.rpartition(".")[0]
            said.setdefault(place, []).append(plain_problem(sentence))
        for place, element in self._errors.items():
            _say(element, said.pop(place, []))
        if self._top is not None:
            _say(self._top, [sentence for sentences in said.values() for sentence in sentences])

    def _effective(self, owner: Path, name: str) -> Any:
        found = self.value((*owner, name))
        if found is not UNSET:
            return found
        schema = self.schema
        for step in owner:
            schema = self.resolve(self._inside(schema, step))[0]
        return self.resolve(self._inside(schema, name))[0].get("default")

    def _format(self, owner: Path, schema: dict[str, Any], switched: Mapping[str, Mapping[str, str]]) -> str:
        for key, formats in switched.items():
            chosen = formats.get(str(self._effective(owner, key)))
            if chosen:
                return chosen
        return "template" if switched else str(schema.get("format", ""))


def _say(element: ui.element, sentences: list[str]) -> None:
    """Show these sentences in place of those before; leave the page alone when they are the same."""
    shown = getattr(element, "said", [])
    if shown == sentences:
        return
    element.said = sentences  # type: ignore[attr-defined]
    element.clear()
    with element:
        for sentence in dict.fromkeys(sentences):
            if sentence == EMPTY:
                ui.label(sentence).classes("st-missing")
            else:
                field_error(sentence)


def _is(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else bool(value == wanted)
