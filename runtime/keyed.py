"""Calls that are known again: by an idempotency key or by their signature. However often one comes within a day, there is one run.

Whoever repeats a call with its key hears what came of it. A signature is no key: who only repeats what was signed is refused.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence

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


class BadCall(FactoryError):
    """A call to an address of ours that cannot be taken; the status says why."""

    code = "hook.invalid"


class BadKey(FactoryError):
    """The key cannot be used; the status says why."""

    code = "hook.key"


class Keyed:
    """Which run each call stands for: in rows, and for calls that are going on in memory too."""

    def __init__(self, db: Database, engine: Engine) -> None:
        self._db = db
        self._engine = engine
        self._going: dict[Place, tuple[str, asyncio.Future[Response]]] = {}

    async def call(
        self,
        tenant: str,
        source: str,
        content: bytes,
        *,
        key: str = "",
        marks: Sequence[str] = (),
        start: Start,
        patience: float,
    ) -> Response:
        """The answer of the run that the call stands for; `start` is called with its id unless it is there.

        `key` is the sender's idempotency key, `marks` are what a signed call is known by. With no patience the answer is that it
        was accepted. Raises BadKey, BadCall when a signed call comes again without its key, and whatever `start` raises.
        """
        if not key.isprintable() or len(key) > LONGEST:
            raise BadKey(f"An idempotency key has up to {LONGEST} visible characters.", fix="Send a UUID.")
        digest = hashlib.sha256(content).hexdigest()
        by_key = (tenant, f"{source} key", _mark(key)) if key else None
        places = ([by_key] if by_key else []) + [(tenant, source, mark) for mark in marks]
        while (place := next((one for one in places if one in self._going), None)) is not None:
            before, going = self._going[place]
            if place == by_key:
                _same(digest, before)
            said = await asyncio.shield(going)  # if that one fails, so does this
            if not marks:
                return said
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._going |= dict.fromkeys(places, (digest, answer))
        try:
            response = await self._answer(places, by_key, digest, start, patience)
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
            for place in places:
                del self._going[place]

    async def _answer(
        self, places: Sequence[Place], by_key: Place | None, digest: str, start: Start, patience: float
    ) -> Response:
        tenant, fresh, now = places[0][0], new_id("run"), time.time()
        wanted = [place[1:] for place in places]
        own = by_key[1:] if by_key else None

        def claim(session: TenantSession) -> tuple[str, str | None, bool] | None:
            seen = event_seen.look(session, wanted, now)
            run_id = next((seen[one].run_id for one in wanted if one in seen), fresh)
            if seen and own not in seen and (run_id is None or _began(session, run_id)):
                return None  # a key of its own does not make an old call new
            kept = event_seen.claim(session, wanted, run_id=run_id or fresh, digest=digest, expires_at=now + KEPT_FOR)
            row = kept[wanted[0]]
            return row.run_id or fresh, row.digest if own else None, not seen or own in seen

        claimed = await self._db.write(tenant, claim)
        if claimed is None:
            raise _repeated()
        run_id, before, honest = claimed
        if not honest and run_id in self._engine.active:
            raise _repeated()
        _same(digest, before or digest)
        if by_key and run_id != fresh and (known := await self._known(tenant, run_id, patience)) is not None:
            return known
        try:
            # The first call of its kind, or what the first one began and a crash or a full queue cut off.
            return await start(run_id)
        except Clash:  # another server has just started it
            if by_key is None:
                raise _repeated() from None
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


def _began(session: TenantSession, run_id: str) -> bool:
    """Whether a call became a run, or is kept to become one."""
    return run.get(session, run_id) is not None or held_call.get(session, run_id) is not None


def _repeated() -> BadCall:
    return BadCall(
        "This call was taken already.",
        code="hook.repeated",
        status=409,
        fix="Sign a new call anew, with its own time and event id. To repeat one, send its Idempotency-Key again.",
    )


def _same(digest: str, before: str) -> None:
    if digest != before:
        raise BadKey(
            "This idempotency key was used for a call with something else in it.",
            code="hook.key_reused",
            status=422,
            fix="Use a new key for a new call, and the same one only to repeat a call.",
        )
