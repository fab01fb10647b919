"""The files of a job, in and out, as a worker sees them. Beside `inside.py`, and like it of the standard library only.

What is brought lies in the room under its hash and is linked into the workspace under its name, so that it costs none of the
job's own space. What is fetched is read when every process of the job is dead, never through a link.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Any

ROOM = os.path.dirname(os.path.abspath(__file__))
WORKSPACE = "/workspace"
PIECE = 256 * 1024
MOST_FILES = 256


def bring(frame: dict[str, Any]) -> None:
    """Put the job's files into its workspace, where it already is."""
    for name, digest in frame.get("bring", {}).items():
        folder = os.path.dirname(name)
        if folder:
            os.makedirs(folder, exist_ok=True)
        os.symlink(f"{ROOM}/in/{digest}", name)


def fetch(frame: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Send the files that are wanted, piece by piece. Returns what the result says of them."""
    left = frame.get("most", 0)
    listed: list[list[str]] = []
    for name in wanted(frame["fetch"]):
        try:
            descriptor = os.open(os.path.join(WORKSPACE, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                continue
            left -= found.st_size
            if left < 0 or len(listed) >= MOST_FILES:
                return {"files": listed, "too_large": True}
            sum_ = hashlib.sha256()
            empty = True
            while (piece := file.read(PIECE)) or empty:
                empty = False
                sum_.update(piece)
                send({"type": "file", "id": frame["id"], "name": name, "data": base64.b64encode(piece).decode()})
            listed.append([name, sum_.hexdigest()])
    return {"files": listed}


def wanted(patterns: list[str]) -> list[str]:
    """The names of all files in the workspace that are asked for, in order."""
    names = []
    for place, _, files in os.walk(WORKSPACE, followlinks=False):
        for file in files:
            name = os.path.relpath(os.path.join(place, file), WORKSPACE)
            if name.isprintable() and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                names.append(name)
    return sorted(names)
