"""What triggers wait for, as plain declarations; the runtime wires them to addresses, clocks and pages."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Manual:
    """Somebody presses "Run"."""


@dataclass(frozen=True, slots=True)
class CalledField:
    """One thing that a called agent needs or gives back; kind is text, number, yes/no, list, record or any."""

    name: str
    kind: str = "any"
    required: bool = True


@dataclass(frozen=True, slots=True)
class Called:
    """Another agent calls this one with these fields, and gets these back."""

    fields: tuple[CalledField, ...] = ()
    returns: tuple[CalledField, ...] = ()


@dataclass(frozen=True, slots=True)
class Webhook:
    """An HTTP call to `/hooks/{path}`; `secret` names the key of the HMAC signature, empty for an open address.
    While the key is changed, `old_secret` names the one before, which is heard too.

    `respond`: `now` answers 202 once the run is safely recorded, `end` waits for the "respond" step or the end of the run.
    """

    path: str
    method: Literal["ANY", "GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    secret: str = ""
    respond: Literal["now", "end"] = "now"
    old_secret: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Moments by the clock: a cron text in a time zone, or every N seconds when `every` is set.

    With `at` (such as `09:00`) `every` is whole days, and `at` the time of day in the time zone. `nodes.moments.upcoming`
    says when that is.
    """

    cron: str = ""
    every: float = 0
    at: str = ""
    time_zone: str = "UTC"
    catch_up: Literal["skip", "once", "all"] = "once"
    most: int = 10
    """With `all`: how many of the missed moments are made up for, the latest ones."""
    jitter: int = 0
    """Seconds that a start may come later, by chance, so that not everything starts in the same second."""


@dataclass(frozen=True, slots=True)
class FormField:
    """One question of a hosted form."""

    name: str
    label: str
    kind: Literal["text", "long text", "number", "yes/no", "choice", "date", "e-mail"] = "text"
    required: bool = True
    choices: tuple[str, ...] = ()
    help: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """A hosted page at `/forms/{path}` made from fields."""

    path: str
    title: str
    intro: str
    fields: tuple[FormField, ...]
    thanks: str
    respond: Literal["now", "end"] = "now"


@dataclass(frozen=True, slots=True)
class Chat:
    """A hosted conversation at `/chat/{path}`; each message starts a run whose response is the answer."""

    path: str
    title: str
    welcome: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run of another agent ended in one of these states."""

    blueprint: str
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowAdded:
    """Somebody or an agent added rows to a table."""

    table: str


@dataclass(frozen=True, slots=True)
class FileArrived:
    """A file was kept on the shelf whose name fits: `*` stands for anything, `?` for one character."""

    name: str


Event = RunEnded | RowAdded | FileArrived


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern of `*` and `?`; upper and lower case are the same."""
    wanted, given = pattern.casefold(), name.casefold()
    at, place, star, back = 0, 0, -1, 0
    while place < len(given):
        if at < len(wanted) and wanted[at] == "*":
            star, back = at, place
            at += 1
        elif at < len(wanted) and wanted[at] in ("?", given[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            back += 1
            at, place = star + 1, back
        else:
            return False
    return all(char == "*" for char in wanted[at:])


Listen = Manual | Called | Webhook | Schedule | Form | Chat | RunEnded | RowAdded | FileArrived
