"""Runs: the list with its filters, and one run with its timeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nicegui import ui
from nicegui.testing import User

from app.assets import asset_path
from nodes.blueprint import Blueprint
from runtime.policy import Actor, Role
from runtime.workers.backend import Job, JobResult
from tests.app.conftest import House
from tests.app.pages.conftest import drawn, eventually, greeting, refund, sees, sevens

Maker = Callable[[Role], Awaitable[User]]


def rows(user: User) -> int:
    """How many runs the list shows."""
    found = user.find(marker="runs").elements.pop()
    return sum(isinstance(one, ui.link) for one in found.descendants())


async def test_an_empty_list_says_what_will_stand_here(admin: User) -> None:
    await admin.open("/runs")
    await admin.should_see("Nothing has run yet")


async def test_the_list_shows_runs_and_filters_them(house: House, admin: User, ada: Actor) -> None:
    factory = house.factory
    greeter = await factory.blueprints.create(ada, greeting())
    failing = await factory.blueprints.create(ada, greeting("Fails"))
    await factory.runs.wait(ada, await factory.runs.start(ada, greeter.id, {"name": "Bo"}), 10)
    await factory.runs.wait(ada, await factory.runs.start(ada, failing.id, {"nobody": 1}), 10)
    await admin.open("/runs")
    assert rows(admin) == 2
    await admin.should_see("Somebody")
    await admin.open("/runs?state=failed")
    assert rows(admin) == 1
    await admin.should_see("Fails")
    await admin.open(f"/runs?agent={greeter.id}")
    assert rows(admin) == 1
    await admin.open("/runs?text=gree")
    assert rows(admin) == 1
    await admin.open("/runs?text=nothing-like-this")
    await admin.should_see("Nothing fits")


async def test_older_runs_come_a_page_at_a_time_and_none_twice(house: House, admin: User, ada: Actor) -> None:
    factory = house.factory
    greeter = await factory.blueprints.create(ada, greeting())
    for _ in range(60):
        last = await factory.runs.start(ada, greeter.id, {"name": "Bo"})
    await factory.runs.wait(ada, last, 10)
    await admin.open("/runs")
    assert rows(admin) == 50
    admin.find(marker="older").click()
    await eventually(lambda: rows(admin) == 60)
    await admin.should_not_see("Older")
    shown = {one.props["href"] for one in admin.find(ui.link).elements if "/runs/run_" in one.props.get("href", "")}
    assert len(shown) == 60


async def test_the_list_grows_while_it_is_open(house: House, admin: User, ada: Actor) -> None:
    greeter = await house.factory.blueprints.create(ada, greeting())
    await admin.open("/runs")
    await house.factory.runs.start(ada, greeter.id, {"name": "Bo"})
    await sees(admin, "Greeter")
    await sees(admin, "Succeeded")


async def test_a_run_shows_every_step_with_what_came_in_and_went_out(house: House, admin: User, ada: Actor) -> None:
    greeter = await house.factory.blueprints.create(ada, greeting())
    run_id = await house.factory.runs.start(ada, greeter.id, {"name": "Bo"})
    await admin.open(f"/runs/{run_id}")
    await admin.should_see(marker="turn-t", retries=80)
    admin.find(marker="turn-t").click()
    await sees(admin, "Hello Bo!")
    await admin.should_see("May repeat after a crash. That is safe: it only reads and computes.")


async def test_a_failed_run_says_why_in_words_with_a_fix(house: House, admin: User, ada: Actor) -> None:
    failing = await house.factory.blueprints.create(ada, greeting("Fails"))
    run_id = await house.factory.runs.start(ada, failing.id, {"nobody": 1})
    await house.factory.runs.wait(ada, run_id, 10)
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "Unknown name “name”.")
    await admin.should_see("Show the step")
    await admin.should_see("Run again")


async def test_what_code_prints_is_seen_before_its_step_ends(
    house: House, admin: User, ada: Actor, say: asyncio.Queue[str]
) -> None:
    nodes = [("m", "trigger.manual", "Start", {}), ("c", "action.run_code", "Count", {"code": "x"})]
    draft = await house.factory.blueprints.create(ada, drawn("Counter", nodes, [("m", "value", "c", "value")]))
    run_id = await house.factory.runs.start(ada, draft.id, 1)
    say.put_nowait("one\n")
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "one")
    admin.find(marker="turn-c").click()
    await sees(admin, "What the code prints")
    say.put_nowait("two\n")
    await sees(admin, "one\ntwo\n")
    await admin.should_not_see("What the code printed")
    say.put_nowait("end")
    await sees(admin, "What the code printed")
    await admin.should_see("all of it")
    await admin.should_not_see("What the code prints")


async def test_files_that_code_left_can_be_had_from_its_step(
    house: House, admin: User, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave_a_file(job: Job, **_: Any) -> JobResult:
        return JobResult(ok=True, value=7, files={"sum.csv": house.factory.store.put(ada.tenant, b"tea,3\n")})

    monkeypatch.setattr(house.factory.fleet, "run", leave_a_file)
    nodes = [("m", "trigger.manual", "Start", {}), ("c", "action.run_code", "Sum", {"keeps": ["sum.csv"]})]
    draft = await house.factory.blueprints.create(ada, drawn("Sums", nodes, [("m", "value", "c", "value")]))
    run_id = await house.factory.runs.start(ada, draft.id, 1)
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "Succeeded")
    admin.find(marker="turn-c").click()
    await sees(admin, "Files that were kept")
    await admin.should_see("sum.csv")
    admin.find("Download").click()
    assert (await admin.download.next()).content == b"tea,3\n"


async def test_a_waiting_run_asks_its_question_and_goes_on_once_decided(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, refund())
    run_id = await house.factory.runs.start(ada, draft.id, {"name": "Bo", "total": 80})
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "Refund 80 € to Bo?")
    admin.find("Decline").click()
    await sees(admin, "Say no")
    await sees(admin, "Not needed this time: “Say yes”.")
    assert (await house.factory.runs.wait(ada, run_id, 10)).info.state == "succeeded"


async def test_a_waiting_run_can_be_cancelled_after_a_question(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, refund())
    run_id = await house.factory.runs.start(ada, draft.id, {"name": "Bo", "total": 80})
    await house.factory.runs.wait(ada, run_id, 10)
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "Cancel")
    admin.find(marker="cancel").click()
    await sees(admin, "Cancel this run?")
    admin.find("Cancel it").click()
    await sees(admin, "Cancelled")


async def test_a_loop_is_folded_into_its_items(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, sevens())
    run_id = await house.factory.runs.start(ada, draft.id, list(range(1, 101)))
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "100 items: 14 failed, 86 succeeded")
    await admin.should_not_see("Item 1")
    admin.find(marker="items-l").click()
    await sees(admin, "Item 1")
    await admin.should_see("Item 25")
    await admin.should_not_see("Item 26")
    admin.find("Show only the 14 items that failed or go on").click()
    await sees(admin, "Item 98")
    admin.find(marker="item-98").click()
    await sees(admin, "98 can be divided by seven.")


async def test_what_an_agent_did_is_told_turn_by_turn(house: House, admin: User, ada: Actor) -> None:
    document = Blueprint.parse((asset_path("templates") / "help-desk.json").read_bytes())
    run_id = await house.factory.sandbox.start(ada, document, {"text": "Help", "conversation": "c"})
    assert (await house.factory.runs.wait(ada, run_id, 20)).info.state == "succeeded"
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "2 tool uses: 2 succeeded")
    admin.find(marker="items-agent").click()
    await sees(admin, "Turn 1: Look up an order")
    await admin.should_see("Turn 1: Ask for a refund")
    admin.find(marker="item-2").click()
    await sees(admin, "Tell the accountant")
    admin.find(marker="turn-agent").click()
    await sees(admin, "Turn 2: answers")


async def test_a_viewer_sees_a_run_but_cannot_repeat_it(house: House, person: Maker, ada: Actor) -> None:
    greeter = await house.factory.blueprints.create(ada, greeting())
    run_id = await house.factory.runs.start(ada, greeter.id, {"name": "Bo"})
    await house.factory.runs.wait(ada, run_id, 10)
    viewer = await person(Role.VIEWER)
    await viewer.open(f"/runs/{run_id}")
    await sees(viewer, "Succeeded")
    await viewer.should_not_see("Run again")


async def test_a_run_that_is_not_there_is_a_page_that_says_so(house: House, admin: User) -> None:
    answer = await admin.http_client.get("/runs/run_nothing")
    assert answer.status_code == 404
    assert "There is no such run." in answer.text


async def test_a_run_of_thousands_of_steps_draws_few_of_them(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, sevens())
    run_id = await house.factory.runs.start(ada, draft.id, list(range(1, 1_001)))
    await house.factory.runs.wait(ada, run_id, 60)
    await admin.open(f"/runs/{run_id}")
    await sees(admin, "1,000 items: 142 failed, 858 succeeded", seconds=30)
    admin.find(marker="items-l").click()
    await sees(admin, "Item 25")
    assert len(admin.client.elements) < 1_200


async def test_a_run_is_forked_from_a_step_after_showing_what_will_run(house: House, admin: User, ada: Actor) -> None:
    factory = house.factory
    agent = await factory.blueprints.create(ada, greeting())
    run = await factory.runs.start(ada, agent.id, {"name": "Bo"})
    view = await factory.runs.wait(ada, run, 10)
    last = view.steps[-1].node
    await admin.open(f"/runs/{run}")
    await admin.should_see(marker=f"turn-{last}", retries=80)
    admin.find(marker=f"turn-{last}").click()
    await sees(admin, "Fork from this step")
    admin.find(marker=f"fork-{last}").click()
    await sees(admin, "Uses its result of this run")
    admin.find(marker="fork-yes").click()
    await sees(admin, "goes on from an earlier run")
    newest = (await factory.runs.list(ada, limit=1))[0]
    assert newest.id != run
    again = await factory.runs.get(ada, newest.id)
    assert (again.output, again.fork["run"] if again.fork else "") == (view.output, run)


async def test_a_failed_run_can_be_debugged(house: House, admin: User, ada: Actor) -> None:
    factory = house.factory
    agent = await factory.blueprints.create(ada, greeting())
    run = await factory.runs.start(ada, agent.id, {"nobody": 1})
    await factory.runs.wait(ada, run, 10)
    await admin.open(f"/runs/{run}")
    await sees(admin, "Debug in the Studio")
    admin.find(marker="retry-failed").click()
    await sees(admin, "A new run from what failed")
