"""Where the rooms of workers are: one folder for each, with its socket and what it runs, mounted read-only into it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def place_of_rooms(home: str) -> Path:
    """The folder of the rooms of one installation."""
    if os.geteuid() == 0:
        base = Path("/run/agent-factory")
    elif os.environ.get("XDG_RUNTIME_DIR"):
        base = Path(os.environ["XDG_RUNTIME_DIR"]) / "agent-factory"
    else:
        base = Path(tempfile.gettempdir()) / f"agent-factory-{os.geteuid()}"
    return base / home
