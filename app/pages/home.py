"""Home: your agents, what waits for you, what ran."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nicegui import ui

from app import theme
from app.agents import Agent, Card, bin_dialog, draw, import_dialog
from app.deciding import question
from app.live import follow
from app.permissions import Permission, current_actor, current_factory, on, page
from app.pieces import Action, button, heading, notice, relative_time, status_chip
from app.sentences import RUN_STATES, count, error_words
from app.team.budgets import warnings
from runtime.environments import LIVE, TEST
from runtime.ledger import MONEY
from runtime.views import ApprovalInfo, RunInfo

DAY = 86_400.0
SHOWN = 60
RECENT = 8
ASKED = 3
SORTS = {"changed": "Last changed", "name": "Name", "ran": "Last run", "live": "Live first"}
_TONES = {"succeeded": "good", "failed": "bad", "running": "busy", "waiting": "warn"}


class Home:
    """What one open home page shows."""

    def __init__(self) -> None:
        self.agents: list[Agent] = []
        self.text = ""
        self.sort = "changed"
        self.limit = SHOWN
        self.grid: ui.element | None = None
        self.cards: dict[str, Card] = {}

    async def load(self) -> None:
        """Read the agents with what is live and what ran last."""
        factory, who = current_factory(), current_actor()
        infos, deployments, latest = await asyncio.gather(
            factory.blueprints.list(who), factory.deployments.list(who), factory.runs.latest(who)
        )
        live = {one.blueprint_id: one for one in deployments if one.environment == LIVE}
        test = {one.blueprint_id: one for one in deployments if one.environment == TEST}
        self.agents = [Agent(info, live.get(info.id), latest.get(info.id), test.get(info.id)) for info in infos]

    def chosen(self) -> list[Agent]:
        """The agents that fit the search, in the chosen order."""
        words = self.text.lower().split()
        fitting = [one for one in self.agents if all(word in _about(one) for word in words)]
        if self.sort == "name":
            fitting.sort(key=lambda one: one.info.name.lower())
        elif self.sort == "ran":
            fitting.sort(key=lambda one: -(one.last_run.started_at if one.last_run else 0))
        elif self.sort == "live":
            fitting.sort(key=lambda one: ("active", "paused", "none").index(one.info.deployment))
        return fitting

    def draw(self) -> None:
        """Show the agents that fit."""
        assert self.grid is not None
        self.grid.clear()
        self.cards.clear()
        fitting = self.chosen()
        with self.grid:
            for one in fitting[: self.limit]:
                self.cards[one.info.id] = Card(one, self.again)
            if not fitting:
                ui.label("No agent fits that search.").classes("af-muted p-4")
            if len(fitting) > self.limit:
                button(f"Show {count(len(fitting) - self.limit, 'more agent')}", on(self.more), quiet=True)

    def more(self) -> None:
        self.limit += 200
        self.draw()

    async def again(self) -> None:
        """Read and show anew; from nothing to something the whole page is another one."""
        had = bool(self.agents)
        await self.load()
        if self.grid is None or had != bool(self.agents):
            ui.navigate.reload()
            return
        self.draw()

    async def touch(self) -> None:
        """Something ran, was deployed, made or binned: bring the cards up to date where they stand."""
        before = {one.info.id for one in self.agents}
        await self.load()
        now = {one.info.id: one for one in self.agents}
        if before != now.keys():
            if now:
                self.draw()
            else:
                ui.navigate.reload()
            return
        for id_, shown in self.cards.items():
            shown.update(now[id_])


def _about(one: Agent) -> str:
    return " ".join((one.info.name, one.info.description, *one.info.triggers)).lower()


@page("/", "Home")
async def home() -> None:
    """The first page after signing in."""
    state = Home()
    await state.load()
    may_edit = current_actor().may(Permission.EDIT)
    actions: tuple[Action, ...] = ()
    if may_edit:
        actions = (
            ("Draw a new agent", on(draw, Permission.EDIT)),
            ("Start from a template", "/templates"),
            ("Import", on(import_dialog, Permission.EDIT)),
        )
    with theme.frame("Home", active="home", actions=actions if state.agents else ()):
        if not state.agents:
            _nothing_yet(state, may_edit)
            return
        with ui.element("div").classes("af-home"):
            with ui.element("section").classes("min-w-0").props('aria-label="Your agents"'):
                _toolbar(state)
                state.grid = ui.element("div").classes("af-tiles af-agents").mark("agents")
                state.draw()
                follow((("runs",), ("deployments",), ("blueprints",)), state.touch, pause=2.0)
                button("Bin", on(lambda: bin_dialog(state.again)), quiet=True, icon="delete").classes("mt-6")
            with ui.element("aside").classes("af-aside min-w-0"):
                await _needs_attention()
                await _money()
                await _waits()
                await _ran()


def _nothing_yet(state: Home, may_edit: bool) -> None:
    if not may_edit:
        theme.empty_state(
            "account_tree",
            "No agents yet",
            "Here you will see your team's agents, what they did and what waits for a person. "
            "A developer or an admin draws the first one.",
        )
        return
    theme.empty_state(
        "account_tree",
        "Draw your first agent",
        "An agent starts when something happens, thinks, and acts: a call arrives, a model reads it, somebody is told. "
        "You draw it as boxes and arrows, try it on an example, and make it live when it does what you want.",
        (("Draw", on(draw, Permission.EDIT)), ("Start from a template", "/templates")),
    )
    with ui.element("div").classes("af-actions justify-center mt-4"):
        ui.button("Import one", on_click=on(import_dialog, Permission.EDIT)).props("flat").classes("af-quiet")
        ui.button("Look in the bin", on_click=on(lambda: bin_dialog(state.again))).props("flat").classes("af-quiet")


def _toolbar(state: Home) -> None:
    def search(event: Any) -> None:
        state.text, state.limit = event.value or "", SHOWN
        state.draw()

    def sort(event: Any) -> None:
        state.sort = event.value
        state.draw()

    with ui.element("div").classes("af-toolbar"):
        heading("Your agents", 2)
        ui.element("div").classes("af-space")
        found = ui.input(placeholder="Search", on_change=on(search)).props(
            'clearable debounce=150 aria-label="Search your agents"'
        )
        found.classes("af-find").mark("find-agent")
        ui.select(SORTS, value="changed", on_change=on(sort)).props('aria-label="Order"').classes("af-order")


async def _needs_attention() -> None:
    """How many runs failed for good, and the way to them; nothing at all while there are none."""
    box = ui.element("div").classes("w-full").mark("home-attention")

    async def refresh() -> None:
        number = await current_factory().dead_letters.count(current_actor())
        box.clear()
        box.set_visibility(number > 0)
        if number:
            with box, ui.link(target="/attention").classes("af-plain-link"):
                needs = "needs" if number == 1 else "need"
                notice(f"{count(number, 'failed run')} {needs} your attention.", tone="bad", icon="report")

    await refresh()
    follow((("dead-letters",),), refresh, pause=1.0)


async def _money() -> None:
    """A budget that is nearly or all used up; nothing while there is enough."""
    box = ui.element("div").classes("w-full").mark("home-money")

    async def refresh() -> None:
        standing = await current_factory().ledger.standing(current_actor())
        box.clear()
        box.set_visibility(standing.today.near or standing.month.near)
        with box, ui.link(target="/settings/limits").classes("af-plain-link"):
            warnings(standing)

    await refresh()
    follow((MONEY,), refresh, pause=2.0)


async def _waits() -> None:
    """Questions of runs, decided right here."""
    with ui.element("section").props('aria-label="What waits for you"'):
        head = ui.element("div").classes("af-toolbar")
        with head:
            heading("Waits for you", 2)
        box = ui.element("div").classes("flex flex-col gap-3")
        rest = ui.link("", "/approvals").classes("mt-2")
        nothing = ui.label("Nothing. When an agent asks for a decision, it stands here.").classes("af-muted af-small")

    shown: dict[str, ui.element] = {}

    async def refresh() -> None:
        waiting = await current_factory().approvals.list(current_actor())
        first = {one.id: one for one in waiting[:ASKED]}
        for id_ in [one for one in shown if one not in first]:
            shown.pop(id_).delete()
        with box:
            for id_, asked in first.items():
                if id_ not in shown:
                    shown[id_] = question(asked, decided, small=True)
        box.set_visibility(bool(waiting))
        nothing.set_visibility(not waiting)
        rest.set_visibility(len(waiting) > ASKED)
        rest.set_text(f"All {len(waiting)} that wait")

    async def decided(told: ApprovalInfo | None) -> None:
        if told is not None:
            ui.notify(f"{told.state.capitalize()}.", type="positive")
            await refresh()

    with box:
        await refresh()
        follow((("approvals",),), refresh)


async def _ran() -> None:
    """The last day in numbers, and the newest runs."""
    with ui.element("section").props('aria-label="What ran"'):
        with ui.element("div").classes("af-toolbar"):
            heading("What ran", 2)
            ui.element("div").classes("af-space")
            ui.link("All runs", "/runs").classes("af-small")
        box = ui.element("div").classes("flex flex-col gap-3").mark("what-ran")

    async def refresh() -> None:
        factory, who = current_factory(), current_actor()
        numbers, newest = await asyncio.gather(
            factory.runs.counts(who, since=time.time() - DAY), factory.runs.list(who, limit=RECENT)
        )
        box.clear()
        with box:
            _numbers(numbers)
            if newest:
                with ui.element("div").classes("af-list"):
                    for run in newest:
                        _run(run)

    with box:
        await refresh()
        follow((("runs",),), refresh, pause=1.0)


def _numbers(numbers: dict[str, int]) -> None:
    total = sum(numbers.values())
    if not total:
        ui.label("Nothing ran in the last 24 hours.").classes("af-muted af-small")
        return
    ui.label(f"{count(total, 'run')} in the last 24 hours").classes("af-muted af-small")
    with ui.element("div").classes("af-numbers"):
        for name, words in RUN_STATES.items():
            if number := numbers.get(name, 0):
                with ui.link(target=f"/runs?state={name}").classes(f"af-figure is-{_TONES.get(name, 'calm')}"):
                    ui.label(f"{number:,}").classes("af-number")
                    ui.label(words)


def _run(run: RunInfo) -> None:
    with ui.link(target=f"/runs/{run.id}").classes("af-row af-run-short"):
        status_chip(run.state)
        with ui.element("div").classes("grow"):
            ui.label(run.blueprint_name).classes("af-one-line")
            if run.state == "failed":
                ui.label(error_words(run.error)).classes("af-one-line af-small af-muted")
        relative_time(run.started_at)
