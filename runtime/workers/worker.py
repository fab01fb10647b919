"""One worker as the server sees it: its room with the socket, its box, the line to the program inside, its state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from nodes.ids import new_id
from runtime.states import move
from runtime.workers import protocol
from runtime.workers.adoption import Note, is_first_process
from runtime.workers.backend import DOOR, Backend, Box, Job, JobError, JobResult, NoWorker, Profile
from runtime.workers.hosts import Hosts
from runtime.workers.states import WORKER, WorkerState
from runtime.workers.store import IN, Parcel
from runtime.workers.views import JobSeen, Vital
from runtime.workers.watchdog import Pulse

OVERTIME: Final = 3.0  # a worker that has not answered so long after its job's time is not going to
CANCEL_TIME: Final = 2.0
FILES_TIME: Final = 20.0  # for the files of a job, after its end
LOOK_AFTER: Final = 0.5
PING: Final = protocol.encode({"type": "ping"})
HISTORY: Final = 20  # jobs that it is remembered for
HERE: Final = Path(__file__).parent
INSIDE: Final = ("inside.py", "script.py", "crew.py", "vital.py", "libraries.py", "script.js", "parcels.py")
LONGEST_SOCKET_PATH: Final = 100


class WorkerLost(Exception):
    """The worker is gone, or has stopped to answer, in the middle of a job; `error` where the reason is known."""

    def __init__(self, error: JobError | None = None) -> None:
        super().__init__()
        self.error = error


class Worker:
    """Starts a box, waits until the program inside has dialled in, then gives it jobs one at a time."""

    def __init__(
        self,
        backend: Backend,
        profile: Profile,
        rooms: Path,
        *,
        on_move: Callable[[Worker, WorkerState], None],
        on_lost: Callable[[Worker], None],
        id: str | None = None,
    ) -> None:
        self.id = id or new_id("worker")
        self.state = WorkerState.PROVISIONING
        self.tenant: str | None = None
        self.jobs = 0
        self.strikes = 0
        self.pulse = Pulse()
        self.ready_at = 0.0
        self.idle_since = 0.0
        self.since = time.time()
        self.why = ""
        self.host = ""
        self.crew: str | None = None
        self.member: str | None = None
        self.restarts = 0
        self.vital: Vital | None = None
        self.leaving = False
        """Whether it is to end after its job."""
        self.slept = False
        """Whether its last start was from hibernation."""
        self.token = 0
        """The fencing token of its job; another one, and what it answers is refused."""
        self.generation = 0
        """Which image it was started from; the pool counts them."""
        self.history: deque[JobSeen] = deque(maxlen=HISTORY)
        self.facts: dict[str, Any] = {}
        self.unfinished = ""
        """The key of the job that it had when it was adopted, while it still has it."""
        self._adoptable = isinstance(backend, Hosts)
        self._adopting = False
        self._note: Note | None = None
        self._backend = backend
        self._profile = profile
        self._room = rooms / self.id
        self._on_move = on_move
        self._on_lost = on_lost
        self._box: Box | None = None
        self._listener: asyncio.AbstractServer | None = None
        self._line: _Line | None = None
        self._job: Job | None = None
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[JobResult] | None = None

    @property
    def room(self) -> Path:
        """The folder on this machine that the worker sees as /factory, read only."""
        return self._room

    @property
    def working(self) -> bool:
        """Whether it has a job, or is to have one in a moment."""
        return self.state is WorkerState.BUSY

    @property
    def profile(self) -> Profile:
        """How large it is."""
        return self._profile

    def move(self, to: WorkerState, why: str = "") -> None:
        """Go on in life; observers hear of it, and why."""
        before, self.state = self.state, move(WORKER, self.state, to)
        self.since, self.why = time.time(), why
        self._on_move(self, before)

    async def launch(self, patience: float) -> None:
        """From nothing to READY. Raises NoWorker when it does not get there."""
        await self._backend.prepare(self._room)
        door = await asyncio.to_thread(self._furnish)
        await self._listen(door)
        self._box = await self._backend.start(self.id, self._room, self._profile)
        self.host = self._box.host or self.host
        self.move(WorkerState.WARMING)
        await self._welcome(self._box, patience)

    async def rest(self) -> None:
        """Hibernate: nothing of it runs any more, and its memory is free. Raises NoWorker."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        if self._box is not None:
            await self._backend.rest(self._box)

    async def wake(self, patience: float) -> None:
        """From hibernation to READY. Raises NoWorker when it does not get there."""
        if self._box is None:
            raise NoWorker("The worker that slept is gone.")
        self._hello = asyncio.get_running_loop().create_future()
        door = self._room / DOOR
        await asyncio.to_thread(door.unlink, missing_ok=True)
        await self._listen(door)
        self._box = await self._backend.wake(self._box, self._profile)
        await self._welcome(self._box, patience)

    async def adopt(self, box: Box, patience: float) -> None:
        """From an earlier life of the server to READY, with the job that it may have. Raises NoWorker when it is not to be had."""
        self._box, self._adopting, self.host = box, True, box.host or self.host
        self._note = await asyncio.to_thread(Note.read, self._room)
        self.tenant = self._note.tenant if self._note is not None else None
        if self._note is not None and self._note.crew is not None:
            raise NoWorker("It belonged to a crew.")
        door = self._room / DOOR
        try:
            await asyncio.to_thread(shutil.rmtree, self._room / IN, ignore_errors=True)
            await asyncio.to_thread(door.unlink, missing_ok=True)
            await self._listen(door)
        except OSError as error:
            raise NoWorker(f"Its room cannot be used: {error}") from error
        self.move(WorkerState.WARMING, "it outlived the server")
        await self._welcome(box, patience)
        self.jobs = int(self.facts.get("served", 0))
        if self.jobs and self.tenant is None:
            raise NoWorker("It is not known whom it belongs to.")

    async def unfinished_result(self) -> JobResult:
        """The result of the job that it was adopted with; the worker keeps it until `acknowledge`. Raises WorkerLost."""
        answer = self._answer
        if answer is None:
            raise WorkerLost
        done, _ = await asyncio.wait((answer,), timeout=float(self.facts.get("left") or 0.0) + OVERTIME)
        if not done:
            raise WorkerLost
        return answer.result()

    def acknowledge(self) -> None:
        """The result of the job that it was adopted with has arrived where it belongs."""
        if self._line is not None and self._job is not None:
            self._line.send(protocol.encode({"type": "ack", "id": self._job.id}))
        self._answer, self._job, self.unfinished = None, None, ""

    async def _listen(self, door: Path) -> None:
        self._listener = await asyncio.get_running_loop().create_unix_server(lambda: _Line(self), path=str(door))
        # Who may reach the socket is decided by the folders above it; the worker is another user.
        os.chmod(door, 0o666)  # noqa: S103

    async def _welcome(self, box: Box, patience: float) -> None:
        assert self._listener is not None
        try:
            self.facts = await self._greeting(box, patience)
        finally:
            # From here on there are jobs inside, and none of them shall find an open door.
            self._listener.close()
        if self._line is None or not self._backend.owns(box, self._line.peer):
            raise NoWorker("Something else than the started worker answered on its socket.")
        if self.facts.get("protocol") != protocol.PROTOCOL:
            raise NoWorker("The worker speaks another version of the protocol.")
        self.ready_at = time.monotonic()
        self.pulse = Pulse()
        self.move(WorkerState.READY)

    async def run(self, job: Job, frame: bytes) -> JobResult:
        """Give it a job and wait for the result. Raises WorkerLost; when cancelled, call `cancel()`."""
        if self._line is None:
            raise WorkerLost
        note = Note(self.tenant, self.crew) if self._adoptable and self.tenant is not None else None
        if note is not None and note != self._note:
            self._note = note
            with contextlib.suppress(OSError):  # then it is not adopted, but removed
                note.write(self._room)
        self._job = job
        self._answer = asyncio.get_running_loop().create_future()
        self.jobs += 1
        if job.parcel is None:
            self._line.send(frame)
            done, _ = await asyncio.wait((self._answer,), timeout=job.timeout + OVERTIME)
        else:
            done = await self._run_with_files(job, job.parcel, frame)
        if not done:
            message = f"The code ran longer than {job.timeout:g} seconds and was stopped together with its worker."
            raise WorkerLost(JobError(kind="timeout", message=message))
        return self._take_answer()

    async def _run_with_files(self, job: Job, parcel: Parcel, frame: bytes) -> set[asyncio.Future[JobResult]]:
        assert self._answer is not None
        try:
            await asyncio.to_thread(parcel.lay_out, self._room)
            if self._line is not None:
                self._line.send(frame)
            done, _ = await asyncio.wait((self._answer,), timeout=job.timeout + OVERTIME + FILES_TIME)
            return done
        finally:
            await asyncio.to_thread(parcel.clear, self._room)

    async def cancel(self) -> bool:
        """Stop the job that runs. False when the worker does not say that it did."""
        if self._answer is None or self._job is None:
            return True
        if self._line is not None:
            self._line.send(protocol.encode({"type": "cancel", "id": self._job.id}))
        done, _ = await asyncio.wait((self._answer,), timeout=CANCEL_TIME)
        if not done:
            return False
        with contextlib.suppress(WorkerLost):
            self._take_answer()
            self.unfinished = ""
            return True
        return False

    @property
    def has_job(self) -> bool:
        """Whether it has a job, or a result that was not taken."""
        return self._answer is not None

    @property
    def box_ref(self) -> str:
        """What its engine calls it; empty before it has one."""
        return str(self._box.ref) if self._box is not None else ""

    @property
    def online(self) -> bool:
        """Whether the program inside is on the line."""
        return self._line is not None

    def ping(self) -> None:
        """Ask for a sign of life."""
        if self._line is not None:
            self._line.send(PING)

    def cut(self) -> None:
        """Hang up: what is inside is known to be of no use any more, so that nobody waits for it."""
        if self._line is not None:
            self._line.close()

    async def end(self) -> None:
        """Remove everything there is of it."""
        self._fail()
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._listener is not None:
            self._listener.close()
        if self._box is not None:
            await self._backend.destroy(self._box)
        await asyncio.to_thread(shutil.rmtree, self._room, ignore_errors=True)

    async def said(self) -> list[str]:
        """The last lines that it wrote about itself."""
        return (await self._backend.last_words(self._box)).splitlines() if self._box is not None else []

    def owns(self, pid: int) -> bool:
        """Whether this process of the machine runs inside it."""
        return self._box is not None and self._backend.owns(self._box, pid)

    async def autopsy(self) -> JobError:
        """What to say about the job that was running when the worker was lost."""
        if self._box is not None and await self._backend.ran_out_of_memory(self._box):
            return JobError(kind="memory", message="The code used more memory than a worker has and was stopped.")
        return JobError(
            kind="worker_lost",
            message="The worker was lost while the code was running, so it is not known how far it came.",
        )

    async def _greeting(self, box: Box, patience: float) -> dict[str, Any]:
        """Wait for the program inside to dial in, as long as there is hope. Raises NoWorker."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            done, _ = await asyncio.wait((self._hello,), timeout=LOOK_AFTER)
            if done:
                return self._hello.result()
            if not await self._backend.alive(box):
                said = (await self._backend.last_words(box)).strip()
                raise NoWorker(f"A worker ended while it was starting: {said[-400:] or 'it said nothing'}")
        raise NoWorker(
            f"A worker was started but did not report within {patience:g} seconds.",
            fix="Its engine must run on this machine, since workers answer over a socket in a folder of it.",
        )

    def _furnish(self) -> Path:
        for name in INSIDE:
            shutil.copyfile(HERE / name, self._room / name)
            (self._room / name).chmod(0o644)
        door = self._room / DOOR
        if len(str(door)) > LONGEST_SOCKET_PATH:
            raise NoWorker(f"The folder for the sockets of workers has too long a name: {self._room.parent}")
        return door

    def _take_answer(self) -> JobResult:
        answer, self._answer, self._job = self._answer, None, None
        if answer is None:
            raise WorkerLost
        return answer.result()

    def _fail(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WorkerLost())
            self._answer.exception()  # it may be that nobody waits any more
        if not self._hello.done():
            self._hello.set_exception(NoWorker("The worker ended while it was starting."))
            self._hello.exception()

    def _dialled(self, line: _Line) -> bool:
        if self._line is not None or (self._adopting and not is_first_process(line.peer)):
            return False
        self._line = line
        return True

    def _heard(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        self.pulse.fresh = True
        if kind == "beat":
            self.vital = protocol.read_beat(frame, time.time())
        elif kind == "hello" and not self._hello.done():
            if self._adopting and frame.get("job"):  # its result may be the very next thing that it says
                self._job = Job(str(frame["job"]), "")
                self.unfinished = str(frame.get("key", ""))
                self._answer = asyncio.get_running_loop().create_future()
            self._hello.set_result(frame)
        elif kind == "output" and self._job is not None and self._job.on_output is not None:
            protocol.pass_on(frame, self._job, self._job.on_output)
        elif (
            kind == "file"
            and self._job is not None
            and self._job.parcel is not None
            and frame.get("id") == self._job.id
        ):
            self._job.parcel.take(frame)
        elif kind == "result" and self._job is not None and self._answer is not None and not self._answer.done():
            result = protocol.read_result(frame, self._job, self._profile)
            if self._job.parcel is not None:
                result = self._job.parcel.close(result, frame)
            if self._line is not None and not self.unfinished:
                self._line.send(protocol.encode({"type": "ack", "id": self._job.id}))
            self._answer.set_result(result)

    def _hung_up(self, line: _Line) -> None:
        if line is not self._line:
            return
        self._line = None
        running = self._answer is not None
        self._fail()
        if not running:  # else whoever waits for the job first asks what it died of
            self._on_lost(self)


class _Line(asyncio.Protocol):
    """The server's end of a worker's socket."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._frames = protocol.Frames()
        self._transport: asyncio.Transport | None = None
        self.peer = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being derived from it
        self.peer = _peer(self._transport)
        if not self._worker._dialled(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._worker._heard(frame)
        except protocol.ProtocolError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._worker._hung_up(self)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _peer(transport: asyncio.Transport) -> int:
    """The process id on the other side, 0 where the system does not tell."""
    end = transport.get_extra_info("socket")
    if end is None or not hasattr(socket, "SO_PEERCRED"):
        return 0
    pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
