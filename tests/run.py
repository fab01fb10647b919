"""Runs checks and tests in order and says plainly how it went: `python -m tests.run [check | soak]`.

Without an argument everything runs: what the machine lacks is installed or started first, then come the checks, the tests
without services, those with Docker, those with a browser, and a sample of the soak. It stops at the first that fails. With
CI=true a missing service is a failure; else its tests are skipped, and the last line says so.

A few tests that fail while others share the machine are tried once more, alone: what passes then is not a failure, but the
last line names it as unsteady, to be mended. The soak has no second try: what is promised holds the first time or it does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from runtime.workers.image.build import ImageError, ensure_image
from tests import services

BIN = Path(sys.executable).parent
FAILED = 1
NO_TESTS = 5
# So many failures of one phase may be the machine's; more are ours.
FEW = 3
CHECKS = (
    ("Format", ["ruff", "format", "--check"]),
    ("Lint", ["ruff", "check"]),
    ("Import contracts", ["lint-imports", "--no-cache"]),
    ("Types", ["mypy"]),
)
SOAK_SAMPLE = "Soak, a sample"
# Most tests wait now and then, for a disk or a process: one process more than the two cores of CI uses that. A browser has enough
# processes of its own.
TESTS = (
    ("Tests", ["-m", "not docker and not browser and not soak", "-n", "3", "--dist", "worksteal"]),
    ("Tests with Docker", ["-m", "docker and not browser and not soak", "-n", "2", "--dist", "loadfile"]),
    ("Tests in the browser", ["-m", "browser and not soak", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]),
    (SOAK_SAMPLE, ["-m", "soak", "-n", "2"]),
)
# How often each thing is broken by `make soak`; the tests name their own, smaller sizes for `make test`.
SOAK = {
    "RUNTIME_KILLS": "1000", "KILLS": "200", "WORKERS": "500", "TAKEOVERS": "20", "CUTS": "500", "GRAPHS": "2000",
    "POWER_CUTS": "1000", "FLEET": "500", "PAYLOADS": "1",
}  # fmt: skip
GRAPHS = (
    "tests/runtime/test_engine_properties.py",
    "tests/runtime/test_compiling_properties.py",
    "tests/runtime/test_compiling_agents.py",
)
BROKEN = "tests/promises/test_broken_input.py"


@dataclass
class Run:
    """What has happened so far."""

    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    started: float = field(default_factory=time.monotonic)
    phases: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    unsteady: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def phase(self, name: str, action: Callable[[], Any]) -> Any:
        """Do one thing, saying its name before and its duration after."""
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        result = action()
        self.phases += 1
        print(f"--- {name}: {time.monotonic() - began:.1f} s", flush=True)
        return result

    def program(self, name: str, command: list[str]) -> int:
        """Run a program of our environment as one phase; what it answers."""
        arguments = [str(BIN / command[0]), *command[1:]]
        code: int = self.phase(
            name, lambda: subprocess.run(arguments, cwd=services.ROOT, env=self.environment).returncode
        )
        return code

    def command(self, name: str, command: list[str]) -> None:
        """The same; end here if it fails."""
        if code := self.program(name, command):
            self.end(code, name)

    def pytest(self, name: str, arguments: list[str], *, again: bool = False) -> None:
        """Run some of the tests as one phase, and count them; `again` tries a few that failed once more, alone."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.xml")
            command = ["pytest", "-q", "-o", f"cache_dir={folder}/cache", f"--junitxml={report}"]
            code = self.program(name, [*command, *arguments])
            if report.exists():
                self.count(report)
            failed = _failed(Path(folder, "cache/v/cache/lastfailed")) if code == FAILED and again else []
            if failed and len(failed) <= FEW:
                code = self.program(f"{name}, tried again alone", ["pytest", "-q", *failed])
                if not code:
                    self.passed, self.failed = self.passed + len(failed), self.failed - len(failed)
                    self.unsteady += failed
            if code:
                self.end(code, name)

    def count(self, report: Path) -> None:
        """Add up what one report says."""
        for suite in ET.parse(report).getroot().iter("testsuite"):
            total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            self.passed += max(0, total - failed - skipped)
            self.failed += failed
            self.skipped += skipped

    def need(self, stack: ExitStack, service: Any) -> str | None:
        """Start a service for the rest of this run; None when it cannot be had, which ends a run in CI."""
        try:
            address: str = stack.enter_context(service)
        except services.Missing as missing:
            self.lack(str(missing))
            return None
        return address

    def lack(self, sentence: str) -> None:
        """Something cannot be had here."""
        print(sentence, flush=True)
        self.missing.append(sentence)
        if services.IN_CI:
            self.end(1, "what the machine must have")

    def end(self, code: int, failed_at: str = "") -> None:
        """Say how it went, and leave."""
        raise _Ended(code, failed_at)

    def summary(self, ended: _Ended) -> str:
        """The last line."""
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        counts = f"{self.passed} passed, {self.failed} failed"
        if self.skipped:
            counts += f", {self.skipped} skipped"
        if ended.code:
            why = " (no test was found)" if ended.code == NO_TESTS else ""
            return f"NOT OK: stopped at “{ended.failed_at}”{why} after {minutes} min {seconds} s. {counts}"
        if self.unsteady:
            counts += f"; {len(self.unsteady)} only when tried again: {', '.join(self.unsteady)}"
        lacking = f" Not everything could run: {' '.join(self.missing)}" if self.missing else ""
        return f"OK: {self.phases} phases in {minutes} min {seconds} s.{lacking} {counts}"


class _Ended(Exception):
    """The run is over; `code` is what the process answers."""

    def __init__(self, code: int, failed_at: str = "") -> None:
        self.code = code
        self.failed_at = failed_at


def _failed(record: Path) -> list[str]:
    """The names of the tests that failed, from pytest's own record."""
    return sorted(orjson.loads(record.read_bytes())) if record.exists() else []


def everything(run: Run, stack: ExitStack) -> None:
    """Prepare the machine, check, test."""
    if missing := run.phase("What this machine has", services.install_programs):
        run.lack(f"Not installed: {', '.join(missing)}. Install it: {services.how_to_install(missing)}")
    start_services(run, stack)
    run.environment.setdefault("FACTORY_FUZZ", "5000")
    check(run)
    for name, arguments in TESTS:
        run.pytest(name, arguments, again=name != SOAK_SAMPLE)


def start_services(run: Run, stack: ExitStack) -> None:
    """Docker with the worker image, and PostgreSQL, as far as they can be had."""
    if docker := run.phase("A Docker engine", lambda: run.need(stack, services.docker_engine())):
        run.environment["DOCKER_HOST"] = docker
        run.phase("The worker image", lambda: worker_image(run, docker))
    if database := run.phase("A PostgreSQL server", lambda: run.need(stack, services.postgres_server())):
        run.environment["FACTORY_TEST_DATABASE_URL"] = database


def worker_image(run: Run, docker: str) -> None:
    """Have the image of the workers; a minute or two the first time."""
    try:
        print(ensure_image(docker))
    except ImageError as error:
        run.lack(f"{error.message} {error.fix}")


def check(run: Run) -> None:
    """What can be said without running the product."""
    for name, command in CHECKS:
        run.command(name, list(command))


def soak(run: Run, stack: ExitStack) -> None:
    """The soak in full."""
    for name, size in SOAK.items():
        run.environment.setdefault(f"FACTORY_SOAK_{name}", size)
    counted = services.CACHE / "soak.jsonl"
    services.CACHE.mkdir(exist_ok=True)
    run.environment["FACTORY_SOAK_REPORT"] = str(counted)
    start_services(run, stack)
    counted.unlink(missing_ok=True)
    run.pytest("Soak", ["-m", "soak", "--timeout", "14400", "-s"])
    run.pytest("Random graphs", ["--timeout", "14400", *GRAPHS])
    run.environment.setdefault("FACTORY_FUZZ", "100000")
    run.pytest("Broken documents", ["--timeout", "14400", "-n", "2", BROKEN])
    run.command("The report", ["python", "-m", "tests.chaos.report", str(counted)])


def main(what: str) -> int:
    """Run what was asked for."""
    run = Run()
    # Hundreds of processes are started: none of them should compile the same sources again.
    run.environment.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        with ExitStack() as stack:
            if what == "check":
                check(run)
            elif what == "soak":
                soak(run, stack)
            else:
                everything(run, stack)
            run.end(0)
    except _Ended as ended:
        print(f"\n{run.summary(ended)}", flush=True)
        return ended.code
    return 0


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:2] or ["all"])))
