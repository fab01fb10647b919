"""Sets up everything the product needs in this folder, and says what it does: `python3 deploy/setup.py [--dev]`.

Called by `make run` and `make test`. Needs nothing but Python 3.11 to 3.13 with venv: it makes `.venv`, installs the
packages of `requirements.lock` (with `--dev`: `requirements-dev.lock`), each checked against its hash, and installs this
checkout in place, which fetches the canvas libraries. What is done already and has not changed since is not done again, so
a second start needs neither time nor network.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
DONE = VENV / "setup.json"
UV_LOCK = ROOT / "deploy" / "requirements-uv.lock"
BUILD_LOCK = ROOT / "deploy" / "requirements-build.lock"
LOCK = ROOT / "requirements.lock"
DEV_LOCK = ROOT / "requirements-dev.lock"
OLDEST, TOO_NEW = (3, 11), (3, 14)


def main() -> None:
    """Do what is missing, in order."""
    started = time.monotonic()
    use_a_fitting_python()
    dev = "--dev" in sys.argv[1:]
    done = read_done()
    if not done:
        make_venv()
    steps: list[tuple[str, str, Callable[[], None], str]] = [
        ("uv", fingerprint([UV_LOCK]), install_uv, "Installing uv, which installs everything else quickly"),
        packages_step(dev, done),
        (
            "checkout",
            fingerprint([ROOT / "pyproject.toml", BUILD_LOCK, *sorted((ROOT / "assets" / "web").glob("*"))]),
            install_checkout,
            "Installing this folder as the command `factory`, and fetching the libraries of the canvas",
        ),
    ]
    if not canvas_is_current():
        done.pop("checkout", None)
    did_something = False
    for name, wanted, action, words in steps:
        # Syncing the packages removes what is not in the lock, and so this checkout too.
        if done.get(name) == wanted and not (name == "checkout" and did_something):
            continue
        say(f"{words} …")
        done.pop(name, None)
        write_done(done)
        action()
        done[name] = wanted
        write_done(done)
        did_something = True
    if did_something:
        say(f"Everything is set up ({time.monotonic() - started:.0f} s).")


def use_a_fitting_python() -> None:
    """Go on with a Python that the product supports, if this one is not."""
    if OLDEST <= sys.version_info[:2] < TOO_NEW:
        return
    for name in ("python3.13", "python3.12", "python3.11"):
        if found := shutil.which(name):
            os.execv(found, [found, *sys.argv])
    here = ".".join(map(str, sys.version_info[:2]))
    fail(
        f"Agent Factory needs Python 3.11, 3.12 or 3.13; this is {here}.",
        "Install one beside it, for example: sudo apt-get install python3.12 python3.12-venv",
    )


def make_venv() -> None:
    """Make `.venv`, anew if it is half made or was moved here from another folder."""
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        fail("Python's module for virtual environments is missing.", "sudo apt-get install python3-venv")
    say("Making .venv, a folder for this product's own Python packages …")
    # A base of our own would be the environment that we are about to remove, if started from within it.
    base = getattr(sys, "_base_executable", sys.executable)
    call([base, "-m", "venv", "--clear", str(VENV)], "The folder .venv could not be made.")


def install_uv() -> None:
    """Install uv by pip."""
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    call([*command, "--requirement", str(UV_LOCK)], "uv could not be installed from PyPI.")


def packages_step(dev: bool, done: dict[str, str]) -> tuple[str, str, Callable[[], None], str]:
    """The step that installs the locked packages; the product alone is content with those of a developer."""
    if not dev and done.get("packages") == fingerprint([DEV_LOCK]):
        dev = True
    lock = DEV_LOCK if dev else LOCK
    count = sum("==" in line and not line.startswith((" ", "#")) for line in lock.read_text().splitlines())
    words = f"Installing {count} packages of {lock.name}, each checked against its hash (a minute the first time)"
    return "packages", fingerprint([lock]), lambda: install_packages(lock), words


def install_packages(lock: Path) -> None:
    """Make `.venv` hold exactly what the lock says."""
    uv(
        ["pip", "sync", "--compile-bytecode", "--require-hashes", str(lock)],
        "The packages could not be installed from PyPI.",
    )


def install_checkout() -> None:
    """Install this folder in place; the build hook fetches the canvas libraries."""
    # Refreshed, so that the hook runs even where uv has built the same folder before.
    again = ["--reinstall-package", "agent-factory", "--refresh-package", "agent-factory"]
    options = ["--no-deps", "--build-constraints", str(BUILD_LOCK), *again]
    uv(["pip", "install", *options, "--editable", str(ROOT)], "The product could not be installed in .venv.")


def canvas_is_current() -> bool:
    """Whether the canvas libraries are there as pinned."""
    return bool(runpy.run_path(str(ROOT / "assets" / "web" / "fetch.py"))["is_current"]())


def uv(arguments: list[str], sorry: str) -> None:
    """Run uv on `.venv`, whatever environment is active outside."""
    call([str(VENV / "bin" / "uv"), "--quiet", *arguments, "--python", str(PYTHON)], sorry)


def call(command: list[str], sorry: str) -> None:
    """Run a program; if it fails, its own words stand above ours."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        fail(sorry, "Its own words are above. Check the network connection and the free space, then start again.")


def fingerprint(paths: Iterable[Path]) -> str:
    """One hash over the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_done() -> dict[str, str]:
    """What was done in this `.venv`, by name of step; nothing when it is not there or was made elsewhere."""
    try:
        done = json.loads(DONE.read_text())
    except (OSError, ValueError):
        return {}
    # Its scripts name the folder where they were made; a changed system Python leaves a dead link.
    return done if done.get("folder") == str(ROOT) and PYTHON.exists() else {}


def write_done(done: dict[str, str]) -> None:
    """Remember what is done, also when a later step fails."""
    DONE.write_text(json.dumps({**done, "folder": str(ROOT)}))


def say(sentence: str) -> None:
    """A line to the person who waits."""
    print(f"• {sentence}", flush=True)


def fail(sentence: str, fix: str) -> None:
    """End with what went wrong and what to do."""
    sys.exit(f"\n{sentence}\n→ {fix}")


if __name__ == "__main__":
    main()
