"""What the engine is asked for, and what is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import docker
import pytest

from runtime.workers.backend import Box, NoWorker, Profile
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend

pytestmark = pytest.mark.docker


@pytest.fixture
def engine(docker_engine):
    client = docker.DockerClient(base_url=docker_engine)
    yield client
    client.close()


@pytest.fixture
def rooms(home):
    rooms = rooms_for(home)
    yield rooms
    shutil.rmtree(rooms)


@pytest.fixture
def opened(docker_engine, worker_image):
    def make(home: str) -> DockerBackend:
        return DockerBackend(home, url=docker_engine, image=worker_image)

    return make


@pytest.fixture
def other_rooms(home):
    rooms = rooms_for(f"{home}-other")
    yield rooms
    shutil.rmtree(rooms)


async def made(backend: DockerBackend, room: Path) -> Box:
    await backend.prepare(room)
    return await backend.start(room.name, room, Profile())


async def test_a_container_is_hardened(opened, engine, home, rooms):
    backend = opened(home)
    await backend.open()
    try:
        box = await made(backend, rooms / "box")
        found = engine.api.inspect_container(box.ref)
    finally:
        await backend.close()
    host, config = found["HostConfig"], found["Config"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["PidsLimit"] == 64
    assert (host["Memory"], host["MemorySwap"]) == (128 * 1024 * 1024, 128 * 1024 * 1024)
    assert host["NanoCpus"] == 500_000_000
    assert host["ShmSize"] == 1024 * 1024
    assert host["IpcMode"] == "private"
    assert host["PidMode"] == ""
    assert host["Init"] is False
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert not host["Binds"]
    assert [(mount["Destination"], mount["RW"]) for mount in found["Mounts"]] == [("/factory", False)]
    for options in host["Tmpfs"].values():
        assert {"noexec", "nosuid", "nodev"} <= set(options.split(","))
        assert "size=" in options
        assert "nr_inodes=" in options
    assert config["User"] == "65534:65534"
    assert config["Entrypoint"] == ["python3"]
    assert config["Cmd"][:4] == ["-I", "-S", "-E", "/factory/inside.py"]
    assert {name.split("=")[0] for name in config["Env"]} == {"PATH", "LANG", "HOME"}
    assert config["Labels"]["agent-factory.home"] == home
    assert host["LogConfig"]["Config"]["max-file"] == "1"


async def test_what_a_dead_server_left_is_removed_at_the_next_start_and_nothing_else(
    opened, engine, home, rooms, other_rooms
):
    dead, other, next_start = opened(home), opened(f"{home}-other"), opened(home)
    await dead.open()
    await other.open()
    try:
        left = await made(dead, rooms / "left")
        kept = await made(other, other_rooms / "kept")
        await next_start.open()
        with pytest.raises(docker.errors.NotFound):
            engine.api.inspect_container(left.ref)
        assert engine.api.inspect_container(kept.ref)["Id"] == kept.ref
    finally:
        for backend in (dead, other, next_start):
            await backend.close()
    with pytest.raises(docker.errors.NotFound):
        engine.api.inspect_container(kept.ref)


async def test_destroying_twice_does_no_harm(opened, home, rooms):
    backend = opened(home)
    await backend.open()
    try:
        box = await made(backend, rooms / "box")
        await backend.destroy(box)
        await backend.destroy(box)
        assert await backend.ran_out_of_memory(box) is False
    finally:
        await backend.close()


async def test_an_image_that_is_not_there_is_named(docker_engine, home):
    backend = DockerBackend(home, url=docker_engine, image="agent-factory/never-made:1")
    with pytest.raises(NoWorker) as caught:
        await backend.open()
    assert "never-made" in caught.value.message


async def test_a_folder_of_rooms_that_was_tidied_up_is_made_anew(opened, home, rooms):
    backend = opened(home)
    await backend.open()
    try:
        shutil.rmtree(rooms)
        await made(backend, rooms / "box")
        assert [one.box.id for one in await backend.left()] == ["box"]
        shutil.rmtree(rooms)
        rooms.touch()
        with pytest.raises(NoWorker, match="no room for a worker"):
            await backend.prepare(rooms / "other")
    finally:
        rooms.unlink(missing_ok=True)
        rooms.mkdir(exist_ok=True)
        await backend.close()
