"""Which isolation is used where; and that there is none without it."""

from __future__ import annotations

import pytest

from runtime.workers.backend import NoWorker
from runtime.workers.choose import open_backend, open_pool, rooms_for
from tests.conftest import unavailable


async def bubblewrap_or_skip(setting: str, home: str):
    try:
        return await open_backend(setting, home=home)
    except NoWorker as error:
        unavailable(f"{error.message} {error.fix}")


@pytest.fixture
def no_docker(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


@pytest.mark.docker
@pytest.mark.usefixtures("worker_image")
async def test_docker_is_taken_where_it_answers(monkeypatch, docker_engine, home):
    monkeypatch.setenv("DOCKER_HOST", docker_engine)
    backend = await open_backend("auto", home=home)
    await backend.close()
    assert backend.name == "docker"


@pytest.mark.usefixtures("no_docker")
async def test_bubblewrap_is_taken_where_docker_does_not_answer(home):
    backend = await bubblewrap_or_skip("auto", home)
    await backend.close()
    assert backend.name == "bubblewrap"


async def test_docker_can_be_switched_off(home):
    backend = await bubblewrap_or_skip("off", home)
    await backend.close()
    assert backend.name == "bubblewrap"


@pytest.mark.parametrize("address", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "nonsense://x"])
async def test_an_engine_asked_for_by_address_is_not_replaced_by_something_weaker(home, address):
    with pytest.raises(NoWorker) as caught:
        await open_backend(address, home=home)
    assert address in caught.value.message
    assert caught.value.fix


@pytest.mark.usefixtures("no_docker")
async def test_without_any_isolation_code_does_not_run_and_it_says_what_to_install(monkeypatch, tmp_path, home):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoWorker) as caught:
        async with open_pool("auto", home=home):
            pass
    assert caught.value.code == "worker.none"
    assert "docker.io" in caught.value.fix
    assert "bubblewrap" in caught.value.fix


async def test_bubblewrap_that_cannot_isolate_is_not_used(monkeypatch, tmp_path, home):
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NoWorker) as caught:
        await open_backend("off", home=home)
    assert "cannot isolate" in caught.value.message


def test_other_users_cannot_reach_the_sockets(home):
    rooms = rooms_for(home)
    try:
        assert rooms.stat().st_mode & 0o077 == 0
    finally:
        rooms.rmdir()
