"""What a person sets up for failures: after which kinds a step is tried again, what it goes on with, who is told."""

from __future__ import annotations

from nicegui import ui

from nodes.blueprint import Blueprint
from nodes.categories import Category
from tests.app.studio.conftest import Open, Opening


def shown(open_: Open, field: str) -> bool:
    """Whether a field of the form is there to be filled in."""
    elements = open_.user.client.elements.values()  # type: ignore[union-attr]
    return next(element for element in elements if f"field-{field}" in element._markers).visible


async def on_error(studio: Opening) -> Open:
    """The tab of a selected step where failures are set up."""
    open_ = await studio()
    open_.select("set")
    open_.fill_tabs("errors")
    return open_


async def test_what_belongs_to_trying_again_shows_only_when_it_is_tried_again(studio: Opening):
    open_ = await on_error(studio)
    for field in ("retry_on", "first_delay", "max_delay"):
        assert not shown(open_, field)
    open_.fill("input-retries", 2)
    for field in ("retry_on", "first_delay", "max_delay"):
        assert shown(open_, field)


async def test_kinds_of_failures_are_chosen_by_their_plain_words(studio: Opening):
    open_ = await on_error(studio)
    open_.fill("input-retries", 2)
    await open_.sees("Other side")
    for category in (Category.REMOTE, Category.TIMEOUT):
        open_.click(f"choose-retry_on-{category}")
    assert open_.node("set").policy.retry_on == [Category.TIMEOUT, Category.REMOTE]
    open_.click("choose-retry_on-timeout")
    assert open_.node("set").policy.retry_on == [Category.REMOTE]


async def test_a_step_can_go_on_with_a_value(studio: Opening):
    open_ = await on_error(studio)
    assert not shown(open_, "on_error_value")
    open_.fill("input-on_error", "continue")
    assert shown(open_, "on_error_value")
    open_.fill("input-on_error_value", '{"total": 0')
    assert open_.node("set").policy.on_error_value is None
    open_.fill("input-on_error_value", '{"total": 0}')
    assert open_.node("set").policy.on_error_value == {"total": 0}
    chosen = next(iter(open_.user.find(marker="input-on_error", kind=ui.select).elements))
    assert chosen.options["continue"] == "Go on with a value"


async def test_an_agent_names_who_is_told_of_failures(studio: Opening):
    open_ = await studio()
    teller = await open_.house.factory.blueprints.create(open_.who, Blueprint(name="Teller"))
    open_.click("details")
    await open_.sees("If a run fails, start this agent")
    open_.fill("failure-agent", teller.id)
    open_.click("keep-settings")
    assert (await open_.until(lambda: open_.session.blueprint.on_failure)) == teller.id
