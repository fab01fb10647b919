"""What kind of trouble a failure is: ten categories, each with a plain word, what it means and what usually helps."""

from enum import StrEnum
from typing import Final, NamedTuple


class Category(StrEnum):
    """Every failure has exactly one."""

    INPUT = "input"
    CONFIGURATION = "configuration"
    CREDENTIAL = "credential"
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    REMOTE = "remote"
    WORKER = "worker"
    MODEL = "model"
    LIMIT = "limit"
    BUG = "bug"

    @property
    def word(self) -> str:
        """What people call it."""
        return _SAID[self].word

    @property
    def means(self) -> str:
        """What has happened, in a sentence."""
        return _SAID[self].means

    @property
    def helps(self) -> str:
        """What usually helps, in a sentence."""
        return _SAID[self].helps

    @classmethod
    def read(cls, text: object) -> "Category":
        """The category of that name; what is none was not foreseen."""
        try:
            return cls(str(text))
        except ValueError:
            return cls.BUG


class _Said(NamedTuple):
    word: str
    means: str
    helps: str


_SAID: Final = {
    Category.INPUT: _Said(
        "Data",
        "What came in is not what a step can work with.",
        "Correct the data and try again, or let the agent check it first.",
    ),
    Category.CONFIGURATION: _Said(
        "Settings",
        "A step or the agent is set up in a way that cannot work.",
        "Change it in the Studio, deploy, and try again with the newest version.",
    ),
    Category.CREDENTIAL: _Said(
        "Sign-in",
        "A password, key or permission is missing, wrong or has expired.",
        "Renew it under Settings → Secrets, then try again.",
    ),
    Category.RATE_LIMIT: _Said(
        "Too many calls",
        "The other side asked us to slow down.",
        "Try again later, or let the step try again by itself with longer pauses.",
    ),
    Category.TIMEOUT: _Said(
        "Too slow",
        "A step took longer than it may.",
        "Try again; if that happens often, raise the step's time limit or ask for less at once.",
    ),
    Category.REMOTE: _Said(
        "Other side",
        "A service that the agent calls failed, refused or cannot be reached.",
        "Try again when it works again; if it refused, see what it said.",
    ),
    Category.WORKER: _Said(
        "Server",
        "What the work is done with was not available: a worker, the database or the disk.",
        "Try again; if it stays like that, an admin should look at the server.",
    ),
    Category.MODEL: _Said(
        "Language model",
        "The language model refused, failed, or answered something that cannot be used.",
        "Try again, or make the instructions clearer.",
    ),
    Category.LIMIT: _Said(
        "Limit",
        "More was asked for than may be done at once.",
        "Ask for less at once, or let an admin raise the limit.",
    ),
    Category.BUG: _Said(
        "Unforeseen",
        "Something happened that nobody had foreseen.",
        "Try it in the sandbox with the same input; if it fails again, tell whoever runs the server.",
    ),
}

HOPELESS: Final = frozenset({Category.INPUT, Category.CONFIGURATION, Category.CREDENTIAL, Category.LIMIT})
"""Where doing the same again gives the same again."""
