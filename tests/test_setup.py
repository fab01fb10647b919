"""Set-up: what is done is not done again, and what is missing is said in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETUP = ROOT / "deploy" / "setup.py"


def test_a_second_start_does_nothing_and_needs_no_network() -> None:
    offline = {**os.environ, "UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
    done = subprocess.run([sys.executable, SETUP, "--dev"], env=offline, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_developers_packages_are_enough_to_serve() -> None:
    done = subprocess.run([sys.executable, SETUP], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_a_network_it_says_what_could_not_be_done(tmp_path: Path) -> None:
    for name in ("deploy", "assets/web"):
        (tmp_path / name).mkdir(parents=True)
        for file in (ROOT / name).iterdir():
            if file.is_file():
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    nowhere = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1"}
    start = [sys.executable, str(tmp_path / "deploy" / "setup.py")]
    for _ in range(2):  # what was half done is taken up again, not taken for done
        done = subprocess.run(start, env=nowhere, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1
        assert "uv could not be installed from PyPI." in done.stderr
        assert "→" in done.stderr
        assert "Traceback" not in done.stderr
