"""The timeline of a run: a row for each step with its bar, loops folded into items, everything drawn only when looked at.

It is told facts and draws what changed since it last drew. Bars are placed by the browser from start and length in
seconds, so a run that goes on moves one number and not every bar.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from nicegui import ui

from app.permissions import current_factory, on
from app.pieces import button, duration, status_chip
from app.sentences import RUN_STATES, count, error_words, family_of, icon_of, last_line, took
from app.stepfacts import details, printed_box
from nodes.base import Loop
from runtime.events import Fact
from runtime.plan import Plan
from runtime.story import Story
from runtime.views import StepView

Key = tuple[str, str]
ROWS, ITEMS = 200, 25
_TROUBLE = ("failed", "in doubt", "waiting", "retrying", "running")


class Timeline:
    """Rows for the steps of one run."""

    def __init__(self, plan: Plan, started_at: float) -> None:
        self.plan = plan
        self.story = Story(plan)
        self.started_at = started_at
        self.ended_at: float | None = None
        self.offer: Callable[[StepView], None] | None = None
        """Draws what can be done with a step of a run that is over."""
        self.waits: dict[Key, Fact] = {}
        self.inside: dict[Key, dict[int, list[Key]]] = {}
        """For each loop the steps of its items, by the item's number."""
        self.printing: Mapping[Key, str] = {}
        """What code has printed so far in the steps that run it now."""
        self._known = 0
        self._changed: set[Key] = set()
        self._rows: dict[Key, Row] = {}
        self._loops: dict[Key, Items] = {}
        self._top: list[Key] = []
        self._skipped: list[Key] = []
        self._limit = ROWS
        with ui.element("div").classes("af-timeline").mark("timeline") as self.box:
            self._scale = ui.element("div").classes("af-scale").props("aria-hidden=true")
            with self._scale:
                ui.element("span")
                with ui.element("div").classes("af-scale-marks"):
                    ui.label("0")
                    self._length = ui.label("")
            self._list = ui.element("div").props('role=list aria-label="Steps"')
            self._rest = button("Show more steps", on(self._more), quiet=True).classes("mt-2")
            self._skips = ui.element("div")
        self._rest.set_visibility(False)

    # --- being told --------------------------------------------------------------------------------------------------

    def tell(self, fact: Fact) -> None:
        """Take in the next fact; nothing is drawn yet."""
        self.story.tell(fact)
        kind = fact["kind"]
        if kind == "run.finished":
            self.ended_at = fact["at"]
            self._changed.update(self._rows)
        elif "node" in fact:
            key = (fact["node"], fact["iteration"])
            self._changed.add(key)
            if kind == "step.waiting":
                self.waits[key] = fact
            elif kind in ("step.resumed", "step.succeeded", "step.failed", "step.reused"):
                self.waits.pop(key, None)

    def restart(self) -> None:
        """Be told everything from the beginning again."""
        self.story, self._known = Story(self.plan), 0
        self.inside.clear()
        self._top.clear()
        self._skipped.clear()

    def view(self, key: Key) -> StepView:
        """A step as it stands."""
        return self.story.steps[key]

    def total(self) -> float:
        """The length of the whole, up to now."""
        return max((self.ended_at or time.time()) - self.started_at, 0.001)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Bring the page up to what was told."""
        self._take_in_new()
        shown = self._top[: self._limit]
        with self._list:
            for key in shown:
                if key not in self._rows:
                    self.row(key, self._list)
        self._rest.set_visibility(len(self._top) > self._limit)
        if len(self._top) > self._limit:
            self._rest.set_text(f"Show {count(len(self._top) - self._limit, 'more step')}")
        for key in self._changed & self._rows.keys():
            self._rows[key].update()
        for items in list(self._loops.values()):
            items.update(self._changed)
        self._changed.clear()
        self._draw_skipped()
        self.tick()

    def tick(self) -> None:
        """Let bars of steps that go on grow."""
        total = self.total()
        self.box.style(f"--total: {total:.4f}")
        self._length.set_text(duration(total))

    def show_printing(self, printing: Mapping[Key, str]) -> None:
        """Code that runs has printed more."""
        self.printing = printing
        for key in printing.keys() & self._rows.keys():
            self._rows[key].show_printing()

    def row(self, key: Key, parent: ui.element) -> Row:
        """A new row at the end of a list."""
        with parent:
            made = self._rows[key] = Row(self, key)
        return made

    def loop(self, key: Key, parent: ui.element) -> None:
        """The items of a loop, below its row."""
        with parent:
            self._loops[key] = Items(self, key)

    def forget(self, keys: Iterable[Key]) -> None:
        """Rows that are not on the page any more."""
        for key in keys:
            self._rows.pop(key, None)
            if self._loops.pop(key, None) is not None:
                for inner in self.inside.get(key, {}).values():
                    self.forget(inner)

    def item_name(self, key: Key, index: int) -> str:
        """What one item of a loop, or one use of a tool by an agent, is called."""
        place = f"{key[1]}.{index}" if key[1] else str(index)
        if (call := self.story.calls.get((key[0], place))) is not None:
            return f"Turn {call[0]:,}: {call[1]}"
        return f"{'Round' if self.has_rounds(key) else 'Item'} {index + 1:,}"

    def has_rounds(self, key: Key) -> bool:
        """Whether a loop repeats its steps in rounds, instead of going through items."""
        node = self.plan.steps[key[0]].node
        return isinstance(node, Loop) and node.rounds

    def open(self, node: str) -> None:
        """Unfold the first row of a step and bring it into view."""
        for (id_, _), row in self._rows.items():
            if id_ == node:
                row.show()
                row.box.run_method("scrollIntoView", {"block": "center"})
                return

    def _take_in_new(self) -> None:
        for key, step in islice(self.story.steps.items(), self._known, None):
            loop = self.plan.steps[key[0]].scope.loop
            self._changed.add(key)
            if loop is not None:
                around, _, index = key[1].rpartition(".")
                self.inside.setdefault((loop.id, around), {}).setdefault(int(index), []).append(key)
            elif step.state == "skipped":
                self._skipped.append(key)
            else:
                self._top.append(key)
        self._known = len(self.story.steps)

    def _draw_skipped(self) -> None:
        names = [self.story.steps[key].name for key in self._skipped]
        self._skips.clear()
        if names:
            with self._skips, ui.element("div").classes("af-skipped"):
                ui.icon("remove").props("aria-hidden=true")
                shown = ", ".join(f"“{name}”" for name in names[:6])
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                ui.label(f"Not needed this time: {shown}{more}.")

    def _more(self) -> None:
        self._limit += ROWS
        self.draw()


class Row:
    """One step: a line that unfolds."""

    def __init__(self, timeline: Timeline, key: Key) -> None:
        self._timeline = timeline
        self._key = key
        self._drawn: tuple[object, ...] = ()
        self._shown: tuple[object, ...] = ()
        self._printing: ui.label | None = None
        self.opened = False
        step = timeline.view(key)
        with ui.element("div").classes("af-step").props("role=listitem").mark(f"step-{key[0]}") as self.box:
            self.line = ui.element("button").classes("af-step-line").props("type=button aria-expanded=false")
            with self.line:
                ui.icon("chevron_right").classes("af-fold").props("aria-hidden=true")
                with ui.element("span").classes("af-step-name"):
                    icon = ui.icon(icon_of(step.type, current_factory().catalog)).props("aria-hidden=true")
                    icon.classes(f"af-{family_of(step.type)}")
                    with ui.element("span").classes("af-step-words"):
                        ui.label(step.name).classes("af-one-line af-strong")
                        self._note = ui.label().classes("af-one-line af-small af-muted")
                with ui.element("span").classes("af-track").props("aria-hidden=true"):
                    self._bar = ui.element("span").classes("af-span")
                self._time = ui.label().classes("af-step-time af-number")
                self._chip = ui.element("span").classes("af-step-chip")
            self._inside = ui.element("div").classes("af-step-inside")
            self._inside.set_visibility(False)
            if (planned := timeline.plan.steps[key[0]]).body is not None or planned.toolbox is not None:
                timeline.loop(key, self.box)
        self.line.on("click", on(self.turn)).mark(f"turn-{key[0]}")
        self.update()

    def update(self) -> None:
        """Show the step as it stands."""
        step = self._timeline.view(self._key)
        now = (step.state, step.note, step.finished_at, step.attempt)
        if now != self._drawn:
            state_changed = not self._drawn or self._drawn[0] != step.state
            self._drawn = now
            words = step.note
            if step.state == "failed" and step.error:
                words = error_words(step.error)
            self._note.set_text(words)
            self._note.set_visibility(bool(words))
            ran = step.finished_at is not None and step.state != "skipped"
            self._time.set_text(took(step.seconds) if ran else "")
            place(self._bar, step.started_at - self._timeline.started_at, step.seconds, step.state)
            if state_changed:
                self._chip.clear()
                with self._chip:
                    status_chip(step.state)
        if self.opened:
            self._draw_inside(step)
        self.show_printing()

    def show_printing(self) -> None:
        """What its code prints while it runs: the last line in the row, all of it inside."""
        text = self._timeline.printing.get(self._key, "")
        if not text or self._timeline.view(self._key).state != "running":
            return
        self._note.set_text(last_line(text))
        self._note.set_visibility(True)
        if self.opened:
            if self._printing is None:
                with self._inside:
                    self._printing = printed_box("What the code prints", "")
                self._printing.mark("printing")
            self._printing.set_text(text)

    def turn(self) -> None:
        """Fold or unfold."""
        if self.opened:
            self.opened = False
            self._inside.set_visibility(False)
            self.line.props("aria-expanded=false")
        else:
            self.show()

    def show(self) -> None:
        """Unfold."""
        self.opened = True
        self.line.props("aria-expanded=true")
        self._inside.set_visibility(True)
        self._draw_inside(self._timeline.view(self._key))
        self.show_printing()

    def _draw_inside(self, step: StepView) -> None:
        ended = self._timeline.ended_at is not None
        now = (step.state, step.note, step.attempt, len(step.log), step.error is None, ended)
        if now == self._shown:
            return
        self._shown, self._printing = now, None
        self._inside.clear()
        with self._inside:
            details(step, self._timeline.plan.steps[self._key[0]], self._timeline.waits.get(self._key))
            if self._timeline.offer is not None and self._timeline.ended_at is not None:
                self._timeline.offer(step)


class Items:
    """The items of a loop: how they stand in one line, and each of them when unfolded, some at a time."""

    def __init__(self, timeline: Timeline, key: Key) -> None:
        self._timeline = timeline
        self._key = key
        self._limit = ITEMS
        self._only_trouble = False
        self._items: dict[int, Item] = {}
        with ui.element("div").classes("af-items") as self.box:
            self.line = ui.element("button").classes("af-items-line").props("type=button aria-expanded=false")
            with self.line:
                ui.icon("chevron_right").classes("af-fold").props("aria-hidden=true")
                self._words = ui.label()
            with ui.element("div").classes("af-items-inside") as self._inside:
                self._filter = button("", on(self._turn_filter), quiet=True).props("dense").classes("mb-2")
                self._list = ui.element("div")
                self._rest = button("", on(self._more), quiet=True).classes("mt-2")
            self._inside.set_visibility(False)
        self.line.on("click", on(self.turn)).mark(f"items-{key[0]}")
        self.box.set_visibility(False)

    def update(self, changed: set[Key]) -> None:
        """Bring the counts, and the items on the page, up to date."""
        every = self._timeline.inside.get(self._key, {})
        if not every:
            return
        self.box.set_visibility(True)
        states = {index: state_of(self._steps(keys)) for index, keys in every.items()}
        agent = self._timeline.plan.steps[self._key[0]].toolbox is not None
        rounds = self._timeline.has_rounds(self._key)
        self._words.set_text(_tally(states.values(), "tool use" if agent else "round" if rounds else "item"))
        if self._inside.visible:
            self._draw(every, states, changed)

    def turn(self) -> None:
        """Fold or unfold."""
        opening = not self._inside.visible
        self._inside.set_visibility(opening)
        self.line.props(f"aria-expanded={'true' if opening else 'false'}")
        if opening:
            self.update(set())

    def _draw(self, every: dict[int, list[Key]], states: dict[int, str], changed: set[Key]) -> None:
        trouble = [index for index, state in states.items() if state in _TROUBLE]
        chosen = sorted(trouble if self._only_trouble else every)
        for index in chosen[: self._limit]:
            keys = every[index]
            if index not in self._items:
                with self._list:
                    self._items[index] = Item(self._timeline, index, self._timeline.item_name(self._key, index))
                self._items[index].update(keys, states[index])
            elif changed.intersection(keys):
                self._items[index].update(keys, states[index])
        self._rest.set_visibility(len(chosen) > self._limit)
        self._rest.set_text(f"Show {count(min(ITEMS, len(chosen) - self._limit), 'more item')}")
        self._filter.set_visibility((bool(trouble) and len(trouble) < len(every)) or self._only_trouble)
        words = f"Show only the {count(len(trouble), 'item')} that failed or go on"
        self._filter.set_text("Show all items" if self._only_trouble else words)

    def _turn_filter(self) -> None:
        self._only_trouble = not self._only_trouble
        self._limit = ITEMS
        for index in self._items:
            self._timeline.forget(self._timeline.inside.get(self._key, {}).get(index, ()))
        self._items.clear()
        self._list.clear()
        self.update(set())

    def _more(self) -> None:
        self._limit += ITEMS
        self.update(set())

    def _steps(self, keys: Iterable[Key]) -> list[StepView]:
        return [self._timeline.view(key) for key in keys]


class Item:
    """One item of a loop: a line, and its steps when unfolded."""

    def __init__(self, timeline: Timeline, index: int, name: str) -> None:
        self._timeline = timeline
        self._keys: list[Key] = []
        self._state = ""
        self._shown: set[Key] = set()
        with ui.element("div").classes("af-step af-item"):
            self.line = ui.element("button").classes("af-step-line").props("type=button aria-expanded=false")
            with self.line:
                ui.icon("chevron_right").classes("af-fold").props("aria-hidden=true")
                with ui.element("span").classes("af-step-name"):
                    ui.label(name).classes("af-one-line")
                with ui.element("span").classes("af-track").props("aria-hidden=true"):
                    self._bar = ui.element("span").classes("af-span")
                self._time = ui.label().classes("af-step-time af-number")
                self._chip = ui.element("span").classes("af-step-chip")
            self._inside = ui.element("div").classes("af-item-inside").props("role=list")
            self._inside.set_visibility(False)
        self.line.on("click", on(self.turn)).mark(f"item-{index + 1}")

    def update(self, keys: list[Key], state: str) -> None:
        """Show the item as it stands."""
        self._keys = keys
        steps = [self._timeline.view(key) for key in keys]
        start = min(step.started_at for step in steps)
        going = any(step.finished_at is None for step in steps)
        length = None if going else max(step.finished_at or 0 for step in steps) - start
        self._time.set_text("" if length is None else took(length))
        place(self._bar, start - self._timeline.started_at, length, state)
        if state != self._state:
            self._state = state
            self._chip.clear()
            with self._chip:
                status_chip(state)
        if self._inside.visible:
            self._draw()

    def turn(self) -> None:
        """Fold or unfold."""
        opening = not self._inside.visible
        self._inside.set_visibility(opening)
        self.line.props(f"aria-expanded={'true' if opening else 'false'}")
        if opening:
            self._draw()

    def _draw(self) -> None:
        for key in self._keys:
            if key not in self._shown:
                self._shown.add(key)
                self._timeline.row(key, self._inside)


def place(bar: ui.element, start: float, length: float | None, state: str) -> None:
    """Put a bar where its step was; without a length it reaches until now."""
    bar.style(f"--s: {max(start, 0):.4f}; --d: {'var(--total)' if length is None else f'{length:.4f}'}")
    bar.classes(replace=f"af-span is-{state.replace(' ', '-')}")


def state_of(steps: list[StepView]) -> str:
    """How an item stands: as its most urgent step."""
    found = {step.state for step in steps}
    for state in _TROUBLE:
        if state in found:
            handled = all(step.note == "failed, and the run went on" for step in steps if step.state == state)
            if state != "failed" or not handled:
                return state
    return "skipped" if found == {"skipped"} else "cancelled" if "cancelled" in found else "succeeded"


def _tally(states: Iterable[str], what: str) -> str:
    counted = Counter(states)
    total = sum(counted.values())
    parts = [f"{number:,} {RUN_STATES.get(state, state).lower()}" for state, number in sorted(counted.items())]
    return f"{count(total, what)}: {', '.join(parts)}"
