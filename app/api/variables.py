"""Variables over HTTP: values by name for live, for test, or for both; formulas read them as `vars.name`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field, JsonValue

from app.api.contract import Deployer, Listed, Posted, Shown, Viewer, refuses, resource
from app.permissions import TheFactory

router = resource("variables", tag="Variables")

Place = Literal["live", "test", "both"]


class VariableShown(Shown):
    """A variable in an environment."""

    name: str = Field(examples=["sender"])
    environment: Place
    value: JsonValue
    description: str
    updated_at: float
    updated_by: str


class NewValue(Posted):
    """What it is from now on. Runs that go on keep the value they began with."""

    value: JsonValue
    environment: Place = "both"
    description: str = Field(default="", max_length=500)


@router.get("", response_model=Listed[VariableShown], summary="List the variables")
async def listed(who: Viewer, factory: TheFactory) -> Any:
    """By name and environment."""
    return {"items": [_shown(one) for one in await factory.variables.list(who)]}


@router.put("/{name}", response_model=VariableShown, responses=refuses(415), summary="Set a variable")
async def put(name: str, who: Deployer, factory: TheFactory, posted: NewValue) -> Any:
    """A value of an environment goes before the one for both, and both before an agent's own."""
    place = placed(posted.environment)
    return _shown(
        await factory.variables.put(who, name, posted.value, environment=place, description=posted.description)
    )


@router.delete("/{name}", status_code=204, responses=refuses(404), summary="Forget a variable")
async def delete(
    name: str, who: Deployer, factory: TheFactory, environment: Annotated[Place, Query()] = "both"
) -> None:
    """Formulas that read it fail and say so, unless the agent has one of that name itself."""
    await factory.variables.delete(who, name, environment=placed(environment))


def placed(place: Place) -> str:
    """How the services call it."""
    return "" if place == "both" else place


def _shown(one: Any) -> dict[str, Any]:
    shown = {name: getattr(one, name) for name in VariableShown.model_fields}
    return shown | {"environment": one.environment or "both"}
