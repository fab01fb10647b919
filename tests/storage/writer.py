"""A program that keeps runs and says on its output which ones are confirmed, until somebody kills it."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from storage import document, run, setting
from storage.database import Database
from storage.records import RunRecord


async def main(url: str, name: str, depth: int, limit: int) -> None:
    """Keep runs and settings at the depth; `limit` runs in each line of work."""
    async with Database(url) as db:
        await db.write("a", lambda session: document.put(session, "0" * 64, "{}", 1.0))
        say("ready")

        async def work(line: int) -> None:
            for number in range(limit):
                id = f"run_{name}_{line}_{number}"
                now = time.time()
                values = run.values(
                    "a", id, blueprint_id="bp", blueprint_name="", document_hash="0" * 64, trigger="n",
                    state="accepted", accepted_at=now,
                )  # fmt: skip
                await db.record(RunRecord(id, "a", 1, b'[{"seq":1}]', values))
                say(f"accepted {id}")
                change = {"state": "succeeded", "finished_at": now}
                await db.record(RunRecord(id, "a", 2, b'[{"seq":2}]', update=change, expected=("accepted",)))
                say(f"succeeded {id}")
                if number % 10 == 0:
                    await db.write("a", lambda session, id=id: setting.put(session, id, 1, at=1.0))  # type: ignore[misc]
                    say(f"setting {id}")

        await asyncio.gather(*[work(line) for line in range(depth)])


def say(line: str) -> None:
    """One line, at once: what is in a buffer dies with the program."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
