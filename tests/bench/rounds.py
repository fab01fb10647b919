"""Rounds of throughput: the reference, then the product, each alone, and again. What counts is the ratio within a round."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.load import WrongAnswer, answer, per_second
from tests.bench.workloads import W1, W2, W3, WORKLOADS, Workload
from tests.deploying import deploy
from tests.server import Server
from tests.services import ROOT, docker_answers, docker_url, free_port

WORKERS = 4


@dataclass(frozen=True)
class Point:
    """A workload at a number of connections, and the figures that come of it."""

    workload: Workload
    connections: int
    ratio: str
    runs: str = ""


POINTS = (
    Point(W1, 1, "W1@1"),
    Point(W1, 16, "W1@16"),
    Point(W1, 64, "W1@64"),
    Point(W2, 64, "W2@64", "W2 runs/s"),
    Point(W3, 64, "W3@64"),
)


def workers() -> str:
    """What isolates code here: Docker where it answers, else bubblewrap."""
    return "Docker" if docker_answers() else "bubblewrap (no Docker engine answers)"


def throughput(home: Path, wanted: Sequence[Point], rounds: int) -> dict[str, list[float]]:
    """The figures of these points, one value for each round."""
    deploy(home, [workload.blueprint for workload in WORKLOADS])
    code = any(point.workload is W2 for point in wanted)
    docker = docker_url() if code and docker_answers() else "off"
    server = Server(home, docker=docker, pool_size=str(WORKERS if code else 0))
    figures = defaultdict(list)
    for number in range(rounds):
        with reference(home.with_name(f"reference-{number}.db")) as url:
            answers = {point.ratio: answer(f"{url}/{point.workload.name}", point.workload.body) for point in wanted}
            goals = {point.ratio: _rate(f"{url}/{point.workload.name}", point) for point in wanted}
        with server:
            for point in wanted:
                address = f"{server.url}/hooks/{point.workload.name}"
                given = answer(address, point.workload.body)
                if given != answers[point.ratio]:
                    raise WrongAnswer(f"{address} answers {given}, the reference {answers[point.ratio]}")
                rate = _rate(address, point)
                figures[point.ratio].append(rate / goals[point.ratio])
                if point.runs:
                    figures[point.runs].append(rate)
                _note(f"round {number + 1}: {point.ratio}: {rate:,.0f}/s, reference {goals[point.ratio]:,.0f}/s")
    return dict(figures)


def _rate(url: str, point: Point) -> float:
    return per_second(url, point.workload.body, point.connections)


def _note(sentence: str) -> None:
    print(f"  {sentence}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


@contextmanager
def reference(database: Path) -> Iterator[str]:
    """The address of the reference, served in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.reference", str(port), str(database)]
    process = subprocess.Popen(command, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until and process.poll() is None:
            with suppress(httpx.HTTPError):
                httpx.get(f"{url}/healthz", timeout=2).raise_for_status()
                break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)
