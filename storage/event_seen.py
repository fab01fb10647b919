"""Ids of events that webhooks have taken, so that the same one sent again is known."""

from __future__ import annotations

from sqlalchemy import Index, delete
from sqlmodel import Field, Session, col

from storage.tenancy import Owned, TenantSession


class EventSeen(Owned, table=True):
    """One event of one sender."""

    __tablename__ = "event_seen"
    __table_args__ = (Index("event_seen_expires", "expires_at"),)

    source: str = Field(primary_key=True)
    id: str = Field(primary_key=True, max_length=255)
    expires_at: float
    run_id: str | None = None
    """What a call with this idempotency key started."""
    digest: str | None = Field(default=None, max_length=64)
    """Of the call's content: the same key with something else in it is a mistake."""


def first_time(session: TenantSession, source: str, id: str, *, now: float, expires_at: float) -> bool:
    """Whether this event is new; from now on it is not, until it expires."""
    old = delete(EventSeen).where(
        col(EventSeen.source) == source, col(EventSeen.id) == id, col(EventSeen.expires_at) <= now
    )
    session.change(old)
    return session.put_once(EventSeen, {"source": source, "id": id}, {"expires_at": expires_at})


def claim(
    session: TenantSession, source: str, id: str, *, run_id: str, digest: str, now: float, expires_at: float
) -> EventSeen:
    """Keep which run a key stands for, unless it stands for one already; returns what counts."""
    session.change(
        delete(EventSeen).where(
            col(EventSeen.source) == source, col(EventSeen.id) == id, col(EventSeen.expires_at) <= now
        )
    )
    session.put_once(
        EventSeen, {"source": source, "id": id}, {"expires_at": expires_at, "run_id": run_id, "digest": digest}
    )
    found = session.find(EventSeen, source, id)
    assert found is not None
    return found


def known(session: TenantSession, source: str, id: str, now: float) -> bool:
    """Whether it was seen and counts still."""
    found = session.find(EventSeen, source, id)
    return found is not None and found.expires_at > now


def purge(session: Session, now: float) -> int:
    """Forget what has expired; through Database.write_all."""
    return session.exec(delete(EventSeen).where(col(EventSeen.expires_at) <= now)).rowcount
