"""Accounts over HTTP: the first set-up, signing in and out, who I am, tokens, and the people of the team."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field, StrictBool

from app.api.contract import Admin, Listed, Posted, Shown, Viewer, json_answer, refuses, resource
from app.auth import PASSWORD_MOST, SESSION_SECONDS, TOKEN_DAYS_MOST, Auth
from app.forms import TheAuth, set_cookie
from app.permissions import ThePeople, TheVisit, anyone
from app.visit import Session
from nodes.errors import Conflict
from runtime.policy import Permission, Role

router = APIRouter()
setup = resource("setup", tag="Signing in")
auth = resource("auth", tag="Signing in")
people = resource("people", tag="People")

Name = Annotated[str, Field(min_length=1, max_length=200, examples=["Ada Lovelace"])]
Email = Annotated[str, Field(min_length=3, max_length=254, examples=["ada@example.com"])]
Password = Annotated[str, Field(min_length=1, max_length=PASSWORD_MOST, examples=["three unrelated words"])]


class SetUp(Posted):
    """The first team and its admin. `token` is in the link that was printed at the start."""

    token: str = Field(min_length=1, max_length=100)
    name: Name
    email: Email
    password: Password
    team: Name


class SignIn(Posted):
    """What a person knows."""

    email: Email
    password: Password


class NewToken(Posted):
    """A token for a program, in a role that is at most your own."""

    name: Name
    role: Role
    days: int = Field(default=90, ge=1, le=TOKEN_DAYS_MOST)


class Me(Shown):
    """Who asks. `csrf` goes into the header X-CSRF-Token of every change that is made with a cookie."""

    id: str
    name: str
    email: str
    role: Role
    permissions: list[Permission]
    kind: Literal["person", "token"]
    expires_at: float
    csrf: str


class TokenShown(Shown):
    """A token. Its secret is not kept."""

    id: str
    name: str
    role: Role
    created_at: float
    created_by: str
    expires_at: float | None


class TokenMade(Shown):
    """The token, shown this once."""

    token: str = Field(examples=["af_…"])


class PersonShown(Shown):
    """Somebody in the team."""

    id: str
    name: str
    email: str
    role: Role
    disabled: bool
    seen_at: float | None


class NewPerson(Posted):
    """A new account."""

    name: Name
    email: Email
    password: Password
    role: Role


class PersonChange(Posted):
    """What is to change about somebody."""

    role: Role | None = None
    disabled: StrictBool | None = None
    password: Password | None = Field(default=None, description="A new one; they are signed out everywhere.")


def signed_in(auth: Auth, token: str, session: Session, status: int) -> Response:
    """Who signed in, with the session in a cookie."""
    response = json_answer(me_of(session), Me, status=status)
    set_cookie(response, auth, auth.cookie, token, SESSION_SECONDS)
    return response


def me_of(session: Session) -> dict[str, Any]:
    """The session as its owner may see it."""
    actor = session.actor
    return {
        "id": actor.id,
        "name": actor.name,
        "email": session.email,
        "role": actor.role,
        "permissions": [one for one in Permission if actor.may(one)],
        "kind": session.actor.kind,
        "expires_at": session.expires_at,
        "csrf": session.csrf if session.actor.kind == "person" else "",
    }


@setup.post("", status_code=201, response_model=Me, responses=refuses(415), summary="Set the factory up")
async def set_up(_: Annotated[None, anyone()], auth: TheAuth, posted: SetUp) -> Response:
    """Make the first team and its admin, once, and sign in."""
    token, session = await auth.set_up(
        posted.token, name=posted.name, email=posted.email, password=posted.password, team=posted.team
    )
    return signed_in(auth, token, session, 201)


@auth.post("/login", response_model=Me, responses=refuses(415), summary="Sign in")
async def sign_in(_: Annotated[None, anyone()], auth: TheAuth, visit: TheVisit, posted: SignIn) -> Response:
    """Sets the cookie of the session. Programs use a token instead. 429 after too many wrong tries."""
    token, session = await auth.sign_in(posted.email, posted.password, address=visit.address)
    return signed_in(auth, token, session, 200)


@auth.post("/logout", status_code=204, responses=refuses(409), summary="Sign out")
async def sign_out(who: Viewer, auth: TheAuth, visit: TheVisit) -> Response:
    """Ends the session, with every open page of it."""
    assert visit.session is not None
    if visit.session.actor.kind != "person":
        raise Conflict("A token does not sign out.", fix="Take it back: DELETE /api/v1/auth/tokens/{id}.")
    await auth.end(visit.session)
    response = Response(status_code=204)
    response.delete_cookie(auth.cookie, path="/", secure=auth.https, httponly=True, samesite="lax")
    return response


@auth.get("/me", response_model=Me, summary="Who am I")
async def me(who: Viewer, visit: TheVisit) -> Any:
    """The person or token that asks, with what it may do."""
    assert visit.session is not None
    return me_of(visit.session)


@auth.get("/tokens", response_model=Listed[TokenShown], summary="List tokens")
async def tokens(who: Admin, team: ThePeople) -> Any:
    """Those that were not taken back."""
    return {"items": await team.tokens(who)}


@auth.post("/tokens", status_code=201, response_model=TokenMade, responses=refuses(415), summary="Make a token")
async def make_token(who: Admin, team: ThePeople, posted: NewToken) -> Any:
    """The answer is the only place where it can be read."""
    return {"token": await team.make_token(who, name=posted.name, role=posted.role, days=posted.days)}


@auth.delete("/tokens/{id}", status_code=204, responses=refuses(404), summary="Take a token back")
async def revoke_token(id: str, who: Admin, team: ThePeople) -> None:
    """It stops working at once."""
    await team.revoke_token(who, id)


@people.get("", response_model=Listed[PersonShown], summary="List the team")
async def everybody(who: Viewer, team: ThePeople) -> Any:
    """By name."""
    return {"items": await team.everybody(who)}


@people.post("", status_code=201, response_model=PersonShown, responses=refuses(409, 415), summary="Add somebody")
async def add(who: Admin, team: ThePeople, posted: NewPerson) -> Any:
    """A new account. 409 when the address is taken."""
    return await team.add(who, name=posted.name, email=posted.email, password=posted.password, role=posted.role)


@people.patch("/{id}", status_code=204, responses=refuses(404, 409, 415), summary="Change somebody's account")
async def change(id: str, who: Admin, team: ThePeople, posted: PersonChange) -> None:
    """Role, lock or password; it counts from their next click on. 409 when nobody would be left in charge."""
    if posted.role is not None:
        await team.set_role(who, id, posted.role)
    if posted.disabled is not None:
        await team.set_disabled(who, id, posted.disabled)
    if posted.password is not None:
        await team.give_password(who, id, posted.password)


router.include_router(setup)
router.include_router(auth)
router.include_router(people)
