"""Errands between servers: what one of them wants of a run that another has in hand goes there as a row."""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from nodes.errors import FactoryError
from nodes.ids import new_id
from storage import errand

if TYPE_CHECKING:
    from runtime.engine import Engine

log = structlog.get_logger()


class Elsewhere(FactoryError):
    """Another server has the run in hand."""

    code = "run.elsewhere"
    status = 409

    def __init__(self) -> None:
        super().__init__("Another server is working on this run.", fix="Try again in a moment.")


class Errands:
    """Sends errands, and does those for runs of this server. One that was not finished is done again: both kinds allow it."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._doing: set[str] = set()

    async def send(
        self, tenant: str, run_id: str, kind: str, node: str = "", iteration: str = "", data: Any = None
    ) -> None:
        """Returns when it cannot be lost any more."""
        row = errand.Errand(
            id=new_id("err"),
            run_id=run_id,
            kind=kind,
            node=node,
            iteration=iteration,
            data=data,
            created_at=time.time(),
        )
        await self._engine.db.write(tenant, lambda session: errand.add(session, row))

    async def look(self) -> None:
        """Do what others left here; called every second."""
        me = self._engine.lease.id
        for row in await self._engine.db.read_all(lambda session: errand.waiting(session, me)):
            if row.id not in self._doing:
                self._doing.add(row.id)
                # A task that is cancelled before it begins runs nothing of its own, not even a `finally`.
                doing = self._engine.spawn(self._do(row))
                doing.add_done_callback(partial(self._done, row.id))

    def _done(self, id_: str, _: object) -> None:
        self._doing.discard(id_)

    async def _do(self, row: errand.Errand) -> None:
        engine = self._engine
        try:
            if row.kind == "cancel":
                await engine.cancel_here(row.tenant_id, row.run_id)
            else:
                place = row.node, row.iteration
                ex = await engine.submit(row.tenant_id, row.run_id, lambda ex: ex.answer(*place, row.data))
                if ex is not None:
                    while ex.answers and not ex.ended.is_set():  # noqa: ASYNC110 - rare, and short
                        await asyncio.sleep(0.02)
                    await ex.flush()  # before it is forgotten, what came of it is on the disk
                    if ex.dropped is not None:
                        raise ex.dropped
            await engine.db.write(row.tenant_id, lambda session: errand.done(session, row.id))
        except FactoryError as error:
            log.info("an errand is left for later", run=row.run_id, reason=error.message)
