"""Deployments: which version of a blueprint answers the outside, live and in test.

Swapped hot: a run ends on the version it began on.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.check import Finding, check
from nodes.errors import Conflict, FactoryError, NotFound
from nodes.ids import new_id
from nodes.listen import Chat, FileArrived, Form, RowAdded, RunEnded, Schedule, Webhook
from nodes.moments import upcoming
from runtime import happenings
from runtime.blueprints import Installation, keep_version
from runtime.cases import CaseReport, Cases
from runtime.environments import LIVE, TEST, TEST_PATH, check_environment
from runtime.events import Bus
from runtime.held import Held
from runtime.journal import Plans
from runtime.plan import Plan
from runtime.policy import Actor, Permission
from runtime.states import DeploymentState
from runtime.triggers import Hooks
from runtime.views import DeploymentInfo
from storage import blueprint as blueprints
from storage import deployment as rows
from storage import happening, held_call, hook, schedule, version
from storage.database import Database
from storage.tenancy import TenantSession

PREFIXES = {"webhook": "/hooks/", "form": "/forms/", "chat": "/chat/"}


class CheckFailed(FactoryError):
    """The blueprint has findings that forbid to deploy it."""

    code = "deploy.checks"
    status = 422

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        more = f" ({len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"It cannot be deployed yet: {first.sentence}{more}", fix=first.fix, where={"node": first.node}
        )
        self.findings = findings

    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {"findings": [asdict(finding) for finding in self.findings]}


class CasesFailed(FactoryError):
    """Some of the agent's own cases do not come to what is expected of them."""

    code = "deploy.cases"
    status = 422

    def __init__(self, report: CaseReport) -> None:
        first, *more = report.failing
        others = f" {len(more)} more case{' fails' if len(more) == 1 else 's fail'} too." if more else ""
        super().__init__(
            f"It cannot go live yet: the case “{first.name}” fails. {first.why}{others}",
            fix="Correct the agent or the case. An admin may deploy it anyway, and says why.",
            where={"case": first.id},
        )
        self.report = report

    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {"cases": [asdict(result) for result in self.report.results]}


class Deployments:
    """Deployments of one installation."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        plans: Plans,
        types: Catalog,
        hooks: Hooks,
        known: Installation,
        held: Held,
        cases: Cases,
    ) -> None:
        self._db = db
        self._bus = bus
        self._plans = plans
        self._types = types
        self._hooks = hooks
        self._known = known
        self._held = held
        self._cases = cases

    async def list(self, who: Actor) -> Sequence[DeploymentInfo]:
        """What is deployed in any environment, last deployed first."""
        who.require(Permission.VIEW)
        return await self._db.read(
            who.tenant, lambda session: [self._info(session, row) for row in rows.listed(session)]
        )

    async def get(self, who: Actor, id_: str) -> DeploymentInfo:
        """One deployment. Raises NotFound."""
        who.require(Permission.VIEW)
        return await self._db.read(who.tenant, lambda session: self._info(session, _row(session, id_)))

    async def of(self, who: Actor, blueprint_id: str, environment: str = LIVE) -> DeploymentInfo | None:
        """The deployment of a blueprint in an environment, if it has one."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> DeploymentInfo | None:
            row = rows.live(session, blueprint_id, environment)
            return self._info(session, row) if row else None

        return await self._db.read(who.tenant, read)

    async def deploy(
        self,
        who: Actor,
        blueprint_id: str,
        *,
        note: str = "",
        version: int | None = None,
        environment: str = LIVE,
        anyway: str = "",
    ) -> DeploymentInfo:
        """Put the draft (kept as a version) or a version in use. `anyway` is why an admin does it though a case fails.

        Raises NotFound, CheckFailed, CasesFailed, PlanError, Clash.
        """
        who.require(Permission.DEPLOY)
        check_environment(environment)
        if anyway := anyway.strip()[:500]:
            who.require(Permission.ADMIN)
        now = time.time()
        number, plan, waiver = await self._ready(who, blueprint_id, note, version, environment, anyway)

        def write(session: TenantSession) -> DeploymentInfo:
            row = rows.live(session, blueprint_id, environment)
            if row is None:
                row = rows.add(
                    session,
                    rows.Deployment(
                        id=new_id("dep"),
                        blueprint_id=blueprint_id,
                        state=DeploymentState.ACTIVE.value,
                        version=number,
                        deployed_at=now,
                        deployed_by=who.name,
                        changed_at=now,
                        environment=environment,
                        clocks=environment == LIVE,
                    ),
                )
            else:
                if number != row.version:
                    rows.swap(session, row.id, current=row.version, version=number, at=now, by=who.name)
                if row.state == DeploymentState.PAUSED.value:
                    rows.move(session, row.id, expected=("paused",), to=DeploymentState.ACTIVE.value, at=now)
            rows.set_waiver(session, row.id, waiver)
            session.refresh(row)
            _wire(session, row, plan, now)
            return self._info(session, row)

        info = await self._db.write(who.tenant, write)
        await self._changed(who, info)
        return info

    async def _ready(
        self, who: Actor, blueprint_id: str, note: str, number: int | None, environment: str, anyway: str
    ) -> tuple[int, Plan, str | None]:
        """The version to deploy, checked, tried and compiled, and why it is let through if a case fails.

        The draft becomes a version only when it may be deployed.
        """

        def read(session: TenantSession) -> str:
            return _draft(session, blueprint_id) if number is None else _version(session, blueprint_id, number)

        text = await self._db.read(who.tenant, read)
        around = await self._known.around(who.tenant, blueprint_id, environment)
        self._known.limits.check_graph(who.tenant, Blueprint.parse(text))
        findings = await asyncio.to_thread(check, Blueprint.parse(text), self._types, around)
        if errors := [finding for finding in findings if finding.severity == "error"]:
            raise CheckFailed(errors)
        waiver = None
        if environment == LIVE:
            report = await self._cases.run(who, blueprint_id, Blueprint.parse(text))
            if report.failing and not anyway:
                raise CasesFailed(report)
            if report.failing:
                waiver = f"{len(report.failing)} of {len(report.results)} cases failed. {who.name}: {anyway}"
        plan = self._plans.of(who.tenant, Blueprint.parse(text))
        if number is None:
            kept = await self._db.write(who.tenant, lambda session: keep_version(session, blueprint_id, note, who))
            if kept.content_hash != plan.content_hash:
                raise Conflict(
                    "The agent was changed while it was being deployed.", code="deploy.changed", fix="Deploy again."
                )
            number = kept.number
        await self._plans.keep(who.tenant, plan)
        return number, plan, waiver

    async def pause(self, who: Actor, id_: str, *, hold: bool = False) -> DeploymentInfo:
        """Take no new runs; those that go on go on. Calls are refused, or with `hold` kept and started when it goes on."""
        return await self._move(who, id_, DeploymentState.PAUSED, ("active",), hold=hold)

    async def resume(self, who: Actor, id_: str) -> DeploymentInfo:
        """Take runs again, first those of the calls that were held."""
        return await self._move(who, id_, DeploymentState.ACTIVE, ("paused",))

    async def stop(self, who: Actor, id_: str, *, drop_held: bool = False) -> DeploymentInfo:
        """Give up its addresses and schedules. Raises Conflict while calls are held, unless they may be dropped."""
        return await self._move(who, id_, DeploymentState.STOPPED, ("active", "paused"), drop_held=drop_held)

    async def set_clocks(self, who: Actor, id_: str, on: bool) -> DeploymentInfo:
        """Let its schedules run from the next moment on, or not. In test they are off until somebody wants them."""
        who.require(Permission.DEPLOY)
        now = time.time()

        def write(session: TenantSession) -> DeploymentInfo:
            row = _row(session, id_)
            if row.state == DeploymentState.STOPPED.value:
                raise Conflict("This deployment is stopped.", code="deploy.state", fix="Deploy the agent again.")
            rows.set_clocks(session, id_, on, now)
            if on and not row.clocks:
                for clock in schedule.of(session, id_):
                    first = upcoming(Schedule(**clock.spec), datetime.fromtimestamp(now, UTC), 1)
                    schedule.set_next(session, clock.id, first[0].timestamp() if first else None)
            schedule.set_paused(session, id_, not on or row.state == DeploymentState.PAUSED.value)
            session.refresh(row)
            return self._info(session, row)

        info = await self._db.write(who.tenant, write)
        await self._changed(who, info)
        return info

    async def _move(
        self,
        who: Actor,
        id_: str,
        to: DeploymentState,
        expected: tuple[str, ...],
        *,
        hold: bool = False,
        drop_held: bool = False,
    ) -> DeploymentInfo:
        who.require(Permission.DEPLOY)
        now = time.time()

        def write(session: TenantSession) -> DeploymentInfo:
            row = _row(session, id_)
            wanted = expected
            if to is DeploymentState.PAUSED and row.state == to.value and row.hold != hold:
                wanted = (to.value,)  # only what becomes of the calls changes
            if not rows.move(session, id_, expected=wanted, to=to.value, at=now, hold=hold):
                raise Conflict(
                    f"This deployment is {row.state}, so it cannot become {to.value}.",
                    code="deploy.state",
                    fix="Look at its present state on the agent's page.",
                )
            session.refresh(row)
            if to is DeploymentState.STOPPED:
                waiting = held_call.count(session, id_)
                if waiting and not drop_held:
                    raise Conflict(
                        f"{waiting:,} call{'' if waiting == 1 else 's'} would be lost: kept while it was paused, and not "
                        "started yet.",
                        code="deploy.held",
                        fix="Resume it first, so that they run; or stop it and throw them away.",
                    )
                held_call.clear(session, id_)
                hook.replace(session, id_, [])
                schedule.replace(session, id_, [])
                happening.replace(session, id_, [])
            else:
                schedule.set_paused(session, id_, to is DeploymentState.PAUSED or not row.clocks)
            return self._info(session, row)

        info = await self._db.write(who.tenant, write)
        await self._changed(who, info)
        return info

    async def rollback(self, who: Actor, id_: str) -> DeploymentInfo:
        """Go back to the version that was live before. Raises Conflict when there was none."""
        who.require(Permission.DEPLOY)
        info = await self.get(who, id_)
        if info.previous is None:
            raise Conflict(
                "There is no earlier version to go back to.", code="deploy.first", fix="Deploy another version instead."
            )
        text = await self._db.read(who.tenant, lambda session: _version(session, info.blueprint_id, info.previous or 0))
        plan = self._plans.of(who.tenant, Blueprint.parse(text))
        now = time.time()

        def write(session: TenantSession) -> DeploymentInfo:
            done = rows.swap(session, id_, current=info.version, version=info.previous or 0, at=now, by=who.name)
            if not done:
                raise Conflict("Somebody else deployed in the meantime.", code="deploy.changed", fix="Look again.")
            row = _row(session, id_)
            rows.set_waiver(session, id_, None)
            session.refresh(row)
            _wire(session, row, plan, now)
            return self._info(session, row)

        info = await self._db.write(who.tenant, write)
        await self._changed(who, info)
        return info

    async def _changed(self, who: Actor, info: DeploymentInfo) -> None:
        await self._hooks.reload()
        if info.state == DeploymentState.ACTIVE.value:
            self._held.release_soon(who.tenant, info.id)
        message = {
            "deployment": info.id,
            "blueprint": info.blueprint_id,
            "environment": info.environment,
            "state": info.state,
            "version": info.version,
        }
        self._bus.publish(who.tenant, ("deployments",), message)

    def _info(self, session: TenantSession, row: rows.Deployment) -> DeploymentInfo:
        drafted = blueprints.get(session, row.blueprint_id)
        plan = self._plans.of(session.tenant, Blueprint.parse(_version(session, row.blueprint_id, row.version)))
        spoken = [step.node.describe() for step in plan.triggers() if isinstance(step.node.listens(), Schedule)]
        return DeploymentInfo(
            id=row.id,
            blueprint_id=row.blueprint_id,
            blueprint_name=drafted.name if drafted else plan.blueprint.name,
            version=row.version,
            previous=row.previous,
            state=DeploymentState(row.state).value,
            deployed_at=row.deployed_at,
            deployed_by=row.deployed_by,
            addresses=tuple(PREFIXES[one.kind] + one.path for one in hook.of(session, row.id)),
            schedules=tuple(spoken),
            events=tuple(
                f"{step.node.title}: {step.node.describe()}"
                for step in plan.triggers()
                if isinstance(step.node.listens(), RunEnded | RowAdded | FileArrived)
            ),
            environment=row.environment,
            hold=row.hold,
            clocks=row.clocks,
            waiver=row.waiver or "",
            held=held_call.count(session, row.id),
        )


def _row(session: TenantSession, id_: str) -> rows.Deployment:
    row = rows.get(session, id_)
    if row is None:
        raise NotFound("There is no such deployment.", fix="Look at the agent's page.")
    return row


def _draft(session: TenantSession, blueprint_id: str) -> str:
    row = blueprints.get(session, blueprint_id)
    if row is None or row.deleted_at is not None:
        raise NotFound("There is no such agent.", fix="Choose an agent from the list.")
    return row.document


def _version(session: TenantSession, blueprint_id: str, number: int) -> str:
    row = version.get(session, blueprint_id, number)
    if row is None:
        raise NotFound(f"There is no version {number} of this agent.", fix="Choose one from the list of versions.")
    return version.text(session, row)


def _wire(session: TenantSession, row: rows.Deployment, plan: Plan, now: float) -> None:
    """Point addresses and clocks at this deployment, and take away those that it no longer has."""
    hooks: list[hook.Hook] = []
    clocks: list[schedule.Schedule] = []
    for step in plan.triggers():
        listen = step.node.listens()
        if isinstance(listen, Webhook | Form | Chat) and not step.placed.disabled:
            hooks.append(
                hook.Hook(
                    id=new_id("hook"),
                    kind=type(listen).__name__.lower(),
                    path=TEST_PATH + listen.path if row.environment == TEST else listen.path,
                    method=listen.method if isinstance(listen, Webhook) else "ANY",
                    deployment_id=row.id,
                    blueprint_id=row.blueprint_id,
                    node=step.id,
                )
            )
        elif isinstance(listen, Schedule) and not step.placed.disabled:
            first = upcoming(listen, datetime.fromtimestamp(now, UTC), 1)
            clocks.append(
                schedule.Schedule(
                    id=new_id("sch"),
                    deployment_id=row.id,
                    blueprint_id=row.blueprint_id,
                    node=step.id,
                    spec=asdict(listen),
                    next_due=first[0].timestamp() if first else None,
                    paused=row.state == DeploymentState.PAUSED.value or not row.clocks,
                )
            )
    hook.replace(session, row.id, hooks)
    schedule.replace(session, row.id, clocks)
    happenings.wire(session, row, plan, now)
