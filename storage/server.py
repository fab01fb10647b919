"""Servers: the processes that share this database. A row lives as long as its process; each life has an id of its own.

That id is the fencing token. On PostgreSQL every transaction of a server locks its row (FOR KEY SHARE) before it writes, and who
declares a server dead deletes the row: the deletion waits until such a transaction is over, and no later one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, or_
from sqlmodel import Field, Session, col, select, update

from storage.tenancy import Owned

EVERYBODY = "*"
"""The tenant of rows that belong to the installation."""

LEFT = -1
"""The beat of a server that ended as it should."""


class Server(Owned, table=True):
    """One life of one process. `beat` counts on with each renewal; who sees it stand still knows that nobody is there."""

    id: str = Field(primary_key=True)
    beat: int = 0
    started_at: float
    renewed_at: float
    """By the server's own clock, for people to read; nothing is decided by it."""


class Pulse(NamedTuple):
    """A server, and how often it has renewed."""

    id: str
    beat: int


def join(session: Session, id: str, now: float, *, before: str = "", alone: bool = False) -> None:
    """A new life, in place of the one `before` if this process had one; through Database.write_all.

    Who is `alone` knows that there is no other process: all lives before are over.
    """
    over = delete(Server) if alone else delete(Server).where(or_(col(Server.id) == before, col(Server.beat) == LEFT))
    session.exec(over)
    session.add(Server(tenant_id=EVERYBODY, id=id, started_at=now, renewed_at=now))
    session.flush()


def renew(session: Session, id: str, now: float) -> bool:
    """Still here. False: the others have given this life up; through Database.write_apart."""
    own = update(Server).where(col(Server.tenant_id) == EVERYBODY, col(Server.id) == id)
    return session.exec(own.values(beat=Server.beat + 1, renewed_at=now)).rowcount == 1


def pulses(session: Session) -> Sequence[Pulse]:
    """Every server that nobody has given up; through Database.read_all."""
    return [Pulse(*row) for row in session.exec(select(Server.id, Server.beat).order_by(Server.id))]


def give_up(session: Session, id: str, beat: int) -> bool:
    """Declare a life over that still stands at that beat. False: it moved, is gone, or writes at this moment."""
    # A row that its server holds is passed over: waiting for it here would keep us from renewing.
    dead = (
        select(Server.id)
        .where(col(Server.tenant_id) == EVERYBODY, col(Server.id) == id, col(Server.beat) == beat)
        .with_for_update(skip_locked=True)
    )
    found = session.exec(dead).first()
    if found is None:
        return False
    return session.exec(delete(Server).where(col(Server.id) == found)).rowcount == 1


def leave(session: Session, id: str) -> None:
    """This life ends as it should: the others need not wait; through Database.write_all."""
    # The row stays for them to find: who was here for less than a second was seen by nobody.
    session.exec(update(Server).where(col(Server.id) == id).values(beat=LEFT))
