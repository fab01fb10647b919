"""The one way to the database: read and write with a session that belongs to a tenant, and the journal's fast lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlmodel import Session

from storage import errors, tables
from storage.jobs import RecordJob, SessionJob, WriteJob
from storage.records import RunRecord
from storage.tenancy import TenantSession

T = TypeVar("T")


class Backend(Protocol):
    """What a kind of database does for us."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def read(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T: ...
    async def write_apart(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T: ...
    def put(self, job: WriteJob) -> None: ...
    async def claim(self) -> bool: ...
    def fence(self, server: str | None) -> None: ...


class Database:
    """SQLite (`sqlite:///path`) or PostgreSQL (`postgresql://…`), brought up to date at start.

    What `write` and `record` confirm is committed and on the disk. Functions given to `write` do only database work: they run
    inside a transaction shared with others, and may be called again if the database was lost before it took anything.
    """

    def __init__(self, url: str, *, busy_seconds: float = 5.0) -> None:
        self._backend = _backend(url, busy_seconds)
        self._open = False

    async def start(self) -> None:
        """Make or upgrade the database and open it. Refuses one that is newer than this program."""
        await self._backend.start()
        self._loop = asyncio.get_running_loop()
        self._open = True

    async def stop(self) -> None:
        """Write what is queued, then close."""
        self._open = False
        await self._backend.stop()

    async def __aenter__(self) -> Database:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def read(self, tenant: str, fn: Callable[[TenantSession], T]) -> T:
        """Call `fn` with a session that sees one moment of the tenant's data and cannot write."""
        return await self._read(partial(TenantSession, tenant=tenant), fn)

    async def write(self, tenant: str, fn: Callable[[TenantSession], T]) -> T:
        """Call `fn` with a session of the tenant; returns when all it did is durable, or raises and nothing of it is kept."""
        return await self._write(partial(TenantSession, tenant=tenant), fn)

    async def read_all(self, fn: Callable[[Session], T]) -> T:
        """Read over all tenants: only for the few look-ups that find the tenant, for recovery and for the clock."""
        return await self._read(_unbound, fn)

    async def write_all(self, fn: Callable[[Session], T]) -> T:
        """Write over all tenants: only where there is no tenant yet."""
        return await self._write(_unbound, fn)

    async def write_apart(self, fn: Callable[[Session], T]) -> T:
        """The same past everything that is queued, and not fenced: only for what says that this server lives."""
        return await self._asked(self._backend.write_apart(_unbound, fn))

    async def claim(self) -> bool:
        """Take the database for a server: True when no other server can have it beside us, until we stop.

        Raises StorageError `storage.in_use`.
        """
        return await self._backend.claim()

    def fence(self, server: str | None) -> None:
        """From now on every write is refused with `storage.fenced` once the others have given this server up.

        What is still queued for another life of this server is refused at once.
        """
        self._backend.fence(server)

    def record(self, batch: RunRecord) -> asyncio.Future[None]:
        """Queue something about a run; the future is done when it is durable. Call it on the loop that started the database."""
        if not self._open:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(errors.stopped())
            return refused
        future: asyncio.Future[None] = self._loop.create_future()
        self._backend.put(RecordJob(batch, future))
        return future

    async def _read(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        return await self._asked(self._backend.read(make, fn))

    async def _asked(self, answer: Coroutine[Any, Any, T]) -> T:
        """What the database answers; what it raises is one of ours."""
        if not self._open:
            answer.close()
            raise errors.stopped()
        try:
            return await answer
        except Exception as error:
            known = errors.explained(error)
            if known is error:
                raise
            raise known from error

    async def _write(self, make: Callable[[Connection], Session], fn: Callable[[Any], T]) -> T:
        if not self._open:
            raise errors.stopped()
        future: asyncio.Future[T] = self._loop.create_future()
        self._backend.put(SessionJob(make, fn, future))
        return await future


def _unbound(connection: Connection) -> Session:
    return Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")


def _backend(url: str, busy_seconds: float) -> Backend:
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite" and parsed.database not in (None, "", ":memory:"):
        from storage.sqlite import SqliteBackend

        return SqliteBackend(Path(parsed.database or ""), busy_seconds=busy_seconds)
    if kind in ("postgresql", "postgres"):
        from storage.postgres import PostgresBackend

        return PostgresBackend(parsed, busy_seconds=busy_seconds)
    raise errors.StorageError(
        f"“{kind}” databases are not supported here.",
        code="storage.url",
        fix="Use sqlite:///path/to/factory.db or postgresql://user:password@host/name.",
    )


assert tables.metadata.tables  # every table is known before the first session, whichever module asks first
