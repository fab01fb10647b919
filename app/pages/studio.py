"""The studio's page: one agent to draw, set up, test and deploy."""

from __future__ import annotations

from app.permissions import current_actor, current_factory, page
from app.studio.studio import studio
from app.theme import frame


@page("/studio/{id}", "Studio")
async def show(id: str, debug: str = "") -> None:
    """Open an agent; with `debug`, a run of it to look into."""
    draft = await current_factory().blueprints.get(current_actor(), id)
    with frame(draft.blueprint.name, width="full", crumbs=(("Home", "/"),)):
        await studio(id, debug=debug)
