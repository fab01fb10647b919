"""What tests of pages share: the admin as an actor, small agents, and patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from nicegui.testing import User

from nodes.blueprint import Blueprint
from runtime.policy import Actor, Role
from tests.app.conftest import House

Node = tuple[str, str, str, dict[str, Any]]
Wire = tuple[str, str, str, str]


def drawn(name: str, nodes: Sequence[Node], wires: Sequence[Wire] = (), *, description: str = "") -> Blueprint:
    """A blueprint from (id, type, name, settings) and (source, port, target, port)."""
    return Blueprint.parse(
        {
            "name": name,
            "description": description,
            "nodes": [{"id": id_, "type": type_, "name": what, "settings": set_} for id_, type_, what, set_ in nodes],
            "edges": [
                {"id": f"e{n}", "source": a, "source_port": out, "target": b, "target_port": into}
                for n, (a, out, b, into) in enumerate(wires)
            ],
        }
    )


def greeting(name: str = "Greeter") -> Blueprint:
    """Says hello to whom it is given."""
    return drawn(
        name,
        [
            ("m", "trigger.manual", "Somebody", {}),
            ("t", "action.text_template", "Greet", {"template": "Hello {{ name }}!"}),
        ],
        [("m", "value", "t", "value")],
        description="Says hello.",
    )


def refund() -> Blueprint:
    """Asks a person before money goes back."""
    question = {
        "question": "Refund {{ total }} € to {{ name }}?",
        "approve_label": "Refund it",
        "reject_label": "Decline",
    }
    return drawn(
        "Refunds",
        [
            ("m", "trigger.manual", "Refund asked", {}),
            ("a", "validation.approve", "May it be refunded?", question),
            ("y", "action.text_template", "Say yes", {"template": "On its way."}),
            ("n", "action.text_template", "Say no", {"template": "Sorry."}),
        ],
        [("m", "value", "a", "value"), ("a", "approved", "y", "value"), ("a", "rejected", "n", "value")],
    )


def sevens() -> Blueprint:
    """Goes through a list and fails at what can be divided by seven."""
    return drawn(
        "Sevens",
        [
            ("m", "trigger.manual", "List", {}),
            ("l", "flow.for_each", "For each number", {"on_item_error": "continue"}),
            ("d", "validation.decide", "Not seven?", {"condition": "item % 7 != 0"}),
            ("x", "validation.stop_error", "Seven is bad", {"message": "{{ item }} can be divided by seven."}),
            ("t", "action.text_template", "Write", {"template": "number {{ item }}"}),
        ],
        [
            ("m", "value", "l", "items"),
            ("l", "item", "d", "value"),
            ("d", "yes", "t", "value"),
            ("d", "no", "x", "value"),
            ("t", "text", "l", "result"),
        ],
    )


async def eventually(holds: Callable[[], Any], *, seconds: float = 8) -> Any:
    """What it gives once that is true; the test fails when it never is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := holds():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


async def sees(user: User, text: str, *, seconds: float = 8) -> None:
    """The person sees the text before long."""
    until = time.monotonic() + seconds
    while True:
        try:
            await user.should_see(text, retries=1)
            return
        except AssertionError:
            if time.monotonic() > until:
                raise


@pytest.fixture
async def ada(house: House, admin: User) -> Actor:
    """The admin, as services know her."""
    return Actor(await house.auth.first_tenant(), "test", "Ada Lovelace", Role.ADMIN)
