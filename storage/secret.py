"""Secrets, always encrypted: what is kept here is useless without the key, which is not in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Text, delete
from sqlmodel import Field, col, select

from storage.tenancy import Owned, TenantSession


class Secret(Owned, table=True):
    """A name and what only the vault can read; ciphertext and nonce are base64 texts."""

    name: str = Field(primary_key=True, max_length=120)
    ciphertext: str = Field(sa_column=Column(Text, nullable=False))
    nonce: str
    updated_at: float
    updated_by: str = ""


def put(session: TenantSession, name: str, *, ciphertext: str, nonce: str, at: float, by: str) -> None:
    """Keep or replace a secret."""
    session.upsert(
        Secret, {"name": name}, {"ciphertext": ciphertext, "nonce": nonce, "updated_at": at, "updated_by": by}
    )


def get(session: TenantSession, name: str) -> Secret | None:
    """The secret, still encrypted."""
    return session.find(Secret, name)


def listed(session: TenantSession) -> Sequence[Secret]:
    """All, by name."""
    return session.exec(select(Secret).order_by(col(Secret.name))).all()


def remove(session: TenantSession, name: str) -> bool:
    """Forget a secret."""
    return session.change(delete(Secret).where(col(Secret.name) == name)) == 1
