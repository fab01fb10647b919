"""Crews at work, in real sandboxes: what members can say to each other, what is left of them, and what changes."""

from __future__ import annotations

import ast
import asyncio
import textwrap
from pathlib import Path

import orjson
import pytest

from nodes.errors import Conflict, Denied, FactoryError, NotFound
from runtime.crews import door, tokens
from runtime.crews.manifest import read_manifest, read_member
from runtime.factory import Factory
from tests.runtime.crews.conftest import (
    OTHER,
    VIEWER,
    WHO,
    OpenFactory,
    code,
    ended,
    manifest,
    need_workers,
    nothing_left,
    until,
)

DOCS = Path(__file__).parents[3] / "docs"
TALK = """
if crew.role == "editor":
    for task in ["a", "b", "c"]:
        crew.push("drafts", task)
    texts = sorted(crew.request(crew.get("who", "writer"), n)["text"] for n in range(2))
    crew.write_file("press.txt", "|".join(texts))
    crew.publish("ready", {"file": "press.txt"})
    return {"texts": texts, "me": crew.member, "crew": crew.id}
if crew.role == "reader":
    crew.subscribe("ready")
    crew.set("listening", True)
    message = crew.next(timeout=20)
    return {"from": message.role, "text": crew.read_file(message.body["file"]).decode(), "context": context}
done = []
while len(done) < 2:
    message = crew.next(timeout=20)
    message.reply({"text": f"text {message.body} for {message.role}"})
    done.append(crew.pop("drafts"))
return done
"""


async def test_members_talk_share_and_divide_work(factory: Factory) -> None:
    waiting = "import time\nwhile not crew.get('listening'): time.sleep(0.01)\n"
    editor = code("editor", waiting + TALK)
    view = await factory.crews.assemble(
        WHO, manifest(editor, code("writer", TALK), code("reader", TALK), context={"subject": "tea"})
    )
    assert (view.state, view.health, view.bus) == ("running", "ok", "memory")
    over = await ended(factory, view.id)
    assert (over.state, over.why) == ("finished", "")
    results = {member.role: member.result for member in over.members}
    assert results["editor"] == {
        "texts": ["text 0 for editor", "text 1 for editor"], "me": "m1", "crew": view.id,
    }  # fmt: skip
    assert results["writer"] == ["a", "b"]
    assert results["reader"] == {
        "from": "editor", "text": "text 0 for editor|text 1 for editor", "context": {"subject": "tea"},
    }  # fmt: skip
    await nothing_left(factory)


async def test_a_member_finds_its_crew_in_its_environment(factory: Factory) -> None:
    text = """
import os, crew as imported
return [os.environ[n] for n in ("CREW_ID", "CREW_MEMBER", "CREW_ROLE", "CREW_BUS", "STYLE")] + [imported is crew, topic]
"""
    member = code("writer", text, environment={"STYLE": "plain"}, inputs={"topic": "tea"})
    view = await factory.crews.assemble(WHO, manifest(member))
    over = await ended(factory, view.id)
    assert over.members[0].result == [view.id, "m1", "writer", "unix:/factory/crew", "plain", True, "tea"]


async def test_what_a_member_may_not_do_is_refused_in_words(factory: Factory) -> None:
    text = """
said = []
for attempt in (
    lambda: crew.publish("news", {"n": "one"}),
    lambda: crew.publish("Not A Topic", 1),
    lambda: crew.set("key", "v"),
    lambda: crew.push("work", "x" * 70_000),
    lambda: crew.request("nobody", 1),
    lambda: crew.request(crew.member, 1),
    lambda: crew._ask("dance"),
    lambda: crew._ask("publish", topic="news", body={"n": 1}, sender="m9"),
    lambda: crew.publish("free", float("nan")),
):
    try:
        said.append(attempt())
    except crew.Error as error:
        said.append(error.code)
return said
"""
    rules = {"news": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    view = await factory.crews.assemble(WHO, manifest(code("writer", text, tools=["talk", "tasks"]), topics=rules))
    over = await ended(factory, view.id)
    assert over.members[0].result == [
        "crew.message", "crew.message", "crew.scope", "crew.message", "crew.nobody", "crew.nobody",
        "crew.message", "crew.message", "crew.json",
    ]  # fmt: skip


async def test_messages_that_were_sent_are_counted_between_members(factory: Factory) -> None:
    text = """
if crew.role == "a":
    while crew.publish("t", 1) < 2:
        pass
else:
    crew.subscribe("t")
    return crew.next(20).sender
"""
    view = await factory.crews.assemble(WHO, manifest(code("a", text), code("b", text, count=2)))
    crew = factory.crews._live[view.id]
    over = await ended(factory, view.id)
    assert [member.result for member in over.members] == [None, "m1", "m1"]
    assert crew.exchange.counts["m1", "m2"] >= 1
    assert crew.exchange.counts["m1", "m3"] >= 1


async def test_a_member_that_fails_says_why_and_the_crew_with_it(factory: Factory) -> None:
    view = await factory.crews.assemble(WHO, manifest(code("a", "1 / 0"), code("b", "return 1")))
    over = await ended(factory, view.id)
    assert over.state == "failed"
    assert "“a” m1 failed: division by zero" in over.why
    assert [member.state for member in over.members] == ["failed", "done"]


async def test_a_stopped_crew_leaves_nothing_even_in_the_middle_of_everything(factory: Factory) -> None:
    endless = "while True:\n    crew.pop('never', timeout=5)"
    view = await factory.crews.assemble(WHO, manifest(code("a", endless, count=2), code("b", "while True: pass")))
    over = await factory.crews.stop_crew(WHO, view.id)
    assert (over.state, over.why) == ("stopped", "Ada stopped it.")
    assert {member.state for member in over.members} == {"stopped"}
    await nothing_left(factory)
    assert (await factory.crews.stop_crew(WHO, view.id)).state == "stopped"
    assert [event["what"] for event in await factory.crews.history(WHO, view.id)] == [
        "stopped",
        "assembled",
        "asked for",
    ]


async def test_a_paused_crew_says_nothing_until_it_goes_on(factory: Factory) -> None:
    text = """
crew.set("here", True)
crew.pop("go", timeout=30)
crew.set("after", True)
"""
    view = await factory.crews.assemble(WHO, manifest(code("a", text)))
    exchange = factory.crews._live[view.id].exchange
    while await factory.crews.talk.get(view.id, "values", "here") is None:
        await asyncio.sleep(0.01)
    assert (await factory.crews.pause(WHO, view.id)).state == "paused"
    with pytest.raises(FactoryError):
        await factory.crews.pause(WHO, view.id)
    await exchange.push("m1", "go", 1)
    await asyncio.sleep(0.2)
    assert await factory.crews.talk.get(view.id, "values", "after") is None
    await factory.crews.resume(WHO, view.id)
    assert (await ended(factory, view.id)).state == "finished"


async def test_members_come_change_and_go_while_the_crew_is_at_work(factory: Factory) -> None:
    wait = "crew.subscribe('end')\nm = crew.next()\nreturn [crew.role, m.body]"
    view = await factory.crews.assemble(WHO, manifest(code("a", wait), code("b", wait)))
    worker = view.members[0].worker
    view = await factory.crews.add(WHO, view.id, read_member(code("c", wait, count=2)))
    assert [(member.id, member.role, member.state) for member in view.members] == [
        ("m1", "a", "running"), ("m2", "b", "running"), ("m3", "c", "running"), ("m4", "c", "running"),
    ]  # fmt: skip
    view = await factory.crews.rerole(WHO, view.id, "m1", read_member(code("boss", wait)))
    assert (view.members[0].role, view.members[0].state, view.members[0].worker) == ("boss", "running", worker)
    view = await factory.crews.dismiss(WHO, view.id, "m2")
    assert view.members[1].state == "stopped"
    with pytest.raises(Conflict):
        await factory.crews.rerole(WHO, view.id, "m2", read_member(code("x", wait)))
    with pytest.raises(NotFound):
        await factory.crews.dismiss(WHO, view.id, "m9")
    view = await factory.crews.add(WHO, view.id, read_member(code("last", "while crew.publish('end', 7) < 3: pass")))
    over = await ended(factory, view.id)
    assert [member.result for member in over.members] == [["boss", 7], None, ["c", 7], ["c", 7], None]
    assert over.state == "finished"


async def test_a_member_whose_worker_is_lost_begins_anew_in_another_with_another_lease(factory: Factory) -> None:
    text = """
crew.push("lives", 1)
if crew.swap("first", None, True):
    crew.pop("never", timeout=60)
return "again"
"""
    view = await factory.crews.assemble(WHO, manifest(code("a", text, restarts=1)))
    while await factory.crews.talk.get(view.id, "values", "first") is None:
        await asyncio.sleep(0.01)
    member = factory.crews._live[view.id].members["m1"]
    before = member.bond
    assert before is not None
    await factory.fleet.remove(view.members[0].worker or "")
    again = await until(factory, view.id, lambda now: now.members[0].restarts == 1 or now.ended_at is not None)
    assert not factory.crews.tokens.lives(before)
    over = again if again.ended_at is not None else await ended(factory, view.id)
    assert (over.state, over.members[0].result, over.members[0].restarts) == ("finished", "again", 1)


async def longer_than_a_token_lives(factory: Factory, crew: str) -> None:
    """All tokens from before are too old, and the member may go on: it waits for a file, and has said nothing meanwhile."""
    member, good = factory.crews._live[crew].members["m1"], factory.crews.tokens
    while await factory.crews.talk.get(crew, "values", "thinking") is None:
        await asyncio.sleep(0.01)
    assert member.bond is not None and member.held is not None
    before = good._now
    good._now = lambda: before() + tokens.LIFE + 5
    lease = good._leases[member.bond.lease]
    while max(lease.given.values()) < good._now() + tokens.LIFE - 2:
        await asyncio.sleep(0.01)
    (member.held.room / "go").touch()


THINK = """
import os, threading, time, urllib.request
crew.set("thinking", True)
while not os.path.exists("/factory/go"):
    time.sleep(0.01)
"""


async def test_a_member_that_thinks_for_longer_than_a_token_lives_has_a_fresh_one(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "REFRESH", 0.05)
    text = f"""{THINK}
heard = []
def other():
    crew.set("from a thread", True)
    heard.append(crew.get("thinking"))
thread = threading.Thread(target=other)  # before this one has said anything again
thread.start()
thread.join()
if os.fork() == 0:
    crew.set("from a child", True)
    os._exit(0)
os.wait()
return [heard, crew.get("from a child")]
"""
    view = await factory.crews.assemble(WHO, manifest(code("a", text)))
    await longer_than_a_token_lives(factory, view.id)
    over = await ended(factory, view.id)
    assert over.members[0].result == [[True], True], over


async def test_who_only_calls_out_for_longer_than_a_token_lives_still_may(
    open_factory: OpenFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "REFRESH", 0.05)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    text = f"{THINK}\nreturn urllib.request.urlopen({url!r}, timeout=30).read().decode()"
    async with open_factory(allow_private_hosts=(url[7:-1],)) as factory:
        await need_workers(factory)
        given = manifest(code("a", text, tools=["http", "share"]), network={"allow": ["127.0.0.1"]})
        view = await factory.crews.assemble(WHO, given)
        await longer_than_a_token_lives(factory, view.id)
        over = await ended(factory, view.id)
        assert over.members[0].result == "hello", over
    server.close()


async def test_a_crew_can_end_with_one_of_its_roles(factory: Factory) -> None:
    """The example of the documentation, but for its agent and its way out."""
    given = orjson.loads((DOCS / "crews.md").read_text().split("```json")[1].split("```")[0])
    given["members"] = [{**member, "tools": ["talk", "files"]} for member in given["members"] if "code" in member]
    view = await factory.crews.assemble(WHO, given)
    over = await ended(factory, view.id)
    assert (over.state, [member.state for member in over.members]) == ("finished", ["done", "stopped", "stopped"])
    assert over.members[0].result == ["tea 0", "tea 1", "tea 2"]


async def test_its_time_ends_a_crew(factory: Factory) -> None:
    view = await factory.crews.assemble(WHO, manifest(code("a", "crew.next()"), budgets={"seconds": 1}))
    over = await ended(factory, view.id)
    assert (over.state, over.why) == ("stopped", "Its 1 seconds are over.")


async def test_its_messages_are_counted_against_its_budget(factory: Factory) -> None:
    text = """
try:
    while True:
        crew.publish("t", 1)
except crew.Error as error:
    return error.code
"""
    view = await factory.crews.assemble(WHO, manifest(code("a", text), budgets={"messages": 5}))
    over = await ended(factory, view.id)
    assert over.members[0].result == "crew.budget"


async def test_crews_of_others_do_not_exist(factory: Factory) -> None:
    view = await factory.crews.assemble(WHO, manifest(code("a", "crew.next()")))
    crews = factory.crews
    for call in (crews.status, crews.stop_crew, crews.pause, crews.history):
        with pytest.raises(NotFound):
            await call(OTHER, view.id)
    with pytest.raises(NotFound):
        await crews.dismiss(OTHER, view.id, "m1")
    assert crews.view(OTHER) == ()
    assert list(await crews.list(OTHER)) == []
    for call in (crews.stop_crew, crews.pause, crews.resume):
        with pytest.raises(Denied):
            await call(VIEWER, view.id)
    assert (await crews.status(VIEWER, view.id)).state == "running"
    with pytest.raises(Conflict):
        await crews.assemble(WHO, manifest(code("a", "return 1")))
    await crews.stop_crew(WHO, view.id)


def test_the_example_in_the_documentation_is_a_manifest() -> None:
    text = (DOCS / "crews.md").read_text()
    given = read_manifest(orjson.loads(text.split("```json")[1].split("```")[0]))
    assert [member.role for member in given.members] == ["editor", "writer", "checker"]
    for member in given.members:
        if member.code is not None:
            ast.parse(f"def f():\n{textwrap.indent(member.code, '    ')}")
