"""How a deployment is doing: counted from its runs, and told again whenever that changed."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.errors import NotFound
from runtime.factory import Factory
from runtime.status import DeploymentStatus
from tests.runtime.factories import ADMIN, STRANGER, VIEWER, agent, new_factory


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}") as factory:
        factory.statuses.pause = 0
        yield factory


def deciding() -> Any:
    return agent(
        {
            "in": ("trigger.webhook", {"path": "orders", "respond": "end"}),
            "at": ("trigger.schedule", {"mode": "every", "every": 1, "unit": "hours"}),
            "big": ("validation.decide", {"condition": "total > 100"}),
            "ask": "validation.approve",
        },
        "in.body > big.value", "big.yes > ask.value",
    )  # fmt: skip


async def call(factory: Factory, path: str = "orders", **body: Any) -> int:
    kind = [(b"content-type", b"application/json")]
    return (await factory.hooks.handle(path, "POST", kind, json.dumps(body).encode())).status


async def deployed(factory: Factory) -> str:
    draft = await factory.blueprints.create(ADMIN, deciding())
    await factory.deployments.deploy(ADMIN, draft.id, environment="test")
    return (await factory.deployments.deploy(ADMIN, draft.id)).id


async def test_it_counts_what_ran_in_this_environment(factory: Factory) -> None:
    id_ = await deployed(factory)
    fresh = await factory.statuses.get(VIEWER, id_)
    assert (fresh.version, fresh.environment, fresh.state, fresh.runs, fresh.success_share) == (
        1, "live", "active", 0, None,
    )  # fmt: skip
    assert fresh.next_due is not None
    await call(factory, total=1)
    await call(factory, total=1)
    await call(factory, wrong=1)
    await call(factory, total=120)
    await call(factory, "test/orders", total=1)
    seen = await factory.statuses.get(VIEWER, id_)
    assert (seen.runs, seen.succeeded, seen.failed, seen.waiting) == (4, 2, 1, 1)
    assert seen.success_share == pytest.approx(2 / 3)
    assert (seen.in_flight, seen.queue, seen.held) == (0, 0, 0)
    assert "total" in seen.last_error
    assert (await factory.runs.get(ADMIN, seen.last_error_run)).info.state == "failed"


async def test_a_stranger_does_not_see_it(factory: Factory) -> None:
    id_ = await deployed(factory)
    with pytest.raises(NotFound):
        await factory.statuses.get(STRANGER, id_)


async def test_it_is_told_again_when_something_happened_and_ends_when_it_is_stopped(factory: Factory) -> None:
    id_ = await deployed(factory)
    seen: list[DeploymentStatus] = []
    news = asyncio.Condition()

    async def follow() -> None:
        async for status in factory.statuses.watch(VIEWER, id_):
            async with news:
                seen.append(status)
                news.notify_all()

    following = asyncio.ensure_future(follow())

    async def until(right: Any) -> None:
        async with asyncio.timeout(10), news:
            await news.wait_for(lambda: bool(seen) and right(seen[-1]))

    await until(lambda now: now.runs == 0)
    await call(factory, total=1)
    await until(lambda now: now.succeeded == 1 and now.in_flight == 0)
    await factory.deployments.pause(ADMIN, id_, hold=True)
    await until(lambda now: now.state == "paused" and now.hold and now.next_due is None)
    await call(factory, total=2)
    await until(lambda now: now.held == 1)
    await factory.deployments.resume(ADMIN, id_)
    await until(lambda now: now.held == 0 and now.succeeded == 2)
    await factory.deployments.stop(ADMIN, id_)
    async with asyncio.timeout(10):
        await following
    assert seen[-1].state == "stopped"
    assert not factory.bus.watched(ADMIN.tenant, ("deployments",)), "nobody listens any more"


async def test_it_says_nothing_when_nothing_changed(factory: Factory) -> None:
    id_ = await deployed(factory)
    told = factory.statuses.watch(VIEWER, id_)
    await anext(told)
    waiting = asyncio.ensure_future(anext(told))
    factory.bus.publish(ADMIN.tenant, ("deployments",), {"deployment": id_})
    factory.bus.publish(ADMIN.tenant, ("deployments",), {"deployment": "another"})
    for _ in range(50):
        await factory.db.read(ADMIN.tenant, lambda session: None)
    assert not waiting.done()
    waiting.cancel()
