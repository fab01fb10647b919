"""The drawings that are open in this application: one session for each agent, over the service that keeps drafts."""

from __future__ import annotations

from typing import Any

from nicegui import app as web

from app.canvas.sessions import Sessions
from app.permissions import current_factory
from nodes.blueprint import Blueprint
from runtime.factory import Factory
from runtime.policy import Actor


def current_sessions() -> Sessions:
    """The open drawings, made at the first studio that opens and kept until the application stops."""
    factory = current_factory()
    held: tuple[Factory, Sessions] | None = getattr(web.state, "drawings", None)
    if held is None or held[0] is not factory:
        held = web.state.drawings = (factory, open_rooms(factory))
    return held[1]


def open_rooms(factory: Factory) -> Sessions:
    """Sessions that load and keep drafts as the person who draws."""

    async def load(who: Any, id_: str) -> tuple[Blueprint, int]:
        assert isinstance(who, Actor)
        draft = await factory.blueprints.get(who, id_)
        return draft.blueprint, draft.revision

    async def save(who: Any, id_: str, blueprint: Blueprint, revision: int) -> int:
        assert isinstance(who, Actor)
        return await factory.blueprints.save(who, id_, blueprint, revision=revision)

    def limit(who: Any, name: str, amount: int) -> None:
        assert isinstance(who, Actor)
        factory.limits.check(who.tenant, name, amount, "The agent would then have")

    return Sessions(load, save, types=factory.catalog, limit=limit)


async def close_drawings() -> None:
    """Keep everything that is drawn; called when the application stops, while its services still run."""
    held: tuple[Factory, Sessions] | None = getattr(web.state, "drawings", None)
    if held is not None:
        await held[1].close()
        web.state.drawings = None


def public_address() -> str:
    """The address under which this application is reached, without a slash at the end."""
    url: str = web.state.settings.url
    return url.rstrip("/")
