"""What runs wait for from outside themselves: a named event, or a call of an address that only one was told.

A row waits, then something arrives, once; the run that asked is told by whoever wrote it, or after a crash by the next start.
Of an address only the hash is kept. It may be called before its run begins to wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Index, and_, delete
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, col, select, update

from storage.columns import Json
from storage.run import UNFINISHED, Run
from storage.tenancy import Owned, TenantSession


class EventWait(Owned, table=True):
    """One wait of one step; or an address that no step waits at yet, then `run_id` is empty; or an event that was sent.

    `state` is waiting, arrived, expired or cancelled, of an event sent. `subject` is the event's name and the key that has to
    match, `heard` the event that ended the wait.
    """

    __tablename__ = "event_wait"
    __table_args__ = (
        Index("event_wait_token", "token_hash", unique=True),
        Index("event_wait_for", "tenant_id", "subject", "state"),
        Index("event_wait_of_run", "tenant_id", "run_id"),
        Index("event_wait_expires", "expires_at"),
    )

    id: str = Field(primary_key=True)
    subject: str = Field(default="", max_length=600)
    token_hash: str | None = Field(default=None, max_length=64)
    run_id: str = ""
    node: str = ""
    iteration: str = ""
    state: str = Field(default="waiting", max_length=10)
    value: Any = Field(default=None, sa_column=Column(Json))
    heard: str | None = Field(default=None, max_length=64)
    created_at: float
    expires_at: float


def hashed(token: str) -> str:
    """What is kept of an address."""
    return hashlib.sha256(token.encode()).hexdigest()


def subject(name: str, key: str, environment: str = "live") -> str:
    """An event's name with its key. What happens in test is not heard in live, nor the other way round."""
    place = "" if environment == "live" else f"\n{environment}\n"
    return f"{place}{name}\n{key}"


def put(session: TenantSession, id: str, values: Mapping[str, Any]) -> bool:
    """A new wait, unless it is here already: a step that is run again after a crash waits once. Whether it is new."""
    return session.put_once(EventWait, {"id": id}, {"state": "waiting", "value": None, **_BLANK, **values})


_BLANK = {"subject": "", "token_hash": None, "run_id": "", "node": "", "iteration": "", "heard": None}


def get(session: TenantSession, id: str) -> EventWait | None:
    """The wait."""
    return session.find(EventWait, id)


def take_address(
    session: TenantSession, token: str, *, run_id: str, node: str, iteration: str, expires_at: float
) -> EventWait | None:
    """Let a step wait at an address. None: there is no such address, or another step has it."""
    mine = col(EventWait.token_hash) == hashed(token)
    free = (col(EventWait.run_id) == "") | (
        (col(EventWait.run_id) == run_id) & (col(EventWait.node) == node) & (col(EventWait.iteration) == iteration)
    )
    changes = {"run_id": run_id, "node": node, "iteration": iteration, "expires_at": expires_at}
    session.change(update(EventWait).where(mine, free).values(**changes))
    found = session.exec(select(EventWait).where(mine)).first()
    asked = found is not None and (found.run_id, found.node, found.iteration) == (run_id, node, iteration)
    return found if asked else None


def deliver(session: TenantSession, id: str, value: Any, now: float, *, heard: str | None = None) -> bool:
    """Something arrived at an address, or the event `heard`. False: something had before, or it is too late."""
    return (
        session.change(
            update(EventWait)
            .where(col(EventWait.id) == id, col(EventWait.state) == "waiting", col(EventWait.expires_at) > now)
            .values(state="arrived", value=value, heard=heard)
        )
        == 1
    )


def send(session: TenantSession, id: str, subject: str, value: Any, now: float, *, until: float) -> Sequence[EventWait]:
    """An event happened, and is kept until then: whoever waits for it now gets it. Returns who that is; nobody if it was sent."""
    session.hold("event", subject)
    kept = {"subject": subject, "state": "sent", "value": value, "created_at": now, "expires_at": until}
    return publish(session, subject, value, now, heard=id) if put(session, id, kept) else []


def catch_up(session: TenantSession, id: str, since: float, now: float) -> bool:
    """Give a wait that begins the first event sent since then that its step has not heard in this run. Whether there was one."""
    wait = session.find(EventWait, id)
    if wait is None:
        return False
    known = select(EventWait.heard).where(
        EventWait.run_id == wait.run_id, EventWait.node == wait.node, col(EventWait.heard).is_not(None)
    )
    before = select(EventWait).where(
        EventWait.subject == wait.subject,
        EventWait.state == "sent",
        col(EventWait.created_at) >= since,
        col(EventWait.id).not_in(known),
    )
    found = session.exec(before.order_by(col(EventWait.created_at), col(EventWait.id)).limit(1)).first()
    return found is not None and deliver(session, id, found.value, now, heard=found.id)


def publish(
    session: TenantSession, subject: str, value: Any, now: float, *, heard: str | None = None
) -> Sequence[EventWait]:
    """An event happened: whoever waits for it now gets it. Returns who that is."""
    waiting = select(EventWait).where(
        EventWait.subject == subject, EventWait.state == "waiting", col(EventWait.expires_at) > now
    )
    told: list[EventWait] = []
    while found := session.exec(waiting.order_by(col(EventWait.id)).limit(MOST)).all():
        if not (new := [row for row in found if deliver(session, row.id, value, now, heard=heard)]):
            break
        told += new
    return told


MOST = 1_000
"""How many rows are read at a time."""


def move(session: TenantSession, id: str, *, to: str) -> bool:
    """End a wait without an answer. False: it has ended."""
    own = update(EventWait).where(col(EventWait.id) == id, col(EventWait.state) == "waiting")
    return session.change(own.values(state=to)) == 1


def cancel_of_run(session: TenantSession, run_id: str) -> int:
    """The run ended without an answer."""
    own = update(EventWait).where(col(EventWait.run_id) == run_id, col(EventWait.state) == "waiting")
    return session.change(own.values(state="cancelled"))


# --- over all tenants ------------------------------------------------------------------------------------------------------


def at(session: Session, token: str) -> EventWait | None:
    """What an address belongs to; through Database.read_all."""
    return session.exec(select(EventWait).where(EventWait.token_hash == hashed(token))).first()


def undelivered(session: Session) -> Sequence[EventWait]:
    """What arrived for runs that have not ended; through Database.read_all."""
    asker = aliased(Run)
    return session.exec(
        select(EventWait)
        .join(asker, and_(col(asker.tenant_id) == col(EventWait.tenant_id), col(asker.id) == col(EventWait.run_id)))
        .where(EventWait.state == "arrived", col(asker.state).in_(UNFINISHED))
        .order_by(col(EventWait.created_at))
    ).all()


def purge(session: Session, before: float) -> int:
    """Forget what expired before then; through Database.write_all."""
    return session.exec(delete(EventWait).where(col(EventWait.expires_at) < before)).rowcount
