"""What was found on this machine, what is missing, what it would add, and how to get it."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.rights import GET_A_USER, stays_root
from app.settings import Settings
from nodes.errors import FactoryError
from runtime.crews.bus_redis import RedisBus
from runtime.workers.broker.client import OverSocket
from runtime.workers.choose import BROKER, addresses
from runtime.workers.docker import DockerBackend
from runtime.workers.local import LocalBackend

_ENOUGH_DISK = 1024**3


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked for. `detail` says what was found or why not, `adds` what it is for, `get` how."""

    name: str
    found: bool
    detail: str
    adds: str
    get: str


async def examine(settings: Settings) -> list[Line]:
    """Look for everything, at the same time."""
    found = await asyncio.gather(
        _docker(settings), _bubblewrap(), _database(settings), _crew_bus(settings), asyncio.to_thread(_files, settings)
    )
    docker, bubblewrap, database, crew_bus, files = found
    return [database, docker, bubblewrap, _rights(settings), crew_bus, _model(settings), _mail(settings), *files]


def _rights(settings: Settings) -> Line:
    adds = "a web process that has neither this machine nor the Docker engine, whatever gets into it"
    root = stays_root(settings)
    return Line("User of its own", not root, "the web process stays root" if root else "not root", adds, GET_A_USER)


async def _docker(settings: Settings) -> Line:
    adds = "isolated workers for steps that run code, the strongest kind"
    get = "Install Docker (Debian, Ubuntu: apt install docker.io), then start it; `factory serve` finds it."
    if settings.docker == "off":
        return Line("Docker", False, "switched off by FACTORY_DOCKER", adds, "Set FACTORY_DOCKER=auto.")
    named, _, broker = settings.docker.partition(BROKER)
    engines = addresses(named).values()
    try:
        for url in engines:
            async with asyncio.timeout(20):
                # Through the broker it is the server's own workers that are seen: they are kept.
                through = OverSocket(Path(broker), engine=url) if broker else None
                backend = DockerBackend("doctor", url=url or None, broker=through, keep=bool(broker))
                await backend.open()
                await backend.close()
    except FactoryError as problem:
        return Line("Docker", False, problem.message, adds, problem.fix or get)
    except TimeoutError:
        return Line("Docker", False, "the engine does not answer", adds, get)
    answer = "answers, and has the worker image" if len(engines) == 1 else f"{len(engines)} engines answer"
    return Line("Docker", True, answer, adds, get)


async def _bubblewrap() -> Line:
    adds = "isolated workers for steps that run code where there is no Docker"
    get = "Install it (Debian, Ubuntu: apt install bubblewrap)."
    backend = LocalBackend()
    try:
        async with asyncio.timeout(20):
            await backend.open()
            await backend.close()
    except FactoryError as problem:
        return Line("Bubblewrap", False, problem.message, adds, problem.fix or get)
    except TimeoutError:
        return Line("Bubblewrap", False, "it does not answer", adds, get)
    return Line("Bubblewrap", True, "works", adds, get)


async def _database(settings: Settings) -> Line:
    adds = "everything: agents, runs, people"
    if not settings.database_url:
        detail = f"SQLite in {settings.home}"
        writable = await asyncio.to_thread(_may_write, settings.home)
        return Line(
            "Database",
            writable,
            detail if writable else f"{settings.home} cannot be written",
            adds,
            "Set FACTORY_HOME to a folder of yours.",
        )
    place = urlsplit(settings.database_url)
    if place.scheme.startswith("sqlite"):
        return Line("Database", True, "SQLite", adds, "")
    host, port = place.hostname or "localhost", place.port or 5432
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except (OSError, TimeoutError):
        get = "Start the server, or correct FACTORY_DATABASE_URL."
        return Line("Database", False, f"nothing answers at {host}:{port}", adds, get)
    return Line("Database", True, f"PostgreSQL at {host}:{port}", adds, "")


async def _crew_bus(settings: Settings) -> Line:
    adds = "what members of a crew talk over; on Redis, what they share outlives a restart"
    url = settings.redis_url.get_secret_value()
    if not url:
        return Line("Crew bus", True, "the server's own memory", adds, "")
    bus = RedisBus(url, "doctor")
    try:
        await bus.start()
        await bus.stop()
    except FactoryError as problem:
        return Line("Crew bus", False, problem.message, adds, "Start the server, or correct FACTORY_REDIS_URL.")
    return Line("Crew bus", True, bus.address, adds, "")


def _model(settings: Settings) -> Line:
    adds = "steps that ask a language model"
    get = "Choose one under Settings → Model, or set FACTORY_MODEL (and FACTORY_MODEL_KEY)."
    return Line("Language model", bool(settings.model), settings.model or "no default is set", adds, get)


def _mail(settings: Settings) -> Line:
    adds = "steps that send e-mail"
    url = settings.smtp_url.get_secret_value()
    host = urlsplit(url).hostname or ""
    return Line(
        "Mail server", bool(host), host or "none is set", adds, "Set FACTORY_SMTP_URL=smtp://user:password@host:587"
    )


def _files(settings: Settings) -> list[Line]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    vendor = Path(__file__).parent / "canvas" / "vendor" / ".stamp"
    home = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(home).free
    enough = free >= _ENOUGH_DISK
    return [
        Line(
            "Canvas libraries",
            vendor.is_file(),
            "fetched" if vendor.is_file() else "not fetched",
            "drawing agents in the browser",
            "Install again with a network connection: make run",
        ),
        Line("Disk", enough, f"{free / 1024**3:.1f} GiB free", "room for runs and files", "Free at least 1 GiB."),
        Line(
            "Chromium",
            browser is not None,
            browser or "not installed",
            "the browser tests and screenshots; the product itself does not need it",
            "Install it (Debian: apt install chromium).",
        ),
    ]


def _may_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".doctor"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
