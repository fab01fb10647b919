"""What a hosted chat page remembers: the conversation so far, carried by the page itself and signed, so that a server that
starts anew knows it and nobody can put words into the agent's mouth."""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import orjson

from nodes.ids import new_id

KEPT = 20
"""Messages of the past that a run is told."""
LONGEST = 4_000
"""Characters of a past message that are kept."""
MESSAGE = 10_000
"""Characters of a new message."""


@dataclass(slots=True)
class Talk:
    """One conversation: its id, and what was said, oldest first."""

    id: str = field(default_factory=lambda: new_id("talk"))
    said: list[dict[str, str]] = field(default_factory=list)

    def add(self, role: str, text: str) -> None:
        """Something was said."""
        self.said = [*self.said, {"role": role, "text": text[:LONGEST]}][-KEPT:]

    def event(self, text: str) -> dict[str, Any]:
        """What a run is started with."""
        return {"text": text, "conversation": self.id, "history": list(self.said)}

    def seal(self, key: bytes, path: str) -> str:
        """As a text for the page, which only this installation can have made for this chat."""
        body = urlsafe_b64encode(orjson.dumps({"id": self.id, "said": self.said})).decode()
        return f"{body}.{_mark(key, path, body)}"


def opened(key: bytes, path: str, sealed: str) -> Talk:
    """The conversation that the page carried; a new one when it carried none, or one that was tampered with."""
    body, _, mark = sealed.rpartition(".")
    if not body or not hmac.compare_digest(_mark(key, path, body).encode(), mark.encode()):
        return Talk()
    try:
        data = orjson.loads(urlsafe_b64decode(body))
    except (binascii.Error, orjson.JSONDecodeError):
        return Talk()
    return Talk(str(data["id"]), list(data["said"]))


def _mark(key: bytes, path: str, body: str) -> str:
    return hmac.new(key, f"chat\n{path}\n{body}".encode(), hashlib.sha256).hexdigest()
