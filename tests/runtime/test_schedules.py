"""Schedules: what is missed is made up for as they say, one is held alone, and people see what comes and what came."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.errors import Denied, NotFound
from nodes.listen import Schedule
from nodes.moments import missed, moment_in_words, schedule_in_words, upcoming, zone
from runtime.factory import Factory
from runtime.schedules import spread
from storage import event_seen, schedule
from tests.runtime.factories import ADMIN, DEVELOPER, STRANGER, VIEWER, agent, new_factory
from tests.runtime.test_lives import breaks_once
from tests.runtime.test_triggers import at, deploy

HOUR = 3600.0


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path}/f.db") as factory:
        yield factory


@pytest.fixture
async def either(database_url: str) -> AsyncIterator[Factory]:
    async with new_factory(database_url) as factory:
        yield factory


def hourly(**settings: object) -> "object":
    every = {"mode": "every", "every": 1, "unit": "hours", "catch_up": "once"}
    return agent({"at": ("trigger.schedule", every | settings)})


async def row_of(factory: Factory) -> schedule.Schedule:
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    assert row.next_due is not None
    return row


async def due_of(factory: Factory) -> float:
    due = (await row_of(factory)).next_due
    assert due is not None
    return due


# --- what was missed ------------------------------------------------------------------------------------------------------


async def test_of_all_that_was_missed_the_latest_are_made_up_for(either: Factory) -> None:
    await deploy(either, hourly(catch_up="all", catch_up_most=3))
    due = await due_of(either)
    assert await at(either, due + 9 * HOUR + 120) == 3
    runs = [await either.runs.wait(ADMIN, run.id, 10) for run in await either.runs.list(ADMIN)]
    started = sorted(datetime.fromisoformat(view.input["moment"]).timestamp() for view in runs)
    assert started == [due + 7 * HOUR, due + 8 * HOUR, due + 9 * HOUR]
    assert await due_of(either) == due + 10 * HOUR


async def test_after_a_year_nothing_is_counted_one_by_one(factory: Factory) -> None:
    await deploy(factory, agent({"at": ("trigger.schedule", {"mode": "every", "every": 1, "unit": "minutes"})}))
    due = await due_of(factory)
    assert await at(factory, due + 365 * 86_400) == 1
    [info] = await factory.schedules.list(VIEWER)
    assert 1 <= len(info.history) <= 20


@settings(max_examples=20)
@given(
    spec=st.sampled_from(
        [
            Schedule(every=60),
            Schedule(every=3600),
            Schedule(cron="30 2 * * *", time_zone="Europe/Berlin"),
            Schedule(every=86_400, at="02:30", time_zone="America/New_York"),
            Schedule(cron="0 9 * * 1-5", time_zone="Europe/Berlin"),
        ]
    ),
    start=st.integers(1_700_000_000, 1_800_000_000),
    gone=st.floats(0, 40 * 86_400),
    most=st.integers(1, 30),
)
def test_the_latest_missed_moments_are_the_end_of_all_of_them(
    spec: Schedule, start: int, gone: float, most: int
) -> None:
    due = upcoming(spec, datetime.fromtimestamp(start, UTC), 1)[0]
    now = due + timedelta(seconds=min(gone, 3 * 86_400) if spec.every == 60 else gone)
    whole = [due]
    for moment in upcoming(spec, due, 6_000):
        if moment > now:
            break
        whole.append(moment)
    assert missed(spec, due, now, most) == whole[-most:]


async def test_a_schedule_that_finds_no_room_starts_when_there_is_some(factory: Factory) -> None:
    await deploy(factory, hourly())
    due = await due_of(factory)
    factory.engine.set_limits(ADMIN.tenant, concurrent=1, depth=0)
    assert factory.engine.queue.reserve(ADMIN.tenant), "the only place is taken"
    assert await at(factory, due) == 0
    assert factory.schedules.owes
    factory.engine.queue.withdraw(ADMIN.tenant)
    await factory.clock.recover()
    assert len(await factory.runs.list(ADMIN)) == 1 and not factory.schedules.owes


# --- one schedule --------------------------------------------------------------------------------------------------------


async def test_one_schedule_is_held_while_the_other_goes_on(either: Factory) -> None:
    every = {"mode": "every", "every": 1, "unit": "hours", "catch_up": "skip"}
    await deploy(either, agent({"a": ("trigger.schedule", every), "b": ("trigger.schedule", every)}))
    due = (await either.db.read(ADMIN.tenant, schedule.listed))[0].next_due
    assert due is not None
    [held] = [each for each in await either.schedules.list(VIEWER) if each.node == "a"]
    assert (await either.schedules.hold(DEVELOPER, held.id)).held
    assert await at(either, due + 1) == 1
    [run] = await either.runs.list(ADMIN)
    assert run.trigger == "b"
    assert not (await either.schedules.go_on(DEVELOPER, held.id)).held
    assert await at(either, due + HOUR) == 3


async def test_who_may_hold_a_schedule(factory: Factory) -> None:
    await deploy(factory, hourly())
    [info] = await factory.schedules.list(VIEWER)
    with pytest.raises(Denied):
        await factory.schedules.hold(VIEWER, info.id)
    with pytest.raises(NotFound):
        await factory.schedules.hold(STRANGER, info.id)
    assert await factory.schedules.list(STRANGER) == []


async def test_a_spread_schedule_starts_a_little_later_and_always_by_as_much(factory: Factory) -> None:
    await deploy(factory, hourly(jitter=3600, catch_up="skip"))
    row = await row_of(factory)
    late, due = spread(row), row.next_due or 0.0
    assert 0 <= late <= 3600 and spread(await row_of(factory)) == late
    if late:
        assert await at(factory, due + late - 0.5) == 0
    assert await at(factory, due + late) == 1


async def test_people_see_what_comes_and_what_came(factory: Factory) -> None:
    await deploy(factory, hourly())
    due = await due_of(factory)
    await at(factory, due + 7)
    [info] = await factory.schedules.list(VIEWER)
    assert len(info.upcoming) == 10
    assert info.upcoming[0] == moment_in_words(datetime.fromtimestamp(due + HOUR, UTC))
    [fired] = info.history
    assert (fired.due_at, fired.late_by) == (due, 7)
    assert fired.run_id is not None
    assert (await factory.runs.wait(ADMIN, fired.run_id, 10)).info.state == "succeeded"


def test_a_moment_is_said_with_its_day() -> None:
    moment = datetime(2026, 3, 2, 8, 0, tzinfo=UTC).astimezone(zone("Europe/Berlin"))
    assert moment_in_words(moment) == "Monday 2 March 2026, 09:00"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Schedule(cron="0 9 * * 1,2,3,4,5", time_zone="Europe/Berlin"), "Every weekday at 09:00, Berlin time"),
        (Schedule(cron="5 17 * * 1-5"), "Every weekday at 17:05, UTC"),
        (Schedule(cron="0 9 * * *"), "Every day at 09:00, UTC"),
        (Schedule(cron="0 9 * * 6,0"), "Every Saturday and Sunday at 09:00, UTC"),
        (Schedule(cron="30 8 * * 1,3"), "Every Monday and Wednesday at 08:30, UTC"),
        (Schedule(every=86_400, at="09:00"), "Every day at 09:00, UTC"),
        (Schedule(every=3 * 86_400, at="09:00"), "Every 3 days at 09:00, UTC"),
        (Schedule(every=900), "Every 15 minutes"),
        (Schedule(every=3600), "Every hour"),
        (Schedule(every=7), "Every 7 seconds"),
    ],
)
def test_a_schedule_is_said_as_people_say_it(spec: Schedule, words: str) -> None:
    assert schedule_in_words(spec) == words


# --- the clock on the wall -------------------------------------------------------------------------------------------------

GAPS = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
}


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("shape", ["cron", "daily"])
def test_a_time_that_the_clock_jumps_over_comes_once_right_after(name: str, shape: str) -> None:
    at_, day = "02:30", GAPS[name][0]
    spec = (
        Schedule(cron="30 2 * * *", time_zone=name)
        if shape == "cron"
        else Schedule(every=86_400, at=at_, time_zone=name)
    )
    here = zone(name)
    before = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=here)
    got = [moment.astimezone(here) for moment in upcoming(spec, before, 3)]
    assert [moment.date().isoformat() for moment in got] == [
        (before.date() + timedelta(days=n)).isoformat() for n in range(3)
    ]
    assert f"{got[0]:%H:%M}" == "03:00" and [f"{moment:%H:%M}" for moment in got[1:]] == ["02:30", "02:30"]


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("shape", ["cron", "daily"])
def test_a_time_that_the_clock_shows_twice_comes_once(name: str, shape: str) -> None:
    wall = "02:30" if name == "Europe/Berlin" else "01:30"
    hour = int(wall[:2])
    spec = (
        Schedule(cron=f"30 {hour} * * *", time_zone=name)
        if shape == "cron"
        else Schedule(every=86_400, at=wall, time_zone=name)
    )
    here = zone(name)
    before = datetime.fromisoformat(f"{GAPS[name][1]}T00:00").replace(tzinfo=here)
    got = [moment.astimezone(here) for moment in upcoming(spec, before, 3)]
    assert [f"{moment:%H:%M}" for moment in got] == [wall] * 3
    assert len({moment.date() for moment in got}) == 3


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("day", [0, 1])
async def test_a_day_of_a_changing_clock_starts_each_once(factory: Factory, name: str, day: int) -> None:
    await deploy(
        factory,
        agent({"at": ("trigger.schedule", {"mode": "weekdays", "days": ["sun"], "at": "02:30", "time_zone": name})}),
    )
    here = zone(name)
    noon = datetime.fromisoformat(f"{GAPS[name][day]}T00:00").replace(tzinfo=here)
    row = await row_of(factory)
    spec = Schedule(**row.spec)
    due = upcoming(spec, noon, 1)[0].timestamp()
    await factory.db.write(ADMIN.tenant, lambda session: schedule.set_next(session, row.id, due))
    for minutes in range(60, 5 * 60, 30):
        await at(factory, noon.timestamp() + minutes * 60)
    assert len(await factory.runs.list(ADMIN)) == 1


# --- forgetting -------------------------------------------------------------------------------------------------------------


async def test_once_an_hour_what_nobody_needs_is_forgotten(either: Factory) -> None:
    await deploy(either, hourly())
    due = await due_of(either)
    await at(either, due)
    now = time.time()
    await either.db.write(
        ADMIN.tenant, lambda session: event_seen.first_time(session, "s", "1", now=now, expires_at=now + 60)
    )
    either.clock._cleaned = -1e9
    assert await at(either, due + 100 * 86_400) == 2

    def left(session: "object") -> tuple[bool, int]:
        new = event_seen.first_time(session, "s", "1", now=0.0, expires_at=1.0)  # type: ignore[arg-type]
        [row] = schedule.listed(session)  # type: ignore[arg-type]
        return new, len([one for one in schedule.firings(session, row.id) if one.due_at == due])  # type: ignore[arg-type]

    assert await either.db.write(ADMIN.tenant, left) == (True, 0)


async def test_a_schedule_that_came_round_while_the_database_went_away_starts_when_it_is_back(factory: Factory) -> None:
    await deploy(factory, hourly())
    due = await due_of(factory)
    breaks_once(factory.engine, "accept")
    assert await at(factory, due) == 0
    assert factory.schedules.owes
    await factory.clock.recover()
    assert len(await factory.runs.list(ADMIN)) == 1 and not factory.schedules.owes
