"""All tables, so that nobody who needs them together has to know their files."""

from __future__ import annotations

from typing import Final

from sqlmodel import SQLModel

from storage import (
    approval,
    blueprint,
    case,
    crew,
    dead_letter,
    deployment,
    document,
    errand,
    event_seen,
    event_wait,
    happening,
    held_call,
    hook,
    journal,
    memory,
    paced,
    run,
    schedule,
    secret,
    server,
    session,
    setting,
    shelf,
    spending,
    tenant,
    tenant_limit,
    user,
    variable,
    version,
    worker_move,
)

AGGREGATES: Final = (
    tenant, user, session, document, blueprint, version, deployment, hook, schedule, run, journal, approval,
    secret, memory, shelf, setting, event_seen, variable, held_call, case, dead_letter,
    crew, server, errand, tenant_limit, happening, event_wait, spending, worker_move, paced,
)  # fmt: skip

metadata = SQLModel.metadata
