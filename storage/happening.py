"""What deployed agents listen for inside the product, and what happened: written where the fact is, started from here.

A happening is kept with the id of the run that it starts, so that after a crash the run is started if it is not there, and
never twice; it stays for a while as the mark that this was told already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, ForeignKeyConstraint, Index, and_, delete, or_, text
from sqlmodel import Field, Session, col, select, update

from storage.columns import Json
from storage.deployment import Deployment
from storage.run import FINISHED, Run
from storage.tenancy import Owned, TenantSession

Kind = Literal["run", "row", "file"]


class Listener(Owned, table=True):
    """A trigger of a deployment that waits for something inside: another agent's end, a row, a file.

    `subject` is what it watches: an agent's id, a table's name, or the pattern of a file's name.
    """

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "deployment_id"], ["deployment.tenant_id", "deployment.id"]),
        Index("listener_of_deployment", "tenant_id", "deployment_id"),
        Index("listener_to", "tenant_id", "kind", "subject"),
    )

    id: str = Field(primary_key=True)
    kind: str = Field(max_length=8)
    subject: str = Field(max_length=255)
    states: list[str] = Field(default_factory=list, sa_column=Column(Json, nullable=False))
    deployment_id: str
    blueprint_id: str
    node: str
    since: float


class Happening(Owned, table=True):
    """Something that a listener waited for. `cause` says what exactly, so that it is told once."""

    __table_args__ = (
        Index(
            "happening_open",
            "happened_at",
            sqlite_where=text("done_at IS NULL"),
            postgresql_where=text("done_at IS NULL"),
        ),
        Index("happening_run", "run_id"),
        Index("happening_done", "done_at"),
    )

    listener_id: str = Field(primary_key=True)
    cause: str = Field(primary_key=True, max_length=300)
    run_id: str
    deployment_id: str
    node: str
    depth: int
    event: Any = Field(default=None, sa_column=Column(Json))
    happened_at: float
    done_at: float | None = None
    note: str = ""


def replace(session: TenantSession, deployment_id: str, rows: Iterable[Listener]) -> None:
    """What a deployment listens for from now on; a listener that stays keeps its id and since when it listens."""
    before = {(row.node, row.kind, row.subject): row for row in of(session, deployment_id)}
    for row in rows:
        kept = before.pop((row.node, row.kind, row.subject), None)
        if kept is None:
            session.add(row)
        else:
            kept.states = row.states
    if gone := [row.id for row in before.values()]:
        session.change(delete(Listener).where(col(Listener.id).in_(gone)))
    session.flush()


def of(session: TenantSession, deployment_id: str) -> Sequence[Listener]:
    """What a deployment listens for."""
    return session.exec(
        select(Listener).where(Listener.deployment_id == deployment_id).order_by(col(Listener.id))
    ).all()


def listening(
    session: TenantSession, kind: Kind, subject: str | None = None, environment: str | None = None
) -> Sequence[Listener]:
    """The listeners of deployments that are active, or paused so that nothing is lost."""
    query = select(Listener).join(Deployment, col(Deployment.id) == Listener.deployment_id)
    query = query.where(Listener.kind == kind, _hears(environment)).order_by(col(Listener.id))
    return session.exec(query if subject is None else query.where(Listener.subject == subject)).all()


def _hears(environment: str | None) -> ColumnElement[bool]:
    awake = or_(
        col(Deployment.state) == "active", and_(col(Deployment.state) == "paused", col(Deployment.hold).is_(True))
    )
    where = col(Deployment.clocks).is_(True) if environment is None else col(Deployment.environment) == environment
    return and_(awake, where)


def note(
    session: TenantSession,
    listener: Listener,
    cause: str,
    *,
    run_id: str,
    event: Any,
    depth: int,
    at: float,
    refused: str = "",
) -> bool:
    """Keep that something happened. False: this was told already. With a refusal no run will follow."""
    values = {
        "run_id": run_id,
        "deployment_id": listener.deployment_id,
        "node": listener.node,
        "depth": depth,
        "event": None if refused else event,
        "happened_at": at,
        "done_at": at if refused else None,
        "note": refused,
    }
    return session.put_once(Happening, {"listener_id": listener.id, "cause": cause[:300]}, values)


def depth_of(session: TenantSession, run_id: str) -> int:
    """How many happenings, one starting the next, led to this run."""
    found = session.exec(select(Happening.depth).where(Happening.run_id == run_id)).first()
    return found or 0


def done(session: TenantSession, run_id: str, at: float, note: str = "") -> bool:
    """The run is there, or never will be: then the note says why. What was told is forgotten, that it was told is kept."""
    return (
        session.change(
            update(Happening)
            .where(col(Happening.run_id) == run_id, col(Happening.done_at).is_(None))
            .values(done_at=at, event=None, note=note)
        )
        > 0
    )


def recent(session: TenantSession, deployment_id: str, limit: int = 20) -> Sequence[Happening]:
    """What happened for a deployment, newest first."""
    return session.exec(
        select(Happening)
        .where(Happening.deployment_id == deployment_id)
        .order_by(col(Happening.happened_at).desc())
        .limit(limit)
    ).all()


def ended_untold(session: TenantSession, listener: Listener, since: float) -> Sequence[Run]:
    """Runs of the watched agent that ended since then, and of which the listener was not told."""
    told = select(Happening.cause).where(Happening.listener_id == listener.id, Happening.cause == Run.id).exists()
    return session.exec(
        select(Run)
        .where(
            Run.blueprint_id == listener.subject,
            col(Run.state).in_(listener.states or FINISHED),
            col(Run.finished_at) >= max(since, listener.since),
            ~told,
        )
        .order_by(col(Run.id))
    ).all()


# --- over all tenants ---------------------------------------------------------------------------------------------------


def open_ones(session: Session, limit: int = 1_000) -> Sequence[Happening]:
    """What happened and has no run yet, oldest first; through Database.read_all."""
    return session.exec(
        select(Happening).where(col(Happening.done_at).is_(None)).order_by(col(Happening.happened_at)).limit(limit)
    ).all()


def watched(session: Session) -> Sequence[tuple[str, str, str]]:
    """(tenant, kind, subject) of everything that is listened for; through Database.read_all."""
    return session.exec(select(Listener.tenant_id, Listener.kind, Listener.subject).distinct()).all()


def purge(session: Session, before: float) -> int:
    """Forget what was done before then; through Database.write_all."""
    return session.exec(delete(Happening).where(col(Happening.done_at) < before)).rowcount
