"""What the code of a crew's member sees as `crew`: talk to the others, share values and files, take tasks, call out.

It runs beside `script.py` inside a worker and imports the standard library only. Everything goes over one socket in the
worker's own folder, where the server stamps who speaks: nothing that is said here about the sender is believed there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

LONGEST_WAIT = 20.0  # seconds that one question may stay open; longer waits ask again
LARGEST = 2 * 1024 * 1024
HEADERS = 64 * 1024
TUNNELS = 12
NEVER = float("inf")


class CrewError(Exception):
    """The crew refused something; `code` says what kind of refusal it is, `fix` what to do about it."""

    def __init__(self, message: str, code: str = "crew", fix: str = "") -> None:
        super().__init__(f"{message} {fix}".strip())
        self.code = code
        self.fix = fix


class Message:
    """Something that another member said. `kind` is message or request; a request wants a `reply`."""

    def __init__(self, crew: Crew, told: dict[str, Any]) -> None:
        self._crew = crew
        self.id: str = told["id"]
        self.kind: str = told["kind"]
        self.crew: str = told["crew"]
        self.sender: str = told["sender"]
        self.role: str = told["role"]
        self.topic: str = told["topic"]
        self.body: Any = told["body"]
        self.at: float = told["at"]

    def reply(self, body: Any = None) -> None:
        """Answer a request; it can be answered once."""
        self._crew.reply(self, body)

    def __repr__(self) -> str:
        return f"<{self.kind} on {self.topic!r} from {self.role} {self.sender}>"


class Crew:
    """The crew as one of its members has it."""

    def __init__(self, seat: dict[str, Any]) -> None:
        self.id: str = seat["crew"]
        self.member: str = seat["member"]
        self.role: str = seat["role"]
        self._door: str = seat["door"]
        self._token: str = seat["token"]
        self._local = threading.local()
        self._ear: socket.socket | None = None
        self._turn = threading.Lock()
        self.Error = CrewError
        self._newest()  # from now on the server keeps our token fresh
        os.register_at_fork(before=self._newest, after_in_child=self._be_another)

    # --- what members say to each other

    def publish(self, topic: str, body: Any = None) -> int:
        """Tell everybody who listens to the topic; returns how many that were."""
        return int(self._ask("publish", topic=topic, body=body))

    def subscribe(self, *topics: str) -> Iterator[Message]:
        """Listen to topics from now on. Go through what it returns, or call `next()`."""
        for topic in topics:
            self._ask("subscribe", topic=topic)
        return iter(self)

    def __iter__(self) -> Iterator[Message]:
        while True:
            message = self.next()
            if message is not None:
                yield message

    def next(self, timeout: float | None = None) -> Message | None:
        """The next message or request to this member; None when none came in time."""
        told = self._wait("next", timeout)
        return Message(self, told) if told is not None else None

    def request(self, to: str, body: Any = None, timeout: float = 30.0) -> Any:
        """Ask a member, by its id or its role, and wait for the answer."""
        return self._ask("request", to=to, body=body, seconds=float(timeout))

    def reply(self, message: Message, body: Any = None) -> None:
        """Answer a request."""
        self._ask("reply", to=message.id, body=body)

    def members(self) -> list[dict[str, Any]]:
        """Who belongs to the crew: id, role and state of each."""
        return list(self._ask("members"))

    # --- what they share

    def get(self, key: str, default: Any = None) -> Any:
        """A shared value."""
        found = self._ask("get", key=key)
        return found["value"] if found is not None else default

    def set(self, key: str, value: Any) -> None:
        """Set a shared value."""
        self._ask("set", key=key, value=value)

    def swap(self, key: str, was: Any, value: Any) -> bool:
        """Set a shared value only if it still is what it was (None: not set); whether it was set."""
        return bool(self._ask("swap", key=key, was=was, value=value))

    def delete(self, key: str) -> None:
        """Remove a shared value."""
        self._ask("delete", key=key)

    def keys(self) -> list[str]:
        """The names of all shared values."""
        return list(self._ask("keys"))

    def push(self, queue: str, task: Any) -> int:
        """Put a task at the end of a queue; returns how many wait there."""
        return int(self._ask("push", queue=queue, body=task))

    def pop(self, queue: str, timeout: float | None = 0.0) -> Any:
        """Take the first task of a queue; nobody else gets it. None when there was none in time."""
        found = self._wait("pop", timeout, queue=queue)
        return found["body"] if found is not None else None

    def write_file(self, name: str, data: bytes | str) -> None:
        """Share a file."""
        raw = data.encode() if isinstance(data, str) else bytes(data)
        self._ask("write_file", name=name, data=base64.b64encode(raw).decode())

    def read_file(self, name: str) -> bytes | None:
        """A shared file, or None."""
        found = self._ask("read_file", name=name)
        return base64.b64decode(found) if found is not None else None

    def files(self) -> list[str]:
        """The names of all shared files."""
        return list(self._ask("files"))

    # --- the line

    def _wait(self, do: str, timeout: float | None, **what: Any) -> Any:
        until = NEVER if timeout is None else time.monotonic() + timeout
        while True:
            left = min(LONGEST_WAIT, max(0.0, until - time.monotonic()))
            found = self._ask(do, seconds=left, **what)
            if found is not None or time.monotonic() >= until:
                return found

    def _ask(self, do: str, **what: Any) -> Any:
        line = self._line()
        try:
            self._send(line, {"do": do, "token": self._newest(), **what})
            told = self._receive(line)
            if "error" in told:
                error = told["error"]
                raise CrewError(error["message"], error["code"], error.get("fix") or "")
            return told.get("ok")
        except (OSError, ValueError, struct.error) as error:
            self._hang_up()
            raise CrewError("The crew does not answer any more.", "crew.gone") from error
        except KeyboardInterrupt:
            self._hang_up()
            raise

    def _line(self) -> socket.socket:
        known = getattr(self._local, "line", None)
        if known is not None and self._local.pid == os.getpid():  # a forked process may not speak on its parent's
            return known  # type: ignore[no-any-return]
        try:
            line = self._dialled()
        except OSError as error:
            raise CrewError("The crew cannot be reached.", "crew.gone") from error
        self._local.line, self._local.pid = line, os.getpid()
        return line

    def _dialled(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(self._door)
        except OSError:
            line.close()
            raise
        return line

    def _hang_up(self) -> None:
        line, self._local.line = getattr(self._local, "line", None), None
        if line is not None:
            line.close()

    def _newest(self) -> str:
        """The token that came last. Fresh ones come on a line of their own, so that any thread finds them at any time."""
        with self._turn:
            try:
                if self._ear is None:
                    self._ear = self._dialled()
                    self._send(self._ear, {"do": "renew", "token": self._token})
                    self._hear(self._ear)
                while select.select([self._ear], [], [], 0)[0]:
                    self._hear(self._ear)
            except (OSError, ValueError, struct.error):  # whoever asks for something next hears why
                self._be_deaf()
            except KeyboardInterrupt:
                self._be_deaf()
                raise
            return self._token

    def _hear(self, ear: socket.socket) -> None:
        told = self._receive(ear)
        if "error" in told:
            raise ValueError(told["error"])
        self._token = told.get("token", self._token)

    def _be_deaf(self) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()

    def _be_another(self) -> None:
        """A forked process may not listen on its parent's line."""
        self._turn = threading.Lock()
        self._be_deaf()

    def _send(self, line: socket.socket, frame: dict[str, Any]) -> None:
        try:
            body = json.dumps(frame, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise CrewError(f"This cannot be said in JSON: {error}", "crew.json") from None
        if len(body) > LARGEST:
            raise CrewError("This is too large for the crew.", "crew.too_large")
        line.sendall(struct.pack(">I", len(body)) + body)

    def _receive(self, line: socket.socket) -> dict[str, Any]:
        (size,) = struct.unpack(">I", exactly(line, 4))
        told: dict[str, Any] = json.loads(exactly(line, size))
        return told


def exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes."""
    parts = []
    while size:
        part = line.recv(min(size, 262_144))
        if not part:
            raise OSError("the line was cut")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def sit_down(seat: dict[str, Any]) -> Crew:
    """Take the place in the crew: its environment, `import crew`, and the way out over HTTP if it has one."""
    os.environ.update(seat.get("environment") or {})
    crew = Crew(seat)
    sys.modules["crew"] = crew  # type: ignore[assignment]
    if seat.get("http"):
        port = open_way_out(crew)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            os.environ[name] = f"http://127.0.0.1:{port}"
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)
    return crew


# --- the way out over HTTP -------------------------------------------------------------------------------------------


def open_way_out(crew: Crew) -> int:
    """Listen on the loopback of this worker, which leads nowhere else, and carry on what comes to the crew's door."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(TUNNELS)
    free = threading.BoundedSemaphore(TUNNELS)
    threading.Thread(target=_accept, args=(listener, crew, free), daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def _accept(listener: socket.socket, crew: Crew, free: threading.BoundedSemaphore) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        free.acquire()
        threading.Thread(target=_carry, args=(caller, crew, free), daemon=True).start()


def _carry(caller: socket.socket, crew: Crew, free: threading.BoundedSemaphore) -> None:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError), caller, door:
            caller.settimeout(60)
            head = bytearray()
            while b"\r\n\r\n" not in head and len(head) < HEADERS:
                part = caller.recv(65_536)
                if not part:
                    return
                head += part
            first, _, rest = bytes(head).partition(b"\r\n")
            door.connect(crew._door)
            door.sendall(first + b"\r\nProxy-Authorization: Bearer " + crew._newest().encode() + b"\r\n" + rest)
            caller.settimeout(None)
            _pump(caller, door)
    finally:
        free.release()


def _pump(one: socket.socket, other: socket.socket) -> None:
    ways = {one: other, other: one}
    while ways:
        for source in select.select(list(ways), [], [])[0]:
            data = source.recv(65_536)
            if data:
                ways[source].sendall(data)
                continue
            with contextlib.suppress(OSError):
                ways[source].shutdown(socket.SHUT_WR)
            del ways[source]
