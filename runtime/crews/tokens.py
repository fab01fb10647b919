"""What a member of a crew shows with everything it asks for: a signed note that is worth something in one place only.

A token is a JSON Web Token, signed with HMAC-SHA256 and never with anything else: its header is a constant that is compared
and not read. It lives for five minutes, belongs to one lease (one member in one worker) and is accepted at the door of that
lease alone. It also has to be one of those that were given out and not taken back, so what is revoked is refused at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nodes.categories import Category
from nodes.errors import FactoryError
from nodes.ids import new_id

LIFE: Final = 300
"""Seconds."""
ISSUER: Final = "agent-factory"
AUDIENCE: Final = "crew-door"
LONGEST: Final = 2_048
SCOPES: Final = frozenset(
    {"crew:read", "crew:send", "crew:write", "task:push", "task:pop", "file:read", "file:write", "tool:exec"}
)
_CLAIMS: Final = frozenset(
    {"iss", "aud", "sub", "jti", "iat", "nbf", "exp", "tenant", "crew", "epoch", "worker", "lease", "scopes"}
)


class TokenRefused(FactoryError):
    """This token is worth nothing here. The words do not say why: whoever forges one learns nothing."""

    code = "crew.token"
    status = 401
    category = Category.CREDENTIAL

    def __init__(self, why: str) -> None:
        super().__init__("This is not a token for this place.")
        self.why = why


class OutOfScope(FactoryError):
    """The token is good, and does not allow this."""

    code = "crew.scope"
    status = 403
    category = Category.CREDENTIAL


@dataclass(frozen=True, slots=True)
class Bond:
    """One member in one worker, as long as its lease lives."""

    tenant: str
    crew: str
    member: str
    worker: str
    lease: str
    scopes: frozenset[str]


@dataclass(slots=True)
class _Lease:
    bond: Bond
    epoch: int
    given: dict[str, int] = field(default_factory=dict)
    """The tokens that were given out, with the second in which each ends."""


class Tokens:
    """Gives tokens out, knows those that are good, and takes them back. The key never leaves the process."""

    def __init__(self, key: bytes | None = None, *, now: Callable[[], float] | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._now = now or _steady()
        self._leases: dict[str, _Lease] = {}
        self._epochs: dict[str, int] = {}

    def __len__(self) -> int:
        """How many leases live."""
        return len(self._leases)

    def bind(self, tenant: str, crew: str, member: str, worker: str, scopes: Iterable[str]) -> Bond:
        """A new lease."""
        wanted = frozenset(scopes)
        if not wanted <= SCOPES:
            raise ValueError(f"unknown scopes: {sorted(wanted - SCOPES)}")
        bond = Bond(tenant, crew, member, worker, new_id("lease"), wanted)
        self._leases[bond.lease] = _Lease(bond, self._epochs.setdefault(crew, 1))
        return bond

    def lives(self, bond: Bond) -> bool:
        """Whether the lease is still good."""
        lease = self._leases.get(bond.lease)
        return lease is not None and lease.bond == bond

    def issue(self, bond: Bond) -> str:
        """A token for a lease that lives. Raises TokenRefused."""
        lease = self._leases.get(bond.lease)
        if lease is None or lease.bond != bond:
            raise TokenRefused("the lease is over")
        now = int(self._now())
        for jti in [jti for jti, end in lease.given.items() if end <= now]:
            del lease.given[jti]
        jti = secrets.token_urlsafe(16)
        lease.given[jti] = now + LIFE
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": bond.member,
            "jti": jti,
            "iat": now,
            "nbf": now,
            "exp": now + LIFE,
            "tenant": bond.tenant,
            "crew": bond.crew,
            "epoch": lease.epoch,
            "worker": bond.worker,
            "lease": bond.lease,
            "scopes": sorted(bond.scopes),
        }
        return sign(self._key, claims)

    def accept(self, token: object, bond: Bond, scope: str | None = None) -> dict[str, Any]:
        """What the token says, if it is good at the door of this lease. Raises TokenRefused, OutOfScope."""
        claims = self._read(token)
        if scope is not None and scope not in claims["scopes"]:
            # Only now: whoever hears of scopes has shown a good token.
            self._check(claims, bond)
            raise OutOfScope(
                "This member may not do that.",
                fix=f"Give it a tool that allows {scope} in the crew's manifest.",
            )
        self._check(claims, bond)
        return claims

    def revoke(self, jti: str) -> None:
        """Take one token back."""
        for lease in self._leases.values():
            lease.given.pop(jti, None)

    def release(self, bond: Bond) -> None:
        """The lease is over, and with it all its tokens."""
        self._leases.pop(bond.lease, None)

    def revoke_crew(self, crew: str) -> None:
        """The next epoch of a crew begins: all its leases and tokens are over."""
        self._epochs[crew] = self._epochs.get(crew, 1) + 1
        for id_ in [id_ for id_, lease in self._leases.items() if lease.bond.crew == crew]:
            del self._leases[id_]

    def forget_crew(self, crew: str) -> None:
        """The crew has ended and will not be again."""
        self.revoke_crew(crew)
        del self._epochs[crew]

    def _read(self, token: object) -> dict[str, Any]:
        if not isinstance(token, str) or len(token) > LONGEST or not token.isascii():
            raise TokenRefused("it is not a text of the right kind")
        head, _, rest = token.partition(".")
        body, _, signature = rest.partition(".")
        # The signature's text is compared, so that no second spelling of the same bits passes.
        if not hmac.compare_digest(signature, _signature(self._key, f"{head}.{body}")):
            raise TokenRefused("the signature is not ours")
        if head != _HEAD:
            raise TokenRefused("the header is another one")
        try:
            claims = orjson.loads(_decoded(body))
        except (ValueError, NotBase64):
            raise TokenRefused("the claims cannot be read") from None
        if not isinstance(claims, dict) or claims.keys() != _CLAIMS:
            raise TokenRefused("claims are missing, or there are others")
        return claims

    def _check(self, claims: dict[str, Any], bond: Bond) -> None:
        times = [claims[name] for name in ("iat", "nbf", "exp")]
        if not all(type(moment) is int for moment in times):
            raise TokenRefused("its times are no whole numbers")
        issued, not_before, ends = times
        now = self._now()
        if not (issued <= now + 1 and not_before <= now + 1 and now < ends <= issued + LIFE):
            raise TokenRefused("it is too early or too late")
        if claims["iss"] != ISSUER or claims["aud"] != AUDIENCE:
            raise TokenRefused("it is for somebody else")
        told = tuple(claims[name] for name in ("tenant", "crew", "sub", "worker", "lease"))
        if told != (bond.tenant, bond.crew, bond.member, bond.worker, bond.lease):
            raise TokenRefused("it belongs to another place")
        lease = self._leases.get(bond.lease)
        if lease is None or lease.bond != bond:
            raise TokenRefused("the lease is over")
        if type(claims["epoch"]) is not int or claims["epoch"] != lease.epoch:
            raise TokenRefused("the crew has begun anew")
        if claims["scopes"] != sorted(bond.scopes):
            raise TokenRefused("its scopes are not those of the lease")
        jti = claims["jti"]
        if not isinstance(jti, str) or lease.given.get(jti) != ends:
            raise TokenRefused("it was not given out, or was taken back")


def sign(key: bytes, claims: Any) -> str:
    """A signed token that says this."""
    said = f"{_HEAD}.{_encoded(orjson.dumps(claims))}"
    return f"{said}.{_signature(key, said)}"


def _signature(key: bytes, said: str) -> str:
    return _encoded(hmac.digest(key, said.encode("ascii"), hashlib.sha256))


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encoded(raw) != text:
        raise ValueError("not the one spelling")
    return raw


def _steady() -> Callable[[], float]:
    """The time of day as it was at the start, counted on by a clock that does not jump."""
    began = time.time() - time.monotonic()
    return lambda: began + time.monotonic()


_HEAD: Final = _encoded(b'{"alg":"HS256","typ":"JWT"}')
