"""The fleet: workers as tiles that follow their lives, one looked at closely, what an admin does to it, and what others see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nicegui import ui
from nicegui.testing import User
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import exposition
from nodes.errors import Denied
from runtime.policy import Actor, Role
from runtime.workers.backend import Job, Profile
from runtime.workers.hosts import Hosts
from storage import worker_move
from tests.app.conftest import House, running
from tests.app.pages.conftest import eventually, sees
from tests.runtime.workers.test_host_states import MIB, Engine, opened

Maker = Callable[[Role], Awaitable[User]]


async def work(house: House, tenant: str, code: str = "return 1") -> str:
    """Let a worker do something; the id of the worker that is the team's afterwards."""
    result = await house.factory.fleet.run(Job(id=f"job_{len(code)}", code=code), tenant=tenant)
    assert result.ok, result.error
    return await eventually(
        lambda: next((one.id for one in house.factory.fleet.view().workers if one.tenant == tenant), "")
    )


def tiles(user: User) -> list[str]:
    """The workers that the page shows."""
    marks = [mark for element in user.find(kind=ui.element).elements for mark in element._markers]
    return [mark.removeprefix("worker-") for mark in marks if mark.startswith("worker-worker_")]


async def test_before_anything_needed_a_worker_the_page_says_what_they_are(tmp_path: Path) -> None:
    async with running(tmp_path / "home", pool_size=0) as house:
        browser = house.browser()
        await house.set_up(browser)
        admin = User(browser)
        await admin.open("/fleet")
        await admin.should_see("No workers yet")


async def test_a_worker_is_a_tile_from_its_first_job_to_its_end(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/fleet")
    worker = await work(house, ada.tenant)
    await eventually(lambda: worker in tiles(admin))
    await sees(admin, "1 job so far")
    await house.factory.fleet_desk.remove(ada, worker)
    await eventually(lambda: worker not in tiles(admin))
    moves = await house.factory.fleet_desk.lately(ada, worker=worker)
    assert [(move.by, move.why) for move in moves if move.by] == [("Ada Lovelace", "asked to remove it")]
    assert [move.after for move in moves if not move.by][:1] == ["gone"]
    assert (moves[-1].before, moves[-1].after) == ("", "provisioning")


async def test_one_worker_is_looked_at_closely_and_restarted(house: House, admin: User, ada: Actor) -> None:
    worker = await work(house, ada.tenant)
    await admin.open("/fleet")
    await eventually(lambda: worker in tiles(admin))
    admin.find(marker=f"worker-{worker}").click()
    await sees(admin, "went well")
    admin.find(marker="do-restart").click()
    await sees(admin, "Restart this worker?")
    admin.find(marker="yes").click()
    await eventually(lambda: worker not in tiles(admin))


async def test_who_may_only_look_is_offered_nothing_and_refused(
    house: House, admin: User, person: Maker, ada: Actor
) -> None:
    worker = await work(house, ada.tenant)
    viewer = await person(Role.VIEWER)
    await viewer.open("/fleet")
    await eventually(lambda: worker in tiles(viewer))
    viewer.find(marker=f"worker-{worker}").click()
    await sees(viewer, "went well")
    await viewer.should_not_see(marker="do-restart")
    answer = await viewer.http_client.post(
        f"/api/v1/fleet/workers/{worker}/restart", headers={"X-CSRF-Token": await csrf(viewer)}
    )
    assert answer.status_code == 403


async def csrf(user: User) -> str:
    """The word that a change over HTTP needs."""
    word: str = (await user.http_client.get("/api/v1/auth/me")).json()["csrf"]
    return word


async def test_workers_of_another_team_are_counted_and_not_shown(house: House, admin: User, ada: Actor) -> None:
    other = await work(house, "somebody-else")
    seen = house.factory.fleet_desk.view(ada)
    assert other not in {one.id for one in seen.workers} and sum(pool.jobs for pool in seen.pools) == 1
    answers = [
        await admin.http_client.get(f"/api/v1/fleet/workers/{other}/logs"),
        await admin.http_client.delete(f"/api/v1/fleet/workers/{other}", headers={"X-CSRF-Token": await csrf(admin)}),
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    listed = (await admin.http_client.get("/api/v1/fleet/moves")).json()["items"]
    own = {move["worker"] for move in listed if move["after"] in ("busy", "draining")}
    assert other not in own


async def test_prometheus_reads_levels_moves_and_engines_with_a_session_and_not_without(
    house: House, admin: User, ada: Actor
) -> None:
    await work(house, ada.tenant)
    stranger = await house.browser().get("/metrics", headers={"Accept": "text/plain"})
    assert stranger.status_code in (303, 401)
    answer = await admin.http_client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families: dict[str, Any] = {family.name: family for family in text_string_to_metric_families(answer.text)}
    jobs = {sample.labels["profile"]: sample.value for sample in families["factory_pool_jobs"].samples}
    assert jobs == {"small": 1.0}
    came = {sample.labels["state"]: sample.value for sample in families["factory_worker_moves"].samples}
    assert came["provisioning"] >= came["warming"] >= 1 and came["busy"] >= 1
    assert "Ada" not in answer.text and ada.tenant not in answer.text


async def test_prometheus_reads_sums_over_all_teams_and_of_crews(house: House, ada: Actor) -> None:
    given = {"id": "press", "members": [{"role": "a", "code": "crew.publish('news', 1)"}]}
    crew = await house.factory.crews.assemble(ada, given)
    async for view in house.factory.crews.follow(ada, crew.id):
        last = view
    assert last.state == "finished", last
    other = await work(house, "somebody-else")
    assert other not in {one.id for one in house.factory.fleet_desk.view(ada).workers}
    found, there = figures(house, ada), house.factory.fleet.view().workers  # nothing happens between the two
    assert sum(found["factory_workers"].values()) == len(there)
    await house.factory.fleet.restart(other)
    await eventually(lambda: any(one.restarts for one in house.factory.fleet.view().pools))
    found = figures(house, ada)
    assert found["factory_pool_restarts_total"] == {("small",): 1.0}
    assert found["factory_crews_ended_total"] == {("finished",): 1.0}
    assert found["factory_crew_messages_total"] == {(): 1.0}


def figures(house: House, who: Actor) -> dict[str, dict[tuple[str, ...], float]]:
    """What Prometheus reads: for each name the values by their labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exposition(house.factory, who)[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_levels_are_kept_for_half_an_hour_and_told_oldest_first(house: House, ada: Actor) -> None:
    await work(house, ada.tenant)
    desk = house.factory.fleet_desk
    before = len(desk.history(ada))
    await eventually(lambda: len(desk.history(ada)) > before + 1)
    told = [sample.at for sample in desk.history(ada)]
    assert told == sorted(told)


# --- engines ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def engines(house: House) -> AsyncIterator[Hosts]:
    """Two engines that only keep lists, in the place of those of this machine."""
    urls = {"e0": "unix:///run/one.sock", "e1": "unix:///run/two.sock"}
    async with opened(Engine(cpus=4, memory=8_192 * MIB), Engine(), urls=urls) as hosts:
        fleet = house.factory.fleet
        before, fleet._place = fleet._place, (hosts, Path("/nowhere"))
        await hosts.start("box_1", Path("/nowhere"), Profile())
        yield hosts
        fleet._place = before


async def test_an_engine_is_drained_and_taken_back_into_use(
    house: House, admin: User, ada: Actor, engines: Hosts
) -> None:
    await admin.open("/fleet")
    for words in ("unix:///run/one.sock", "unix:///run/two.sock", "1 worker", "0 workers"):
        await sees(admin, words)
    [name] = [host.name for host in engines.view() if host.workers]
    drains = [element for element in admin.find(marker="drain-engine").elements if _inside(element, f"engine-{name}")]
    drains[0].mark("this-one")
    admin.find(marker="this-one").click()
    await sees(admin, f"Nothing new is placed on {name}; 1 worker there ends when its job has ended.")
    assert {host.state for host in engines.view()} == {"up"}, "nothing is done before somebody says yes"
    admin.find(marker="yes").click()
    await sees(admin, "Being drained")
    await sees(admin, f"Ada Lovelace asked to drain the engine {name}")
    admin.find(marker="reopen").click()
    await sees(admin, f"Take {name} back into use?")
    admin.find(marker="yes").click()
    await eventually(lambda: {host.state for host in engines.view()} == {"up"})
    told = [move for move in await house.factory.fleet_desk.lately(ada) if move.host == name and not move.worker]
    assert [(move.by, move.before, move.after) for move in told] == [
        ("Ada Lovelace", "draining", "up"), ("Ada Lovelace", "up", "draining"),
    ]  # fmt: skip


def _inside(element: ui.element, marker: str) -> bool:
    while (slot := element.parent_slot) is not None:
        element = slot.parent
        if marker in element._markers:
            return True
    return False


async def test_what_more_engines_would_do_is_said_and_not_done(admin: User, engines: Hosts) -> None:
    await admin.open("/fleet")
    await sees(admin, "What would change if this many engines served?")
    admin.find(marker="engines-wanted").clear().type("3")
    await sees(admin, "1 engine would be added, each like e0: 4 processors, 8,192 MiB.")
    await sees(admin, "This is only a plan: nothing is done.")
    assert len(engines.view()) == 2


async def test_engines_are_the_business_of_the_team_that_runs_the_installation(
    house: House, admin: User, person: Maker, engines: Hosts
) -> None:
    viewer = await person(Role.VIEWER)
    await viewer.open("/fleet")
    await sees(viewer, "0 workers")
    await viewer.should_not_see(marker="drain-engine")
    await viewer.should_not_see("unix:///run/one.sock")
    word = {"X-CSRF-Token": await csrf(viewer)}
    assert (await viewer.http_client.post("/api/v1/fleet/hosts/e0/drain", headers=word)).status_code == 403
    other = Actor("another", "usr_9", "Eve", Role.ADMIN)
    desk = house.factory.fleet_desk
    for doing in (desk.drain_engine(other, "e0"), desk.plan_engines(other, 3), desk.plan_drain_engine(other, "e0")):
        with pytest.raises(Denied, match="team that runs this installation"):
            await doing
    word = {"X-CSRF-Token": await csrf(admin)}
    base = "/api/v1/fleet/hosts"
    assert (await admin.http_client.get(f"{base}/plan", params={"count": 2})).json()["items"] == [
        "There are 2 engines already, so nothing would change."
    ]
    assert (await admin.http_client.get(f"{base}/e0/plan")).json()["items"][0].startswith("Nothing new is placed on e0")
    assert (await admin.http_client.post(f"{base}/e0/drain", headers=word)).status_code == 204
    assert (await admin.http_client.post(f"{base}/e1/drain", headers=word)).status_code == 409
    assert (await admin.http_client.post(f"{base}/e0/reopen", headers=word)).status_code == 204
    assert (await admin.http_client.post(f"{base}/none/reopen", headers=word)).status_code == 404


async def test_open_pages_do_not_ask_the_database_again_and_again(
    house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, asked = house.factory.fleet_desk, 0
    newest = worker_move.newest

    def counted(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        return newest(*given)

    worker = await work(house, ada.tenant)
    monkeypatch.setattr(worker_move, "newest", counted)
    await desk.stop()  # nothing more is kept meanwhile
    before = await desk.lately(ada)
    for _ in range(5):
        assert await desk.lately(ada) == before
    assert asked == 1
    await desk.remove(ada, worker)
    assert (await desk.lately(ada, worker=worker))[0].worker == worker, "what is not kept yet is there too"
