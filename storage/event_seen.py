"""Ids of events that webhooks have taken, so that the same one sent again is known."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Index, delete
from sqlmodel import Field, Session, col

from storage.tenancy import Owned, TenantSession

Place = tuple[str, str]


class EventSeen(Owned, table=True):
    """One event of one sender."""

    __tablename__ = "event_seen"
    __table_args__ = (Index("event_seen_expires", "expires_at"),)

    source: str = Field(primary_key=True)
    id: str = Field(primary_key=True, max_length=255)
    expires_at: float
    run_id: str | None = None
    """What the call started."""
    digest: str | None = Field(default=None, max_length=64)
    """Of the call's content: the same key with something else in it is a mistake."""


def first_time(session: TenantSession, source: str, id: str, *, now: float, expires_at: float) -> bool:
    """Whether this event is new; from now on it is not, until it expires."""
    old = delete(EventSeen).where(
        col(EventSeen.source) == source, col(EventSeen.id) == id, col(EventSeen.expires_at) <= now
    )
    session.change(old)
    return session.put_once(EventSeen, {"source": source, "id": id}, {"expires_at": expires_at})


def look(session: TenantSession, places: Iterable[Place], now: float) -> dict[Place, EventSeen]:
    """Those of these (source, id) that were seen and count still; what has expired is forgotten."""
    found: dict[Place, EventSeen] = {}
    for source, id_ in places:
        old = delete(EventSeen).where(
            col(EventSeen.source) == source, col(EventSeen.id) == id_, col(EventSeen.expires_at) <= now
        )
        session.change(old)
        if (row := session.find(EventSeen, source, id_)) is not None:
            found[source, id_] = row
    return found


def claim(
    session: TenantSession, places: Iterable[Place], *, run_id: str, digest: str, expires_at: float
) -> dict[Place, EventSeen]:
    """Keep which run these stand for, unless they stand for one already; returns what counts."""
    found: dict[Place, EventSeen] = {}
    for source, id_ in places:
        values = {"expires_at": expires_at, "run_id": run_id, "digest": digest}
        session.put_once(EventSeen, {"source": source, "id": id_}, values)
        row = session.find(EventSeen, source, id_)
        assert row is not None
        found[source, id_] = row
    return found


def purge(session: Session, now: float) -> int:
    """Forget what has expired; through Database.write_all."""
    return session.exec(delete(EventSeen).where(col(EventSeen.expires_at) <= now)).rowcount
