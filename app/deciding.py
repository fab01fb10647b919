"""One question that waits for a person, as a card: what is asked, what is known, and the buttons that decide."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import (
    Unopened,
    ago,
    heading,
    json_tree,
    long_text,
    notice,
    relative_time,
    status_chip,
    visible,
)
from nodes.errors import Conflict
from runtime.views import ApprovalInfo

MOST_AT_ONCE = 20_000  # characters
OPEN_LEVELS = 4
Decided = Callable[[ApprovalInfo | None], Awaitable[None]]
"""Told what came of it; None when somebody else was faster."""


def buttons_of(asked: ApprovalInfo) -> list[tuple[str, bool, str]]:
    """Label, whether it approves, and the choice: two choices are the words for yes and no, of more the last is no."""
    if not asked.choices:
        return [("Approve", True, ""), ("Reject", False, "")]
    last = len(asked.choices) - 1
    return [(words, index == 0 or index < last, words) for index, words in enumerate(asked.choices)]


def question(asked: ApprovalInfo, decided: Decided, *, with_run: bool = True, small: bool = False) -> ui.element:
    """A pending question. Viewers see it without buttons."""
    with ui.element("article").classes("af-card af-question").mark(f"question-{asked.id}") as card:
        with ui.element("div").classes("af-question-head"):
            heading(visible(asked.title), 3)
            _about(asked, with_run)
        unopened = Unopened()
        if asked.details not in (None, "", {}, []):
            _details(asked, small, unopened)
        if current_actor().may(Permission.APPROVE):
            _decide(card, asked, decided, small, unopened)
        else:
            ui.label("Developers and admins decide. You can look.").classes("af-muted af-small")
    return card


def _about(asked: ApprovalInfo, with_run: bool) -> None:
    with ui.element("div").classes("af-facts"):
        ui.label(asked.blueprint_name)
        with ui.element("span"):
            ui.label("asked ").classes("af-inline")
            relative_time(asked.created_at)
        if asked.expires_at:
            late = asked.expires_at - time.time() < 3600
            words = "counts as rejected " + ago(asked.expires_at)
            ui.label(words).classes("af-warn" if late else "")
        if with_run:
            ui.link("Look at the run", f"/runs/{asked.run_id}")


def _details(asked: ApprovalInfo, small: bool, unopened: Unopened) -> None:
    box = ui.element("div").classes("af-question-details" + (" is-small" if small else ""))
    with box:
        if isinstance(asked.details, str):
            long_text(asked.details, MOST_AT_ONCE, "whitespace-pre-wrap break-words", unopened)
        else:
            json_tree(asked.details, open_levels=OPEN_LEVELS, unopened=unopened)


def _decide(card: ui.element, asked: ApprovalInfo, decided: Decided, small: bool, unopened: Unopened) -> None:
    note = ui.input(placeholder="Note for the record (optional)").props('maxlength=2000 aria-label="Note"')
    note.classes("w-full").mark(f"note-{asked.id}")
    if small:
        note.set_visibility(False)
    offered = buttons_of(asked)

    async def press(approve: bool, choice: str) -> None:
        for made in pressed:
            made.disable()
        try:
            told = await current_factory().approvals.decide(
                current_actor(), asked.id, approve=approve, note=note.value or "", choice=choice
            )
        except Conflict as problem:
            card.clear()
            with card:
                heading(visible(asked.title), 3)
                notice(f"{problem.message} {problem.fix or ''}".strip(), tone="warn", icon="info")
            await decided(None)
            return
        except Exception:
            for made in pressed:
                made.enable()
            raise
        await decided(told)

    pressed = []
    with ui.element("div").classes("af-actions"):
        for index, (words, approve, choice) in enumerate(offered):

            async def go(approve: bool = approve, choice: str = choice) -> None:
                await press(approve, choice)

            made = ui.button(visible(words), on_click=on(go, Permission.APPROVE), icon="check" if index == 0 else None)
            made.mark(f"{'approve' if approve else 'reject'}-{asked.id}")
            if index:
                made.classes("af-secondary")
            made.set_enabled(not (approve and unopened.any))
            pressed.append(made)
        if small:

            def show_note() -> None:
                note.set_visibility(True)
                more.set_visibility(False)

            more = ui.button("Add a note", on_click=on(show_note)).props("flat").classes("af-quiet")
    if unopened.any:
        hint = ui.label("Open what is cut or folded above: nobody can say yes to what they have not seen.")
        hint.classes("af-muted af-small")

        def all_seen() -> None:
            hint.set_visibility(False)
            for made in pressed:
                made.enable()

        unopened.on_all = all_seen


def settled(told: ApprovalInfo) -> ui.element:
    """A question that has been decided, as a row of a list."""
    with ui.element("div").classes("af-row af-settled") as row:
        status_chip(told.state)
        with ui.element("div").classes("grow"):
            with ui.link(target=f"/runs/{told.run_id}").classes("af-plain-link"):
                ui.label(visible(told.title)).classes("af-strong truncate")
            ui.label(settled_words(told)).classes("af-muted af-small break-words")
        relative_time(told.decided_at or told.created_at)
    return row


def settled_words(told: ApprovalInfo) -> str:
    """Who decided what, in a sentence."""
    if told.state == "expired":
        words = f"{told.blueprint_name}: nobody decided in time, so it counts as rejected."
    elif told.state == "cancelled":
        words = f"{told.blueprint_name}: the run ended before anybody decided."
    else:
        words = f"{told.blueprint_name}: {told.state} by {told.decided_by or 'somebody'}."
    return f"{words} “{told.note}”" if told.note else words
