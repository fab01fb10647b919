"""How long `make run` takes until a person sees the first page, when everything is set up already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from tests.services import ROOT, free_port

PATIENCE = 120.0


def first_page(home: Path, rounds: int) -> list[float]:
    """Seconds from the command to the first HTML of the sign-in page; one start before them is not counted."""
    return [_start(home) for _ in range(rounds + 1)][1:]


def _start(home: Path) -> float:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FACTORY_")}
    own = {"FACTORY_HOME": str(home), "FACTORY_PORT": str(port)}
    log = home.with_name("make-run.log")
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "--silent", "run", f"PYTHON={sys.executable}"],
            cwd=ROOT,
            env=kept | own,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while time.monotonic() < began + PATIENCE and process.poll() is None:
            with suppress(httpx.HTTPError):
                page = httpx.get(f"http://127.0.0.1:{port}/login", timeout=10, follow_redirects=True)
                if page.status_code == 200 and "<html" in page.text:
                    return time.monotonic() - began
            time.sleep(0.02)
        raise SystemExit(f"make run did not show a page:\n{log.read_text()}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
