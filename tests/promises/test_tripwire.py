"""Whatever a document, a template or a formula says, the server only reads it: it starts nothing, opens nothing, loads nothing.

The documents go through the real services, and through the API of the whole application, in a process of its own in which
an audit hook watches the interpreter. What it watches is written in `tripwire.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVERY = os.environ.get("FACTORY_SOAK_PAYLOADS", "24")

pytestmark = pytest.mark.timeout(300)  # a server is started and asked hundreds of times


def job(what: str, folder: Path, every: str = EVERY) -> dict[str, Any]:
    """What a job of the tripwire reports."""
    command = [sys.executable, "-m", "tests.promises.tripwire", what, str(folder), every]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "Traceback" not in done.stdout + done.stderr, (done.stdout + done.stderr)[-3000:]
    return report


def test_the_tripwire_closes_on_every_kind_of_act(tmp_path: Path) -> None:
    """A trap that never closes proves nothing."""
    caught = " ".join(job("acts", tmp_path)["wrong"])
    for event in ("exec", "compile", "import", "open", "os.mkdir", "subprocess.Popen", "os.system", "socket.connect",
                  "socket.getaddrinfo", "ctypes.dlopen", "pickle.find_class"):  # fmt: skip
        assert f"{event} " in caught, event


def test_no_payload_in_any_field_of_a_real_agent_runs_in_the_server(tmp_path: Path) -> None:
    report = job("expressions", tmp_path)
    assert report["wrong"] == []
    counts = report["counts"]
    assert counts["steps"] > 1_500 and counts["deployed"] > 100 and counts["deploy.checks"] > 100
    assert set(counts) <= {
        "drafts", "findings", "steps", "deployed", "run succeeded", "run failed", "deploy.checks", "plan.invalid",
    }  # fmt: skip


def test_no_payload_over_http_runs_in_the_server(tmp_path: Path) -> None:
    report = job("over_http", tmp_path)
    assert report["wrong"] == []
    assert {"200", "201", "202", "422"} == set(report["counts"])


def test_importing_a_hostile_template_does_nothing_but_keep_it(tmp_path: Path) -> None:
    report = job("imports", tmp_path)
    assert report["wrong"] == []
    assert report["counts"]["imported"] >= 200 and report["counts"]["blueprint.invalid"] >= 50


if "FACTORY_SOAK_PAYLOADS" in os.environ:  # FACTORY_SOAK_PAYLOADS=1 puts all into all

    @pytest.mark.soak
    @pytest.mark.timeout(3600)
    def test_every_payload_in_every_type(tmp_path: Path) -> None:
        assert job("expressions", tmp_path, "1")["wrong"] == []
