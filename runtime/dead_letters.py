"""Dead letters: live runs that failed for good, with their story, and what people do about them: try again or dismiss."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from nodes.categories import Category
from nodes.errors import Conflict, FactoryError, NotFound
from nodes.ids import new_id
from runtime.alarms import alarm_id
from runtime.engine import Engine
from runtime.events import Bus
from runtime.execution import Order
from runtime.failure_story import failed_view, told
from runtime.forks import Past, Start, reuse
from runtime.journal import Plans
from runtime.orders import ALARM
from runtime.plan import Plan, PlanError
from runtime.policy import Actor, Permission
from runtime.runs import SAME_INPUT, Runs, Version, choose_trigger, run_info
from runtime.second_tries import Feed, failure, feeds, take_over
from runtime.views import RunInfo, RunView
from storage import dead_letter as rows
from storage import deployment, journal, run
from storage.database import Database
from storage.errors import StorageError
from storage.tenancy import TenantSession

State = Literal["open", "retried", "dismissed"]
From = Literal["failure", "beginning"]
MOST_AT_ONCE: Final = 200
MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """One failed run as the list shows it, and what was done about it."""

    run: RunInfo
    category: Category
    environment: str
    state: State
    reason: str = ""
    done_by: str = ""
    done_at: float | None = None
    retry_run: str | None = None
    retry_state: str | None = None


@dataclass(frozen=True, slots=True)
class Ways:
    """What trying again from the failed step would do: steps that keep their results, that run, that act a second time."""

    kept: tuple[str, ...]
    runs: tuple[str, ...]
    again: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeadLetterView:
    """One failed run with everything that is needed to decide about it."""

    info: DeadLetterInfo
    story: tuple[str, ...]
    input: Any
    node: str = ""
    """The step that failed; empty when the run failed before its first step."""
    iteration: str = ""
    """Of a step inside a loop: for which item."""
    name: str = ""
    step_input: Mapping[str, Any] | None = None
    """What the failed step got, by port, where it can be changed before trying again; None where it cannot."""
    ways: Ways | None = None
    """None when it can only be tried again from the start."""
    newest: int | None = None
    """The version that is deployed now; None for the draft."""
    newer: bool = False
    """Whether what would run now is another document than the one that failed."""
    told_run: str | None = None
    """The run of the error agent."""
    retry_of: str | None = None
    view: RunView | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many there are, by category and by agent (id, name, number)."""

    total: int
    categories: Mapping[Category, int]
    agents: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one of several that were tried again: the new run, or why there is none."""

    run_id: str
    new_run: str | None = None
    error: Mapping[str, Any] | None = None


class DeadLetters:
    """Failed runs of one installation; every call is made as somebody."""

    def __init__(self, db: Database, bus: Bus, engine: Engine, plans: Plans, runs: Runs) -> None:
        self._db = db
        self._bus = bus
        self._engine = engine
        self._plans = plans
        self._runs = runs

    # --- looking -------------------------------------------------------------------------------------------------------

    async def list(
        self,
        who: Actor,
        *,
        state: State = "open",
        category: Category | None = None,
        blueprint_id: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[DeadLetterInfo]:
        """Failed runs, newest first; `before` is the last run's id of the page before."""
        who.require(Permission.VIEW)
        size = max(1, min(limit, MOST_AT_ONCE))

        def read(session: TenantSession) -> list[DeadLetterInfo]:
            found = rows.listed(
                session, state=state, category=category, blueprint_id=blueprint_id, limit=size, before=before
            )
            return [_info(session, *letter) for letter in found]

        return await self._db.read(who.tenant, read)

    async def tally(self, who: Actor, state: State = "open") -> Tally:
        """How many there are, by category and by agent."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, lambda session: rows.tally(session, state))
        categories: dict[Category, int] = {}
        agents: dict[str, tuple[str, int]] = {}
        for category, id_, name, number in found:
            known = Category.read(category)
            categories[known] = categories.get(known, 0) + number
            agents[id_] = (name, agents.get(id_, ("", 0))[1] + number)
        by_number = sorted(((id_, name, number) for id_, (name, number) in agents.items()), key=lambda one: -one[2])
        return Tally(sum(categories.values()), categories, tuple(by_number))

    async def count(self, who: Actor) -> int:
        """How many are open."""
        who.require(Permission.VIEW)
        return await self._db.read(who.tenant, rows.waiting)

    async def get(self, who: Actor, run_id: str) -> DeadLetterView:
        """A failed run with its story and what can be done about it. Raises NotFound."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> tuple[DeadLetterInfo, str | None, bool, Any, str]:
            row, done = _found(session, run_id)
            first = journal.first(session, run_id)
            alarm = run.get(session, alarm_id(run_id, row.finished_at or row.accepted_at))
            hash_, info = row.document_hash, _info(session, row, done)
            return info, rows.retry_of(session, run_id), alarm is not None, (first or {}).get("input"), hash_

        info, retry_of, was_told, given, hash_ = await self._db.read(who.tenant, read)
        newest, newer = await self._newest(who, info, hash_)
        view = DeadLetterView(
            info,
            (str((info.run.error or {}).get("message") or "It failed."),),
            given,
            newest=newest,
            newer=newer,
            told_run=alarm_id(run_id, info.run.finished_at or info.run.started_at) if was_told else None,
            retry_of=retry_of,
        )
        try:
            past = await self._runs.past(who, run_id)
            seen = await self._runs.get(who, run_id)
        except (PlanError, FactoryError):
            return view  # its document cannot be run any more, so nothing is known of its steps
        return await asyncio.to_thread(_with_steps, view, past, seen)

    async def _newest(self, who: Actor, info: DeadLetterInfo, hash_: str) -> tuple[int | None, bool]:
        try:
            plan, number = await self._runs.target(who.tenant, info.run.blueprint_id, info.environment)
        except FactoryError:
            return None, False
        return number, plan.content_hash != hash_

    # --- trying again ----------------------------------------------------------------------------------------------------

    async def retry(
        self,
        who: Actor,
        run_id: str,
        *,
        start: From = "failure",
        version: Version = "same",
        input: Any = SAME_INPUT,
        step_input: Mapping[str, Any] | None = None,
    ) -> str:
        """Try a failed run again; returns the new run's id when it is durable.

        From the failure, everything that went well keeps its result, and `step_input` may put other values on the ports of the
        failed step. From the beginning, `input` may take the place of what came in. Raises NotFound, Conflict, PlanError,
        StorageError, TooMany; then it is open as before.
        """
        who.require(Permission.RUN)
        row, _ = await self._db.read(who.tenant, lambda session: _found(session, run_id))
        order = await self._order(who, row, start, version, input, step_input)

        def note(session: TenantSession) -> None:
            if not rows.settle(session, run_id, to="retried", by=who.name, at=time.time(), retry_run=order.run_id):
                raise _not_open(session, run_id)

        await self._db.write(who.tenant, note)
        try:
            await self._engine.accept(order)
        except BaseException as error:
            if not (isinstance(error, StorageError) and error.code == "storage.unknown"):
                with suppress(StorageError):
                    await self._db.write(who.tenant, lambda session: rows.reopen(session, run_id, "retried"))
            raise
        self._tell(who.tenant, run_id, "retried")
        return order.run_id

    async def retry_many(
        self, who: Actor, run_ids: Sequence[str], *, start: From = "failure", version: Version = "same"
    ) -> Sequence[Tried]:
        """Try several again, one after the other; each is told what came of it. Raises TooMany for more than 200."""
        who.require(Permission.RUN)
        _check_number(run_ids)
        tried = []
        for run_id in dict.fromkeys(run_ids):
            try:
                tried.append(Tried(run_id, await self.retry(who, run_id, start=start, version=version)))
            except FactoryError as error:
                tried.append(Tried(run_id, error=error.as_dict()))
        return tried

    async def _order(
        self,
        who: Actor,
        row: run.Run,
        start: From,
        version: Version,
        input: Any,
        step_input: Mapping[str, Any] | None,
    ) -> Order:
        number, deployed = row.version, row.deployment_id
        plan: Plan | None = None
        if version == "newest":
            plan, number = await self._runs.target(who.tenant, row.blueprint_id, row.environment)
            live = await self._db.read(
                who.tenant, lambda session: deployment.live(session, row.blueprint_id, row.environment)
            )
            deployed = live.id if live is not None else None
        order = Order(
            run_id=new_id("run"),
            tenant=who.tenant,
            plan=plan or await self._plans.by_hash(who.tenant, row.document_hash),
            trigger=row.trigger or None,
            input=input,
            by=row.started_by if row.started_by.startswith(ALARM) else who.id,
            blueprint_id=row.blueprint_id,
            version=number,
            deployment_id=deployed,
            environment=row.environment,
        )
        if start == "failure":
            if input is not SAME_INPUT:
                raise Conflict(
                    "With other data from outside every step runs again, so it can only be tried again from the start.",
                    code="dead_letter.other_input",
                    fix="Try it again from the start, or change what the failed step gets.",
                )
            past = await self._runs.past(who, row.id)
            taken = await asyncio.to_thread(take_over, past, order.plan, step_input)
            order.input, order.fork, order.seed = taken.input, taken.told, taken.facts
            return order
        if order.trigger is not None:
            order.trigger = choose_trigger(order.plan, order.trigger).id  # type: ignore[union-attr]
        if input is SAME_INPUT:
            first = await self._db.read(who.tenant, lambda session: journal.first(session, row.id))
            order.input = (first or {}).get("input")
        order.fork = {"run": row.id, "start": Start.BEGINNING.value, "keys": {}}
        return order

    # --- dismissing ------------------------------------------------------------------------------------------------------

    async def dismiss(self, who: Actor, run_ids: Sequence[str], reason: str) -> int:
        """Say that nothing has to be done about these, and why. How many were open. Raises FactoryError without a reason."""
        who.require(Permission.RUN)
        _check_number(run_ids)
        if not reason.strip():
            raise FactoryError(
                "Say why nothing has to be done.",
                code="dead_letter.reason",
                status=422,
                fix="A few words are enough, such as “the customer cancelled”.",
            )
        at, words = time.time(), reason.strip()[:MAX_REASON]

        def write(session: TenantSession) -> list[str]:
            return [
                run_id
                for run_id in dict.fromkeys(run_ids)
                if rows.settle(session, run_id, to="dismissed", by=who.name, at=at, reason=words)
            ]

        done = await self._db.write(who.tenant, write)
        for run_id in done:
            self._tell(who.tenant, run_id, "dismissed")
        return len(done)

    async def undo(self, who: Actor, run_id: str) -> None:
        """Take a dismissal back. Raises NotFound, Conflict when it is not dismissed."""
        who.require(Permission.RUN)

        def write(session: TenantSession) -> None:
            _found(session, run_id)
            if not rows.reopen(session, run_id, "dismissed"):
                raise Conflict(
                    "This was not dismissed.", code="dead_letter.not_dismissed", fix="Nothing is left to undo."
                )

        await self._db.write(who.tenant, write)
        self._tell(who.tenant, run_id, "open")

    def _tell(self, tenant: str, run_id: str, state: State) -> None:
        self._bus.publish(tenant, ("dead-letters",), {"run": run_id, "state": state})


def _info(session: TenantSession, row: run.Run, done: rows.DeadLetter | None) -> DeadLetterInfo:
    again = run.get(session, done.retry_run) if done is not None and done.retry_run else None
    return DeadLetterInfo(
        run=run_info(row),
        category=Category.read(row.category),
        environment=row.environment,
        state=row.handled or "open",  # type: ignore[arg-type]
        reason=done.reason if done else "",
        done_by=done.done_by if done else "",
        done_at=done.done_at if done else None,
        retry_run=done.retry_run if done else None,
        retry_state=again.state if again else None,
    )


def _found(session: TenantSession, run_id: str) -> tuple[run.Run, rows.DeadLetter | None]:
    found = rows.get(session, run_id)
    if found is None:
        raise NotFound("There is no such failed run.", fix="Look for it in the list of what needs attention.")
    return found


def _not_open(session: TenantSession, run_id: str) -> Conflict:
    _, done = _found(session, run_id)
    what = f"was {done.state} by {done.done_by or 'somebody'} already" if done else "is not open any more"
    return Conflict(f"This {what}.", code="dead_letter.done", fix="Load the page again to see what came of it.")


def _check_number(run_ids: Sequence[str]) -> None:
    if len(run_ids) > MOST_AT_ONCE:
        raise FactoryError(
            f"{len(run_ids):,} are more than the {MOST_AT_ONCE} that can be dealt with at once.",
            code="dead_letter.many",
            status=422,
            fix="Choose fewer, and then the rest.",
        )


def _with_steps(view: DeadLetterView, past: Past, seen: RunView) -> DeadLetterView:
    step = failed_view(seen)
    node = step.node if step is not None else ""
    ways: Ways | None = None
    fed: dict[str, Feed] = {}
    with suppress(FactoryError):
        taken = reuse(past, past.plan, Start.FAILURE)
        names = {id_: one.name for id_, one in past.plan.steps.items()}
        triggers = {one.id for one in past.plan.triggers()}
        ways = Ways(
            tuple(names[id_] for id_ in taken.kept if id_ not in triggers),
            tuple(names[id_] for id_ in taken.runs if id_ not in triggers),
            tuple(names[id_] for id_ in taken.again),
        )
        failed = failure(past)
        fed = feeds(past, past.plan, failed) if failed is not None and failed.place.node == node else {}
    return replace(
        view,
        story=told(seen, past.plan),
        input=seen.input,
        node=node,
        iteration=step.iteration if step is not None else "",
        name=step.name if step is not None else "",
        step_input={port: feed.value for port, feed in fed.items()} or None,
        ways=ways,
        view=seen,
    )
