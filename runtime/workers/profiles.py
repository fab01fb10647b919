"""How large a worker is, and what is in it: the sizes that everybody has, and those that a tenant makes for itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from nodes.errors import FactoryError

MIB: Final = 1024 * 1024
NOBODY: Final = 65534
IMAGES: Final = ("base", "data", "node")
"""The images that come with the product, by their short names."""
CUSTOM_IMAGE: Final = re.compile(r"custom:[0-9a-f]{12}")
RUNTIMES: Final = ("", "runsc")
"""What runs a container: the engine's own choice, or gVisor, which has a kernel of its own."""
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
# Figure: from, to. Who needs more than this needs another product.
BOUNDS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "cpus": (0.1, 16),
        "memory": (64 * MIB, 16_384 * MIB),
        "processes": (16, 1_024),
        "disk": (1 * MIB, 4_096 * MIB),
        "files": (64, 1_000_000),
        "shared_memory": (MIB // 16, 1_024 * MIB),
        "open_files": (64, 4_096),
        "output_limit": (1_024, 4 * MIB),
        "result_limit": (1_024, 16 * MIB),
        "input_limit": (1_024, 12 * MIB),
        "longest": (1, 86_400),
    }
)
MOST_SCRATCH: Final = 0.5  # of the memory: what a job leaves lying about counts as memory and must not end its worker


class BadProfile(FactoryError):
    """A profile with a figure that cannot be, or an image that nobody allowed."""

    code = "worker.profile"
    status = 422


@dataclass(frozen=True, slots=True)
class Profile:
    """How large a worker is. All sizes are in bytes, `longest` in seconds: no job may take more than that."""

    name: str = "small"
    cpus: float = 0.5
    memory: int = 128 * MIB
    processes: int = 64
    disk: int = 16 * MIB
    files: int = 2_048
    shared_memory: int = 1 * MIB
    open_files: int = 256
    output_limit: int = 1 * MIB
    result_limit: int = 4 * MIB
    input_limit: int = 8 * MIB
    longest: float = 900.0
    image: str = "base"
    runtime: str = ""

    def scratch(self) -> dict[str, str]:
        """The folders that a job may write to, all in memory, each with the options of its mount."""
        own = f"uid={NOBODY},gid={NOBODY},mode=0700"
        small = self.files // 4
        return {
            "/workspace": f"size={self.disk},nr_inodes={self.files},{own}",
            "/tmp": f"size={self.disk // 4},nr_inodes={small},{own}",  # noqa: S108 - the worker's own
            "/dev/shm": f"size={self.shared_memory},nr_inodes={small},{own}",  # noqa: S108
        }

    def checked(self) -> Profile:
        """This profile, if it may be. Raises BadProfile, which names the figure."""
        if not NAME.fullmatch(self.name):
            raise BadProfile(f"“{self.name}” is no name for a worker size.", fix="Use a-z, 0-9 and dashes, up to 40.")
        for figure, (least, most) in BOUNDS.items():
            value = getattr(self, figure)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise BadProfile(
                    f"The worker size “{self.name}” has {figure} {value!r}; it may be {least:g} to {most:g}."
                )
        if self.disk * 1.25 + self.shared_memory > self.memory * MOST_SCRATCH:
            raise BadProfile(
                f"The disk of the worker size “{self.name}” is too large for its memory.",
                fix="Its files live in memory: give it at least two and a half times as much memory as disk.",
            )
        if self.image not in IMAGES and not CUSTOM_IMAGE.fullmatch(self.image):
            raise BadProfile(f"There is no worker image “{self.image}”.", fix=f"Choose one of {', '.join(IMAGES)}.")
        if self.runtime not in RUNTIMES:
            raise BadProfile(f"Workers cannot be run by “{self.runtime}”.", fix="Leave it empty, or choose runsc.")
        return self


_SMALL: Final = Profile()
_MEDIUM: Final = Profile(
    "medium", cpus=1, memory=384 * MIB, processes=128, disk=64 * MIB, files=8_192, shared_memory=8 * MIB, open_files=512
)
_LARGE: Final = Profile(
    "large", cpus=2, memory=1_024 * MIB, processes=256, disk=256 * MIB, files=32_768, shared_memory=64 * MIB,
    open_files=1_024, output_limit=4 * MIB, result_limit=16 * MIB, input_limit=12 * MIB, longest=3_600,
)  # fmt: skip

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile.checked()
        for profile in (
            _SMALL,
            _MEDIUM,
            _LARGE,
            replace(_MEDIUM, name="data", memory=512 * MIB, image="data"),
            replace(_MEDIUM, name="node", image="node"),
        )
    }
)
"""The sizes that every tenant has."""


def read_sizes(text: str) -> dict[str, Profile]:
    """Sizes as an operator writes them: `reports:like=data,memory=768,image=custom:0123456789ab; tiny:cpus=0.25`.

    Memory, disk and the limits of what goes in and out are in MiB. Raises BadProfile.
    """
    sizes: dict[str, Profile] = {}
    for one in filter(None, (part.strip() for part in text.split(";"))):
        name, _, said = one.partition(":")
        figures: dict[str, Any] = {}
        for pair in filter(None, (part.strip() for part in said.split(","))):
            figure, _, value = (part.strip() for part in pair.partition("="))
            if figure in ("like", "image", "runtime"):
                figures[figure] = value
                continue
            try:
                number = float(value)
            except ValueError:
                raise BadProfile(
                    f"“{pair}” in the worker size “{name}” is no figure.", fix="Write memory=256."
                ) from None
            figures[figure] = (
                number if figure in ("cpus", "longest") else int(number * (MIB if figure in _IN_MIB else 1))
            )
        sizes[name.strip()] = custom(name.strip(), **figures)
    return sizes


_IN_MIB: Final = frozenset({"memory", "disk", "shared_memory", "output_limit", "result_limit", "input_limit"})


def custom(name: str, *, like: str = "small", **figures: Any) -> Profile:
    """A size of a tenant's own: one of ours with some figures changed. Raises BadProfile."""
    if name in PROFILES:
        raise BadProfile(f"Every tenant has a worker size “{name}” already.", fix="Choose another name.")
    if like not in PROFILES:
        raise BadProfile(f"There is no worker size “{like}”.", fix=f"Choose one of {', '.join(PROFILES)}.")
    unknown = sorted(figures.keys() - BOUNDS.keys() - {"image", "runtime"})
    if unknown:
        raise BadProfile(f"A worker size has no “{unknown[0]}”.", fix=f"It has {', '.join(BOUNDS)}, image and runtime.")
    return replace(PROFILES[like], name=name, **figures).checked()
