"""Approvals over HTTP: what waits for a person, and deciding it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field, StrictBool

from app.api.contract import Approver, Listed, Posted, Shown, Viewer, refuses, resource
from app.permissions import TheFactory

router = resource("approvals", tag="Approvals")


class ApprovalShown(Shown):
    """A question of a run to people. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["ap_01k9x2m4c7q8"])
    run_id: str
    node: str
    blueprint_id: str
    blueprint_name: str
    title: str = Field(examples=["Send the refund?"])
    details: Any
    choices: list[str]
    state: Literal["pending", "approved", "rejected", "expired", "cancelled"]
    created_at: float
    expires_at: float | None
    decided_by: str
    decided_at: float | None
    note: str


class Decision(Posted):
    """Yes or no. `choice` is one of the choices, if there are any."""

    approve: StrictBool
    note: str = Field(default="", max_length=2000)
    choice: str = Field(default="", max_length=500)


@router.get("", response_model=Listed[ApprovalShown], summary="List what waits for a decision")
async def listed(
    who: Viewer,
    factory: TheFactory,
    pending: Annotated[bool, Query(description="Or else what has been decided, newest first.")] = True,
    run: Annotated[str | None, Query(max_length=64, description="Everything that this run asked, instead.")] = None,
) -> Any:
    """Oldest first."""
    if run is not None:
        return {"items": await factory.approvals.of_run(who, run)}
    return {"items": await factory.approvals.list(who, pending=pending)}


@router.post("/{id}", response_model=ApprovalShown, responses=refuses(404, 409, 415), summary="Decide")
async def decide(id: str, who: Approver, factory: TheFactory, posted: Decision) -> Any:
    """Decide once; the run goes on when the decision is durable. A decision is a person's: tokens are refused."""
    return await factory.approvals.decide(who, id, approve=posted.approve, note=posted.note, choice=posted.choice)
