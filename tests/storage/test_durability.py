"""What was confirmed is never lost: programs are killed, connections are cut, and system calls are watched."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlmodel import select

from storage import document, memory, run, setting, shelf
from storage.database import Database
from storage.errors import StorageError
from storage.journal import Journal
from storage.records import RunRecord
from storage.run import Run
from storage.tenancy import TenantSession

ROOT = Path(__file__).resolve().parents[2]
KILLS = 12


def writer(url: str, name: str, depth: int, limit: int, *around: str) -> subprocess.Popen[bytes]:
    """Start the program that keeps runs."""
    program = [*around, sys.executable, "-m", "tests.storage.writer", url, name, str(depth), str(limit)]
    return subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE)


@pytest.mark.parametrize("depth", [32])
async def test_what_was_confirmed_survives_kills(database_url: str, depth: int) -> None:
    confirmed: list[str] = []
    for number in range(KILLS):
        process = writer(database_url, f"{number:02}", depth, 1_000_000)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        await asyncio.sleep(random.Random(number).uniform(0.0, 0.15))
        process.kill()
        said, _ = process.communicate()
        confirmed += said.decode().splitlines()

    def missing(session: TenantSession) -> list[str]:
        state = {row.id: row.state for row in session.exec(select(Run))}
        facts = set(session.exec(select(Journal.run_id, Journal.seq)).all())
        settings = setting.every(session)
        lost = []
        for line in confirmed:
            what, _, id = line.partition(" ")
            there = {
                "accepted": state.get(id) in ("accepted", "succeeded") and (id, 1) in facts,
                "succeeded": state.get(id) == "succeeded" and (id, 2) in facts,
                "setting": id in settings,
            }[what]
            if not there:
                lost.append(line)
        # Nothing is there by half: a run never without its facts.
        lost += [f"half {id}" for id in state if (id, 1) not in facts]
        lost += [f"half {id}" for id, now in state.items() if (now == "succeeded") != ((id, 2) in facts)]
        return lost

    async with Database(database_url) as db:
        assert await db.read("a", missing) == []
    assert len(confirmed) > KILLS
    if database_url.startswith("sqlite"):
        file = sqlite3.connect(database_url.removeprefix("sqlite:///"))
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        file.close()


def test_nothing_is_confirmed_before_it_is_on_the_disk(tmp_path: Path) -> None:
    """In the order of system calls: after the last write to the log and before each confirmation stands an fdatasync."""
    if not shutil.which("strace"):
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail("strace is not installed")
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    watch = ("strace", "-f", "-y", "-s", "64", "-e", "trace=pwrite64,write,fdatasync,fsync", "-o", str(trace))
    process = writer(f"sqlite:///{tmp_path / 'factory.db'}", "x", 1, 40, *watch)
    said, _ = process.communicate(timeout=90)
    if process.returncode and not trace.exists():
        pytest.fail("strace may not watch here")
    confirmed = [line for line in said.decode().splitlines() if line != "ready"]
    assert len(confirmed) == 40 + 40 + 4

    unsynced, acknowledged, early = False, 0, []
    written = 0
    for line in trace.read_text().splitlines():
        call = re.sub(r"^\d+ +", "", line)
        if call.startswith("pwrite64") and "-wal>" in call:
            unsynced = True
            written += 1
        elif re.match(r"f(data)?sync\(.*-wal>\) *= 0|<\.\.\. f(data)?sync resumed.*= 0", call):
            unsynced = False
        elif call.startswith("write(1<") and re.search(r'"(accepted|succeeded|setting) ', call):
            acknowledged += 1
            if unsynced:
                early.append(call)
    assert early == []
    assert acknowledged == len(confirmed)
    assert written >= acknowledged


@pytest.mark.postgres
async def test_cut_connections_lose_nothing_and_come_back(postgres_url: str) -> None:
    """The server ends our connections again and again while runs are recorded."""
    confirmed: list[str] = []
    refused: list[str] = []
    stop = False
    async with Database(postgres_url) as db:
        await db.write("a", lambda session: document.put(session, "0" * 64, "{}", 1.0))

        async def work(line: int) -> None:
            number = 0
            while not stop:
                number += 1
                id = f"run_{line}_{number}"
                values = run.values(
                    "a", id, blueprint_id="bp", blueprint_name="", document_hash="0" * 64, trigger="n",
                    state="succeeded", accepted_at=1.0,
                )  # fmt: skip
                try:
                    await db.record(RunRecord(id, "a", 1, b"[]", values))
                    confirmed.append(id)
                except StorageError:
                    refused.append(id)
                if number % 20 == 0:
                    await db.write("a", lambda session, id=id: setting.put(session, id, 1, at=1.0))  # type: ignore[misc]

        lines = [asyncio.create_task(work(line)) for line in range(8)]
        admin = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        for number in range(25):
            await asyncio.sleep(random.Random(number).uniform(0.0, 0.06))
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        while len(confirmed) <= 25:  # what is confirmed between the cuts may be little, on a busy machine
            await asyncio.sleep(0.01)
        stop = True
        await asyncio.gather(*lines)
        await admin.close()
        kept = set(await db.read("a", lambda session: session.exec(select(Run.id)).all()))
    assert set(confirmed) <= kept
    assert kept.isdisjoint(refused)


@pytest.mark.postgres
async def test_a_server_that_is_away_is_told_in_words(postgres_url: str) -> None:
    away = make_url(postgres_url).set(port=1).render_as_string(hide_password=False)
    with pytest.raises(StorageError) as refused:
        await Database(away, busy_seconds=0.2).start()
    assert refused.value.code == "storage.lost"
    assert refused.value.fix


@pytest.mark.postgres
async def test_servers_that_write_to_the_same_table_and_numbers_lose_nothing(postgres_url: str) -> None:
    """Each in groups of its own, in orders that make them wait for each other."""
    keys = [f"k{number}" for number in range(6)]
    async with Database(postgres_url) as one, Database(postgres_url) as two:

        def work(db: Database, seed: int) -> list[asyncio.Future[Any]]:
            chosen, jobs = random.Random(seed), []
            for number in range(60):
                key, order = chosen.choice(keys), f"{seed} {number}"
                jobs.append(db.write("a", lambda session, key=key: memory.add(session, key, 1, 1.0)))  # type: ignore[misc]
                jobs.append(db.write("a", lambda session, order=order: shelf.append(session, "t", [order], 1.0)))  # type: ignore[misc]
            return [asyncio.ensure_future(job) for job in jobs]

        done = await asyncio.gather(*work(one, 1), *work(two, 2), return_exceptions=True)
        assert [error for error in done if isinstance(error, BaseException)] == []
        counted = [(await one.read("a", lambda session, key=key: memory.recall(session, key)))[1] for key in keys]  # type: ignore[misc]
        rows = await one.read("a", lambda session: shelf.rows(session, "t"))
    assert sum(counted) == 120
    assert [row.number for row in rows] == list(range(1, 121)) and len({row.data for row in rows}) == 120
