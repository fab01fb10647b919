"""PostgreSQL: one connection on the event loop writes whatever is queued in one transaction, a pool beside it reads.

A third one says that we live: the writer may have to wait for rows that another server has locked, and that is not being dead.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel import Session

from storage import errors, migrations, records
from storage.jobs import Answer, RecordJob, SessionJob, WriteJob, resolve
from storage.records import RunRecord
from storage.run import COLUMNS, Run

T = TypeVar("T")
log = logging.getLogger(__name__)

_NAME = "agent-factory"
_MIGRATES = "agent-factory migrates"
_READERS = 8
_LARGEST_GROUP = 2_048
# Seconds after which a transaction is ended that its process does not go on with, and its locks with it.
_STALLED = 2
# A migration locks tables that nobody uses yet, and loads and compiles what it does between its statements: on a busy machine
# that takes seconds.
_STALLED_MIGRATION = 60
# PostgreSQL does that by itself (idle_in_transaction_session_timeout) unless the process froze in the middle of a statement:
# between preparing and running one, its session counts as active. So whoever lives looks for such sessions too.
_END_STALLED = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = '{_NAME}'
AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND wait_event = 'ClientRead'
AND greatest(query_start, state_change) < clock_timestamp() - interval '{_STALLED} s'
"""  # noqa: S608 - constants of our own
# Seconds, a count and milliseconds after which a silent line is a broken one: for one that is idle, and for one that has sent.
_SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
_FENCED = "SELECT pg_current_xact_id()::text FROM server WHERE tenant_id = '*' AND id = $1 FOR KEY SHARE"
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
)


class _Connection(asyncpg.Connection):
    """One that notices when the network carries nothing any more; by itself the system waits for hours."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *more: Any) -> None:
        super().__init__(protocol, transport, *more)
        line = transport.get_extra_info("socket")
        if line.family == socket.AF_UNIX:
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _SILENCE.items():
            if (number := getattr(socket, option, None)) is not None:  # not every system has them all
                line.setsockopt(socket.IPPROTO_TCP, number, value)


class PostgresBackend:
    """A database on a server. A connection that is lost comes back by itself; what became of its last group is asked."""

    def __init__(self, url: URL, *, busy_seconds: float) -> None:
        self._name = url.render_as_string(hide_password=True)
        self._url = _for_asyncpg(url)
        self._busy = busy_seconds
        self._queue: deque[WriteJob] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._writer: asyncio.Task[None] | None = None
        self._engine: AsyncEngine | None = None
        self._readers: AsyncEngine | None = None
        self._apart: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None
        self._driver: asyncpg.Connection[Any] | None = None
        """The writer's connection as the driver knows it."""
        self._fence: str | None = None

    async def start(self) -> None:
        self._stopping = False
        self._engine = _engine(self._url, pool_size=1)
        self._readers = _engine(self._url, pool_size=_READERS)
        self._apart = _engine(self._url, pool_size=1)
        try:
            await self._migrate()
            await self._connect()
        except BaseException as error:
            await self._close()
            known = errors.explained(error)
            raise (errors.lost() if isinstance(error, OSError) else known) from error
        self._writer = asyncio.create_task(self._write(), name="database-write")

    async def _migrate(self) -> None:
        """Over a connection of its own, which nobody takes for one that stands still."""
        engine = _engine(self._url, pool_size=1, name=_MIGRATES, stalled=_STALLED_MIGRATION)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(migrations.upgrade, self._name)
        finally:
            await engine.dispose()

    async def stop(self) -> None:
        """Write what is queued, then close."""
        if self._writer is not None:
            self._stopping = True
            self._wake.set()
            await self._writer
        await self._close()

    def put(self, job: WriteJob) -> None:
        self._queue.append(job)
        self._wake.set()

    async def claim(self) -> bool:
        """Whether nobody else can use the database now. Other servers may: who is there stands in the table `server`."""
        return False

    def fence(self, server: str | None) -> None:
        """From now on write only while this server has its row. What is queued for the life before is refused.

        What is being written for it may wait on a network that carries nothing any more: its connection is given up.
        """
        if self._fence is not None and server != self._fence:
            late, self._queue = self._queue, deque()
            resolve((job, None, errors.fenced()) for job in late)
            if self._driver is not None and not self._driver.is_closed():
                self._driver.terminate()
        self._fence = server

    async def write_apart(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        """Write past the queue, whatever the writer waits for, and end what a frozen process left half done."""

        def call(connection: Connection) -> T:
            with make(connection) as session:
                result = fn(session)
                session.commit()
                return result

        assert self._apart is not None
        try:
            async with self._apart.begin() as connection:
                await connection.exec_driver_sql(_END_STALLED)
                return await connection.run_sync(call)
        except Exception as error:
            if _lost(error):
                raise errors.lost() from error
            raise

    async def read(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        def call(connection: Connection) -> T:
            with make(connection) as session:
                return fn(session)

        async def attempt() -> T:
            assert self._readers is not None
            async with self._readers.connect() as connection:
                await connection.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
                return await connection.run_sync(call)

        try:
            return await attempt()
        except Exception as error:
            if not _lost(error):
                raise
        try:
            return await attempt()  # a connection that broke while nobody used it shows only now
        except Exception as error:
            if _lost(error):
                raise errors.lost() from error
            raise

    # --- the connection -----------------------------------------------------------------------------------------------

    async def _connect(self) -> asyncpg.Connection[Any]:
        """The writer's connection as the driver knows it, made again if it is gone."""
        assert self._engine is not None
        if self._connection is None:
            connection = await self._engine.connect()
            # We say BEGIN and COMMIT ourselves; SQLAlchemy only puts its savepoints between them.
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            self._connection = connection
        fairy = await self._connection.get_raw_connection()
        driver: asyncpg.Connection[Any] | None = fairy.driver_connection
        if driver is None or driver.is_closed():
            raise asyncpg.ConnectionDoesNotExistError("the connection is closed")
        self._driver = driver
        return driver

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.invalidate()
                await connection.close()
            except Exception as error:
                log.debug("closing a lost connection: %s", error)

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        for engine in (self._apart, self._readers, self._engine):
            if engine is not None:
                await engine.dispose()
        self._connection = self._engine = self._readers = self._apart = self._writer = self._driver = None

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until the server answers again, for as long as a busy database is waited for."""
        pause, end = 0.05, asyncio.get_running_loop().time() + self._busy
        while True:
            try:
                return await attempt()
            except Exception as error:
                if not _lost(error):
                    raise
                await self._drop()
                if asyncio.get_running_loop().time() + pause > end:
                    raise errors.lost() from error
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)

    # --- the writer ---------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            if not self._queue:
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            jobs = [self._queue.popleft() for _ in range(min(len(self._queue), _LARGEST_GROUP))]
            try:
                answers = await self._group(jobs)
            except Exception as error:
                log.exception("the writer failed")
                answers = [(job, None, errors.failed(error)) for job in jobs]
            resolve(answers)

    async def _group(self, jobs: list[WriteJob]) -> list[Answer]:
        """Write the jobs in one transaction; if the server was lost before it could keep them, again and again for a while."""
        clock = asyncio.get_running_loop().time
        end, fence = clock() + self._busy, self._fence
        while clock() < end:
            group = _Group(jobs, fence)
            try:
                await self._patiently(self._connect)
                await self._transaction(group)
                return group.answers
            except Exception as error:
                await self._rolled_back()
                if _entangled(error) and not group.committing:
                    await asyncio.sleep(random.uniform(0.0, 0.05))  # noqa: S311 - whoever waits less goes first
                    continue
                if not _lost(error) and not group.committing:
                    known = errors.explained(error)
                    if len(jobs) > 1 and getattr(known, "code", "") == "storage.full":
                        return [answer for job in jobs for answer in await self._group([job])]
                    log.warning("a group of %d writes failed: %s", len(jobs), known)
                    return [(job, None, known) for job in jobs]
                await self._drop()
                kept = await self._was_kept(group)
                if kept:
                    return group.answers
                if kept is None:
                    return [(job, None, errors.unknown()) for job in jobs]
        return [(job, None, errors.lost()) for job in jobs]

    async def _was_kept(self, group: _Group) -> bool | None:
        """Whether the group whose connection broke is in the database; None when that cannot be found out."""
        if not group.committing:
            return False

        async def ask() -> str | None:
            raw = await self._connect()
            status: str | None = await raw.fetchval("SELECT pg_xact_status($1::text::xid8)", group.transaction)
            if status == "in progress":
                raise asyncpg.CannotConnectNowError("the server has not noticed yet that it lost us")
            return status

        try:
            status = await self._patiently(ask)
        except Exception as error:
            log.warning("what became of a group of %d writes is not known: %s", len(group.jobs), error)
            return None
        return status == "committed"

    async def _rolled_back(self) -> None:
        """Leave a failed transaction, if the connection is still there."""
        try:
            raw = await self._connect()
            if raw.is_in_transaction():
                await raw.execute("ROLLBACK")
        except Exception as error:
            log.debug("rolling back: %s", error)
            await self._drop()

    async def _transaction(self, group: _Group) -> None:
        assert self._connection is not None
        raw = await self._connect()
        outer = None
        await raw.execute("BEGIN")
        if group.fence is None:
            group.transaction = await raw.fetchval("SELECT pg_current_xact_id()::text")
        else:
            # Held until the end: nobody can declare us dead while this transaction is under way.
            group.transaction = await raw.fetchval(_FENCED, group.fence)
            if group.transaction is None:
                raise errors.fenced()
        try:
            lane: list[RecordJob] = []
            for job in group.jobs:
                if isinstance(job, RecordJob):
                    lane.append(job)
                    continue
                if lane:
                    await _records(raw, lane, group.answers)
                    lane = []
                if outer is None:
                    outer = await self._connection.begin()  # only SQLAlchemy's own bookkeeping: ours is open already
                group.answers.append(await _session(self._connection, job))
            if lane:
                await _records(raw, lane, group.answers)
            group.committing = True
            await raw.execute("COMMIT")
        finally:
            if outer is not None:
                await outer.close()


class _Group:
    """Jobs that are written together for one life of this server, and how far they got."""

    def __init__(self, jobs: list[WriteJob], fence: str | None) -> None:
        self.jobs = jobs
        self.fence = fence
        self.answers: list[Answer] = []
        self.transaction: str | None = None
        self.committing = False


async def _session(connection: AsyncConnection, job: SessionJob) -> Answer:
    """Run one job in a savepoint; what it raises is its own, unless the connection is lost."""

    def call(connection: Connection) -> Any:
        with job.make(connection) as session:
            result = job.fn(session)
            session.commit()
            return result

    try:
        return job, await connection.run_sync(call), None
    except Exception as error:
        if _lost(error) or _entangled(error):
            raise
        return job, None, errors.explained(error)


async def _records(raw: asyncpg.Connection[Any], jobs: list[RecordJob], answers: list[Answer]) -> None:
    """Write the records folded together; if one of them must fail, one by one."""
    await raw.execute("SAVEPOINT lane")
    try:
        await _folded(raw, [job.record for job in jobs])
        await raw.execute("RELEASE lane")
        answers.extend((job, None, None) for job in jobs)
        return
    except Exception as error:
        if _lost(error) or _entangled(error):
            raise
        await raw.execute("ROLLBACK TO lane; RELEASE lane")
        if len(jobs) == 1:
            answers.append((jobs[0], None, records.explained(error, jobs[0].record)))
            return
    for job in jobs:
        await _records(raw, [job], answers)


async def _folded(raw: asyncpg.Connection[Any], batch: list[RunRecord]) -> None:
    runs, changes, facts = records.fold(batch)
    if runs:
        await raw.execute(_insert_runs(), *_columns(runs))
    for (names, expected, server), moved in changes.items():
        conditions = [*([list(expected)] if expected else []), *([server] if server is not None else [])]
        statement = _update_runs(names, bool(expected), server is not None)
        done = await raw.execute(statement, *_columns(moved), *conditions)
        if done != f"UPDATE {len(moved)}":
            raise errors.LostRace("")
    if facts:
        await raw.execute(_insert_facts(), *_columns(facts))


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _type(name: str) -> str:
    kind = str(Run.__table__.c[name].type)  # type: ignore[attr-defined]
    return {"FLOAT": "float8[]", "INTEGER": "int4[]"}.get(kind, "text[]")


@cache
def _insert_runs() -> str:
    names = ",".join(map(_quoted, COLUMNS))
    arrays = ",".join(f"${at}::{_type(name)}" for at, name in enumerate(COLUMNS, 1))
    return f"INSERT INTO run ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608


@cache
def _insert_facts() -> str:
    return (
        "INSERT INTO journal (tenant_id, run_id, seq, facts)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::int4[], $4::text[])"
    )


@cache
def _update_runs(names: tuple[str, ...], expecting: bool, owned: bool) -> str:
    columns = ("tenant_id", "id", *names)
    arrays = ",".join(f"${at}::{_type(name)}" for at, name in enumerate(columns, 1))
    changes = ", ".join(f"{_quoted(name)} = new.{_quoted(name)}" for name in names)
    expected = f" AND run.state = ANY(${len(columns) + 1}::text[])" if expecting else ""
    expected += f" AND run.server_id = ${len(columns) + 1 + expecting}::text" if owned else ""
    return (
        f"UPDATE run SET {changes} FROM unnest({arrays}) AS new({','.join(map(_quoted, columns))})"  # noqa: S608
        f" WHERE run.tenant_id = new.tenant_id AND run.id = new.id{expected}"
    )


def _quoted(name: str) -> str:
    return f'"{name}"'  # one of our own column names; `trigger` is also a word of SQL


def _lost(error: BaseException) -> bool:
    """Whether the server, and not the statement, is the trouble."""
    if getattr(error, "connection_invalidated", False):
        return True
    original = getattr(error, "orig", None) or error
    return isinstance(original, _LOST) or isinstance(getattr(original, "__cause__", None), _LOST)


def _entangled(error: BaseException) -> bool:
    """Whether two servers waited for each other's rows: nothing of the group was kept, and the same again will do."""
    original = getattr(error, "orig", None) or error
    return getattr(original, "sqlstate", None) == "40P01"


def _for_asyncpg(url: URL) -> URL:
    """The address as our driver reads it; `sslmode` is what everybody else calls `ssl`."""
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return url.set(drivername="postgresql+asyncpg", query=query)


def _engine(url: URL, pool_size: int, *, name: str = _NAME, stalled: int = _STALLED) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "timeout": 10,
            "connection_class": _Connection,
            "server_settings": {
                "synchronous_commit": "on",
                "application_name": name,
                "idle_in_transaction_session_timeout": str(stalled * 1_000),
            },
        },
    )
