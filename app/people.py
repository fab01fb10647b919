"""The team's people and tokens, as screens and clients manage them. Every call is made as somebody and asks for permission."""

from __future__ import annotations

from dataclasses import dataclass

from app.accounts import Accounts, Person
from app.auth import Auth, BadEntry, checked_name
from app.visit import Session
from nodes.errors import NotFound
from runtime.policy import Actor, Permission, Role


@dataclass(frozen=True, slots=True)
class PersonInfo:
    """Somebody in the team."""

    id: str
    name: str
    email: str
    role: Role
    disabled: bool
    seen_at: float | None


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token of a program. Its secret is not kept."""

    id: str
    name: str
    role: Role
    created_at: float
    created_by: str
    expires_at: float | None


class People:
    """People and tokens of a team."""

    def __init__(self, accounts: Accounts, auth: Auth) -> None:
        self._accounts = accounts
        self._auth = auth

    async def everybody(self, who: Actor) -> list[PersonInfo]:
        """Everybody in the team [VIEW]."""
        who.require(Permission.VIEW)
        return [_info(one) for one in await self._accounts.people(who.tenant)]

    async def add(self, who: Actor, *, name: str, email: str, password: str, role: Role) -> PersonInfo:
        """A new account [ADMIN]. Raises BadEntry naming the field, or Clash when the address is taken."""
        who.require(Permission.ADMIN)
        return _info(
            await self._auth.add_person(who.tenant, name=name, email=email, password=password, role=Role(role))
        )

    async def set_role(self, who: Actor, id: str, role: Role) -> None:
        """Change what somebody may do, from their next click on [ADMIN]."""
        who.require(Permission.ADMIN)
        _there(await self._accounts.set_role(who.tenant, id, Role(role)))
        await self._auth.recheck()

    async def set_disabled(self, who: Actor, id: str, disabled: bool) -> None:
        """Lock somebody out at once, or let them in again [ADMIN]."""
        who.require(Permission.ADMIN)
        _there(await self._accounts.set_disabled(who.tenant, id, disabled))
        await self._auth.recheck()

    async def give_password(self, who: Actor, id: str, password: str) -> None:
        """A new password for somebody who forgot theirs; they are signed out everywhere [ADMIN]."""
        who.require(Permission.ADMIN)
        person = await self._person(who, id)
        hashed = await self._auth.new_hash(password, person.email)
        await self._accounts.set_password(who.tenant, id, hashed)
        await self._auth.recheck()

    async def change_own_password(self, session: Session, *, old: str, new: str) -> None:
        """A person's own password; their other sessions end. Raises BadEntry when the old one is wrong."""
        who = session.actor
        person = await self._person(who, who.id)
        if not await self._auth.fits(person, old):
            raise BadEntry("That is not your present password.", where={"field": "old"})
        hashed = await self._auth.new_hash(new, person.email)
        await self._accounts.set_password(who.tenant, who.id, hashed, keep=session.id)
        await self._auth.recheck()

    async def change_own_name(self, who: Actor, name: str) -> None:
        """What others see."""
        _there(await self._accounts.set_name(who.tenant, who.id, checked_name(name)))
        await self._auth.recheck()

    async def tokens(self, who: Actor) -> list[TokenInfo]:
        """The team's tokens [ADMIN]."""
        who.require(Permission.ADMIN)
        return [
            TokenInfo(one.id, one.name, Role(one.role), one.created_at, one.created_by, one.expires_at)
            for one in await self._accounts.tokens(who.tenant)
        ]

    async def make_token(self, who: Actor, *, name: str, role: Role, days: int = 90) -> str:
        """A new token, shown this once [ADMIN]."""
        return await self._auth.make_token(who, name=name, role=role, days=days)

    async def revoke_token(self, who: Actor, id: str) -> None:
        """Take a token back at once [ADMIN]."""
        who.require(Permission.ADMIN)
        _there(await self._accounts.revoke_token(who.tenant, id))
        await self._auth.recheck()

    async def _person(self, who: Actor, id: str) -> Person:
        person = await self._accounts.person(who.tenant, id)
        if person is None:
            raise NotFound("There is nobody like that in your team.")
        return person


def _there(changed: bool) -> None:
    if not changed:
        raise NotFound("That is not in your team any more.", fix="Load the page again.")


def _info(person: Person) -> PersonInfo:
    return PersonInfo(person.id, person.name, person.email, person.role, person.disabled, person.seen_at)
