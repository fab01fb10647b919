"""Needs attention: failed runs are read in words, tried again on other data, dismissed and opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui.testing import User

from nodes.blueprint import Blueprint
from runtime.policy import Actor, Role
from tests.app.conftest import House
from tests.app.pages.conftest import drawn, eventually, sees

Maker = Callable[[Role], Awaitable[User]]


def halves(name: str = "Halves") -> Blueprint:
    """Fails on what is no number."""
    fields = [{"name": "half", "formula": "total / 2"}]
    return drawn(
        name,
        [("m", "trigger.manual", "Somebody", {}), ("h", "action.transform", "Halve", {"fields": fields})],
        [("m", "value", "h", "value")],
    )


async def failed(house: House, who: Actor, number: int = 1, name: str = "Halves", given: Any = None) -> list[str]:
    """Runs that failed."""
    draft = await house.factory.blueprints.create(who, halves(name))
    runs = []
    for _ in range(number):
        runs.append(await house.factory.runs.start(who, draft.id, given or {"total": "x", "note": "urgent"}))
        view = await house.factory.runs.wait(who, runs[-1], 10)
        assert view.info.state == "failed"
    return runs


def typed(user: User, marker: str, text: str) -> None:
    user.find(marker=marker).clear().type(text)


async def test_where_nothing_failed_the_page_says_what_would_be_here(admin: User) -> None:
    await admin.open("/attention")
    await admin.should_see("Nothing needs attention")


async def test_a_failure_is_listed_with_its_kind_and_appears_while_the_page_is_open(
    house: House, admin: User, ada: Actor
) -> None:
    await admin.open("/attention")
    (run_id,) = await failed(house, ada)
    await sees(admin, "Halves")
    letter = await house.factory.dead_letters.get(ada, run_id)
    await sees(admin, letter.info.category.word)
    await admin.should_see(marker="dead-letters-count", content="1")


async def test_its_story_is_read_its_data_corrected_and_it_is_tried_again(
    house: House, admin: User, ada: Actor
) -> None:
    (run_id,) = await failed(house, ada)
    await admin.open(f"/attention/{run_id}")
    await sees(admin, "“Somebody” started a run of the draft.")
    await admin.should_see("From the step that failed, “Halve”")
    await admin.should_see("What “Halve” gets")
    admin.find(marker="kind-total").click()
    admin.find("number").click()
    admin.find(marker="turn-data").click()
    await admin.should_see("Edit as fields")
    typed(admin, "data-json", '{"total": 8')
    admin.find(marker="try-again").click()
    await eventually(lambda: any("What “Halve” gets" in text for text in admin.notify.messages))
    typed(admin, "data-json", '{"total": 8}')
    admin.find(marker="try-again").click()
    (letter,) = await eventually_async(lambda: house.factory.dead_letters.list(ada, state="retried"))
    view = await house.factory.runs.wait(ada, letter.retry_run or "", 10)
    assert (view.info.state, view.output["half"]) == ("succeeded", 4)
    await admin.open(f"/attention/{run_id}")
    await sees(admin, "Tried again by Ada Lovelace.")


async def test_it_is_dismissed_with_a_reason_and_opened_again(house: House, admin: User, ada: Actor) -> None:
    (run_id,) = await failed(house, ada)
    await admin.open(f"/attention/{run_id}")
    admin.find(marker="dismiss").click()
    await sees(admin, "Why does nothing have to be done?")
    admin.find(marker="dismiss-now").click()
    await sees(admin, "Say why in a few words.")
    admin.find(marker="reason").type("A test of ours")
    admin.find(marker="dismiss-now").click()
    await sees(admin, "Dismissed by Ada Lovelace: A test of ours")
    admin.find(marker="open-again").click()
    await sees(admin, "Nothing to do about it?")
    assert await house.factory.dead_letters.count(ada) == 1


async def test_several_are_chosen_and_dealt_with_together(house: House, admin: User, ada: Actor) -> None:
    runs = await failed(house, ada, 3)
    await admin.open("/attention")
    for run_id in runs[:2]:
        admin.find(marker=f"choose-{run_id}").click()
    await sees(admin, "2 runs chosen")
    admin.find(marker="dismiss-chosen").click()
    await sees(admin, "Dismiss 2 runs")
    admin.find(marker="reason").type("Known")
    admin.find(marker="dismiss-now").click()
    await eventually(lambda: any("2 runs dismissed." in text for text in admin.notify.messages))
    admin.find(marker=f"choose-{runs[2]}").click()
    admin.find(marker="retry-chosen").click()
    await sees(admin, "Try this run again")
    admin.find(marker="many-again").click()
    await eventually(lambda: any("1 run was started again." in text for text in admin.notify.messages))


async def test_the_list_is_narrowed_by_kind_and_agent(house: House, admin: User, ada: Actor) -> None:
    (one,), (other,) = await failed(house, ada), await failed(house, ada, name="Others")
    letter = await house.factory.dead_letters.get(ada, one)
    await admin.open(f"/attention?agent={letter.info.run.blueprint_id}")
    await admin.should_see(marker=f"letter-{one}")
    await admin.should_not_see(marker=f"letter-{other}")
    await admin.open("/attention?category=credential")
    await admin.should_see("Nothing fits")
    admin.find(marker=f"category-{letter.info.category}").click()
    await sees(admin, "Others")


async def test_a_viewer_looks_and_can_do_nothing(house: House, person: Maker, ada: Actor) -> None:
    (run_id,) = await failed(house, ada)
    viewer = await person(Role.VIEWER)
    await viewer.open("/attention")
    await sees(viewer, "Halves")
    await viewer.should_not_see(marker=f"choose-{run_id}")
    await viewer.open(f"/attention/{run_id}")
    await sees(viewer, "You can look.")
    await viewer.should_not_see(marker="try-again")


async def test_a_failed_run_leads_to_where_it_is_dealt_with(house: House, admin: User, ada: Actor) -> None:
    (run_id,) = await failed(house, ada)
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "Resolve")
    await house.factory.dead_letters.dismiss(ada, [run_id], "Done.")
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "Halve")
    await admin.should_not_see("Resolve")


async def eventually_async(holds: Callable[[], Awaitable[Any]]) -> Any:
    """What it gives once that is not empty."""
    async with asyncio.timeout(10):
        while not (found := await holds()):
            await asyncio.sleep(0.02)
    return found


async def test_home_says_how_many_need_attention_and_only_then(house: House, admin: User, ada: Actor) -> None:
    await house.factory.blueprints.create(ada, halves("Quiet"))
    await admin.open("/")
    await admin.should_not_see("your attention")
    await failed(house, ada, 2)
    await sees(admin, "2 failed runs need your attention.")
