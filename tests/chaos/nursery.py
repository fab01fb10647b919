"""Short lives of the runtime: one process that has loaded everything forks a child for each, which then starts in milliseconds.

A life is a whole Factory (engine, hooks, clock, egress, database) without the web server. Commands and answers are lines of JSON
on standard input and output; what a life says (that it accepted an order, where it died) comes through in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """The process that forks, seen from a test. `await life(...)` returns all that the child said, and how it ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Nursery:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FACTORY_")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.nursery",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**kept, "PYTHONUNBUFFERED": "1"}, limit=2**24,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process and self._process.stdin
        self._process.stdin.close()
        await self._process.wait()

    async def life(self, what: str, **given: Any) -> list[dict[str, Any]]:
        """One life; its last line is `{"ended": …}`: 0 is well, -9 was killed. `kill_after` seconds end it from outside."""
        assert self._process and self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"what": what, **given}).encode() + b"\n")
        await self._process.stdin.drain()
        said: list[dict[str, Any]] = []
        while not said or "ended" not in said[-1]:
            line = await self._process.stdout.readline()
            assert line, "the nursery has died"
            said.append(json.loads(line))
        return said


def say(**words: Any) -> None:
    """One line from a child, whole even when it is killed right after."""
    os.write(1, json.dumps(words).encode() + b"\n")


def main() -> None:
    """Fork a child for each command."""
    from tests.chaos import lives

    # One life here loads everything. Its threads have ended with it: none may exist when we fork.
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(lives.warms_up(folder))
    assert threading.active_count() == 1
    kinds: dict[str, Callable[..., Awaitable[None]]] = lives.KINDS
    for line in sys.stdin:
        given = json.loads(line)
        kill_after = given.pop("kill_after", None)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                sys.stdin.close()
                code = _live(kinds[given.pop("what")], given)
            os._exit(code)
        if kill_after is not None:
            with contextlib.suppress(TimeoutError):
                _wait(child, kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        say(ended=os.waitstatus_to_exitcode(status))


def _wait(child: int, seconds: float) -> None:
    """Sleep, but not longer than the child lives."""
    handle = os.pidfd_open(child)
    try:
        import select

        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)


def _live(kind: Callable[..., Awaitable[None]], given: dict[str, Any]) -> int:
    try:
        asyncio.run(kind(**given))  # type: ignore[arg-type]
    except BaseException as error:
        import traceback

        say(error="".join(traceback.format_exception(error))[-3_000:])
        return 1
    return 0


if __name__ == "__main__":
    main()
