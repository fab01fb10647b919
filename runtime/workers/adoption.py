"""What a new life of the server takes over from the one before: workers that went on, and the jobs that they had.

Beside a worker's socket lies a note of whom it belongs to, which the worker cannot read. A job that was running, or whose result
nobody has acknowledged, is kept for a while for the same step of the same run to ask for it again: it is not done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from runtime.workers.backend import Job, JobResult

if TYPE_CHECKING:
    from runtime.workers.worker import Worker

NOTE: Final = "owner"
CLAIM_WITHIN: Final = 60.0  # seconds until nobody is expected to ask for a job any more
REDIAL_WITHIN: Final = 8.0  # seconds that a worker has for dialling the new life


@dataclass(frozen=True, slots=True)
class Note:
    """Whom a worker belongs to."""

    tenant: str
    crew: str | None = None

    def write(self, room: Path) -> None:
        """Put it beside the socket, for no other user's eyes, whole or not at all."""
        made = room / f".{NOTE}"
        with contextlib.suppress(FileNotFoundError):
            made.unlink()
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(orjson.dumps({"tenant": self.tenant, "crew": self.crew}))
        made.replace(room / NOTE)

    @classmethod
    def read(cls, room: Path) -> Note | None:
        """The note of this worker, if it belongs to anybody."""
        try:
            found = orjson.loads((room / NOTE).read_bytes())
            return cls(str(found["tenant"]), found.get("crew"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def job_key(job: Job, inputs: bytes | None = None) -> str:
    """What makes it the same job in another life: its run, code and inputs. Empty for one that belongs to no run.

    Empty too for one with files: they are on their way in this life only, so the next one runs it again.
    """
    if not job.run or job.parcel is not None:
        return ""
    content = orjson.dumps(job.inputs) if inputs is None else inputs
    made = hashlib.blake2b(digest_size=16)
    for part in (job.run.encode(), job.code.encode("utf-8", "replace"), content):
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


def is_first_process(pid: int) -> bool:
    """Whether this process is the first one of its container, and not a job that found the door open."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return status.partition("\nNSpid:")[2].partition("\n")[0].split()[-1:] == ["1"]


class Unfinished:
    """The jobs of an earlier life that somebody may ask for again."""

    def __init__(self, free: Callable[[Worker], None], lose: Callable[[Worker, str], None]) -> None:
        self._free = free
        self._lose = lose
        self._jobs: dict[tuple[str, str], tuple[Worker, asyncio.Task[JobResult]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def keep(self, worker: Worker) -> None:
        """A worker was adopted that still has a job."""
        key = (worker.tenant or "", worker.unfinished)
        if not all(key) or key in self._jobs:
            self._soon(self._give_up(worker))
            return
        self._jobs[key] = worker, asyncio.get_running_loop().create_task(worker.unfinished_result())
        self._soon(self._expire(key))

    async def claim(self, tenant: str, job: Job) -> JobResult | None:
        """The result of this job if an earlier life began it; None when it has to be run."""
        found = self._jobs.pop((tenant, job_key(job)), None)
        if found is None:
            return None
        worker, working = found
        try:
            result = await asyncio.shield(working)
        except asyncio.CancelledError:
            working.cancel()
            self._soon(self._give_up(worker))
            raise
        except Exception:
            self._lose(worker, "lost in the middle of a job")
            return None
        worker.acknowledge()
        self._free(worker)
        return result

    async def close(self) -> None:
        """Nobody will ask any more."""
        tasks = [*self._tasks, *(working for _, working in self._jobs.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._jobs.clear()

    async def _expire(self, key: tuple[str, str]) -> None:
        await asyncio.sleep(CLAIM_WITHIN)
        found = self._jobs.pop(key, None)
        if found is not None:
            found[1].cancel()
            await self._give_up(found[0])

    async def _give_up(self, worker: Worker) -> None:
        if await worker.cancel():
            self._free(worker)
        else:
            self._lose(worker, "a job from before could not be stopped")

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
