"""Runs as people work with them: start, look at, follow, cancel and repeat, deployed ones and those of the sandbox alike."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Literal

from nodes.blueprint import Blueprint
from nodes.errors import Conflict, NotFound
from nodes.ids import new_id
from runtime.blueprints import meant_by_call
from runtime.engine import Engine
from runtime.environments import LIVE, check_environment
from runtime.events import Bus, Fact
from runtime.execution import Execution, Order
from runtime.forks import Past, Reuse, Start, reuse
from runtime.journal import ENDS, Plans
from runtime.plan import Plan
from runtime.policy import Actor, Permission
from runtime.sandbox import Sandbox as Sandbox
from runtime.sandbox import choose_trigger as choose_trigger
from runtime.story import Story
from runtime.views import RunInfo, RunView
from storage import dead_letter, deployment, journal
from storage import run as rows
from storage.database import Database
from storage.tenancy import TenantSession

FOLLOW = 1.0  # seconds between two looks at the facts of a run that another server may have in hand
MAX_WATCHED = 10_000  # facts kept for a follower that is slower than the run
SAME_INPUT: Final[Any] = object()
"""The input of a run that is done again, as it was; None is an input like others."""
Version = Literal["same", "newest"]
"""Which document a run is done again on: the one it ran on, or what is deployed now (else the draft)."""


class Runs:
    """Runs of one installation; every call is made as somebody."""

    def __init__(self, db: Database, bus: Bus, engine: Engine, plans: Plans) -> None:
        self._db = db
        self._bus = bus
        self._engine = engine
        self._plans = plans

    async def start(
        self,
        who: Actor,
        blueprint_id: str,
        input: Any = None,
        *,
        trigger: str | None = None,
        environment: str = LIVE,
    ) -> str:
        """Start a run of what is deployed in an environment, or else of the draft, and return its id when it is durable.

        Raises NotFound, PlanError, StorageError, TooMany.
        """
        who.require(Permission.RUN)
        check_environment(environment)
        plan, number = await self.target(who.tenant, blueprint_id, environment)
        step = choose_trigger(plan, trigger)
        order = Order(
            run_id=new_id("run"),
            tenant=who.tenant,
            plan=plan,
            trigger=step.id if step else None,
            input=step.node.sample() if input is None and step else input,
            by=who.id,
            blueprint_id=blueprint_id,
            version=number,
            environment=environment,
        )
        return (await self._engine.accept(order)).id

    async def target(self, tenant: str, blueprint_id: str, environment: str = LIVE) -> tuple[Plan, int | None]:
        """The plan that a call of this blueprint means: the version deployed there, or its draft (version None)."""
        found = await self._db.read(tenant, lambda session: meant_by_call(session, blueprint_id, environment))
        if found is None:
            raise NotFound("There is no such agent.", fix="Choose an agent from the list.")
        blueprint = Blueprint.parse(found[0])
        if found[1] is None:
            self._engine.limits.check_graph(tenant, blueprint)
        return self._plans.of(tenant, blueprint), found[1]

    async def list(
        self,
        who: Actor,
        *,
        blueprint_id: str | None = None,
        state: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[RunInfo]:
        """Runs, newest first; `before` is the last id of the page before."""
        who.require(Permission.VIEW)
        size = max(1, min(limit, 200))
        found = await self._db.read(
            who.tenant,
            lambda session: rows.listed(session, blueprint_id=blueprint_id, state=state, limit=size, before=before),
        )
        return [run_info(row) for row in found]

    async def latest(self, who: Actor) -> dict[str, RunInfo]:
        """The newest run of each agent that has one, by the agent's id."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, rows.latest)
        return {blueprint_id: run_info(row) for blueprint_id, row in found.items()}

    async def counts(self, who: Actor, *, since: float = 0.0, blueprint_id: str | None = None) -> dict[str, int]:
        """How many runs there are in each state, accepted since then."""
        who.require(Permission.VIEW)
        return await self._db.read(
            who.tenant, lambda session: rows.counts(session, since=since, blueprint_id=blueprint_id)
        )

    async def get(self, who: Actor, run_id: str) -> RunView:
        """A run with its steps. Raises NotFound."""
        who.require(Permission.VIEW)
        if (sandbox := self._sandbox(who, run_id)) is not None:
            return _story(sandbox.plan, sandbox.history).view(_sandbox_info(sandbox))
        await self._flush(who, run_id)
        row, plan, facts = await self._engine.journal.load(who.tenant, run_id)
        story = await asyncio.to_thread(_story, plan, facts)
        return story.view(run_info(row))

    async def last_input(self, who: Actor, blueprint_id: str, trigger: str) -> Any | None:
        """What came in by a trigger the last time, or None."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> Any:
            row = rows.last(session, blueprint_id, trigger)
            fact = journal.first(session, row.id) if row else None
            return fact["input"] if fact else None

        return await self._db.read(who.tenant, read)

    async def cancel(self, who: Actor, run_id: str) -> None:
        """End a run that is going on or waits; one that has ended stays as it is. Raises NotFound."""
        who.require(Permission.RUN)
        await self._engine.cancel(who.tenant, run_id)

    async def retry(
        self,
        who: Actor,
        run_id: str,
        *,
        from_failed: bool = False,
        input: Any = SAME_INPUT,
        version: Version = "same",
    ) -> str:
        """Do a run again, from its start or from what failed; returns the new run's id.

        From the failure the results of all that went well are used again, and steps that had begun keep their idempotency
        keys. On another `input` everything runs. Raises NotFound, Conflict, PlanError, StorageError, TooMany.
        """
        return await self.fork(
            who, run_id, Start.FAILURE if from_failed else Start.BEGINNING, input=input, version=version
        )

    async def fork(
        self,
        who: Actor,
        run_id: str,
        node: str | None = None,
        *,
        input: Any = SAME_INPUT,
        version: Version = "same",
    ) -> str:
        """Start a new run from a step of an ended one, or from the start when no step is named; returns the new run's id.

        Everything that is not behind the step keeps the result it had (see `runtime.forks`). `version` says which document
        runs: the same one, or what is deployed now. Raises NotFound, Conflict, PlanError, StorageError, TooMany.
        """
        who.require(Permission.RUN)
        found, row, number, deployed = await self._fork(who, run_id, node, version)
        if input is not SAME_INPUT and found[0].start != Start.BEGINNING:
            raise Conflict(
                "On another input every step runs again, so it can only begin at the start.",
                code="fork.other_input",
                fix="Run it from the start, or leave the input as it was.",
            )
        taken, plan = found
        order = Order(
            run_id=new_id("run"),
            tenant=who.tenant,
            plan=plan,
            trigger=taken.trigger,
            input=taken.input if input is SAME_INPUT else input,
            by=who.id,
            blueprint_id=row.blueprint_id,
            version=number,
            deployment_id=deployed,
            environment=row.environment,
            fork=taken.told,
            seed=taken.facts,
        )
        ex = await self._engine.accept(order)
        if row.state == "failed" and taken.start in tuple(Start):
            await self._deal_with(who, run_id, ex.id)
        return ex.id

    async def _deal_with(self, who: Actor, run_id: str, retry_run: str) -> None:
        """A failed run that was tried again as a whole needs no attention any more."""

        def write(session: TenantSession) -> bool:
            return dead_letter.settle(session, run_id, to="retried", by=who.name, at=time.time(), retry_run=retry_run)

        if await self._db.write(who.tenant, write):
            self._bus.publish(who.tenant, ("dead-letters",), {"run": run_id, "state": "retried"})

    async def preview(self, who: Actor, run_id: str, node: str | None = None, *, version: Version = "same") -> Reuse:
        """What `fork` would use again and what would run. Raises NotFound, Conflict, PlanError."""
        who.require(Permission.VIEW)
        return (await self._fork(who, run_id, node, version))[0][0]

    async def past(self, who: Actor, run_id: str) -> Past:
        """A run, deployed or of the sandbox, as something to go on from. Raises NotFound; Conflict while it goes on."""
        who.require(Permission.VIEW)
        if (sandbox := self._sandbox(who, run_id)) is not None:
            past = Past(run_id, sandbox.plan, list(sandbox.history), sandbox=True)
            going_on = sandbox.state not in ENDS
        else:
            row, plan, facts = await self._engine.journal.load(who.tenant, run_id)
            past, going_on = Past(run_id, plan, facts), row.state in rows.UNFINISHED
        if going_on:
            raise Conflict(
                "This run has not ended yet.", code="run.going_on", fix="Cancel it first, or wait for its end."
            )
        return past

    async def _fork(
        self, who: Actor, run_id: str, node: str | None, version: Version
    ) -> tuple[tuple[Reuse, Plan], rows.Run, int | None, str | None]:
        """What is taken over, and for which document: plan, row of the former run, version and deployment."""
        past = await self.past(who, run_id)
        row = await self._db.read(who.tenant, lambda session: rows.get(session, run_id))
        if row is None:
            raise Conflict(
                "This was a test run, and those are gone on with in the Studio.",
                code="fork.test_run",
                fix="Open the agent in the Studio and run it from a step there.",
            )
        plan, number, deployed = past.plan, row.version, row.deployment_id
        if version == "newest":
            plan, number = await self.target(who.tenant, row.blueprint_id, row.environment)
            live = await self._db.read(
                who.tenant, lambda session: deployment.live(session, row.blueprint_id, row.environment)
            )
            deployed = live.id if live is not None else None
        taken = await asyncio.to_thread(reuse, past, plan, node or Start.BEGINNING)
        return (taken, plan), row, number, deployed

    async def wait(self, who: Actor, run_id: str, timeout: float) -> RunView:
        """The run when it has ended or waits for something, or as it stands after so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                async for fact in self.watch(who, run_id):
                    if fact["kind"] in ("run.finished", "step.waiting"):
                        break
        except TimeoutError:
            pass
        return await self.get(who, run_id)

    async def watch(self, who: Actor, run_id: str) -> AsyncIterator[Fact]:
        """The facts of a run, past ones first, then live; ends with the run. Raises NotFound."""
        who.require(Permission.VIEW)
        queue: asyncio.Queue[Fact] = asyncio.Queue(MAX_WATCHED)
        lost = asyncio.Event()

        def hear(fact: Fact) -> None:
            try:
                queue.put_nowait(fact)
            except asyncio.QueueFull:
                lost.set()

        unsubscribe = self._bus.subscribe(who.tenant, ("run", run_id), hear)
        try:
            known = await self._facts(who, run_id)
            seen = 0
            for fact in known:
                seen = fact["seq"]
                yield fact
                if fact["kind"] == "run.finished":
                    return
            while not lost.is_set():
                heard = await self._next(queue, run_id)
                if heard is None:
                    for kept in await self._facts(who, run_id):
                        if kept["seq"] > seen:
                            hear(kept)
                    continue
                fact = heard
                if fact["seq"] > seen or fact["kind"] == "step.skipped":
                    seen = max(seen, fact["seq"])
                    yield fact
                    if fact["kind"] == "run.finished":
                        return
        finally:
            unsubscribe()

    async def _next(self, queue: "asyncio.Queue[Fact]", run_id: str) -> Fact | None:
        """The next fact; None after a second when another server may be making them."""
        if self._engine.lease.alone or run_id in self._engine.active or run_id in self._engine.sandboxes:
            return await queue.get()
        try:
            async with asyncio.timeout(FOLLOW):
                return await queue.get()
        except TimeoutError:
            return None

    async def _facts(self, who: Actor, run_id: str) -> Sequence[Fact]:
        if (sandbox := self._sandbox(who, run_id)) is not None:
            return list(sandbox.history)
        await self._flush(who, run_id)

        def read(session: TenantSession) -> tuple[rows.Run | None, Sequence[Fact]]:
            return rows.get(session, run_id), journal.facts(session, run_id)

        row, facts = await self._db.read(who.tenant, read)
        if row is None:
            raise NotFound("There is no such run.", fix="Look for it in the list of runs.")
        return facts

    async def _flush(self, who: Actor, run_id: str) -> None:
        """What a run in memory has said so far goes to the rows that are read next."""
        active = self._engine.active.get(run_id)
        if active is not None and active.order.tenant == who.tenant:
            await active.flush()

    def _sandbox(self, who: Actor, run_id: str) -> Execution | None:
        found = self._engine.sandboxes.get(run_id)
        return found if found is not None and found.order.tenant == who.tenant else None


def run_info(row: rows.Run) -> RunInfo:
    """The row as a view."""
    return RunInfo(
        id=row.id,
        blueprint_id=row.blueprint_id,
        blueprint_name=row.blueprint_name,
        version=row.version,
        trigger=row.trigger,
        state=row.state,
        started_at=row.accepted_at,
        finished_at=row.finished_at,
        error=row.error,
        needs_attention=row.state == "failed" and row.handled is None,
        environment=row.environment,
    )


def _sandbox_info(ex: Execution) -> RunInfo:
    end = ex.history[-1]["at"] if ex.state in ENDS and ex.history else None
    return RunInfo(
        id=ex.id,
        blueprint_id=ex.order.blueprint_id,
        blueprint_name=ex.plan.blueprint.name,
        version=None,
        trigger=ex.order.trigger or "",
        state=ex.state.value,
        started_at=ex.started_at,
        finished_at=end,
        error=ex.error,
        environment=ex.order.environment,
    )


def _story(plan: Plan, facts: Sequence[Fact]) -> Story:
    story = Story(plan)
    for fact in facts:
        story.tell(fact)
    return story
