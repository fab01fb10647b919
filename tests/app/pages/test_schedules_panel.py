"""The schedules of a deployment on the page: what comes next, what came and how late, and holding one."""

from __future__ import annotations

from nicegui import ui
from nicegui.testing import User

from app.schedules import show_schedules
from nodes.blueprint import Blueprint
from runtime.policy import Actor
from storage import schedule
from tests.app.conftest import House
from tests.app.pages.conftest import sees


async def test_what_comes_what_came_and_holding_one(house: House, admin: User, ada: Actor) -> None:
    hourly = {"mode": "every", "every": 1, "unit": "hours"}
    draft = await house.factory.blueprints.create(
        ada,
        Blueprint(name="Hourly", nodes=[{"id": "at", "type": "trigger.schedule", "settings": hourly}]),  # type: ignore[list-item]
    )
    live = await house.factory.deployments.deploy(ada, draft.id)
    [row] = await house.factory.db.read(ada.tenant, schedule.listed)
    due = row.next_due
    assert due is not None
    house.factory.clock._now = lambda: due + 125
    await house.factory.schedules.fire_due()
    await admin.open("/settings/profile")
    assert admin.client is not None
    with admin.client:
        ui.timer(0.01, lambda: show_schedules(live.id, "When it starts"), once=True)
    await sees(admin, "Every hour")
    await admin.should_see("The next ten times")
    await admin.should_see("Started")
    await sees(admin, "late")
    admin.find(marker="hold-at").click()
    await sees(admin, "Somebody stopped this schedule.")
    [held] = await house.factory.schedules.list(ada)
    assert held.held
    admin.find(marker="hold-at").click()
    await sees(admin, "Stop this one")
    assert not (await house.factory.schedules.list(ada))[0].held
