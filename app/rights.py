"""What the web process gives up when it is started as root: its way to the Docker engine, and then root itself."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import structlog

from app.settings import Settings, SettingsError

log = structlog.get_logger("factory")

USUAL_USER = "agent-factory"
GET_A_USER = f"Add a user for it (useradd --system {USUAL_USER}), or name one in FACTORY_USER."


@contextlib.contextmanager
def given_up(settings: Settings, home: str) -> Iterator[Settings]:
    """Settings for a process with fewer rights. Only root has any to give up.

    Beside it a broker is started that alone talks to the engine, as a user of its own. Then this process becomes
    FACTORY_USER, or `agent-factory` where there is such a user; else it stays root, which the broker cannot help.
    """
    if os.geteuid() != 0:
        yield settings
        return
    user = _user(settings.user)
    if stays_root(settings):
        log.warning("the web process stays root, so whoever gets into it has this machine", fix=GET_A_USER)
    if settings.docker == "off":
        _become(user, settings.home)
        yield settings
        return
    from runtime.workers.broker.process import serve_beside
    from runtime.workers.choose import BROKER, addresses

    peer = (user.pw_uid, user.pw_gid) if user else None
    with serve_beside(home, engines=tuple(addresses(settings.docker).values()), peer=peer, keep=True) as path:
        _become(user, settings.home)
        yield settings.model_copy(update={"docker": f"{settings.docker}{BROKER}{path}"})


def stays_root(settings: Settings) -> bool:
    """Whether the web process is root and will go on being it. Raises SettingsError."""
    if os.geteuid() != 0:
        return False
    user = _user(settings.user)
    return user is None or user.pw_uid == 0


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name or USUAL_USER)
    except KeyError:
        if not name:
            return None
        raise SettingsError(
            f"FACTORY_USER: there is no user “{name}” on this machine.", fix=f"Add it: useradd --system {name}"
        ) from None


def _become(user: pwd.struct_passwd | None, home: Path) -> None:
    """Another user, with no way back; the data folder goes along."""
    if user is None or user.pw_uid == 0:
        return
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder, folders, files in os.walk(home):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *files))):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = user.pw_dir
