"""Test and live: an agent deployed to each, with addresses, schedules, variables and secrets of its own."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nodes.base import NodeError
from nodes.blueprint import Blueprint
from nodes.errors import Conflict, Denied, FactoryError, NotFound
from runtime.deploy import CheckFailed
from runtime.environments import LIVE, SHARED, TEST
from runtime.factory import Factory
from runtime.triggers import BadCall
from runtime.vault import BadKey
from storage import schedule, secret
from tests.runtime.factories import ADMIN, DEVELOPER, STRANGER, VIEWER, agent, new_factory


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}") as factory:
        yield factory


@pytest.fixture
async def either(database_url: str) -> AsyncIterator[Factory]:
    """The same on each kind of database."""
    async with new_factory(database_url) as factory:
        yield factory


def greeter(word: str = "hello", **more: Any) -> Blueprint:
    """Answers with a word, who sends it, and where it runs."""
    said = [
        {"name": "said", "value": word},
        {"name": "by", "value": "{{ vars.sender }}"},
        {"name": "where", "value": "{{ run.environment }}"},
    ]
    return agent(
        {
            "in": ("trigger.webhook", {"path": "greet", "respond": "end"}),
            "say": ("context.set_values", {"values": said, "keep": False}),
            "out": "action.respond",
        },
        "in.body > say.value", "say.value > out.value",
        **{"variables": [{"name": "sender", "value": "nobody"}]} | more,
    )  # fmt: skip


async def call(factory: Factory, path: str, body: Any = None) -> dict[str, Any]:
    raw = json.dumps(body if body is not None else {}).encode()
    reply = await factory.hooks.handle(path, "POST", [(b"content-type", b"application/json")], raw)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = json.loads(reply.body)
    return found


async def drawn(factory: Factory, blueprint: Blueprint) -> str:
    return (await factory.blueprints.create(ADMIN, blueprint)).id


async def redraw(factory: Factory, id_: str, blueprint: Blueprint) -> None:
    now = await factory.blueprints.get(ADMIN, id_)
    await factory.blueprints.save(ADMIN, id_, blueprint, revision=now.revision)


# --- deployments -------------------------------------------------------------------------------------------------------


async def test_each_environment_has_its_own_version_at_its_own_address(either: Factory) -> None:
    factory = either
    id_ = await drawn(factory, greeter("old"))
    live = await factory.deployments.deploy(ADMIN, id_)
    await redraw(factory, id_, greeter("new"))
    test = await factory.deployments.deploy(ADMIN, id_, environment=TEST)
    assert (live.environment, live.version, live.addresses) == (LIVE, 1, ("/hooks/greet",))
    assert (test.environment, test.version, test.addresses) == (TEST, 2, ("/hooks/test/greet",))
    assert (await call(factory, "greet"))["said"] == "old"
    assert (await call(factory, "test/greet"))["said"] == "new"
    assert {one.id for one in await factory.deployments.list(VIEWER)} == {live.id, test.id}
    [listed] = await factory.blueprints.list(VIEWER)
    assert listed.deployed_version == 1, "the home page tells what is live"


async def test_runs_say_where_they_ran(factory: Factory) -> None:
    id_ = await drawn(factory, greeter())
    await factory.deployments.deploy(ADMIN, id_)
    await factory.deployments.deploy(ADMIN, id_, environment=TEST)
    assert (await call(factory, "test/greet"))["where"] == TEST
    assert (await call(factory, "greet"))["where"] == LIVE
    runs = await factory.runs.list(ADMIN)
    assert sorted(run.environment for run in runs) == [LIVE, TEST]
    in_test = next(run for run in runs if run.environment == TEST)
    again = await factory.runs.wait(ADMIN, await factory.runs.retry(ADMIN, in_test.id), 10)
    assert again.info.environment == TEST, "a repetition stays where the first one ran"


async def test_stopping_one_leaves_the_other(factory: Factory) -> None:
    id_ = await drawn(factory, greeter())
    live = await factory.deployments.deploy(ADMIN, id_)
    test = await factory.deployments.deploy(ADMIN, id_, environment=TEST)
    await factory.deployments.stop(ADMIN, live.id)
    with pytest.raises(NotFound):
        await call(factory, "greet")
    assert (await call(factory, "test/greet"))["where"] == TEST
    with pytest.raises(Conflict, match="deployed"):
        await factory.blueprints.delete(ADMIN, id_)
    await factory.deployments.stop(ADMIN, test.id)
    await factory.blueprints.delete(ADMIN, id_)


async def test_schedules_of_a_test_deployment_run_when_somebody_switches_them_on(factory: Factory) -> None:
    id_ = await drawn(
        factory, agent({"at": ("trigger.schedule", {"mode": "every", "every": 1, "unit": "hours", "catch_up": "all"})})
    )
    test = await factory.deployments.deploy(ADMIN, id_, environment=TEST)
    assert not test.clocks
    later = time.time() + 5 * 3600

    async def ran(moment: float) -> int:
        factory.clock._now = lambda: moment
        await factory.clock.tick()
        return len(await factory.runs.list(ADMIN))

    assert await ran(later) == 0
    assert (await factory.deployments.set_clocks(ADMIN, test.id, True)).clocks
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    assert row.next_due is not None and row.next_due > time.time(), "nothing from before is made up"
    assert await ran(row.next_due) == 1
    await factory.deployments.pause(ADMIN, test.id)
    await factory.deployments.resume(ADMIN, test.id)
    assert (await factory.deployments.get(ADMIN, test.id)).clocks
    await factory.deployments.set_clocks(ADMIN, test.id, False)
    assert await ran(row.next_due + 3 * 3600) == 1


async def test_an_unknown_environment_is_refused(factory: Factory) -> None:
    id_ = await drawn(factory, greeter())
    with pytest.raises(FactoryError, match="no environment") as refused:
        await factory.deployments.deploy(ADMIN, id_, environment="staging")
    assert refused.value.status == 422


async def test_one_agent_calls_the_version_of_another_in_its_own_environment(factory: Factory) -> None:
    callee = await drawn(factory, greeter("live one"))
    await factory.deployments.deploy(ADMIN, callee)
    await redraw(factory, callee, greeter("test one"))
    await factory.deployments.deploy(ADMIN, callee, environment=TEST)
    caller = await drawn(
        factory,
        agent({"go": "trigger.manual", "ask": ("flow.call_blueprint", {"blueprint": callee})}, "go.value > ask.value"),
    )
    for environment, said in ((LIVE, "live one"), (TEST, "test one")):
        run_id = await factory.runs.start(ADMIN, caller, {"value": {}}, environment=environment)
        assert said in json.dumps((await _end(factory, run_id)).output)


async def _end(factory: Factory, run_id: str) -> Any:
    async for fact in factory.runs.watch(ADMIN, run_id):
        if fact["kind"] == "run.finished":
            break
    return await factory.runs.get(ADMIN, run_id)


# --- variables ---------------------------------------------------------------------------------------------------------


async def test_variables_of_the_environment_go_before_the_agents_own(factory: Factory) -> None:
    id_ = await drawn(factory, greeter())
    await factory.deployments.deploy(ADMIN, id_)
    await factory.deployments.deploy(ADMIN, id_, environment=TEST)
    assert (await call(factory, "greet"))["by"] == "nobody"
    await factory.variables.put(DEVELOPER, "sender", "everybody", environment=SHARED)
    await factory.variables.put(DEVELOPER, "sender", "a tester", environment=TEST)
    assert (await call(factory, "greet"))["by"] == "everybody"
    assert (await call(factory, "test/greet"))["by"] == "a tester"
    await factory.variables.delete(DEVELOPER, "sender", environment=TEST)
    assert (await call(factory, "test/greet"))["by"] == "everybody"


async def test_variables_are_there_after_a_start_and_only_for_their_team(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        await factory.variables.put(ADMIN, "sender", {"mail": "a@example.com"}, description="Who writes")
    async with new_factory(database_url) as factory:
        assert factory.variables.of(ADMIN.tenant, LIVE) == {"sender": {"mail": "a@example.com"}}
        [kept] = await factory.variables.list(VIEWER)
        assert (kept.environment, kept.description, kept.updated_by) == ("", "Who writes", "Ada")
        assert await factory.variables.list(STRANGER) == []
        assert factory.variables.of(STRANGER.tenant, LIVE) == {}
        with pytest.raises(NotFound):
            await factory.variables.delete(STRANGER, "sender")


async def test_a_run_keeps_the_variables_that_it_began_with(tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'factory.db'}"
    waits = agent(
        {
            "go": "trigger.manual",
            "ask": ("validation.approve", {"question": "Go on?"}),
            "say": ("context.set_values", {"values": [{"name": "by", "value": "{{ vars.sender }}"}]}),
        },
        "go.value > ask.value", "ask.approved > say.value",
        variables=[{"name": "sender", "value": "nobody"}],
    )  # fmt: skip
    async with new_factory(database_url) as factory:
        await factory.variables.put(ADMIN, "sender", "the first")
        id_ = await drawn(factory, waits)
        run_id = await factory.runs.start(ADMIN, id_, {"value": {}})
        await factory.runs.wait(ADMIN, run_id, 10)
        await factory.variables.put(ADMIN, "sender", "the second")
    async with new_factory(database_url) as factory:
        [asked] = await factory.approvals.list(ADMIN)
        await factory.approvals.decide(ADMIN, asked.id, approve=True)
        assert (await _end(factory, run_id)).output["by"] == "the first"


async def test_formulas_know_the_variables_of_the_environment_when_they_are_checked(factory: Factory) -> None:
    id_ = await drawn(factory, greeter(variables=[]))
    findings = await factory.blueprints.check(ADMIN, greeter(variables=[]), id=id_)
    assert any("sender" in finding.sentence and finding.severity == "error" for finding in findings)
    await factory.variables.put(ADMIN, "sender", "a tester", environment=TEST)
    assert not [
        one for one in await factory.blueprints.check(ADMIN, greeter(variables=[]), id=id_) if "sender" in one.sentence
    ]
    assert (await factory.deployments.deploy(ADMIN, id_, environment=TEST)).version == 1
    with pytest.raises(CheckFailed, match="sender"):
        await factory.deployments.deploy(ADMIN, id_)
    await factory.variables.put(ADMIN, "sender", "the team", environment=LIVE)
    await factory.deployments.deploy(ADMIN, id_)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a.b", "x" * 65, "sender\n"])
async def test_a_variable_needs_a_name_that_formulas_can_say(factory: Factory, name: str) -> None:
    if name == "sender\n":
        assert (await factory.variables.put(ADMIN, name, 1)).name == "sender"
        return
    with pytest.raises(FactoryError, match="cannot be the name"):
        await factory.variables.put(ADMIN, name, 1)


async def test_viewers_change_no_variables(factory: Factory) -> None:
    with pytest.raises(Denied):
        await factory.variables.put(VIEWER, "sender", 1)
    with pytest.raises(Denied):
        await factory.variables.delete(VIEWER, "sender")


# --- secrets -----------------------------------------------------------------------------------------------------------


async def test_a_secret_has_a_value_for_each_environment(either: Factory) -> None:
    factory = either
    await factory.vault.put(ADMIN, "key", "for live")
    await factory.vault.put(ADMIN, "key", "for test", environment=TEST)
    assert await factory.vault.reveal(ADMIN.tenant, "key") == "for live"
    assert await factory.vault.reveal(ADMIN.tenant, "key", TEST) == "for test"
    assert [(one.name, one.environment) for one in await factory.vault.names(VIEWER)] == [("key", LIVE), ("key", TEST)]
    await factory.vault.delete(ADMIN, "key", environment=TEST)
    assert await factory.vault.reveal(ADMIN.tenant, "key") == "for live"


async def test_a_secret_of_live_is_not_taken_in_test_unless_it_is_for_both(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "key", "for live")
    with pytest.raises(NodeError, match="has a value in live, but none in test") as missing:
        await factory.vault.reveal(ADMIN.tenant, "key", TEST)
    assert "for live" not in f"{missing.value.message} {missing.value.fix}"
    await factory.vault.put(ADMIN, "key", "for both", environment=SHARED)
    assert await factory.vault.reveal(ADMIN.tenant, "key", TEST) == "for both"
    assert await factory.vault.reveal(ADMIN.tenant, "key", LIVE) == "for live", (
        "an own value goes before the shared one"
    )


async def test_a_secret_that_an_environment_lacks_is_a_finding_there(factory: Factory) -> None:
    signed = agent({"in": ("trigger.webhook", {"path": "signed", "secret": "shop"})})
    await factory.vault.put(ADMIN, "shop", "s3cret", environment=TEST)
    found = await factory.blueprints.check(ADMIN, signed)
    assert any("“shop”, which has no value in live" in one.sentence for one in found)
    await factory.vault.put(ADMIN, "shop", "s3cret", environment=SHARED)
    assert not any("shop" in one.sentence for one in await factory.blueprints.check(ADMIN, signed))


async def test_a_signature_is_checked_with_the_secret_of_the_environment(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    id_ = await drawn(factory, agent({"in": ("trigger.webhook", {"path": "signed", "secret": "shop"})}))
    await factory.deployments.deploy(ADMIN, id_, environment=TEST)
    with pytest.raises(BadCall, match="cannot take calls") as caught:
        await factory.hooks.handle("test/signed", "POST", [], b"{}")
    assert caught.value.status == 503
    await factory.vault.put(ADMIN, "shop", "other", environment=TEST)
    with pytest.raises(BadCall, match="signature"):
        await factory.hooks.handle("test/signed", "POST", [], b"{}")


async def test_a_sealed_value_opens_only_in_its_own_environment(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "key", "for live")
    kept = await factory.db.read(ADMIN.tenant, lambda session: secret.get(session, "key", LIVE))
    assert kept is not None
    for place in (TEST, SHARED):
        await factory.db.write(
            ADMIN.tenant,
            lambda session, place=place: secret.put(  # type: ignore[misc]
                session, "key", ciphertext=kept.ciphertext, nonce=kept.nonce, at=1.0, by="thief", environment=place
            ),
        )
        with pytest.raises(BadKey):
            await factory.vault.reveal(ADMIN.tenant, "key", TEST)


async def test_a_secret_from_before_there_were_environments_is_for_both(factory: Factory) -> None:
    nonce = bytes(12)
    sealed = AESGCM(bytes(32)).encrypt(nonce, b"from before", f"{ADMIN.tenant}\nkey".encode())
    await factory.db.write(
        ADMIN.tenant,
        lambda session: secret.put(session, "key", ciphertext=sealed.hex(), nonce=nonce.hex(), at=1.0, by="Ada"),
    )
    for environment in (LIVE, TEST):
        assert await factory.vault.reveal(ADMIN.tenant, "key", environment) == "from before"


async def test_an_event_of_test_is_not_heard_in_live(factory: Factory) -> None:
    waiter = await drawn(
        factory,
        agent({"go": "trigger.manual", "wait": ("flow.wait_event", {"event": "paid"})}, "go.value > wait.value"),
    )
    teller = await drawn(
        factory,
        agent({"go": "trigger.manual", "tell": ("flow.send_event", {"event": "paid"})}, "go.value > tell.value"),
    )
    waiting = {
        place: await factory.runs.start(ADMIN, waiter, {"value": {}}, environment=place) for place in (LIVE, TEST)
    }
    for run_id in waiting.values():
        await _waits(factory, run_id)
    told = await factory.runs.start(ADMIN, teller, {"value": {}}, environment=TEST)
    assert [step.output["heard"] for step in (await _end(factory, told)).steps if step.node == "tell"] == [1]
    assert (await _end(factory, waiting[TEST])).info.state == "succeeded"
    await _waits(factory, waiting[LIVE])


async def _waits(factory: Factory, run_id: str) -> None:
    """Until only its rows are left."""
    async with asyncio.timeout(10):
        while (await factory.runs.get(ADMIN, run_id)).info.state != "waiting":
            await asyncio.sleep(0.005)
