"""What all makers of images need: the engine's command line, a cache, one maker at a time, and one kind of error."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nodes.errors import FactoryError

HERE: Final = Path(__file__).resolve().parent


class ImageError(FactoryError):
    """The worker image could not be made; the message holds the last words of the tool that failed."""

    code = "worker.image"
    status = 503


def docker_command(url: str | None) -> list[str]:
    """The `docker` command for this engine. Raises ImageError."""
    if not shutil.which("docker"):
        raise ImageError("The `docker` command was not found.", fix="Install it, on Debian: apt-get install docker.io")
    return ["docker", *(["--host", url] if url else [])]


def has_image(docker: Sequence[str], tag: str) -> bool:
    """Whether the engine has it. Raises ImageError when it does not answer."""
    found = subprocess.run([*docker, "image", "inspect", tag], capture_output=True, check=False)
    if found.returncode and b"no such" not in found.stderr.lower():
        raise ImageError(
            f"The Docker engine does not answer: {last_words(found.stderr)}",
            fix="Start it, or set FACTORY_DOCKER to its address.",
        )
    return not found.returncode


def cache_folder() -> Path:
    """Where archives of images are kept between builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-factory"


@contextmanager
def alone(what: str) -> Iterator[None]:
    """One builder of this at a time on this machine."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def last_words(output: bytes) -> str:
    """The end of what a tool printed, in one line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-500:] or "nothing"
