"""Rounds of throughput: the reference, then the product, each alone, and again. What counts is the ratio within a round."""

from __future__ import annotations

import os
import signal
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
    size = str(WORKERS if code else 0)
    server = Server(home, docker=docker, pool_size=size, pool_ceiling=str(max(1, int(size))))
    figures = defaultdict(list)
    with reference(home.with_name("reference.db")) as other, server:
        assert server.process
        for number in range(rounds):
            for point in wanted:
                theirs, ours = f"{other.url}/{point.workload.name}", f"{server.url}/hooks/{point.workload.name}"
                if (given := answer(ours, point.workload.body)) != (right := answer(theirs, point.workload.body)):
                    raise WrongAnswer(f"{ours} answers {given}, the reference {right}")
                with stopped(server.process):
                    goal = per_second(theirs, point.workload.body, point.connections)
                with stopped(other.process):
                    rate = per_second(ours, point.workload.body, point.connections)
                figures[point.ratio].append(rate / goal)
                if point.runs:
                    figures[point.runs].append(rate)
                said = f"round {number + 1}: {point.ratio}: {rate:,.0f}/s, reference {goal:,.0f}/s"
                print(f"  {said}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return dict(figures)


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """One server at a time: the other does nothing meanwhile, not even its housekeeping."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Reference:
    """The reference while it is served."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def reference(database: Path) -> Iterator[Reference]:
    """The reference, served in a process of its own."""
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
        yield Reference(url, process)
    finally:
        process.terminate()
        process.wait(20)
