"""People and programs that use the API of a running application: `api` is its admin, `callers` one of each role."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from nodes.blueprint import Blueprint
from runtime.policy import Actor, Role
from storage import tenant as tenants
from tests.app.conftest import PASSWORD, URL, House, running

MANUAL: dict[str, Any] = {
    "name": "Echo",
    "nodes": [
        {"id": "go", "type": "trigger.manual"},
        {"id": "set", "type": "action.transform", "settings": {"fields": [{"name": "double", "formula": "total * 2"}]}},
    ],
    "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "set", "target_port": "value"}],
}
ASKING: dict[str, Any] = {
    "name": "Asks",
    "nodes": [
        {"id": "go", "type": "trigger.manual"},
        {"id": "ask", "type": "validation.approve", "settings": {"question": "Send it?"}},
    ],
    "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "ask", "target_port": "value"}],
}


class Caller(httpx.AsyncClient):
    """Somebody who calls the API with a cookie and its CSRF word, or with a token."""

    @classmethod
    def of(cls, house: House, *, token: str = "", **headers: str) -> Caller:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        caller = cls(
            transport=httpx.ASGITransport(house.door, raise_app_exceptions=False),
            base_url=f"{URL}/api/v1",
            headers={"Accept": "application/json", "Origin": URL, **headers},
        )
        house.clients.append(caller)
        return caller

    async def sign_in(self, email: str) -> Caller:
        answer = await self.post("/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.headers["X-CSRF-Token"] = answer.json()["csrf"]
        return self

    async def new(self, document: dict[str, Any] | None = None) -> str:
        """Make an agent; its id."""
        answer = await self.post("/blueprints", json=document or MANUAL)
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id

    async def ended(self, run: str) -> dict[str, Any]:
        """The run, when it has ended or waits."""
        for _ in range(1_000):
            found: dict[str, Any] = (await self.get(f"/runs/{run}")).json()
            if found["state"] not in ("accepted", "running"):
                return found
        raise AssertionError(f"{run} does not come to rest: {found['state']}")


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, after checking that it has the one shape that all errors have."""
    assert answer.headers["content-type"] == "application/json", answer.text
    body = answer.json()
    assert set(body) == {"error"}, body
    error: dict[str, Any] = body["error"]
    assert {"code", "message", "fix", "where"} <= set(error), error
    assert error["code"] and error["message"].endswith((".", "?", "”", "…")), error
    assert "Traceback" not in answer.text
    return error


async def set_up(house: House) -> Caller:
    """Set the factory up through the API; its admin."""
    caller = Caller.of(house)
    word = parse_qs(urlsplit(house.setup_url).query)["token"][0]
    answer = await caller.post(
        "/setup",
        json={"token": word, "name": "Ada", "email": "ada@example.com", "password": PASSWORD, "team": "Engine"},
    )
    assert answer.status_code == 201, answer.text
    caller.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return caller


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """The application without workers."""
    async with running(tmp_path / "home", pool_size=0) as house:
        yield house


@pytest.fixture
async def api(house: House) -> Caller:
    """The admin of a factory that was just set up."""
    return await set_up(house)


@pytest.fixture
async def callers(house: House, api: Caller) -> dict[str, Caller]:
    """One caller of each role, and nobody in particular: `callers["viewer"]`, `callers["anonymous"]`."""
    found = {"anonymous": Caller.of(house), "admin": api}
    for role in (Role.VIEWER, Role.DEVELOPER):
        await add_person(house, await house.auth.first_tenant(), f"{role}@example.com", role)
        found[str(role)] = await Caller.of(house).sign_in(f"{role}@example.com")
    return found


async def add_person(house: House, tenant: str, email: str, role: Role) -> Actor:
    """Somebody new in a team."""
    person = await house.auth.add_person(
        tenant, name=email.partition("@")[0], email=email, password=PASSWORD, role=role
    )
    return person.actor


@pytest.fixture
def neighbour(house: House, api: Caller) -> Callable[[str], Awaitable[Actor]]:
    """Make another team with an admin, straight in the database, for there is no door to it: `await neighbour("b")`."""

    async def make(name: str) -> Actor:
        tenant = f"tenant_{name}"
        await house.factory.db.write_all(lambda session: tenants.add(session, tenant, name=name, at=time.time()))
        return await add_person(house, tenant, f"admin@{name}.example", Role.ADMIN)

    return make


def document(**changes: Any) -> Blueprint:
    """The small agent, changed."""
    return Blueprint.parse({**MANUAL, **changes})
