"""SQLite: one writer thread that writes whatever is queued whenever the disk is free, and a few readers beside it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlmodel import Session

from storage import errors, migrations, records
from storage.jobs import Answer, RecordJob, SessionJob, WriteJob, resolve
from storage.records import RunRecord
from storage.run import COLUMNS

T = TypeVar("T")
log = logging.getLogger(__name__)

_READERS = 4
_LARGEST_GROUP = 2_048
_FATAL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}


class SqliteBackend:
    """A database file: group commit with `synchronous=FULL`, so that what is confirmed is on the disk."""

    def __init__(self, path: Path, *, busy_seconds: float) -> None:
        self._path = path
        self._busy = busy_seconds
        self._queue: SimpleQueue[WriteJob | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: threading.Thread | None = None
        self._engine: Engine | None = None
        self._readers: Engine | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._lock: int | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="database-read")
        self._writer = threading.Thread(target=self._write, args=(connection,), name="database-write", daemon=True)
        self._writer.start()

    async def stop(self) -> None:
        """Write what is queued, then close."""
        if self._writer is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._writer.join)
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)
        for engine in (self._readers, self._engine):
            if engine is not None:
                engine.dispose()
        self._writer = self._threads = self._readers = self._engine = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def put(self, job: WriteJob) -> None:
        self._queue.put(job)

    async def write_apart(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        """There is one writer for everybody, and nobody else's locks to wait for."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.put(SessionJob(make, fn, future))
        return await future

    async def claim(self) -> bool:
        """Keep every other server off this file until we stop or die. Raises StorageError `storage.in_use`."""
        if self._lock is None:
            self._lock = await asyncio.to_thread(_lock, self._path)
        return True

    def fence(self, server: str | None) -> None:
        """Nobody else writes here."""

    async def read(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._threads, self._read, make, fn)

    def _read(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        assert self._readers is not None
        with self._readers.connect() as connection, make(connection) as session:
            return fn(session)

    def _open(self) -> Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = _engine(self._path, self._busy, pool_size=1)
            connection = self._engine.connect()
            migrations.upgrade(connection, str(self._path))
        except BaseException as error:
            if self._engine is not None:
                self._engine.dispose()
            raise (errors.failed(error) if isinstance(error, OSError) else errors.explained(error)) from error
        self._readers = _engine(self._path, self._busy, pool_size=_READERS)
        event.listen(self._readers, "connect", lambda raw, _: raw.execute("PRAGMA query_only = ON"))
        event.listen(self._readers, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return connection

    # --- the writer's thread ------------------------------------------------------------------------------------------

    def _write(self, connection: Connection) -> None:
        assert self._loop is not None
        raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        while True:
            job = self._queue.get()
            jobs: list[WriteJob] = []
            try:
                while job is not None:
                    jobs.append(job)
                    if len(jobs) == _LARGEST_GROUP:
                        break
                    job = self._queue.get_nowait()
            except Empty:
                pass
            if jobs:
                answers = _group(connection, raw, jobs)
                try:
                    self._loop.call_soon_threadsafe(resolve, answers)
                except RuntimeError:
                    log.warning("%d writes were kept after those who asked for them were gone", len(jobs))
            if job is None:
                connection.close()
                return


def _lock(path: Path) -> int:
    """A lock that the system takes back when the process ends, however it ends."""
    handle = os.open(path.with_name(f"{path.name}-server"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise errors.in_use(str(path)) from None
    return handle


def _engine(path: Path, busy_seconds: float, pool_size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=pool_size,
        max_overflow=0,
        connect_args={
            "timeout": busy_seconds,
            "check_same_thread": False,
            "isolation_level": None,  # we say BEGIN and COMMIT ourselves
            "cached_statements": 512,
        },
    )

    @event.listens_for(engine, "connect")
    def _set_up(raw: sqlite3.Connection, _: object) -> None:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "temp_store = MEMORY",
            "cache_size = -32768",
            "wal_autocheckpoint = 4000",
            "journal_size_limit = 67108864",
        ):
            raw.execute(f"PRAGMA {pragma}")

    return engine


def _group(connection: Connection, raw: sqlite3.Connection, jobs: list[WriteJob]) -> list[Answer]:
    """Write the jobs in one transaction. If that fails as a whole, each alone, so that one cannot fail the others."""
    try:
        return _transaction(connection, raw, jobs)
    except Exception as error:
        known = errors.explained(error)
        if len(jobs) > 1 and getattr(known, "code", "") == "storage.full":
            return [answer for job in jobs for answer in _group(connection, raw, [job])]
        log.warning("a group of %d writes failed: %s", len(jobs), known)
        return [(job, None, known) for job in jobs]


def _transaction(connection: Connection, raw: sqlite3.Connection, jobs: list[WriteJob]) -> list[Answer]:
    answers: list[Answer] = []
    outer = None
    raw.execute("BEGIN IMMEDIATE")
    try:
        lane: list[RecordJob] = []
        for job in jobs:
            if isinstance(job, RecordJob):
                lane.append(job)
                continue
            if lane:
                _records(raw, lane, answers)
                lane = []
            if outer is None:
                outer = connection.begin()  # only SQLAlchemy's own bookkeeping: the transaction is open already
            answers.append(_session(connection, raw, job))
        if lane:
            _records(raw, lane, answers)
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    finally:
        if outer is not None:
            outer.close()
    return answers


def _session(connection: Connection, raw: sqlite3.Connection, job: SessionJob) -> Answer:
    """Run one job in a savepoint; what it raises is its own, unless it broke the transaction."""
    session = job.make(connection)
    try:
        result = job.fn(session)
        session.commit()
        session.close()
    except Exception as error:
        _raise_if_fatal(error, raw)
        session.close()
        return job, None, errors.explained(error)
    return job, result, None


def _records(raw: sqlite3.Connection, jobs: list[RecordJob], answers: list[Answer]) -> None:
    """Write the records folded together; if one of them must fail, one by one."""
    try:
        raw.execute("SAVEPOINT lane")
        _folded(raw, [job.record for job in jobs])
        raw.execute("RELEASE lane")
        answers.extend((job, None, None) for job in jobs)
        return
    except Exception as error:
        _raise_if_fatal(error, raw)
        raw.execute("ROLLBACK TO lane")
        raw.execute("RELEASE lane")
        if len(jobs) == 1:
            answers.append((jobs[0], None, records.explained(error, jobs[0].record)))
            return
    for job in jobs:
        _records(raw, [job], answers)


def _folded(raw: sqlite3.Connection, batch: list[RunRecord]) -> None:
    runs, changes, facts = records.fold(batch)
    for rows in records.sized(runs):
        raw.execute(_insert_runs(len(rows)), _flat(rows))
    for (names, expected, server), moved in changes.items():
        whose = () if server is None else (server,)
        for rows in records.sized(moved):
            statement = _update_runs(names, len(expected), len(rows), server is not None)
            if raw.execute(statement, [*_flat(rows), *expected, *whose]).rowcount != len(rows):
                raise errors.LostRace("")
    for rows in records.sized(facts):
        raw.execute(_insert_facts(len(rows)), _flat(rows))


def _flat(rows: Any) -> list[Any]:
    return [value for row in rows for value in row]


def _marks(width: int, rows: int) -> str:
    one = f"({','.join('?' * width)})"
    return ",".join([one] * rows)


@cache
def _insert_runs(rows: int) -> str:
    return f"INSERT INTO run ({','.join(map(_quoted, COLUMNS))}) VALUES {_marks(len(COLUMNS), rows)}"  # noqa: S608


@cache
def _insert_facts(rows: int) -> str:
    return f"INSERT INTO journal (tenant_id, run_id, seq, facts) VALUES {_marks(4, rows)}"  # noqa: S608


@cache
def _update_runs(names: tuple[str, ...], states: int, rows: int, owned: bool) -> str:
    changes = ", ".join(f"{_quoted(name)} = new.column{at}" for at, name in enumerate(names, 3))
    expected = f" AND run.state IN ({','.join('?' * states)})" if states else ""
    expected += " AND run.server_id = ?" if owned else ""
    return (
        f"UPDATE run SET {changes} FROM (VALUES {_marks(len(names) + 2, rows)}) AS new"  # noqa: S608
        f" WHERE run.tenant_id = new.column1 AND run.id = new.column2{expected}"
    )


def _quoted(name: str) -> str:
    return f'"{name}"'  # one of our own column names; `trigger` is also a word of SQL


def _raise_if_fatal(error: BaseException, raw: sqlite3.Connection) -> None:
    """Raise what broke the whole group, not just the statement. It can be what a later error only follows from."""
    cause: BaseException | None = error
    while cause is not None:
        original = getattr(cause, "orig", None) or cause
        if isinstance(original, sqlite3.Error) and getattr(original, "sqlite_errorcode", 0) & 0xFF in _FATAL:
            raise original
        cause = cause.__cause__ or cause.__context__
    if not raw.in_transaction:
        raise error
