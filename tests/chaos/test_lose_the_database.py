"""The database goes away and comes back under a running engine: connections are cut, the file is locked; every run ends once.

FACTORY_SOAK_CUTS says how often (12 if unset).
"""

import asyncio
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from nodes.errors import FactoryError
from tests.chaos.report import note
from tests.runtime.engines import TENANT, Rig, open_rig
from tests.runtime.small_nodes import drawn, world

CUTS = int(os.environ.get("FACTORY_SOAK_CUTS", "12"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(200 + 10 * CUTS)]

WORKS = drawn(
    {"s": "start", "one": "effect", "two": ("effect", {"seconds": 0.005}), "end": "compute"},
    "s.value > one.value", "one.value > two.value", "two.value > end.value",
)  # fmt: skip


async def under_load(rig: Rig, trouble: Callable[[], Awaitable[None]]) -> tuple[dict[str, str], Counter[str]]:
    """Runs are begun all the time while there is trouble; the state of each that was accepted, and how others were refused."""
    accepted: list[str] = []
    refused: Counter[str] = Counter()
    going = True

    async def client(number: int) -> None:
        count = 0
        while going:
            count += 1
            try:
                accepted.append((await rig.begin(WORKS, f"{number}-{count}")).id)
            except FactoryError as error:
                refused[error.code] += 1
            await asyncio.sleep(0.01)

    clients = [asyncio.create_task(client(number)) for number in range(6)]
    await trouble()
    going = False
    await asyncio.gather(*clients)
    ended = {}
    for run_id in accepted:
        view = await rig.ended(run_id, timeout=90)
        ended[run_id] = view.info.state
        _, _, facts = await rig.engine.journal.load(TENANT, run_id)
        assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
    return ended, refused


def check(what: str, ended: dict[str, str], refused: Counter[str]) -> None:
    assert Counter(ended.values()) == {"succeeded": len(ended)}
    assert len(ended) > CUTS
    assert set(refused) <= {"storage.lost", "storage.unknown", "storage.fenced", "storage.locked"}
    assert len(world.keys) >= 2 * len(ended), "each of the two effects of each run has a key of its own"
    note(what, times=CUTS, accepted=len(ended), refused=sum(refused.values()), **{"keyed effects": len(world.keys)})


@pytest.mark.postgres
async def test_cut_connections_hold_runs_up_and_lose_none(postgres_url: str) -> None:
    world.__init__()  # type: ignore[misc]

    async def cut() -> None:
        admin = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        moments = random.Random(7)
        for _ in range(CUTS):
            await asyncio.sleep(moments.uniform(0.0, 0.25))
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await admin.close()

    async with open_rig(postgres_url) as rig:
        check("connections to PostgreSQL cut", *await under_load(rig, cut))


async def test_a_locked_file_holds_runs_up_and_loses_none(tmp_path: Path) -> None:
    world.__init__()  # type: ignore[misc]

    async def lock() -> None:
        moments = random.Random(7)
        for _ in range(CUTS):
            await asyncio.sleep(moments.uniform(0.0, 0.05))
            other = sqlite3.connect(tmp_path / "f.db", isolation_level=None, timeout=20, check_same_thread=False)
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            await asyncio.sleep(moments.uniform(0.0, 0.2))
            other.execute("ROLLBACK")
            other.close()

    async with open_rig(f"sqlite:///{tmp_path}/f.db") as rig:
        check("the SQLite file locked by another program", *await under_load(rig, lock))
