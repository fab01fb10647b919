"""A disk that fills up, and a database that somebody holds: callers are told, nothing that was accepted is lost, and it heals."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import unavailable
from tests.deploying import deploy
from tests.runtime.factories import agent
from tests.server import Server

TAKING = agent(
    {
        "in": ("trigger.webhook", {"path": "orders", "respond": "now"}),
        "keep": ("context.remember", {"key": "last", "value": "{{ input.n }}"}),
    },
    "in.body > keep.value",
    name="Takes",
)
ASKING = agent(
    {"in": ("trigger.webhook", {"path": "ask", "respond": "end"}), "out": "action.respond"},
    "in.body > out.value",
    name="Answers",
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk]).returncode:
        unavailable("Only root can make a small disk to fill.")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def states(home: Path) -> dict[str, str]:
    """Every run in the database and where it is."""
    with sqlite3.connect(home / "factory.db") as db:
        return dict(db.execute("SELECT id, state FROM run"))


def send(server: Server, path: str, number: int, size: int) -> httpx.Response:
    filled = {"n": number, "filling": "x" * size}
    return httpx.post(f"{server.url}/hooks/{path}", json=filled, timeout=60, verify=False)


def all_ended(home: Path, ids: set[str], seconds: float = 30) -> dict[str, str]:
    """The states of these runs when all have ended, or after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        known = states(home)
        found = {id_: known.get(id_, "lost") for id_ in ids}
        if set(found.values()) <= {"succeeded", "failed", "lost"}:
            break
        time.sleep(0.2)
    return found


def test_a_full_disk_loses_nothing_that_was_accepted(small_disk: Path) -> None:
    home = small_disk / "home"
    deploy(home, [TAKING, ASKING])
    server = Server(home, pool_size="0")
    server.log = small_disk.with_suffix(".log")  # the log is not what is to be full
    with server:
        accepted: set[str] = set()
        refused: list[httpx.Response] = []
        for number in range(400):
            answer = send(server, "orders", number, 60_000)
            if answer.status_code == 202:
                accepted.add(answer.json()["run"])
                continue
            refused.append(answer)
            refused.append(send(server, "ask", number, 60_000))
            if len(refused) >= 10:
                break
        assert refused, "the disk was never full"
        for answer in refused:
            assert answer.status_code in (503, 507), answer.text
            error = answer.json()["error"]
            assert error["code"].startswith("storage.") and error["message"] and error["fix"]
        assert httpx.get(f"{server.url}/login", timeout=20, follow_redirects=True).status_code < 500

        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        until = time.monotonic() + 20
        while (again := send(server, "orders", 1_000, 60_000)).status_code != 202 and time.monotonic() < until:
            time.sleep(0.2)
        assert again.status_code == 202, again.text
        accepted.add(again.json()["run"])
        answered = send(server, "ask", 7, 10)
        assert (answered.status_code, answered.json()["n"]) == (200, 7)
        assert set(all_ended(home, accepted).values()) == {"succeeded"}
        assert "Traceback" not in server.log.read_text()

    with server:
        assert set(all_ended(home, accepted).values()) == {"succeeded"}
        assert "Traceback" not in server.log.read_text()


def test_a_database_that_somebody_holds_makes_callers_wait_and_then_tells_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    deploy(home, [TAKING])
    with Server(home, pool_size="0") as server:
        assert send(server, "orders", 1, 10).status_code == 202
        other = sqlite3.connect(home / "factory.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            answer = send(server, "orders", 2, 10)
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "storage.locked" and answer.json()["error"]["fix"]
        again = send(server, "orders", 3, 10)
        assert again.status_code == 202
        assert set(all_ended(home, set(states(home))).values()) == {"succeeded"}
        assert "Traceback" not in server.log.read_text()
