"""Load over HTTP: `wrk` sends one body as fast as so many connections allow, and says how many answers came a second."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx

WARM_UP = 1.5  # seconds of load that are not counted
MEASURED = 5


class WrongAnswer(Exception):
    """An answer is not the one that was expected, so that comparing would mean nothing."""


def need_wrk() -> str:
    """The path of wrk; installed through apt if we may."""
    if not shutil.which("wrk") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing wrk through apt …", flush=True)
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "wrk"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update"], env=environment, check=False, stdout=subprocess.DEVNULL)
        subprocess.run(install, env=environment, check=False, stdout=subprocess.DEVNULL)
    found = shutil.which("wrk")
    if not found:
        raise SystemExit("Throughput is measured with wrk. Install it: sudo apt-get install wrk")
    return found


def answer(url: str, body: Any) -> Any:
    """What is answered to one call."""
    reply = httpx.post(url, json=body, timeout=60)
    if reply.status_code != 200:
        raise WrongAnswer(f"{url} answered {reply.status_code}: {reply.text[:500]}")
    return reply.json()


def per_second(url: str, body: Any, connections: int) -> float:
    """Answers a second while so many connections each ask again as soon as they are answered."""
    _wrk(url, body, connections, WARM_UP)
    return _wrk(url, body, connections, MEASURED)


def _wrk(url: str, body: Any, connections: int, seconds: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "post.lua")
        text = json.dumps(json.dumps(body))  # JSON's escapes are Lua's too
        script.write_text(f'wrk.method = "POST"\nwrk.body = {text}\nwrk.headers["Content-Type"] = "application/json"\n')
        command = [need_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        said = subprocess.run([*command, "-s", str(script), url], capture_output=True, text=True, check=True).stdout
    if trouble := re.search(r"^.*(?:Non-2xx|Socket errors).*$", said, re.MULTILINE):
        raise WrongAnswer(f"{url}: {trouble.group().strip()}")
    rate = re.search(r"^Requests/sec:\s*([\d.]+)$", said, re.MULTILINE)
    assert rate, said
    return float(rate.group(1))
