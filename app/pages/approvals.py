"""Approvals: what waits for a person's decision, and what was decided."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from app import theme
from app.deciding import question, settled
from app.live import follow
from app.permissions import current_actor, current_factory, on, page
from app.pieces import button, heading
from app.sentences import count
from runtime.views import ApprovalInfo

SHOWN = 20


class Desk:
    """Both lists of one open page; a card stays while its question waits, so nothing typed in it is lost."""

    def __init__(self) -> None:
        self.cards: dict[str, ui.element] = {}
        self.limit = SHOWN
        self.told = SHOWN
        self.waiting = ui.element("div")
        self.past = ui.element("div")

    async def refresh(self) -> None:
        """Show what waits and what was decided now."""
        approvals, who = current_factory().approvals, current_actor()
        pending = await approvals.list(who)
        decided = await approvals.list(who, pending=False)
        self._draw_waiting(pending)
        self._draw_past(decided)

    def _draw_waiting(self, pending: Sequence[ApprovalInfo]) -> None:
        first = {one.id: one for one in pending[: self.limit]}
        for id_ in [one for one in self.cards if one not in first]:
            self.cards.pop(id_).delete()
        with self.box:
            for id_, asked in first.items():
                if id_ not in self.cards:
                    self.cards[id_] = question(asked, self.decided)
        self.nothing.set_visibility(not pending)
        self.rest.set_text(f"Show {count(len(pending) - self.limit, 'more question')}")
        self.rest.set_visibility(len(pending) > self.limit)

    def _draw_past(self, decided: Sequence[ApprovalInfo]) -> None:
        self.past.clear()
        with self.past:
            if not decided:
                ui.label("Nothing was decided yet.").classes("af-muted")
                return
            with ui.element("div").classes("af-list"):
                for told in decided[: self.told]:
                    settled(told)
            if len(decided) > self.told:
                button("Show older decisions", on(self.older), quiet=True).classes("mt-4")

    async def decided(self, told: ApprovalInfo | None) -> None:
        """Say what came of it and let the card go."""
        if told is None:
            return
        ui.notify(f"{told.state.capitalize()}. The run goes on.", type="positive")
        await self.refresh()

    async def older(self) -> None:
        self.told += 100
        await self.refresh()

    async def more(self) -> None:
        self.limit += SHOWN
        await self.refresh()

    def build(self) -> None:
        """The places for both lists."""
        with self.waiting:
            self.box = ui.element("div").classes("flex flex-col gap-4").mark("questions")
            with ui.element("div") as self.nothing:
                theme.empty_state(
                    "how_to_reg",
                    "Nothing waits for you",
                    "When an agent reaches an “Approval” step, it stops and asks here. The run rests, for days if need "
                    "be, until somebody decides. What is decided is kept below.",
                )
            self.rest = button("", on(self.more), quiet=True)


@page("/approvals", "Approvals")
async def approvals() -> None:
    """Everything that waits, then what was decided."""
    with theme.frame("Approvals", active="approvals"):
        desk = Desk()
        desk.build()
        with ui.element("section").classes("mt-8") as history:
            heading("Decided", 2).classes("mb-4")
        desk.past.move(history)
        await desk.refresh()
        follow((("approvals",),), desk.refresh)
