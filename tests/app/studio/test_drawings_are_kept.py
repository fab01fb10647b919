"""What was drawn a moment before the application stops is there after its next start."""

from pathlib import Path

from nicegui.testing import User

from nodes.blueprint import Blueprint
from runtime.policy import Actor, Role
from tests.app.conftest import running
from tests.app.studio.conftest import ORDERS, Open


async def test_the_last_gesture_before_a_stop_is_kept(tmp_path: Path):
    home = tmp_path / "home"
    async with running(home) as house:
        browser = house.browser()
        await house.set_up(browser)
        who = Actor(await house.auth.first_tenant(), "test", "Ada", Role.ADMIN)
        draft = await house.factory.blueprints.create(who, Blueprint.parse(ORDERS))
        user = User(browser)
        await user.open(f"/studio/{draft.id}")
        open_ = Open(user, house, who, draft.id)
        open_.select("hook")
        open_.fill("input-path", "the-last-word")
    async with running(home) as house:
        kept = await house.factory.blueprints.get(who, draft.id)
    node = kept.blueprint.node("hook")
    assert node is not None
    assert node.settings["path"] == "the-last-word"
