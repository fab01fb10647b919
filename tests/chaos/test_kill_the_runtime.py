"""The runtime is killed again and again while it takes orders: what it acknowledged is there and ended, keyed effects happened once.

FACTORY_SOAK_RUNTIME_KILLS says how often (15 if unset).
"""

import json
import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.nursery import Nursery
from tests.chaos.orders import Receiver, orders
from tests.chaos.report import note
from tests.fakes.http_server import HttpServer

KILLS = int(os.environ.get("FACTORY_SOAK_RUNTIME_KILLS", "15"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300 + 10 * KILLS)]


async def test_what_the_runtime_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    seed = int(os.environ.get("FACTORY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    moments, receiver = random.Random(seed), Receiver()
    print(f"\nFACTORY_SOAK_SEED={seed} repeats the moments of these {KILLS} kills.")
    accepted: dict[str, str] = {}
    refused: Counter[str] = Counter()
    async with HttpServer(receiver) as other, Nursery() as nursery:
        ground = {"home": str(tmp_path), "exceptions": other.place}
        document = orders(other.url).canonical().decode()
        assert (await nursery.life("deploys", documents=[document], **ground))[-1]["ended"] == 0
        for number in range(KILLS):
            # Some die while they still take up what others left.
            after = moments.uniform(0.0, 0.08) if moments.random() < 0.2 else moments.uniform(0.1, 0.7)
            said = await nursery.life("takes orders", name=f"{number}", kill_after=after, **ground)
            assert said[-1]["ended"] == -9, said
            accepted |= {line["accepted"]: line["run"] for line in said if "accepted" in line}
            refused.update(line["code"] for line in said if "refused" in line)
        said = await nursery.life("ends all", seconds=600, **ground)
        assert said[-1]["ended"] == 0, said

    with sqlite3.connect(tmp_path / "factory.db") as database:
        ended = dict(database.execute("SELECT id, state FROM run").fetchall())
        whole = database.execute("PRAGMA integrity_check").fetchall()
        rows = Counter(json.loads(data)["order"] for (data,) in database.execute("SELECT data FROM table_row"))
        big = database.execute("SELECT value FROM memory WHERE key = 'big'").fetchall()
    assert not refused
    assert {order: run for order, run in accepted.items() if run not in ended} == {}
    assert Counter(ended.values()) == {"succeeded": len(ended)}
    assert whole == [("ok",)]
    assert len(accepted) > 10 * KILLS
    assert set(rows.values()) == {1} and accepted.keys() <= rows.keys() and len(rows) == len(ended)
    assert all(len(set(calls)) == 1 for calls in receiver.by_key.values())
    assert set(receiver.acted_on.values()) == {1}
    assert big == [(str(len(receiver.by_key)),)], "what was counted inside was counted once"
    note(
        "the runtime killed",
        kills=KILLS,
        accepted=len(accepted),
        runs=len(ended),
        **{"keyed effects": len(receiver.by_key), "repeated without keys": receiver.repeated},
    )
