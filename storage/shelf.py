"""The shelves of a tenant: small tables of records that agents fill, and files kept once per content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Index, LargeBinary, delete, func
from sqlmodel import Field, col, select

from storage.columns import Json
from storage.tenancy import Owned, TenantSession


class TableRow(Owned, table=True):
    """One record of a table. A table is there as long as it has rows."""

    __tablename__ = "table_row"

    name: str = Field(primary_key=True, max_length=120)
    number: int = Field(primary_key=True)
    data: Any = Field(default=None, sa_column=Column(Json))
    created_at: float


class Blob(Owned, table=True):
    """The bytes of files, under the hash of their content. The only place with bytes: nothing here is ever loaded as code."""

    hash: str = Field(primary_key=True, max_length=64)
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class File(Owned, table=True):
    """A file by name; its bytes are in Blob."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "hash"], ["blob.tenant_id", "blob.hash"]),
        Index("file_of_blob", "tenant_id", "hash"),
    )

    name: str = Field(primary_key=True, max_length=255)
    hash: str = Field(max_length=64)
    size: int
    media_type: str
    updated_at: float
    updated_by: str = ""


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(session: TenantSession) -> Sequence[tuple[str, int]]:
    """(name, number of rows) of each table, by name."""
    return session.exec(select(TableRow.name, func.count()).group_by(TableRow.name).order_by(col(TableRow.name))).all()


def rows(session: TenantSession, name: str, *, limit: int = 1_000, after: int = 0) -> Sequence[TableRow]:
    """The rows of a table in the order they were added; `after` is the number of the last row of the page before."""
    return session.exec(
        select(TableRow)
        .where(TableRow.name == name, TableRow.number > after)
        .order_by(col(TableRow.number))
        .limit(limit)
    ).all()


def append(session: TenantSession, name: str, data: Iterable[Any], at: float) -> int:
    """Add rows at the end; how many the table has now been given in all."""
    session.hold("table", name)
    number = session.exec(select(func.max(TableRow.number)).where(TableRow.name == name)).one() or 0
    for row in data:
        number += 1
        session.add(TableRow(name=name, number=number, data=row, created_at=at))
    session.flush()
    return number


def replace(session: TenantSession, name: str, data: Iterable[Any], at: float) -> int:
    """Make these the rows of a table."""
    clear(session, name)
    return append(session, name, data, at)


def clear(session: TenantSession, name: str) -> int:
    """Remove a table; how many rows it had."""
    return session.change(delete(TableRow).where(col(TableRow.name) == name))


# --- files ------------------------------------------------------------------------------------------------------------


def put_file(
    session: TenantSession, name: str, *, hash: str, content: bytes, media_type: str, at: float, by: str
) -> None:
    """Keep or replace a file."""
    before = session.find(File, name)
    old = before.hash if before else None
    session.put_once(Blob, {"hash": hash}, {"content": content})
    session.upsert(
        File,
        {"name": name},
        {"hash": hash, "size": len(content), "media_type": media_type, "updated_at": at, "updated_by": by},
    )
    if old is not None and old != hash:
        _drop_unused(session, old)


def file(session: TenantSession, name: str) -> tuple[File, bytes] | None:
    """A file and its bytes."""
    return session.exec(
        select(File, Blob.content).join(Blob, col(Blob.hash) == col(File.hash)).where(File.name == name)
    ).first()


def files(session: TenantSession) -> Sequence[File]:
    """All files without their bytes, by name."""
    return session.exec(select(File).order_by(col(File.name))).all()


def remove_file(session: TenantSession, name: str) -> bool:
    """Remove a file, and its bytes unless another file has the same."""
    row = session.find(File, name)
    if row is None:
        return False
    session.delete(row)
    session.flush()
    _drop_unused(session, row.hash)
    return True


def _drop_unused(session: TenantSession, hash: str) -> None:
    used = select(File.name).where(File.hash == hash).limit(1)
    if session.exec(used).first() is None:
        session.change(delete(Blob).where(col(Blob.hash) == hash))
