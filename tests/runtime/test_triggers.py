"""How the outside starts runs: addresses, signatures, and the clock."""

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from nodes.errors import FactoryError, NotFound, TooMany
from runtime.execution import Response
from runtime.factory import Factory
from runtime.triggers import BadCall, as_reply, read_body
from storage import schedule
from tests.runtime.factories import ADMIN, agent, new_factory


@pytest.fixture
async def factory(database_url: str) -> AsyncIterator[Factory]:
    async with new_factory(database_url) as factory:
        yield factory


def hook(respond: str = "end", secret: str = "", path: str = "orders") -> "object":
    return agent(
        {
            "in": ("trigger.webhook", {"path": path, "respond": respond, "secret": secret}),
            "big": ("validation.decide", {"condition": "total > 100"}),
            "out": ("action.respond", {}),
        },
        "in.body > big.value", "big.yes > out.value",
    )  # fmt: skip


async def deploy(factory: Factory, blueprint: "object", **more: object) -> str:
    draft = await factory.blueprints.create(ADMIN, blueprint)  # type: ignore[arg-type]
    return (await factory.deployments.deploy(ADMIN, draft.id)).id


async def call(factory: Factory, body: "object", path: str = "orders", **headers: str) -> tuple[int, object]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = [(b"content-type", b"application/json")] + [
        (k.encode().replace(b"_", b"-"), v.encode()) for k, v in headers.items()
    ]
    reply = await factory.hooks.handle(path, "POST", sent, raw)
    return reply.status, json.loads(reply.body) if reply.body else None


async def test_a_call_that_waits_gets_the_answer(factory: Factory) -> None:
    await deploy(factory, hook())
    assert await call(factory, {"total": 120}) == (200, {"total": 120})
    [run] = await factory.runs.list(ADMIN)
    assert (run.state, run.version) == ("succeeded", 1)


async def test_a_call_that_does_not_wait_is_answered_when_the_run_is_safe(factory: Factory) -> None:
    await deploy(factory, hook("now"))
    status, said = await call(factory, {"total": 1})
    assert status == 202 and isinstance(said, dict)
    view = await factory.runs.wait(ADMIN, said["run"], 10)
    assert view.info.state == "succeeded" and view.input["body"] == {"total": 1}


async def test_an_address_that_leads_nowhere_says_so(factory: Factory) -> None:
    with pytest.raises(NotFound, match="Nothing answers"):
        await call(factory, {}, path="nowhere")


async def test_the_method_has_to_fit(factory: Factory) -> None:
    await deploy(factory, hook())
    with pytest.raises(BadCall) as caught:
        await factory.hooks.handle("orders", "GET", [], b"")
    assert caught.value.status == 405


async def test_a_failing_agent_is_told_without_its_inside(factory: Factory) -> None:
    await deploy(factory, hook())
    status, said = await call(factory, {"wrong": 1})
    assert status == 502 and "total" not in json.dumps(said)


async def test_a_paused_agent_takes_no_calls_and_a_resumed_one_does(factory: Factory) -> None:
    id_ = await deploy(factory, hook())
    await factory.deployments.pause(ADMIN, id_)
    with pytest.raises(BadCall) as caught:
        await call(factory, {"total": 120})
    assert caught.value.status == 503
    await factory.deployments.resume(ADMIN, id_)
    assert (await call(factory, {"total": 120}))[0] == 200
    await factory.deployments.stop(ADMIN, id_)
    with pytest.raises(NotFound):
        await call(factory, {"total": 120})


async def test_deploying_again_loses_no_call(factory: Factory) -> None:
    draft = await factory.blueprints.create(ADMIN, hook())  # type: ignore[arg-type]
    await factory.deployments.deploy(ADMIN, draft.id)
    answered: list[int] = []

    async def knock() -> None:
        while len(answered) < 150:
            answered.append((await call(factory, {"total": 120}))[0])
            await asyncio.sleep(0)

    knocking = [asyncio.ensure_future(knock()) for _ in range(4)]
    for number in range(5):
        raw = draft.blueprint.model_copy(update={"description": f"take {number}"})
        draft_now = await factory.blueprints.get(ADMIN, draft.id)
        await factory.blueprints.save(ADMIN, draft.id, raw, revision=draft_now.revision)
        await factory.deployments.deploy(ADMIN, draft.id)
    await asyncio.gather(*knocking)
    assert set(answered) == {200}
    assert (await factory.deployments.of(ADMIN, draft.id)).version == 6  # type: ignore[union-attr]


async def test_rolling_back_answers_with_the_version_before(factory: Factory) -> None:
    draft = await factory.blueprints.create(ADMIN, hook())  # type: ignore[arg-type]
    first = await factory.deployments.deploy(ADMIN, draft.id)
    changed = agent(
        {
            "in": ("trigger.webhook", {"path": "orders", "respond": "end"}),
            "new": ("context.set_values", {"values": [{"name": "new", "value": "yes"}]}),
            "out": "action.respond",
        },
        "in.body > new.value", "new.value > out.value",
    )  # fmt: skip
    await factory.blueprints.save(ADMIN, draft.id, changed, revision=1)
    await factory.deployments.deploy(ADMIN, draft.id)
    assert (await call(factory, {"total": 120}))[1] == {"total": 120, "new": "yes"}
    back = await factory.deployments.rollback(ADMIN, first.id)
    assert (back.version, back.previous) == (1, 2)
    assert (await call(factory, {"total": 120}))[1] == {"total": 120}


async def test_two_agents_cannot_have_one_address(factory: Factory) -> None:
    await deploy(factory, hook())
    with pytest.raises(FactoryError, match="in use by another agent"):
        await deploy(factory, hook())


def signed(secret: str, body: bytes, at: float | None = None, **more: str) -> dict[str, str]:
    stamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), b"v1." + stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"x_factory_timestamp": stamp, "x_factory_signature": f"v1={digest}", **more}


async def test_a_signed_address_hears_only_who_knows_the_secret(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook(secret="shop"))
    body = b'{"total": 120}'
    assert (await call(factory, body, **signed("s3cret", body)))[0] == 200
    refused = [
        {},
        signed("wrong", body),
        signed("s3cret", body + b" "),
        signed("s3cret", body, at=time.time() - 400),
        signed("s3cret", body, at=time.time() + 400),
        signed("s3cret", body) | {"x_factory_timestamp": "later"},
        signed("s3cret", body) | {"x_factory_signature": ""},
    ]
    for headers in refused:
        with pytest.raises(BadCall) as caught:
            await call(factory, body, **headers)
        assert caught.value.status == 401
    assert len(await factory.runs.list(ADMIN)) == 1


async def test_a_signed_call_cannot_be_repeated(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook(secret="shop"))
    body = b'{"total": 120}'
    headers = signed("s3cret", body, x_factory_event="evt-1")
    assert (await call(factory, body, **headers))[0] == 200
    with pytest.raises(BadCall) as caught:
        await call(factory, body, **headers)
    assert caught.value.status == 409


async def test_callers_do_not_learn_which_secret_is_missing(factory: Factory) -> None:
    body = b'{"total": 120}'
    await deploy(factory, agent({"in": ("trigger.webhook", {"path": "orders", "secret": "new", "old_secret": "old"})}))
    for secret in ("", "guessed"):
        with pytest.raises(BadCall) as caught:
            await call(factory, body, **signed(secret, body))
        assert caught.value.status == 503 and "new" not in caught.value.message + str(caught.value.fix)
    await factory.vault.put(ADMIN, "new", "n3w")
    with pytest.raises(BadCall) as caught:
        await call(factory, body, **signed("", body))
    assert caught.value.status == 401
    assert (await call(factory, body, **signed("n3w", body)))[0] == 202


async def test_no_mutation_of_a_signed_call_is_heard(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook("now", secret="shop"))
    chance, body = random.Random(5), b'{"total": 120}'
    true = signed("s3cret", body)
    for _ in range(400):
        sent, headers = bytearray(body), dict(true)
        name = chance.choice(["body", "stamp", *true])
        if name == "body":
            sent[chance.randrange(len(sent))] ^= chance.randrange(1, 256)
        elif name == "stamp":
            other = int(true["x_factory_timestamp"]) + chance.choice([-600, -1, 1, 600])
            headers["x_factory_timestamp"] = chance.choice(
                [str(other), f"{other}.5", f" {other}", f"{other}x", "1e9", ""]
            )
        else:
            text, place = headers[name], chance.randrange(len(headers[name]))
            headers[name] = text[:place] + chance.choice("0gz.-=") * chance.randrange(3) + text[place + 1 :]
        if bytes(sent) != body or headers != true:
            with pytest.raises(BadCall) as caught:
                await call(factory, bytes(sent), **headers)
            assert caught.value.status == 401
    assert await factory.runs.list(ADMIN) == []
    assert (await call(factory, body, **true))[0] == 202


async def test_another_event_id_does_not_make_a_signed_call_new(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook(secret="shop"))
    body = b'{"total": 120}'
    headers = signed("s3cret", body)
    assert (await call(factory, body, x_factory_event="evt-1", **headers))[0] == 200
    for event in ("evt-1", "evt-2", ""):
        with pytest.raises(BadCall) as caught:
            await call(factory, body, x_factory_event=event, **headers)
        assert caught.value.status == 409
    # Nor is one event new because it is signed again.
    with pytest.raises(BadCall):
        await call(factory, body, x_factory_event="evt-1", **signed("s3cret", body, at=time.time() - 1))
    assert (await call(factory, body, x_factory_event="evt-2", **signed("s3cret", body, at=time.time() - 2)))[0] == 200
    assert len(await factory.runs.list(ADMIN)) == 2


@pytest.mark.parametrize("respond", ["now", "end"])
async def test_a_signed_call_that_was_refused_for_want_of_room_may_come_again(factory: Factory, respond: str) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook(respond, secret="shop"))
    body = b'{"total": 120}'
    headers = signed("s3cret", body, x_factory_event="evt-1")
    await factory.limits.set(ADMIN, "concurrent_runs", 1)
    await factory.limits.set(ADMIN, "queue_depth", 1)
    assert all(factory.engine.queue.reserve(ADMIN.tenant) for _ in range(2))
    for _ in range(2):
        with pytest.raises(TooMany):
            await call(factory, body, **headers)
    factory.engine.queue.withdraw(ADMIN.tenant)
    assert (await call(factory, body, **headers))[0] == (202 if respond == "now" else 200)
    with pytest.raises(BadCall) as caught:
        await call(factory, body, **headers)
    assert caught.value.status == 409 and len(await factory.runs.list(ADMIN)) == 1


async def test_signed_calls_that_come_together_start_one_run(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "shop", "s3cret")
    await deploy(factory, hook(secret="shop"))
    body = b'{"total": 120}'
    headers = signed("s3cret", body)
    said = await asyncio.gather(*(call(factory, body, **headers) for _ in range(20)), return_exceptions=True)
    assert sorted(one.status if isinstance(one, BadCall) else 0 for one in said) == [0] + [409] * 19
    assert len(await factory.runs.list(ADMIN)) == 1


async def test_while_the_secret_changes_the_old_one_is_heard_too(factory: Factory) -> None:
    await factory.vault.put(ADMIN, "new", "n3w")
    await factory.vault.put(ADMIN, "old", "0ld")
    await deploy(factory, agent({"in": ("trigger.webhook", {"path": "orders", "secret": "new", "old_secret": "old"})}))
    body = b'{"total": 120}'
    for secret in ("n3w", "0ld"):
        assert (await call(factory, body, **signed(secret, body)))[0] == 202
    for headers in (signed("other", body), signed("", body), {}):
        with pytest.raises(BadCall) as caught:
            await call(factory, body, **headers)
        assert caught.value.status == 401


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b"", "application/json", None),
        (b'{"a": 1}', "", {"a": 1}),
        (b"a=1&b=&a=2", "application/x-www-form-urlencoded", {"a": "2", "b": ""}),
        (b"just words", "text/plain", "just words"),
        (b"\xff\xfe", "application/octet-stream", "\ufffd\ufffd"),
    ],
)
def test_a_body_is_fields_json_or_text(body: bytes, kind: str, value: object) -> None:
    assert read_body(body, kind) == value


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"x", "multipart/form-data; boundary=x"),
        (b"[" * 100 + b"]" * 100, ""),
        (b"1e999", "application/json"),
    ],
)
def test_a_body_that_cannot_be_kept_is_refused_in_words(body: bytes, kind: str) -> None:
    with pytest.raises(BadCall):
        read_body(body, kind)


def test_an_answer_cannot_set_cookies_or_run_scripts_here() -> None:
    headers = {
        "Set-Cookie": "a=b",
        "X-Note": "fine",
        "X-Bad\r\nSet-Cookie": "a=b",
        "X-Worse": "a\r\nSet-Cookie: a=b",
        "Content-Type": "text/html",
    }
    reply = as_reply(Response(200, "<script>alert(1)</script>", headers))
    names = [name for name, _ in reply.headers]
    assert b"set-cookie" not in names and not any(b"\n" in value for _, value in reply.headers)
    assert dict(reply.headers)[b"content-security-policy"].startswith(b"sandbox")
    assert (b"x-note", b"fine") in reply.headers and (b"content-type", b"text/html") in reply.headers


# --- the clock -----------------------------------------------------------------------------------------------------------


def every_hour(catch_up: str) -> "object":
    return agent(
        {
            "at": ("trigger.schedule", {"mode": "every", "every": 1, "unit": "hours", "catch_up": catch_up}),
            "note": ("context.set_values", {"values": [{"name": "seen", "value": "{{ input }}"}]}),
        },
        "at.moment > note.value",
    )


async def at(factory: Factory, moment: float) -> int:
    """Tick at that moment; how many runs there are then."""
    factory.clock._now = lambda: moment
    await factory.clock.tick()
    return len(await factory.runs.list(ADMIN))


@pytest.mark.parametrize(("catch_up", "runs"), [("skip", 0), ("once", 1), ("all", 4)])
async def test_after_a_pause_the_policy_says_what_is_made_up(factory: Factory, catch_up: str, runs: int) -> None:
    await deploy(factory, every_hour(catch_up))
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    assert row.next_due is not None
    assert await at(factory, row.next_due - 1) == 0
    assert await at(factory, row.next_due + 3 * 3600 + 100) == runs
    assert await at(factory, row.next_due + 3 * 3600 + 101) == runs, "nothing comes twice"
    assert await at(factory, row.next_due + 4 * 3600) == runs + 1


async def test_a_schedule_on_time_starts_a_run_with_its_moment(factory: Factory) -> None:
    await deploy(factory, every_hour("skip"))
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    assert row.next_due is not None
    await at(factory, row.next_due)
    [run] = await factory.runs.list(ADMIN)
    view = await factory.runs.wait(ADMIN, run.id, 10)
    assert datetime.fromisoformat(view.input["moment"]) == datetime.fromtimestamp(row.next_due, UTC)


async def test_a_clock_that_is_set_back_doubles_nothing(factory: Factory) -> None:
    await deploy(factory, every_hour("all"))
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    assert row.next_due is not None
    assert await at(factory, row.next_due) == 1
    assert await at(factory, row.next_due - 7200) == 1
    assert await at(factory, row.next_due + 10) == 1


async def test_a_moment_that_was_claimed_before_a_crash_gets_its_run(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        await deploy(factory, every_hour("once"))
        [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
        due = row.next_due
        assert due is not None
        await factory.db.write(
            ADMIN.tenant,
            lambda session: schedule.fire(
                session, row.id, due_at=due, next_due=due + 3600, at=time.time(), run_id="run_claimed"
            ),
        )
    async with new_factory(database_url, ticking=True) as factory:
        assert (await factory.runs.wait(ADMIN, "run_claimed", 10)).info.state == "succeeded"


async def test_a_paused_agent_is_not_started_by_the_clock(factory: Factory) -> None:
    id_ = await deploy(factory, every_hour("once"))
    [row] = await factory.db.read(ADMIN.tenant, schedule.listed)
    await factory.deployments.pause(ADMIN, id_)
    assert row.next_due is not None
    assert await at(factory, row.next_due + 10) == 0
