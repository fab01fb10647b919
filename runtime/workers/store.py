"""Files in and out of jobs, kept once under the hash of their content, each tenant's apart from all others'.

A job's code names files; the server never does: on our side there are only hashes. What comes in lies in the worker's room,
which it sees read-only; what goes out comes over its line in pieces and counts only when hash and size are right.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from nodes.errors import FactoryError, NotFound
from runtime.workers.backend import JobError, JobResult
from runtime.workers.protocol import ProtocolError

MOST_FILES: Final = 256
LONGEST_NAME: Final = 200
IN: Final = "in"  # the folder in a worker's room
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class BadFile(FactoryError):
    """A file that a job cannot be given, or a name that is none."""

    code = "worker.file"
    status = 422


def checked_name(name: str) -> str:
    """A path below the workspace that leads nowhere else. Raises BadFile."""
    parts = name.split("/")
    wrong = (
        not name or len(name) > LONGEST_NAME or not name.isprintable() or any(part in ("", ".", "..") for part in parts)
    )
    if wrong or "\\" in name:
        raise BadFile(
            f"“{name[:80]}” is no name for a file of a job.", fix="Use a name such as report.csv or out/report.csv."
        )
    return name


class Store:
    """The folder of the contents. Everything in it is named by its hash; nothing is ever changed once it is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, tenant: str, content: bytes) -> str:
        """Keep a content and give its hash."""
        with self.receive(tenant) as coming:
            coming.write(content)
            return coming.keep()

    def path(self, tenant: str, digest: str) -> Path:
        """Where a content lies. Raises NotFound, also when it is another tenant's."""
        path = self._path(tenant, digest)
        if not path.is_file():
            raise NotFound("There is no such file.")
        return path

    def read(self, tenant: str, digest: str) -> bytes:
        """A content. Raises NotFound."""
        return self.path(tenant, digest).read_bytes()

    def receive(self, tenant: str) -> Coming:
        """Take a content in pieces."""
        return Coming(self, tenant)

    def sweep(self, older_than: float) -> int:
        """Remove what has lain here for so many seconds, whole or in part; says how many.

        Nothing is kept here for good: what a job is given was put here for it, and what it leaves goes on to where it is kept.
        """
        removed, before = 0, time.time() - older_than
        for path in self._folder.rglob("*") if self._folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _room(self, tenant: str) -> Path:
        return self._folder / hashlib.sha256(tenant.encode()).hexdigest()[:32]

    def _path(self, tenant: str, digest: str) -> Path:
        if not _HASH.fullmatch(digest):
            raise NotFound("There is no such file.")
        return self._room(tenant) / digest[:2] / digest


class Coming:
    """A content that arrives. Without `keep()` nothing of it stays."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._hash = hashlib.sha256()
        self.size = 0
        room = store._room(tenant)
        room.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = tempfile.NamedTemporaryFile(dir=room, prefix=".", delete=False)  # noqa: SIM115 - closed by us

    def __enter__(self) -> Coming:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def write(self, piece: bytes) -> None:
        """The next piece."""
        self._hash.update(piece)
        self.size += len(piece)
        self._file.write(piece)

    @property
    def digest(self) -> str:
        """The hash of what has come so far."""
        return self._hash.hexdigest()

    def keep(self) -> str:
        """It is whole: keep it, and give its hash. Not safe from a loss of power: then its job is lost as well."""
        path = self._store._path(self._tenant, self.digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file.close()
        os.replace(self._file.name, path)
        return self.digest

    def drop(self) -> None:
        """Forget what has come, unless it is kept."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file.name)


@dataclass(slots=True, eq=False)
class Parcel:
    """The files of one job: `bring` gives what is in its workspace at the start, name by name with the hash of the content.

    `fetch` says which files are taken from there at its end: names, or patterns such as `out/*.csv`, together at most `most` bytes.
    """

    store: Store
    tenant: str
    bring: Mapping[str, str] = field(default_factory=dict)
    fetch: tuple[str, ...] = ()
    most: int = 64 * 1024 * 1024
    _coming: dict[str, Coming] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.bring) > MOST_FILES or len(self.fetch) > MOST_FILES:
            raise BadFile(f"A job has at most {MOST_FILES} files.")
        for name in (*self.bring, *self.fetch):
            checked_name(name)
        for digest in self.bring.values():
            self.store.path(self.tenant, digest)

    def words(self) -> dict[str, Any]:
        """What the worker is told."""
        return {"bring": dict(self.bring), "fetch": list(self.fetch), "most": self.most}

    def lay_out(self, room: Path) -> None:
        """Put what is brought into the room, and begin with nothing that has come."""
        self._forget()
        if not self.bring:
            return
        folder = room / IN
        shutil.rmtree(folder, ignore_errors=True)  # of a job that was cut off
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        for digest in set(self.bring.values()):
            shutil.copyfile(self.store.path(self.tenant, digest), folder / digest)
            (folder / digest).chmod(0o644)

    def clear(self, room: Path) -> None:
        """The job is over: its files are not for the next one."""
        shutil.rmtree(room / IN, ignore_errors=True)
        self._forget()

    def take(self, frame: Mapping[str, Any]) -> None:
        """The next piece of a file that goes out. Raises ProtocolError."""
        name, text = frame.get("name"), frame.get("data")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ProtocolError("A worker sent a piece of no file.")
        try:
            checked_name(name)
            piece = base64.b64decode(text, validate=True)
        except (BadFile, ValueError) as error:
            raise ProtocolError("A worker sent a piece of a file that cannot be one.") from error
        if sum(one.size for one in self._coming.values()) + len(piece) > self.most:
            raise ProtocolError("A worker sent more than its job's files may be.")
        if name not in self._coming:
            if len(self._coming) >= MOST_FILES:
                raise ProtocolError("A worker sent more files than a job has.")
            self._coming[name] = self.store.receive(self.tenant)
        self._coming[name].write(piece)

    def close(self, result: JobResult, frame: Mapping[str, Any]) -> JobResult:
        """The result with its files, if all have come as they were; an error in its place if not."""
        listed = frame.get("files", [])
        kept: dict[str, str] = {}
        try:
            for name, digest in listed:
                coming = self._coming.get(name)
                if coming is None or coming.digest != digest:
                    raise ValueError(name)
                kept[name] = coming.keep()
        except (ValueError, TypeError):
            error = JobError(
                kind="result", message="The files of the code were lost on their way, so its result is not whole."
            )
            return replace(result, ok=False, value=None, error=error)
        finally:
            self._forget()
        if frame.get("too_large") and result.ok:
            error = JobError(
                kind="result",
                message=f"The files that the code leaves are more than the {self.most / 1024**2:g} MB that may be kept.",
            )
            return replace(result, ok=False, value=None, error=error)
        return replace(result, files=kept)

    def _forget(self) -> None:
        for coming in self._coming.values():
            coming.drop()
        self._coming.clear()
