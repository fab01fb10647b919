"""Secrets over HTTP: their names can be read, their values only written."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.contract import Listed, Posted, SecretKeeper, Shown, Viewer, refuses, resource
from app.permissions import TheFactory
from runtime.vault import MAX_SECRET

router = resource("secrets", tag="Secrets")


class SecretShown(Shown):
    """What may be known of a secret: everything but its value."""

    name: str = Field(examples=["shop-key"])
    updated_at: float
    updated_by: str


class Value(Posted):
    """The value. Nobody can read it back."""

    value: str = Field(min_length=1, max_length=MAX_SECRET, examples=["sk-…"])


@router.get("", response_model=Listed[SecretShown], summary="List the secrets' names")
async def listed(who: Viewer, factory: TheFactory) -> Any:
    """By name."""
    return {"items": await factory.vault.names(who)}


@router.put("/{name}", status_code=204, responses=refuses(415), summary="Set a secret")
async def put(name: str, who: SecretKeeper, factory: TheFactory, posted: Value) -> None:
    """Set or replace it. Nobody can read it back."""
    await factory.vault.put(who, name, posted.value)


@router.delete("/{name}", status_code=204, responses=refuses(404), summary="Forget a secret")
async def delete(name: str, who: SecretKeeper, factory: TheFactory) -> None:
    """Steps that use it will fail and say so."""
    await factory.vault.delete(who, name)
