"""The fields that forms are made of: texts, numbers, switches, choices, code, times; each by its kind of schema."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from nicegui import ui

from app.permissions import on
from app.studio.form import UNSET, Form, Spec
from app.studio.formula_field import formula_field
from app.studio.references import agent_field, file_field, model_field, path_field, secret_field, table_field
from app.studio.words import as_json, json_problem
from nodes.listen import Schedule
from nodes.moments import cron_in_words, upcoming
from runtime.policy import Permission

DEBOUNCE = 250
"""Milliseconds of quiet before what is typed is kept."""
_LANGUAGES = {"python": "Python", "javascript": "JavaScript"}
_SHORTS = frozenset({"csv", "json", "html", "http", "url", "utc", "id"})
_SHORT = 26
"""Characters that the words of a segmented choice may have together."""


def draw_leaf(form: Form, spec: Spec) -> None:
    """Draw the field that fits the schema."""
    schema = spec.schema
    if schema.get("type") == "array":
        _days(form, spec)
    elif "enum" in schema or "const" in schema:
        _choice(form, spec, schema.get("enum") or [schema["const"]])
    elif schema.get("type") == "boolean":
        _switch(form, spec)
    elif schema.get("type") in ("integer", "number"):
        _number(form, spec)
    elif schema.get("type") == "string":
        _TEXTS.get(spec.format, _text)(form, spec)
    elif schema.get("type") == "object":
        _pairs(form, spec)
    else:
        _json(form, spec)


def typed(form: Form, spec: Spec, read: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], Any]:
    """A handler that keeps what an element's value becomes."""
    return on(lambda event: form.put(spec.path, read(event.value)), Permission.EDIT)


def as_text(value: Any) -> str:
    """What was typed, as the text of a field; another kind of value is shown as JSON rather than lost."""
    return "" if value is None else value if isinstance(value, str) else as_json(value)


def _text(form: Form, spec: Spec) -> None:
    form.head(spec)
    lines = int(spec.schema.get("lines", 1))
    value, change = as_text(spec.value), typed(form, spec)
    if lines > 1:
        made: ui.input | ui.textarea = ui.textarea(value=value, placeholder=spec.placeholder, on_change=change)
        made.props(f"autogrow rows={lines}")
    else:
        made = ui.input(value=value, placeholder=spec.placeholder, on_change=change)
    _dress(form, spec, made)


def _number(form: Form, spec: Spec) -> None:
    form.head(spec)
    whole = spec.schema.get("type") == "integer"

    def read(value: Any) -> Any:
        if value is None:
            return None if spec.nullable else UNSET
        return int(value) if isinstance(value, float) and (whole or value.is_integer()) else value

    value = spec.value if isinstance(spec.value, int | float) else None
    made = ui.number(value=value, placeholder=spec.placeholder, on_change=typed(form, spec, read))
    for limit, prop in (("minimum", "min"), ("maximum", "max")):
        if limit in spec.schema:
            made.props(f"{prop}={spec.schema[limit]}")
    _dress(form, spec, made).classes("st-number")


def _switch(form: Form, spec: Spec) -> None:
    made = ui.switch(spec.title, value=bool(spec.value), on_change=typed(form, spec))
    made.set_enabled(form.editable)
    made.mark(f"input-{'.'.join(map(str, spec.path))}")


def _choice(form: Form, spec: Spec, values: list[Any]) -> None:
    form.head(spec)
    if spec.value not in values and spec.value is not None:
        values = [*values, spec.value]
    words = spec.schema.get("words", {})
    options = {value: words.get(value) or _said(value) for value in values}
    change = typed(form, spec)
    made: ui.toggle | ui.select
    if sum(map(len, options.values())) <= _SHORT and len(options) <= 4:
        made = (
            ui.toggle(options, value=spec.value, on_change=change)
            .props("unelevated dense no-caps")
            .classes("st-toggle")
        )
        made.set_enabled(form.editable)
        made.mark(f"input-{'.'.join(map(str, spec.path))}")
    else:
        made = ui.select(options, value=spec.value, on_change=change).props("options-dense")
        _dress(form, spec, made)


def _said(value: Any) -> str:
    text = str(value).replace("_", " ")
    return text.upper() if text in _SHORTS else text[:1].upper() + text[1:]


def _days(form: Form, spec: Spec) -> None:
    """Several of a few words: buttons that stay pressed."""
    form.head(spec)
    items, _ = form.resolve(spec.schema.get("items", {}))
    words, said = list(items.get("enum", ())), spec.schema.get("words", {})
    chosen = [word for word in spec.value if word in words] if isinstance(spec.value, list) else []

    def turn(word: str) -> None:
        chosen.remove(word) if word in chosen else chosen.append(word)
        buttons[word].classes(toggle="is-on")
        buttons[word].props(f"aria-pressed={'true' if word in chosen else 'false'}")
        form.put(spec.path, [each for each in words if each in chosen])

    buttons: dict[str, ui.element] = {}
    with ui.element("div").classes("st-days").props(f'role=group aria-label="{spec.title}"'):
        for word in words:
            on_ = word in chosen
            with ui.element("button").classes("st-day is-on" if on_ else "st-day") as made:
                ui.label(said.get(word) or _said(word))
                if means := spec.schema.get("means", {}).get(word):
                    ui.tooltip(means)
            made.props(f"type=button aria-pressed={'true' if on_ else 'false'}")
            made.mark(f"choose-{'.'.join(map(str, spec.path))}-{word}")
            if form.editable:
                made.on("click", on(lambda word=word: turn(word), Permission.EDIT))
            else:
                made.props("disabled")
            buttons[word] = made


def _time(form: Form, spec: Spec) -> None:
    form.head(spec)
    made = ui.input(value=as_text(spec.value), on_change=typed(form, spec)).props("type=time")
    _dress(form, spec, made).classes("st-number")


@cache
def zone_names() -> tuple[str, ...]:
    """All time zones, the plain ones first."""
    names = sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix")))
    return ("UTC", *names)


def _zone(form: Form, spec: Spec) -> None:
    form.head(spec)
    zone_select(as_text(spec.value), typed(form, spec, lambda value: value or ""), editable=form.editable).mark(
        f"input-{'.'.join(map(str, spec.path))}"
    )


def zone_select(value: str, change: Callable[[Any], Any], *, editable: bool = True) -> ui.select:
    """A list of all time zones that is searched by typing."""
    names = list(zone_names())
    if value and value not in names:
        names.insert(0, value)
    made = ui.select(names, value=value or None, with_input=True, clearable=True, on_change=change)
    made.props('options-dense hide-selected fill-input input-debounce=100 aria-label="Time zone"').classes("w-full")
    made.set_enabled(editable)
    return made


def _cron(form: Form, spec: Spec) -> None:
    form.head(spec)

    def say(text: str) -> None:
        words.set_text("")
        if not text.strip():
            return
        try:
            zone = form.value((*spec.path[:-1], "time_zone"))
            moments = upcoming(
                Schedule(cron=text, time_zone=zone if isinstance(zone, str) else "UTC"), datetime.now(UTC), 3
            )
            after = ", ".join(moment.strftime("%a %d %b %H:%M") for moment in moments)
            words.set_text(f"{cron_in_words(text)}. Next: {after}" if after else cron_in_words(text))
        except Exception:  # what is wrong with it stands below the field, in words
            return

    def change(event: Any) -> None:
        say(event.value or "")
        form.put(spec.path, event.value or "")

    made = ui.input(value=as_text(spec.value), placeholder="0 9 * * 1-5", on_change=on(change, Permission.EDIT))
    _dress(form, spec, made).props("input-class=af-mono")
    words = ui.label().classes("st-words")
    say(as_text(spec.value))


def _code(form: Form, spec: Spec) -> None:
    form.head(spec)
    language = _LANGUAGES[spec.schema.get("language", "python")]
    made = ui.codemirror(as_text(spec.value), language=language, on_change=typed(form, spec), line_wrapping=True)  # type: ignore[arg-type]
    made.classes("st-code").mark(f"input-{'.'.join(map(str, spec.path))}")
    if not form.editable:
        made.set_enabled(False)


def _pairs(form: Form, spec: Spec) -> None:
    """A record of texts: rows of a name and a value."""
    form.head(spec)
    pairs: list[list[str]] = (
        [[str(key), as_text(part)] for key, part in spec.value.items()] if isinstance(spec.value, dict) else []
    )
    box = ui.element("div").classes("st-rows")

    def keep() -> None:
        form.put(spec.path, {name: value for name, value in pairs if name})

    def write(number: int, side: int, text: str) -> None:
        pairs[number][side] = text
        keep()

    def remove(number: int) -> None:
        pairs.pop(number)
        keep()
        fill()

    def add() -> None:
        pairs.append(["", ""])
        fill()

    def fill() -> None:
        box.clear()
        with box:
            for number, pair in enumerate(pairs):
                with ui.element("div").classes("st-pair"):
                    for side, hint in ((0, "Name"), (1, "Value")):
                        made = ui.input(
                            value=pair[side],
                            placeholder=hint,
                            on_change=on(
                                lambda event, n=number, s=side: write(n, s, event.value or ""), Permission.EDIT
                            ),
                        )
                        made.props(f'debounce={DEBOUNCE} aria-label="{hint} {number + 1}"').set_enabled(form.editable)
                    if form.editable:
                        ui.button(icon="close", on_click=on(lambda n=number: remove(n), Permission.EDIT)).props(
                            f'flat dense round aria-label="Remove row {number + 1}"'
                        ).classes("st-tool")
            if form.editable:
                ui.button("Add", icon="add", on_click=on(add, Permission.EDIT)).props("flat dense").classes("st-add")

    fill()


def _json(form: Form, spec: Spec) -> None:
    """Any value, typed as JSON."""
    form.head(spec)
    said = ui.label().classes("st-bad")

    def change(event: Any) -> None:
        value, _, problem = json_problem(event.value or "")
        said.set_text(problem)
        if not problem:
            form.put(spec.path, value)

    made = ui.textarea(
        value="" if spec.value is None else as_json(spec.value, pretty=True), on_change=on(change, Permission.EDIT)
    )
    _dress(form, spec, made.props("autogrow input-class=af-mono"))


def _dress(form: Form, spec: Spec, made: Any) -> Any:
    made.props(f"debounce={DEBOUNCE}").classes("w-full")
    made.props["aria-label"] = spec.title
    if not form.editable:
        made.props("readonly")
    made.mark(f"input-{'.'.join(map(str, spec.path))}")
    return made


_TEXTS: dict[str, Callable[[Form, Spec], None]] = {
    "formula": formula_field,
    "template": formula_field,
    "json": formula_field,
    "code": _code,
    "secret": secret_field,
    "cron": _cron,
    "time": _time,
    "time-zone": _zone,
    "blueprint": agent_field,
    "file": file_field,
    "table": table_field,
    "path": path_field,
    "model": model_field,
}
