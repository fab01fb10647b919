"""Events and reply addresses in a compiled module: between its agents, and with the program around it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from nodes.compiling import CannotCompile
from runtime.compiling import compile_python
from tests.runtime.test_compiling import checked, imported
from tests.runtime.test_compiling_loops_and_calls import drawn

TYPES = catalog()
PAID: dict[str, Any] = {"event": "order.paid", "key": "order"}


def waits(**settings: Any) -> Blueprint:
    """Waits for an order to be paid."""
    return drawn(
        {"start": ("trigger.manual", {}), "wait": ("flow.wait_event", PAID | settings)}, "start.value > wait.value"
    )


def asks(amount: float = 1, **settings: Any) -> Blueprint:
    """Gives out an address and waits until it is called."""
    wait = {"mode": "call", "address": "address", "amount": amount, "unit": "minutes", **settings}
    return drawn(
        {"start": ("trigger.manual", {}), "make": ("flow.reply_address", {}),
         "keep": ("context.set_values", {"values": [{"name": "address", "value": "{{ steps.make.address }}"}]}),
         "wait": ("flow.wait_event", wait)},
        "start.value > make.value", "make.value > keep.value", "keep.value > wait.value",
    )  # fmt: skip


async def sent(world: Any, *event: Any) -> None:
    """Send an event as soon as somebody hears it."""
    while not await world.events.send(*event):
        await asyncio.sleep(0)


async def test_the_program_around_it_sends_what_it_waits_for(tmp_path: Path) -> None:
    module = imported(compile_python(waits(), TYPES), tmp_path)
    world = module.World()
    run = asyncio.create_task(module.run({"order": 4711}, world=world))
    await sent(world, "order.paid", "4711", {"amount": 12})
    assert await run == {"amount": 12}
    assert await world.events.send("order.paid", "4711", {}) == 0


async def test_what_does_not_come_in_time_goes_its_own_way(tmp_path: Path) -> None:
    module = imported(compile_python(waits(amount=0.0001, unit="minutes"), TYPES), tmp_path)
    assert await module.run({"order": 1}) == {"order": 1}


async def test_an_event_from_before_is_heard_once_by_each_step(tmp_path: Path) -> None:
    twice = drawn(
        {"start": ("trigger.manual", {}), "poll": ("flow.repeat", {"until": "index == 1"}),
         "wait": ("flow.wait_event", PAID | {"before": 5, "amount": 0.0005, "unit": "minutes"})},
        "start.value > poll.value", "poll.item > wait.value", "wait.arrived > poll.result", "wait.too_late > poll.result",
    )  # fmt: skip
    module = imported(compile_python(twice, TYPES), tmp_path)
    world = module.World()
    await world.events.send("order.paid", "1", {"order": 1, "number": 1})
    await world.events.send("order.paid", "2", {"order": 1})
    assert await module.run({"order": 1}, world=world) == {"order": 1, "number": 1}
    await world.events.send("order.paid", "1", {"order": 1, "number": 2})
    assert await module.run({"order": 1}, world=world) == {"order": 1, "number": 2}
    assert await module.run({"order": 3}, world=world) == {"order": 3}


async def test_an_agent_hears_what_it_sent_itself_before(tmp_path: Path) -> None:
    agent = drawn(
        {"start": ("trigger.manual", {}), "send": ("flow.send_event", PAID), "wait": ("flow.wait_event", PAID | {"before": 1})},
        "start.value > send.value", "send.value > wait.value",
    )  # fmt: skip
    module = imported(compile_python(agent, TYPES), tmp_path)
    assert await module.run({"order": 3}) == {"order": 3}


async def test_agents_of_a_module_send_each_other_events(tmp_path: Path) -> None:
    agent = drawn(
        {"start": ("trigger.manual", {}), "go": ("flow.start_blueprint", {"blueprint": "bp_waits"}),
         "pause": ("flow.wait", {"amount": 0}), "tell": ("flow.send_event", PAID | {"content": '{"amount": "{{ order }}"}'}),
         "end": ("flow.await_run", {"run_id": "steps.go.run"})},
        "start.value > go.value", "go.value > pause.value", "pause.value > tell.value", "tell.value > end.value",
    )  # fmt: skip
    module = imported(compile_python(agent, TYPES, {"bp_waits": waits()}), tmp_path)
    assert await module.run({"order": 7}) == {"amount": 7}


async def test_an_address_is_called_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_URL", "https://me.example/answers/")
    module = imported(compile_python(asks(), TYPES), tmp_path)
    world, made = module.World(), asyncio.Event()
    address, given = world.events.address, []

    async def noted(**settings: Any) -> str:
        given.append(await address(**settings))
        made.set()
        return str(given[0])

    world.events.address = noted
    run = asyncio.create_task(module.run({"who": "Ada"}, world=world))
    await made.wait()
    assert given[0].startswith("https://me.example/answers/")
    assert not world.events.call("https://me.example/answers/other")
    assert world.events.call(given[0], {"yes": True}, query={"a": "b"})
    assert not world.events.call(given[0], {"yes": False})
    assert await run == {"body": {"yes": True}, "query": {"a": "b"}, "headers": {}, "method": "POST"}


async def test_without_somebody_who_takes_calls_no_address_is_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENT_URL", raising=False)
    module = imported(compile_python(asks(), TYPES), tmp_path)
    with pytest.raises(module.NodeError, match="Nobody takes calls for this program") as caught:
        await module.run({})
    assert "AGENT_URL" in caught.value.fix


async def test_only_an_address_that_was_given_out_is_waited_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_URL", "https://me.example")
    module = imported(compile_python(asks(address="'https://me.example/other'"), TYPES), tmp_path)
    with pytest.raises(module.NodeError, match="This is no reply address"):
        await module.run({})


def test_modules_with_events_are_formatted_linted_and_typed(tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, agent in {"waits": waits(before=5), "asks": asks()}.items():
        (folder / f"{name}.py").write_text(compile_python(agent, TYPES))
    assert checked("ruff", "format", "--isolated", "--no-cache", "--line-length=120", "--diff", str(folder)) == ""
    rules = ("--ignore=E501", "--select=E,F,W,I,UP")
    assert checked("ruff", "check", "--isolated", "--no-cache", *rules, str(folder)) == ""
    assert checked("mypy", "--strict", f"--cache-dir={tmp_path}", str(folder)) == ""


def test_an_agent_that_waits_for_what_it_sends_itself_is_refused() -> None:
    agent = drawn(
        {"start": ("trigger.manual", {}), "wait": ("flow.wait_event", {"event": "go"}), "send": ("flow.send_event", {"event": "go"})},
        "start.value > wait.value", "start.value > send.value",
    )  # fmt: skip
    with pytest.raises(CannotCompile, match="“wait” cannot be compiled: “send” of the same agent sends"):
        compile_python(agent, TYPES)
