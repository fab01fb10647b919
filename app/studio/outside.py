"""What a test does not really do: effects outside that are only told, and what people would answer."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from app.permissions import on
from app.pieces import confirm, heading
from app.studio.desk import Desk
from nodes.base import Effect, Family
from nodes.catalog import BadSettings, UnknownNode
from runtime.environments import LIVE, TEST
from runtime.policy import Permission


class Outside:
    """The right side of the test drawer."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.allowed: set[str] = set()
        self.answers: dict[str, bool] = {}
        self.environment: str = LIVE
        """Whose variables and secrets the tests use."""
        self._effects: list[tuple[str, str]] = []
        self._root = ui.element("div").classes("st-bench-side")
        self.draw()

    def pretend(self) -> dict[str, Any]:
        """What the sandbox shall take as people's answers."""
        events = {node for node, _ in self._events()}
        return {node: {"arrived" if node in events else "approved": yes} for node, yes in self.answers.items()}

    def draw(self, effects: list[tuple[str, str]] | None = None) -> None:
        """Simulated effects (those of before when none are given), steps that may act for real, what people would answer."""
        if effects is not None:
            self._effects = effects
        effects = self._effects
        outside, gates, events = self._outside(), self._gates(), self._events()
        self._root.clear()
        with self._root:
            heading("Outside the test", 3)
            if not outside and not gates and not events and not effects:
                ui.label(
                    "Nothing in this agent acts on the outside. If a step does, the test only says here what it would do."
                ).classes("st-help")
            for _, sentence in effects:
                with ui.element("div").classes("st-effect").mark("effect"):
                    ui.icon("science").props("aria-hidden=true")
                    ui.label(sentence[:1].upper() + sentence[1:]).classes("break-words")
            for node, title in outside:
                box = ui.checkbox(f"Really do “{title}” in this test", value=node in self.allowed)
                box.on_value_change(on(partial(self._allow, node, title, box), Permission.RUN)).mark(f"allow-{node}")
                box.set_enabled(self.desk.may(Permission.RUN))
            for node, title in gates:
                with ui.element("div").classes("st-gate"):
                    ui.label(f"“{title}”: people would").classes("af-small")
                    ui.toggle(
                        {True: "Approve", False: "Reject"},
                        value=self.answers.get(node, True),
                        on_change=on(lambda event, node=node: self._answer(node, bool(event.value)), Permission.RUN),
                    ).props("unelevated dense no-caps").classes("st-toggle").mark(f"answer-{node}")

            for node, title in events:
                with ui.element("div").classes("st-gate"):
                    ui.label(f"What “{title}” waits for").classes("af-small")
                    ui.toggle(
                        {True: "Happens", False: "Is too late"},
                        value=self.answers.get(node, True),
                        on_change=on(lambda event, node=node: self._answer(node, bool(event.value)), Permission.RUN),
                    ).props("unelevated dense no-caps").classes("st-toggle").mark(f"answer-{node}")
            self._draw_environment()

    def _draw_environment(self) -> None:
        with ui.element("div").classes("st-gate"):
            ui.label("Variables and secrets of").classes("af-small")
            ui.toggle(
                {LIVE: "Live", TEST: "Test"},
                value=self.environment,
                on_change=on(lambda event: self._choose(str(event.value)), Permission.RUN),
            ).props('unelevated dense no-caps aria-label="Variables and secrets of"').classes("st-toggle").mark(
                "test-environment"
            )

    def _choose(self, environment: str) -> None:
        self.environment = environment

    def _answer(self, node: str, yes: bool) -> None:
        self.answers[node] = yes

    async def _allow(self, node: str, title: str, box: ui.checkbox) -> None:
        if not box.value:
            self.allowed.discard(node)
            return
        if node in self.allowed:
            return
        sure = await confirm(
            f"Really do “{title}”?",
            "The next tests in this tab then do this step for real: what it sends or changes outside cannot be taken back.",
            yes="Really do it",
            no="Only say it",
        )
        if sure:
            self.allowed.add(node)
        else:
            box.set_value(False)

    def _outside(self) -> list[tuple[str, str]]:
        """The steps that act on the outside."""
        found = []
        for placed in self.desk.session.graph.nodes.values():
            try:
                node = self.desk.types.build(placed)
            except (BadSettings, UnknownNode):
                continue
            if node.effect_here() >= Effect.E3 and node.family is not Family.TRIGGER:
                found.append((placed.id, self.desk.title(placed.id)))
        return found[:30]

    def _events(self) -> list[tuple[str, str]]:
        """The steps that wait for something to happen."""
        nodes = self.desk.session.graph.nodes.values()
        return [(one.id, self.desk.title(one.id)) for one in nodes if one.type == "flow.wait_event"][:30]

    def _gates(self) -> list[tuple[str, str]]:
        """The steps where a person decides."""
        types = self.desk.types
        nodes = self.desk.session.graph.nodes.values()
        asking = (one for one in nodes if one.policy.ask_first or (one.type in types and types.get(one.type).gate))
        return [(one.id, self.desk.title(one.id)) for one in asking if not one.disabled][:30]
