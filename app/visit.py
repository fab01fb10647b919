"""Who stands behind a request: the visit that the guard notes in each ASGI scope, and the session in it."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from nodes.errors import FactoryError
from runtime.policy import Actor

_KEY = "factory.visit"


class SignedOut(FactoryError):
    """There is no session, or it has ended."""

    code = "auth.signed_out"
    status = 401

    def __init__(self, message: str = "You are signed out.", *, fix: str = "Sign in again.") -> None:
        super().__init__(message, fix=fix)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person, or a program with a token. `id` is the hash of the secret, never the secret."""

    id: str
    actor: Actor
    email: str
    expires_at: float
    csrf: str = field(default="", repr=False)


@dataclass(slots=True)
class Visit:
    """What the guard found out about one request."""

    session: Session | None = None
    nonce: str = ""
    """The one-time word that lets this response's own scripts run."""
    theme: Literal["light", "dark", "system"] = "system"
    address: str = ""

    @classmethod
    def of(cls, scope: MutableMapping[str, Any]) -> Visit:
        """The visit of a scope. A scope that did not pass the guard has an anonymous one."""
        return cast(Visit, scope.get(_KEY)) or cls()

    def note(self, scope: MutableMapping[str, Any]) -> None:
        """Put this visit into the scope."""
        scope[_KEY] = self
