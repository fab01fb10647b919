"""A day's demand for code in isolation, and how many of its jobs the real pool hands a warm worker at once, in quick time.

The trace is written with fixed dice from what agents do: calls that come and go with the hour, schedules at the full minute, five
minutes and hour, people who open a test and run it a few times, and runs that come to their code after a call of a model.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from itertools import count

from runtime.workers.pool import Pool
from runtime.workers.views import PoolView
from tests.runtime.workers.in_memory import Engine, job, pool_in_memory, run_quickly

HOURS = 6
TENANTS = ("acme", "acme", "acme", "globex", "globex", "initech")


@dataclass(frozen=True)
class Arrival:
    """Jobs at one moment. `known` is when it was known that they come, None if it was not; `abreast` how many at once."""

    at: float
    tenant: str
    seconds: tuple[float, ...]
    known: float | None = None
    name: str = ""


def trace(hours: float = HOURS, seed: int = 11) -> list[Arrival]:
    """The demand of some hours, in order."""
    dice, end, numbers = random.Random(seed), hours * 3600, count()
    arrivals: list[Arrival] = []

    def takes() -> float:
        return dice.choice((0.02, 0.02, 0.05, 0.1, 0.3, 1.0, 4.0)) * dice.uniform(0.7, 1.5)

    at = 0.0
    while at < end:  # calls from outside: from quiet to brisk and back, twice
        brisk = 0.02 + 0.6 * (1 - math.cos(4 * math.pi * at / end)) / 2
        at += dice.expovariate(brisk)
        arrivals.append(Arrival(at, dice.choice(TENANTS), (takes(),)))
    for tenant, every, many in (("acme", 60, 2), ("globex", 300, 4), ("initech", 900, 3), ("acme", 3600, 6)):
        for moment in range(every, int(end), every):
            seconds = tuple(takes() for _ in range(many))
            arrivals.append(Arrival(moment + dice.uniform(0, 1.0), tenant, seconds, moment - 30.0, f"s{next(numbers)}"))
    for _ in range(int(hours * 12)):  # people who try something out
        opened, tenant = dice.uniform(0, end), dice.choice(TENANTS)
        at = opened + dice.uniform(3, 40)
        for _ in range(dice.randint(1, 5)):
            arrivals.append(Arrival(at, tenant, (takes(),), opened, f"t{next(numbers)}"))
            opened, at = at, at + dice.uniform(5, 60)
    for _ in range(int(hours * 60)):  # runs that ask a model before they come to their code
        begun = dice.uniform(0, end)
        seconds = tuple(takes() for _ in range(dice.choice((1, 1, 1, 2, 4))))
        arrivals.append(Arrival(begun + dice.uniform(2, 15), dice.choice(TENANTS), seconds, begun, f"r{next(numbers)}"))
    return sorted(arrivals, key=lambda arrival: arrival.at)


def hit_rate(arrivals: list[Arrival], *, known: bool = True, ceiling: int = 16) -> PoolView:
    """How the pool stands after this demand."""
    return run_quickly(_replay(arrivals, known, ceiling))


async def _replay(arrivals: list[Arrival], known: bool, ceiling: int) -> PoolView:
    loop = asyncio.get_running_loop()
    async with pool_in_memory(Engine(), size=2, ceiling=ceiling) as pool:
        await pool.until_ready(2)
        began = loop.time()
        tasks = []
        moments = [(arrival.at, arrival, False) for arrival in arrivals]
        if known:
            moments += [(max(0.0, one.known), one, True) for one in arrivals if one.known is not None]
        for at, arrival, hint in sorted(moments, key=lambda moment: moment[0]):
            await asyncio.sleep(max(0.0, began + at - loop.time()))
            if hint:
                pool.demand.expect(len(arrival.seconds), began + arrival.at - 1.0, lasts=60.0, key=arrival.name)
                pool.look_soon()
            else:
                tasks += [asyncio.create_task(_run(pool, arrival, seconds)) for seconds in arrival.seconds]
        await asyncio.gather(*tasks)
        return pool.view()


async def _run(pool: Pool, arrival: Arrival, seconds: float) -> None:
    done = await pool.run(job("j", seconds, run=arrival.name), tenant=arrival.tenant)
    assert done.ok
