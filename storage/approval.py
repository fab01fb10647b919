"""Approvals: what waits for a person, and what they decided. A decision is made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Index, Text, and_, func, text
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, col, select, update

from storage.columns import Json
from storage.run import UNFINISHED, Run
from storage.tenancy import Owned, TenantSession


class Approval(Owned, table=True):
    """One question of a run to a person."""

    __table_args__ = (
        Index("approval_in_state", "tenant_id", "state", "created_at"),
        Index("approval_of_run", "tenant_id", "run_id"),
        Index(
            "approval_to_expire",
            "expires_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: str = Field(primary_key=True)
    run_id: str
    node: str
    iteration: str = ""
    blueprint_id: str
    blueprint_name: str
    title: str = Field(sa_column=Column(Text, nullable=False))
    details: Any = Field(default=None, sa_column=Column(Json))
    choices: list[str] = Field(default_factory=list, sa_column=Column(Json, nullable=False))
    state: str = "pending"
    created_at: float
    expires_at: float | None = None
    decided_by: str = ""
    decided_at: float | None = None
    choice: str = ""
    note: str = Field(default="", sa_column=Column(Text, nullable=False))


def put(session: TenantSession, id: str, values: Mapping[str, Any]) -> bool:
    """A new question, unless it is here already: a run that is taken up again asks only once. Whether it is new."""
    if session.find(Approval, id) is not None:
        return False
    session.add(Approval(id=id, **values))
    session.flush()
    return True


def get(session: TenantSession, id: str) -> Approval | None:
    """The question."""
    return session.find(Approval, id)


def listed(session: TenantSession, *, pending: bool = True, limit: int = 200) -> Sequence[Approval]:
    """What waits, oldest first; or what is decided, newest first."""
    query = select(Approval).limit(limit)
    if pending:
        return session.exec(query.where(Approval.state == "pending").order_by(col(Approval.created_at))).all()
    return session.exec(query.where(Approval.state != "pending").order_by(col(Approval.created_at).desc())).all()


def of_run(session: TenantSession, run_id: str) -> Sequence[Approval]:
    """Everything a run asked, oldest first."""
    return session.exec(select(Approval).where(Approval.run_id == run_id).order_by(col(Approval.created_at))).all()


def waiting(session: TenantSession) -> int:
    """How many wait."""
    return session.exec(select(func.count()).select_from(Approval).where(Approval.state == "pending")).one()


def move(session: TenantSession, id: str, *, expected: str, to: str, **changes: Any) -> bool:
    """Change the state and more. False: it is not in the expected state, nothing changed."""
    own = update(Approval).where(col(Approval.id) == id, col(Approval.state) == expected)
    return session.change(own.values(state=to, **changes)) == 1


def decide(session: TenantSession, id: str, *, to: str, by: str, at: float, note: str = "", choice: str = "") -> bool:
    """Decide what is pending and not expired. False: it is decided, expired, or not there."""
    return (
        session.change(
            update(Approval)
            .where(
                col(Approval.id) == id,
                col(Approval.state) == "pending",
                col(Approval.expires_at).is_(None) | (col(Approval.expires_at) > at),
            )
            .values(state=to, decided_by=by, decided_at=at, note=note, choice=choice)
        )
        == 1
    )


def cancel_of_run(session: TenantSession, run_id: str, at: float) -> int:
    """The run ended without an answer."""
    return session.change(
        update(Approval)
        .where(col(Approval.run_id) == run_id, col(Approval.state) == "pending")
        .values(state="cancelled", decided_at=at)
    )


def overdue(session: Session, now: float, limit: int = 1_000) -> Sequence[Approval]:
    """What nobody decided in time, over all tenants; through Database.read_all."""
    return session.exec(
        select(Approval)
        .where(Approval.state == "pending", col(Approval.expires_at).is_not(None), col(Approval.expires_at) <= now)
        .order_by(col(Approval.expires_at))
        .limit(limit)
    ).all()


def undelivered(session: Session) -> Sequence[Approval]:
    """What was decided while the run that asked goes on or waits, over all tenants; through Database.read_all."""
    asker = aliased(Run)
    return session.exec(
        select(Approval)
        .join(asker, and_(col(asker.tenant_id) == col(Approval.tenant_id), col(asker.id) == col(Approval.run_id)))
        .where(col(Approval.state).in_(("approved", "rejected", "expired")), col(asker.state).in_(UNFINISHED))
        .order_by(col(Approval.created_at))
    ).all()
