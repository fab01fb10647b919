"""What validation says, in the words of a form."""

import re
from typing import Final

EMPTY: Final = "this is still empty."
STRANGE: Final = "this setting is not known here."

_SAID = (
    (re.compile(r"Field required"), EMPTY),
    (re.compile(r"String should have at least 1 character"), EMPTY),
    (re.compile(r"String should have at least (\d+) characters"), "write at least {0} characters."),
    (re.compile(r"String should have at most (\d+) characters?"), "this is too long: at most {0} characters."),
    (re.compile(r"String should match pattern.*"), "this has characters that cannot be used here."),
    (re.compile(r"Input should be greater than or equal to (.+)"), "this must be at least {0}."),
    (re.compile(r"Input should be greater than (.+)"), "this must be more than {0}."),
    (re.compile(r"Input should be less than or equal to (.+)"), "this must be at most {0}."),
    (re.compile(r"Input should be less than (.+)"), "this must be less than {0}."),
    (re.compile(r"Input should be a valid (?:integer|number).*"), "write a number."),
    (re.compile(r"Input should be a valid boolean.*"), "choose yes or no."),
    (re.compile(r"Input should be a valid string.*"), "write a text."),
    (re.compile(r"Input should be a valid list"), "this must be a list."),
    (re.compile(r"Input should be a valid dictionary.*"), "this must be a record."),
    (re.compile(r"Input should be a finite number"), "write a number."),
    (re.compile(r"List should have at least 1 item.*"), "add at least one."),
    (re.compile(r"List should have at least (\d+) items.*"), "add at least {0}."),
    (re.compile(r"List should have at most (\d+) items?.*"), "these are too many: at most {0}."),
    (re.compile(r"Input should be '(.+)'"), "choose one of: {0}."),
    (re.compile(r"Extra inputs are not permitted"), STRANGE),
)


def in_words(said: str) -> str:
    """A message of validation as a person says it; one of our own as it is."""
    for pattern, words in _SAID:
        if found := pattern.fullmatch(said):
            return words.replace("{0}", _digits(found[1])) if found.groups() else words
    return said


def _digits(said: str) -> str:
    return f"{int(said):,}" if said.isdecimal() else said.replace("'", "")
