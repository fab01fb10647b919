"""Signing in: passwords, sessions that live on the server, tokens for programs, and the one-time set-up link.

Secrets are random 256-bit words; only their SHA-256 is kept. What `live` says is true now: ending a session takes effect at
its next request and socket frame, and closes its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import structlog
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from nicegui import background_tasks
from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from app.accounts import Accounts, Person
from app.visit import Session
from nodes.errors import FactoryError, TooMany
from runtime.policy import Actor, Permission, Role

log = structlog.get_logger("factory.auth")

SESSION_SECONDS = 14 * 86400
TOKEN_DAYS_MOST = 365
PASSWORD_LEAST, PASSWORD_MOST = 10, 200
RECHECK_SECONDS = 2.0
IDLE_SECONDS = 600.0
_SETUP_LINKS = 8

_PAIR = RateLimitItemPerMinute(5, 15)
_ADDRESS = RateLimitItemPerMinute(30, 15)
_EMAIL = RateLimitItemPerHour(50)

Ended = Callable[[str], Awaitable[None]]


class WrongPassword(FactoryError):
    """The e-mail address and password do not fit. It never says which."""

    code = "auth.wrong"
    status = 401

    def __init__(self) -> None:
        super().__init__("That e-mail address and password do not fit together.", fix="Check both and try again.")


class BadEntry(FactoryError):
    """Something typed into an account form is not acceptable; `where` names the field."""

    code = "auth.entry"
    status = 422


class SetupClosed(FactoryError):
    """The set-up link is wrong, was used, or is not needed any more."""

    code = "auth.setup"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            "This set-up link is not valid, or it was used already.",
            fix="If the factory is set up, sign in. If not, restart it: it prints a new link.",
        )


class SetupNeeded(FactoryError):
    """Nobody has an account yet."""

    code = "auth.setup_needed"
    status = 409

    def __init__(self) -> None:
        super().__init__("This factory has no team yet.", fix="Start it with `factory serve` and open the set-up link.")


class Auth:
    """Everything about who somebody is. One for the process."""

    def __init__(self, accounts: Accounts, *, key: bytes, setup_file: Path, https: bool) -> None:
        self._accounts = accounts
        self._key = key
        self._setup_file = setup_file
        self.https = https
        self.cookie = "__Host-factory_session" if https else "factory_session"
        self.form_cookie = "__Host-factory_form" if https else "factory_form"
        self._known: dict[str, Session] = {}
        self._used: dict[str, float] = {}
        self._on_end: list[Ended] = []
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._passwords = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))
        self._hashing = asyncio.Semaphore(2)
        self._founding = asyncio.Lock()
        self._nobody = ""
        self._sweep: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to re-read sessions, so that what another process ends or changes takes effect here within seconds."""
        self._nobody = await self._hash(secrets.token_urlsafe(16))
        self._sweep = background_tasks.create(self._recheck_often(), name="recheck sessions")

    async def stop(self) -> None:
        """Stop re-reading."""
        if self._sweep is not None:
            self._sweep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweep

    async def __aenter__(self) -> Auth:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- sessions ------------------------------------------------------------------------------------------------

    def on_end(self, ended: Ended) -> None:
        """Be told the id of each session that ends."""
        self._on_end.append(ended)

    def live(self, session_id: str) -> Session | None:
        """The session if it lives at this moment. Needs no waiting, so every socket frame can ask."""
        session = self._known.get(session_id)
        now = time.time()
        if session is None or session.expires_at <= now:
            return None
        self._used[session_id] = now
        return session

    async def session(self, token: str) -> Session | None:
        """The live session of a cookie's token."""
        return await self._look_up(token, "person")

    async def bearer(self, token: str) -> Session | None:
        """The live session of an API token."""
        return await self._look_up(token, "token")

    async def _look_up(self, token: str, kind: str) -> Session | None:
        if not 40 <= len(token) <= 60 or not token.isascii():
            return None
        session_id = digest(token)
        session = self.live(session_id)
        if session is None:
            session = (await self._accounts.sessions([session_id])).get(session_id)
            if session is None:
                return None
            session = self._remember(session)
        return session if session.actor.kind == kind else None

    async def end(self, session: Session) -> None:
        """Sign out: the cookie, every open page and every socket of the session stop working now."""
        self._forget(session.id)
        await self._accounts.end_session(session.actor.tenant, session.id)
        await self._tell_end(session.id)

    async def recheck(self) -> None:
        """Read all remembered sessions again: drop those that ended, take over changed roles and names."""
        idle = time.time() - IDLE_SECONDS
        for session_id in [one for one, used in self._used.items() if used < idle]:
            self._forget(session_id)
        ids = list(self._known)
        now = await self._accounts.sessions(ids) if ids else {}
        for session_id in ids:
            if session_id in now:
                self._remember(now[session_id])
            elif self._forget(session_id):
                await self._tell_end(session_id)

    async def _recheck_often(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                await self.recheck()
            except FactoryError as problem:
                log.warning("sessions could not be read again", problem=problem.message)

    def _remember(self, session: Session) -> Session:
        known = replace(session, csrf=self._word("csrf", session.id))
        self._known[session.id] = known
        self._used.setdefault(session.id, time.time())
        return known

    def _forget(self, session_id: str) -> bool:
        self._used.pop(session_id, None)
        return self._known.pop(session_id, None) is not None

    async def _tell_end(self, session_id: str) -> None:
        for ended in self._on_end:
            await ended(session_id)

    # --- signing in ----------------------------------------------------------------------------------------------

    async def sign_in(self, email: str, password: str, *, address: str) -> tuple[str, Session]:
        """A new session's token, for the cookie. Raises WrongPassword, or TooMany after too many tries."""
        email = email.strip().lower()[:254]
        checks: list[tuple[RateLimitItem, str]] = [(_PAIR, f"{address} {email}"), (_ADDRESS, address), (_EMAIL, email)]
        if not all(self._limiter.test(limit, who) for limit, who in checks):
            raise TooMany(
                "Too many tries.",
                fix="Wait 15 minutes, then try again.",
                code="auth.locked",
                where={"retry_after": 15 * 60},
            )
        person = await self._accounts.by_email(email)
        # An unknown address costs the same work, so the time tells nothing.
        fits = await self._verify(password, person.password_hash if person else self._nobody)
        if person is None or not fits:
            for limit, who in checks:
                self._limiter.hit(limit, who)
            log.info("sign-in refused", address=address)
            raise WrongPassword()
        self._limiter.clear(_PAIR, f"{address} {email}")
        return await self._begin(person)

    async def _begin(self, person: Person) -> tuple[str, Session]:
        token = secrets.token_urlsafe(32)
        expires = time.time() + SESSION_SECONDS
        await self._accounts.add_session(person, digest(token), expires_at=expires)
        session = Session(digest(token), person.actor, person.email, expires)
        return token, self._remember(session)

    async def add_person(self, tenant: str, *, name: str, email: str, password: str, role: Role) -> Person:
        """A new account. Raises BadEntry naming the field that is wrong. Checks no permission: `app.people` does."""
        name, email = checked_name(name), checked_email(email)
        hashed = await self.new_hash(password, email)
        return await self._accounts.add_person(tenant, name=name, email=email, password_hash=hashed, role=role)

    async def first_tenant(self) -> str:
        """The oldest team, which the command line works for. Raises SetupNeeded."""
        tenant = await self._accounts.first_tenant()
        if tenant is None:
            raise SetupNeeded()
        return tenant

    async def make_token(self, who: Actor, *, name: str, role: Role, days: int) -> str:
        """A token for programs, shown once. Its role can be at most the maker's. Asks for ADMIN."""
        who.require(Permission.ADMIN)
        if not 1 <= days <= TOKEN_DAYS_MOST:
            raise BadEntry(f"A token lasts 1 to {TOKEN_DAYS_MOST} days.", where={"field": "days"})
        token = "af_" + secrets.token_urlsafe(32)
        expires = time.time() + days * 86400
        await self._accounts.add_token(
            who.tenant, digest(token), name=checked_name(name), role=role, expires_at=expires, made_by=who.id
        )
        return token

    # --- first start ---------------------------------------------------------------------------------------------

    async def needs_setup(self) -> bool:
        """Whether nobody has an account yet."""
        return not await self._accounts.anybody()

    async def new_setup_token(self) -> str:
        """A new set-up link's word. Earlier ones stay valid until one of them is used."""
        token = secrets.token_urlsafe(32)
        kept = [*self._setup_hashes(), digest(token)][-_SETUP_LINKS:]
        await asyncio.to_thread(_write_private, self._setup_file, "\n".join(kept))
        return token

    def is_setup_token(self, token: str) -> bool:
        """Whether the word is one that was printed and not used."""
        hashed = digest(token)
        return sum(hmac.compare_digest(hashed, one) for one in self._setup_hashes()) > 0

    async def set_up(self, token: str, *, name: str, email: str, password: str, team: str) -> tuple[str, Session]:
        """Make the team and its first admin, and sign in. Works exactly once."""
        if not self.is_setup_token(token):
            raise SetupClosed()
        return await self._begin(await self.found(name=name, email=email, password=password, team=team))

    async def found(self, *, name: str, email: str, password: str, team: str) -> Person:
        """Make the first team and its admin; set-up links end. Raises SetupClosed when there is a team already."""
        name, email = checked_name(name), checked_email(email)
        team = checked_name(team, field="team", what="the team")
        hashed = await self.new_hash(password, email)
        async with self._founding:
            person = await self._accounts.found_team(team, name=name, email=email, password_hash=hashed)
        if person is None:
            raise SetupClosed()
        await asyncio.to_thread(self._setup_file.unlink, missing_ok=True)
        return person

    def _setup_hashes(self) -> list[str]:
        try:
            return self._setup_file.read_text().split()
        except FileNotFoundError:
            return []

    # --- words for plain forms -----------------------------------------------------------------------------------

    def form_word(self, cookie: str) -> str:
        """The hidden field that belongs to a form cookie, for forms filled in before there is a session."""
        return self._word("form", cookie)

    def is_form_word(self, cookie: str, word: str) -> bool:
        """Whether a form came from the browser that got its cookie."""
        return bool(cookie) and hmac.compare_digest(self._word("form", cookie).encode(), word.encode())

    def _word(self, purpose: str, value: str) -> str:
        return hmac.new(self._key, f"{purpose}:{value}".encode(), hashlib.sha256).hexdigest()

    # --- passwords -----------------------------------------------------------------------------------------------

    async def new_hash(self, password: str, email: str) -> str:
        """What is kept of a new password. Raises BadEntry when it is too weak."""
        return await self._hash(checked_password(password, email))

    async def fits(self, person: Person, password: str) -> bool:
        """Whether it is the person's password."""
        return await self._verify(password, person.password_hash)

    async def _hash(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(self._passwords.hash, password)

    async def _verify(self, password: str, hashed: str) -> bool:
        try:
            async with self._hashing:
                return await asyncio.to_thread(self._passwords.verify, password[:PASSWORD_MOST], hashed)
        except UnknownHashError:
            return False


def digest(token: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(token.encode()).hexdigest()


def checked_name(name: str, *, field: str = "name", what: str = "it") -> str:
    """A name that can be shown. Raises BadEntry."""
    name = " ".join(name.split())
    if not name:
        raise BadEntry(f"Give {what} a name.", where={"field": field})
    if len(name) > 100 or not name.isprintable():
        raise BadEntry("A name has at most 100 characters, all of them visible.", where={"field": field})
    return name


def checked_email(email: str) -> str:
    """An e-mail address in lower case. Raises BadEntry."""
    email = email.strip().lower()
    local, at, domain = email.rpartition("@")
    odd = not email.isprintable() or any(one in email for one in " ,;<>\"'\\")
    if not at or not local or "." not in domain.strip(".") or "@" in local or len(email) > 254 or odd:
        raise BadEntry("That does not look like an e-mail address.", where={"field": "email"})
    return email


def checked_password(password: str, email: str) -> str:
    """A password that is long enough. Raises BadEntry."""
    if len(password) < PASSWORD_LEAST:
        raise BadEntry(
            f"Use at least {PASSWORD_LEAST} characters. Three or four unrelated words work well.",
            where={"field": "password"},
        )
    if len(password) > PASSWORD_MOST:
        raise BadEntry(f"Use at most {PASSWORD_MOST} characters.", where={"field": "password"})
    if password.lower() in (email, email.partition("@")[0]) or len(set(password)) < 4:
        raise BadEntry("That password is easy to guess. Choose another.", where={"field": "password"})
    return password


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_text(text)
