"""What a crew talks over, the same for both kinds: order, tasks that only one gets, values that nobody loses, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.errors import NotFound, TooMany
from runtime.crews import exchange as exchanges
from runtime.crews.bus import BusDown, CrewBus, MemoryBus
from runtime.crews.bus_redis import RedisBus
from runtime.crews.exchange import BadMessage, Exchange, NoAnswer, Place
from runtime.crews.manifest import read_manifest

OpenBus = Callable[[], Any]
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(params=["memory", "redis"])
def open_bus(request: pytest.FixtureRequest) -> OpenBus:
    """Opens a bus of this kind, in whatever loop runs: `async with open_bus() as bus`."""
    url = request.getfixturevalue("redis_server") if request.param == "redis" else ""

    @asynccontextmanager
    async def opened() -> AsyncIterator[CrewBus]:
        bus: CrewBus = RedisBus(url, f"test-{uuid4().hex[:8]}") if url else MemoryBus()
        await bus.start()
        try:
            yield bus
        finally:
            await bus.stop()

    return opened


@pytest.fixture
async def bus(open_bus: OpenBus) -> AsyncIterator[CrewBus]:
    async with open_bus() as bus:
        yield bus


def crew(bus: CrewBus, id_: str = "crew_1", **more: Any) -> Exchange:
    """The exchange of a crew of three."""
    given_ = {"id": "press", "members": [{"role": "a", "code": "pass"}], **more}
    exchange = Exchange(id_, read_manifest(given_), bus)
    for member, role in (("m1", "a"), ("m2", "b"), ("m3", "b")):
        exchange.join(Place(member, role))
    return exchange


async def heard(exchange: Exchange, member: str, count: int) -> list[dict[str, Any]]:
    """So many messages for a member."""
    found = []
    for _ in range(count):
        told = await exchange.next(member, 10)
        assert told is not None
        found.append(told)
    return found


# --- messages


async def test_messages_are_stamped_by_us_and_reach_the_others_who_listen(bus: CrewBus) -> None:
    one = crew(bus)
    await one.open(60)
    one.subscribe("m2", "news")
    one.subscribe("m1", "news")
    assert await one.publish("m1", "news", {"sender": "m9", "crew": "crew_9"}) == 1
    (told,) = await heard(one, "m2", 1)
    assert (told["crew"], told["sender"], told["role"], told["topic"], told["kind"]) == (
        "crew_1", "m1", "a", "news", "message",
    )  # fmt: skip
    assert told["body"] == {"sender": "m9", "crew": "crew_9"}
    assert await one.next("m1", 0) is None  # not who said it
    assert await one.next("m3", 0) is None  # nor who does not listen
    assert one.counts == {("m1", "m2"): 1}


async def test_nothing_of_one_crew_reaches_another(bus: CrewBus) -> None:
    one, other = crew(bus, "crew_1"), crew(bus, "crew_2")
    await one.open(60)
    await other.open(60)
    for each in (one, other):
        each.subscribe("m2", "news")
    await one.set("values", "key", "ours")
    await one.set("files", "file", "b3Vycw==")
    await one.push("m1", "work", "ours")
    await one.publish("m1", "news", "ours")
    await heard(one, "m2", 1)
    assert await other.next("m2", 0.05) is None
    for shelf in ("values", "files"):
        assert await bus.keys("crew_2", shelf) == []
    assert await bus.get("crew_2", "values", "key") is None
    assert await other.pop("m1", "work", 0) is None
    with pytest.raises(NotFound):
        await other.request("m1", "a", 1, 1)


async def test_a_request_is_answered_once_and_only_by_who_was_asked(bus: CrewBus) -> None:
    one = crew(bus)
    await one.open(60)

    async def answer(member: str) -> None:
        (told,) = await heard(one, member, 1)
        with pytest.raises(NotFound):
            await one.reply("m1", told["id"], "not mine to answer")
        await one.reply(member, told["id"], told["body"] + 1)
        with pytest.raises(NotFound):
            while True:  # over a server the first answer may still be on its way
                await one.reply(member, told["id"], "again")

    answering = [asyncio.ensure_future(answer(member)) for member in ("m2", "m3")]
    assert await one.request("m1", "b", 1, 10) == 2  # by its role, in turn
    assert await one.request("m1", "b", 5, 10) == 6
    await asyncio.gather(*answering)
    with pytest.raises(NoAnswer):
        await one.request("m1", "m2", 1, 0.02)
    await heard(one, "m2", 1)
    asking = asyncio.ensure_future(one.request("m1", "m2", 1, 10))
    await heard(one, "m2", 1)
    one.part("m2")
    with pytest.raises(NoAnswer):
        await asking


def test_messages_of_one_sender_stay_in_their_order(open_bus: OpenBus) -> None:
    @FEW
    @given(st.lists(st.tuples(st.sampled_from(["m1", "m2"]), st.sampled_from(["x", "y"]), JSON), max_size=30))
    def check(said: list[tuple[str, str, Any]]) -> None:
        async def talk() -> None:
            async with open_bus() as bus:
                one = crew(bus)
                await one.open(60)
                for topic in ("x", "y"):
                    one.subscribe("m3", topic)
                for sender, topic, body in said:
                    await one.publish(sender, topic, body)
                told = await heard(one, "m3", len(said))
                assert [(each["sender"], each["topic"], each["body"]) for each in told] == said
                await bus.close("crew_1")

        asyncio.run(talk())

    check()


# --- tasks


def test_each_task_is_taken_once_and_none_is_lost(open_bus: OpenBus) -> None:
    @FEW
    @given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 4))
    def check(tasks: int, takers: int, impatient: int) -> None:
        async def work() -> None:
            async with open_bus() as bus:
                one = crew(bus)
                await one.open(60)
                taken: list[int] = []

                async def take() -> None:
                    while (told := await one.pop("m2", "work", 0.3 if len(taken) < tasks else 0)) is not None:
                        taken.append(told["body"])

                async def give() -> None:
                    for number in range(tasks):
                        await one.push("m1", "work", number)
                        await asyncio.sleep(0)

                # Some give up while they wait: no task may go with them.
                leaving = [asyncio.ensure_future(one.pop("m3", "work", 5)) for _ in range(impatient)]
                await asyncio.sleep(0)
                for task in leaving:
                    task.cancel()
                await asyncio.gather(*leaving, return_exceptions=True)
                await asyncio.gather(give(), *(take() for _ in range(takers)))
                while (left := await one.pop("m2", "work", 0)) is not None:
                    taken.append(left["body"])
                assert sorted(taken) == list(range(tasks))
                if takers == 1:
                    assert taken == list(range(tasks))
                await bus.close("crew_1")

        asyncio.run(work())

    check()


async def test_who_waits_for_a_task_gets_it_at_once(bus: CrewBus) -> None:
    one = crew(bus)
    await one.open(60)
    waiting = asyncio.ensure_future(one.pop("m2", "work", 10))
    await asyncio.sleep(0.02)
    await one.push("m1", "work", {"n": 1})
    told = await waiting
    assert told is not None
    assert (told["sender"], told["body"], told["kind"]) == ("m1", {"n": 1}, "task")
    assert one.counts["m1", "m2"] == 1


# --- values


async def test_two_who_count_together_lose_nothing(bus: CrewBus) -> None:
    one = crew(bus)
    await one.open(60)

    async def count() -> None:
        for _ in range(10):
            while True:
                now = await bus.get("crew_1", "values", "n")
                if await one.swap("values", "n", now, (now or 0) + 1):
                    break

    await asyncio.gather(*(count() for _ in range(4)))
    assert await bus.get("crew_1", "values", "n") == 40
    assert await one.swap("values", "n", {"other": 1}, 0) is False
    await one.delete("values", "n")
    assert await bus.keys("crew_1", "values") == []


async def test_everything_has_a_limit(bus: CrewBus, monkeypatch: pytest.MonkeyPatch) -> None:
    one = crew(bus, budgets={"messages": 4}, topics={"n": {"type": "integer"}})
    await one.open(60)
    with pytest.raises(BadMessage):
        await one.publish("m1", "t", "x" * 70_000)
    with pytest.raises(BadMessage):
        await one.publish("m1", "n", "one")
    with pytest.raises(BadMessage):
        await one.set("values", "k", "x" * 300_000)
    monkeypatch.setitem(exchanges.SHELF_LIMITS, "values", (2, 100))  # type: ignore[index]
    await one.set("values", "a", "x" * 40)
    await one.set("values", "a", "x" * 60)
    with pytest.raises(TooMany):
        await one.set("values", "b", "x" * 60)
    await one.set("values", "b", 1)
    with pytest.raises(TooMany):
        await one.set("values", "c", 1)
    for _ in range(4):
        await one.publish("m1", "t", 1)
    with pytest.raises(TooMany):
        await one.publish("m2", "t", 1)
    monkeypatch.setattr(exchanges, "RATE", 0.0)
    with pytest.raises(TooMany):
        for _ in range(int(exchanges.BURST) + 1):
            one.pace("m1")
    one.pace("m2")  # the others are not slowed down by it


async def test_who_does_not_read_loses_the_oldest_and_only_its_own(
    bus: CrewBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "INBOX", 3)
    one = crew(bus)
    await one.open(60)
    for member in ("m2", "m3"):
        one.subscribe(member, "t")
    for number in range(5):
        await one.publish("m1", "t", number)
        await heard(one, "m3", 1)
    assert [told["body"] for told in await heard(one, "m2", 3)] == [2, 3, 4]
    assert one.places["m2"].missed == 2


# --- ends


async def test_what_has_ended_holds_nothing_and_answers_nothing(bus: CrewBus) -> None:
    one = crew(bus)
    await one.open(60)
    await one.set("values", "k", 1)
    await one.set("files", "f", "eA==")
    await one.push("m1", "work", 1)
    await bus.close("crew_1")
    with pytest.raises(BusDown):
        await one.publish("m1", "t", 1)
    with pytest.raises(BusDown):
        await one.pop("m1", "work", 0)
    again = crew(bus)
    await again.open(60)
    assert await bus.keys("crew_1", "values") == []
    assert await bus.get("crew_1", "files", "f") is None
    assert await again.pop("m1", "work", 0) is None


async def test_on_redis_what_is_shared_outlives_the_process_and_nothing_stays_for_ever(redis_server: str) -> None:
    home = f"test-{uuid4().hex[:8]}"
    first, second = RedisBus(redis_server, home), RedisBus(redis_server, home)
    await first.start()
    one = crew(first)
    await one.open(60)
    await one.set("values", "k", {"n": 1})
    await one.push("m1", "work", "left over")
    await first.stop()
    await second.start()
    again = crew(second)
    await again.open(60)
    assert await second.get("crew_1", "values", "k") == {"n": 1}
    keys = await second._redis.keys(f"factory:{home}:*")
    assert len(keys) == 3
    assert all([0 < await second._redis.ttl(key) <= 60 + 3_600 for key in keys])
    told = await again.pop("m2", "work", 0)
    assert told is not None
    assert told["body"] == "left over"
    await second.close("crew_1")
    assert await second._redis.keys(f"factory:{home}:*") == []
    await second.stop()


async def test_a_redis_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(BusDown) as caught:
        await RedisBus("redis://:secret@127.0.0.1:1/0", "test").start()
    assert caught.value.message == "No Redis server answers at redis://127.0.0.1:1."
