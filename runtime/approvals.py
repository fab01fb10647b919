"""Approvals: what waits for a person, and the decision that lets the run go on."""

import time
from collections.abc import Sequence

from nodes.errors import Conflict, Denied, FactoryError, NotFound
from runtime.engine import Engine
from runtime.events import Bus
from runtime.policy import Actor, Permission
from runtime.states import ApprovalState
from runtime.views import ApprovalInfo
from runtime.waits import decision
from storage import approval as rows
from storage.database import Database
from storage.tenancy import TenantSession


class Approvals:
    """Questions of runs to people."""

    def __init__(self, db: Database, bus: Bus, engine: Engine) -> None:
        self._db = db
        self._bus = bus
        self._engine = engine

    async def list(self, who: Actor, *, pending: bool = True) -> Sequence[ApprovalInfo]:
        """What waits, oldest first; or what is decided, newest first."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, lambda session: rows.listed(session, pending=pending))
        return [approval_info(row) for row in found]

    async def of_run(self, who: Actor, run_id: str) -> Sequence[ApprovalInfo]:
        """Everything one run asked."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, lambda session: rows.of_run(session, run_id))
        return [approval_info(row) for row in found]

    async def count(self, who: Actor) -> int:
        """How many wait."""
        who.require(Permission.VIEW)
        return await self._db.read(who.tenant, rows.waiting)

    async def decide(self, who: Actor, id_: str, *, approve: bool, note: str = "", choice: str = "") -> ApprovalInfo:
        """Decide once; the run goes on when the decision is durable.

        Raises Denied for whoever is not a person, NotFound, Conflict when it is decided, FactoryError for a wrong choice.
        """
        who.require(Permission.APPROVE)
        if who.kind != "person":
            raise Denied("A token cannot decide.", code="approval.person", fix="Sign in and decide it in the app.")
        to = ApprovalState.APPROVED if approve else ApprovalState.REJECTED
        now = time.time()

        def write(session: TenantSession) -> rows.Approval:
            row = rows.get(session, id_)
            if row is None:
                raise NotFound("There is no such question.")
            # Of two choices yes or no says which; of more one has to be named.
            if (choice or len(row.choices) > 2) and choice not in row.choices:
                raise FactoryError(
                    f"“{choice}” is not one of the choices." if choice else "This needs one of its choices.",
                    code="approval.choice",
                    status=422,
                    fix=f"Choose one of: {', '.join(row.choices)}.",
                )
            if not rows.decide(session, id_, to=to.value, by=who.name, at=now, note=note[:2000], choice=choice):
                session.refresh(row)
                raise Conflict(
                    f"This was {row.state} already{f' by {row.decided_by}' if row.decided_by else ''}.",
                    code="approval.decided",
                    fix="Nothing is left to do here.",
                )
            session.refresh(row)
            return row

        row = await self._db.write(who.tenant, write)
        self._bus.publish(who.tenant, ("approvals",), {"id": id_, "state": row.state})
        await self._engine.waits.tell(who.tenant, row.run_id, row.node, row.iteration, decision(row))
        return approval_info(row)


def approval_info(row: rows.Approval) -> ApprovalInfo:
    """The row as a view."""
    return ApprovalInfo(
        id=row.id,
        run_id=row.run_id,
        node=row.node,
        blueprint_id=row.blueprint_id,
        blueprint_name=row.blueprint_name,
        title=row.title,
        details=row.details,
        choices=tuple(row.choices),
        state=ApprovalState(row.state).value,
        created_at=row.created_at,
        expires_at=row.expires_at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        note=row.note,
    )
