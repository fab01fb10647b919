"""Checking a document without keeping it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from app.api.contract import Document, Shown, document_body, refuses, resource
from app.permissions import IMPORT_LIMIT, Actor, Permission, TheFactory, allow
from nodes.check import Finding

router = resource("check", tag="Blueprints")


class FindingShown(Shown):
    """One thing to know about a document: an error keeps it from being deployed, a warning and a hint do not."""

    tier: Literal["structure", "security", "performance", "business"]
    severity: Literal["error", "warning", "hint"]
    node: str = Field(description="The id of the node that it is about; empty for the whole agent.")
    field: str
    code: str
    sentence: str = Field(examples=["“Webhook” leads nowhere."])
    fix: str
    path: list[str] = Field(description="The way through the graph that it is about.")
    edge: str
    repair: list[dict[str, Any]] = Field(description="The operations that put it right, if a machine can.")


class Checked(Shown):
    """All findings, errors first. `ok` says that it may be deployed."""

    ok: bool
    findings: list[FindingShown]


def checked(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as an answer."""
    return {"ok": all(one.severity != "error" for one in findings), "findings": findings}


@router.post(
    "",
    response_model=Checked,
    openapi_extra=document_body,
    responses=refuses(413, 415),
    summary="Check a document",
)
async def check(
    who: Annotated[Actor, allow(Permission.VIEW, limit=IMPORT_LIMIT)], factory: TheFactory, document: Document
) -> Any:
    """What the tiers have to say about it. It is not kept, and nothing in it runs."""
    return checked(await factory.blueprints.check(who, document))
