"""Identifiers: a short prefix that says what it is, then 26 characters that sort by time of making."""

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32, lower case: no i, l, o, u


def new_id(prefix: str) -> str:
    """A new identifier such as `run_01kd3v…`: 48 bits of milliseconds, then 80 random bits (the ULID layout)."""
    number = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    digits = []
    for _ in range(26):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    digits.reverse()
    return f"{prefix}_{''.join(digits)}"
