"""When steps that may start only so often were or will be started: for each step the last moments that were given out."""

from __future__ import annotations

from sqlalchemy import Index, delete
from sqlmodel import Field, Session, col, select

from storage.tenancy import Owned, TenantSession


class Paced(Owned, table=True):
    """One start of one step of an agent. `start` says which, so that a crash does not take a second moment for it."""

    __tablename__ = "paced"
    __table_args__ = (
        Index("paced_number", "tenant_id", "agent", "step", "number", unique=True),
        Index("paced_at", "at"),
    )

    agent: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    start: str = Field(primary_key=True)
    number: int
    at: float


def reserve(
    session: TenantSession, agent: str, step: str, start: str, *, at_most: int, per: float, now: float
) -> float:
    """The moment of this start, taken by asking: no span of `per` seconds has more than `at_most`."""
    session.hold("paced", agent, step)
    if (given := session.find(Paced, agent, step, start)) is not None:
        return given.at
    of_step = select(Paced).where(Paced.agent == agent, Paced.step == step)
    last = session.exec(of_step.order_by(col(Paced.number).desc()).limit(1)).first()
    number = last.number + 1 if last else 1
    before = session.exec(of_step.where(Paced.number == number - at_most)).first()
    moment = max(now, last.at if last else now, before.at + per if before else now)
    session.add(Paced(agent=agent, step=step, start=start, number=number, at=moment))
    session.flush()
    old = delete(Paced).where(col(Paced.agent) == agent, col(Paced.step) == step, col(Paced.number) <= number - at_most)
    session.change(old)
    return moment


def purge(session: Session, before: float) -> int:
    """Forget starts of long ago; through Database.write_all."""
    return session.exec(delete(Paced).where(col(Paced.at) < before)).rowcount
