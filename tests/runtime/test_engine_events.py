"""Runs that wait for events and for calls of their own addresses: told once, in time, by the right one, also across a crash."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from nodes.errors import FactoryError, NotFound
from runtime import resume
from runtime.journal import Plans
from runtime.runs import Runs, Sandbox
from runtime.views import RunView
from runtime.waits import Waits
from storage.database import Database
from tests.runtime.engines import TENANT, WHO, Rig, outputs


@asynccontextmanager
async def open_real(url: str, **called: Blueprint) -> AsyncIterator[Rig]:
    """An engine that knows the product's own node types."""
    async with Database(url) as db:
        rig = Rig(db)
        rig.called = called
        rig.plans = rig.engine.plans = rig.engine.journal.plans = Plans(db, catalog())
        rig.runs = Runs(db, rig.bus, rig.engine, rig.plans)
        rig.sandbox = Sandbox(rig.engine, rig.plans)
        await rig.engine.start()
        try:
            yield rig
        finally:
            await rig.engine.stop()


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    async with open_real(database_url) as rig:
        yield rig


def drawn(nodes: dict[str, tuple[str, dict[str, Any]]], *wires: str) -> Blueprint:
    edges = []
    for number, wire in enumerate(wires):
        (source, out), (target, into) = (end.strip().split(".") for end in wire.split(">"))
        edges.append({"id": f"e{number}", "source": source, "source_port": out, "target": target, "target_port": into})
    placed = [{"id": id_, "type": type_, "settings": settings} for id_, (type_, settings) in nodes.items()]
    return Blueprint.parse({"name": "Events", "nodes": placed, "edges": edges})


START = ("trigger.manual", {})
WAITING = drawn(
    {"s": START, "w": ("flow.wait_event", {"event": "paid", "key": "order", "amount": 2, "unit": "days"})}, "s.value > w.value"
)  # fmt: skip
SENDING = drawn({"s": START, "e": ("flow.send_event", {"event": "paid", "key": "order"})}, "s.value > e.value")
ADDRESS = drawn(
    {
        "s": START, "a": ("flow.reply_address", {}),
        "w": ("flow.wait_event", {"mode": "call", "address": "steps.make_a_reply_address.address", "amount": 2}),
    },
    "s.value > a.value", "a.value > w.value",
)  # fmt: skip


async def call(waits: Waits, token: str, body: Any = None, method: str = "POST", accept: str = "*/*") -> resume.Resumed:
    return await resume.call(waits, token, method, {"accept": accept}, {"body": body, "method": method})


async def token_of(rig: Rig, run_id: str) -> str:
    """The last part of the address that a waiting run made."""
    address: str = outputs(await rig.runs.get(WHO, run_id))["a"]["address"]
    assert address.startswith("/hooks/resume/")
    return address.rpartition("/")[2]


async def test_an_event_lets_those_go_on_that_wait_for_its_key(rig: Rig) -> None:
    first, other = [await rig.begin(WAITING, {"order": order}) for order in (7, 8)]
    for ex in (first, other):
        await rig.waiting(ex.id)
    sent = await rig.run(SENDING, {"order": "7", "amount": 3})
    assert outputs(sent)["e"]["heard"] == 1
    view = await rig.ended(first.id)
    assert outputs(view)["w"] == {"arrived": {"order": "7", "amount": 3}}
    assert (await rig.runs.get(WHO, other.id)).info.state == "waiting"
    assert outputs(await rig.run(SENDING, {"order": 7}))["e"]["heard"] == 0, "it is heard once"


async def test_what_does_not_happen_in_time_goes_out_by_too_late(rig: Rig) -> None:
    ex = await rig.begin(WAITING, {"order": 7})
    await rig.waiting(ex.id)
    now = rig.engine.clock()
    rig.engine.clock = lambda: now + 3 * 86_400
    await rig.engine.tick()
    assert outputs(await rig.ended(ex.id))["w"] == {"too_late": {"order": 7}}
    assert outputs(await rig.run(SENDING, {"order": 7}))["e"]["heard"] == 0


async def test_what_came_while_the_server_was_down_is_told_at_the_next_start(database_url: str) -> None:
    async with open_real(database_url) as rig:
        ex = await rig.begin(WAITING, {"order": 7})
        await rig.waiting(ex.id)
        engine = rig.engine
        told = asyncio.Event()

        async def lost(*place: Any) -> None:
            told.set()

        engine.answer = lost  # type: ignore[method-assign]  # the crash comes before the run is told
        await engine.waits.publish(TENANT, "live", "paid", "7", "yes", "once")
        await told.wait()
    async with open_real(database_url) as rig:
        assert outputs(await rig.ended(ex.id))["w"] == {"arrived": "yes"}


async def test_the_same_sending_step_is_heard_once_however_often_it_is_repeated(rig: Rig) -> None:
    waits = rig.engine.waits
    ex = await rig.begin(WAITING, {"order": 7})
    await rig.waiting(ex.id)
    assert await waits.publish(TENANT, "live", "paid", "7", 1, "key") == 1
    await rig.ended(ex.id)
    again = await rig.begin(WAITING, {"order": 7})
    await rig.waiting(again.id)
    assert await waits.publish(TENANT, "live", "paid", "7", 1, "key") == 0
    assert await waits.publish("stranger", "live", "paid", "7", 1, "other key") == 0
    assert (await rig.runs.get(WHO, again.id)).info.state == "waiting"


async def test_an_event_is_not_missed_between_the_row_and_the_fact(rig: Rig) -> None:
    waits = rig.engine.waits
    prepare = waits.prepare

    async def and_at_once(*given: Any) -> None:
        await prepare(*given)
        assert await waits.publish(TENANT, "live", "paid", "7", "soon", "once") == 1

    waits.prepare = and_at_once  # type: ignore[method-assign]
    assert outputs(await rig.run(WAITING, {"order": 7}))["w"] == {"arrived": "soon"}


async def test_a_run_that_failed_beside_its_waits_hears_nothing_and_asks_nobody(rig: Rig) -> None:
    blueprint = drawn(
        {
            "s": START, "w": ("flow.wait_event", {"event": "paid"}), "ask": ("validation.approve", {}),
            "p": ("flow.wait", {"amount": 1, "unit": "hours"}), "x": ("validation.stop_error", {"message": "No."}),
        },
        "s.value > w.value", "s.value > ask.value", "s.value > p.value", "p.value > x.value",
    )  # fmt: skip
    ex = await rig.begin(blueprint, None)
    await rig.waiting(ex.id)
    assert await rig.approvals.count(WHO) == 1
    now = rig.engine.clock()
    rig.engine.clock = lambda: now + 4_000
    await rig.engine.tick()
    assert (await rig.ended(ex.id)).info.state == "failed"
    async with asyncio.timeout(20):
        while await rig.approvals.count(WHO):
            await asyncio.sleep(0.005)
    assert await rig.engine.waits.publish(TENANT, "live", "paid", "", 1, "once") == 0


async def test_an_address_works_once_and_gives_what_the_call_brings(rig: Rig) -> None:
    ex = await rig.begin(ADDRESS, {"customer": "Ada"})
    await rig.waiting(ex.id)
    token = await token_of(rig, ex.id)
    assert (await call(rig.engine.waits, token, {"ok": True})).status == 202
    assert outputs(await rig.ended(ex.id))["w"]["arrived"]["body"] == {"ok": True}
    with pytest.raises(resume.UsedUp):
        await call(rig.engine.waits, token)
    with pytest.raises(NotFound):
        await call(rig.engine.waits, token[:-1])
    with pytest.raises(FactoryError, match="POST"):
        await call(rig.engine.waits, token, method="DELETE")


async def test_looking_at_an_address_does_not_use_it_up(rig: Rig) -> None:
    ex = await rig.begin(ADDRESS, None)
    await rig.waiting(ex.id)
    token = await token_of(rig, ex.id)
    page = await call(rig.engine.waits, token, method="GET", accept="text/html")
    assert page.status == 200 and b"<button" in page.body and b"script" not in page.body
    assert (await rig.runs.get(WHO, ex.id)).info.state == "waiting"
    thanks = await call(rig.engine.waits, token, accept="text/html")
    assert thanks.status == 202 and b"Thank you" in thanks.body
    assert (await call(rig.engine.waits, token, method="GET", accept="text/html")).status == 410


async def test_an_address_may_be_called_before_its_run_waits(rig: Rig) -> None:
    blueprint = drawn(
        {
            "s": START, "a": ("flow.reply_address", {}), "p": ("flow.wait", {"amount": 1, "unit": "hours"}),
            "w": ("flow.wait_event", {"mode": "call", "address": "steps.make_a_reply_address.address"}),
        },
        "s.value > a.value", "a.value > p.value", "p.value > w.value",
    )  # fmt: skip
    ex = await rig.begin(blueprint, None)
    await rig.waiting(ex.id)
    await call(rig.engine.waits, await token_of(rig, ex.id), "early")
    now = rig.engine.clock()
    rig.engine.clock = lambda: now + 4_000
    await rig.engine.tick()
    assert outputs(await rig.ended(ex.id))["w"]["arrived"]["body"] == "early"


async def test_only_the_hash_of_an_address_is_kept_beside_the_run(rig: Rig) -> None:
    ex = await rig.begin(ADDRESS, None)
    await rig.waiting(ex.id)
    token = await token_of(rig, ex.id)
    row = await rig.engine.waits.find(token)
    assert row is not None and token not in repr(row.model_dump())
    wait = next(f for f in (await rig.engine.journal.load(TENANT, ex.id))[2] if f["kind"] == "step.waiting")
    assert token not in repr(wait["data"])


async def test_what_is_no_address_is_said(rig: Rig) -> None:
    blueprint = drawn({"s": START, "w": ("flow.wait_event", {"mode": "call", "address": "input"})}, "s.value > w.value")
    view = await rig.run(blueprint, "/hooks/resume/made-up")
    assert view.info.error and "no reply address" in view.info.error["message"]


async def test_a_cancelled_run_waits_for_nothing(rig: Rig) -> None:
    ex = await rig.begin(WAITING, {"order": 7})
    await rig.waiting(ex.id)
    await rig.engine.cancel(TENANT, ex.id)
    assert outputs(await rig.run(SENDING, {"order": 7}))["e"]["heard"] == 0


@pytest.mark.parametrize(("pretend", "port"), [({}, "arrived"), ({"w": {"arrived": False}}, "too_late")])
async def test_the_sandbox_pretends_that_it_came(rig: Rig, pretend: dict[str, Any], port: str) -> None:
    settings = {"event": "paid", "key": "order", "sample_json": '{"amount": 5}'}
    blueprint = drawn({"s": START, "w": ("flow.wait_event", settings)}, "s.value > w.value")
    run_id = await rig.sandbox.start(WHO, blueprint, {"order": 7}, pretend=pretend)
    view: RunView = await rig.ended(run_id)
    assert outputs(view)["w"] == {port: {"amount": 5} if port == "arrived" else {"order": 7}}
    assert "the event “paid”" in view.effects[0]
    for made in (SENDING, ADDRESS):
        run_id = await rig.sandbox.start(WHO, made, {"order": 7})
        assert (await rig.ended(run_id)).info.state == "succeeded"


# --- events from before -----------------------------------------------------------------------------------------------------


def late(**settings: Any) -> Blueprint:
    wait = {"event": "paid", "key": "order", "amount": 2, "unit": "days", "before": 10} | settings
    return drawn({"s": START, "w": ("flow.wait_event", wait)}, "s.value > w.value")


async def test_an_event_from_shortly_before_is_heard_by_everybody_who_takes_one_also_after_a_restart(
    database_url: str,
) -> None:
    async with open_real(database_url) as rig:
        assert await rig.engine.waits.publish(TENANT, "live", "paid", "7", {"n": 1}, "first") == 0
        assert await rig.engine.waits.publish(TENANT, "live", "paid", "7", {"n": 2}, "second") == 0
    async with open_real(database_url) as rig:
        for _ in range(2):
            view = await rig.run(late(), {"order": 7})
            assert outputs(view)["w"] == {"arrived": {"n": 1}}, "each waiter hears it, the earliest first"
        for blueprint, order in ((late(before=0), 7), (late(), 8), (late(event="other"), 7)):
            ex = await rig.begin(blueprint, {"order": order})
            await rig.waiting(ex.id)
        assert await rig.engine.waits.publish("stranger", "live", "paid", "8", 1, "third") == 0
        assert await rig.engine.waits.publish(TENANT, "test", "paid", "8", 1, "fourth") == 0


async def test_an_event_from_too_long_before_is_not_heard(rig: Rig) -> None:
    await rig.engine.waits.publish(TENANT, "live", "paid", "7", 1, "first")
    clock = rig.engine.clock
    rig.engine.clock = lambda: clock() + 601
    ex = await rig.begin(late(), {"order": 7})
    await rig.waiting(ex.id)


async def test_a_step_that_waits_again_and_again_hears_each_event_once(rig: Rig) -> None:
    wait = {"event": "paid", "key": "'k'", "before": 10}
    blueprint = drawn(
        {"s": START, "each": ("flow.for_each", {}), "w": ("flow.wait_event", wait), "end": ("context.set_values", {})},
        "s.value > each.items", "each.item > w.value", "w.arrived > each.result", "each.done > end.value",
    )  # fmt: skip
    waits = rig.engine.waits
    await waits.publish(TENANT, "live", "paid", "k", 1, "first")
    ex = await rig.begin(blueprint, ["a", "b", "c", "d"])
    await rig.waiting(ex.id)
    # Whether the run waits again by the time of the next one makes no difference.
    for number, once in ((2, "second"), (2, "second"), (3, "third"), (4, "fourth")):
        await waits.publish(TENANT, "live", "paid", "k", number, once)
    view = await rig.ended(ex.id)
    assert outputs(view)["each"] == {"done": [1, 2, 3, 4]}
