"""Plain containers of the workers' image, started by the engine's own program, to compare with; and what a container takes."""

from __future__ import annotations

import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from runtime.workers.image.build import image_tag
from tests.services import docker_url

# What a worker has loaded, too, before it says that it is ready.
FIRST_WORDS = "import json, re, datetime, time; print('up', flush=True); time.sleep(600)"


def plain(count: int, at_once: int) -> float:
    """Seconds for so many of `docker run`, so many of them at once, until each has run its first Python."""
    name = f"bench-plain-{uuid4().hex[:8]}"
    clients: list[subprocess.Popen[bytes]] = []

    def one(number: int) -> None:
        command = _command(
            "run", "--network=none", f"--name={name}-{number}", "--entrypoint=python3", image_tag(), "-c", FIRST_WORDS
        )
        client = subprocess.Popen(command, stdout=subprocess.PIPE)
        clients.append(client)
        assert client.stdout is not None and client.stdout.readline() == b"up\n"

    try:
        with ThreadPoolExecutor(at_once) as threads:
            began = time.perf_counter()
            list(threads.map(one, range(count)))
            return time.perf_counter() - began
    finally:
        for client in clients:
            client.kill()
            client.wait()
        left = _docker("ps", "--all", "--quiet", "--filter", f"name={name}").split()
        if left:
            _docker("rm", "--force", *left)


def megabytes_each(home: str) -> float:
    """What a worker of this installation takes on average, as the engine counts it."""
    ours = _docker("ps", "--quiet", "--filter", f"label=agent-factory.home={home}").split()
    said = _docker("stats", "--no-stream", "--format", "{{.MemUsage}}", *ours).splitlines()
    return statistics.mean(_megabytes(line.partition("/")[0].strip()) for line in said)


def _megabytes(text: str) -> float:
    return float(text[:-3]) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[text[-3:]] / 1e6


def _docker(*words: str) -> str:
    return subprocess.run(_command(*words), check=True, capture_output=True, text=True).stdout


def _command(*words: str) -> list[str]:
    return ["docker", "--host", docker_url(), *words]
