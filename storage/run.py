"""Runs: one row each, small, written by the journal's fast lane; lists, recovery and what is due read from here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, ColumnElement, ForeignKeyConstraint, Index, and_, case, func, or_, text
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, col, select, update

from storage.blueprint import Blueprint
from storage.columns import Json
from storage.server import Server
from storage.tenancy import Owned, TenantSession

FINISHED = ("succeeded", "failed", "cancelled")
UNFINISHED = ("accepted", "running", "waiting")


class Run(Owned, table=True):
    """One execution. `version` is None for a run of a draft; `document_hash` says what exactly it runs.

    Ids sort by time of making, so lists are ordered by id.
    """

    # No index but the key begins with the tenant: a planner that has not seen the table yet takes them for equally good, and
    # then finds one run by reading all of the tenant's.
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "document_hash"], ["document.tenant_id", "document.hash"]),
        Index("run_of_blueprint", "blueprint_id", "id"),
        Index("run_in_state", "state", "tenant_id", "id"),
        Index(
            "run_ended",
            "blueprint_id",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        Index(
            "run_of_parent",
            "parent_run",
            "tenant_id",
            "id",
            sqlite_where=text("parent_run IS NOT NULL"),
            postgresql_where=text("parent_run IS NOT NULL"),
        ),
        Index(
            "run_to_wake",
            "wake_at",
            sqlite_where=text("wake_at IS NOT NULL"),
            postgresql_where=text("wake_at IS NOT NULL"),
        ),
        Index(
            "run_unhandled",
            "tenant_id",
            "id",
            sqlite_where=text("state = 'failed' AND handled IS NULL"),
            postgresql_where=text("state = 'failed' AND handled IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    blueprint_id: str
    blueprint_name: str
    version: int | None = None
    deployment_id: str | None = None
    document_hash: str = Field(max_length=64)
    trigger: str
    started_by: str = ""
    state: str
    accepted_at: float
    finished_at: float | None = None
    wake_at: float | None = None
    parent_run: str | None = None
    parent_step: str | None = None
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(Json))
    environment: str = Field(default="live", sa_column_kwargs={"server_default": "live"})
    category: str | None = None
    """Of a failed run: what kind of trouble it was."""
    handled: str | None = None
    """Of a failed run: told to its caller, or what a person did about it (retried, dismissed); see `storage.dead_letter`."""
    server_id: str | None = None
    """The server that has it in hand; None while it waits as a row. What anybody else writes about it is refused."""


COLUMNS: tuple[str, ...] = tuple(Run.__table__.columns.keys())  # type: ignore[attr-defined]


def values(
    tenant: str,
    id: str,
    *,
    blueprint_id: str,
    blueprint_name: str,
    document_hash: str,
    trigger: str,
    state: str,
    accepted_at: float,
    version: int | None = None,
    deployment_id: str | None = None,
    started_by: str = "",
    finished_at: float | None = None,
    wake_at: float | None = None,
    parent_run: str | None = None,
    parent_step: str | None = None,
    error: dict[str, Any] | None = None,
    environment: str = "live",
    category: str | None = None,
    server_id: str | None = None,
) -> dict[str, Any]:
    """A whole new row for `RunRecord.insert`."""
    return {
        "tenant_id": tenant,
        "id": id,
        "blueprint_id": blueprint_id,
        "blueprint_name": blueprint_name,
        "version": version,
        "deployment_id": deployment_id,
        "document_hash": document_hash,
        "trigger": trigger,
        "started_by": started_by,
        "state": state,
        "accepted_at": accepted_at,
        "finished_at": finished_at,
        "wake_at": wake_at,
        "parent_run": parent_run,
        "parent_step": parent_step,
        "error": error,
        "environment": environment,
        "category": category,
        "handled": None,
        "server_id": server_id,
    }


def get(session: TenantSession, id: str) -> Run | None:
    """The run."""
    return session.find(Run, id)


def some(session: TenantSession, ids: Sequence[str]) -> Sequence[Run]:
    """Those of these runs that are there."""
    return session.exec(select(Run).where(col(Run.id).in_(ids))).all()


def listed(
    session: TenantSession,
    *,
    blueprint_id: str | None = None,
    state: str | None = None,
    deployment_id: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> Sequence[Run]:
    """Newest first; `before` is the id of the last run of the page before."""
    query = select(Run).order_by(col(Run.id).desc()).limit(limit)
    if blueprint_id is not None:
        query = query.where(Run.blueprint_id == blueprint_id)
    if state is not None:
        query = query.where(Run.state == state)
    if deployment_id is not None:
        query = query.where(Run.deployment_id == deployment_id)
    if before is not None:
        query = query.where(col(Run.id) < before)
    return session.exec(query).all()


def children(session: TenantSession, parent_run: str) -> Sequence[Run]:
    """The runs that a run called, oldest first."""
    return session.exec(select(Run).where(Run.parent_run == parent_run).order_by(col(Run.id))).all()


def last(session: TenantSession, blueprint_id: str, trigger: str | None = None) -> Run | None:
    """The newest run of a blueprint, through that trigger if one is named."""
    query = select(Run).where(Run.blueprint_id == blueprint_id).order_by(col(Run.id).desc()).limit(1)
    if trigger is not None:
        query = query.where(Run.trigger == trigger)
    return session.exec(query).first()


def latest(session: TenantSession) -> dict[str, Run]:
    """The newest run of each blueprint that has one, by blueprint."""
    other = aliased(Run)
    newest = select(func.max(other.id)).where(other.blueprint_id == Blueprint.id).correlate(Blueprint).scalar_subquery()
    ids = [id for id in session.exec(select(newest).select_from(Blueprint)) if id is not None]
    return {row.blueprint_id: row for row in session.exec(select(Run).where(col(Run.id).in_(ids)))}


def counts(session: TenantSession, *, since: float = 0.0, blueprint_id: str | None = None) -> dict[str, int]:
    """How many runs made since then are in each state."""
    # Every state by name: so it is counted in the index, state by state, without touching a row.
    query = select(Run.state, func.count()).where(col(Run.state).in_(UNFINISHED + FINISHED)).group_by(Run.state)
    if since > 0:
        query = query.where(col(Run.id) >= first_id(since))
    if blueprint_id is not None:
        query = query.where(Run.blueprint_id == blueprint_id)
    return dict(session.exec(query).all())


def move(session: TenantSession, id: str, *, expected: Sequence[str], to: str, **changes: Any) -> bool:
    """Change the state if it is one of the expected ones. False: the race was lost, nothing changed."""
    done = session.change(
        update(Run).where(col(Run.id) == id, col(Run.state).in_(expected)).values(state=to, **changes)
    )
    return done == 1


# --- over all tenants: recovery and the clock, through Database.read_all ------------------------------------------------


def interrupted(session: Session) -> Sequence[tuple[str, str]]:
    """(tenant, run id) of every run that was going on, oldest first: what a crash interrupted, where nobody else can be at work."""
    going_on = select(Run.tenant_id, Run.id).where(col(Run.state).in_(("accepted", "running")))
    return session.exec(going_on.order_by(col(Run.id))).all()


def take(session: Session, tenant: str, id: str, server: str) -> bool:
    """Take an unfinished run in hand that nobody has, or whose server is gone; through Database.write_all.

    False: it ended, or another server has it.
    """
    free = or_(col(Run.server_id).is_(None), col(Run.server_id) == server, _lost_its_server())
    own = update(Run).where(col(Run.tenant_id) == tenant, col(Run.id) == id, col(Run.state).in_(UNFINISHED), free)
    running = case((col(Run.state) == "waiting", "running"), else_=col(Run.state))
    return (
        session.exec(own.values(server_id=server, state=running).execution_options(synchronize_session=False)).rowcount
        == 1
    )


def adopt(session: Session, server: str, limit: int = 500, after: str = "") -> Sequence[tuple[str, str]]:
    """Take in hand runs that were going on in a server that is gone; (tenant, run id), through Database.write_all.

    Those with an id up to `after` are passed over: who adopts in several rounds need not look at them again.
    """
    free = or_(col(Run.server_id).is_(None), _lost_its_server())
    lost = (
        select(Run.tenant_id, Run.id)
        .where(col(Run.state).in_(("accepted", "running")), col(Run.id) > after, free)
        .order_by(col(Run.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for tenant, id in session.exec(lost).all():
        ids[tenant].append(id)
    taken: list[tuple[str, str]] = []
    for tenant, some in ids.items():
        # Tenant by tenant: a list of pairs would be answered by reading every run there is.
        own = update(Run).where(col(Run.tenant_id) == tenant, col(Run.id).in_(some), free).values(server_id=server)
        found = session.exec(
            own.returning(col(Run.tenant_id), col(Run.id)).execution_options(synchronize_session=False)
        )
        taken += [(tenant, id) for tenant, id in found.all()]
    return sorted(taken, key=itemgetter(1))


def _lost_its_server() -> ColumnElement[bool]:
    return ~select(Server.id).where(col(Server.id) == col(Run.server_id)).correlate(Run).exists()


def due(session: Session, now: float, limit: int = 1_000) -> Sequence[tuple[str, str]]:
    """(tenant, run id) of waiting runs whose time has come, the longest overdue first."""
    return session.exec(
        select(Run.tenant_id, Run.id)
        .where(col(Run.wake_at).is_not(None), col(Run.wake_at) <= now, _waiting())
        .order_by(col(Run.wake_at))
        .limit(limit)
    ).all()


def unreported(session: Session) -> Sequence[Run]:
    """Runs that ended while the run that called them still waits for them."""
    parent = aliased(Run)
    return session.exec(
        select(Run)
        .join(parent, and_(col(parent.tenant_id) == col(Run.tenant_id), col(parent.id) == col(Run.parent_run)))
        .where(col(Run.finished_at).is_not(None), col(parent.state).in_(UNFINISHED))
    ).all()


def next_wake(session: Session) -> float | None:
    """When the next waiting run has to be woken."""
    return session.exec(select(func.min(Run.wake_at)).where(col(Run.wake_at).is_not(None), _waiting())).first()


def _waiting() -> ColumnElement[bool]:
    # Said so that no index on the state fits: few runs wait for a time, many may wait for a person.
    return func.coalesce(Run.state, "") == "waiting"


ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def first_id(at: float) -> str:
    """No run made at that moment or later has a smaller id: ids begin with the millisecond in base 32."""
    milliseconds = max(0, int(at * 1000))
    digits = ""
    for _ in range(10):
        digits = ALPHABET[milliseconds & 31] + digits
        milliseconds >>= 5
    return f"run_{digits}"
