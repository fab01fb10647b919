"""The command `factory` as an operator meets it: started as a process, read by its output and its exit code."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.app.conftest import PASSWORD, hidden
from tests.server import FACTORY, Server

MANUAL: dict[str, Any] = {
    "format": 1,
    "name": "Echo",
    "nodes": [{"id": "a", "type": "trigger.manual", "x": 0, "y": 0, "settings": {}}],
    "edges": [],
}


def factory(home: Path, *words: str, input: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    own = {"FACTORY_HOME": str(home), "FACTORY_DOCKER": "off"} | {
        f"FACTORY_{k.upper()}": v for k, v in settings.items()
    }
    return subprocess.run(
        [str(FACTORY), *words],
        env={**os.environ, **own},
        input=input,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(MANUAL))
    return path


def test_a_file_is_checked_in_words_and_as_json(tmp_path: Path, agent: Path) -> None:
    document = {
        **MANUAL,
        "nodes": [*MANUAL["nodes"], {"id": "b", "type": "no.such_type", "x": 0, "y": 0, "settings": {}}],
    }
    agent.write_text(json.dumps(document))
    words = factory(tmp_path / "home", "check", str(agent))
    assert words.returncode == 1
    assert "error (structure)" in words.stdout
    assert "→" in words.stdout
    findings = json.loads(factory(tmp_path / "home", "check", str(agent), "--json").stdout)
    assert "error" in {one["severity"] for one in findings}
    assert {"tier", "severity", "node", "field", "code", "sentence", "fix"} <= set(findings[0])
    assert not (tmp_path / "home").exists(), "checking leaves nothing behind"


def test_a_file_is_run_and_its_result_printed(tmp_path: Path, agent: Path) -> None:
    done = factory(tmp_path / "home", "run", str(agent), "--input", '{"total": 5}', "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["output"]) == ("succeeded", {"total": 5})
    assert [step["state"] for step in result["steps"]] == ["succeeded"]
    given = tmp_path / "input.json"
    given.write_text('{"total": 6}')
    live = factory(tmp_path / "home", "run", str(agent), "--input", f"@{given}", "--live", "--json")
    assert json.loads(live.stdout)["output"] == {"total": 6}, live.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("content", "words", "says"),
    [
        ("{", (), "JSON"),
        ('{"nodes": 5}', (), ""),
        (json.dumps(MANUAL), ("--input", "{total: 5}"), "--input is not JSON"),
        (json.dumps(MANUAL), ("--input", "@/nowhere.json"), "cannot be read"),
        (json.dumps(MANUAL), ("--trigger", "zzz"), "no trigger"),
        (b"\xff\xfe\x00", (), "not a text file"),
    ],
)
def test_what_cannot_be_run_is_explained(
    tmp_path: Path, agent: Path, content: str | bytes, words: tuple[str, ...], says: str
) -> None:
    agent.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = factory(tmp_path / "home", "run", str(agent), *words)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr + done.stdout


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    done = factory(tmp_path / "home", "check", str(tmp_path / "none.json"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)


def test_the_first_account_founds_a_team_and_the_next_joins_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    early = factory(home, "token", "create", "ci")
    assert early.returncode == 1
    assert "no team yet" in early.stderr
    first = factory(home, "user", "add", "ada@example.com", "--name", "Ada", "--password-stdin", input=f"{PASSWORD}\n")
    assert first.stdout == "ada@example.com can sign in now, as admin.\n"
    weak = factory(home, "user", "add", "b@example.com", "--name", "B", "--password-stdin", input="short\n")
    assert weak.returncode == 1
    assert "at least 10 characters" in weak.stderr
    taken = factory(home, "user", "add", "ADA@example.com", "--name", "A", "--password-stdin", input=f"{PASSWORD}\n")
    assert taken.returncode == 1
    assert "already" in taken.stderr
    second = factory(
        home,
        "user",
        "add",
        "bo@example.com",
        "--name",
        "Bo",
        "--role",
        "viewer",
        "--password-stdin",
        input=f"{PASSWORD}\n",
    )
    assert "as viewer" in second.stdout
    token = factory(home, "token", "create", "ci", "--role", "viewer", "--days", "1").stdout.strip()
    assert re.fullmatch(r"af_[\w-]{43}", token)
    with Server(home) as server:
        assert "Set up" not in server.tail()
        with httpx.Client(base_url=server.url, headers={"Origin": server.url, "Accept": "text/html"}) as browser:
            fields = hidden(browser.get("/login").text) | {"email": "bo@example.com", "password": PASSWORD}
            assert browser.post("/login", data=fields).status_code == 303
        answer = httpx.get(f"{server.url}/api/v1/nothing-there", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 404


def test_serving_prints_the_link_once_and_keeps_it_out_of_the_log(tmp_path: Path) -> None:
    with Server(tmp_path / "home") as server:
        link = server.setup_link
        assert link.startswith(f"{server.url}/setup?token=")
        httpx.get(link, headers={"Accept": "text/html"})
        assert server.log.read_text().count("token=") == 1
        assert httpx.get(f"{server.url}/readyz").text == "ready"
    assert "Traceback" not in server.log.read_text()


def test_a_taken_port_and_an_unsafe_host_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        busy = factory(tmp_path / "home", "serve", port=port)
    assert busy.returncode == 1
    assert f"Port {port} is taken" in busy.stderr
    open_ = factory(tmp_path / "home", "serve", port=port, host="0.0.0.0")
    assert open_.returncode != 0
    assert "Nobody has set this factory up yet" in open_.stderr
    assert "Traceback" not in open_.stderr + open_.stdout
    wrong = factory(tmp_path / "home", "serve", port="many")
    assert "FACTORY_PORT" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_doctor_says_what_is_there_what_is_missing_and_never_a_secret(tmp_path: Path) -> None:
    done = factory(
        tmp_path / "home", "doctor", model_key="sk-canary-1", smtp_url="smtp://me:canary-2@mail.example:587",
        database_url="postgresql://me:canary-3@127.0.0.1:1/x",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in (
        "Database",
        "Docker",
        "Bubblewrap",
        "Language model",
        "Mail server",
        "Canvas libraries",
        "Disk",
        "Chromium",
    ):
        assert re.search(rf"^(found|missing) +{name}: ", done.stdout, re.MULTILINE), name
    assert "nothing answers at 127.0.0.1:1" in done.stdout
    assert "It would add" in done.stdout
    for name in Settings.model_fields:
        assert f"FACTORY_{name.upper()}" in done.stdout
    assert "canary" not in done.stdout
    lines = json.loads(factory(tmp_path / "home", "doctor", "--json").stdout)
    assert {"name", "found", "detail", "adds", "get"} == set(lines[0])


def test_compile_writes_a_module_that_runs_on_its_own(tmp_path: Path) -> None:
    file, module = tmp_path / "echo.json", tmp_path / "echo.py"
    file.write_text(json.dumps(MANUAL))
    assert factory(tmp_path, "compile", str(file), "-o", str(module)).returncode == 0
    assert factory(tmp_path, "compile", str(file)).stdout == module.read_text()
    done = subprocess.run(
        [sys.executable, "-I", str(module), "--input", '{"total": 5}'], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"total": 5}


def test_compile_takes_along_the_agents_that_are_called(tmp_path: Path) -> None:
    other, file, module = tmp_path / "other.json", tmp_path / "calls.json", tmp_path / "calls.py"
    other.write_text(json.dumps(MANUAL))
    call = {"id": "x", "type": "flow.call_blueprint", "settings": {"blueprint": "bp_1", "input": '{"n": 1}'}}
    file.write_text(json.dumps(MANUAL | {"nodes": [call]}))
    assert factory(tmp_path, "compile", str(file), "--agent", f"bp_1={other}", "-o", str(module)).returncode == 0
    done = subprocess.run([sys.executable, "-I", str(module)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"n": 1}
    assert "names no file" in factory(tmp_path, "compile", str(file), "--agent", "bp_1").stderr


def test_compile_says_which_step_keeps_it_from_being_compiled(tmp_path: Path) -> None:
    file = tmp_path / "calls.json"
    call = {"id": "x", "type": "flow.call_blueprint", "name": "Credit check", "settings": {"blueprint": "bp_1"}}
    file.write_text(json.dumps(MANUAL | {"nodes": [call]}))
    done = factory(tmp_path, "compile", str(file))
    assert done.returncode == 1
    assert "“Credit check” cannot be compiled" in done.stderr
