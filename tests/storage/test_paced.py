"""Moments of steps that may start only so often: the same for all servers, kept over restarts, one for each start."""

import random
from collections.abc import AsyncIterator
from functools import partial

import pytest

from runtime.pace import Pace
from storage import paced
from storage.database import Database


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as db:
        yield db


async def reserve(db: Database, start: str, *, at_most: int, per: float, now: float, step: str = "s") -> float:
    return await db.write(
        "a", partial(paced.reserve, agent="bp", step=step, start=start, at_most=at_most, per=per, now=now)
    )


async def test_moments_are_those_that_memory_would_give(db: Database) -> None:
    chance, pace = random.Random(7), Pace()
    for lane in range(4):
        at_most, per, now = chance.randint(1, 4), chance.uniform(1, 50), 1_000.0
        for number in range(12):
            now += chance.uniform(0, 30)
            wanted = now + pace.pretend((str(lane),), at_most, per, now)
            given = await reserve(db, str(number), at_most=at_most, per=per, now=now, step=str(lane))
            assert given == pytest.approx(wanted)


async def test_a_start_has_one_moment_however_often_it_asks(db: Database) -> None:
    first = await reserve(db, "run_1 0 1", at_most=1, per=60, now=100.0)
    assert await reserve(db, "run_1 0 1", at_most=1, per=60, now=130.0) == first == 100.0
    assert await reserve(db, "run_2 0 1", at_most=1, per=60, now=130.0) == 160.0


async def test_another_number_counts_from_what_was_given_out(db: Database) -> None:
    assert [await reserve(db, f"{n}", at_most=2, per=10, now=0.0) for n in range(3)] == [0, 0, 10]
    assert await reserve(db, "slower", at_most=1, per=10, now=0.0) == 20
    assert [await reserve(db, f"faster {n}", at_most=3, per=10, now=21.0) for n in range(3)] == [21, 21, 30]


async def test_long_ago_is_forgotten(db: Database) -> None:
    await reserve(db, "old", at_most=2, per=10, now=0.0)
    await reserve(db, "new", at_most=2, per=10, now=100.0)
    assert await db.write_all(partial(paced.purge, before=50.0)) == 1
    assert await reserve(db, "next", at_most=2, per=10, now=100.0) == 100.0
