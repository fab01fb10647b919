"""Blueprints: the one draft of each, saved at every gesture under a revision that only goes up."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Text
from sqlmodel import Field, col, select, update

from storage.tenancy import Owned, TenantSession


class Blueprint(Owned, table=True):
    """The draft. `document` is its JSON; name and description are copies of what is in it, for lists."""

    id: str = Field(primary_key=True)
    name: str
    description: str = Field(default="", sa_column=Column(Text, nullable=False))
    document: str = Field(sa_column=Column(Text, nullable=False))
    revision: int = 1
    created_at: float
    updated_at: float
    updated_by: str = ""
    deleted_at: float | None = None


def add(session: TenantSession, row: Blueprint) -> Blueprint:
    """A new blueprint."""
    session.add(row)
    session.flush()
    return row


def get(session: TenantSession, id: str) -> Blueprint | None:
    """The blueprint, deleted or not."""
    return session.find(Blueprint, id)


def save(
    session: TenantSession, id: str, *, revision: int, name: str, description: str, document: str, at: float, by: str
) -> bool:
    """Save the draft that was read at `revision`. False when somebody else saved in between, or it is deleted."""
    done = session.change(
        update(Blueprint)
        .where(col(Blueprint.id) == id, col(Blueprint.revision) == revision, col(Blueprint.deleted_at).is_(None))
        .values(
            name=name,
            description=description,
            document=document,
            revision=Blueprint.revision + 1,
            updated_at=at,
            updated_by=by,
        )
    )
    return done == 1


def delete(session: TenantSession, id: str, at: float) -> bool:
    """Put it in the bin. False when it is there already or does not exist."""
    done = session.change(
        update(Blueprint).where(col(Blueprint.id) == id, col(Blueprint.deleted_at).is_(None)).values(deleted_at=at)
    )
    return done == 1


def undelete(session: TenantSession, id: str) -> bool:
    """Take it out of the bin."""
    done = session.change(
        update(Blueprint).where(col(Blueprint.id) == id, col(Blueprint.deleted_at).is_not(None)).values(deleted_at=None)
    )
    return done == 1


def listed(session: TenantSession, *, deleted: bool = False) -> Sequence[Blueprint]:
    """All that are (not) in the bin, last changed first."""
    gone = col(Blueprint.deleted_at)
    return session.exec(
        select(Blueprint)
        .where(gone.is_not(None) if deleted else gone.is_(None))
        .order_by(col(Blueprint.updated_at).desc(), col(Blueprint.id))
    ).all()


def ids(session: TenantSession) -> Sequence[str]:
    """The ids of all that are not in the bin, without reading their documents."""
    return session.exec(select(Blueprint.id).where(col(Blueprint.deleted_at).is_(None))).all()


def with_text(session: TenantSession, text: str, limit: int = 200) -> Sequence[tuple[str, str]]:
    """(id, document) of those whose draft holds a text, last changed first."""
    query = select(Blueprint.id, Blueprint.document).where(
        col(Blueprint.deleted_at).is_(None), col(Blueprint.document).contains(text, autoescape=True)
    )
    return session.exec(query.order_by(col(Blueprint.updated_at).desc()).limit(limit)).all()
