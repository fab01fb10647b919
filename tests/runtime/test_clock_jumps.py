"""The machine's clock is set back two hours and ahead three, again and again: schedules are neither missed nor doubled, waits end once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from runtime.factory import Factory
from storage import schedule
from tests.runtime.factories import ADMIN, agent, new_factory
from tests.runtime.test_triggers import at, deploy

MINUTE, HOUR = 60.0, 3_600.0


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path}/f.db") as factory:
        yield factory


def moments(seed: int, start: float) -> list[float]:
    """What the clock shows: ten minutes on each time, but for jumps."""
    chosen, now, shown = random.Random(seed), start, []
    for _ in range(40):
        jump = chosen.random()
        now += -2 * HOUR if jump < 0.12 else 3 * HOUR if jump > 0.9 else 10 * MINUTE
        shown.append(now)
    return shown


async def started(factory: Factory) -> Counter[float]:
    runs = [await factory.runs.wait(ADMIN, run.id, 10) for run in await factory.runs.list(ADMIN, limit=200)]
    return Counter(datetime.fromisoformat(view.input["moment"]).timestamp() for view in runs)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("policy", ["all", "once", "skip"])
async def test_a_clock_that_jumps_misses_and_doubles_nothing(factory: Factory, policy: str, seed: int) -> None:
    every = {"mode": "every", "every": 1, "unit": "hours", "catch_up": policy}
    await deploy(factory, agent({"at": ("trigger.schedule", every)}))
    [info] = await factory.deployments.list(ADMIN)
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    assert info.schedules and row.next_due is not None
    due = row.next_due
    shown = moments(seed, due - 30 * MINUTE)
    for now in shown:
        await at(factory, now)
    got = await started(factory)
    assert set(got.values()) <= {1}, "no moment starts twice, however often the clock shows it"
    all_due = {due + hour * HOUR for hour in range(int((max(shown) - due) // HOUR) + 1)}
    assert got.keys() <= all_due
    if policy == "all":
        assert got.keys() == all_due
        return
    # Once: the latest of those that came due at the same time. Skip: only one that is not late.
    expected, reached = set(), due - HOUR
    for now in shown:
        came = [moment for moment in all_due if reached < moment <= now]
        reached = max(reached, *came) if came else reached
        if came and (policy == "once" or now - max(came) <= MINUTE):
            expected.add(max(came))
    assert got.keys() == expected


async def test_a_tick_that_is_under_way_when_the_factory_stops_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    under_way = asyncio.Event()

    async def dawdle() -> None:
        under_way.set()
        await asyncio.Event().wait()

    async with new_factory(f"sqlite:///{tmp_path}/f.db", ticking=True) as factory:
        factory.clock.on_tick.append(dawdle)
        await asyncio.wait_for(under_way.wait(), 30)
    assert [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
