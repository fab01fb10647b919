"""Finds what can isolate code on this machine, as the setting FACTORY_DOCKER says: auto, off, or an engine's address."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from runtime.workers.backend import Backend, NoWorker, Profile
from runtime.workers.broker.client import OverSocket
from runtime.workers.docker import DockerBackend
from runtime.workers.local import LocalBackend
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.rooms import place_of_rooms

BROKER: Final = "+broker:"


async def open_backend(setting: str = "auto", *, home: str) -> Backend:
    """An opened backend: Docker where it answers, else bubblewrap. Raises NoWorker, which says what to install.

    `home` names this installation, so that leftovers of an earlier process are found. With an address, only that
    engine will do: who asks for it does not want anything weaker. After `BROKER` comes the socket of a broker that runs by
    itself; the engine is then asked through it.
    """
    setting = setting.strip() or "auto"
    setting, _, path = setting.partition(BROKER)
    broker = OverSocket(Path(path), engine="" if setting == "auto" else setting) if path else None
    if broker is not None and setting != "auto":
        docker = DockerBackend(home, broker=broker)
        await docker.open()
        return docker
    if setting not in ("auto", "off"):
        docker = DockerBackend(home, url=setting)
        await docker.open()
        return docker
    missing: NoWorker | None = None
    if setting == "auto":
        try:
            backend = DockerBackend(home, broker=broker)
            await backend.open()
            return backend
        except NoWorker as error:
            missing = error
    local = LocalBackend()
    try:
        await local.open()
    except NoWorker as error:
        said = f"{missing.message} {error.message}" if missing else error.message
        raise NoWorker(said, fix=error.fix) from error
    return local


def rooms_for(home: str) -> Path:
    """An empty folder, closed to other users, for the sockets of this installation's workers."""
    rooms = place_of_rooms(home)
    base = rooms.parent
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = base.lstat()
    if found.st_uid != os.geteuid() or base.is_symlink():
        raise NoWorker(f"The folder {base} belongs to somebody else.", fix="Remove it, then start again.")
    shutil.rmtree(rooms, ignore_errors=True)
    rooms.mkdir(mode=0o700)
    return rooms


@asynccontextmanager
async def open_place(setting: str = "auto", *, home: str) -> AsyncIterator[tuple[Backend, Path]]:
    """The backend and the folder for its sockets, all gone at the end. Raises NoWorker."""
    backend = await open_backend(setting, home=home)
    given = backend.rooms
    rooms = given or rooms_for(home)
    if given is None:
        # The sandbox is made by another user, who has to pass through; a container engine does not.
        rooms.chmod(0o711 if backend.room_owner is not None else 0o700)
    try:
        yield backend, rooms
    finally:
        await backend.close()
        if given is None:
            shutil.rmtree(rooms, ignore_errors=True)


@asynccontextmanager
async def open_pool(
    setting: str = "auto", *, home: str, profile: Profile | None = None, rules: PoolRules | None = None
) -> AsyncIterator[Pool]:
    """Everything at once: the backend, its folder and a filling pool, all gone at the end. Raises NoWorker."""
    async with (
        open_place(setting, home=home) as (backend, rooms),
        Pool(backend, rooms, profile=profile, rules=rules) as pool,
    ):
        yield pool
