"""Crews on the real engine: no member gets at another crew, another member's door, or the network, whatever it knows."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.crews.states import CrewView
from runtime.factory import Factory
from runtime.workers.pool import PoolRules
from tests.runtime.crews.conftest import WHO, OpenFactory, code, ended, manifest, need_workers, nothing_left

WORK = """
if crew.role == "lead":
    for n in range(8):
        crew.push("work", n)
    done = sorted(crew.pop("done", timeout=20) for _ in range(8))
    for _ in range(4):
        crew.push("work", "rest")
    return done
while (n := crew.pop("work", timeout=20)) != "rest":
    crew.push("done", n * n)
return n
"""


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "off"])
async def anywhere(request: pytest.FixtureRequest, open_factory: OpenFactory) -> AsyncIterator[Factory]:
    """A factory whose workers are containers, then one whose workers are sandboxes."""
    docker = "off"
    if request.param == "docker":
        docker = request.getfixturevalue("docker_engine")
        request.getfixturevalue("worker_image")
    async with open_factory(docker=docker) as factory:
        await need_workers(factory)
        yield factory
        await nothing_left(factory)


async def both(factory: Factory, text: str, **more: Any) -> tuple[CrewView, CrewView]:
    """A crew with a member that keeps to itself, and another crew whose member does what the text says with its token."""
    keeps = """
crew.set("secret", "canary")
crew.write_file("secret.txt", "canary")
crew.publish("news", "canary")
crew.set("token", crew._token)
crew.pop("end", timeout=30)
"""
    first = await factory.crews.assemble(WHO, manifest(code("keeper", keeps)))
    async with asyncio.timeout(20):
        while (token := await factory.crews.talk.get(first.id, "values", "token")) is None:
            await asyncio.sleep(0.01)
    member = code("thief", text, inputs={"token": token, "victim": first.id, **more})
    second = await factory.crews.assemble(WHO, {**manifest(member), "id": "thieves"})
    return first, await ended(factory, second.id)


async def test_a_crew_of_five_divides_its_work(anywhere: Factory) -> None:
    view = await anywhere.crews.assemble(WHO, manifest(code("lead", WORK), code("hand", WORK, count=4)))
    assert [member.state for member in view.members] == ["running"] * 5
    assert len({member.worker for member in view.members}) == 5
    over = await ended(anywhere, view.id)
    assert over.state == "finished", over
    assert over.members[0].result == [n * n for n in range(8)]
    assert [member.result for member in over.members[1:]] == ["rest"] * 4


async def test_a_stolen_token_is_worth_nothing_in_another_worker(anywhere: Factory) -> None:
    text = """
import os, socket
said = []
for attempt in (lambda: crew.get("secret"), lambda: crew.read_file("secret.txt"), lambda: crew.publish("news", 1), lambda: crew.keys()):
    own, crew._token = crew._token, token
    try:
        said.append(attempt())
    except crew.Error as error:
        said.append(error.code)
    crew._token = own
said.append(crew.keys())
said.append(crew.files())
crew.subscribe("news")
said.append(crew.next(0.2))
import stat
seen = sorted(n for n in os.listdir("/factory") if stat.S_ISSOCK(os.stat("/factory/" + n).st_mode))
return [said, seen]
"""
    first, thief = await both(anywhere, text)
    said, seen = thief.members[0].result
    assert said == ["crew.token"] * 4 + [["context"], [], None]
    assert seen == ["crew", "door"]
    await anywhere.crews.stop_crew(WHO, first.id)


async def test_a_stolen_token_is_worth_nothing_on_the_machine(anywhere: Factory) -> None:
    first, _ = await both(anywhere, "return 1")
    member = anywhere.crews._live[first.id].members["m1"]
    assert member.door is not None
    token = await anywhere.crews.talk.get(first.id, "values", "token")
    path, before = str(member.door.path), member.door.refused

    def call(data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(path)
            try:
                line.sendall(data)
                return line.recv(1_000)
            except OSError:
                return b""

    asked = json.dumps({"do": "get", "key": "secret", "token": token}).encode()
    assert await asyncio.to_thread(call, struct.pack(">I", len(asked)) + asked) == b""
    proxied = f"CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Bearer {token}\r\n\r\n".encode()
    assert await asyncio.to_thread(call, proxied) == b""
    assert member.door.refused == before + 2
    await anywhere.crews.stop_crew(WHO, first.id)


async def test_a_child_process_of_a_member_is_heard_as_the_member(anywhere: Factory) -> None:
    text = """
import os, time
if os.fork() == 0:
    crew.set("child", crew.member)
    os._exit(0)
while crew.get("child") is None:
    time.sleep(0.02)
return crew.get("child")
"""
    view = await anywhere.crews.assemble(WHO, manifest(code("a", text)))
    assert (await ended(anywhere, view.id)).members[0].result == "m1"


OUT = """
import os, socket, http.client, urllib.request, urllib.error
def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=15) as answer:
            return [answer.status, answer.read(200).decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read(300).decode()]
    except OSError as error:
        return [0, str(error)]
def straight(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return "connected"
    except OSError as error:
        return "no way"
if "tunnel" in inputs:
    proxy = urllib.request.getproxies()["http"]
    line = http.client.HTTPConnection(proxy.split("//")[1], timeout=15)
    line.set_tunnel(tunnel[0], tunnel[1])
    try:
        line.request("GET", "/through")
        through = line.getresponse().read(200).decode()
    except OSError as error:
        through = str(error)
else:
    through = None
return {"got": [get(url) for url in urls], "straight": [straight(*one) for one in direct], "through": through}
"""


async def test_the_way_out_leads_to_the_list_and_nowhere_else(open_factory: OpenFactory) -> None:
    served: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        served.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_factory(allow_private_hosts=(f"127.0.0.1:{port}",)) as factory:
        await need_workers(factory)
        member = code(
            "a",
            OUT,
            tools=["http"],
            inputs={
                "urls": [
                    f"http://127.0.0.1:{port}/page?x=1",
                    "http://169.254.169.254/latest/meta-data/",
                    "http://metadata.google.internal/",
                    "http://evil.example/",
                    "http://127.0.0.1:22/",
                    "http://[::1]:80/",
                    "http://0x7f000001/",
                ],
                "direct": [["127.0.0.1", port], ["1.1.1.1", 53], ["172.17.0.1", 80], ["169.254.169.254", 80]],
                "tunnel": ["127.0.0.1", port],
            },
        )
        allow = ["127.0.0.1", "*.google.internal", "169.254.169.254", "[::1]"]
        given = manifest(member, network={"allow": allow}, budgets={"calls": 5})
        view = await factory.crews.assemble(WHO, given)
        crew = factory.crews._live[view.id]
        over = await ended(factory, view.id)
        result = over.members[0].result
        assert result["got"][0] == [200, "hello"], result
        assert {status for status, _ in result["got"][1:]} <= {403, 502}, result
        assert result["straight"] == ["no way"] * 4
        assert result["through"] == "hello"
        assert {head.split("\r\n")[0] for head in served} == {"GET /page?x=1 HTTP/1.1", "GET /through HTTP/1.1"}
        assert not any("proxy-" in head.lower() for head in served)
        assert crew.way.calls <= 5
        assert 0 < crew.way.bytes < 5_000
    server.close()


async def test_without_the_tool_there_is_no_way_out(open_factory: OpenFactory) -> None:
    async with open_factory() as factory:
        await need_workers(factory)
        text = """
import os, socket
door = socket.socket(socket.AF_UNIX)
door.connect("/factory/crew")
door.sendall(b"CONNECT example.com:443 HTTP/1.1\\r\\nProxy-Authorization: Bearer " + crew._token.encode() + b"\\r\\n\\r\\n")
return [door.recv(100).decode().split("\\r\\n")[0], "http_proxy" in os.environ]
"""
        view = await factory.crews.assemble(WHO, manifest(code("a", text), network={"allow": ["example.com"]}))
        over = await ended(factory, view.id)
        assert over.members[0].result == ["HTTP/1.1 407 Proxy Authentication Required", False]


@pytest.mark.docker
async def test_on_redis_and_a_warm_pool_a_crew_of_five_is_the_same(
    open_factory: OpenFactory, redis_server: str, docker_engine: str, worker_image: str
) -> None:
    async with open_factory(
        docker=docker_engine, redis_url=redis_server, pools={"small": PoolRules(size=2)}, pool_size=2
    ) as factory:
        view = await factory.crews.assemble(WHO, manifest(code("lead", WORK), code("hand", WORK, count=4)))
        assert view.bus.startswith("redis://127.0.0.1:")
        over = await ended(factory, view.id)
        assert (over.state, over.members[0].result) == ("finished", [n * n for n in range(8)])
        await nothing_left(factory)
