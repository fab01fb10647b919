"""Versions: numbered snapshots of a blueprint, never changed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, ForeignKeyConstraint, Text, func
from sqlmodel import Field, col, select

from storage import document
from storage.tenancy import Owned, TenantSession


class Version(Owned, table=True):
    """One snapshot; its text is in `document` under `content_hash`."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "blueprint_id"], ["blueprint.tenant_id", "blueprint.id"]),
        ForeignKeyConstraint(["tenant_id", "content_hash"], ["document.tenant_id", "document.hash"]),
    )

    blueprint_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    content_hash: str = Field(max_length=64)
    note: str = Field(default="", sa_column=Column(Text, nullable=False))
    created_at: float
    created_by: str = ""


def add(session: TenantSession, blueprint_id: str, *, hash: str, text: str, note: str, at: float, by: str) -> Version:
    """The next version of the blueprint; the last one again when nothing changed since and there is no new note."""
    last = latest(session, blueprint_id)
    if last is not None and last.content_hash == hash and not note:
        return last
    document.put(session, hash, text, at)
    row = Version(
        blueprint_id=blueprint_id,
        number=last.number + 1 if last else 1,
        content_hash=hash,
        note=note,
        created_at=at,
        created_by=by,
    )
    session.add(row)
    session.flush()
    return row


def get(session: TenantSession, blueprint_id: str, number: int) -> Version | None:
    """One version, without its text."""
    return session.find(Version, blueprint_id, number)


def text(session: TenantSession, row: Version) -> str:
    """The JSON of a version."""
    found = document.get(session, row.content_hash)
    assert found is not None
    return found


def latest(session: TenantSession, blueprint_id: str) -> Version | None:
    """The version with the highest number."""
    newest = select(func.max(Version.number)).where(Version.blueprint_id == blueprint_id).scalar_subquery()
    return session.exec(select(Version).where(Version.blueprint_id == blueprint_id, Version.number == newest)).first()


def listed(session: TenantSession, blueprint_id: str) -> Sequence[Version]:
    """All versions of a blueprint, newest first."""
    return session.exec(
        select(Version).where(Version.blueprint_id == blueprint_id).order_by(col(Version.number).desc())
    ).all()
