"""Deployments over HTTP: what is live, and pausing, resuming, rolling back and stopping it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.api.contract import Deployer, Listed, Shown, Viewer, refuses, resource
from app.permissions import TheFactory

router = resource("deployments", tag="Deployments")


class DeploymentShown(Shown):
    """A version made live. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["dep_01k9x2m4c7q8"])
    blueprint_id: str
    blueprint_name: str
    version: int
    previous: int | None
    state: Literal["active", "paused", "stopped"]
    deployed_at: float
    deployed_by: str
    addresses: list[str] = Field(description="Paths that the outside calls.", examples=[["/hooks/orders"]])
    schedules: list[str] = Field(description="Its schedules in words.", examples=[["Every day at 09:00"]])


@router.get("", response_model=Listed[DeploymentShown], summary="List what is deployed")
async def listed(who: Viewer, factory: TheFactory) -> Any:
    """Last deployed first."""
    return {"items": await factory.deployments.list(who)}


@router.get("/{id}", response_model=DeploymentShown, responses=refuses(404), summary="Get a deployment")
async def get(id: str, who: Viewer, factory: TheFactory) -> Any:
    """With its addresses, and its schedules in words."""
    return await factory.deployments.get(who, id)


@router.post("/{id}/pause", response_model=DeploymentShown, responses=refuses(404, 409), summary="Pause a deployment")
async def pause(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Take no new runs; those that go on go on."""
    return await factory.deployments.pause(who, id)


@router.post("/{id}/resume", response_model=DeploymentShown, responses=refuses(404, 409), summary="Resume a deployment")
async def resume(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Take runs again."""
    return await factory.deployments.resume(who, id)


@router.post("/{id}/rollback", response_model=DeploymentShown, responses=refuses(404, 409), summary="Roll back")
async def rollback(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Go back to the version that was live before."""
    return await factory.deployments.rollback(who, id)


@router.post("/{id}/stop", response_model=DeploymentShown, responses=refuses(404, 409), summary="Stop a deployment")
async def stop(id: str, who: Deployer, factory: TheFactory) -> Any:
    """Give up its addresses and schedules."""
    return await factory.deployments.stop(who, id)
