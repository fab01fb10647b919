"""Whether another server changed what this one keeps in memory: deployments, variables, limits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from storage.deployment import Deployment
from storage.tenant_limit import TenantLimit
from storage.variable import Variable

Mark = tuple[Any, ...]


def mark(session: Session) -> Mark:
    """Something that is another after each change; through Database.read_all."""
    # Sums and not the latest moment: the clocks of two servers differ.
    tables = (
        (Deployment.id, Deployment.changed_at),
        (Variable.name, Variable.updated_at),
        (TenantLimit.name, TenantLimit.set_at),
    )
    return tuple(session.exec(select(func.count(col(key)), func.sum(col(moment)))).one() for key, moment in tables)
