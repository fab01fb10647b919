"""Deployments: which version of a blueprint answers in an environment, live or test."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKeyConstraint, Index, and_, false, text, true
from sqlmodel import Field, Session, col, select, update

from storage.errors import Clash
from storage.tenancy import Owned, TenantSession
from storage.version import Version

LIVE = ("active", "paused")
IN_USE = "live"
"""The environment that counts when none is named."""


class Deployment(Owned, table=True):
    """A version in use; a blueprint has at most one that is not stopped in each environment."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "blueprint_id", "version"],
            ["version.tenant_id", "version.blueprint_id", "version.number"],
        ),
        Index(
            "deployment_live",
            "tenant_id",
            "blueprint_id",
            "environment",
            unique=True,
            sqlite_where=text("state <> 'stopped'"),
            postgresql_where=text("state <> 'stopped'"),
        ),
    )

    id: str = Field(primary_key=True)
    blueprint_id: str
    state: str
    version: int
    previous: int | None = None
    deployed_at: float
    deployed_by: str = ""
    changed_at: float
    environment: str = Field(default=IN_USE, sa_column_kwargs={"server_default": IN_USE})
    hold: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """While paused: keep calls for later instead of refusing them."""
    clocks: bool = Field(default=True, sa_column_kwargs={"server_default": true()})
    """Whether its schedules run."""
    waiver: str | None = None
    """Why it was deployed although a case failed."""


def add(session: TenantSession, row: Deployment) -> Deployment:
    """Make a version live. Raises Clash `storage.live` when another is."""
    if live(session, row.blueprint_id, row.environment) is not None:
        raise Clash("This agent is deployed already.", code="storage.live", fix="Deploy over it, or stop it first.")
    session.add(row)
    session.flush()
    return row


def get(session: TenantSession, id: str) -> Deployment | None:
    """The deployment."""
    return session.find(Deployment, id)


def live(session: TenantSession, blueprint_id: str, environment: str = IN_USE) -> Deployment | None:
    """The deployment of a blueprint in an environment that is not stopped."""
    return session.exec(
        select(Deployment).where(
            Deployment.blueprint_id == blueprint_id,
            Deployment.environment == environment,
            Deployment.state != "stopped",
        )
    ).first()


def of(session: TenantSession, blueprint_id: str) -> Sequence[Deployment]:
    """What a blueprint has in any environment that is not stopped."""
    return session.exec(
        select(Deployment)
        .where(Deployment.blueprint_id == blueprint_id, Deployment.state != "stopped")
        .order_by(col(Deployment.environment))
    ).all()


def running(session: TenantSession, id: str) -> tuple[Deployment, str] | None:
    """The deployment if it is active, with the content hash of its version."""
    return session.exec(
        select(Deployment, Version.content_hash)
        .join(
            Version,
            and_(
                col(Version.tenant_id) == Deployment.tenant_id,
                col(Version.blueprint_id) == Deployment.blueprint_id,
                col(Version.number) == Deployment.version,
            ),
        )
        .where(Deployment.id == id, Deployment.state == "active")
    ).first()


def listed(session: TenantSession, *, stopped: bool = False) -> Sequence[Deployment]:
    """The live ones, and those that were stopped if asked for; last deployed first."""
    query = select(Deployment).order_by(col(Deployment.deployed_at).desc(), col(Deployment.id))
    return session.exec(query if stopped else query.where(Deployment.state != "stopped")).all()


def move(session: TenantSession, id: str, *, expected: Sequence[str], to: str, at: float, hold: bool = False) -> bool:
    """Pause, resume or stop. False when it is not in an expected state."""
    return (
        session.change(
            update(Deployment)
            .where(col(Deployment.id) == id, col(Deployment.state).in_(expected))
            .values(state=to, changed_at=at, hold=hold)
        )
        == 1
    )


def swap(session: TenantSession, id: str, *, current: int, version: int, at: float, by: str) -> bool:
    """Point to another version and remember the one before. False when `current` is not the live one any more."""
    return (
        session.change(
            update(Deployment)
            .where(col(Deployment.id) == id, col(Deployment.version) == current, col(Deployment.state).in_(LIVE))
            .values(version=version, previous=current, deployed_at=at, deployed_by=by, changed_at=at)
        )
        == 1
    )


def set_clocks(session: TenantSession, id: str, on: bool, at: float) -> bool:
    """Let its schedules run, or not."""
    return session.change(update(Deployment).where(col(Deployment.id) == id).values(clocks=on, changed_at=at)) == 1


def set_waiver(session: TenantSession, id: str, waiver: str | None) -> None:
    """Why it was deployed although a case failed; None when none did."""
    session.change(update(Deployment).where(col(Deployment.id) == id).values(waiver=waiver))


def every_live(session: Session) -> Sequence[Deployment]:
    """What has to be wired at start, over all tenants; through Database.read_all."""
    return session.exec(select(Deployment).where(Deployment.state != "stopped").order_by(col(Deployment.id))).all()
