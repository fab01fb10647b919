"""What members may ask for at their door, field by field: whatever does not fit is refused before anything looks at it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from runtime.crews.exchange import LONGEST_REQUEST, BadMessage
from runtime.crews.manifest import Topic

Key = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,119}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z0-9_-]+$")]
Wait = Annotated[float, Field(ge=0, le=30)]


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    token: str = Field(max_length=4_096)


class Renew(_Call):
    """Send fresh tokens on this line from now on."""

    do: Literal["renew"]


class Publish(_Call):
    """Tell a topic."""

    do: Literal["publish"]
    topic: Topic
    body: Any = None


class Subscribe(_Call):
    """Listen to a topic."""

    do: Literal["subscribe"]
    topic: Topic


class Next(_Call):
    """Wait for a message."""

    do: Literal["next"]
    seconds: Wait = 0.0


class Request(_Call):
    """Ask a member."""

    do: Literal["request"]
    to: Id
    body: Any = None
    seconds: Annotated[float, Field(gt=0, le=LONGEST_REQUEST)] = 30.0


class Reply(_Call):
    """Answer a request."""

    do: Literal["reply"]
    to: Id
    body: Any = None


class Members(_Call):
    """Who is there."""

    do: Literal["members"]


class Get(_Call):
    """A shared value."""

    do: Literal["get"]
    key: Key


class Set(_Call):
    """Share a value."""

    do: Literal["set"]
    key: Key
    value: Any = None


class Swap(_Call):
    """Share a value if nobody changed it."""

    do: Literal["swap"]
    key: Key
    was: Any = None
    value: Any = None


class Delete(_Call):
    """Remove a value."""

    do: Literal["delete"]
    key: Key


class Keys(_Call):
    """The names of the values."""

    do: Literal["keys"]


class Push(_Call):
    """Give a task."""

    do: Literal["push"]
    queue: Topic
    body: Any = None


class Pop(_Call):
    """Take a task."""

    do: Literal["pop"]
    queue: Topic
    seconds: Wait = 0.0


class WriteFile(_Call):
    """Share a file; `data` is base64."""

    do: Literal["write_file"]
    name: FileName
    data: str = Field(max_length=1_500_000)


class ReadFile(_Call):
    """A shared file."""

    do: Literal["read_file"]
    name: FileName


class Files(_Call):
    """The names of the files."""

    do: Literal["files"]


Call = (
    Renew | Publish | Subscribe | Next | Request | Reply | Members | Get | Set | Swap | Delete | Keys
    | Push | Pop | WriteFile | ReadFile | Files
)  # fmt: skip

SCOPE: Final[dict[type[BaseModel], str]] = {
    Renew: "crew:read",
    Publish: "crew:send",
    Request: "crew:send",
    Reply: "crew:send",
    Subscribe: "crew:read",
    Next: "crew:read",
    Members: "crew:read",
    Get: "crew:read",
    Keys: "crew:read",
    Set: "crew:write",
    Swap: "crew:write",
    Delete: "crew:write",
    Push: "task:push",
    Pop: "task:pop",
    WriteFile: "file:write",
    ReadFile: "file:read",
    Files: "file:read",
}
_CALLS: Final[TypeAdapter[Call]] = TypeAdapter(Annotated[Call, Field(discriminator="do")])


def read_call(data: bytes) -> Call:
    """The call that a frame is. Raises BadMessage."""
    try:
        return _CALLS.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"][1:])
        raise BadMessage(f"This is not something to ask the crew for: {place or 'it'}: {first['msg'][:200]}") from None
