"""All tables, so that nobody who needs them together has to know their files."""

from __future__ import annotations

from typing import Final

from sqlmodel import SQLModel

from storage import (
    approval,
    blueprint,
    deployment,
    document,
    event_seen,
    hook,
    journal,
    memory,
    run,
    schedule,
    secret,
    session,
    setting,
    shelf,
    tenant,
    user,
    version,
)

AGGREGATES: Final = (
    tenant, user, session, document, blueprint, version, deployment, hook, schedule, run, journal, approval,
    secret, memory, shelf, setting, event_seen,
)  # fmt: skip

metadata = SQLModel.metadata
