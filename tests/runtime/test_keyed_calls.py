"""Calls with an idempotency key: one run however often they come, together or later, here or after a crash."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.errors import FactoryError
from runtime.factory import Factory
from runtime.keyed import BadKey
from runtime.triggers import BadCall
from tests.runtime.factories import ADMIN, agent, new_factory
from tests.runtime.test_triggers import call, deploy, hook, signed


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path}/f.db") as factory:
        yield factory


async def runs(factory: Factory) -> int:
    return len(await factory.runs.list(ADMIN))


@pytest.mark.parametrize("respond", ["now", "end"])
async def test_a_call_that_is_repeated_is_answered_as_before(factory: Factory, respond: str) -> None:
    await deploy(factory, hook(respond))
    first = await call(factory, {"total": 120}, idempotency_key="k1")
    again = [await call(factory, {"total": 120}, idempotency_key="k1") for _ in range(3)]
    assert [first, *again] == [first] * 4 and await runs(factory) == 1
    other = await call(factory, {"total": 120}, idempotency_key="k2")
    assert other[0] == first[0] and await runs(factory) == 2


async def test_calls_that_come_together_start_one_run(factory: Factory) -> None:
    await deploy(factory, hook())
    said = await asyncio.gather(*(call(factory, {"total": 120}, idempotency_key="k") for _ in range(30)))
    assert said == [(200, {"total": 120})] * 30 and await runs(factory) == 1


async def test_a_failure_is_answered_as_before_too(factory: Factory) -> None:
    await deploy(factory, hook())
    first = await call(factory, {"wrong": 1}, idempotency_key="k")
    assert first[0] == 502 and await call(factory, {"wrong": 1}, idempotency_key="k") == first
    assert await runs(factory) == 1


async def test_one_key_for_two_contents_is_a_mistake(factory: Factory) -> None:
    await deploy(factory, hook())
    await call(factory, {"total": 120}, idempotency_key="k")
    with pytest.raises(BadKey) as caught:
        await call(factory, {"total": 121}, idempotency_key="k")
    assert (caught.value.status, caught.value.code) == (422, "hook.key_reused")


@pytest.mark.parametrize("key", ["x" * 256, "a\tb", "a\x00b"])
async def test_a_key_that_is_none_is_refused(factory: Factory, key: str) -> None:
    await deploy(factory, hook())
    with pytest.raises(BadKey):
        await call(factory, {"total": 120}, idempotency_key=key)
    assert await runs(factory) == 0


async def test_a_key_is_kept_over_a_restart(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        await deploy(factory, hook())
        first = await call(factory, {"total": 120}, idempotency_key="k")
    async with new_factory(database_url) as factory:
        assert await call(factory, {"total": 120}, idempotency_key="k") == first
        assert await runs(factory) == 1


async def test_a_key_whose_run_a_crash_prevented_starts_it_when_the_call_comes_again(factory: Factory) -> None:
    await deploy(factory, hook())
    real = factory.engine.begin

    def crash(order: Any) -> Any:
        raise FactoryError("the server stops here")

    factory.engine.begin = crash  # type: ignore[method-assign]
    with pytest.raises(FactoryError, match="stops here"):
        await call(factory, {"total": 120}, idempotency_key="k")
    factory.engine.begin = real  # type: ignore[method-assign]
    for _ in range(2):
        assert await call(factory, {"total": 120}, idempotency_key="k") == (200, {"total": 120})
    assert await runs(factory) == 1


async def test_after_a_day_a_key_is_new(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    await deploy(factory, hook())
    await call(factory, {"total": 120}, idempotency_key="k")
    later = time.time() + 90_000
    monkeypatch.setattr("runtime.keyed.time.time", lambda: later)
    await call(factory, {"total": 150}, idempotency_key="k")
    assert await runs(factory) == 2


async def test_a_key_does_not_make_a_signed_call_new(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook(secret="shop"))
    body = b'{"total": 120}'
    headers = signed("s3cret", body)
    first = await call(factory, body, idempotency_key="k", **headers)
    assert await call(factory, body, idempotency_key="k", **headers) == first, "an honest repetition"
    for stolen in ({}, {"idempotency_key": "mine"}):
        with pytest.raises(BadCall) as caught:
            await call(factory, body, **headers, **stolen)
        assert caught.value.status == 409
    assert await runs(factory) == 1


async def test_a_keyed_call_to_a_paused_agent_waits_once(factory: Factory) -> None:
    id_ = await deploy(factory, hook())
    await factory.deployments.pause(ADMIN, id_, hold=True)
    first = await call(factory, {"total": 120}, idempotency_key="k")
    assert first[0] == 202 and await call(factory, {"total": 120}, idempotency_key="k") == first
    await factory.deployments.resume(ADMIN, id_)
    assert isinstance(first[1], dict)
    async with asyncio.timeout(10):
        while await runs(factory) == 0:
            await asyncio.sleep(0.01)
    await factory.runs.wait(ADMIN, first[1]["run"], 10)
    assert await call(factory, {"total": 120}, idempotency_key="k") == (200, {"total": 120})
    assert await runs(factory) == 1


async def test_another_address_and_another_tenant_have_keys_of_their_own(factory: Factory) -> None:
    await deploy(factory, hook())
    await deploy(factory, agent({"in": ("trigger.webhook", {"path": "other"})}))
    await call(factory, {"total": 120}, idempotency_key="k")
    await call(factory, {"total": 999}, idempotency_key="k", path="other")
    assert await runs(factory) == 2
