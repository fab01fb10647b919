"""People who sign in."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Index, Text, func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, col, select, update

from storage.errors import Clash
from storage.tenancy import Owned, TenantSession


class User(Owned, table=True):
    """A person. The e-mail address, in lower case, is unique over the installation: it finds the tenant at sign-in."""

    __table_args__ = (Index("user_email", "email", unique=True),)

    id: str = Field(primary_key=True)
    email: str
    name: str
    password_hash: str = Field(sa_column=Column(Text, nullable=False))
    role: str
    disabled: bool = False
    created_at: float
    seen_at: float | None = None


def tidy(email: str) -> str:
    """The one way to write an address."""
    return email.strip().lower()


def add(session: TenantSession, row: User) -> User:
    """A new person. Raises Clash `storage.email_taken`."""
    row.email = tidy(row.email)
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise Clash(
            "Somebody with this e-mail address is here already.",
            code="storage.email_taken",
            fix="Use another address, or change the person who has it.",
        ) from None
    return row


def get(session: TenantSession, id: str) -> User | None:
    """The person with that id."""
    return session.find(User, id)


def listed(session: TenantSession) -> Sequence[User]:
    """Everybody, by name."""
    return session.exec(select(User).order_by(func.lower(User.name), col(User.id))).all()


def set_password(session: TenantSession, id: str, password_hash: str) -> bool:
    """Change how somebody proves who they are."""
    return session.change(update(User).where(col(User.id) == id).values(password_hash=password_hash)) == 1


def set_name(session: TenantSession, id: str, name: str) -> bool:
    """Change what somebody is called."""
    return session.change(update(User).where(col(User.id) == id).values(name=name)) == 1


def seen(session: TenantSession, id: str, at: float) -> None:
    """Note that the person signed in."""
    session.change(update(User).where(col(User.id) == id).values(seen_at=at))


def set_role(session: TenantSession, id: str, role: str) -> bool:
    """Change what somebody is. Raises Clash when nobody would be left in charge."""
    if role != "admin":
        _someone_else_in_charge(session, id)
    return session.change(update(User).where(col(User.id) == id).values(role=role)) == 1


def set_disabled(session: TenantSession, id: str, disabled: bool) -> bool:
    """Lock somebody out, or let them in again. Raises Clash when nobody would be left in charge."""
    if disabled:
        _someone_else_in_charge(session, id)
    return session.change(update(User).where(col(User.id) == id).values(disabled=disabled)) == 1


def _someone_else_in_charge(session: TenantSession, id: str) -> None:
    admins = session.exec(
        select(User.id).where(User.role == "admin", col(User.disabled).is_(False)).with_for_update()
    ).all()
    if list(admins) == [id]:
        raise Clash(
            "This is the only admin.",
            code="storage.last_admin",
            fix="Make somebody else an admin first, then try again.",
        )


def by_email(session: Session, email: str) -> User | None:
    """Whoever signs in with that address, in whichever tenant; through Database.read_all."""
    return session.exec(select(User).where(User.email == tidy(email))).first()


def anybody(session: Session) -> bool:
    """Whether the installation has been set up; through Database.read_all."""
    return session.exec(select(User.id).limit(1)).first() is not None
