"""How long a crew of five takes to come together, in a whole factory with its database: from warm workers, and from none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from runtime.factory import Factory
from runtime.fleet import FleetView
from runtime.workers.states import WorkerState
from storage import tenant as tenants
from tests.runtime.factories import ADMIN, new_factory
from tests.services import docker_url

MEMBERS: Final = 5
MANIFEST: Final = {"id": "press", "members": [{"role": "writer", "code": "crew.next()", "count": MEMBERS}]}


async def warm_crew(home: Path, times: int) -> list[float]:
    """Seconds to assemble one when there are warm workers for all of it."""
    async with _opened(home, pool_size=2 * MEMBERS) as factory:
        return [await _assembled(factory, _ready) for _ in range(times + 1)][1:]


async def cold_crew(home: Path, times: int) -> list[float]:
    """Seconds to assemble one when there is no worker at all."""
    async with _opened(home, pool_size=0) as factory:
        took = []
        for _ in range(times + 1):
            for worker in factory.fleet.view().workers:
                await factory.fleet.remove(worker.id)
            took.append(await _assembled(factory, lambda view: not view.workers))
        return took[1:]


async def _assembled(factory: Factory, begin: Callable[[FleetView], bool]) -> float:
    await _until(factory, begin)
    began = time.perf_counter()
    crew = await factory.crews.assemble(ADMIN, MANIFEST)
    took = time.perf_counter() - began
    assert (crew.state, len(crew.members)) == ("running", MEMBERS), crew
    await factory.crews.stop_crew(ADMIN, crew.id)
    return took


def _ready(view: FleetView) -> bool:
    """All that are to be warm are, and nothing else is going on."""
    at_rest = (WorkerState.READY, WorkerState.HIBERNATING)
    return bool(view.pools) and view.pools[0].ready >= 2 * MEMBERS and all(one.state in at_rest for one in view.workers)


async def _until(factory: Factory, so: Callable[[FleetView], bool]) -> None:
    moved = asyncio.Event()
    forget = factory.fleet.on_move(lambda _: moved.set())
    try:
        async with asyncio.timeout(120):
            while not so(factory.fleet.view()):
                moved.clear()
                await moved.wait()
    finally:
        forget()


@asynccontextmanager
async def _opened(home: Path, **options: Any) -> AsyncIterator[Factory]:
    home.mkdir(parents=True, exist_ok=True)
    made = new_factory(
        f"sqlite:///{home / 'factory.db'}", docker=docker_url(), home=f"bench-{uuid4().hex[:12]}", **options
    )
    async with made as factory:
        await factory.db.write_all(lambda session: tenants.add(session, ADMIN.tenant, name="Team", at=0.0))
        yield factory
