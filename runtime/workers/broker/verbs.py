"""What may be asked of a Docker engine: one type for each verb, and nothing that any of them could be bent to.

A worker is named by its id and described by a profile. There is no field for a path, a mount, a network, a privilege, a
capability, a command, an environment or a foreign image; `engine.py` fixes all of these. A verb that says more than its
type has is refused, wherever it comes from.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nodes.categories import Category
from nodes.errors import FactoryError
from runtime.workers.profiles import BOUNDS, CUSTOM_IMAGE, IMAGES, NAME, BadProfile, Profile

WorkerId: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
ImageName: TypeAlias = Annotated[str, Field(pattern=rf"^({'|'.join(IMAGES)}|{CUSTOM_IMAGE.pattern})$")]
MOST_TEXT: Final = 64 * 1024


class BadVerb(FactoryError):
    """Something was asked of the broker that it does not do."""

    code = "worker.verb"
    status = 400
    category = Category.WORKER


class _Verb(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _between(figure: str) -> Any:
    least, most = BOUNDS[figure]
    return Field(ge=least, le=most)


class Size(_Verb):
    """A profile as it travels."""

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    cpus: Annotated[float, _between("cpus")]
    memory: Annotated[int, _between("memory")]
    processes: Annotated[int, _between("processes")]
    disk: Annotated[int, _between("disk")]
    files: Annotated[int, _between("files")]
    shared_memory: Annotated[int, _between("shared_memory")]
    open_files: Annotated[int, _between("open_files")]
    output_limit: Annotated[int, _between("output_limit")]
    result_limit: Annotated[int, _between("result_limit")]
    input_limit: Annotated[int, _between("input_limit")]
    longest: Annotated[float, _between("longest")]
    image: ImageName
    runtime: Literal["", "runsc"]

    @classmethod
    def of(cls, profile: Profile) -> Size:
        """Raises BadProfile."""
        try:
            return cls(**asdict(profile.checked()))
        except ValidationError as error:
            raise BadProfile(f"The worker size “{profile.name}” cannot be used: {_said(error)}") from error

    def profile(self) -> Profile:
        """Raises BadProfile."""
        return Profile(**self.model_dump()).checked()


class Ready(_Verb):
    """Is the engine there, and what can it do? Answers `Engine`'s facts."""

    verb: Literal["ready"] = "ready"


class Prepare(_Verb):
    """Make the empty folder in which a worker's socket will be."""

    verb: Literal["prepare"] = "prepare"
    worker: WorkerId


class Create(_Verb):
    """Make a worker's container in the folder that was prepared for it; it does not run yet."""

    verb: Literal["create"] = "create"
    worker: WorkerId
    size: Size


class Start(_Verb):
    """Run a container that was created, or that was killed."""

    verb: Literal["start"] = "start"
    worker: WorkerId


class Stop(_Verb):
    """Ask the first process to end, and kill it after `patience` seconds."""

    verb: Literal["stop"] = "stop"
    worker: WorkerId
    patience: Annotated[int, Field(ge=0, le=60)] = 1


class Kill(_Verb):
    """End all processes at once; the container stays."""

    verb: Literal["kill"] = "kill"
    worker: WorkerId


class Pause(_Verb):
    """Freeze all processes. Their memory stays taken."""

    verb: Literal["pause"] = "pause"
    worker: WorkerId


class Unpause(_Verb):
    """Let frozen processes go on."""

    verb: Literal["unpause"] = "unpause"
    worker: WorkerId


class Remove(_Verb):
    """End and remove a container together with its folder. Doing it twice does no harm."""

    verb: Literal["remove"] = "remove"
    worker: WorkerId


class List(_Verb):
    """All workers of this installation that the engine has, in whatever state."""

    verb: Literal["list"] = "list"


class Inspect(_Verb):
    """How one worker is: running, paused, its exit code, whether it lacked memory."""

    verb: Literal["inspect"] = "inspect"
    worker: WorkerId


class Logs(_Verb):
    """The last lines that the first process wrote."""

    verb: Literal["logs"] = "logs"
    worker: WorkerId
    lines: Annotated[int, Field(ge=1, le=1_000)] = 20


class Stats(_Verb):
    """Processor time, memory and processes of one worker, as the engine counts them."""

    verb: Literal["stats"] = "stats"
    worker: WorkerId


class Events(_Verb):
    """From now on: every start, pause, lack of memory and death of a worker of this installation. A stream."""

    verb: Literal["events"] = "events"


class HaveImage(_Verb):
    """Have an image: make it if it is one of ours and is missing. A stream of progress."""

    verb: Literal["have_image"] = "have_image"
    image: ImageName


class BuildImage(_Verb):
    """Make a custom image out of locked packages, or by the steps of a Dockerfile without a network. A stream of progress.

    `lock` is a requirements file in which each package has its version and its hashes; with `packages` instead, the
    lock is made first and is part of the answer.
    """

    verb: Literal["build_image"] = "build_image"
    like: Literal["base", "data", "node"] = "base"
    packages: tuple[Annotated[str, Field(max_length=200)], ...] = ()
    lock: Annotated[str, Field(max_length=4 * 1024 * 1024)] = ""
    dockerfile: Annotated[str, Field(max_length=MOST_TEXT)] = ""
    preload: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$")], ...] = ()


class DropImage(_Verb):
    """Remove a custom image that no worker uses."""

    verb: Literal["drop_image"] = "drop_image"
    image: Annotated[str, Field(pattern=f"^{CUSTOM_IMAGE.pattern}$")]


Verb: TypeAlias = (
    Ready
    | Prepare
    | Create
    | Start
    | Stop
    | Kill
    | Pause
    | Unpause
    | Remove
    | List
    | Inspect
    | Logs
    | Stats
    | DropImage
)
"""What has one answer."""
Stream: TypeAlias = Events | HaveImage | BuildImage
"""What has many answers, one after the other."""
Answer: TypeAlias = dict[str, Any]

STREAMS: Final = (Events, HaveImage, BuildImage)
QUESTIONS: Final = (Ready, List, Inspect, Logs, Stats)
"""What changes nothing, and is answered while other work goes on."""
_ANY: Final[TypeAdapter[Verb | Stream]] = TypeAdapter(Annotated[Verb | Stream, Field(discriminator="verb")])


def read(text: bytes | str) -> Verb | Stream:
    """A verb out of what came over a socket. Raises BadVerb."""
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        raise BadVerb(f"The broker does not do this: {_said(error)}") from error


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
