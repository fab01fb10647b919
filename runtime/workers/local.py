"""Workers without a container engine: bubblewrap with its own users, processes, mounts, network and host name.

Weaker than a container in one point, there is no control group: memory is watched from inside and processes are
counted per user. Where bubblewrap cannot do its work there is no worker; code never runs unconfined.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from runtime.workers.backend import NOBODY, ROOM, Box, NoWorker, Profile, command_line

T = TypeVar("T")

INSTALL: Final = (
    "Install Docker (on Debian or Ubuntu: apt-get install docker.io) or bubblewrap (apt-get install bubblewrap)."
)
INSTALL_NODE: Final = (
    "Install Node.js (on Debian or Ubuntu: apt-get install nodejs) or Docker, or write the code in Python."
)
SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
SYSTEM_FOLDERS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES: Final = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")
PROBE_TIME: Final = 10.0
KILL_TIME: Final = 2.0
MOST_ANCESTORS: Final = 64


class LocalBackend:
    """Boxes are bubblewrap sandboxes, children of this process, which the kernel ends together with it."""

    name = "bubblewrap"
    rooms: Path | None = None

    def __init__(self) -> None:
        self.room_owner: int | None = NOBODY if os.geteuid() == 0 else None
        self._bwrap = ""
        # bubblewrap dies with the thread that started it, so that thread must live as long as we do.
        self._thread: ThreadPoolExecutor | None = None
        self._boxes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, Path] = {}

    async def open(self) -> None:
        """Try it once for real. Raises NoWorker, saying what to install."""
        if not sys.platform.startswith("linux"):
            raise NoWorker("Running code without Docker works on Linux only.", fix="Install and start Docker.")
        self._bwrap = shutil.which("bwrap") or ""
        if not self._bwrap:
            raise NoWorker("Neither Docker nor bubblewrap was found, so code cannot be run safely.", fix=INSTALL)
        if self.room_owner is not None and not shutil.which("setpriv"):
            raise NoWorker("The command setpriv was not found.", fix="On Debian or Ubuntu: apt-get install util-linux.")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bubblewrap")
        problem = await self._in_thread(self._probe)
        if problem is not None:
            await self.close()
            raise NoWorker(f"Bubblewrap is installed but cannot isolate code here: {problem}", fix=INSTALL)

    def lacks(self, image: str) -> bool:
        """Whether this machine does not have what runs code in workers of this image."""
        return image == "node" and not shutil.which("node", path=SYSTEM_PATH)

    def check(self, image: str) -> None:
        """Raises NoWorker if this machine lacks it."""
        if self.lacks(image):
            raise NoWorker("JavaScript is run by Node.js, and there is none on this machine.", fix=INSTALL_NODE)

    async def close(self) -> None:
        """End every box."""
        if self._thread is not None:
            await self._in_thread(bool)  # a start that was given up may still be on its way
        for process in self._boxes.values():
            await asyncio.to_thread(_kill, process)
        self._boxes.clear()
        for log in self._logs.values():  # of starts that were given up
            log.unlink(missing_ok=True)
        self._logs.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    async def prepare(self, room: Path) -> None:
        """Make the room of a box. Raises NoWorker."""
        await asyncio.to_thread(self._furnish, room)

    async def start(self, box_id: str, room: Path, profile: Profile) -> Box:
        """Start a sandbox. Raises NoWorker."""
        limits = {
            "watch_memory": profile.memory,
            "processes": profile.processes,
            "nice": 5,
        }
        command = [*self._confined(room), *command_line(profile, mounts=True, limits=limits)]
        process = await self._in_thread(lambda: self._spawn(box_id, command, room.with_suffix(".log")))
        return Box(box_id, room, process)

    async def destroy(self, box: Box) -> None:
        """Kill the sandbox; the kernel ends everything in it."""
        await asyncio.to_thread(_kill, box.ref)
        self._boxes.pop(box.id, None)
        self._logs.pop(box.id, None)
        box.room.with_suffix(".log").unlink(missing_ok=True)

    async def rest(self, box: Box) -> None:
        """End the sandbox: a new one costs no more than waking an old one would."""
        await self.destroy(box)

    async def wake(self, box: Box, profile: Profile) -> Box:
        """Start a sandbox in the same room. Raises NoWorker."""
        return await self.start(box.id, box.room, profile)

    async def alive(self, box: Box) -> bool:
        """Whether bubblewrap still runs."""
        process: subprocess.Popen[bytes] = box.ref
        return process.poll() is None

    async def last_words(self, box: Box) -> str:
        """What bubblewrap or Python wrote before they gave up."""
        try:
            return box.room.with_suffix(".log").read_text(errors="replace")[-2_000:]
        except OSError:
            return ""

    async def ran_out_of_memory(self, box: Box) -> bool:
        """Memory is watched inside, job by job."""
        return False

    def owns(self, box: Box, pid: int) -> bool:
        """Whether the process descends from bubblewrap's: whoever loses its parent in there gets the box's first process."""
        process: subprocess.Popen[bytes] = box.ref
        for _ in range(MOST_ANCESTORS):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return False
            pid = int(status.partition("\nPPid:\t")[2].partition("\n")[0] or 0)
            if pid == process.pid:
                return True
            if pid <= 1:
                return False
        return False

    def _furnish(self, room: Path) -> None:
        try:
            room.mkdir(mode=0o755)
            if self.room_owner is not None:
                os.chown(room, self.room_owner, self.room_owner)
                room.chmod(0o700)
        except OSError as error:
            raise NoWorker(f"The folder of a worker could not be made: {error}.") from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise NoWorker("The workers of this machine are closed.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _confined(self, room: Path | None) -> list[str]:
        """The command line up to and including the Python to run."""
        python, home = _python()
        # Real root stays outside: the sandbox is made by nobody, so that even leaving it leads nowhere.
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if self.room_owner else []
        options = (
            "--unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try --as-pid-1 "
            f"--die-with-parent --new-session --uid {NOBODY} --gid {NOBODY} --hostname worker "
            # Only to mount the scratch folders with their limits, given up before the first job.
            "--cap-drop ALL --cap-add CAP_SYS_ADMIN "
            f"--clearenv --setenv PATH {SYSTEM_PATH} --setenv LANG C.UTF-8 --setenv HOME /workspace "
            "--ro-bind /usr /usr --proc /proc --dev /dev --dir /workspace --dir /tmp --dir /etc"
        ).split()
        for folder in SYSTEM_FOLDERS:
            if os.path.islink(folder):
                options += ["--symlink", os.readlink(folder), folder]
            elif os.path.isdir(folder):
                options += ["--ro-bind", folder, folder]
        for file in SYSTEM_FILES:
            options += ["--ro-bind-try", file, file]
        if home is not None:
            options += ["--ro-bind", home, home]
        if room is not None:
            options += ["--ro-bind", str(room), ROOM]
        return [
            *become,
            self._bwrap,
            *options,
            "--remount-ro",
            "/dev",
            "--remount-ro",
            "/",
            "--chdir",
            "/",
            "--",
            python,
        ]

    def _spawn(self, box_id: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        try:
            with log.open("wb") as words:
                process = subprocess.Popen(  # noqa: S603 - a fixed command line
                    command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env={"PATH": os.defpath}
                )
        except OSError as error:
            raise NoWorker(f"Bubblewrap could not be started: {error}.", fix=INSTALL) from error
        self._boxes[box_id] = process
        self._logs[box_id] = log
        return process

    def _probe(self) -> str | None:
        """Why it does not work here, or None."""
        command = [*self._confined(None), "-I", "-S", "-E", "-c", _PROBE]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command line
                command, capture_output=True, timeout=PROBE_TIME, check=False, env={"PATH": os.defpath}
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0 and done.stdout.strip() == b"confined":
            return None
        return (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-300:] or "it said nothing."


# Says so only when it is the first process of its own space, sees nobody else's, and may mount its scratch folders.
_PROBE: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
others = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
interfaces = open("/proc/net/dev").read().count(":")
if sys.version_info < (3, 10):
    print("Python 3.10 or later is needed in /usr/bin")
elif os.getpid() != 1 or others or interfaces > 1:
    print("processes or network are not isolated")
elif libc.unshare(0x20000) or libc.mount(b"tmpfs", b"/workspace", b"tmpfs", 14, b"size=1m"):
    print("scratch folders cannot be mounted:", os.strerror(ctypes.get_errno()))
else:
    print("confined")
"""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a sandbox and wait until it is gone.

    Its first process is killed by us: what bubblewrap arranged for its own death does not hold from the first moment.
    """
    insides = []
    with contextlib.suppress(OSError):
        process.send_signal(signal.SIGSTOP)  # no child is made from here on
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        insides = [os.pidfd_open(int(child)) for child in children]
        for inside in insides:
            signal.pidfd_send_signal(inside, signal.SIGKILL)
    process.kill()
    process.wait()
    for inside in insides:
        select.select([inside], [], [], KILL_TIME)
        os.close(inside)


def _python() -> tuple[str, str | None]:
    """A Python for the sandbox, and the folder it needs beyond the system's."""
    system = "/usr/bin/python3"
    if os.access(system, os.X_OK):
        return system, None
    base = os.path.realpath(sys.base_prefix)
    python = os.path.join(base, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return python, None if base.startswith("/usr") else base
