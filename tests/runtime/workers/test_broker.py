"""The broker: what it refuses, whom it answers, and that workers live as well when it is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.workers.backend import Job, NoWorker, Profile
from runtime.workers.broker import verbs
from runtime.workers.broker.client import OverSocket
from runtime.workers.broker.process import OWN_NUMBER, serve_beside
from runtime.workers.choose import BROKER, open_place
from runtime.workers.docker import DockerBackend
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.profiles import PROFILES, BadProfile, custom, read_sizes

SIZE = verbs.Size.of(Profile()).model_dump()
FORBIDDEN = [
    "binds", "mounts", "volumes", "privileged", "cap_add", "capabilities", "devices", "network", "network_mode", "pid_mode",
    "ipc_mode", "userns_mode", "security_opt", "command", "entrypoint", "environment", "env", "user", "room", "path", "labels",
    "host_config", "runtime", "sysctls", "group_add", "ports", "restart", "init", "cgroup_parent", "ulimits",
]  # fmt: skip


# --- verbs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FORBIDDEN)
@pytest.mark.parametrize("where", ["verb", "size"])
def test_no_verb_has_a_field_that_could_weaken_a_container(field, where):
    create = {"verb": "create", "worker": "w1", "size": dict(SIZE)}
    (create if where == "verb" else create["size"])[field] = ["/:/host"]
    with pytest.raises(verbs.BadVerb):
        verbs.read(orjson.dumps(create))


@pytest.mark.parametrize("worker", ["", "../other", "a/b", "/etc", ".", "a" * 65, "w\n", "w;x", "ü"])
@pytest.mark.parametrize("verb", ["prepare", "start", "kill", "remove", "logs", "stats", "inspect", "pause", "stop"])
def test_a_worker_is_named_by_an_id_and_never_by_a_path(worker, verb):
    with pytest.raises(verbs.BadVerb):
        verbs.read(orjson.dumps({"verb": verb, "worker": worker}))


@pytest.mark.parametrize(
    "image", ["debian", "python:3.11", "agent-factory/worker:1", "custom:x", "custom:" + "a" * 13, "base\n", "../base"]
)
def test_an_image_that_is_not_allowed_is_refused(image):
    with pytest.raises(verbs.BadVerb):
        verbs.read(orjson.dumps({"verb": "create", "worker": "w", "size": SIZE | {"image": image}}))
    with pytest.raises(verbs.BadVerb):
        verbs.read(orjson.dumps({"verb": "have_image", "image": image}))


@pytest.mark.parametrize(
    "verb", ["exec", "attach", "commit", "export", "put_archive", "update", "build", "run", "", None]
)
def test_what_is_not_a_verb_is_refused(verb):
    with pytest.raises(verbs.BadVerb):
        verbs.read(orjson.dumps({"verb": verb, "worker": "w"}))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(json.dumps)
)
def test_whatever_else_is_said_is_refused_and_never_breaks_it(said):
    with pytest.raises(verbs.BadVerb):
        verbs.read(said)


@pytest.mark.parametrize("name", PROFILES)
def test_every_size_travels_unchanged(name):
    profile = PROFILES[name]
    said = verbs.Create(worker="w", size=verbs.Size.of(profile)).model_dump_json()
    read = verbs.read(said)
    assert isinstance(read, verbs.Create)
    assert read.size.profile() == profile


# --- sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"memory": 1}, "memory"),
        ({"cpus": 64}, "cpus"),
        ({"cpus": float("nan")}, "cpus"),
        ({"processes": True}, "processes"),
        ({"memory": "1g"}, "memory"),
        ({"disk": 512 * 1024 * 1024}, "disk"),
        ({"image": "ubuntu"}, "ubuntu"),
        ({"runtime": "privileged"}, "privileged"),
        ({"privileged": True}, "privileged"),
    ],
)
def test_a_size_of_ones_own_has_bounds(figures, says):
    with pytest.raises(BadProfile) as caught:
        custom("mine", **figures)
    assert says in caught.value.message
    assert caught.value.fix or "may be" in caught.value.message


def test_a_size_of_ones_own_is_one_of_ours_with_changes():
    assert custom("mine", like="medium", cpus=0.25) == replace(PROFILES["medium"], name="mine", cpus=0.25)
    for name, like in (("small", "small"), ("Mine!", "small"), ("mine", "huge")):
        with pytest.raises(BadProfile):
            custom(name, like=like)


# --- a process of its own ------------------------------------------------------------------------------------------------


@pytest.fixture
def beside(home: str, docker_engine: str, worker_image: str) -> Iterator[Path]:
    with serve_beside(home, engines=(docker_engine,), images={"base": worker_image}) as path:
        yield path


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def serving() -> int:
    """The process that does the broker's work: the child of the one that we started."""
    (started,) = [
        one for one in children(os.getpid()) if b"broker.process" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]
    (process,) = children(started)
    return process


@pytest.mark.docker
async def test_workers_live_as_well_when_the_broker_is_a_process_of_its_own(beside, docker_engine, home):
    backend = DockerBackend(home, broker=OverSocket(beside, engine=docker_engine))
    await backend.open()
    assert backend.rooms is not None
    happened = asyncio.Queue()

    async def listen() -> None:
        async with contextlib.aclosing(backend.events()) as events:
            async for event in events:
                happened.put_nowait(event)

    listening = asyncio.create_task(listen())
    assert (await happened.get()).what == "listening"
    try:
        async with Pool(backend, backend.rooms, rules=PoolRules(size=1)) as pool:
            await pool.until_ready(1)
            done = await pool.run(Job(id="j", code="return 6 * 7"), tenant="acme")
            assert done.value == 42
            (left,) = await backend.left()
            assert (left.state, left.profile) == ("running", Profile())
            used = await backend.used(left.box)
            assert 0 < used.memory < 128 * 1024 * 1024
            assert used.processes >= 1
            await backend.pause(left.box)
            await backend.unpause(left.box)
            assert await backend.alive(left.box)
            seen = [(await happened.get()) for _ in range(3)]
            assert [event.what for event in seen] == ["start", "pause", "unpause"]
            assert {event.worker for event in seen} == {left.box.id}
        assert await backend.left() == []
        while (event := await happened.get()).what != "die":
            pass
        assert event.code == 137
        assert list(backend.rooms.iterdir()) == []
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await backend.close()


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_the_broker_is_another_user_who_gave_up_everything_else(beside, docker_engine, home):
    broker = OverSocket(beside, engine=docker_engine)
    assert (await broker.ask(verbs.Ready()))["version"]
    process = serving()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == [str(OWN_NUMBER)] * 4
    assert status["CapEff"].strip("0 ") == ""
    assert status["CapPrm"].strip("0 ") == ""
    await broker.close()


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_nobody_else_is_answered(beside, tmp_path):
    beside.chmod(0o666)  # even if the folder and the socket let everybody in
    asking = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(5)\ns.connect(sys.argv[1])\n"
        """s.sendall(b'{"n":1,"engine":"","verb":{"verb":"list"}}\\n')\nprint(len(s.recv(10)))"""
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", asking, str(beside)],
        capture_output=True,
        text=True,
        user=65534,
        group=65534,
        cwd="/",
    )
    assert done.stdout.strip() == "0" or "ConnectionReset" in done.stderr or "BrokenPipe" in done.stderr


@pytest.mark.docker
async def test_an_engine_that_it_was_not_told_of_is_not_asked(beside):
    broker = OverSocket(beside, engine="tcp://192.0.2.1:2375")
    with pytest.raises(NoWorker) as caught:
        await broker.ask(verbs.Ready())
    assert "not told of this engine" in caught.value.message
    await broker.close()


@pytest.mark.docker
async def test_a_container_that_is_not_ours_cannot_be_reached(beside, docker_engine, worker_image):
    client = docker.DockerClient(base_url=docker_engine)
    foreign = client.containers.create(worker_image, name=f"foreign-{os.getpid()}")
    broker = OverSocket(beside, engine=docker_engine)
    try:
        await broker.ask(verbs.Ready())
        for verb in (verbs.Kill, verbs.Start, verbs.Inspect, verbs.Logs, verbs.Stats, verbs.Pause):
            for name in (foreign.id, foreign.name):
                with pytest.raises(NoWorker):
                    await broker.ask(verb(worker=name))
        assert await broker.ask(verbs.Remove(worker=foreign.name)) == {"removed": False}
        foreign.reload()
    finally:
        await broker.close()
        foreign.remove()
        client.close()


@pytest.mark.docker
async def test_a_broker_that_is_gone_is_said_plainly_and_dialled_anew(home, docker_engine, worker_image):
    def start():
        return serve_beside(home, engines=(docker_engine,), images={"base": worker_image})

    with start() as path:
        broker = OverSocket(path, engine=docker_engine)
        assert await broker.ask(verbs.Ready())
    with pytest.raises(NoWorker):
        await broker.ask(verbs.List())
        await broker.ask(verbs.List())
    with start():
        assert await broker.ask(verbs.Ready())
        assert await broker.ask(verbs.List()) == {"workers": []}
    await broker.close()


@pytest.mark.docker
async def test_a_broker_that_dies_is_started_anew_and_finds_its_workers(beside, docker_engine, home):
    backend = DockerBackend(home, broker=OverSocket(beside, engine=docker_engine))
    await backend.open()
    assert backend.rooms is not None
    try:
        await backend.prepare(backend.rooms / "w")
        box = await backend.start("w", backend.rooms / "w", Profile())
        os.kill(serving(), signal.SIGKILL)
        with contextlib.suppress(NoWorker):
            await backend.left()  # whoever asked in this moment is told
        assert [one.box.ref for one in await backend.left()] == [box.ref]
    finally:
        await backend.close()


@pytest.mark.docker
async def test_what_could_not_be_started_leaves_not_even_its_room(beside, docker_engine, home):
    backend = DockerBackend(home, broker=OverSocket(beside, engine=docker_engine))
    await backend.open()
    assert backend.rooms is not None
    try:
        await backend.prepare(backend.rooms / "w")
        with pytest.raises(NoWorker):
            await backend.start("w", backend.rooms / "w", Profile(image="custom:0123456789ab"))
        assert await backend.left() == []
        assert list(backend.rooms.iterdir()) == []
    finally:
        await backend.close()


@pytest.mark.docker
async def test_the_setting_leads_to_the_broker(home, docker_engine, worker_image):
    with serve_beside(home, images={"base": worker_image}) as path:
        async with open_place(f"auto{BROKER}{path}", home=home) as (backend, rooms):
            assert (backend.name, rooms.parent) == ("docker", path.parent)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", {}),
        (
            "reports:like=data, memory=768 ,cpus=0.5; tiny:cpus=0.25;",
            {
                "reports": custom("reports", like="data", memory=768 * 2**20, cpus=0.5),
                "tiny": custom("tiny", cpus=0.25),
            },
        ),
        (
            "own:image=custom:0123456789ab,runtime=runsc",
            {"own": custom("own", image="custom:0123456789ab", runtime="runsc")},
        ),
    ],
)
def test_an_operator_writes_sizes_in_one_line(text, sizes):
    assert read_sizes(text) == sizes


@pytest.mark.parametrize(
    "text", ["small:cpus=1", "a:cpus=x", "a:what=1", "a:memory=1", "a:like=b", "A b:cpus=1", "a:image=debian"]
)
def test_a_wrong_line_of_sizes_is_refused(text):
    with pytest.raises(BadProfile):
        read_sizes(text)
