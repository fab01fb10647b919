"""Identifiers that sort by time of making, and tokens that nobody can guess."""

import os
import secrets
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


def new_token() -> str:
    """26 random characters (130 bits), for an address that only those who were told it can know."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))
