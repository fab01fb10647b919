"""All or nothing: what a crew leaves behind when it cannot be assembled, when it ends, and when its server does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.errors import Conflict, FactoryError, NotFound
from runtime.crews.crews import RESTARTED
from runtime.crews.live import LiveCrew
from runtime.factory import Factory
from runtime.workers.backend import NoWorker
from tests.runtime.crews.conftest import WHO, OpenFactory, code, ended, manifest, need_workers, nothing_left, until

DOUBLE: dict[str, Any] = {
    "name": "Double",
    "nodes": [
        {"id": "go", "type": "trigger.manual"},
        {
            "id": "set",
            "type": "action.transform",
            "settings": {"fields": [{"name": "double", "formula": "(message or 21) * 2"}]},
        },
    ],
    "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "set", "target_port": "value"}],
}
ASKS: dict[str, Any] = {
    "name": "Asks",
    "nodes": [
        {"id": "go", "type": "trigger.manual"},
        {"id": "ask", "type": "validation.approve", "settings": {"question": "Send it?"}},
    ],
    "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "ask", "target_port": "value"}],
}
WAITS = "crew.next()"


async def blueprint(factory: Factory, document: dict[str, Any]) -> str:
    return (await factory.blueprints.create(WHO, Blueprint.model_validate(document))).id


async def refused(factory: Factory, given: dict[str, Any], error: type[FactoryError] = FactoryError) -> FactoryError:
    """What an assembly is refused for."""
    with pytest.raises(error) as caught:
        await factory.crews.assemble(WHO, given)
    return caught.value


# --- agents as members


async def test_an_agent_is_a_member_by_a_run_of_its_own(factory: Factory) -> None:
    agent = await blueprint(factory, DOUBLE)
    view = await factory.crews.assemble(WHO, manifest({"role": "counter", "blueprint": agent}))
    over = await ended(factory, view.id)
    assert (over.state, over.members[0].kind, over.members[0].state) == ("finished", "blueprint", "done")
    assert over.members[0].run_id is not None
    run = await factory.runs.get(WHO, over.members[0].run_id)
    assert run.info.state == "succeeded"


async def test_an_agent_answers_requests_with_what_its_runs_come_to(factory: Factory) -> None:
    agent = await blueprint(factory, DOUBLE)
    text = """
said = [crew.request("counter", n) for n in (1, 2)]
try:
    crew.request("counter", "x" * 10)
except crew.Error as error:
    said.append(error.code)
return said
"""
    view = await factory.crews.assemble(
        WHO, manifest({"role": "counter", "blueprint": agent, "starts": "on request"}, code("asker", text))
    )
    over = await ended(factory, view.id)
    answers = over.members[1].result
    assert "2" in str(answers[0])
    assert "4" in str(answers[1])
    assert over.members[0].state == "stopped"
    assert over.state == "finished"


async def test_what_an_agent_does_for_a_request_ends_with_the_crew(factory: Factory) -> None:
    agent = await blueprint(factory, ASKS)
    view = await factory.crews.assemble(
        WHO,
        manifest(
            {"role": "clerk", "blueprint": agent, "starts": "on request"},
            code("a", "crew.request('clerk', 1, timeout=60)"),
        ),
    )
    async with asyncio.timeout(20):
        while not (waiting := await factory.runs.list(WHO, state="waiting")):
            await asyncio.sleep(0.02)
    await factory.crews.stop_crew(WHO, view.id)
    assert (await factory.runs.wait(WHO, waiting[0].id, 10)).info.state == "cancelled"


async def test_members_that_come_when_the_crew_ends_leave_nothing(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtime.crews.manifest import read_member

    view = await factory.crews.assemble(WHO, manifest(code("a", WAITS)))
    hold, asked, go = factory.fleet.hold, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        await go.wait()
        return await hold(*args, **kwargs)

    monkeypatch.setattr(factory.fleet, "hold", slow)
    adding = asyncio.ensure_future(factory.crews.add(WHO, view.id, read_member(code("b", WAITS))))
    await asked.wait()
    await factory.crews.stop_crew(WHO, view.id)
    go.set()
    with pytest.raises(Conflict):
        await adding
    await nothing_left(factory)


async def test_an_agent_that_waits_for_a_person_is_cancelled_with_its_crew(factory: Factory) -> None:
    agent = await blueprint(factory, ASKS)
    view = await factory.crews.assemble(WHO, manifest({"role": "clerk", "blueprint": agent}, code("a", WAITS)))
    await factory.crews.stop_crew(WHO, view.id)
    run = await factory.runs.wait(WHO, view.members[0].run_id or "", 10)
    assert run.info.state == "cancelled"


# --- assemblies that come to nothing


async def test_an_assembly_that_fails_halfway_leaves_nothing(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await blueprint(factory, ASKS)
    hold, asked = factory.fleet.hold, 0

    async def scarce(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise NoWorker("There are no more workers.")
        return await hold(*args, **kwargs)

    monkeypatch.setattr(factory.fleet, "hold", scarce)
    error = await refused(factory, manifest(code("a", WAITS, count=4), {"role": "clerk", "blueprint": agent}), NoWorker)
    assert error.message == "There are no more workers."
    await nothing_left(factory)
    (view,) = await factory.crews.list(WHO)
    assert (view.state, view.why) == ("failed", "There are no more workers.")
    assert {member.state for member in view.members} == {"stopped"}
    assert list(await factory.runs.list(WHO, state="waiting")) == []
    # Its name is free again.
    view = await factory.crews.assemble(WHO, manifest(code("a", "return 1")))
    assert (await ended(factory, view.id)).state == "finished"


@pytest.mark.parametrize("step", ["_seat", "_start_run", "tools.keep", "exchange.open"])
async def test_wherever_it_fails_nothing_is_left(factory: Factory, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    agent = await blueprint(factory, ASKS)
    seat, start = LiveCrew._seat, LiveCrew._start_run

    async def broken(crew: LiveCrew, member: Any) -> None:
        await (seat if step == "_seat" else start)(crew, member)
        if member.id == "m2":
            raise FactoryError("It broke here.")

    async def fails(*_: Any, **__: Any) -> None:
        raise FactoryError("It broke here.")

    if step.startswith("_"):
        monkeypatch.setattr(LiveCrew, step, broken)
    elif step == "exchange.open":
        monkeypatch.setattr(factory.crews.talk, "open", fails)
    else:
        write, writes = factory.db.write, 0

        async def write_once(*args: Any) -> Any:
            nonlocal writes
            writes += 1
            # The crew's own row, then the acceptance of the run, are written; "assembled" is not.
            if args[1].__qualname__.startswith("Crews._keep") and writes:
                raise FactoryError("It broke here.")
            return await write(*args)

        monkeypatch.setattr(factory.db, "write", write_once)
    given = manifest(code("a", WAITS), code("b", WAITS), {"role": "clerk", "blueprint": agent})
    error = await refused(factory, given)
    assert error.message == "It broke here."
    await nothing_left(factory)


async def test_a_run_that_was_just_accepted_when_another_failed_is_cancelled(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await blueprint(factory, ASKS)
    start, accepted = factory.runs.start, asyncio.Event()
    runs: list[str] = []

    async def late(*args: Any, **kwargs: Any) -> str:
        if accepted.is_set():
            raise FactoryError("It broke here.")
        accepted.set()
        runs.append(await start(*args, **kwargs))
        await asyncio.sleep(0.05)  # it is accepted, and whoever asked does not know its id yet
        return runs[0]

    monkeypatch.setattr(factory.runs, "start", late)
    await refused(factory, manifest({"role": "clerk", "blueprint": agent, "count": 2}))
    assert (await factory.runs.wait(WHO, runs[0], 10)).info.state == "cancelled"
    await nothing_left(factory)


async def test_a_crew_can_be_stopped_while_it_is_being_assembled(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, inside, never = factory.fleet.hold, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("member") == "m2":
            inside.set()
            await never.wait()
        return await hold(*args, **kwargs)

    monkeypatch.setattr(factory.fleet, "hold", slow)
    crew, work = await factory.crews.begin(WHO, manifest(code("a", WAITS, count=2)))
    await inside.wait()
    assert (await factory.crews.stop_crew(WHO, crew.id)).state == "stopped"
    with pytest.raises(Conflict):
        await factory.crews.outcome(work)
    await nothing_left(factory)


async def test_what_cannot_be_had_is_refused_before_anything_is_begun(factory: Factory) -> None:
    assert (await refused(factory, manifest({"role": "a", "blueprint": "bp_nothing"}), NotFound)).where
    assert "size" in (await refused(factory, manifest(code("a", "pass", tier="gigantic")), NotFound)).message
    assert list(await factory.crews.list(WHO)) == []


async def test_members_that_cannot_be_added_leave_the_crew_as_it_was(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtime.crews.manifest import read_member

    view = await factory.crews.assemble(WHO, manifest(code("a", WAITS)))

    async def none(*_: Any, **__: Any) -> Any:
        raise NoWorker("There are no more workers.")

    monkeypatch.setattr(factory.fleet, "hold", none)
    with pytest.raises(NoWorker):
        await factory.crews.add(WHO, view.id, read_member(code("b", WAITS, count=2)))
    view = await factory.crews.status(WHO, view.id)
    assert ([member.id for member in view.members], view.state, view.health) == (["m1"], "running", "ok")
    await factory.crews.stop_crew(WHO, view.id)


# --- the server's own lives


async def test_a_crew_ends_with_a_plain_reason_when_its_server_was_restarted(open_factory: OpenFactory) -> None:
    async with open_factory() as first:
        await need_workers(first)
        agent = await blueprint(first, ASKS)
        view = await first.crews.assemble(WHO, manifest(code("a", WAITS), {"role": "clerk", "blueprint": agent}))
        run = view.members[1].run_id or ""
    async with open_factory() as second:
        over = await second.crews.status(WHO, view.id)
        assert (over.state, over.why) == ("stopped", RESTARTED)
        assert {member.state for member in over.members} == {"stopped"}
        assert (await second.runs.wait(WHO, run, 10)).info.state == "cancelled"
        await nothing_left(second)


async def test_a_crew_that_asks_for_it_is_assembled_anew_and_its_runs_go_on(open_factory: OpenFactory) -> None:
    async with open_factory() as first:
        await need_workers(first)
        agent = await blueprint(first, ASKS)
        given = manifest(code("a", WAITS), {"role": "clerk", "blueprint": agent}, on_restart="again")
        view = await first.crews.assemble(WHO, given)
    async with open_factory() as second:
        again = await until(second, view.id, lambda now: now.state == "running")
        assert (again.epoch, [member.state for member in again.members]) == (2, ["running", "running"])
        assert again.members[1].run_id == view.members[1].run_id
        await second.crews.stop_crew(WHO, view.id)
        await nothing_left(second)
