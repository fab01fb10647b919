"""`factory image`: a person at a terminal makes an image and learns its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))

    def run(*words: str):
        return CliRunner().invoke(cli, ["image", *words])

    return run


@pytest.mark.docker
def test_an_image_is_made_shown_locked_and_removed(factory, docker_engine, worker_image, monkeypatch, tmp_path):
    monkeypatch.setenv("FACTORY_DOCKER", docker_engine)
    lock = tmp_path / "mine.lock"
    made = factory("build", "typing-extensions", "--lock", str(lock))
    assert made.exit_code == 0, made.output
    (name,) = re.findall(r"^custom:[0-9a-f]{12}$", made.stdout, re.MULTILINE)
    assert "typing_extensions==" in lock.read_text().replace("-", "_")
    assert "Locked 1 packages" in made.stderr
    again = factory("build", "--lock", str(lock))
    assert name in again.stdout
    assert factory("drop", name).exit_code == 0


@pytest.mark.docker
def test_what_cannot_be_made_is_said_in_a_sentence(factory, docker_engine, worker_image, monkeypatch):
    monkeypatch.setenv("FACTORY_DOCKER", docker_engine)
    refused = factory("build", "--", "--index-url=http://evil.example")
    assert refused.exit_code == 1
    assert "is no package" in refused.stderr
    assert "Traceback" not in refused.output
    assert factory("build", "httpx", "--like", "debian").exit_code == 1


def test_without_docker_it_says_so(factory, monkeypatch):
    monkeypatch.setenv("FACTORY_DOCKER", "off")
    refused = factory("build", "httpx")
    assert refused.exit_code == 1
    assert "switched off" in refused.stderr
