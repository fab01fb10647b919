"""What proves who asks: sessions of browsers, tokens of programs, the token of the first set-up. Only hashes are kept."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Index, delete
from sqlmodel import Field, Session, col, or_, select, update

from storage.tenancy import Owned, TenantSession
from storage.user import User


class WebSession(Owned, table=True):
    """A browser that is signed in."""

    __tablename__ = "web_session"
    __table_args__ = (
        Index("web_session_token", "token_hash", unique=True),
        Index("web_session_user", "tenant_id", "user_id"),
    )

    token_hash: str = Field(primary_key=True, max_length=64)
    user_id: str
    created_at: float
    seen_at: float
    expires_at: float
    revoked_at: float | None = None


class ApiToken(Owned, table=True):
    """A program that may call us in a role."""

    __tablename__ = "api_token"
    __table_args__ = (Index("api_token_token", "token_hash", unique=True),)

    id: str = Field(primary_key=True)
    token_hash: str = Field(max_length=64)
    name: str
    role: str
    created_at: float
    created_by: str = ""
    seen_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None


class SetupToken(Owned, table=True):
    """The link that makes the first admin of a tenant; it works once."""

    __tablename__ = "setup_token"

    token_hash: str = Field(primary_key=True, max_length=64)
    created_at: float
    expires_at: float
    used_at: float | None = None


# --- browsers ---------------------------------------------------------------------------------------------------------


def open(session: TenantSession, token_hash: str, user_id: str, *, at: float, expires_at: float) -> WebSession:
    """Somebody signed in."""
    row = WebSession(token_hash=token_hash, user_id=user_id, created_at=at, seen_at=at, expires_at=expires_at)
    session.add(row)
    session.flush()
    return row


def alive(session: Session, token_hash: str, now: float) -> tuple[WebSession, User] | None:
    """The live session behind a cookie and its person, who must not be locked out; through Database.read_all."""
    return session.exec(
        select(WebSession, User)
        .join(User, (col(User.tenant_id) == col(WebSession.tenant_id)) & (col(User.id) == col(WebSession.user_id)))
        .where(
            WebSession.token_hash == token_hash,
            WebSession.expires_at > now,
            col(WebSession.revoked_at).is_(None),
            col(User.disabled).is_(False),
        )
    ).first()


def seen(session: TenantSession, token_hash: str, at: float, expires_at: float) -> bool:
    """The person is still there: the session lives on. False when it is over."""
    return (
        session.change(
            update(WebSession)
            .where(
                col(WebSession.token_hash) == token_hash,
                col(WebSession.revoked_at).is_(None),
                col(WebSession.expires_at) > at,
            )
            .values(seen_at=at, expires_at=expires_at)
        )
        == 1
    )


def revoke(session: TenantSession, token_hash: str, at: float) -> bool:
    """Sign out."""
    return (
        session.change(
            update(WebSession)
            .where(col(WebSession.token_hash) == token_hash, col(WebSession.revoked_at).is_(None))
            .values(revoked_at=at)
        )
        == 1
    )


def revoke_all(session: TenantSession, user_id: str, at: float, *, keep: str = "") -> int:
    """Sign somebody out everywhere, but for the session `keep`."""
    return session.change(
        update(WebSession)
        .where(
            col(WebSession.user_id) == user_id,
            col(WebSession.revoked_at).is_(None),
            col(WebSession.token_hash) != keep,
        )
        .values(revoked_at=at)
    )


def of_user(session: TenantSession, user_id: str, now: float) -> Sequence[WebSession]:
    """Where somebody is signed in, last used first."""
    return session.exec(
        select(WebSession)
        .where(WebSession.user_id == user_id, WebSession.expires_at > now, col(WebSession.revoked_at).is_(None))
        .order_by(col(WebSession.seen_at).desc())
    ).all()


def purge(session: Session, before: float) -> int:
    """Forget sessions that ended before then; through Database.write_all."""
    ended = or_(col(WebSession.expires_at) < before, col(WebSession.revoked_at) < before)
    return session.exec(delete(WebSession).where(ended)).rowcount


# --- programs ---------------------------------------------------------------------------------------------------------


def add_token(session: TenantSession, row: ApiToken) -> ApiToken:
    """A new token."""
    session.add(row)
    session.flush()
    return row


def tokens(session: TenantSession) -> Sequence[ApiToken]:
    """Every token that was not taken back, newest first."""
    return session.exec(
        select(ApiToken).where(col(ApiToken.revoked_at).is_(None)).order_by(col(ApiToken.created_at).desc())
    ).all()


def revoke_token(session: TenantSession, id: str, at: float) -> bool:
    """Take a token back."""
    return (
        session.change(
            update(ApiToken).where(col(ApiToken.id) == id, col(ApiToken.revoked_at).is_(None)).values(revoked_at=at)
        )
        == 1
    )


def token_seen(session: TenantSession, id: str, at: float) -> None:
    """The token was used."""
    session.change(update(ApiToken).where(col(ApiToken.id) == id).values(seen_at=at))


def live_token(session: Session, token_hash: str, now: float) -> ApiToken | None:
    """The token that a program showed; through Database.read_all."""
    return session.exec(
        select(ApiToken).where(
            ApiToken.token_hash == token_hash,
            col(ApiToken.revoked_at).is_(None),
            or_(col(ApiToken.expires_at).is_(None), col(ApiToken.expires_at) > now),
        )
    ).first()


# --- first set-up -----------------------------------------------------------------------------------------------------


def add_setup(session: TenantSession, token_hash: str, *, at: float, expires_at: float) -> None:
    """A new link; the ones before stop working."""
    session.change(delete(SetupToken).where(col(SetupToken.used_at).is_(None)))
    session.add(SetupToken(token_hash=token_hash, created_at=at, expires_at=expires_at))
    session.flush()


def live_setup(session: Session, token_hash: str, now: float) -> SetupToken | None:
    """The link, if it still works; through Database.read_all."""
    return session.exec(
        select(SetupToken).where(
            SetupToken.token_hash == token_hash, col(SetupToken.used_at).is_(None), SetupToken.expires_at > now
        )
    ).first()


def use_setup(session: TenantSession, token_hash: str, at: float) -> bool:
    """Use the link. False when it was used, or has expired."""
    return (
        session.change(
            update(SetupToken)
            .where(
                col(SetupToken.token_hash) == token_hash,
                col(SetupToken.used_at).is_(None),
                col(SetupToken.expires_at) > at,
            )
            .values(used_at=at)
        )
        == 1
    )
