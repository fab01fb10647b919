"""Crews for the tests: a whole Factory whose workers are real, and manifests that say what a test is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from runtime.crews.states import CrewView
from runtime.factory import Factory, Options
from runtime.policy import Actor, Role
from storage import tenant as tenants
from tests.conftest import unavailable

WHO = Actor("acme", "usr_1", "Ada", Role.DEVELOPER)
OTHER = Actor("other", "usr_2", "Bob", Role.DEVELOPER)
VIEWER = Actor("acme", "usr_3", "Eve", Role.VIEWER)

OpenFactory = Callable[..., AbstractAsyncContextManager[Factory]]


def manifest(*members: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A manifest of these members."""
    return {"id": "press", "members": list(members), **more}


def code(role: str, text: str, **more: Any) -> dict[str, Any]:
    """A member that is code."""
    return {"role": role, "code": text, **more}


async def ended(factory: Factory, crew: str, seconds: float = 30.0) -> CrewView:
    """The crew when it has ended."""
    return await until(factory, crew, lambda view: view.ended_at is not None, seconds)


async def until(factory: Factory, crew: str, ready: Callable[[CrewView], bool], seconds: float = 30.0) -> CrewView:
    """The crew when this is so."""
    try:
        async with asyncio.timeout(seconds):
            async for view in factory.crews.follow(WHO, crew):
                if ready(view):
                    return view
    except TimeoutError:
        raise AssertionError(f"it never came to that: {await factory.crews.status(WHO, crew)}") from None
    raise AssertionError("it ended before that")


async def nothing_left(factory: Factory) -> None:
    """No worker is held, no socket is open, no token is good, no crew lives."""
    assert len(factory.crews.tokens) == 0
    assert factory.crews.view(WHO) == ()
    assert len(factory.crews.talk) == 0  # type: ignore[arg-type]
    view = factory.fleet.view()
    assert [worker for worker in view.workers if worker.crew is not None] == []
    assert sum(pool.held for pool in view.pools) == 0
    for pool in factory.fleet._pools.values():
        for worker in pool.workers.values():
            assert not (worker.room / "crew").exists()


@pytest.fixture
def home() -> str:
    """The name of an installation of its own for this test."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture
def open_factory(tmp_path: Path, home: str) -> OpenFactory:
    """`async with open_factory() as factory`: the same rows each time; its workers are sandboxes unless told otherwise."""

    @asynccontextmanager
    async def opened(*, docker: str = "off", **more: Any) -> AsyncIterator[Factory]:
        options = Options(
            database_url=f"sqlite:///{tmp_path / 'factory.db'}",
            vault_key=b"k" * 32,
            home=home,
            docker=docker,
            pool_size=more.pop("pool_size", 0),
            ticking=False,
            **more,
        )
        async with Factory(options) as factory:
            for who in (WHO, OTHER):
                await factory.db.write_all(lambda session, who=who: _team(session, who))  # type: ignore[misc]
            yield factory

    return opened


def _team(session: Any, who: Actor) -> None:
    if session.get(tenants.Tenant, who.tenant) is None:
        tenants.add(session, who.tenant, name=who.tenant, at=0.0)


@pytest.fixture
async def factory(open_factory: OpenFactory) -> AsyncIterator[Factory]:
    """A factory whose workers are sandboxes of this machine."""
    async with open_factory() as factory:
        await need_workers(factory)
        yield factory
        await nothing_left(factory)


async def need_workers(factory: Factory) -> None:
    """Skip the test where nothing can isolate code."""
    from nodes.errors import FactoryError

    try:
        held = await factory.fleet.hold("acme")
        await held.release()
    except FactoryError as error:
        unavailable(f"{error.message} {error.fix}")
