"""Crews where several servers share one database: each has its own, every one can end any, and none is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runtime.crews.crews import RESTARTED
from runtime.factory import Factory, Options
from tests.runtime.crews.conftest import WHO, code, manifest, need_workers, nothing_left, until

pytestmark = pytest.mark.postgres


@asynccontextmanager
async def server(url: str, home: str) -> AsyncIterator[Factory]:
    """One server of those that share the database."""
    options = Options(
        database_url=url, vault_key=b"k" * 32, home=home, docker="off", pool_size=0, ticking=False, lease_seconds=5
    )
    async with Factory(options) as factory:
        yield factory


async def test_a_crew_can_be_paused_and_stopped_from_another_server(postgres_url: str, home: str) -> None:
    async with server(postgres_url, home) as one, server(postgres_url, f"{home}-2") as other:
        await need_workers(one)
        view = await one.crews.assemble(WHO, manifest(code("a", "crew.next()")))
        await other.crews.recover()  # what a living server has is left alone
        assert (await other.crews.status(WHO, view.id)).state == "running"
        await other.crews.pause(WHO, view.id)
        await until(other, view.id, lambda now: now.state == "paused")
        await other.crews.stop_crew(WHO, view.id)
        over = await until(one, view.id, lambda now: now.ended_at is not None)
        assert (over.state, over.why) == ("stopped", "It was stopped from another server.")
        await nothing_left(one)


async def test_the_crews_of_a_server_that_left_are_ended_by_another(postgres_url: str, home: str) -> None:
    async with server(postgres_url, home) as other:
        async with server(postgres_url, f"{home}-2") as one:
            await need_workers(one)
            view = await one.crews.assemble(WHO, manifest(code("a", "crew.next()")))
        async with asyncio.timeout(20):
            over = await until(other, view.id, lambda now: now.ended_at is not None)
        assert (over.state, over.why) == ("stopped", RESTARTED)
