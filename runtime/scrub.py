"""Takes secret values out of what goes back to people, models and the journal."""

import base64
import json
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "•••"
_LONG = 16  # longer than words in paths usually are
_SHORTEST_IN_BODIES = 6  # a shorter one would be found in innocent text everywhere


class Scrubber:
    """Knows the secrets of one call, in the spellings in which they tend to come back."""

    def __init__(self, values: tuple[str, ...] = ()) -> None:
        self._spellings: list[str] = []
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Hide this value from now on."""
        value = value.strip()
        if not value:
            return
        encoded = base64.b64encode(value.encode()).decode()
        spellings = {
            value,
            value.encode().decode("latin-1"),  # how many servers read the bytes of a header
            quote(value, safe=""),
            quote(value),
            quote_plus(value),
            json.dumps(value)[1:-1],
            json.dumps(value, ensure_ascii=False)[1:-1],
            json.dumps(value.encode().decode("latin-1"), ensure_ascii=False)[1:-1],
            encoded,
            encoded.rstrip("="),
            base64.urlsafe_b64encode(value.encode()).decode(),
            value.encode().hex(),
            value.encode().hex().upper(),
        }
        # The longest first, or a part of it would be left standing.
        self._spellings = sorted({*self._spellings, *spellings}, key=len, reverse=True)

    def add_address(self, value: str) -> None:
        """Hide what makes an address a secret: errors of servers tend to name the path that was asked for, without the host."""
        self.add(value)
        try:
            parts = urlsplit(value.strip())
        except ValueError:
            return
        path = parts.path.rstrip("/")
        wholes = [path, f"{path}?{parts.query}" if parts.query else "", parts.query]
        pieces = [*path.split("/"), *(given for _, given in parse_qsl(parts.query))]
        for one in [one for one in wholes if len(one) >= _SHORTEST_IN_BODIES] + [one for one in pieces if _is_key(one)]:
            self.add(one)
            self.add(unquote(one))

    def text(self, text: str) -> str:
        """The text with every secret hidden."""
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, HIDDEN)
        return text

    def bytes(self, content: bytes) -> bytes:
        """The content with every secret hidden that is long enough to be told from chance."""
        for spelling in self._spellings:
            if len(spelling) >= _SHORTEST_IN_BODIES:
                content = content.replace(spelling.encode(), HIDDEN.encode())
        return content


def _is_key(piece: str) -> bool:
    """Whether a part of an address looks like a key and not like a word of its path."""
    return len(piece) >= _LONG or (len(piece) >= _SHORTEST_IN_BODIES and any(letter.isdigit() for letter in piece))
