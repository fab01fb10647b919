"""Home: what a person sees of agents, and what can be done to one without opening it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui.testing import User

from runtime.policy import Actor, Role
from tests.app.conftest import House
from tests.app.pages.conftest import drawn, eventually, greeting, refund, sees

Maker = Callable[[Role], Awaitable[User]]


async def test_an_empty_home_teaches_and_offers_to_draw(admin: User) -> None:
    await admin.open("/")
    await admin.should_see("Draw your first agent")
    await admin.should_see("Draw")
    await admin.should_see("Start from a template")


async def test_a_viewer_of_an_empty_home_is_not_offered_to_draw(person: Maker) -> None:
    viewer = await person(Role.VIEWER)
    await viewer.open("/")
    await viewer.should_see("No agents yet")
    await viewer.should_not_see("Draw your first agent")


async def test_an_agent_is_a_card_with_its_state_its_triggers_and_its_last_run(
    house: House, admin: User, ada: Actor
) -> None:
    draft = await house.factory.blueprints.create(ada, greeting())
    run_id = await house.factory.runs.start(ada, draft.id, {"name": "Bo"})
    await house.factory.runs.wait(ada, run_id, 10)
    await admin.open("/")
    for words in ("Greeter", "Says hello.", "Draft", "Somebody", "Succeeded", "edited"):
        await admin.should_see(words)


async def test_a_deployed_agent_says_which_version_is_live(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, greeting())
    await house.factory.deployments.deploy(ada, draft.id)
    await admin.open("/")
    await admin.should_see("Live")
    await admin.should_see("version 1")


async def test_search_leaves_the_agents_that_have_all_the_words(house: House, admin: User, ada: Actor) -> None:
    await house.factory.blueprints.create(ada, greeting())
    await house.factory.blueprints.create(ada, refund())
    await admin.open("/")
    await admin.should_see("Greeter")
    admin.find(marker="find-agent").type("refu")
    await admin.should_not_see("Greeter")
    await admin.should_see("Refunds")


async def test_deleting_puts_an_agent_in_the_bin_and_undo_takes_it_out(house: House, admin: User, ada: Actor) -> None:
    await house.factory.blueprints.create(ada, greeting("Keep me"))
    draft = await house.factory.blueprints.create(ada, greeting("Delete me"))
    await admin.open("/")
    admin.find(marker=f"delete-{draft.id}").click()
    await admin.should_see("“Delete me” is in the bin.")
    assert [one.name for one in await house.factory.blueprints.list(ada)] == ["Keep me"]
    admin.find("Undo").click()
    await sees(admin, "Delete me")
    assert len(await house.factory.blueprints.list(ada)) == 2


async def test_what_is_deployed_is_not_deleted_and_the_notice_says_what_to_do(
    house: House, admin: User, ada: Actor
) -> None:
    draft = await house.factory.blueprints.create(ada, greeting())
    await house.factory.deployments.deploy(ada, draft.id)
    await admin.open("/")
    admin.find(marker=f"delete-{draft.id}").click()
    said = await eventually(lambda: [text for text in admin.notify.messages if "deployed" in text])
    assert "Stop its deployment first" in said[0]


async def test_a_duplicate_has_an_address_of_its_own(house: House, admin: User, ada: Actor) -> None:
    original = drawn("Hook", [("w", "trigger.webhook", "Call", {"path": "orders"})])
    draft = await house.factory.blueprints.create(ada, original)
    await admin.open("/")
    admin.find(marker=f"copy-{draft.id}").click()
    await sees(admin, "Hook (copy)")
    copy = next(one for one in await house.factory.blueprints.list(ada) if one.name == "Hook (copy)")
    made = (await house.factory.blueprints.get(ada, copy.id)).blueprint
    assert made.nodes[0].settings["path"] != "orders"


async def test_a_question_is_decided_in_place(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, refund())
    run_id = await house.factory.runs.start(ada, draft.id, {"name": "Bo", "total": 80})
    await house.factory.runs.wait(ada, run_id, 10)
    await admin.open("/")
    await sees(admin, "Refund 80 € to Bo?")
    admin.find("Refund it").click()
    await sees(admin, "Nothing. When an agent asks for a decision, it stands here.")
    assert await house.factory.approvals.count(ada) == 0


async def test_home_shows_a_run_that_starts_while_it_is_open(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, greeting())
    await admin.open("/")
    await admin.should_see("Nothing ran in the last 24 hours.")
    await house.factory.runs.start(ada, draft.id, {"name": "Bo"})
    await sees(admin, "1 run in the last 24 hours")


async def test_home_shows_an_agent_that_somebody_else_makes_or_bins(house: House, admin: User, ada: Actor) -> None:
    await house.factory.blueprints.create(ada, greeting())
    await admin.open("/")
    made = await house.factory.blueprints.create(ada, greeting(), name="Tidy the inbox")
    await sees(admin, "Tidy the inbox")
    await house.factory.blueprints.delete(ada, made.id)
    await admin.should_not_see("Tidy the inbox", retries=80)


async def test_an_import_that_is_no_agent_says_why(admin: User) -> None:
    await admin.open("/")
    admin.find("Import one").click()
    await admin.should_see("Import an agent")
    admin.find(marker="import-text").type("{")
    admin.find(marker="import").click()
    await sees(admin, "This is not valid JSON")
