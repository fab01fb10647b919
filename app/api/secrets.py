"""Secrets over HTTP: their names can be read, their values only written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from app.api.contract import Listed, Posted, SecretKeeper, Shown, Viewer, refuses, resource
from app.permissions import TheFactory
from runtime.vault import MAX_SECRET

router = resource("secrets", tag="Secrets")


Place = Literal["live", "test", "both"]


class SecretShown(Shown):
    """What may be known of a secret: everything but its value."""

    name: str = Field(examples=["shop-key"])
    environment: Place = Field(description="Where this value counts.")
    updated_at: float
    updated_by: str


class Value(Posted):
    """The value. Nobody can read it back."""

    value: str = Field(min_length=1, max_length=MAX_SECRET, examples=["sk-…"])
    environment: Place = Field(default="live", description="Where it counts. A value of live is not taken in test.")


@router.get("", response_model=Listed[SecretShown], summary="List the secrets' names")
async def listed(who: Viewer, factory: TheFactory) -> Any:
    """By name and environment."""
    return {
        "items": [
            {
                "name": one.name,
                "environment": one.environment or "both",
                "updated_at": one.updated_at,
                "updated_by": one.updated_by,
            }
            for one in await factory.vault.names(who)
        ]
    }


@router.put("/{name}", status_code=204, responses=refuses(415), summary="Set a secret")
async def put(name: str, who: SecretKeeper, factory: TheFactory, posted: Value) -> None:
    """Set or replace it. Nobody can read it back."""
    place = "" if posted.environment == "both" else posted.environment
    await factory.vault.put(who, name, posted.value, environment=place)


@router.delete("/{name}", status_code=204, responses=refuses(404), summary="Forget a secret")
async def delete(
    name: str,
    who: SecretKeeper,
    factory: TheFactory,
    environment: Annotated[Place | None, Query(description="Only its value there; every value if empty.")] = None,
) -> None:
    """Steps that use it will fail and say so."""
    place = None if environment is None else "" if environment == "both" else environment
    await factory.vault.delete(who, name, environment=place)
