"""What SQLite asks of the disk, write by write and sync by sync, and what a power cut at any moment could leave of it.

`start(log)` takes the place of the writing functions of SQLite's own layer of files in this process; each call goes on to the
real one and is noted, whatever thread it is in. Promises made to callers are noted in between (`promise`), so the log says what
had been promised when. `Disk` replays a log: what was synced is there; of what was not, any part may be, in any order.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import sys
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, addressof, c_char_p, c_int, c_int64, c_void_p, cast, memmove
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

MAIN, WAL = 0x100, 0x80000  # kinds of files, as SQLite names them when it opens one
SECTOR = 512
WRITE, SYNC, CUT, PROMISE = 0, 1, 2, 3
HEAD = struct.Struct("<BBqI")

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Cut = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    _fields_ = (
        ("version", c_int), ("file_size", c_int), ("longest_path", c_int), ("next", c_void_p), ("name", c_char_p),
        ("own", c_void_p), ("open", c_void_p),
    )  # fmt: skip


class _Methods(Structure):
    """Version 3; only the four that matter have their types."""

    _fields_ = (
        ("version", c_int), ("close", c_void_p), ("read", c_void_p), ("write", c_void_p), ("truncate", c_void_p),
        ("sync", c_void_p), ("more", c_void_p * 13),
    )  # fmt: skip


def library() -> str | None:
    """The SQLite that this Python uses, if it is one that can be looked into."""
    import _sqlite3  # noqa: F401 - loads it

    lines = Path("/proc/self/maps").read_text().splitlines()
    return next((line.split()[-1] for line in lines if "libsqlite3" in line), None)


_kept: list[Any] = []
_log = -1


def start(log: str) -> None:
    """Note everything from now on, in this process and until it ends."""
    global _log
    sys.setswitchinterval(0.0002)  # each note needs the interpreter, which a busy loop would keep for milliseconds
    _log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sqlite = ctypes.CDLL(library())
    sqlite.sqlite3_vfs_find.restype = POINTER(_Vfs)
    vfs = sqlite.sqlite3_vfs_find(None).contents
    real_open = _Open(vfs.open)
    tables: dict[int, _Methods] = {}

    def opened(of: int, name: int, file: int, flags: int, out: int) -> int:
        # The name goes on as the address that it came as: SQLite keeps it for as long as the file is open.
        result = int(real_open(of, name, file, flags, out))
        kind = 0 if flags & MAIN else 1 if flags & WAL else None
        if result == 0 and kind is not None:
            place = cast(file, POINTER(c_void_p))
            table = tables.setdefault(kind, _noting(kind, int(place[0] or 0)))
            place[0] = addressof(table)
        return result

    noted = _Open(opened)
    _kept.extend((sqlite, real_open, noted, tables))
    vfs.open = cast(noted, c_void_p).value


def promise(text: str) -> None:
    """Somebody is told this now."""
    _note(PROMISE, 0, 0, text.encode())


def _noting(kind: int, address: int) -> _Methods:
    mine = _Methods()
    memmove(addressof(mine), address, ctypes.sizeof(_Methods))
    write, cut, sync = _Write(mine.write), _Cut(mine.truncate), _Sync(mine.sync)

    def writes(file: int, data: int, length: int, at: int) -> int:
        _note(WRITE, kind, at, ctypes.string_at(data, length))
        return int(write(file, data, length, at))

    def cuts(file: int, size: int) -> int:
        _note(CUT, kind, size, b"")
        return int(cut(file, size))

    def syncs(file: int, flags: int) -> int:
        result = int(sync(file, flags))
        _note(SYNC, kind, 0, b"")  # only now is it true
        return result

    own = _Write(writes), _Cut(cuts), _Sync(syncs)
    _kept.extend((write, cut, sync, *own))
    mine.write, mine.truncate, mine.sync = (cast(one, c_void_p).value for one in own)
    return mine


def _note(what: int, kind: int, at: int, data: bytes) -> None:
    os.write(_log, HEAD.pack(what, kind, at, len(data)) + data)


class Step(NamedTuple):
    """One thing that was noted."""

    what: int
    file: int
    at: int
    data: bytes


def steps(log: Path) -> Iterator[Step]:
    """What was noted, but for a last thing that a kill cut short."""
    content = log.read_bytes()
    place = 0
    while place + HEAD.size <= len(content):
        what, file, at, length = HEAD.unpack_from(content, place)
        place += HEAD.size
        if place + length > len(content):
            return
        yield Step(what, file, at, content[place : place + length])
        place += length


@dataclass
class Disk:
    """Two files, the database and its log, as a disk keeps them: what is synced, and what is only on its way."""

    safe: tuple[bytearray, bytearray]
    on_its_way: tuple[list[Step], list[Step]] = field(default_factory=lambda: ([], []))
    promised: list[str] = field(default_factory=list)

    def take(self, step: Step) -> None:
        """Go on by one thing."""
        if step.what == PROMISE:
            self.promised.append(step.data.decode())
        elif step.what == SYNC:
            for one in self.on_its_way[step.file]:
                _put(self.safe[step.file], one)
            self.on_its_way[step.file].clear()
        else:
            self.on_its_way[step.file].append(step)

    def after_a_cut(self, chance: random.Random) -> tuple[bytes, bytes]:
        """What may be found when the power comes back: of each write on its way all, nothing, or some of its sectors."""
        found = []
        for safe, pending in zip(self.safe, self.on_its_way, strict=True):
            content = bytearray(safe)
            # A disk may also have done everything up to a moment and nothing after it, which is the likeliest.
            keeps = chance.choice((0.0, 0.5, 1.0, None))
            whole = chance.randint(0, len(pending))
            for number, step in enumerate(pending):
                if keeps is None:
                    if number < whole:
                        _put(content, step)
                    elif number == whole:
                        _put(content, _torn(step, chance))
                elif chance.random() < keeps:
                    _put(content, step if chance.random() < 0.5 else _torn(step, chance))
            found.append(bytes(content))
        return found[0], found[1]


def _torn(step: Step, chance: random.Random) -> Step:
    """The beginning of a write: it ends at a border of sectors."""
    if step.what == CUT or not step.data:
        return step
    whole = chance.randint(0, (step.at + len(step.data)) // SECTOR - step.at // SECTOR)
    end = (step.at // SECTOR + whole) * SECTOR - step.at
    return step._replace(data=step.data[: max(0, end)])


def _put(content: bytearray, step: Step) -> None:
    if step.what == CUT:
        del content[step.at :]
        return
    if len(content) < step.at:
        content.extend(bytes(step.at - len(content)))
    content[step.at : step.at + len(step.data)] = step.data
