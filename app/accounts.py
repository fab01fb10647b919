"""People, sessions and tokens as the sign-in code sees them, over the rows in storage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.visit import Session
from nodes.ids import new_id
from runtime.policy import Actor, Role
from storage import session as sessions
from storage import tenant as tenants
from storage import user as users
from storage.database import Database
from storage.session import ApiToken
from storage.tenancy import TenantSession
from storage.user import User

NOBODY_SIGNS_IN = "!"
"""Stands where nobody can sign in with a password."""


@dataclass(frozen=True, slots=True)
class Person:
    """An account in a team."""

    tenant: str
    id: str
    name: str
    email: str
    role: Role
    password_hash: str = field(repr=False, default="")
    disabled: bool = False
    seen_at: float | None = None

    @property
    def actor(self) -> Actor:
        return Actor(self.tenant, self.id, self.name, self.role)


class Accounts:
    """Where accounts are kept. Nothing here checks who asks: `app.auth` and `app.people` do."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def anybody(self) -> bool:
        """Whether the factory has been set up."""
        return await self._db.read_all(users.anybody)

    async def by_email(self, email: str) -> Person | None:
        """Who signs in with that e-mail address, whatever the team; not somebody who is locked out."""
        row = await self._db.read_all(lambda session: users.by_email(session, email))
        return _person(row) if row is not None and not row.disabled else None

    async def found_team(self, team: str, *, name: str, email: str, password_hash: str) -> Person | None:
        """Make the first team and its admin, in one transaction. None when somebody was faster."""
        row = _row(new_id("tenant"), name=name, email=email, password_hash=password_hash, role=Role.ADMIN)

        def found(session: Any) -> bool:
            if users.anybody(session):
                return False
            tenants.add(session, row.tenant_id, name=team, at=row.created_at)
            session.add(row)
            session.flush()
            return True

        return _person(row) if await self._db.write_all(found) else None

    async def add_person(self, tenant: str, *, name: str, email: str, password_hash: str, role: Role) -> Person:
        """A new account. Raises Clash when the e-mail address is taken."""
        row = _row(tenant, name=name, email=email, password_hash=password_hash, role=role)
        await self._db.write(tenant, lambda session: users.add(session, row))
        return _person(row)

    async def person(self, tenant: str, id: str) -> Person | None:
        """The account with that id."""
        row = await self._db.read(tenant, lambda session: users.get(session, id))
        return None if row is None else _person(row)

    async def people(self, tenant: str) -> list[Person]:
        """Everybody in the team, by name."""
        return [_person(row) for row in await self._db.read(tenant, users.listed)]

    async def set_name(self, tenant: str, id: str, name: str) -> bool:
        """Change what somebody is called."""
        return await self._db.write(tenant, lambda session: users.set_name(session, id, name))

    async def set_role(self, tenant: str, id: str, role: Role) -> bool:
        """Change what somebody may do. Raises Clash when nobody would be left in charge."""
        return await self._db.write(tenant, lambda session: users.set_role(session, id, str(role)))

    async def set_disabled(self, tenant: str, id: str, disabled: bool) -> bool:
        """Lock somebody out, or let them in again. Raises Clash when nobody would be left in charge."""
        return await self._db.write(tenant, lambda session: users.set_disabled(session, id, disabled))

    async def set_password(self, tenant: str, id: str, password_hash: str, *, keep: str = "") -> bool:
        """Change a password; every session of the person ends but `keep`."""

        def change(session: Any) -> bool:
            sessions.revoke_all(session, id, time.time(), keep=keep)
            return users.set_password(session, id, password_hash)

        return await self._db.write(tenant, change)

    async def first_tenant(self) -> str | None:
        """The oldest team: the one that the command line works for."""
        every = await self._db.read_all(tenants.every)
        return every[0].tenant_id if every else None

    async def add_session(self, person: Person, session_id: str, *, expires_at: float) -> None:
        """Keep a session of somebody who signed in just now."""
        now = time.time()

        def write(session: TenantSession) -> None:
            sessions.open(session, session_id, person.id, at=now, expires_at=expires_at)
            users.seen(session, person.id, now)

        await self._db.write(person.tenant, write)

    async def add_token(
        self, tenant: str, session_id: str, *, name: str, role: Role, expires_at: float, made_by: str
    ) -> str:
        """Keep an API token; returns its id."""
        row = ApiToken(
            tenant_id=tenant,
            id=new_id("token"),
            token_hash=session_id,
            name=name,
            role=str(role),
            created_at=time.time(),
            created_by=made_by,
            expires_at=expires_at,
        )
        await self._db.write(tenant, lambda session: sessions.add_token(session, row))
        return row.id

    async def tokens(self, tenant: str) -> list[ApiToken]:
        """The tokens that were not taken back, newest first."""
        return list(await self._db.read(tenant, sessions.tokens))

    async def revoke_token(self, tenant: str, id: str) -> bool:
        """Take a token back."""
        return await self._db.write(tenant, lambda session: sessions.revoke_token(session, id, time.time()))

    async def sessions(self, ids: Sequence[str]) -> Mapping[str, Session]:
        """Those of the sessions and tokens that have not ended, with today's names and roles."""
        now = time.time()

        def read(session: Any) -> dict[str, Session]:
            found: dict[str, Session] = {}
            for session_id in ids:
                if (pair := sessions.alive(session, session_id, now)) is not None:
                    web, user = pair
                    found[session_id] = Session(session_id, _person(user).actor, user.email, web.expires_at)
                elif (token := sessions.live_token(session, session_id, now)) is not None:
                    actor = Actor(token.tenant_id, token.id, token.name, Role(token.role), "token")
                    found[session_id] = Session(session_id, actor, "", token.expires_at or now + 86400)
            return found

        return await self._db.read_all(read)

    async def end_session(self, tenant: str, session_id: str) -> None:
        """Revoke a session."""
        await self._db.write(tenant, lambda session: sessions.revoke(session, session_id, time.time()))


def _row(tenant: str, *, name: str, email: str, password_hash: str, role: Role) -> User:
    return User(
        tenant_id=tenant,
        id=new_id("user"),
        email=users.tidy(email),
        name=name,
        password_hash=password_hash,
        role=str(role),
        created_at=time.time(),
    )


def _person(row: User) -> Person:
    return Person(
        row.tenant_id, row.id, row.name, row.email, Role(row.role), row.password_hash, row.disabled, row.seen_at
    )
