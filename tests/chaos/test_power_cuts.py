"""The power is cut at any moment: what was promised before is on the disk, the database is whole, and every run ends.

One life of the runtime is recorded write by write. From its record come images of the disk as cuts at random moments would leave
it: what was synced, and of what was not yet, any part of it, torn at any sector. FACTORY_SOAK_POWER_CUTS says how many (40 if
unset); in one of twenty the runtime starts on the image and ends everything.
"""

import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.nursery import Nursery
from tests.chaos.orders import Receiver, light, orders
from tests.chaos.recorder import PROMISE, SYNC, Disk, library, steps
from tests.chaos.report import note
from tests.fakes.http_server import HttpServer

CUTS = int(os.environ.get("FACTORY_SOAK_POWER_CUTS", "40"))
A_LIFE = 200  # cuts into one record
LONG = 1.0 if CUTS < A_LIFE else 5.0  # seconds that are recorded
TAKEN_UP = 20  # so many images, and one of them is taken up by a runtime

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(120 + CUTS),
    pytest.mark.skipif(
        library() is None, reason="this Python's SQLite is built into it, so its writes cannot be noted"
    ),
]


async def test_what_was_promised_before_the_power_was_cut_is_there(tmp_path: Path) -> None:
    seed = int(os.environ.get("FACTORY_SOAK_SEED") or random.SystemRandom().randrange(10**6))
    chance, receiver = random.Random(seed), Receiver()
    print(f"\nFACTORY_SOAK_SEED={seed} repeats the moments of these {CUTS} cuts.")
    figures: Counter[str] = Counter()
    async with HttpServer(receiver) as other, Nursery() as nursery:
        documents = [drawn.canonical().decode() for drawn in (orders(other.url), light())]
        home = tmp_path / "home"
        home.mkdir()
        ground = {"home": str(home), "exceptions": other.place}
        assert (await nursery.life("deploys", documents=documents, **ground))[-1]["ended"] == 0
        for done in range(0, CUTS, A_LIFE):
            cuts = min(A_LIFE, CUTS - done)
            disk = Disk((bytearray((home / "factory.db").read_bytes()), bytearray()))
            log = tmp_path / f"{done}.log"
            more = {"name": f"cut-{done}", "clients": 8, "light": 8, "log": str(log)}
            said = await nursery.life("is recorded", **more, kill_after=LONG, **ground)
            assert said[-1]["ended"] == -9, said
            told = list(steps(log))
            figures["synced"] += sum(step.what == SYNC for step in told)
            moments = sorted(chance.randrange(len(told)) for _ in range(cuts))
            place = 0
            for number, moment in enumerate(moments):
                while place <= moment:
                    disk.take(told[place])
                    place += 1
                image = tmp_path / "image"
                _lay_down(image, disk.after_a_cut(chance))
                _check(image, disk.promised)
                figures["cuts"] += 1
                figures["lost writes"] += sum(len(pending) for pending in disk.on_its_way)
                if number % TAKEN_UP == TAKEN_UP - 1:
                    said = await nursery.life("ends all", home=str(image), exceptions=other.place)
                    assert said[-1]["ended"] == 0, said
                    _check(image, disk.promised, ended=True)
                    figures["taken up"] += 1
            figures["accepted"] += sum(step.what == PROMISE for step in told)
            log.unlink()
            # The next life goes on where this one was killed, with a file that a clean stop has left.
            assert (await nursery.life("ends all", **ground))[-1]["ended"] == 0
    assert figures["cuts"] == CUTS and figures["lost writes"] > 0
    assert all(len(set(calls)) == 1 for calls in receiver.by_key.values())
    assert set(receiver.acted_on.values()) == {1}
    note(
        "the power cut (images of the disk)",
        **{name: figures[name] for name in ("cuts", "accepted", "synced")},
        **{"taken up by a runtime": figures["taken up"], "keyed effects": len(receiver.by_key)},
    )


def _lay_down(image: Path, files: tuple[bytes, bytes]) -> None:
    image.mkdir(exist_ok=True)
    (image / "factory.db-shm").unlink(missing_ok=True)  # it is memory, and gone with the power
    (image / "factory.db").write_bytes(files[0])
    (image / "factory.db-wal").write_bytes(files[1])


def _check(image: Path, promised: list[str], *, ended: bool = False) -> None:
    with sqlite3.connect(image / "factory.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        state = dict(database.execute("SELECT id, state FROM run").fetchall())
        rows = Counter(order for (order,) in database.execute("SELECT json_extract(data, '$.order') FROM table_row"))
    database.close()
    asked = [line.split() for line in promised]
    assert [order for _, order, run in asked if run not in state] == []
    assert set(rows.values()) <= {1}
    if ended:
        assert set(state.values()) == {"succeeded"}
        assert {order for path, order, _ in asked if path == "orders"} <= rows.keys()
