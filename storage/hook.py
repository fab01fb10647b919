"""Addresses that the outside calls: webhooks, forms and chats of deployments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ForeignKeyConstraint, Index, and_, delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, col, select

from storage.deployment import Deployment
from storage.errors import Clash
from storage.tenancy import Owned, TenantSession
from storage.version import Version


class Hook(Owned, table=True):
    """One address. The path is unique over the installation: it is all that a caller shows, so it finds the tenant."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "deployment_id"], ["deployment.tenant_id", "deployment.id"]),
        Index("hook_path", "path", unique=True),
        Index("hook_of_deployment", "tenant_id", "deployment_id"),
    )

    id: str = Field(primary_key=True)
    kind: str
    path: str
    method: str
    deployment_id: str
    blueprint_id: str
    node: str


def replace(session: TenantSession, deployment_id: str, rows: Iterable[Hook]) -> None:
    """The addresses of a deployment from now on. Raises Clash `storage.path_taken`."""
    rows = list(rows)
    session.change(delete(Hook).where(col(Hook.deployment_id) == deployment_id))
    session.add_all(rows)
    try:
        session.flush()
    except IntegrityError:
        paths = " or ".join(sorted(row.path for row in rows))
        raise Clash(
            f"The address {paths} is in use by another agent.",
            code="storage.path_taken",
            fix="Choose another path in the trigger's settings.",
        ) from None


def of(session: TenantSession, deployment_id: str) -> Sequence[Hook]:
    """The addresses of a deployment."""
    return session.exec(select(Hook).where(Hook.deployment_id == deployment_id).order_by(col(Hook.path))).all()


def listed(session: TenantSession) -> Sequence[Hook]:
    """Every address of the tenant."""
    return session.exec(select(Hook).order_by(col(Hook.path))).all()


def every(session: Session) -> Sequence[Hook]:
    """The whole table for the door; through Database.read_all."""
    return session.exec(select(Hook).order_by(col(Hook.path))).all()


def at(session: Session, path: str) -> Hook | None:
    """What answers at a path; through Database.read_all."""
    return session.exec(select(Hook).where(Hook.path == path)).first()


class Wired(NamedTuple):
    """An address with what it leads to; `content_hash` names the document of the live version."""

    hook: Hook
    deployment: Deployment
    content_hash: str


def wired(session: Session) -> Sequence[Wired]:
    """Every address of a live deployment; through Database.read_all."""
    rows = session.exec(
        select(Hook, Deployment, Version.content_hash)
        .join(Deployment, and_(col(Deployment.tenant_id) == Hook.tenant_id, col(Deployment.id) == Hook.deployment_id))
        .join(
            Version,
            and_(
                col(Version.tenant_id) == Deployment.tenant_id,
                col(Version.blueprint_id) == Deployment.blueprint_id,
                col(Version.number) == Deployment.version,
            ),
        )
        .where(Deployment.state != "stopped")
    )
    return [Wired(*row) for row in rows]
