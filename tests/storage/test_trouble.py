"""Full disks, locked files, broken writes: a typed error with a fix, nothing half kept, and the writer goes on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import document, journal, run, setting
from storage.database import Database
from storage.errors import StorageError
from storage.records import RunRecord

HASH = "0" * 64
New = Callable[..., RunRecord]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the page limit below tests the same")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here; the page limit below tests the same")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def fill(db: Database, prefix: str) -> tuple[list[str], list[BaseException]]:
    """Keep runs with 20 kB of facts until the database refuses; what was confirmed, and how it refused."""
    confirmed, errors = [], []
    for number in range(500):
        ids = [f"run_{prefix}_{number}_{n}" for n in range(4)]
        facts = b'["' + b"x" * 20_000 + b'"]'
        records = [RunRecord(id, "a", 1, facts, _values(id)) for id in ids]
        done = await asyncio.gather(*[db.record(record) for record in records], return_exceptions=True)
        confirmed += [id for id, result in zip(ids, done, strict=True) if result is None]
        errors += [result for result in done if isinstance(result, BaseException)]
        if errors:
            return confirmed, errors
    raise AssertionError("it never became full")


def _values(id: str) -> dict[str, Any]:
    return run.values(
        "a",
        id,
        blueprint_id="bp",
        blueprint_name="",
        document_hash=HASH,
        trigger="n",
        state="accepted",
        accepted_at=1.0,
    )


async def check_full(db: Database, make_room: Callable[[], Any]) -> None:
    """It is full: typed errors. Then there is room: it goes on, and what was confirmed is there."""
    await db.write("a", lambda session: document.put(session, HASH, "{}", 1.0))
    confirmed, errors = await fill(db, "first")
    assert {getattr(error, "code", repr(error)) for error in errors} == {"storage.full"}
    error = errors[0]
    assert isinstance(error, StorageError)
    assert (error.message, error.fix, error.status) == (
        "The disk that holds the database is full.",
        "Free some space, then try again; nothing that was confirmed is lost.",
        507,
    )
    with pytest.raises(StorageError) as refused:
        await db.write("a", lambda session: document.put(session, "big", "x" * 4_000_000, 1.0))
    assert refused.value.code == "storage.full"
    assert len(await db.read("a", lambda session: run.listed(session, limit=10_000))) == len(confirmed)
    make_room()
    await db.record(RunRecord("run_after", "a", 1, b"[1]", _values("run_after")))
    await db.write("a", lambda session: setting.put(session, "after", 1, at=1.0))
    kept = {row.id for row in await db.read("a", lambda session: run.listed(session, limit=10_000))}
    assert kept == {*confirmed, "run_after"}
    for id in confirmed:
        assert await db.read("a", lambda session, id=id: journal.facts(session, id)) == ["x" * 20_000]  # type: ignore[misc]


async def test_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    async with Database(f"sqlite:///{small_disk / 'factory.db'}") as db:
        await check_full(db, ballast.unlink)


async def test_a_full_file(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path / 'factory.db'}") as db:
        await db.write_all(_limit(200))
        limits: list[asyncio.Future[Any]] = []
        await check_full(db, lambda: limits.append(asyncio.ensure_future(db.write_all(_limit(1_000_000)))))
        await asyncio.gather(*limits)


def _limit(pages: int) -> Callable[[Any], None]:
    def set_limit(session: Any) -> None:
        session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}").close()

    return set_limit


async def test_a_write_that_does_not_fit_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path / 'factory.db'}") as db:
        await db.write_all(_limit(120))
        done = await asyncio.gather(
            db.write("a", lambda session: setting.put(session, "one", 1, at=1.0)),
            db.write("a", lambda session: setting.put(session, "big", "x" * 4_000_000, at=1.0)),
            db.write("a", lambda session: setting.put(session, "two", 2, at=1.0)),
            return_exceptions=True,
        )
        assert [getattr(result, "code", None) for result in done] == [None, "storage.full", None]
        assert sorted(await db.read("a", setting.every)) == ["one", "two"]


async def test_a_file_that_another_program_holds(tmp_path: Path) -> None:
    path = tmp_path / "factory.db"
    async with Database(f"sqlite:///{path}", busy_seconds=0.1) as db:
        await db.write("a", lambda session: setting.put(session, "before", 1, at=1.0))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        done = await asyncio.gather(
            db.record(RunRecord("run_1", "a", update={"state": "running"})),
            db.write("a", lambda session: setting.put(session, "during", 1, at=1.0)),
            return_exceptions=True,
        )
        assert [getattr(result, "code", None) for result in done] == ["storage.locked", "storage.locked"]
        assert await db.read("a", setting.every) == {"before": 1}
        other.execute("ROLLBACK")
        other.close()
        await db.write("a", lambda session: setting.put(session, "after", 1, at=1.0))
        assert await db.read("a", setting.every) == {"before": 1, "after": 1}


async def test_a_short_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "factory.db"
    async with Database(f"sqlite:///{path}") as db:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(db.write("a", lambda session: setting.put(session, "k", 1, at=1.0)))
        await asyncio.sleep(0.1)
        assert not writing.done()
        other.execute("COMMIT")
        await writing
        other.close()


async def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.write_text("a file where a folder should be")
    with pytest.raises(StorageError) as refused:
        await Database(f"sqlite:///{path / 'factory.db'}").start()
    assert refused.value.code == "storage.failed"


async def test_a_text_that_the_database_cannot_keep_is_refused_in_words(db: Database) -> None:
    """SQLite keeps the character NUL; PostgreSQL does not, and says so in our words."""
    try:
        await db.write("a", lambda session: document.put(session, "h", "a\0b", 1.0))
    except StorageError as error:
        assert error.code == "storage.text"
    else:
        assert await db.read("a", lambda session: document.get(session, "h")) == "a\0b"
    await db.write("a", lambda session: document.put(session, "i", "fine", 1.0))
