"""The tenant's tables and files, as people see them and as steps use them. They live in the database, never at a path."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from nodes.base import NodeError
from nodes.errors import FactoryError, NotFound
from runtime.limits import LIMITS, Limits
from runtime.policy import Actor, Permission
from storage import shelf
from storage.database import Database
from storage.tenancy import TenantSession

MAX_FILE = LIMITS["upload_bytes"].default
MAX_ROW = 256 * 1024
MAX_ROWS = 10_000  # added at once

OnRows = Callable[[TenantSession, str, Sequence[Any], int, str], None]
OnFile = Callable[[TenantSession, dict[str, Any], str, str], None]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file without its bytes; size in bytes."""

    name: str
    size: int
    media_type: str
    updated_at: float
    updated_by: str


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table by name."""

    name: str
    rows: int


class Shelves:
    """Tables and files of every tenant."""

    def __init__(self, db: Database, limits: Limits | None = None) -> None:
        self._db = db
        self._limits = limits or Limits()
        self.on_rows: OnRows = lambda session, table, rows, number, run_id: None
        """Told within the transaction of rows that are added."""
        self.on_file: OnFile = lambda session, file, run_id, key: None
        """Told within the transaction of a file that is kept."""
        self.on_kept: Callable[[], None] = lambda: None
        """Told when one of these is durable."""

    async def files(self, who: Actor) -> list[FileInfo]:
        """All files, by name."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, shelf.files)
        return [FileInfo(row.name, row.size, row.media_type, row.updated_at, row.updated_by) for row in found]

    async def file(self, who: Actor, name: str) -> bytes:
        """The bytes of a file. Raises NotFound."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, lambda session: shelf.file(session, name))
        if found is None:
            raise NotFound(f"There is no file “{name}”.")
        return found[1]

    async def put_file(self, who: Actor, name: str, content: bytes, media_type: str) -> FileInfo:
        """Keep or replace a file."""
        who.require(Permission.EDIT)
        try:
            await self.write_file(who.tenant, name, content, media_type, by=who.name)
        except NodeError as error:
            too_large = error.code.startswith("limit.")
            code, status = (error.code, 413) if too_large else ("file.invalid", 422)
            raise FactoryError(error.message, code=code, fix=error.fix, status=status) from None
        return FileInfo(name, len(content), media_type, time.time(), who.name)

    async def delete_file(self, who: Actor, name: str) -> None:
        """Remove a file. Raises NotFound."""
        who.require(Permission.EDIT)
        if not await self._db.write(who.tenant, lambda session: shelf.remove_file(session, name)):
            raise NotFound(f"There is no file “{name}”.")

    async def tables(self, who: Actor) -> list[TableInfo]:
        """All tables with how many rows they have."""
        who.require(Permission.VIEW)
        return [TableInfo(name, rows) for name, rows in await self._db.read(who.tenant, shelf.tables)]

    async def rows(self, who: Actor, table: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """The first rows of a table."""
        who.require(Permission.VIEW)
        return await self.read_rows(who.tenant, table, limit)

    async def clear(self, who: Actor, table: str) -> None:
        """Remove a table with all its rows. Raises NotFound."""
        who.require(Permission.EDIT)
        if not await self._db.write(who.tenant, lambda session: shelf.clear(session, table)):
            raise NotFound(f"There is no table “{table}”.")

    # --- for steps, whose run carries the right -----------------------------------------------------------------------------

    async def read_rows(self, tenant: str, table: str, limit: int) -> list[dict[str, Any]]:
        """Rows in the order they were added."""
        found = await self._db.read(tenant, lambda session: shelf.rows(session, table, limit=limit))
        return [row.data if isinstance(row.data, dict) else {"value": row.data} for row in found]

    async def append_rows(
        self,
        tenant: str,
        table: str,
        rows: Sequence[Mapping[str, Any]],
        if_new: Callable[[TenantSession], bool] = lambda _: True,
        *,
        run_id: str = "",
    ) -> int:
        """Add rows if `if_new` says so within the same transaction; returns how many rows were asked to be added."""
        name = _checked_name(table, "table", 120)
        if len(rows) > MAX_ROWS:
            raise NodeError(
                f"{len(rows):,} rows at once are too many: up to {MAX_ROWS:,}.",
                category="limit",
                fix="Split the list into batches first.",
            )
        plain = []
        for row in rows:
            try:
                size = len(orjson.dumps(row))
            except TypeError as error:
                raise NodeError(f"A row cannot be kept: {error}.") from None
            if size > MAX_ROW:
                raise NodeError(f"A row takes {size // 1024:,} KB; up to {MAX_ROW // 1024} KB.", category="limit")
            plain.append(dict(row))

        def write(session: TenantSession) -> None:
            if if_new(session) and plain:
                number = shelf.append(session, name, plain, time.time())
                self.on_rows(session, name, plain, number, run_id)

        await self._db.write(tenant, write)
        self.on_kept()
        return len(plain)

    async def read_file(self, tenant: str, name: str) -> bytes:
        """The bytes. Raises NodeError."""
        found = await self._db.read(tenant, lambda session: shelf.file(session, name))
        if found is None:
            raise NodeError(
                f"There is no file “{name}”.", category="configuration", fix="Upload it under Settings → Files."
            )
        return found[1]

    async def write_file(
        self, tenant: str, name: str, content: bytes, media_type: str, *, by: str, run_id: str = "", key: str = ""
    ) -> Mapping[str, Any]:
        """Keep or replace a file; `key` is the same when a step of a run does it again. Raises NodeError for a name or size
        that cannot be kept."""
        checked = _checked_name(name, "file", 200)
        self._limits.check_step(tenant, "upload_bytes", len(content), "The file takes")
        digest = hashlib.sha256(content).hexdigest()
        kind = media_type[:100]
        file = {"name": checked, "size": len(content), "media_type": kind, "hash": digest}

        def write(session: TenantSession) -> None:
            shelf.put_file(session, checked, hash=digest, content=content, media_type=kind, at=time.time(), by=by)
            self.on_file(session, file, run_id, key)

        await self._db.write(tenant, write)
        self.on_kept()
        return file


def _checked_name(name: str, what: str, longest: int) -> str:
    found = str(name).strip()
    if not found or len(found) > longest or any(ord(c) < 32 or c in "/\\" for c in found):
        raise NodeError(
            f"“{found[:60]}” cannot name a {what}: up to {longest} characters, without slashes.",
            fix=f"Check what the formula for the {what}'s name gives.",
        )
    return found
