"""The seam between the product and whatever isolates code: what a job is, and what every kind of worker must do.

Above it stands the pool, which knows tenants, queues and life cycles; below it `docker.py` and `local.py`, which know
how to start one isolated box, and how to end it. All boxes run the same `inside.py` and dial the same kind of socket.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from nodes.categories import Category
from nodes.errors import FactoryError
from runtime.workers import seccomp
from runtime.workers.profiles import MIB as MIB
from runtime.workers.profiles import NOBODY as NOBODY
from runtime.workers.profiles import Profile as Profile

if TYPE_CHECKING:
    from runtime.workers.store import Parcel

JSON: TypeAlias = Any
ROOM: Final = "/factory"  # where a worker sees its room: the socket and the two files it runs
DOOR: Final = "door"

ErrorKind: TypeAlias = Literal["exception", "syntax", "timeout", "memory", "killed", "result", "worker_lost"]


class NoWorker(FactoryError):
    """There is nothing on this machine that may run code; `fix` says what to install. It is never run unconfined."""

    code = "worker.none"
    status = 503
    category = Category.WORKER


class WorkersBusy(FactoryError):
    """All workers were busy for longer than a job may wait."""

    code = "worker.busy"
    status = 503
    category = Category.WORKER


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of code to run with its inputs, for at most `timeout` seconds."""

    id: str
    code: str
    inputs: dict[str, JSON] = field(default_factory=dict)
    timeout: float = 30.0
    kind: Literal["python", "javascript"] = "python"
    retries: int = 0  # how often it may begin anew when its worker is lost, each time under a new token
    run: str = ""  # the run that it is a step of, if it is one
    seat: dict[str, JSON] | None = field(default=None, repr=False)  # its place in a crew, if it is a member's code
    parcel: Parcel | None = field(default=None, repr=False, compare=False)  # the files that go in and come out
    on_output: Callable[[str, str], None] | None = field(default=None, repr=False, compare=False)
    """Hears what the job prints while it runs, as `("out" or "err", text)`, up to what is kept of it."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job has no result, in words, with the line of the person's own code where there is one."""

    kind: ErrorKind
    message: str
    line: int | None = None
    type: str | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job went. `truncated` says that not all of what it printed was kept, `start` what kind of worker it found."""

    ok: bool
    value: JSON = None
    stdout: str = ""
    stderr: str = ""
    error: JobError | None = None
    seconds: float = 0.0
    truncated: bool = False
    worker: str = ""
    start: Literal["warm", "woken", "cold", "queued"] = "warm"  # what it found; all but `warm` had to wait
    waited: float = 0.0  # seconds until it had its worker
    tries: int = 1
    files: dict[str, str] = field(default_factory=dict)  # what its parcel fetched: the hash of each content by its name


@dataclass(frozen=True, slots=True)
class Box:
    """One started container or sandbox: our id for it, and what its backend knows it by."""

    id: str
    room: Path
    ref: Any
    host: str = ""  # the engine that it is on, where there are several


class Backend(Protocol):
    """A way to isolate code. It owns every box that it started, and removes them all when it is closed."""

    name: str

    @property
    def room_owner(self) -> int | None:
        """The user that must be able to enter a box's room on this machine, when it is not us."""

    @property
    def rooms(self) -> Path | None:
        """The folder in which rooms are made, when that is not ours to choose."""

    async def open(self) -> None:
        """Find out whether it works here and remove what an earlier process left. Raises NoWorker."""

    async def close(self) -> None:
        """Remove every box."""

    async def prepare(self, room: Path) -> None:
        """Make the empty folder that will be a box's room; its name is the box's id. Raises NoWorker."""

    async def start(self, box_id: str, room: Path, profile: Profile) -> Box:
        """Start a box whose first process dials the socket in `room`. Raises NoWorker."""

    async def destroy(self, box: Box) -> None:
        """End a box and everything in it, at once. Never raises; doing it twice does no harm."""

    async def rest(self, box: Box) -> None:
        """End all that runs in an idle box so that its memory is free, but keep its place. Raises NoWorker."""

    async def wake(self, box: Box, profile: Profile) -> Box:
        """Start a box that rests; its first process dials as a new one's does. Raises NoWorker."""

    async def alive(self, box: Box) -> bool:
        """Whether the box still runs."""

    async def last_words(self, box: Box) -> str:
        """What a box that did not come up said, for the log."""

    async def ran_out_of_memory(self, box: Box) -> bool:
        """Whether a box that is gone died for want of memory."""

    def owns(self, box: Box, pid: int) -> bool:
        """Whether the process on the other side of the socket belongs to this box, as far as can be told here."""


def command_line(profile: Profile, *, mounts: bool, limits: dict[str, Any] | None = None) -> list[str]:
    """What a box runs: Python, sealed from its surroundings, on our program, with its settings."""
    config = {
        "socket": f"{ROOM}/{DOOR}",
        "scratch": [*profile.scratch(), "/dev/mqueue"],
        "mounts": profile.scratch() if mounts else {},
        "seccomp": seccomp.programs(),
        "limits": {
            "output": profile.output_limit,
            "result": profile.result_limit,
            "files": profile.open_files,
            "disk": profile.disk,
            # A little less than the box has, so that Python says MemoryError before the kernel kills.
            "memory": max(profile.memory - 24 * MIB, profile.memory // 2),
            **(limits or {}),
        },
    }
    return ["-I", "-S", "-E", f"{ROOM}/inside.py", json.dumps(config)]
