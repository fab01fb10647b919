"""Settings: each part has its own address, and only the part that is looked at is built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nicegui import ui

from app import theme
from app.permissions import Permission, current_actor, page
from app.team import images, limits, model, people, profile, secrets, shelves, system, tokens, variables
from nodes.errors import NotFound


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the settings."""

    name: str
    title: str
    icon: str
    build: Callable[[], Awaitable[None]]
    needs: Permission = Permission.VIEW


PARTS = (
    Part("model", "Model", "psychology", model.build),
    Part("secrets", "Secrets", "key", secrets.build),
    Part("variables", "Variables", "data_object", variables.build),
    Part("files", "Files & tables", "folder", shelves.build),
    Part("limits", "Limits", "speed", limits.build),
    Part("images", "Worker images", "layers", images.build, Permission.ADMIN),
    Part("people", "People", "group", people.build),
    Part("tokens", "API tokens", "vpn_key", tokens.build, Permission.ADMIN),
    Part("profile", "Profile", "person", profile.build),
    Part("system", "System", "monitor_heart", system.build, Permission.ADMIN),
)


@page("/settings", "Settings")
async def first() -> None:
    """The first part."""
    await _show(PARTS[0])


@page("/settings/{part}", "Settings")
async def settings(part: str) -> None:
    """The part of that name."""
    for one in PARTS:
        if one.name == part:
            await _show(one)
            return
    raise NotFound("There is no such part of the settings.", fix="Choose one on the left of Settings.")


async def _show(part: Part) -> None:
    who = current_actor()
    who.require(part.needs)
    with (
        theme.frame(part.title, active="settings", crumbs=(("Settings", "/settings"),), heading_shown=False),
        ui.element("div").classes("af-settings"),
    ):
        with ui.element("nav").classes("af-parts").props('aria-label="Parts of the settings"'):
            for one in PARTS:
                if who.may(one.needs):
                    with ui.link(target=f"/settings/{one.name}") as link:
                        ui.icon(one.icon).props("aria-hidden=true")
                        ui.label(one.title)
                    if one is part:
                        link.props("aria-current=page")
        with ui.element("section").classes("af-part"):
            await part.build()
