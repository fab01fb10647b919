"""What a server that is started as root can no longer do."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from app import rights
from app.rights import given_up, stays_root
from app.settings import Settings, SettingsError

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
TRY = """
import asyncio, os, sys
from pathlib import Path
from app.doctor import examine
from app.rights import given_up
from app.settings import Settings
from runtime.workers.backend import Job
from runtime.workers.choose import open_pool

async def use(settings):
    async with open_pool(settings.docker, home=sys.argv[2]) as pool:
        print([line.found for line in await examine(settings) if line.name == "Docker"])
        done = await pool.run(Job(id="j", code="return 6 * 7"), tenant="acme")
        print(pool.backend.name, done.value, done.error)

with given_up(Settings(home=Path(sys.argv[1]), user="nobody", docker=sys.argv[3]), sys.argv[2]) as settings:
    print(os.geteuid(), Path(sys.argv[1], "key").stat().st_uid)
    try:
        open(sys.argv[4], "rb")
    except OSError as error:
        print(type(error).__name__)
    try:
        os.setuid(0)
    except OSError as error:
        print(type(error).__name__)
    asyncio.run(use(settings))
"""


@ROOT
@pytest.mark.docker
@pytest.mark.parametrize("setting", ["{}", "one={0}, two={0}"], ids=["an address", "engines with names"])
def test_it_has_workers_but_neither_root_nor_the_engines_socket(
    setting: str, docker_engine: str, worker_image: str, tmp_path: Path
):
    if not docker_engine.startswith("unix://"):
        pytest.skip("the engine has no socket")
    home = tmp_path / "home"
    home.mkdir()
    (home / "key").touch()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    done = subprocess.run(
        [
            sys.executable, "-c", TRY, str(home), f"test-{uuid4().hex[:12]}", setting.format(docker_engine),
            docker_engine.removeprefix("unix://"),
        ],
        capture_output=True, text=True, timeout=90, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    nobody = pwd.getpwnam("nobody").pw_uid
    assert done.stdout.splitlines() == [
        f"{nobody} {nobody}", "PermissionError", "PermissionError", "[True]", "docker 42 None"
    ], done.stderr  # fmt: skip


@ROOT
@pytest.mark.parametrize(("user", "warned"), [("", True), ("root", True), ("nobody", False)])
def test_who_stays_root_is_told_so(user: str, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rights, "USUAL_USER", "no-such-user")
    monkeypatch.setattr(rights, "_become", lambda user, home: None)
    settings = Settings(home=tmp_path, user=user, docker="off")
    with capture_logs() as said, given_up(settings, "test-rights"):
        pass
    assert [bool(entry["fix"]) for entry in said] == [True] * warned
    assert stays_root(settings) is warned


@ROOT
def test_a_user_that_does_not_exist_is_said_before_anything_is_given_up(tmp_path: Path):
    settings = Settings(home=tmp_path, user="no-such-user")
    with pytest.raises(SettingsError) as caught, given_up(settings, "test-rights"):
        pass
    assert "no-such-user" in caught.value.message
    assert os.geteuid() == 0
