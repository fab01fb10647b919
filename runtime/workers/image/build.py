"""Makes the image of the workers, once: `ensure_image()`, or by hand `python -m runtime.workers.image.build`.

Two recipes give the same thing, a Debian with Python's standard library and the time zones, run as nobody:

- as root with `debootstrap`: packages from a Debian mirror, then `docker import`; Docker Hub is not needed;
- else the Dockerfile beside this file, from `python:3.11-slim`.

The root file system of the first is kept as an archive in the cache folder, so that a new Docker engine gets it within
seconds. `inside.py` is deliberately not part of the image: it is mounted read-only beside the worker's socket, so that
a change of it costs nothing and the image is made anew only when a recipe changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.workers.image.common import HERE as HERE
from runtime.workers.image.common import ImageError as ImageError
from runtime.workers.image.common import alone, cache_folder, docker_command, has_image, last_words
from runtime.workers.image.layers import Tell, layer_tag, make_layer, remake

NAME = "agent-factory/worker"
SUITE = "bookworm"
PACKAGES = ("python3", "tzdata")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Nothing is ever installed, read or translated in a worker.
DROPPED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/lib/apt",
    "var/lib/apt",
    "var/lib/dpkg/info",
    "var/cache",
    "var/log",
)
CHANGES = (
    "ENV PATH=/usr/local/bin:/usr/bin:/bin",
    "ENV LANG=C.UTF-8",
    "USER 65534:65534",
    "WORKDIR /workspace",
    'CMD ["python3"]',
)


def image_tag(image: str = "base") -> str:
    """Name and tag of the image: the tag changes when a recipe changes."""
    recipe = (SUITE, PACKAGES, DROPPED, CHANGES, (HERE / "Dockerfile").read_text())
    base = f"{NAME}:{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    return base if image == "base" else layer_tag(image, base)


def ensure_image(docker_base_url: str | None = None) -> str:
    """The tag of the worker image, made first if this engine does not have it. Blocks, for minutes at worst.

    Raises ImageError. Processes that ask at the same time build it once.
    """
    tag = image_tag()
    docker = docker_command(docker_base_url)
    if has_image(docker, tag):
        return tag
    with alone("worker-image"):
        if not has_image(docker, tag):
            _make(docker, tag)
    return tag


def make_image(image: str, docker_base_url: str | None = None, tell: Tell = lambda line, progress: None) -> str:
    """The same for any of our images; `tell` hears how it goes. Raises ImageError."""
    tell(f"Making the worker image {image}", 0.0)
    base = ensure_image(docker_base_url)
    if image.startswith("custom:"):
        return remake(image, lambda like: make_image(like, docker_base_url, tell), docker_base_url, tell)
    return base if image == "base" else make_layer(image, base, docker_base_url, tell)


def _make(docker: Sequence[str], tag: str) -> None:
    archive = cache_folder() / f"worker-{tag.rpartition(':')[2]}.tar.gz"
    debootstrap = os.geteuid() == 0 and shutil.which("debootstrap") is not None
    if not archive.exists() and not debootstrap:
        _run([*docker, "build", "--tag", tag, str(HERE)])
        return
    if not archive.exists():
        _bootstrap(archive)
    changes = [word for change in CHANGES for word in ("--change", change)]
    _run([*docker, "import", *changes, str(archive), tag])


def _bootstrap(archive: Path) -> None:
    """Make a Debian with our packages and nothing else, and keep it as `archive`."""
    # Without one named, debootstrap takes the usual one of the suite.
    mirror = [named] if (named := os.environ.get("FACTORY_DEBIAN_MIRROR")) else []
    # Not the system's /tmp: it may be mounted noexec or nodev, where debootstrap cannot work.
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="root-") as folder:
        root = Path(folder)
        keyring = [f"--keyring={KEYRING}"] if KEYRING.exists() else []
        _run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", *keyring, SUITE, str(root), *mirror]
        )
        for dropped in DROPPED:
            shutil.rmtree(root / dropped, ignore_errors=True)
        _run(["find", str(root), "-xdev", "-type", "f", "-perm", "/6000", "-exec", "chmod", "a-s", "{}", "+"])
        workspace = root / "workspace"
        workspace.mkdir()
        os.chown(workspace, 65534, 65534)
        unfinished = archive.with_suffix(".part")
        # /dev comes from Docker; its device files could not be unpacked by an engine that runs without root.
        _run(["tar", "--create", "--gzip", f"--file={unfinished}", f"--directory={root}", "--exclude=./dev/*", "."])
        unfinished.replace(archive)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise ImageError(
            f"The worker image could not be made, `{command[0]}` said: {last_words(done.stdout)}",
            fix="It needs a Debian mirror (as root, with debootstrap installed) or Docker Hub. Check the network.",
        )


if __name__ == "__main__":
    try:
        print(ensure_image(sys.argv[1] if len(sys.argv) > 1 else None))
    except ImageError as error:
        sys.exit(f"{error.message} {error.fix}")
