"""The broker as a process of its own, under a user of its own: so the web process needs no way to the engine at all.

`serve_beside` starts it; `python -m runtime.workers.broker.process` is what is started. It listens on a unix socket that was
opened for it, answers only the user that it was told to, and ends when who started it does. What goes over the socket
are lines of JSON: `{"n": 1, "engine": "", "verb": {…}}`, answered by `{"n": 1, "tell": …}` any number of times and then
`{"n": 1, "done": …}` or `{"n": 1, "error": …}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nodes.errors import FactoryError
from runtime.workers.backend import NoWorker
from runtime.workers.broker import verbs
from runtime.workers.broker.client import LONGEST_LINE, InProcess
from runtime.workers.broker.engine import Engine
from runtime.workers.image.build import ImageError, ensure_image
from runtime.workers.rooms import place_of_rooms

OWN_USER: Final = "agent-factory-broker"
OWN_NUMBER: Final = 64_910  # where there is no such user: a number that no system gives to anybody
MOST_AT_ONCE: Final = 512
PAUSE: Final = 1.0  # before it is started anew
_log = logging.getLogger(__name__)


class Orders(BaseModel):
    """What the process is told when it starts. `peer` is the user that it answers, `user` the one that it becomes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: str
    rooms: Path
    engines: tuple[str, ...]
    peer: int
    group: int
    user: int | None
    cache: Path
    listener: Annotated[int, Field(ge=3)]
    images: dict[str, str] = {}


# --- the process -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Serve until the one who started us is gone; what serves is started anew when it dies."""
    orders = Orders.model_validate_json(arguments[0])
    os.environ["XDG_CACHE_HOME"] = os.environ["HOME"] = str(orders.cache)
    if orders.user is not None:
        _make_base(orders)
    while True:
        serving = os.fork()
        if serving == 0:
            _be_the_broker(orders)
        _, status = os.waitpid(serving, 0)
        # Its starter's end of our input is closed: that is how it was told to end.
        if status == 0 or select.select([sys.stdin], [], [], PAUSE)[0]:
            return 0
        _log.warning("the broker ended with status %s and is started anew", status)


def _be_the_broker(orders: Orders) -> NoReturn:
    """Become nobody in particular, then serve. The process that stays behind as root does nothing but wait."""
    code = 1
    try:
        if orders.user is not None:
            _become(orders)
        asyncio.run(_serve(orders))
        code = 0
    except BaseException:
        _log.exception("the broker failed")
    finally:
        os._exit(code)


def _make_base(orders: Orders) -> None:
    """The one thing that needs root: a Debian of one's own, where Docker Hub cannot be reached."""
    for url in orders.engines if "base" not in orders.images else ():
        with contextlib.suppress(ImageError):  # said when the first worker needs it
            ensure_image(url or None)


def _become(orders: Orders) -> None:
    """Another user, with the groups of the engines' sockets and of the one that we answer, and with no way back."""
    assert orders.user is not None
    import docker.transport  # noqa: F401 - what lies in a folder of root's only cannot be read afterwards

    groups = {orders.group, *(found for url in orders.engines if (found := _group_of(url)) is not None)}
    for folder, _, files in os.walk(orders.cache):
        for path in (folder, *(os.path.join(folder, file) for file in files)):
            os.chown(path, orders.user, orders.user, follow_symlinks=False)
    os.setgroups(sorted(groups))
    os.setgid(orders.user)
    os.setuid(orders.user)


def _group_of(url: str) -> int | None:
    """The group that may use this engine's socket."""
    where = url or os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not where.startswith("unix://"):
        return None
    with contextlib.suppress(OSError):
        found = Path(where.removeprefix("unix://")).stat()
        if stat.S_ISSOCK(found.st_mode) and found.st_mode & stat.S_IWGRP:
            return found.st_gid
    return None


async def _serve(orders: Orders) -> None:
    group = orders.group if orders.user is not None else None
    brokers = {
        url: InProcess(Engine(orders.home, orders.rooms, url=url or None, images=orders.images, group=group))
        for url in orders.engines
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Caller(brokers, reader, writer, orders.peer).serve()

    listener = socket.socket(fileno=orders.listener)
    server = await asyncio.start_unix_server(answer, sock=listener, limit=LONGEST_LINE)
    async with server:
        await _until_alone()
    for broker in brokers.values():
        await broker.close()


async def _until_alone() -> None:
    """Our standard input is a pipe whose other end nobody but our starter holds."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    transport.close()


class _Caller:
    """One connection: reads verbs, answers each when it is done, and gives up what was not finished at its end."""

    def __init__(
        self, brokers: dict[str, InProcess], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: int
    ) -> None:
        self._brokers = brokers
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Until it hangs up, or says something that is no request."""
        try:
            if user_of(self._writer.get_extra_info("socket")) not in (self._peer, 0):
                return
            while line := await self._reader.readline():
                if not self._hear(line):
                    return
        except (OSError, ValueError):
            pass
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            self._writer.close()

    def _hear(self, line: bytes) -> bool:
        said = orjson.loads(line)
        number = said.get("n") if isinstance(said, dict) else None
        if not isinstance(number, int):
            return False
        if said.get("cancel"):
            if (task := self._tasks.get(number)) is not None:
                task.cancel()
            return True
        if number in self._tasks or len(self._tasks) >= MOST_AT_ONCE:
            return False
        task = asyncio.get_running_loop().create_task(self._do(number, said))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))
        return True

    async def _do(self, number: int, said: dict[str, Any]) -> None:
        try:
            broker = self._brokers.get(str(said.get("engine", "")))
            if broker is None:
                raise verbs.BadVerb("The broker was not told of this engine.")
            verb = verbs.read(orjson.dumps(said.get("verb")))
            if not isinstance(verb, verbs.STREAMS):
                self._say({"n": number, "done": await broker.ask(verb)})
                return
            async with contextlib.aclosing(broker.follow(verb)) as answers:
                async for answer in answers:
                    over = "done" in answer
                    self._say({"n": number, "done": answer["done"]} if over else {"n": number, "tell": answer})
        except FactoryError as error:
            self._say({"n": number, "error": error.as_dict()})
        except Exception:
            _log.exception("the broker failed")
            self._say({"n": number, "error": {"message": "The broker failed; its log says why.", "fix": None}})

    def _say(self, frame: dict[str, Any]) -> None:
        self._writer.write(orjson.dumps(frame) + b"\n")


def user_of(end: Any) -> int:
    """The user on the other side of a unix socket, as the kernel says; -1 where it does not."""
    if end is None or not hasattr(socket, "SO_PEERCRED"):
        return -1
    _, user, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


# --- starting it ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serve_beside(
    home: str,
    *,
    engines: Sequence[str] = ("",),
    peer: tuple[int, int] | None = None,
    images: dict[str, str] | None = None,
    keep: bool = False,
) -> Iterator[Path]:
    """Start the broker beside this process and give the path of its socket; it ends with the block.

    `engines` are the only addresses that it talks to ("" is the usual one), `peer` the user and group that may ask it:
    this process's own unless it is to become another. As root, the broker becomes a user of its own. With `keep` the rooms of
    workers that still run stay, before and after.
    """
    root = os.geteuid() == 0
    peer = peer or (os.geteuid(), os.getegid())
    user = _own_user() if root else None
    rooms = _make_rooms(home, user, peer[1], keep=keep)
    path = rooms.with_suffix(".broker")
    cache = Path("/var/cache/agent-factory") if root else Path.home() / ".cache"
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    process = None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        if root:
            os.chown(path, peer[0], peer[1])
        listener.listen(16)
        orders = Orders(
            home=home,
            rooms=rooms,
            engines=tuple(engines),
            peer=peer[0],
            group=peer[1],
            user=user,
            cache=cache,
            listener=listener.fileno(),
            images=images or {},
        )
        process = subprocess.Popen(  # noqa: S603 - our own program, with what was checked
            [sys.executable, "-m", __name__, orders.model_dump_json()],
            stdin=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            cwd=Path(__file__).parents[3],
        )
    try:
        yield path
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(OSError):
            process.kill()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            if not keep:
                shutil.rmtree(rooms, ignore_errors=True)


def _own_user() -> int:
    try:
        return pwd.getpwnam(OWN_USER).pw_uid
    except KeyError:
        return OWN_NUMBER


def _make_rooms(home: str, owner: int | None, group: int, *, keep: bool) -> Path:
    """The folder of the rooms: the broker makes rooms in it, the one that it answers may only enter."""
    rooms = place_of_rooms(home)
    base = rooms.parent
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = base.lstat()
    if found.st_uid != os.geteuid() or base.is_symlink():
        raise NoWorker(f"The folder {base} belongs to somebody else.", fix="Remove it, then start again.")
    if not keep:
        shutil.rmtree(rooms, ignore_errors=True)
    rooms.mkdir(mode=0o700, exist_ok=keep)
    if owner is not None:
        os.chown(rooms, owner, group)
        rooms.chmod(0o750)
    return rooms


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValidationError, IndexError):
        sys.exit("This program is started by the server.")
