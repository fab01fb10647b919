"""What the tests need from the machine: programs, a Docker engine, PostgreSQL, Redis. Started here when there is none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


class Missing(Exception):
    """Something is not on this machine; the text says what, and how to get it."""


# --- programs ----------------------------------------------------------------------------------------------------------


def chromium() -> Path | None:
    """The browser of the browser tests."""
    return _program("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def postgres_program(name: str) -> Path | None:
    """A program of the newest PostgreSQL server; Debian keeps them off the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return versions[-1] if versions else _program(name)


# What to look for, and the packages that bring it.
PROGRAMS: dict[str, tuple[Callable[[], Path | None], tuple[str, ...]]] = {
    "Chromium": (chromium, ("chromium",)),
    "Docker": (lambda: _program("docker") and _program("dockerd"), ("docker.io", "iptables")),
    "debootstrap": (lambda: _program("debootstrap"), ("debootstrap", "debian-archive-keyring")),
    "PostgreSQL": (lambda: postgres_program("initdb"), ("postgresql",)),
    "bubblewrap": (lambda: _program("bwrap"), ("bubblewrap",)),
    "Redis": (lambda: _program("redis-server"), ("redis-server",)),
}


def install_programs() -> list[str]:
    """Install through apt what is missing, if we may; the names of what is missing after that."""
    missing = [name for name, (found, _) in PROGRAMS.items() if not found()]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [package for name in missing for package in PROGRAMS[name][1]]
        print(f"Installing through apt: {', '.join(packages)} …", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        CACHE.mkdir(exist_ok=True)
        with (CACHE / "apt.log").open("w") as log:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
                subprocess.run(["apt-get", *command], env=environment, check=False, stdout=log, stderr=log)
        missing = [name for name in missing if not PROGRAMS[name][0]()]
    return missing


def how_to_install(missing: Sequence[str]) -> str:
    """The command that brings what is missing."""
    return "sudo apt-get install " + " ".join(package for name in missing for package in PROGRAMS[name][1])


def _program(*names: str) -> Path | None:
    found = next(filter(None, map(shutil.which, names)), None)
    return Path(found) if found else None


# --- Docker ------------------------------------------------------------------------------------------------------------


def docker_url() -> str:
    """Where the Docker engine is looked for."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def docker_answers() -> bool:
    """Whether an engine answers there."""
    if not shutil.which("docker"):
        return False
    asked = ["docker", "--host", docker_url(), "version"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=20).returncode == 0


@contextmanager
def docker_engine() -> Iterator[str]:
    """The address of a Docker engine; one that we had to start is stopped at the end. Raises Missing."""
    if docker_answers():
        yield docker_url()
        return
    if not shutil.which("dockerd"):
        raise Missing(f"Docker is not installed. {how_to_install(['Docker'])}")
    if os.geteuid() != 0:
        raise Missing("No Docker engine answers. Start it: sudo systemctl start docker, and be in the group `docker`.")
    CACHE.mkdir(exist_ok=True)
    log = CACHE / "dockerd.log"
    with log.open("w") as output:
        command = ["dockerd", "--host", docker_url(), "--storage-driver", "overlay2"]
        engine = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        if not _wait(docker_answers, engine, seconds=60):
            raise Missing(f"dockerd was started and does not answer: {_last_line(log)} (all of it in {log})")
        yield docker_url()
    finally:
        _stop(engine)


# --- PostgreSQL --------------------------------------------------------------------------------------------------------


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server with nothing in it, gone at the end. Raises Missing."""
    initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
    if not initdb or not postgres:
        raise Missing(f"PostgreSQL is not installed. {how_to_install(['PostgreSQL'])}")
    # The server refuses to run as root; Debian's package brings the user `postgres`.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="factory-postgres-") as folder:
        if user:
            shutil.chown(folder, user)
        data, port = f"{folder}/data", free_port()
        make = [
            str(initdb),
            "--pgdata",
            data,
            "--username",
            "postgres",
            "--auth",
            "trust",
            "--no-sync",
            "--encoding=UTF8",
        ]
        done = subprocess.run(make, cwd="/", user=user, group=user, capture_output=True, check=False)
        if done.returncode:
            raise Missing(f"PostgreSQL could not be set up: {done.stderr.decode(errors='replace').strip()}")
        # Nobody needs this data after a power cut.
        settings = ["fsync=off", "full_page_writes=off", "max_connections=200", "listen_addresses=127.0.0.1"]
        options = [word for setting in settings for word in ("-c", setting)]
        serve = [str(postgres), "-D", data, "-p", str(port), "-k", folder, *options]
        log = Path(folder, "log")
        with log.open("w") as output:
            server = subprocess.Popen(serve, cwd="/", user=user, group=user, stdout=output, stderr=subprocess.STDOUT)
        try:
            if not _wait(lambda: "ready to accept connections" in log.read_text(), server, seconds=30):
                raise Missing(f"PostgreSQL does not start: {_last_line(log)}")
            yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
        finally:
            _stop(server, signal.SIGINT)  # with SIGTERM it would wait until every client has gone


# --- Redis -------------------------------------------------------------------------------------------------------------


@contextmanager
def redis_server() -> Iterator[str]:
    """The address of a Redis server with nothing in it, gone at the end. Raises Missing."""
    program = _program("redis-server")
    if not program:
        raise Missing(f"Redis is not installed. {how_to_install(['Redis'])}")
    with tempfile.TemporaryDirectory(prefix="factory-redis-") as folder:
        port, log = free_port(), Path(folder, "log")
        serve = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with log.open("w") as output:
            server = subprocess.Popen(serve, cwd="/", stdout=output, stderr=subprocess.STDOUT)
        try:
            if not _wait(lambda: "ready to accept connections" in log.read_text().lower(), server, seconds=20):
                raise Missing(f"Redis does not start: {_last_line(log)}")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            _stop(server)


# --- small things ------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], *, seconds: float) -> bool:
    """Whether it became ready in time, before the process ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if ready():
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    process.send_signal(how)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
