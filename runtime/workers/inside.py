"""What runs inside a worker: PID 1 of its container, a fork server that runs people's Python, one job at a time.

It is copied next to the worker's socket and started by path, so it imports the standard library only and nothing of
ours. The server that owns the worker listens on the socket; this program dials it, and dials again when it is lost.
For each job it forks: the child runs the code and writes its outcome into a pipe, the parent collects the outputs,
answers pings, and when the child ends or its time is up kills every process that is left, wipes the scratch folders
and sends the result, which it keeps until the server has acknowledged it.

What keeps a job from harming this process: no signal handlers here (so the kernel drops what a job sends to PID 1),
not dumpable (so it cannot be traced), one thread, and the child is the first that a lack of memory kills.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
import types
from typing import Any

PROTOCOL = 1
FRAME_LIMIT = 32 * 1024 * 1024
KILL_GRACE = 0.25  # a job past its time may still say where it was, for so long
ORPHANED_AFTER = 120.0  # seconds without a server before the worker ends itself
TICK = 0.05
FIRST_BEAT = 1.0
BEAT = 5.0  # seconds between two signs of life, unless the settings say otherwise
FIRST_PAUSE = 0.02
PRELOADED = """
base64 bisect calendar collections copy csv dataclasses datetime decimal enum functools hashlib heapq html io itertools
json math operator random re statistics string textwrap time typing unicodedata urllib.parse uuid
"""

CLONE_NEWNS = 0x20000
MOUNT_FLAGS = 2 | 4 | 8  # nosuid, nodev, noexec
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 38, 47


def main(arguments: list[str]) -> int:
    """Confine this process, load what jobs like to have loaded, then serve until told to stop."""
    if os.getpid() != 1:
        # It kills every process it can see and empties /tmp: that is only right in a container of its own.
        sys.stderr.write("This program only runs as the first process of a worker's container.\n")
        return 2
    config = json.loads(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    confined = confine(libc, config)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    for name in PRELOADED.split():
        __import__(name)
    runner: Any = neighbour("script")
    runner.crew = neighbour("crew")
    runner.libraries = neighbour("libraries")
    runner.libraries.load()
    runner.parcels = neighbour("parcels")
    runner.exercise()
    gc.collect()
    gc.disable()
    gc.freeze()
    return Server(config, libc, confined, runner).serve()


def confine(libc: ctypes.CDLL, config: dict[str, Any]) -> bool:
    """Give up, for this process and all jobs, what neither needs. Answers whether the seccomp filter is in place."""
    if config.get("mounts"):
        _checked(libc.unshare(CLONE_NEWNS))
        for folder, options in config["mounts"].items():
            _checked(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", MOUNT_FLAGS, options.encode()))
        _checked(libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0))
        version_3 = struct.pack("=II", 0x20080522, 0)
        _checked(libc.capset(version_3, bytes(24)))
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    program = config.get("seccomp", {}).get(os.uname().machine)
    if not program:
        return False
    code = base64.b64decode(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    _checked(libc.prctl(PR_SET_SECCOMP, 2, filter_, 0, 0))
    return True


def _checked(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def neighbour(name: str) -> types.ModuleType:
    """Load the file of ours that lies beside this one, without making it importable for jobs."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vital: Any = neighbour("vital")


# --- frames ----------------------------------------------------------------------------------------------------------


def encode(frame: dict[str, Any]) -> bytes:
    """A frame on the wire: four bytes of length, then JSON."""
    body = json.dumps(frame, ensure_ascii=False).encode("utf-8", "replace")
    return struct.pack(">I", len(body)) + body


def take(buffer: bytearray) -> dict[str, Any] | None:
    """Remove the first whole frame from the buffer and return it, or None while it is not whole."""
    if len(buffer) < 4:
        return None
    (size,) = struct.unpack_from(">I", buffer)
    if size > FRAME_LIMIT:
        raise ValueError("a frame is too large")
    if len(buffer) < 4 + size:
        return None
    frame: dict[str, Any] = json.loads(bytes(buffer[4 : 4 + size]))
    del buffer[: 4 + size]
    return frame


# --- the fork server -------------------------------------------------------------------------------------------------


class Server:
    """The loop of PID 1: one socket, at most one job."""

    def __init__(self, config: dict[str, Any], libc: ctypes.CDLL, confined: bool, runner: Any) -> None:
        self.config = config
        self.libc = libc
        self.confined = confined
        self.runner = runner
        self.poll = select.poll()
        self.socket: socket.socket | None = None
        self.inbox = bytearray()
        self.job: Job | None = None
        self.held: tuple[str, bytes] | None = None  # job id and its result, until acknowledged
        self.key = ""  # by which a later life of the server knows the job, or the one whose result is held
        self.served = 0  # jobs so far: who had one belongs to somebody
        self.draining = False
        self.alone_since = time.monotonic()
        self.dial_at = 0.0
        self.dial_pause = FIRST_PAUSE
        self.ooms = vital.read_ooms()
        self.beat = float(config.get("beat", BEAT))
        self.beat_at = time.monotonic() + min(FIRST_BEAT, self.beat)
        self.vital: Any = vital.Vital(config["scratch"])

    def serve(self) -> int:
        while not (self.draining and self.job is None and self.held is None):
            if self.socket is None and not self.dial():
                if time.monotonic() - self.alone_since > ORPHANED_AFTER:
                    return 3
                if self.job is None:
                    time.sleep(FIRST_PAUSE)
                    continue
            self.once()
        return 0

    def once(self) -> None:
        """Wait for the next thing to happen, and act on it."""
        wait = self.beat_at - time.monotonic()
        if self.job is not None:
            wait = min(wait, self.job.patience(self.socket is None))
        try:
            ready = self.poll.poll(max(0, wait) * 1000)
        except InterruptedError:
            ready = []
        for descriptor, _ in ready:
            if self.socket is not None and descriptor == self.socket.fileno():
                self.hear()
            elif self.job is not None:
                self.job.collect(descriptor)
        if self.job is not None:
            verdict = self.job.verdict()
            if verdict:
                self.finish(self.job, verdict)
        if time.monotonic() >= self.beat_at:
            self.beat_at = time.monotonic() + self.beat
            self.tell(encode({"type": "beat", **self.vital.figures()}))

    def dial(self) -> bool:
        if time.monotonic() < self.dial_at:
            return False
        self.dial_at = time.monotonic() + self.dial_pause
        self.dial_pause = min(1.0, self.dial_pause * 2)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(10)
        try:
            link.connect(self.config["socket"])
        except OSError:
            link.close()
            return False
        self.socket = link
        self.inbox.clear()
        self.poll.register(link, select.POLLIN)
        self.hello()
        if self.held:
            self.tell(self.held[1])
        return True

    def hello(self) -> None:
        state = "busy" if self.job else "holding" if self.held else "idle"
        self.tell(
            encode(
                {
                    "type": "hello",
                    "protocol": PROTOCOL,
                    "python": sys.version.split()[0],
                    "seccomp": self.confined,
                    "state": state,
                    "served": self.served,
                    "key": self.key if self.job or self.held else "",
                    "left": self.job.left() if self.job else 0.0,
                    "job": self.job.id if self.job else self.held[0] if self.held else None,
                }
            )
        )

    def tell(self, data: bytes) -> None:
        if self.socket is None:
            return
        try:
            self.socket.sendall(data)
        except OSError:
            self.hang_up()

    def hang_up(self) -> None:
        if self.socket is not None:
            self.poll.unregister(self.socket)
            self.socket.close()
            self.socket = None
            self.alone_since = time.monotonic()

    def hear(self) -> None:
        if self.socket is None:
            return
        try:
            data = self.socket.recv(262_144)
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            return
        self.inbox += data
        try:
            while self.socket is not None:
                frame = take(self.inbox)
                if frame is None:
                    return
                self.obey(frame)
        except (ValueError, KeyError, TypeError):
            self.hang_up()

    def obey(self, frame: dict[str, Any]) -> None:
        self.dial_pause = FIRST_PAUSE  # this server means it
        kind = frame["type"]
        if kind == "job" and self.job is None and not self.draining:
            self.held = None  # a new job says that the last result has arrived
            self.start(frame)
        elif kind == "ping":
            self.tell(encode({"type": "pong", "n": frame.get("n"), "job": self.job.id if self.job else None}))
        elif kind == "ack" and self.held and self.held[0] == frame["id"]:
            self.held = None
        elif kind == "cancel" and self.job is not None and self.job.id == frame["id"]:
            self.finish(self.job, "cancelled")
        elif kind == "reset":
            self.reset()
        elif kind == "drain":
            self.draining = True

    def start(self, frame: dict[str, Any]) -> None:
        limits = {**self.config["limits"], **frame.get("limits", {})}
        self.served += 1
        self.key = str(frame.get("key", ""))
        try:
            self.job = Job(frame, limits, self)
        except OSError as error:
            self.held = (frame["id"], encode({"type": "result", "id": frame["id"], "failed": str(error)}))
            self.tell(self.held[1])

    def finish(self, job: Job, verdict: str) -> None:
        """The job is over: end what is left of it, send its result, and make the place clean for the next one."""
        self.job = None
        statuses = kill_everyone()
        result = job.result(verdict, statuses, self.ooms)
        if verdict == "ended" and job.frame.get("fetch"):
            result |= self.runner.parcels.fetch(job.frame, lambda piece: self.tell(encode(piece)))
        self.held = (job.id, encode(result))
        self.tell(self.held[1])
        self.clean()

    def reset(self) -> None:
        """Forget everything: whoever asks does not know what this worker was doing."""
        if self.job is not None:
            kill_everyone()
            self.job.close()
            self.job = None
        self.held = None
        self.clean()
        self.hello()

    def clean(self) -> None:
        for folder in self.config["scratch"]:
            wipe(folder)
        self.ooms = vital.read_ooms()


class Job:
    """A running job as its parent sees it."""

    def __init__(self, frame: dict[str, Any], limits: dict[str, Any], server: Server) -> None:
        self.id: str = frame["id"]
        self.frame = {key: frame[key] for key in ("id", "kind", "fetch", "most") if key in frame}
        self.pass_on: Any = server.tell if frame.get("stream") else None
        self.timeout = float(frame["timeout"])
        self.memory = limits.get("watch_memory")
        self.poll = server.poll
        pipes = [os.pipe() for _ in range(3)]
        self.began = time.monotonic()
        try:
            self.pid = os.fork()
        except OSError:
            for reading, writing in pipes:
                os.close(reading)
                os.close(writing)
            raise
        if self.pid == 0:
            if server.socket is not None:
                server.socket.detach()
            server.runner.be_the_job(frame, limits, [writing for _, writing in pipes], server.libc)
        self.captures: dict[int, Capture] = {}
        for (reading, writing), limit in zip(
            pipes, (limits["output"], limits["output"], limits["result"] + 1), strict=True
        ):
            os.close(writing)
            os.set_blocking(reading, False)
            self.captures[reading] = Capture(limit)
            self.poll.register(reading, select.POLLIN)
        self.out, self.err, self.outcome = self.captures.values()
        self.over = False
        try:
            self.pidfd: int | None = os.pidfd_open(self.pid)
            self.poll.register(self.pidfd, select.POLLIN)
        except OSError:  # an engine whose seccomp profile does not know the call
            self.pidfd = None

    def left(self) -> float:
        """How long it may still run."""
        return max(0.0, self.began + self.timeout - time.monotonic())

    def patience(self, unconnected: bool) -> float:
        """How long PID 1 may sleep."""
        left = self.began + self.timeout + KILL_GRACE - time.monotonic()
        if self.pidfd is None:
            return min(left, 0.002)
        return min(left, TICK) if self.memory or unconnected else left

    def collect(self, descriptor: int) -> None:
        if descriptor == self.pidfd:
            self.over = True
            return
        capture = self.captures.get(descriptor)
        if capture is not None and not capture.closed:
            before = len(capture.kept)
            capture.read(descriptor)
            if self.pass_on is not None and capture is not self.outcome:
                self.stream(capture, before)
            if capture.closed:
                self.poll.unregister(descriptor)

    def stream(self, capture: Capture, before: int) -> None:
        """Tell at once what was printed, in whole characters."""
        text = capture.decoder.decode(bytes(capture.kept[before:]))
        if text:
            which = "out" if capture is self.out else "err"
            self.pass_on(encode({"type": "output", "id": self.id, "stream": which, "text": text}))

    def verdict(self) -> str | None:
        """Why the job is over, or None while it is not."""
        if self.pidfd is None and not self.over:
            self.over = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if self.over:
            return "ended"
        if time.monotonic() - self.began > self.timeout + KILL_GRACE:
            return "timeout"
        if self.memory and vital.used_memory() > self.memory:
            return "memory"
        return None

    def result(self, verdict: str, statuses: dict[int, int], ooms_before: int) -> dict[str, Any]:
        """The frame that tells the server how it went. Every process of the job is dead by now."""
        seconds = time.monotonic() - self.began
        for descriptor, capture in self.captures.items():
            before = len(capture.kept)
            while not capture.closed and capture.read(descriptor):
                pass
            if self.pass_on is not None and capture is not self.outcome and len(capture.kept) > before:
                self.stream(capture, before)
        self.close()
        frame: dict[str, Any] = {
            "type": "result",
            "id": self.id,
            "seconds": seconds,
            "stdout": self.out.text(),
            "stderr": self.err.text(),
            "truncated": bool(self.out.dropped or self.err.dropped),
        }
        outcome = bytes(self.outcome.kept)
        status = statuses.get(self.pid, 0)
        if verdict == "cancelled":
            frame["killed"] = {"kind": "killed", "message": "The job was cancelled."}
        elif verdict == "ended" and status == 0 and outcome[:1] == b"V" and not self.outcome.dropped:
            frame["value"] = outcome[1:].decode("utf-8", "replace")
        elif verdict == "ended" and status == 0 and outcome[:1] == b"E":
            frame["error"] = outcome[1:].decode("utf-8", "replace")
        else:
            frame["killed"] = self.obituary(verdict, status, ooms_before)
        return frame

    def obituary(self, verdict: str, status: int, ooms_before: int) -> dict[str, Any]:
        if verdict == "timeout":
            return {"kind": "timeout", "message": f"The code ran longer than {self.timeout:g} seconds and was stopped."}
        if verdict == "memory" or vital.read_ooms() > ooms_before:
            return {"kind": "memory", "message": "The code used more memory than a worker has and was stopped."}
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGABRT and self.frame.get("kind") == "javascript":  # so Node.js ends with a full heap
                return {"kind": "memory", "message": "The code used more memory than a worker has and was stopped."}
            name = signal.Signals(number).name if number in {known.value for known in signal.Signals} else str(number)
            return {"kind": "killed", "message": f"The code's process was ended by the signal {name}."}
        code = os.WEXITSTATUS(status)
        return {"kind": "killed", "message": f"The code ended its own process (exit code {code}) before its result."}

    def close(self) -> None:
        for descriptor in self.captures:
            # Some were taken out when they ended; one that stays in after its close would keep PID 1 awake for ever.
            with contextlib.suppress(KeyError):
                self.poll.unregister(descriptor)
            os.close(descriptor)
        if self.pidfd is not None:
            self.poll.unregister(self.pidfd)
            os.close(self.pidfd)
        self.captures = {}
        self.pidfd = None


class Capture:
    """What came out of one pipe, up to a limit; the rest is read and dropped, so that the writer is not blocked."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept = bytearray()
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.dropped = 0
        self.closed = False

    def read(self, descriptor: int) -> bool:
        """Read once. False when there is nothing to come, for now or at all."""
        try:
            data = os.read(descriptor, 65_536)
        except BlockingIOError:
            return False
        if not data:
            self.closed = True
            return False
        room = self.limit - len(self.kept)
        self.kept += data[:room]
        self.dropped += max(0, len(data) - room)
        return True

    def text(self) -> str:
        kept = self.kept.decode("utf-8", "replace")
        if self.dropped:
            kept += f"\n… cut here: {self.dropped:,} more bytes were written than the {self.limit:,} that are kept."
        return kept


def kill_everyone() -> dict[int, int]:
    """End every process of the container but this one, and reap them all. Returns exit statuses by process id."""
    statuses: dict[int, int] = {}
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return statuses
        statuses[pid] = status


def wipe(folder: str) -> None:
    """Empty a folder, whatever a job left in it, or end the worker: nobody gets a dirty place."""
    try:
        if not os.listdir(folder):
            return
    except PermissionError:
        pass  # the job took the rights to its own folder away
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
    try:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                unlock(entry.path)
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    except BaseException:
        os._exit(4)


def unlock(folder: str) -> None:
    """Take back the rights that a job took away from its own folders."""
    folders = [folder]
    for path in folders:
        os.chmod(path, 0o700)
        folders += [inner.path for inner in os.scandir(path) if inner.is_dir(follow_symlinks=False)]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
