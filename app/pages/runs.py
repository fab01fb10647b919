"""Runs: the list of everything that ran, and one run with its live timeline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nicegui import background_tasks, ui

from app import theme
from app.deciding import question
from app.environments import environment_chip
from app.forking import agree
from app.live import follow
from app.permissions import Permission, current_actor, current_factory, on, page
from app.pieces import button, confirm, duration, heading, json_tree, relative_time, status_chip
from app.problems import recorded
from app.sentences import (
    ENDED,
    RUN_STATES,
    cost_words,
    count,
    error_words,
    spoken,
    step_name,
    studio,
    took,
    trigger_words,
)
from app.timeline import Timeline
from app.visit import SignedOut
from nodes.errors import FactoryError, NotFound
from runtime.environments import TEST
from runtime.events import Fact
from runtime.forks import Start
from runtime.plan import Plan
from runtime.views import ApprovalInfo, RunInfo, RunView, StepView

PAGE = 50
LIVE = 200
"""A list longer than this is not drawn anew at every change."""
QUESTIONS = 20
PRINTING = 0.3
"""Seconds between two looks at what code prints."""
SCANNED = 2_000
"""How far back a search by words looks."""
_EVERY = ""


class Ledger:
    """The list of one open page."""

    def __init__(self, agent: str, state: str, text: str) -> None:
        self.agent, self.state, self.text = agent, state if state in RUN_STATES else _EVERY, text
        self.runs: list[RunInfo] = []
        self.more = False
        self.scanned = 0
        self.cursor: str | None = None
        self._triggers: dict[str, Any] = {}
        self._list: ui.element | None = None
        self._rows: dict[str, tuple[RunInfo, ui.element]] = {}
        self._reading = asyncio.Lock()
        """Runs that happen while somebody asks for older ones must not take these away again."""
        self.box = ui.element("div").mark("runs")
        self.rest = button("Older", on(self.older), quiet=True).classes("mt-4").mark("older")
        self.fresh = button("Something new ran: show it", on(self.reload), quiet=True, icon="arrow_upward")
        self.fresh.set_visibility(False)

    async def read(self, size: int, before: str | None = None) -> list[RunInfo]:
        """The next runs that fit, newest first."""
        found: list[RunInfo] = []
        who, service = current_actor(), current_factory().runs
        chunk = 200 if self.text else min(size + 1, 200)
        self.scanned, self.more, self.cursor = 0, False, before
        while not self.more:
            got = await service.list(
                who, blueprint_id=self.agent or None, state=self.state or None, limit=chunk, before=self.cursor
            )
            for run in got:
                if len(found) == size:
                    self.more = True
                    break
                self.cursor = run.id
                self.scanned += 1
                if self._fits(run):
                    found.append(run)
            if len(got) < chunk:
                break
            self.more = self.more or self.scanned >= SCANNED
        await self._learn(found)
        return found

    def _fits(self, run: RunInfo) -> bool:
        about = f"{run.blueprint_name} {run.id} {error_words(run.error)}".lower()
        return all(word in about for word in self.text.lower().split())

    async def _learn(self, runs: Sequence[RunInfo]) -> None:
        """The documents behind the runs, for the names of their triggers."""
        missing = {run.blueprint_id for run in runs} - self._triggers.keys()
        for id_ in missing:
            try:
                self._triggers[id_] = (await current_factory().blueprints.get(current_actor(), id_)).blueprint
            except FactoryError:
                self._triggers[id_] = None  # deleted in the meantime

    async def reload(self) -> None:
        """Read the same number of runs again and show them."""
        self.fresh.set_visibility(False)
        async with self._reading:
            self.runs = await self.read(max(PAGE, min(len(self.runs), LIVE)))
            self.draw()

    async def refresh(self) -> None:
        """Something ran."""
        if len(self.runs) > LIVE:
            self.fresh.set_visibility(True)
        else:
            await self.reload()

    async def older(self) -> None:
        """Add the page before."""
        async with self._reading:
            found = await self.read(PAGE, before=self.cursor)
            self.runs += found
            self.draw()
        if not found:
            ui.notify("There are no older runs that fit.")

    def draw(self) -> None:
        """Show what was read. Rows that are the same stay where they are, for whoever is about to press one."""
        self.rest.set_visibility(self.more)
        if not self.runs or self._list is None:
            self.box.clear()
            self._rows.clear()
            self._list = None
        with self.box:
            if not self.runs:
                self._nothing()
                return
            if self._list is None:
                self._list = ui.element("div").classes("af-list").props("role=list")
        now = {run.id: run for run in self.runs}
        for id_ in [id_ for id_, (known, _) in self._rows.items() if now.get(id_) != known]:
            self._rows.pop(id_)[1].delete()
        for index, run in enumerate(self.runs):
            if run.id not in self._rows:
                with self._list:
                    row = self._row(run)
                row.move(target_index=index)
                self._rows[run.id] = (run, row)

    def _row(self, run: RunInfo) -> ui.element:
        document = self._triggers.get(run.blueprint_id)
        began = trigger_words(document, current_factory().catalog, run.trigger) if document and run.trigger else ""
        with (
            ui.link(target=f"/runs/{run.id}")
            .classes("af-row af-run")
            .props("role=listitem")
            .mark(f"run-{run.id}") as row
        ):
            with ui.element("span").classes("af-run-chip"):
                status_chip(run.state)
            with ui.element("span").classes("grow"):
                with ui.element("span").classes("flex items-center gap-2 min-w-0"):
                    ui.label(run.blueprint_name).classes("af-one-line af-strong")
                    if run.environment == TEST:
                        environment_chip(run.environment)
                if run.error:
                    ui.label(error_words(run.error)).classes("af-one-line af-small af-bad")
            ui.label(began).classes("af-run-trigger af-one-line af-muted")
            ui.label(f"v{run.version}" if run.version is not None else "draft").classes(
                "af-run-version af-muted af-small"
            )
            ui.label(took(run.seconds)).classes("af-run-time af-number af-muted")
            with ui.element("span").classes("af-run-when"):
                relative_time(run.started_at)
        return row

    def _nothing(self) -> None:
        if self.agent or self.state or self.text:
            looked = f"Among the last {count(self.scanned, 'run')} none fits." if self.text else "No run fits."
            theme.empty_state("filter_alt_off", "Nothing fits", looked, (("Show all runs", "/runs"),))
            return
        theme.empty_state(
            "timeline",
            "Nothing has run yet",
            "Every time an agent starts, its run stands here: what came in, what each step did with it, how long it took "
            "and what went wrong, in words. Deploy an agent, or press “Run now” on its card.",
            (("Go to your agents", "/"),),
        )


@page("/runs", "Runs")
async def runs(agent: str = "", state: str = "", text: str = "") -> None:
    """The list, newest first. The address holds the filters."""
    agents = await current_factory().blueprints.list(current_actor())
    names = {_EVERY: "All agents"} | {one.id: one.name for one in agents}
    agent = agent if agent in names else _EVERY
    with theme.frame("Runs", active="runs"):
        bar = ui.element("div").classes("af-toolbar")
        ledger = Ledger(agent, state, text[:200])
        with bar:

            async def filter_agent(event: Any) -> None:
                ledger.agent = event.value or ""
                await ledger.reload()

            async def filter_state(event: Any) -> None:
                ledger.state = event.value or ""
                await ledger.reload()

            async def filter_text(event: Any) -> None:
                ledger.text = (event.value or "")[:200]
                await ledger.reload()

            ui.select(names, value=ledger.agent, on_change=on(filter_agent), with_input=len(names) > 12).props(
                'aria-label="Agent"'
            ).classes("af-filter").mark("filter-agent")
            states = {_EVERY: "All states"} | RUN_STATES
            ui.select(states, value=ledger.state, on_change=on(filter_state)).props('aria-label="State"').classes(
                "af-filter is-narrow"
            ).mark("filter-state")
            ui.input(placeholder="Agent, error or run id", value=ledger.text, on_change=on(filter_text)).props(
                'clearable debounce=250 aria-label="Search runs"'
            ).classes("af-find").mark("filter-text")
            ui.element("div").classes("af-space")
            button("Needs attention", "/attention", quiet=True, icon="report").mark("attention")
        ledger.fresh.move(bar)
        await ledger.reload()
        follow((("runs",),), ledger.refresh, pause=1.0)


# --- one run -------------------------------------------------------------------------------------------------------------


@page("/runs/{run_id}", "Run")
async def run(run_id: str) -> None:
    """One run: what it is, what it waits for, and every step as it happens."""
    factory, who = current_factory(), current_actor()
    found = await factory.runs.get(who, run_id)
    plan = factory.plans.of(who.tenant, found.blueprint)
    with theme.frame(found.info.blueprint_name, active="runs", crumbs=(("Runs", "/runs"),), heading_shown=False):
        sheet = Sheet(found, plan)
        await sheet.begin()


class Sheet:
    """One open run."""

    def __init__(self, found: RunView, plan: Plan) -> None:
        self.info = found.info
        self.plan = plan
        self.finished = False
        self.answered: Fact | None = None
        self.cost = ""
        self.cards: dict[str, ui.element] = {}
        self._due = asyncio.Event()
        with ui.element("div").classes("af-head"):
            with ui.element("div").classes("min-w-0"):
                heading(self.info.blueprint_name)
                self.about = ui.element("div").classes("af-facts mt-1").mark("run-facts")
            self.actions = ui.element("div").classes("af-actions")
        self.problem = ui.element("div").classes("w-full")
        self.questions = ui.element("div").classes("flex flex-col gap-4")
        self.timeline = Timeline(plan, self.info.started_at)
        if current_actor().may(Permission.RUN) and not self.info.id.startswith("test_"):
            self.timeline.offer = self._offer
        self.data = ui.element("div").classes("af-two mt-8")

    async def begin(self) -> None:
        """Show the head, then follow what happens."""
        self.cost = cost_words(await current_factory().ledger.of_run(current_actor(), self.info.id))
        self._head()
        await self._ask()
        follow((("approvals",),), self._ask)
        follow((("printing", self.info.id),), self._printed, pause=PRINTING)
        client = ui.context.client
        task = background_tasks.create(self._follow(), name="follow a run")
        client.on_delete(task.cancel)
        ui.timer(1.0, self._tick)

    # --- following ---------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Hear the facts, and draw a few times a second at most."""
        place = self.timeline.box
        drawer = background_tasks.create(self._draw_when_due(), name="draw a run")
        try:
            while not self.finished:
                self.timeline.restart()
                await self._hear(place)
        except (SignedOut, NotFound):
            pass
        finally:
            self._due.set()
            await drawer

    async def _hear(self, place: ui.element) -> None:
        with place:
            who = current_actor()
        heard = 0
        async for fact in current_factory().runs.watch(who, self.info.id):
            self.timeline.tell(fact)
            if fact["kind"] == "run.responded":
                self.answered = fact
            self.finished = fact["kind"] == "run.finished"
            self._due.set()
            heard += 1
            if heard % 100 == 0:
                await asyncio.sleep(0)  # a long history must not hold up other pages

    async def _draw_when_due(self) -> None:
        place = self.timeline.box
        while not place.is_deleted and not place.client.is_deleted:
            await self._due.wait()
            self._due.clear()
            if place.is_deleted:
                return
            with place, recorded("timeline"):
                await self._draw()
            if self.finished:
                return
            await asyncio.sleep(0.25)

    async def _draw(self) -> None:
        who = current_actor()
        story, ended = self.timeline.story, self.finished
        self.timeline.draw()
        if ended:
            self.info = (await current_factory().runs.get(who, self.info.id)).info
            self.cost = cost_words(await current_factory().ledger.of_run(who, self.info.id))
        else:
            waits = any(step.state in ("waiting", "in doubt") for step in story.steps.values())
            busy = any(step.state in ("running", "retrying") for step in story.steps.values())
            self.info = replace(self.info, state="waiting" if waits and not busy else "running")
        self._head()
        self._data()

    def _printed(self) -> None:
        self.timeline.show_printing(current_factory().printing.of(current_actor(), self.info.id))

    def _tick(self) -> None:
        if not self.finished and not self.timeline.box.is_deleted:
            self.timeline.tick()
            self._length.set_text(duration(self.timeline.total()))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _head(self) -> None:
        info, who = self.info, current_actor()
        self.about.clear()
        with self.about:
            status_chip(info.state)
            environment_chip(info.environment)
            sandbox = info.id.startswith("test_")
            version = f"version {info.version}" if info.version is not None else "the draft"
            ui.label("sandbox" if sandbox else version)
            if info.trigger and (placed := self.plan.blueprint.node(info.trigger)) is not None:
                ui.label(f"began with “{step_name(placed, current_factory().catalog)}”")
            if (fork := self.timeline.story.fork) is not None:
                ui.link("goes on from an earlier run", f"/runs/{fork['run']}").mark("forked-from")
            with ui.element("span"):
                relative_time(info.started_at)
            self._length = ui.label(took(info.seconds if info.finished_at else self.timeline.total()))
            self._length.classes("af-number").props('aria-label="Duration"')
            if self.cost:
                ui.label(self.cost).classes("af-number").mark("run-cost")
        self.actions.clear()
        with self.actions:
            if info.state not in ENDED and who.may(Permission.RUN):
                button("Cancel", on(self._cancel, Permission.RUN), quiet=True, icon="block").mark("cancel")
            if info.state in ENDED and who.may(Permission.RUN) and not sandbox:
                button("Run again", on(self._again, Permission.RUN), quiet=True, icon="replay").mark("run-again")
            if info.blueprint_id:
                button("Open in Studio", studio(info.blueprint_id), quiet=True, icon="account_tree")
        self._trouble()

    def _trouble(self) -> None:
        error = self.info.error
        self.problem.clear()
        if self.info.state != "failed" or not error:
            return
        node = (error.get("where") or {}).get("node")
        with self.problem, ui.element("div").classes("af-note is-bad mb-4").props("role=alert"):
            ui.icon("error").props("aria-hidden=true")
            with ui.element("div").classes("min-w-0 grow"):
                ui.label(error_words(error)).classes("af-strong break-words")
                if error.get("fix"):
                    ui.label(spoken(str(error["fix"]))).classes("break-words")
                with ui.element("div").classes("af-actions mt-2"):
                    if node in self.plan.steps:
                        button("Show the step", on(lambda: self.timeline.open(node)), quiet=True)
                    if current_actor().may(Permission.RUN) and not self.info.id.startswith("test_"):
                        again = on(lambda: self._go_on(Start.FAILURE), Permission.RUN)
                        button("Retry from the failed step", again, quiet=True, icon="start").mark("retry-failed")
                        debug = f"{studio(self.info.blueprint_id)}?debug={self.info.id}"
                        button("Debug in the Studio", debug, quiet=True, icon="bug_report").mark("debug")
                    if self.info.needs_attention and current_actor().may(Permission.RUN):
                        button("Resolve", f"/attention/{self.info.id}", icon="report").mark("deal")

    def _data(self) -> None:
        self.data.clear()
        story = self.timeline.story
        with self.data:
            _well("What came in", story.input)
            if self.finished:
                _well("What came out", story.output)
            if self.answered is not None:
                _well(f"What the caller was answered ({self.answered['status']})", self.answered["body"])

    async def _ask(self) -> None:
        """The questions of this run that wait for a person."""
        asked = await current_factory().approvals.of_run(current_actor(), self.info.id)
        pending = {one.id: one for one in asked if one.state == "pending"}
        for id_ in [one for one in self.cards if one not in pending]:
            self.cards.pop(id_).delete()
        with self.questions:
            for id_, one in list(pending.items())[:QUESTIONS]:
                if id_ not in self.cards:
                    self.cards[id_] = question(one, self._decided, with_run=False).classes("mb-4")

    async def _decided(self, told: ApprovalInfo | None) -> None:
        if told is not None:
            await self._ask()

    async def _cancel(self) -> None:
        with ui.context.client.content:
            sure = await confirm(
                "Cancel this run?",
                "Steps that are at work are stopped. What was done already stays done.",
                yes="Cancel it",
                no="Let it go on",
            )
        if sure:
            await current_factory().runs.cancel(current_actor(), self.info.id)

    def _offer(self, step: StepView) -> None:
        """What can be done from one step on, below its data."""
        act = on(lambda: self._go_on(step.node), Permission.RUN)
        with ui.element("div").classes("af-actions mt-2"):
            button("Fork from this step", act, quiet=True, icon="fork_right").mark(f"fork-{step.node}")

    async def _go_on(self, start: str) -> None:
        """Show what a run from there would do, then start it."""
        # The button may be drawn anew meanwhile; the page stays.
        who, runs, page_ = current_actor(), current_factory().runs, ui.context.client.content
        plan = await runs.preview(who, self.info.id, start)
        name = self.plan.steps[start].name if start in self.plan.steps else ""
        with page_:
            sure = await agree(
                f"A new run from “{name}”" if name else "A new run from what failed",
                plan,
                lambda id_: self.plan.steps[id_].name,
                source="this run",
                live=True,
                about="It runs on the same version, and this run stays as it is.",
            )
            if sure:
                ui.navigate.to(f"/runs/{await runs.fork(current_actor(), self.info.id, start)}")

    async def _again(self) -> None:
        ui.navigate.to(f"/runs/{await current_factory().runs.retry(current_actor(), self.info.id)}")


def _well(title: str, value: Any) -> None:
    with ui.element("div").classes("af-data min-w-0"):
        ui.label(title).classes("af-overline")
        with ui.element("div").classes("af-well"):
            if value is None:
                ui.label("Nothing.").classes("af-muted af-small")
            else:
                json_tree(value)
