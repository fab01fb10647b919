"""Pages about environments: variables and secrets by environment, and the card and panel of an agent in test and live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nicegui.testing import User

from app.studio.known import known_at
from app.team.variables import read_value, show_value
from nodes.blueprint import Blueprint
from runtime.policy import Actor, Role
from tests.app.conftest import House
from tests.app.pages.conftest import sees

Maker = Callable[[Role], Awaitable[User]]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("sales@example.com", "sales@example.com"),
        ("12.5", 12.5),
        ("true", True),
        ('["a", 1]', ["a", 1]),
        ('"12"', "12"),
        ("", ""),
        ("{not json", "{not json"),
    ],
)
def test_what_is_typed_is_what_is_kept_and_shown_again(typed: str, value: Any) -> None:
    assert read_value(typed) == value
    assert read_value(show_value(value)) == value


async def test_variables_are_added_for_an_environment_and_forgotten(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/variables")
    await admin.should_see("No variables yet")
    admin.find(marker="add-variable").click()
    admin.find(marker="variable-name").type("sender")
    admin.find(marker="variable-value").type("12")
    admin.find(marker="variable-save").click()
    await sees(admin, "set by Ada Lovelace")
    [kept] = await house.factory.variables.list(ada)
    assert (kept.name, kept.environment, kept.value) == ("sender", "", 12)
    admin.find(marker="delete-sender").click()
    await sees(admin, "Delete “sender”?")
    admin.find(marker="yes").click()
    await sees(admin, "No variables yet")


async def test_a_bad_name_is_said_at_the_field(admin: User) -> None:
    await admin.open("/settings/variables")
    admin.find(marker="add-variable").click()
    admin.find(marker="variable-name").type("my sender")
    admin.find(marker="variable-save").click()
    await sees(admin, "cannot be the name of a variable")


async def test_a_viewer_looks_at_variables_and_changes_none(house: House, person: Maker, ada: Actor) -> None:
    viewer = await person(Role.VIEWER)
    await house.factory.variables.put(ada, "sender", "team@example.com", environment="test")
    await viewer.open("/settings/variables")
    await viewer.should_see("team@example.com")
    await viewer.should_see("Test")
    await viewer.should_not_see("Add a variable")
    await viewer.should_not_see("Change")


async def test_a_secret_says_where_it_counts(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/secrets")
    admin.find(marker="add-secret").click()
    admin.find(marker="secret-name").type("shop")
    admin.find(marker="secret-value").type("s3cret")
    admin.find(marker="secret-save").click()
    await sees(admin, "set by Ada Lovelace")
    await admin.should_see("Live and test")
    assert [one.environment for one in await house.factory.vault.names(ada)] == [""]
    assert await house.factory.vault.reveal(ada.tenant, "shop", "test") == "s3cret"


async def test_home_shows_live_and_test_and_the_panel_of_both(house: House, admin: User, ada: Actor) -> None:
    document = {
        "name": "Both",
        "nodes": [{"id": "in", "type": "trigger.webhook", "settings": {"path": "both"}, "x": 0, "y": 0}],
    }
    draft = await house.factory.blueprints.create(ada, Blueprint.parse(document))
    live = await house.factory.deployments.deploy(ada, draft.id)
    await house.factory.deployments.deploy(ada, draft.id, environment="test")
    await admin.open("/")
    await admin.should_see("In test")
    admin.find(marker=f"doing-{draft.id}").click()
    await sees(admin, "runs in the last hour")
    await admin.should_see(marker="panel-live")
    await admin.should_see(marker="panel-test")
    await house.factory.deployments.pause(ada, live.id, hold=True)
    await sees(admin, "Calls are kept and run when it goes on.")
    admin.find(marker="panel-resume").click()
    async with asyncio.timeout(10):
        while (await house.factory.deployments.get(ada, live.id)).state != "active":
            await asyncio.sleep(0.01)


async def test_the_picker_offers_the_variables_of_the_environment(house: House, admin: User) -> None:
    document = {
        "name": "Formulas",
        "nodes": [
            {"id": "go", "type": "trigger.manual"},
            {"id": "is", "type": "validation.decide", "settings": {"condition": "vars.sender == 1"}},
        ],
        "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "is", "target_port": "value"}],
        "variables": [{"name": "own", "value": 1}, {"name": "sender", "value": "nobody"}],
    }
    known = known_at(Blueprint.parse(document), house.factory.catalog, "is", variables={"sender": "the team"})
    assert known.sample["vars"] == {"own": 1, "sender": "the team"}
    assert set(known.shape.fields["vars"].fields) == {"own", "sender"}
