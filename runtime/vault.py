"""Secrets: written by people, read by the doors alone, kept encrypted under a key that is not in the database.

AES-256-GCM with a fresh 96-bit nonce for each value (NIST SP 800-38D); tenant, environment and name are bound in as associated
data, so a row copied to another tenant, environment or name does not open.
"""

import os
import time
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nodes.base import NodeError
from nodes.categories import Category
from nodes.errors import FactoryError, NotFound
from runtime.environments import LIVE, SHARED, check_place
from runtime.policy import Actor, Permission
from storage import secret as rows
from storage.database import Database

MAX_SECRET = 32_768  # characters


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be known of a secret: everything but its value."""

    name: str
    updated_at: float
    updated_by: str
    environment: str = SHARED
    """Where this value counts; empty for both."""


class BadKey(FactoryError):
    """The installation's key does not fit the secrets in the database."""

    code = "vault.key"
    status = 500
    category = Category.CREDENTIAL


class Vault:
    """The secrets of every tenant. `key` is 32 bytes."""

    def __init__(self, db: Database, key: bytes) -> None:
        self._db = db
        self._cipher = AESGCM(key)

    async def names(self, who: Actor) -> list[SecretInfo]:
        """Which secrets there are, by name."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, rows.listed)
        return [SecretInfo(row.name, row.updated_at, row.updated_by, row.environment) for row in found]

    async def put(self, who: Actor, name: str, value: str, *, environment: str = LIVE) -> None:
        """Set a secret for one environment, or for both (`""`). Nobody can read it back."""
        who.require(Permission.SECRETS)
        check_place(environment)
        name = name.strip()
        if not name or len(name) > 100 or not all(c.isalnum() or c in "_-. " for c in name):
            raise FactoryError(
                "A secret's name is up to 100 letters, digits, spaces, “_”, “-” or “.”.", code="secret.name", status=422
            )
        if not value or len(value) > MAX_SECRET:
            raise FactoryError(
                f"A secret has between 1 and {MAX_SECRET:,} characters.", code="secret.value", status=422
            )
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, value.encode(), _bound(who.tenant, environment, name))
        now, by = time.time(), who.name
        await self._db.write(
            who.tenant,
            lambda session: rows.put(
                session, name, ciphertext=sealed.hex(), nonce=nonce.hex(), at=now, by=by, environment=environment
            ),
        )

    async def delete(self, who: Actor, name: str, *, environment: str | None = None) -> None:
        """Forget a secret in one environment, or every value of it. Raises NotFound."""
        who.require(Permission.SECRETS)
        if not await self._db.write(who.tenant, lambda session: rows.remove(session, name, environment)):
            raise NotFound(f"There is no secret “{name}”.")

    async def reveal(self, tenant: str, name: str, environment: str = LIVE) -> str:
        """The value in an environment, for the doors alone. One that is set elsewhere only is not taken. Raises NodeError when there is none, BadKey when the key does not fit."""
        row = await self._db.read(tenant, lambda session: rows.get(session, name, environment))
        if row is None:
            elsewhere = await self._db.read(tenant, lambda session: rows.of(session, name)) if name else ()
            if elsewhere:
                raise NodeError(
                    f"The secret “{name}” has a value in {elsewhere[0].environment}, but none in {environment}, "
                    "where this runs.",
                    category="credential",
                    fix=f"Under Settings → Secrets, set it for {environment}, or set one value for both.",
                )
            raise NodeError(
                f"There is no secret “{name}”." if name else "No secret is chosen.",
                category="credential",
                fix="Add it under Settings → Secrets, or choose another one in the step.",
            )
        try:
            return self._open(tenant, row)
        except InvalidTag:
            raise BadKey(
                f"The secret “{name}” cannot be opened with this installation's key.",
                fix="Restore the folder keys that belongs to this database, or set the secret again.",
            ) from None

    def _open(self, tenant: str, row: rows.Secret) -> str:
        nonce, sealed = bytes.fromhex(row.nonce), bytes.fromhex(row.ciphertext)
        try:
            return self._cipher.decrypt(nonce, sealed, _bound(tenant, row.environment, row.name)).decode()
        except InvalidTag:
            if row.environment != SHARED:
                raise
            # Kept before there were environments, and shared since.
            return self._cipher.decrypt(nonce, sealed, f"{tenant}\n{row.name}".encode()).decode()


def _bound(tenant: str, environment: str, name: str) -> bytes:
    return f"{tenant}\n{environment}\n{name}".encode()
