"""Calls with an idempotency key: however often one comes within a day, there is one run, and every caller hears of it."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable

from nodes.errors import FactoryError
from nodes.ids import new_id
from runtime.engine import Engine, closing_of
from runtime.execution import Response
from runtime.states import RunState
from storage import event_seen, held_call, journal, run
from storage.database import Database
from storage.errors import Clash
from storage.tenancy import TenantSession

KEPT_FOR = 86_400.0  # seconds that a key stands for its run
LONGEST = 255  # characters

Place = tuple[str, str, str]
Start = Callable[[str], Awaitable[Response]]


class BadKey(FactoryError):
    """The key cannot be used; the status says why."""

    code = "hook.key"


class Keyed:
    """Which run each key stands for: in rows, and for calls that are going on in memory too."""

    def __init__(self, db: Database, engine: Engine) -> None:
        self._db = db
        self._engine = engine
        self._going: dict[Place, tuple[str, asyncio.Future[Response]]] = {}

    async def call(
        self, tenant: str, source: str, key: str, content: bytes, *, start: Start, patience: float
    ) -> Response:
        """The answer of the run that the key stands for; `start` is called with its id unless it is there.

        With no patience the answer is that it was accepted. Raises BadKey, and whatever `start` raises.
        """
        if not key.isprintable() or len(key) > LONGEST:
            raise BadKey(f"An idempotency key has up to {LONGEST} visible characters.", fix="Send a UUID.")
        digest = hashlib.sha256(content).hexdigest()
        place = (tenant, source, _mark(key))
        if (going := self._going.get(place)) is not None:
            _same(digest, going[0])
            return await asyncio.shield(going[1])
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._going[place] = digest, answer
        try:
            response = await self._answer(place, digest, start, patience)
            answer.set_result(response)
            return response
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                answer.cancel()
            else:
                answer.set_exception(error)
                answer.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._going[place]

    async def knows(self, tenant: str, source: str, key: str) -> bool:
        """Whether the key stands for a run already. A key is not signed, so a new one does not make an old call new."""
        mark = _mark(key)
        return await self._db.read(tenant, lambda session: event_seen.known(session, source, mark, time.time()))

    async def _answer(self, place: Place, digest: str, start: Start, patience: float) -> Response:
        tenant, source, mark = place
        fresh, now = new_id("run"), time.time()
        row = await self._db.write(
            tenant,
            lambda session: event_seen.claim(
                session, source, mark, run_id=fresh, digest=digest, now=now, expires_at=now + KEPT_FOR
            ),
        )
        _same(digest, row.digest or digest)
        run_id = row.run_id or fresh
        if run_id != fresh and (known := await self._known(tenant, run_id, patience)) is not None:
            return known
        try:
            # The first call of this key, or what the first one began and a crash or a full queue cut off.
            return await start(run_id)
        except Clash:  # another server has just started it
            if (known := await self._known(tenant, run_id, patience)) is None:
                raise
            return known

    async def _known(self, tenant: str, run_id: str, patience: float) -> Response | None:
        """What the run of an earlier call answers; None if there is no such run."""
        ex = self._engine.active.get(run_id)
        if ex is not None and ex.order.tenant == tenant and patience:
            if ex.answered is None:
                ex.answered = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(patience):
                    return await asyncio.shield(ex.answered)
            except TimeoutError:
                return Response(202, {"run": run_id, "state": ex.state.value}, {})

        def read(session: TenantSession) -> Response | None:
            found = run.get(session, run_id)
            if found is None:
                waits = held_call.get(session, run_id) is not None
                return Response(202, {"run": run_id, "state": "held"}, {}) if waits else None
            if not patience:
                return Response(202, {"run": run_id, "state": "accepted"}, {})
            output = None
            for fact in journal.facts(session, run_id):
                if fact["kind"] == "run.responded":
                    return Response(fact["status"], fact["body"], fact["headers"])
                if fact["kind"] == "run.finished":
                    output = fact["output"]
            state = RunState(found.state)
            if state in (RunState.ACCEPTED, RunState.RUNNING):
                return Response(202, {"run": run_id, "state": state.value}, {})
            return closing_of(run_id, state, output)

        return await self._db.read(tenant, read)


def _mark(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _same(digest: str, before: str) -> None:
    if digest != before:
        raise BadKey(
            "This idempotency key was used for a call with something else in it.",
            code="hook.key_reused",
            status=422,
            fix="Use a new key for a new call, and the same one only to repeat a call.",
        )
