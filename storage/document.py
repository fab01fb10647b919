"""Blueprint documents by content: versions and runs point here, so a run always finds the exact document it runs."""

from __future__ import annotations

from sqlalchemy import Column, Text
from sqlmodel import Field

from storage.tenancy import Owned, TenantSession


class Document(Owned, table=True):
    """One text, kept once per tenant under the hash of its content."""

    hash: str = Field(primary_key=True, max_length=64)
    text: str = Field(sa_column=Column(Text, nullable=False))
    created_at: float


def put(session: TenantSession, hash: str, text: str, at: float) -> None:
    """Keep the text unless it is here already."""
    session.put_once(Document, {"hash": hash}, {"text": text, "created_at": at})


def get(session: TenantSession, hash: str) -> str | None:
    """The text with that hash."""
    found = session.find(Document, hash)
    return found.text if found else None
