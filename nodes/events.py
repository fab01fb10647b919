"""Events that agents send each other: their names and keys."""

import re
from typing import Any, Final

from nodes.base import NodeError
from nodes.compiling import Code, Writer, atom
from nodes.texts import as_key

EVENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
"""Names of events."""
_LONGEST = 400


def event_key(given: Any) -> str:
    """A key as it is compared: 7 and "7" are the same. Raises NodeError for one that is too long, or no key."""
    key = (given or "").strip() if given is None or isinstance(given, str) else as_key(given).decode()
    if len(key) > _LONGEST:
        raise NodeError(
            f"The key of an event has at most {_LONGEST} characters.", fix="Use an id as the key, such as `order.id`."
        )
    return key


def written_key(w: Writer, formula: str) -> Code:
    """The key that a formula gives, as Python."""
    return w.use(event_key, w.formula(formula)) if formula.strip() else atom('""')
