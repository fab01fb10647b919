"""Needs attention: every live run that failed for good, its story in words, and what can be done about it."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from app import theme
from app.live import follow
from app.permissions import Permission, current_actor, current_factory, on, page
from app.pieces import button, heading, json_tree, notice, relative_time, status_chip, undo_toast
from app.retrying import Again, ask_how, ask_why
from app.sentences import count, error_words, spoken, studio, took
from nodes.categories import Category
from runtime.dead_letters import DeadLetterInfo, DeadLetterView, State, Tally

PAGE = 50
ADDRESS: Final = "/attention"
STATES: Final[dict[str, str]] = {"open": "Open", "retried": "Tried again", "dismissed": "Dismissed"}
ICONS: Final = {
    Category.INPUT: "data_object",
    Category.CONFIGURATION: "tune",
    Category.CREDENTIAL: "key",
    Category.RATE_LIMIT: "speed",
    Category.TIMEOUT: "timer",
    Category.REMOTE: "cloud_off",
    Category.WORKER: "dns",
    Category.MODEL: "psychology",
    Category.LIMIT: "block",
    Category.BUG: "bug_report",
}
_EVERY = ""


def category_chip(category: Category) -> None:
    """The kind of trouble, as icon and word."""
    with ui.element("span").classes("af-chip is-bad") as chip:
        ui.icon(ICONS[category]).props("aria-hidden=true")
        ui.label(category.word).style("display: inline")
    chip.tooltip(category.means)


class Ledger:
    """The list of one open page, and what is chosen in it."""

    def __init__(self, state: str, category: str, agent: str) -> None:
        self.state: State = state if state in STATES else "open"  # type: ignore[assignment]
        self.category = category if category in set(Category) else _EVERY
        self.agent = agent
        self.letters: list[DeadLetterInfo] = []
        self.chosen: set[str] = set()
        self.limit = PAGE
        self.more = False
        self.figures = ui.element("div").classes("af-numbers af-kinds mb-4").mark("categories")
        self.bar = ui.element("div").classes("af-toolbar")
        self.bulk = ui.element("div").classes("af-bulk").props("role=status")
        self.box = ui.element("div").mark("letters")
        self.rest = button("Older", on(self.older), quiet=True).classes("mt-4")
        self._agents: ui.select
        self._kinds: tuple[object, ...] = ()
        self._list: ui.element | None = None
        self._rows: dict[str, tuple[DeadLetterInfo, ui.element]] = {}

    def build(self) -> None:
        """The filters and what can be done with the chosen ones."""
        with self.bar:
            ui.toggle(STATES, value=self.state, on_change=on(lambda event: self._turn(event.value))).props(
                "unelevated dense no-caps"
            ).mark("states")
            ui.element("div").classes("af-space")
            self._agents = (
                ui.select({_EVERY: "All agents"}, value=_EVERY, on_change=on(lambda event: self._of(event.value)))
                .props('aria-label="Agent"')
                .classes("af-filter")
                .mark("filter-agent")
            )
        with self.bulk:
            self._number = ui.label().classes("af-strong")
            button("Try again", on(self._again, Permission.RUN), icon="replay").mark("retry-chosen")
            button("Dismiss", on(self._dismiss, Permission.RUN), quiet=True, icon="done").mark("dismiss-chosen")
            button("Choose none", on(self._none), quiet=True)

    async def refresh(self) -> None:
        """Read and show everything as it is now."""
        service, who = current_factory().dead_letters, current_actor()
        tally = await service.tally(who, self.state)
        found = await service.list(
            who,
            state=self.state,
            category=Category(self.category) if self.category else None,
            blueprint_id=self.agent or None,
            limit=min(self.limit + 1, 200),
        )
        self.letters, self.more = list(found[: self.limit]), len(found) > self.limit
        self.chosen &= {one.run.id for one in self.letters}
        self._draw(tally)

    def _draw(self, tally: Tally) -> None:
        names = {_EVERY: "All agents"} | {id_: f"{name} ({number:,})" for id_, name, number in tally.agents}
        if self.agent and self.agent not in names:
            names[self.agent] = "This agent (0)"
        self._agents.set_options(names, value=self.agent)
        self._agents.set_visibility(bool(tally.total) or bool(self.agent))
        self._draw_kinds(tally)
        self._draw_bulk()
        self.rest.set_visibility(self.more)
        self._draw_rows()

    def _draw_rows(self) -> None:
        """Rows that are the same stay where they are, for whoever is about to press one."""
        if not self.letters or self._list is None:
            self.box.clear()
            self._rows.clear()
            self._list = None
        with self.box:
            if not self.letters:
                self._nothing()
                return
            if self._list is None:
                self._list = ui.element("div").classes("af-list").props("role=list")
        now = {one.run.id: one for one in self.letters}
        for id_ in [id_ for id_, (known, _) in self._rows.items() if now.get(id_) != known]:
            self._rows.pop(id_)[1].delete()
        for index, one in enumerate(self.letters):
            if one.run.id not in self._rows:
                with self._list:
                    row = self._row(one)
                row.move(target_index=index)
                self._rows[one.run.id] = (one, row)

    def _draw_kinds(self, tally: Tally) -> None:
        now = (self.category, *sorted(tally.categories.items()))
        if now == self._kinds:
            return
        self._kinds = now
        self.figures.clear()
        self.figures.set_visibility(bool(tally.total))
        with self.figures:
            for category, number in sorted(tally.categories.items(), key=lambda entry: -entry[1]):
                here = category == self.category
                with ui.element("button").classes("af-figure is-bad" + (" is-here" if here else "")) as made:
                    ui.label(f"{number:,}").classes("af-number")
                    ui.label(category.word)
                made.props(f"type=button aria-pressed={'true' if here else 'false'}").mark(f"category-{category}")
                made.on("click", on(lambda category=category: self._kind(category)))
                made.tooltip(category.means)

    def _draw_bulk(self) -> None:
        self._number.set_text(f"{count(len(self.chosen), 'run')} chosen")
        self.bulk.set_visibility(bool(self.chosen))

    def _row(self, one: DeadLetterInfo) -> ui.element:
        run = one.run
        with ui.element("div").classes("af-row af-run").props("role=listitem").mark(f"letter-{run.id}") as row:
            if self.state == "open" and current_actor().may(Permission.RUN):
                box = ui.checkbox(
                    value=run.id in self.chosen, on_change=on(lambda event: self._choose(run.id, bool(event.value)))
                )
                box.props(f'dense aria-label="Choose this run of {_plain(run.blueprint_name)}"').mark(
                    f"choose-{run.id}"
                )
            with ui.element("span").classes("af-kind"):
                category_chip(one.category)
            with ui.link(target=f"{ADDRESS}/{run.id}").classes("grow min-w-0 af-plain-link"):
                ui.label(run.blueprint_name).classes("af-one-line af-strong")
                ui.label(spoken(error_words(run.error))).classes("af-one-line af-small af-bad")
                if self.state != "open":
                    ui.label(done_words(one)).classes("af-one-line af-small af-muted")
            if one.retry_state is not None:
                status_chip(one.retry_state)
            if one.environment != "live":
                ui.label(one.environment).classes("af-muted af-small")
            with ui.element("span").classes("af-run-when"):
                relative_time(run.finished_at or run.started_at)
        return row

    def _nothing(self) -> None:
        if self.state == "retried":
            theme.empty_state("replay", "Nothing was tried again", "Runs that you try again are kept here.")
        elif self.state == "dismissed":
            theme.empty_state("done_all", "Nothing was dismissed", "Runs that need nothing any more are kept here.")
        elif self.category or self.agent:
            theme.empty_state("filter_alt_off", "Nothing fits", "No failed run fits.", (("Show all of them", ADDRESS),))
        else:
            theme.empty_state(
                "task_alt",
                "Nothing needs attention",
                "When a run of a live agent fails for good, it comes here and stays until somebody deals with it. You read "
                "what happened in words, correct the data if need be, and try it again from the step that failed, so that "
                "what went well is not done twice. Or you dismiss it and say why.",
                (("Look at all runs", "/runs"),),
            )

    # --- what people do ----------------------------------------------------------------------------------------------

    async def _turn(self, state: State) -> None:
        self.state, self.category, self.agent, self.limit = state, _EVERY, _EVERY, PAGE
        self._forget()
        await self.refresh()

    async def _kind(self, category: Category) -> None:
        self.category = _EVERY if self.category == category else category
        await self.refresh()

    async def _of(self, agent: str | None) -> None:
        if (agent or _EVERY) != self.agent:
            self.agent = agent or _EVERY
            await self.refresh()

    def _choose(self, run_id: str, chosen: bool) -> None:
        self.chosen.add(run_id) if chosen else self.chosen.discard(run_id)
        self._draw_bulk()

    def _forget(self) -> None:
        """Nothing is chosen any more; all rows are drawn anew."""
        self.chosen.clear()
        self._list = None

    async def _none(self) -> None:
        self._forget()
        await self.refresh()

    async def older(self) -> None:
        self.limit = min(self.limit + PAGE, 199)
        await self.refresh()

    async def _again(self) -> None:
        runs = sorted(self.chosen)
        if (how := await ask_how(len(runs))) is None:
            return
        came = await current_factory().dead_letters.retry_many(current_actor(), runs, start=how[0], version=how[1])
        refused = [one.error for one in came if one.error is not None]
        self._forget()
        await self.refresh()
        if good := len(came) - len(refused):
            ui.notify(f"{count(good, 'run')} {'was' if good == 1 else 'were'} started again.", type="positive")
        if refused:
            ui.notify(
                f"{count(len(refused), 'run')} could not be: {refused[0]['message']}", type="warning", timeout=8000
            )

    async def _dismiss(self) -> None:
        runs = sorted(self.chosen)
        if not (why := await ask_why(len(runs))):
            return
        number = await current_factory().dead_letters.dismiss(current_actor(), runs, why)
        self._forget()
        await self.refresh()
        ui.notify(f"{count(number, 'run')} dismissed.", type="positive")


def done_words(one: DeadLetterInfo) -> str:
    """Who did what about it."""
    if one.state == "retried":
        return f"Tried again by {one.done_by or 'somebody'}."
    return f"Dismissed by {one.done_by or 'somebody'}: {one.reason}"


def _plain(text: str) -> str:
    return text.replace('"', "'")


@page(ADDRESS, "Needs attention")
async def dead_letters(state: str = "open", category: str = "", agent: str = "") -> None:
    """Everything that failed for good, newest first. The address holds the filters."""
    with theme.frame("Needs attention", active="attention"):
        ledger = Ledger(state, category, agent[:64])
        ledger.build()
        await ledger.refresh()
        follow((("dead-letters",),), ledger.refresh, pause=1.0)


# --- one of them ---------------------------------------------------------------------------------------------------------


@page(ADDRESS + "/{run_id}", "Failed run")
async def dead_letter(run_id: str) -> None:
    """One failed run: its story, what helps, and what to do about it."""
    letter = await current_factory().dead_letters.get(current_actor(), run_id)
    crumbs = (("Needs attention", ADDRESS),)
    with theme.frame(letter.info.run.blueprint_name, active="attention", crumbs=crumbs, heading_shown=False):
        Sheet(letter).draw()


class Sheet:
    """One open letter."""

    def __init__(self, letter: DeadLetterView) -> None:
        self.letter = letter
        self.box = ui.element("div").classes("w-full")

    def draw(self) -> None:
        """Show it as it stands."""
        self.box.clear()
        with self.box:
            self._head()
            with ui.element("div").classes("af-letter"):
                with ui.element("div").classes("flex flex-col gap-6 min-w-0"):
                    self._story()
                    self._data()
                with ui.element("div").classes("flex flex-col gap-4 min-w-0"):
                    self._deal()

    async def again(self) -> None:
        """Read and show anew."""
        self.letter = await current_factory().dead_letters.get(current_actor(), self.letter.info.run.id)
        self.draw()

    def _head(self) -> None:
        info, run = self.letter.info, self.letter.info.run
        with ui.element("div").classes("af-head"):
            with ui.element("div").classes("min-w-0"):
                heading(run.blueprint_name)
                with ui.element("div").classes("af-facts mt-1"):
                    category_chip(info.category)
                    ui.label(f"version {run.version}" if run.version is not None else "the draft")
                    with ui.element("span"):
                        ui.label("failed ").classes("af-inline")
                        relative_time(run.finished_at or run.started_at)
                    ui.label(f"after {took(run.seconds)}")
                    if info.environment != "live":
                        ui.label(f"environment “{info.environment}”")
            with ui.element("div").classes("af-actions"):
                button("Step by step", f"/runs/{run.id}", quiet=True, icon="timeline").mark("see-run")
                if run.blueprint_id:
                    button(
                        "Debug in the Studio",
                        f"{studio(run.blueprint_id)}?debug={run.id}",
                        quiet=True,
                        icon="bug_report",
                    )

    def _story(self) -> None:
        with ui.element("section").props('aria-label="What happened"').mark("story"):
            heading("What happened", 2).classes("mb-2")
            with ui.element("ol").classes("af-story"):
                for sentence in self.letter.story:
                    with ui.element("li"):
                        ui.label(spoken(sentence)).classes("break-words")
        category, error = self.letter.info.category, self.letter.info.run.error or {}
        with ui.element("section").props('aria-label="What helps"'):
            heading("What helps", 2).classes("mb-2")
            ui.label(spoken(str(error.get("fix") or category.helps))).classes("break-words").mark("advice")
            ui.label(f"{category.word}: {category.means}").classes("af-muted af-small mt-1")

    def _data(self) -> None:
        with ui.element("section").props('aria-label="Data"'):
            heading("What came in", 2).classes("mb-2")
            with ui.element("div").classes("af-well"):
                if self.letter.input is None:
                    ui.label("Nothing.").classes("af-muted af-small")
                else:
                    json_tree(self.letter.input, open_levels=2)

    def _deal(self) -> None:
        info = self.letter.info
        if self.letter.retry_of:
            with notice("This run was itself a second try.", icon="replay"):
                ui.link("See the first", f"{ADDRESS}/{self.letter.retry_of}")
        if self.letter.told_run:
            with notice("The agent for failures was started.", icon="campaign"):
                ui.link("See its run", f"/runs/{self.letter.told_run}")
        if info.state == "retried":
            with notice(done_words(info), tone="good" if info.retry_state == "succeeded" else "info", icon="replay"):
                if info.retry_state is not None:
                    status_chip(info.retry_state)
                ui.link("See the new run", f"/runs/{info.retry_run}")
        elif info.state == "dismissed":
            notice(done_words(info), icon="done")
            if current_actor().may(Permission.RUN):
                button("Open again", on(self._open, Permission.RUN), quiet=True, icon="undo").mark("open-again")
        elif current_actor().may(Permission.RUN):
            Again(self.letter, self._tried)
            with ui.element("section").classes("af-card af-again").props('aria-label="Dismiss"'):
                heading("Nothing to do about it?", 2)
                ui.label("Dismiss it and say why. It is kept, and can be opened again.").classes("af-muted")
                with ui.element("div").classes("af-actions"):
                    button("Dismiss…", on(self._dismiss, Permission.RUN), quiet=True, icon="done").mark("dismiss")
        else:
            ui.label("Developers and admins can try it again or dismiss it. You can look.").classes("af-muted")

    async def _tried(self, new_run: str) -> None:
        ui.navigate.to(f"/runs/{new_run}")

    async def _dismiss(self) -> None:
        run_id = self.letter.info.run.id
        if not (why := await ask_why(1)):
            return
        await current_factory().dead_letters.dismiss(current_actor(), [run_id], why)
        await self.again()
        undo_toast("Dismissed.", on(self._open, Permission.RUN))

    async def _open(self) -> None:
        await current_factory().dead_letters.undo(current_actor(), self.letter.info.run.id)
        with self.box:
            await self.again()
