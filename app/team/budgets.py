"""Settings → Limits, the part about money: what models cost today and this month, where it went, and the prices behind it."""

from __future__ import annotations

from collections.abc import Mapping

from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import button, entered, heading, notice
from app.sentences import count, studio
from runtime.ledger import Budget, Cost, Standing
from runtime.limits import in_dollars
from runtime.prices import Price

NAMES = {"day": "Today", "month": "This month"}


def warning(budget: Budget) -> str:
    """The sentence for people when a budget is nearly or all used up; empty while all is well."""
    whose = "today" if budget.which == "day" else "this month"
    of = f"{in_dollars(budget.spent)} of {in_dollars(budget.limit)}"
    if budget.used_up:
        until = "tomorrow" if budget.which == "day" else "the next month"
        return f"The budget for {whose} is used up ({of}): no model is asked until {until}, UTC."
    return f"{budget.spent / budget.limit:.0%} of the budget for {whose} is used up: {of}." if budget.near else ""


def warnings(standing: Standing) -> None:
    """A notice for each budget that people should know about."""
    for budget in (standing.today, standing.month):
        if words := warning(budget):
            bad = budget.used_up
            notice(words, tone="bad" if bad else "warn", icon="money_off" if bad else "savings").classes("mb-4")


async def show_standing() -> None:
    """What was spent, against the budgets, and where it went."""
    factory, who = current_factory(), current_actor()
    standing = await factory.ledger.standing(who)
    warnings(standing)
    if standing.unpriced:
        notice(
            f"{count(standing.unpriced, 'answer')} of this month came from models whose price is not known, so they are in no sum. "
            "Enter the price below; once your team sets a budget of its own, such models are not asked without one.",
            icon="help",
        ).classes("mb-4").mark("unpriced")
    with ui.element("div").classes("af-two mb-4"):
        for budget in (standing.today, standing.month):
            _meter(budget)
    ui.label("Days and months are counted in UTC. Tests count too: they ask real models.").classes(
        "af-muted af-small mb-4"
    )
    if standing.agents:
        await _where_it_went(standing)


def _meter(budget: Budget) -> None:
    tone = "negative" if budget.used_up else "warning" if budget.near else "primary"
    share = min(1.0, budget.spent / budget.limit) if budget.limit else 1.0
    with ui.element("div").classes("af-data min-w-0").mark(f"spent-{budget.which}"):
        ui.label(NAMES[budget.which]).classes("af-overline")
        with ui.element("div").classes("flex items-baseline gap-2"):
            ui.label(in_dollars(budget.spent)).classes("af-strong af-number")
            ui.label(f"of {in_dollars(budget.limit)}").classes("af-muted")
        bar = ui.linear_progress(share, show_value=False, size="8px", color=tone)
        bar.props["aria-label"] = f"{NAMES[budget.which]}: {share:.0%} of the budget"
        if budget.held:
            ui.label(f"{in_dollars(budget.held)} more is set aside for questions under way.").classes(
                "af-muted af-small"
            )


async def _where_it_went(standing: Standing) -> None:
    names = {one.id: one.name for one in await current_factory().blueprints.list(current_actor())}
    heading("Where it went this month", 3).classes("mt-4 mb-2")
    with ui.element("div").classes("af-list mb-4").mark("where-it-went"):
        for cost in standing.agents:
            _agent(cost, names)


def _agent(cost: Cost, names: Mapping[str, str]) -> None:
    with ui.element("div").classes("af-row"):
        with ui.element("div").classes("grow min-w-0"):
            if cost.subject in names:
                ui.link(names[cost.subject], studio(cost.subject)).classes("af-one-line")
            else:
                ui.label("An agent that was deleted").classes("af-muted")
            ui.label(count(cost.calls, "answer")).classes("af-muted af-small")
        ui.label(in_dollars(cost.spent)).classes("af-strong af-number")


class Prices:
    """The prices that the team entered itself."""

    def __init__(self) -> None:
        self.may = current_actor().may(Permission.ADMIN)
        with ui.element("div").classes("af-toolbar mt-6"):
            heading("Prices of your own models", 3)
            ui.element("div").classes("af-space")
            if self.may:
                button("Enter a price", on(lambda: self.ask(), Permission.ADMIN), quiet=True, icon="add").mark(
                    "add-price"
                )
        ui.label(
            "The prices of well-known models are known. For others, such as one on a machine of your own, enter what a million "
            "tokens cost; 0 if nothing. A token is about three quarters of a word."
        ).classes("af-muted af-small mb-2")
        self.box = ui.element("div").mark("prices")

    async def refresh(self) -> None:
        """Show what was entered."""
        found = await current_factory().preferences.prices(current_actor())
        self.box.clear()
        with self.box:
            if not found:
                ui.label("None was entered.").classes("af-muted af-small")
                return
            with ui.element("div").classes("af-list"):
                for model, price in found.items():
                    self._row(model, price)

    def _row(self, model: str, price: Price) -> None:
        with ui.element("div").classes("af-row"):
            with ui.element("div").classes("grow min-w-0"):
                ui.label(model).classes("af-strong af-mono af-one-line")
                said = "nothing" if price.free else f"${price.tokens_in:g} read, ${price.tokens_out:g} written"
                ui.label(f"A million tokens: {said}").classes("af-muted af-small")
            if self.may:
                ui.button("Change", on_click=on(lambda: self.ask(model, price), Permission.ADMIN)).props(
                    "dense"
                ).classes("af-secondary")
                gone = ui.button(icon="delete", on_click=on(lambda: self.forget(model), Permission.ADMIN))
                gone.props("flat round dense").classes("af-quiet")
                gone.props["aria-label"] = f"Forget the price of {model}"

    async def forget(self, model: str) -> None:
        """Back to what the price list knows."""
        await current_factory().preferences.set_price(current_actor(), model, None)
        await self.refresh()

    def ask(self, model: str = "", price: Price | None = None) -> None:
        """A dialog for one price."""
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading("What does a model cost?", 2)
            name = ui.input("Model", value=model, placeholder="ollama/llama3.2").classes("w-full")
            name.props("stack-label maxlength=200 autofocus").mark("price-model").set_enabled(not model)
            read = ui.number("A million tokens that it reads, in dollars", value=price.tokens_in if price else 0, min=0)
            read.classes("w-full").props("stack-label step=any").mark("price-in")
            written = ui.number(
                "A million tokens that it writes, in dollars", value=price.tokens_out if price else 0, min=0
            )
            written.classes("w-full").props("stack-label step=any").mark("price-out")
            problem = ui.element("div")

            async def keep() -> None:
                price = Price(float(read.value or 0), float(written.value or 0))
                await current_factory().preferences.set_price(current_actor(), name.value or "", price)

            async def save() -> None:
                if not await entered(problem, keep):
                    return
                dialog.close()
                await self.refresh()

            with ui.element("div").classes("af-actions w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                ui.button("Keep", on_click=on(save, Permission.ADMIN)).mark("price-save")
        dialog.on("hide", dialog.delete)
        dialog.open()
