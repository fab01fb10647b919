"""A studio that is open: the person in front of it, and the drawing behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from nicegui import app as web
from nicegui import ui
from nicegui.testing import User

from app.canvas.element import Canvas
from app.canvas.session import GraphSession
from nodes.blueprint import Blueprint, Placed
from runtime.policy import Actor, Role
from tests.app.conftest import House

ORDERS: dict[str, Any] = {
    "name": "Orders",
    "nodes": [
        {"id": "hook", "type": "trigger.webhook", "settings": {"path": "orders"}},
        {"id": "dec", "type": "validation.decide", "settings": {}, "x": 300},
        {"id": "set", "type": "context.set_values", "settings": {}, "x": 600},
    ],
    "edges": [
        {"id": "e1", "source": "hook", "source_port": "body", "target": "dec", "target_port": "value"},
        {"id": "e2", "source": "dec", "source_port": "yes", "target": "set", "target_port": "value"},
    ],
}


@dataclass
class Open:
    """One studio in one tab."""

    user: User
    house: House
    who: Actor
    id: str

    @property
    def session(self) -> GraphSession:
        """The drawing as the server has it."""
        session: GraphSession = web.state.drawings[1]._open[self.id].session
        return session

    def node(self, id_: str) -> Placed:
        """A node of it."""
        found = self.session.blueprint.node(id_)
        assert found is not None
        return found

    def select(self, *ids: str) -> None:
        """Select nodes, as a click on the canvas does."""
        self.user.find(kind=Canvas).trigger("selection", {"ids": list(ids)})

    def fill(self, marker: str, value: Any) -> None:
        """Put a value into a field."""
        with self.user.client:  # type: ignore[union-attr]
            for element in self.user.find(marker=marker).elements:
                element.set_value(value)  # type: ignore[attr-defined]

    def click(self, marker: str) -> None:
        """Press something."""
        self.user.find(marker=marker).click()

    def fill_tabs(self, name: str) -> None:
        """Turn to a tab of the inspector."""
        with self.user.client:  # type: ignore[union-attr]
            next(iter(self.user.find(kind=ui.tabs).elements)).set_value(name)

    def texts(self, marker: str) -> list[str]:
        """What stands in elements with that marker, children included."""
        with self.user.client:  # type: ignore[union-attr]
            found = [element for element in self.user.client.elements.values() if marker in element._markers]  # type: ignore[union-attr]
        return [_text(element) for element in found]

    async def sees(self, text: str, *, seconds: float = 8) -> None:
        """The text is there before long."""
        until = time.monotonic() + seconds
        while True:
            try:
                await self.user.should_see(text, retries=1)
                return
            except AssertionError:
                if time.monotonic() > until:
                    raise

    async def until(self, holds: Callable[[], Any], *, seconds: float = 8) -> Any:
        """What it gives once that is true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := holds():
                return found
            await asyncio.sleep(0.02)
        raise AssertionError("it never came true")


def _text(element: ui.element) -> str:
    parts = [getattr(element, "text", "")]
    parts += [_text(child) for slot in element.slots.values() for child in slot.children]
    return " ".join(part for part in parts if isinstance(part, str) and part)


@pytest.fixture
async def ada(house: House, admin: User) -> Actor:
    """The admin, as services know her."""
    return Actor(await house.auth.first_tenant(), "test", "Ada Lovelace", Role.ADMIN)


Opening = Callable[..., Awaitable[Open]]


@pytest.fixture
def studio(house: House, admin: User, ada: Actor) -> Opening:
    """Open the studio of a new agent: `await studio()`, `await studio(document, user=viewer)`."""

    async def open_(document: dict[str, Any] | None = None, *, user: User | None = None, id_: str = "") -> Open:
        if not id_:
            draft = await house.factory.blueprints.create(ada, Blueprint.parse(document or ORDERS))
            id_ = draft.id
        person = user or admin
        await person.open(f"/studio/{id_}")
        return Open(person, house, ada, id_)

    return open_
