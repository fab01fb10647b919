"""What goes over a worker's socket: frames of four bytes of length and JSON, seen from the server.

From the server: `job`, `ack`, `ping`, `cancel`, `reset`, `drain`. From the worker: `hello`, `result`, `pong`, `beat`, `file`, `output`. Whatever
comes from a worker is untrusted: it is measured before it is read, and read field by field.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Any, Final

import orjson

from nodes.categories import Category
from nodes.errors import FactoryError
from runtime.workers.adoption import job_key
from runtime.workers.backend import Job, JobError, JobResult, Profile
from runtime.workers.views import Vital

PROTOCOL: Final = 1
FRAME_LIMIT: Final = 32 * 1024 * 1024
_log = logging.getLogger(__name__)
_KINDS: Final = frozenset({"hello", "result", "pong", "beat", "file", "output"})
_ERRORS: Final = frozenset({"exception", "syntax", "timeout", "memory", "killed", "result"})
MOST: Final = 2.0**60
_LENGTH: Final = struct.Struct(">I")


class ProtocolError(FactoryError):
    """A worker sent what no worker sends."""

    code = "worker.protocol"
    status = 502
    category = Category.WORKER


class BadInput(FactoryError):
    """A job whose code or inputs cannot be given to a worker."""

    code = "worker.input"
    status = 422
    category = Category.INPUT


def encode(frame: dict[str, Any]) -> bytes:
    """A frame as it goes over the wire."""
    body = orjson.dumps(frame)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into frames, however it arrives."""

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take bytes in, give whole frames out. Raises ProtocolError; the stream is of no use after that."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= 4:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > self._limit:
                raise ProtocolError(f"A worker announced a message of {size} bytes; {self._limit} are allowed.")
            end = start + 4 + size
            if len(self._buffer) < end:
                break
            frames.append(_read(self._buffer[start + 4 : end]))
            start = end
        if start:
            del self._buffer[:start]
        return frames


def _read(body: bytearray) -> dict[str, Any]:
    try:
        frame = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("A worker sent a message that is not JSON.") from error
    if not isinstance(frame, dict) or frame.get("type") not in _KINDS:
        raise ProtocolError("A worker sent a message of an unknown kind.")
    return frame


def job_frame(job: Job, profile: Profile) -> bytes:
    """The frame that gives a job to a worker. Raises BadInput when it cannot be one."""
    try:
        inputs = orjson.dumps(job.inputs)
    except (TypeError, ValueError) as error:
        raise BadInput("The inputs of the code are not JSON.", fix="Pass text, numbers, lists and records.") from error
    if len(inputs) + len(job.code) > profile.input_limit:
        raise BadInput(
            f"Code and inputs are larger than the {profile.input_limit // 1024:,} KiB that a worker takes.",
            fix="Hand over less data: filter or split it before this step.",
        )
    if not 0 < job.timeout <= profile.longest:
        raise BadInput(f"The time limit of the code must be between 0 and {profile.longest:g} seconds.")
    try:
        # Inputs travel as text in text: the worker's first process never builds what is in them.
        frame = {"type": "job", "id": job.id, "code": job.code, "inputs": inputs.decode(), "timeout": job.timeout}
        if job.parcel is not None:
            frame |= job.parcel.words()
        if job.on_output is not None:
            frame["stream"] = True
        if job.kind != "python":
            frame["kind"] = job.kind
        if job.run:
            frame["key"] = job_key(job, inputs)
        return encode(frame if job.seat is None else {**frame, "seat": job.seat})
    except TypeError as error:
        raise BadInput("The code holds a broken character (half of a surrogate pair).") from error


def read_result(frame: dict[str, Any], job: Job, profile: Profile) -> JobResult:
    """A job's result out of its frame. Raises ProtocolError."""
    if frame.get("id") != job.id:
        raise ProtocolError("A worker answered for a job that it was not given.")
    value, error = None, None
    if "value" in frame:
        value, error = _read_value(_text(frame, "value", profile.result_limit * 4))
    elif "error" in frame:
        try:
            error = _read_error(orjson.loads(_text(frame, "error", FRAME_LIMIT)))
        except orjson.JSONDecodeError:
            error = JobError(kind="killed", message="The code broke off while its error was written down.")
    else:
        error = _read_error(frame.get("killed"))
    seconds = frame.get("seconds", 0.0)
    return JobResult(
        ok=error is None,
        value=value,
        stdout=_text(frame, "stdout", FRAME_LIMIT),
        stderr=_text(frame, "stderr", FRAME_LIMIT),
        error=error,
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        truncated=frame.get("truncated") is True,
    )


def read_beat(frame: dict[str, Any], at: float) -> Vital:
    """The vital figures out of a heartbeat. What is not a figure counts as none."""

    def figure(name: str) -> float:
        value = frame.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return 0.0
        return min(max(float(value), 0.0), MOST)

    return Vital(
        cpu=figure("cpu"),
        memory=int(figure("memory")),
        processes=int(figure("processes")),
        at=at,
        disk=int(figure("disk")),
    )


def pass_on(frame: dict[str, Any], job: Job, hear: Callable[[str, str], None]) -> None:
    """What a running job has just printed. Raises ProtocolError; what goes wrong in who hears it is not the worker's fault."""
    stream, text = frame.get("stream"), _text(frame, "text", FRAME_LIMIT)
    if frame.get("id") != job.id or stream not in ("out", "err"):
        raise ProtocolError("A worker passed on what no job of it printed.")
    try:
        hear(stream, text)
    except Exception:
        _log.exception("what a job printed could not be passed on")


def _text(frame: dict[str, Any], name: str, limit: int) -> str:
    text = frame.get(name, "")
    if not isinstance(text, str) or len(text) > limit:
        raise ProtocolError(f"A worker sent a wrong `{name}`.")
    return text


def _read_value(text: str) -> tuple[Any, JobError | None]:
    try:
        return orjson.loads(text), None
    except orjson.JSONDecodeError:
        return None, JobError(kind="result", message="The result of the code is not JSON.")


def _read_error(said: Any) -> JobError:
    if not isinstance(said, dict) or said.get("kind") not in _ERRORS:
        return JobError(kind="killed", message="The code's process ended without saying why.")
    line, type_ = said.get("line"), said.get("type")
    return JobError(
        kind=said["kind"],
        message=str(said.get("message", ""))[:8_000],
        line=line if isinstance(line, int) else None,
        type=type_[:200] if isinstance(type_, str) else None,
        traceback=str(said.get("traceback", ""))[:32_000],
    )
