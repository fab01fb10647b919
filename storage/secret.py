"""Secrets, always encrypted: what is kept here is useless without the key, which is not in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Text, delete
from sqlmodel import Field, col, select

from storage.tenancy import Owned, TenantSession


class Secret(Owned, table=True):
    """A name in an environment and what only the vault can read. The empty environment is shared by all of them."""

    environment: str = Field(default="", primary_key=True, max_length=20)
    name: str = Field(primary_key=True, max_length=120)
    ciphertext: str = Field(sa_column=Column(Text, nullable=False))
    nonce: str
    updated_at: float
    updated_by: str = ""


def put(
    session: TenantSession, name: str, *, ciphertext: str, nonce: str, at: float, by: str, environment: str = ""
) -> None:
    """Keep or replace a secret."""
    session.upsert(
        Secret,
        {"environment": environment, "name": name},
        {"ciphertext": ciphertext, "nonce": nonce, "updated_at": at, "updated_by": by},
    )


def get(session: TenantSession, name: str, environment: str = "") -> Secret | None:
    """The secret, still encrypted: the environment's own, else the shared one."""
    own = session.find(Secret, environment, name)
    return own or (session.find(Secret, "", name) if environment else None)


def of(session: TenantSession, name: str) -> Sequence[Secret]:
    """The values of a name, by environment."""
    return session.exec(select(Secret).where(Secret.name == name).order_by(col(Secret.environment))).all()


def listed(session: TenantSession) -> Sequence[Secret]:
    """All, by name and environment."""
    return session.exec(select(Secret).order_by(col(Secret.name), col(Secret.environment))).all()


def remove(session: TenantSession, name: str, environment: str | None = None) -> bool:
    """Forget a secret in one environment, or in all."""
    statement = delete(Secret).where(col(Secret.name) == name)
    if environment is not None:
        statement = statement.where(col(Secret.environment) == environment)
    return session.change(statement) > 0
