"""Reply addresses through the door for webhooks, and what the checks know of the agents that are called."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nodes.errors import FactoryError, NotFound
from runtime.factory import Factory
from runtime.triggers import Reply
from tests.runtime.factories import ADMIN, STRANGER, agent, new_factory

PUBLIC = "https://agents.example"
WAITING = agent(
    {
        "in": ("trigger.manual", {}),
        "link": ("flow.reply_address", {"amount": 1, "unit": "hours"}),
        "wait": ("flow.wait_event", {"mode": "call", "address": "steps.link.address"}),
        "out": ("action.respond", {}),
    },
    "in.value > link.value", "link.value > wait.value", "wait.arrived > out.value",
)  # fmt: skip


@pytest.fixture
async def factory(database_url: str) -> AsyncIterator[Factory]:
    async with new_factory(database_url, public_url=PUBLIC) as factory:
        yield factory


async def address_of(factory: Factory) -> tuple[str, str]:
    """A run that waits, and its address."""
    draft = await factory.blueprints.create(ADMIN, WAITING)
    run_id = await factory.runs.start(ADMIN, draft.id)
    async for fact in factory.runs.watch(ADMIN, run_id):
        if fact["kind"] == "step.waiting":
            break
    view = await factory.runs.get(ADMIN, run_id)
    address: str = next(step.output["address"] for step in view.steps if step.node == "link")
    return run_id, address


async def call(factory: Factory, address: str, method: str = "POST", body: bytes = b"", query: bytes = b"") -> Reply:
    path = address.removeprefix(f"{PUBLIC}/hooks/")
    headers = [(b"content-type", b"application/json"), (b"cookie", b"secret"), (b"x-trace", b"7")]
    return await factory.hooks.handle(path, method, headers, body, query=query)


async def test_an_address_of_a_run_is_called_like_a_webhook(factory: Factory) -> None:
    run_id, address = await address_of(factory)
    assert address.startswith(f"{PUBLIC}/hooks/resume/")
    reply = await call(factory, address, body=json.dumps({"ok": 1}).encode(), query=b"from=mail")
    assert (reply.status, json.loads(reply.body)) == (202, {"state": "taken"})
    async for fact in factory.runs.watch(ADMIN, run_id):
        if fact["kind"] == "run.finished":
            break
    came: dict[str, Any] = fact["output"]
    assert (came["body"], came["query"], came["method"]) == ({"ok": 1}, {"from": "mail"}, "POST")
    assert came["headers"] == {"content-type": "application/json", "x-trace": "7"}
    with pytest.raises(FactoryError) as refused:
        await call(factory, address)
    assert (refused.value.status, refused.value.code) == (410, "hook.used")


async def test_an_address_that_is_too_old_or_made_up_answers_nothing(factory: Factory) -> None:
    _, address = await address_of(factory)
    with pytest.raises(NotFound):
        await call(factory, address[:-2] + "xx")
    with pytest.raises(NotFound):
        await call(factory, f"{PUBLIC}/hooks/resume/")
    now = factory.engine.clock()
    factory.engine.clock = lambda: now + 30 * 86_400
    with pytest.raises(FactoryError, match="too late"):
        await call(factory, address)


async def test_the_checks_of_a_caller_know_what_the_called_agent_needs(factory: Factory) -> None:
    called = agent({"in": ("trigger.called", {"fields": [{"name": "total", "kind": "number"}]})})
    draft = await factory.blueprints.create(ADMIN, called)
    caller = agent(
        {"in": ("trigger.manual", {}), "call": ("flow.call_blueprint", {"blueprint": draft.id, "input": '{"sum": 1}'})},
        "in.value > call.value",
    )  # fmt: skip
    codes = {finding.code for finding in await factory.blueprints.check(ADMIN, caller)}
    assert {"call.missing_input", "call.unknown_input"} <= codes
    others = {finding.code for finding in await factory.blueprints.check(STRANGER, caller)}
    assert "call.missing_input" not in others and "blueprint.missing" in others
