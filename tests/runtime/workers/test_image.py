"""The image of the workers: Python's standard library, nobody's rights, nothing of ours."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.workers.image.build import ImageError, ensure_image, image_tag

pytestmark = pytest.mark.docker


def in_container(engine: str, image: str, *command: str, user: str = "65534") -> str:
    """What a command prints in a container of the image, hardened as workers are."""
    hardened = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    workspace = "--tmpfs=/workspace:noexec,size=1m,uid=65534"
    run = ["docker", "--host", engine, "run", "--rm", *hardened, workspace, f"--user={user}", image, *command]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_its_tag_is_the_one_that_its_recipe_gives(worker_image: str) -> None:
    assert worker_image == image_tag()


def test_many_may_ask_for_it_at_once(docker_engine: str, worker_image: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(ensure_image, [docker_engine] * 4)) == {worker_image}


def test_it_runs_the_whole_standard_library_as_nobody(docker_engine: str, worker_image: str) -> None:
    program = (
        "import asyncio, csv, ctypes, decimal, json, multiprocessing, os, re, sqlite3, ssl, sys, unicodedata, zoneinfo\n"
        "open('file', 'w').write('x')\n"
        "print(sys.version_info[:2], os.getuid(), os.getgid(), os.getcwd(), sys.stdout.encoding, zoneinfo.ZoneInfo('Asia/Tokyo'))"
    )
    assert (
        in_container(docker_engine, worker_image, "python3", "-c", program)
        == "(3, 11) 65534 65534 /workspace utf-8 Asia/Tokyo"
    )


def test_nothing_in_it_raises_rights(docker_engine: str, worker_image: str) -> None:
    found = in_container(docker_engine, worker_image, "find", "/", "-xdev", "-type", "f", "-perm", "/6000", user="0")
    assert found == ""


def test_an_engine_that_is_not_there_is_said_plainly() -> None:
    with pytest.raises(ImageError) as caught:
        ensure_image("unix:///nonexistent/docker.sock")
    assert caught.value.code == "worker.image"
    assert "does not answer" in caught.value.message
    assert caught.value.fix
