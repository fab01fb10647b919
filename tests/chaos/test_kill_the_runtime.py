"""The runtime is killed again and again while it takes orders: what it acknowledged is there and ended, keyed effects happened once.

FACTORY_SOAK_RUNTIME_KILLS says how often (12 if unset). From 100 kills on, many more clients ask for light work at the same time.
"""

import json
import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.nursery import Nursery
from tests.chaos.orders import Receiver, light, orders
from tests.chaos.report import note
from tests.fakes.http_server import HttpServer

KILLS = int(os.environ.get("FACTORY_SOAK_RUNTIME_KILLS", "20"))
LIGHT = 60 if KILLS >= 100 else 0

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300 + 10 * KILLS)]


async def test_what_the_runtime_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    seed = int(os.environ.get("FACTORY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    moments, receiver = random.Random(seed), Receiver()
    print(f"\nFACTORY_SOAK_SEED={seed} repeats the moments of these {KILLS} kills.")
    accepted: dict[str, dict[str, str]] = {"orders": {}, "light": {}}
    refused: Counter[str] = Counter()
    async with HttpServer(receiver) as other, Nursery() as nursery:
        ground = {"home": str(tmp_path), "exceptions": other.place}
        documents = [drawn.canonical().decode() for drawn in (orders(other.url), light())]
        assert (await nursery.life("deploys", documents=documents, **ground))[-1]["ended"] == 0
        for number in range(KILLS):
            # Some die while they still take up what others left.
            after = moments.uniform(0.0, 0.08) if moments.random() < 0.2 else moments.uniform(0.1, 0.7)
            said = await nursery.life("takes orders", name=f"{number}", light=LIGHT, kill_after=after, **ground)
            assert said[-1]["ended"] == -9, said
            for line in said:
                if "accepted" in line:
                    accepted[line["path"]][line["accepted"]] = line["run"]
            refused.update(line["code"] for line in said if "refused" in line)
        said = await nursery.life("ends all", seconds=600, **ground)
        assert said[-1]["ended"] == 0, said

    with sqlite3.connect(tmp_path / "factory.db") as database:
        ended = dict(database.execute("SELECT id, state FROM run").fetchall())
        question = "SELECT count(*) FROM run JOIN blueprint ON blueprint.id = blueprint_id WHERE name = 'Light'"
        [(lightly,)] = database.execute(question)
        whole = database.execute("PRAGMA integrity_check").fetchall()
        rows = Counter(json.loads(data)["order"] for (data,) in database.execute("SELECT data FROM table_row"))
        big = database.execute("SELECT value FROM memory WHERE key = 'big'").fetchall()
    taken = [run for runs in accepted.values() for run in runs.values()]
    assert not refused
    assert [run for run in taken if run not in ended] == []
    assert Counter(ended.values()) == {"succeeded": len(ended)}
    assert whole == [("ok",)]
    assert len(taken) > 10 * KILLS
    assert set(rows.values()) == {1} and accepted["orders"].keys() <= rows.keys()
    assert len(rows) + lightly == len(ended)
    assert all(len(set(calls)) == 1 for calls in receiver.by_key.values())
    assert set(receiver.acted_on.values()) == {1}
    assert big == [(str(len(receiver.by_key)),)], "what was counted inside was counted once"
    note(
        "the runtime killed",
        kills=KILLS,
        accepted=len(taken),
        runs=len(ended),
        **{"keyed effects": len(receiver.by_key), "repeated without keys": receiver.repeated},
    )
