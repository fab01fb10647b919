"""Small pieces that every page is made of: empty states, chips, times, dialogs, toasts, and a tree of plain data.

They show text as text. Nothing here reads HTML from data.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from unicodedata import category

import orjson
from nicegui import ui
from nicegui.slot import Slot

from app.permissions import on
from nodes.errors import FactoryError

Action = tuple[str, Callable[[], Any] | str]
"""A label with what it does: a handler, or the address it leads to."""

_CHIPS: dict[str, tuple[str, str, str]] = {
    # state: (tone, icon, words)
    "accepted": ("info", "schedule", "Accepted"),
    "running": ("busy", "progress_activity", "Running"),
    "waiting": ("warn", "hourglass_empty", "Waiting"),
    "retrying": ("warn", "replay", "Trying again"),
    "in doubt": ("warn", "help", "Needs a person"),
    "succeeded": ("good", "check", "Succeeded"),
    "failed": ("bad", "close", "Failed"),
    "skipped": ("", "remove", "Skipped"),
    "cancelled": ("", "block", "Cancelled"),
    "none": ("", "edit_note", "Draft"),
    "active": ("good", "bolt", "Live"),
    "on": ("good", "check", "Active"),
    "in test": ("info", "science", "In test"),
    "paused": ("warn", "pause", "Paused"),
    "stopped": ("", "stop", "Stopped"),
    "pending": ("warn", "hourglass_empty", "Waits for you"),
    "approved": ("good", "check", "Approved"),
    "rejected": ("bad", "close", "Rejected"),
    "expired": ("", "timer_off", "Expired"),
    "provisioning": ("info", "schedule", "Starting"),
    "warming": ("info", "local_fire_department", "Warming up"),
    "ready": ("good", "check", "Ready"),
    "busy": ("busy", "progress_activity", "Working"),
    "hibernating": ("", "bedtime", "Asleep"),
    "unhealthy": ("bad", "close", "Not answering"),
    "draining": ("warn", "logout", "Ending"),
    "gone": ("", "block", "Gone"),
    "up": ("good", "check", "In use"),
    "emptying": ("warn", "logout", "Being drained"),
    "away": ("bad", "close", "Not answering"),
    "lost": ("bad", "close", "Lost"),
    "assembling": ("info", "groups", "Coming together"),
    "finished": ("good", "check", "Finished"),
}
_ICONS = {"progress_activity": "autorenew"}


def empty_state(icon: str, title: str, text: str, actions: Iterable[Action] = ()) -> ui.element:
    """What stands where nothing is yet: what would be here, why it is good, and how to begin."""
    with ui.element("div").classes("af-empty") as box:
        ui.icon(icon).props("aria-hidden=true")
        heading(title, 2)
        ui.label(text).classes("af-text")
        buttons(actions)
    return box


def buttons(actions: Iterable[Action]) -> None:
    """A row of buttons: the first is the one we would press."""
    chosen = list(actions)
    if not chosen:
        return
    with ui.element("div").classes("af-actions"):
        for index, (label, does) in enumerate(chosen):
            button(label, does, quiet=index > 0)


def button(label: str, does: Callable[[], Any] | str, *, quiet: bool = False, icon: str | None = None) -> ui.button:
    """A button in our look. `does` is a handler (wrap it with `on`) or an address."""
    handler = (lambda: ui.navigate.to(does)) if isinstance(does, str) else does
    made = ui.button(label, on_click=handler, icon=icon)
    return made.classes("af-secondary") if quiet else made


def heading(text: str, level: int = 1) -> ui.element:
    """A real heading, for people and for screen readers."""
    with ui.element(f"h{level}") as made:
        ui.label(text).classes("af-inline").style("display: contents")
    return made


def status_chip(state: str) -> ui.element:
    """A state in colour, icon and word, so that no one has to see colours to read it."""
    tone, icon, words = _CHIPS.get(str(state), ("", "circle", str(state).capitalize()))
    with ui.element("span").classes(f"af-chip is-{tone}" if tone else "af-chip") as chip:
        ui.icon(_ICONS.get(icon, icon)).props("aria-hidden=true")
        ui.label(words).style("display: inline")
    return chip


def relative_time(epoch: float | None) -> ui.element:
    """“5 minutes ago”, kept true in the browser, with the exact time in the person's zone on hover."""
    if epoch is None:
        return ui.label("never").classes("af-muted")
    with ui.element("time").classes("af-muted af-number").props(f"data-epoch={float(epoch):.3f}") as made:
        ui.label(ago(epoch)).style("display: contents")
    return made


def ago(epoch: float, now: float | None = None) -> str:
    """How long ago (or until when) in words, for the first paint and for plain text."""
    past = (time.time() if now is None else now) - epoch
    size = abs(past)
    if size < 10:
        return "just now"
    for limit, unit, name in _STEPS:
        if size < limit:
            count = int(size / unit)
            words = f"{count} {name}{'' if count == 1 else 's'}"
            return f"{words} ago" if past > 0 else f"in {words}"
    return "long ago" if past > 0 else "in a long time"


_STEPS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (86400, 3600, "hour"),
    (604800, 86400, "day"),
    (2629800, 604800, "week"),
    (31557600, 2629800, "month"),
    (3155760000, 31557600, "year"),
)


def duration(seconds: float | None) -> str:
    """A length of time as people say it: 12 ms, 3.4 s, 2 min 5 s, 1 h 12 min."""
    if seconds is None:
        return "…"
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


async def confirm(title: str, text: str, *, yes: str = "Delete", no: str = "Keep", danger: bool = True) -> bool:
    """Ask before something that cannot be undone. Prefer `undo_toast` wherever it can."""
    # In the page itself: the part of it that asks may be drawn anew while somebody makes up their mind.
    content = ui.context.client.content
    with content, ui.dialog() as dialog, ui.card().classes("p-6 gap-2"):
        heading(title, 2)
        ui.label(text).classes("af-muted")
        with ui.element("div").classes("af-actions mt-4 w-full justify-end"):
            ui.button(no, on_click=lambda: dialog.submit(False)).props("autofocus").classes("af-secondary")
            ui.button(yes, on_click=lambda: dialog.submit(True), color="negative" if danger else "primary").mark("yes")
    try:
        return bool(await dialog)
    finally:
        if not dialog.is_deleted and not dialog.client.is_deleted:
            dialog.delete()
        _stand_in(content)


def _stand_in(content: ui.element) -> None:
    """Whoever goes on after a question does so in the page itself if the part that asked is gone, or has no page at all."""
    stack = Slot.get_stack()
    try:
        gone = stack[-1].parent.is_deleted
    except RuntimeError:
        gone = True
    if gone:
        stack[-1] = content.default_slot


def undo_toast(text: str, on_undo: Callable[[], Any], *, seconds: float = 10) -> ui.element:
    """Say what was done, and offer to take it back."""
    with ui.context.client.content, ui.element("div").classes("af-toast").props("role=status") as toast:
        ui.label(text)
        with ui.element("div").classes("flex gap-1"):

            def undo() -> Any:
                toast.set_visibility(False)
                return on_undo()

            ui.button("Undo", on_click=on(undo)).props("flat dense")
            ui.button(icon="close", on_click=lambda: toast.set_visibility(False)).props("flat dense aria-label=Close")
        ui.timer(seconds, lambda: toast.set_visibility(False), once=True)
    return toast


def field_error(text: str) -> ui.element:
    """What is wrong with a field, right under it."""
    with ui.element("div").classes("af-field-error").props("role=alert") as made:
        ui.icon("error").props("aria-hidden=true")
        ui.label(text)
    return made


async def entered(place: ui.element, keep: Callable[[], Awaitable[Any]]) -> bool:
    """Whether what was entered could be kept; what is wrong with it is said at `place`. Other errors go on."""
    place.clear()
    try:
        await keep()
    except FactoryError as wrong:
        if wrong.status not in (400, 422):
            raise
        with place:
            field_error(f"{wrong.message} {wrong.fix or ''}".strip())
        return False
    return True


def notice(text: str, *, tone: str = "info", icon: str = "info") -> ui.element:
    """A calm box with something to know. Tones: info, good, warn, bad."""
    with ui.element("div").classes(f"af-note is-{tone}") as made:
        ui.icon(icon).props("aria-hidden=true")
        ui.label(text)
    return made


def kbd(keys: str) -> ui.element:
    """Keys to press, such as `kbd("Ctrl+Z")`."""
    with ui.element("span").classes("af-kbd") as made:
        for key in keys.split("+"):
            with ui.element("kbd"):
                ui.label(key).style("display: contents")
    return made


# --- data as a tree ----------------------------------------------------------------------------------------------

_TEXT_SHOWN = 400
# Letters by their kind, and yet nothing to see: fillers, a blank of Braille, variants that no font has.
_UNSEEN = frozenset("\u115f\u1160\u2800\u3164\uffa0") | {chr(code) for code in range(0xE0100, 0xE01F0)}
_ITEMS_SHOWN = 50


def visible(text: str) -> str:
    """A text with the signs that nobody can see, or that turn others around, written as their numbers."""
    if text.isprintable() and _UNSEEN.isdisjoint(text):
        return text
    return "".join(sign if _is_seen(sign) else f"⟨U+{ord(sign):04X}⟩" for sign in text)


def _is_seen(sign: str) -> bool:
    return (sign.isprintable() or sign in "\n\t" or category(sign) == "Zs") and sign not in _UNSEEN


class Unopened:
    """How much of what is shown is cut or folded still; `on_all` hears when nothing is any more."""

    def __init__(self) -> None:
        self._left = 0
        self.on_all: Callable[[], None] = lambda: None

    @property
    def any(self) -> bool:
        """Whether there is something of it."""
        return self._left > 0

    def one_more(self) -> None:
        """Something is not shown."""
        self._left += 1

    def opened(self) -> None:
        """It is now."""
        self._left -= 1
        if not self._left:
            self.on_all()


def json_tree(value: Any, *, open_levels: int = 1, unopened: Unopened | None = None) -> ui.element:
    """Data as a tree that opens on demand. Long texts and lists show their start, then “show more”."""
    with ui.element("div").classes("af-json").props("role=tree") as tree:
        _branch("", value, open_levels, Unopened() if unopened is None else unopened)
    return tree


def long_text(text: str, shown: int, classes: str, unopened: Unopened) -> None:
    """The start of a text, and the rest of it when asked for."""
    text = visible(text)
    label = ui.label(text[:shown]).classes(classes)
    if len(text) > shown:
        unopened.one_more()
        more = ui.label(f"show {len(text) - shown:,} more characters").classes("af-link cursor-pointer shrink-0")

        def show() -> None:
            if more.visible:
                label.set_text(text)
                more.set_visibility(False)
                unopened.opened()

        more.on("click", show)


def _branch(key: str, value: Any, open_levels: int, unopened: Unopened) -> None:
    if isinstance(value, (dict, list, tuple)) and value:
        _fold(key, value, open_levels, unopened)
        return
    with ui.element("div").classes("af-json-row").props("role=treeitem"):
        if key:
            ui.label(f"{visible(key)}:").classes("af-json-key shrink-0")
        text, kind = _plain(value)
        long_text(text, _TEXT_SHOWN, f"af-json-value {kind}", unopened)


def _plain(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        return (value, "af-json-text") if value else ("(empty text)", "af-muted")
    if value is None:
        return "nothing", "af-muted"
    if isinstance(value, bool):
        return ("yes" if value else "no"), "af-json-word"
    if isinstance(value, (int, float)):
        return str(value), "af-json-number"
    if isinstance(value, dict):
        return "(no fields)", "af-muted"
    if isinstance(value, (list, tuple)):
        return "(empty list)", "af-muted"
    return orjson.dumps(value, default=str).decode(), "af-json-text"


def _fold(key: str, value: dict[Any, Any] | list[Any] | tuple[Any, ...], open_levels: int, unopened: Unopened) -> None:
    pairs = list(value.items()) if isinstance(value, dict) else [(str(i + 1), one) for i, one in enumerate(value)]
    noun = "field" if isinstance(value, dict) else "item"
    size = f"{len(pairs):,} {noun}{'' if len(pairs) == 1 else 's'}"
    with ui.element("div").classes("af-json-row").props("role=treeitem"), ui.element("div").classes("grow"):
        head = ui.element("button").classes("af-json-fold").props("type=button aria-expanded=false")
        with head:
            ui.icon("chevron_right").props("aria-hidden=true")
            if key:
                ui.label(f"{visible(key)}:").classes("af-json-key")
            ui.label(size).classes("af-muted")
        inside = ui.element("div").classes("af-json-inside").props("role=group")
    inside.set_visibility(False)
    unopened.one_more()
    shown = 0

    def fill() -> None:
        nonlocal shown
        upto = min(shown + _ITEMS_SHOWN, len(pairs))
        with inside:
            for name, one in pairs[shown:upto]:
                _branch(str(name), one, open_levels - 1, unopened)
            if upto < len(pairs):
                unopened.one_more()
                more = ui.label(f"show more ({len(pairs) - upto:,} left)").classes("af-link cursor-pointer af-json-row")

                def go_on(gone: ui.label = more) -> None:
                    gone.delete()
                    fill()
                    unopened.opened()

                more.on("click", go_on)
        shown = upto

    def turn() -> None:
        opening = not inside.visible
        if opening and not shown:
            fill()
            unopened.opened()
        inside.set_visibility(opening)
        head.props(f"aria-expanded={'true' if opening else 'false'}")

    head.on("click", turn)
    if open_levels > 0:
        turn()
