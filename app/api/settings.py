"""What a team sets for itself, over HTTP: its language model and lower limits."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.contract import Admin, Listed, Posted, Shown, Viewer, refuses, resource
from app.permissions import TheFactory
from runtime.limits import LimitInfo
from runtime.preferences import ModelChoice

router = resource("settings", tag="Settings")


class ModelShown(Shown):
    """The team's model. Empty: the operator's default counts, if there is one."""

    model: str = Field(examples=["openai/gpt-5-mini"])
    base_url: str
    secret: str = Field(description="The name of the secret that holds its key.")


class Model(Posted):
    """The team's model as litellm names it; an empty name goes back to the operator's default."""

    model: str = Field(default="", max_length=200, examples=["openai/gpt-5-mini"])
    base_url: str = Field(default="", max_length=500, examples=["https://api.example.com/v1"])
    secret: str = Field(default="", max_length=100, examples=["model-key"])


@router.get("/model", response_model=ModelShown, summary="Get the team's model")
async def model(who: Viewer, factory: TheFactory) -> Any:
    """Its name, its address and the name of its secret."""
    return await factory.preferences.model(who)


@router.put("/model", response_model=ModelShown, responses=refuses(415), summary="Choose the team's model")
async def set_model(who: Admin, factory: TheFactory, posted: Model) -> Any:
    """It counts from the next call on."""
    await factory.preferences.set_model(who, ModelChoice(posted.model, posted.base_url, posted.secret))
    return await factory.preferences.model(who)


class LimitShown(Shown):
    """What a team may use at most."""

    name: str = Field(examples=["concurrent_runs"])
    title: str
    unit: str = Field(examples=["runs"])
    meaning: str = Field(description="What it holds back, in a sentence.")
    default: int = Field(description="The product's own; a team's may be lower, not higher.")
    value: int = Field(description="What holds for your team.")
    lowered: bool
    lowerable: bool = Field(description="Whether a team can lower it.")
    used: int | None = Field(description="The present use, where it is known.")


class LimitSet(Posted):
    """A lower limit for the team; null goes back to the product's own."""

    value: int | None = Field(ge=0, le=2**53, examples=[50])


@router.get("/limits", response_model=Listed[LimitShown], summary="List the limits")
async def limits(who: Viewer, factory: TheFactory) -> Any:
    """Everything has a limit; some are lower for your team."""
    return {"items": [_shown(each) for each in await factory.limits.list(who)]}


@router.put("/limits/{name}", response_model=LimitShown, responses=refuses(404, 415, 422), summary="Lower a limit")
async def set_limit(name: str, who: Admin, factory: TheFactory, posted: LimitSet) -> Any:
    """It holds from now on; what runs already runs on."""
    return _shown(await factory.limits.set(who, name, posted.value))


def _shown(info: LimitInfo) -> dict[str, Any]:
    limit = info.limit
    return {
        "name": limit.name,
        "title": limit.title,
        "unit": limit.unit,
        "meaning": limit.sentence,
        "default": limit.default,
        "value": info.value,
        "lowered": info.lowered,
        "lowerable": limit.lowerable,
        "used": info.used,
    }
