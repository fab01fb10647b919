"""What a caller was told is kept: the server is killed again and again under load, and nothing accepted is lost or done twice.

FACTORY_SOAK_KILLS says how often (12 if unset), FACTORY_SOAK_SEED repeats the moments of an earlier soak.
"""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.orders import Callers, Receiver, orders
from tests.chaos.report import note
from tests.deploying import deploy
from tests.fakes.http_server import HttpServer
from tests.server import Server

KILLS = int(os.environ.get("FACTORY_SOAK_KILLS", "20"))
LONGEST = 2.0 if KILLS > 20 else 1.0  # seconds that a life lasts once it has begun
TO_END = 240.0  # seconds for the last runs to end

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300 + 40 * KILLS)]


def asked_of(server: Server, question: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{server.home / 'factory.db'}?mode=ro", uri=True, timeout=30) as database:
        return database.execute(question).fetchall()


async def kill_again_and_again(server: Server, moments: random.Random) -> float:
    """The longest start in seconds."""
    longest = 0.0
    for _ in range(KILLS):
        began = time.monotonic()
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        if moments.random() < 0.2:
            await asyncio.sleep(moments.uniform(0.5, 5))  # while it starts, or takes up what was going on
        else:
            await starting
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(moments.uniform(0.05, LONGEST))
        await asyncio.to_thread(server.kill)
        with suppress(RuntimeError):
            await starting
    return longest


async def until_all_ended(server: Server) -> None:
    until = time.monotonic() + TO_END
    while going := asked_of(server, "SELECT state, count(*) FROM run WHERE finished_at IS NULL GROUP BY state"):
        assert time.monotonic() < until, f"these did not end: {going}\n{server.tail()}"
        await asyncio.sleep(0.5)


async def test_nothing_accepted_is_lost_and_nothing_with_a_key_is_done_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("FACTORY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    moments, receiver = random.Random(seed), Receiver()
    print(f"\nFACTORY_SOAK_SEED={seed} repeats the moments of these {KILLS} kills.")
    async with HttpServer(receiver) as other:
        server = Server(tmp_path / "home", allow_private_hosts=other.place)
        await asyncio.to_thread(deploy, server.home, [orders(other.url)])
        callers = Callers(server.url)
        try:
            async with callers.ordering():
                longest = await kill_again_and_again(server, moments)
            await asyncio.to_thread(server.start)
            await until_all_ended(server)
        finally:
            await asyncio.to_thread(server.stop)

    ended = dict(asked_of(server, "SELECT id, state FROM run"))
    rows = {
        table: Counter(json.loads(data)["order"] for (data,) in asked_of(server, question))
        for table in ("big", "small")
        for question in [f"SELECT data FROM table_row WHERE name = '{table}'"]
    }
    print(
        f"{KILLS} kills; {len(callers.accepted):,} calls acknowledged, {len(callers.unanswered):,} unanswered;"
        f" {len(ended):,} runs, {Counter(ended.values())}; longest start {longest:.1f} s.\n"
        f"Keyed effects: {len(receiver.by_key):,}, each once; a receiver that ignores keys would have acted"
        f" {receiver.repeated} times too often."
    )
    figures = {"accepted": len(callers.accepted), "runs": len(ended), "keyed effects": len(receiver.by_key)}
    assert callers.odd == []
    lost = {order: run for order, run in callers.accepted.items() if run not in ended}
    assert lost == {}
    assert set(ended.values()) == {"succeeded"}
    assert len(callers.accepted) > KILLS  # else it was killed faster than anybody could order
    assert asked_of(server, "PRAGMA integrity_check") == [("ok",)]

    # One key for each order, one order for each key: who acts once a key acts once an order.
    assert all(len(set(calls)) == 1 for calls in receiver.by_key.values())
    assert set(receiver.acted_on.values()) <= {1}
    assert set(rows["big"].values()) | set(rows["small"].values()) <= {1}
    assert rows["big"].keys() == receiver.acted_on.keys()
    assert callers.accepted.keys() <= rows["big"].keys() | rows["small"].keys()
    assert len(rows["big"]) + len(rows["small"]) == len(ended)
    assert asked_of(server, "SELECT value FROM memory WHERE key = 'big'") == [(str(len(rows["big"])),)]
    note("the full server killed under load", kills=KILLS, **figures)
