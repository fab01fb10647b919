"""What a team sets for itself, over HTTP: its language model."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.contract import Admin, Posted, Shown, Viewer, refuses, resource
from app.permissions import TheFactory
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
