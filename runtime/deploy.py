"""Deployments: which version of a blueprint answers the outside. Swapped hot: a run ends on the version it began on."""

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
from nodes.listen import Chat, Form, Schedule, Webhook
from nodes.moments import upcoming
from runtime.blueprints import Installation, keep_version
from runtime.events import Bus
from runtime.journal import Plans
from runtime.plan import Plan
from runtime.policy import Actor, Permission
from runtime.states import DeploymentState
from runtime.triggers import Hooks
from runtime.views import DeploymentInfo
from storage import blueprint as blueprints
from storage import deployment as rows
from storage import hook, schedule, version
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


class Deployments:
    """Deployments of one installation."""

    def __init__(self, db: Database, bus: Bus, plans: Plans, types: Catalog, hooks: Hooks, known: Installation) -> None:
        self._db = db
        self._bus = bus
        self._plans = plans
        self._types = types
        self._hooks = hooks
        self._known = known

    async def list(self, who: Actor) -> Sequence[DeploymentInfo]:
        """What is live, last deployed first."""
        who.require(Permission.VIEW)
        return await self._db.read(
            who.tenant, lambda session: [self._info(session, row) for row in rows.listed(session)]
        )

    async def get(self, who: Actor, id_: str) -> DeploymentInfo:
        """One deployment. Raises NotFound."""
        who.require(Permission.VIEW)
        return await self._db.read(who.tenant, lambda session: self._info(session, _row(session, id_)))

    async def of(self, who: Actor, blueprint_id: str) -> DeploymentInfo | None:
        """The live deployment of a blueprint, if it has one."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> DeploymentInfo | None:
            row = rows.live(session, blueprint_id)
            return self._info(session, row) if row else None

        return await self._db.read(who.tenant, read)

    async def deploy(
        self, who: Actor, blueprint_id: str, *, note: str = "", version: int | None = None
    ) -> DeploymentInfo:
        """Make the draft (kept as a version) or a version live. Raises NotFound, CheckFailed, PlanError, Clash."""
        who.require(Permission.DEPLOY)
        now = time.time()
        number, plan = await self._ready(who, blueprint_id, note, version)

        def write(session: TenantSession) -> DeploymentInfo:
            row = rows.live(session, blueprint_id)
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
                    ),
                )
            else:
                if number != row.version:
                    rows.swap(session, row.id, current=row.version, version=number, at=now, by=who.name)
                if row.state == DeploymentState.PAUSED.value:
                    rows.move(session, row.id, expected=("paused",), to=DeploymentState.ACTIVE.value, at=now)
                session.refresh(row)
            _wire(session, row, plan, now)
            return self._info(session, row)

        info = await self._db.write(who.tenant, write)
        await self._changed(who, info)
        return info

    async def _ready(self, who: Actor, blueprint_id: str, note: str, number: int | None) -> tuple[int, Plan]:
        """The version to deploy, checked and compiled; the draft becomes a version only when it may be deployed."""

        def read(session: TenantSession) -> str:
            return _draft(session, blueprint_id) if number is None else _version(session, blueprint_id, number)

        text = await self._db.read(who.tenant, read)
        around = await self._known.around(who.tenant, blueprint_id)
        findings = await asyncio.to_thread(check, Blueprint.parse(text), self._types, around)
        if errors := [finding for finding in findings if finding.severity == "error"]:
            raise CheckFailed(errors)
        plan = self._plans.of(who.tenant, Blueprint.parse(text))
        if number is None:
            kept = await self._db.write(who.tenant, lambda session: keep_version(session, blueprint_id, note, who))
            if kept.content_hash != plan.content_hash:
                raise Conflict(
                    "The agent was changed while it was being deployed.", code="deploy.changed", fix="Deploy again."
                )
            number = kept.number
        await self._plans.keep(who.tenant, plan)
        return number, plan

    async def pause(self, who: Actor, id_: str) -> DeploymentInfo:
        """Take no new runs; those that go on go on."""
        return await self._move(who, id_, DeploymentState.PAUSED, ("active",))

    async def resume(self, who: Actor, id_: str) -> DeploymentInfo:
        """Take runs again."""
        return await self._move(who, id_, DeploymentState.ACTIVE, ("paused",))

    async def stop(self, who: Actor, id_: str) -> DeploymentInfo:
        """Give up its addresses and schedules."""
        return await self._move(who, id_, DeploymentState.STOPPED, ("active", "paused"))

    async def _move(self, who: Actor, id_: str, to: DeploymentState, expected: tuple[str, ...]) -> DeploymentInfo:
        who.require(Permission.DEPLOY)
        now = time.time()

        def write(session: TenantSession) -> DeploymentInfo:
            row = _row(session, id_)
            if not rows.move(session, id_, expected=expected, to=to.value, at=now):
                raise Conflict(
                    f"This deployment is {row.state}, so it cannot become {to.value}.",
                    code="deploy.state",
                    fix="Look at its present state on the agent's page.",
                )
            session.refresh(row)
            if to is DeploymentState.STOPPED:
                hook.replace(session, id_, [])
                schedule.replace(session, id_, [])
            else:
                schedule.set_paused(session, id_, to is DeploymentState.PAUSED)
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
            session.refresh(row)
            _wire(session, row, plan, now)
            return self._info(session, row)

        info = await self._db.write(who.tenant, write)
        await self._changed(who, info)
        return info

    async def _changed(self, who: Actor, info: DeploymentInfo) -> None:
        await self._hooks.reload()
        message = {"deployment": info.id, "blueprint": info.blueprint_id, "state": info.state, "version": info.version}
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
                    path=listen.path,
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
                    paused=row.state == DeploymentState.PAUSED.value,
                )
            )
    hook.replace(session, row.id, hooks)
    schedule.replace(session, row.id, clocks)
