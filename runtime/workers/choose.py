"""Finds what can isolate code on this machine, as the setting FACTORY_DOCKER says: auto, off, or an engine's address."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from runtime.workers.backend import Backend, NoWorker, Profile
from runtime.workers.broker.client import OverSocket
from runtime.workers.docker import DockerBackend
from runtime.workers.hosts import Hosts
from runtime.workers.local import LocalBackend
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.rooms import place_of_rooms

BROKER: Final = "+broker:"


async def open_backend(setting: str = "auto", *, home: str) -> Backend:
    """An opened backend: Docker where it answers, else bubblewrap. Raises NoWorker, which says what to install.

    `home` names this installation, so that leftovers of an earlier process are found. With an address, only that
    engine will do: who asks for it does not want anything weaker. Several are separated by commas, each with a name before it
    if one likes: `one=unix:///run/one.sock,two=unix:///run/two.sock`. After `BROKER` comes the socket of a broker that runs by
    itself; the engines are then asked through it. Workers that outlived an earlier process are kept, for the pools to adopt.
    """
    setting, _, path = (setting.strip() or "auto").partition(BROKER)
    missing: NoWorker | None = None
    if setting != "off":
        docker = _engines(setting, home, path)
        try:
            await docker.open()
            return docker
        except NoWorker as error:
            if setting != "auto":
                raise
            missing = error
    local = LocalBackend()
    try:
        await local.open()
    except NoWorker as error:
        said = f"{missing.message} {error.message}" if missing else error.message
        raise NoWorker(said, fix=error.fix) from error
    return local


def addresses(setting: str) -> dict[str, str]:
    """The engines that a setting names: an address for each name. The empty address is the usual engine's."""
    if setting == "auto":
        return {"docker": ""}
    named = {}
    for number, part in enumerate(setting.split(","), 1):
        name, equals, url = part.strip().partition("=")
        if equals:
            named[name] = url
        elif part.strip():
            named["docker" if "," not in setting else f"engine-{number}"] = name
    return named


def _engines(setting: str, home: str, broker: str) -> Hosts:
    named = addresses(setting)
    engines = {
        name: DockerBackend(
            home, url=url or None, broker=OverSocket(Path(broker), engine=url) if broker else None, keep=True
        )
        for name, url in named.items()
    }
    return Hosts(engines, urls=named, adopt=True)


def rooms_for(home: str, keep: Collection[str] = ()) -> Path:
    """A folder, closed to other users, for the sockets of this installation's workers; with the rooms of those only."""
    rooms = place_of_rooms(home)
    base = rooms.parent
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = base.lstat()
    if found.st_uid != os.geteuid() or base.is_symlink():
        raise NoWorker(f"The folder {base} belongs to somebody else.", fix="Remove it, then start again.")
    if not keep:
        shutil.rmtree(rooms, ignore_errors=True)
    rooms.mkdir(mode=0o700, exist_ok=True)
    for room in rooms.iterdir():
        if room.name not in keep:
            shutil.rmtree(room, ignore_errors=True)
    return rooms


@asynccontextmanager
async def open_place(setting: str = "auto", *, home: str) -> AsyncIterator[tuple[Backend, Path]]:
    """The backend and the folder for its sockets, all gone at the end. Raises NoWorker."""
    backend = await open_backend(setting, home=home)
    given = backend.rooms
    rooms = given or rooms_for(home, [left.box.id for left in backend.survivors] if isinstance(backend, Hosts) else ())
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
        if isinstance(pool.backend, Hosts):
            await pool.backend.drop_survivors()
        yield pool
