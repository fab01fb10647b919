"""Crews: what was assembled, who belongs to it, how it ended, and what people did to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, ForeignKeyConstraint, Index, Text, or_
from sqlmodel import Field, Session, col, select, update

from storage.columns import Json
from storage.server import Server
from storage.tenancy import Owned, TenantSession

LIVE: Final = ("assembling", "running", "paused")


class Crew(Owned, table=True):
    """One crew. Its `epoch` counts how often it was assembled; `wanted` is what its server is asked to do to it."""

    __table_args__ = (Index("crew_by_state", "state"), Index("crew_by_name", "tenant_id", "name"))

    id: str = Field(primary_key=True)
    name: str
    state: str
    why: str = Field(default="", sa_column=Column(Text, nullable=False))
    manifest: Any = Field(default=None, sa_column=Column(Json))
    epoch: int = 1
    server_id: str | None = None
    wanted: str = ""
    by: str
    by_name: str
    created_at: float
    changed_at: float
    ended_at: float | None = None


class CrewMember(Owned, table=True):
    """One member: a seat that somebody with a role has. `spec` is its part of the manifest."""

    __tablename__ = "crew_member"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "crew_id"], ["crew.tenant_id", "crew.id"], ondelete="CASCADE"),
    )

    crew_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    role: str
    state: str
    why: str = Field(default="", sa_column=Column(Text, nullable=False))
    spec: Any = Field(default=None, sa_column=Column(Json))
    worker: str | None = None
    run_id: str | None = None
    restarts: int = 0
    result: Any = Field(default=None, sa_column=Column(Json))
    since: float


class CrewEvent(Owned, table=True):
    """Something that was done to a crew, or happened to it: who, what, to which member, and why."""

    __tablename__ = "crew_event"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "crew_id"], ["crew.tenant_id", "crew.id"], ondelete="CASCADE"),
        Index("crew_event_of_crew", "tenant_id", "crew_id", "id"),
    )

    id: str = Field(primary_key=True)
    crew_id: str
    at: float
    by: str
    what: str
    member: str | None = None
    why: str = Field(default="", sa_column=Column(Text, nullable=False))


def add(session: TenantSession, row: Crew, members: Iterable[CrewMember]) -> None:
    """A new crew."""
    session.add(row)
    session.flush()
    session.add_all(list(members))
    session.flush()


def put_members(session: TenantSession, members: Iterable[CrewMember]) -> None:
    """Members as they are now, new ones too."""
    for member in members:
        values = member.model_dump(exclude={"tenant_id", "crew_id", "id"})
        session.upsert(CrewMember, {"crew_id": member.crew_id, "id": member.id}, values)


def note(session: TenantSession, event: CrewEvent) -> None:
    """Write down what was done."""
    session.add(event)
    session.flush()


def get(session: TenantSession, id: str) -> Crew | None:
    """The crew."""
    return session.find(Crew, id)


def live(session: TenantSession, name: str | None = None) -> Sequence[Crew]:
    """Those that have not ended, of this name if one is given."""
    query = select(Crew).where(col(Crew.state).in_(LIVE))
    return session.exec(query if name is None else query.where(Crew.name == name)).all()


def listed(session: TenantSession, *, limit: int, before: str | None = None) -> Sequence[Crew]:
    """Newest first."""
    query = select(Crew).order_by(col(Crew.id).desc()).limit(limit)
    return session.exec(query if before is None else query.where(col(Crew.id) < before)).all()


def members(session: TenantSession, crew_ids: Sequence[str]) -> Sequence[CrewMember]:
    """Of these crews, in the order they came."""
    query = select(CrewMember).where(col(CrewMember.crew_id).in_(crew_ids))
    return sorted(session.exec(query).all(), key=lambda row: (row.crew_id, len(row.id), row.id))


def events(session: TenantSession, crew_id: str, limit: int = 200) -> Sequence[CrewEvent]:
    """What was done to a crew, newest first."""
    query = select(CrewEvent).where(CrewEvent.crew_id == crew_id).order_by(col(CrewEvent.id).desc()).limit(limit)
    return session.exec(query).all()


def change(session: TenantSession, id: str, values: Mapping[str, Any]) -> bool:
    """Change a crew that has not ended; whether it was."""
    live_one = update(Crew).where(col(Crew.id) == id, col(Crew.state).in_(LIVE))
    return session.change(live_one.values(**values)) == 1


def end_members(session: TenantSession, crew_id: str, why: str, now: float) -> None:
    """Its members that have not ended end with it."""
    going = update(CrewMember).where(
        col(CrewMember.crew_id) == crew_id, col(CrewMember.state).in_(("starting", "running"))
    )
    session.change(going.values(state="stopped", why=why, since=now, worker=None))


def orphans(session: Session) -> Sequence[tuple[str, str]]:
    """(tenant, id) of crews whose server is gone; through Database.read_all."""
    query = select(Crew.tenant_id, Crew.id).where(col(Crew.state).in_(LIVE), _orphaned())
    return session.exec(query.order_by(Crew.id)).all()


def claim(session: Session, tenant: str, id: str, server: str) -> bool:
    """Take over a crew whose server is gone; False when somebody else did. Through Database.write_all."""
    own = update(Crew).where(col(Crew.tenant_id) == tenant, col(Crew.id) == id, col(Crew.state).in_(LIVE), _orphaned())
    taken = own.values(server_id=server, epoch=Crew.epoch + 1, wanted="")
    return session.exec(taken.execution_options(synchronize_session=False)).rowcount == 1


def wanted(session: Session, server: str) -> Sequence[tuple[str, str, str]]:
    """(tenant, id, what) that other servers ask this one to do; through Database.read_all."""
    query = select(Crew.tenant_id, Crew.id, Crew.wanted)
    return session.exec(query.where(Crew.server_id == server, col(Crew.state).in_(LIVE), Crew.wanted != "")).all()


def _orphaned() -> Any:
    living = select(Server.id).where(col(Server.id) == col(Crew.server_id)).correlate(Crew).exists()
    return or_(col(Crew.server_id).is_(None), ~living)
