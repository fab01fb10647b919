"""Blueprints as people work with them: drafts saved at every gesture, numbered versions, the bin, and the checks."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from nodes.base import NodeError
from nodes.blueprint import Blueprint
from nodes.called import KINDS
from nodes.catalog import Catalog
from nodes.check import Finding, Surroundings, check
from nodes.errors import Conflict, NotFound
from nodes.ids import new_id
from nodes.listen import CalledField
from runtime.compiling import called_by, compile_python
from runtime.environments import LIVE, SHARED, TEST
from runtime.events import Bus
from runtime.fleet import Fleet
from runtime.limits import Limits
from runtime.llm import Llms
from runtime.mail import Mailer
from runtime.plan import Plan
from runtime.policy import Actor, Permission
from runtime.variables import Variables
from runtime.views import BlueprintInfo, Draft, VersionInfo
from storage import blueprint as rows
from storage import deployment, secret, shelf, version
from storage.database import Database
from storage.tenancy import TenantSession


class Blueprints:
    """Drafts and versions of one installation; every call is made as somebody."""

    def __init__(self, db: Database, bus: Bus, types: Catalog, known: "Installation") -> None:
        self._db = db
        self._bus = bus
        self._types = types
        self._known = known

    async def list(self, who: Actor, *, deleted: bool = False) -> Sequence[BlueprintInfo]:
        """All agents (or those in the bin), last changed first."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> Sequence[BlueprintInfo]:
            live = {row.blueprint_id: row for row in deployment.listed(session) if row.environment == LIVE}
            return [self._info(row, live.get(row.id)) for row in rows.listed(session, deleted=deleted)]

        return await self._db.read(who.tenant, read)

    async def create(self, who: Actor, blueprint: Blueprint | None = None, *, name: str = "") -> Draft:
        """A new draft, empty or from a document such as a template."""
        who.require(Permission.EDIT)
        document = blueprint or Blueprint()
        if name:
            document = document.model_copy(update={"name": name})
        self._known.limits.check_graph(who.tenant, document)
        now = time.time()
        row = rows.Blueprint(
            id=new_id("bp"),
            name=document.name,
            description=document.description,
            document=document.canonical().decode(),
            created_at=now,
            updated_at=now,
            updated_by=who.name,
        )
        await self._db.write(who.tenant, lambda session: rows.add(session, row))
        self._listed(who, row.id)
        return Draft(row.id, document, 1, now, who.name)

    async def get(self, who: Actor, id_: str) -> Draft:
        """The draft. Raises NotFound."""
        who.require(Permission.VIEW)
        row = await self._row(who, id_)
        return Draft(row.id, Blueprint.parse(row.document), row.revision, row.updated_at, row.updated_by)

    async def save(self, who: Actor, id_: str, blueprint: Blueprint, *, revision: int) -> int:
        """Save the draft read at `revision`; returns the new one. Raises Conflict if somebody saved in between."""
        who.require(Permission.EDIT)
        text, now = blueprint.canonical().decode(), time.time()
        saved = await self._db.write(
            who.tenant,
            lambda session: rows.save(
                session,
                id_,
                revision=revision,
                name=blueprint.name,
                description=blueprint.description,
                document=text,
                at=now,
                by=who.name,
            ),
        )
        if not saved:
            await self._row(who, id_)
            raise Conflict(
                "Somebody else changed this agent in the meantime.",
                code="blueprint.conflict",
                fix="Open it again to see the newest state, then repeat your change.",
            )
        self._bus.publish(who.tenant, ("blueprint", id_), {"blueprint": id_, "revision": revision + 1})
        return revision + 1

    async def delete(self, who: Actor, id_: str) -> None:
        """Put a draft in the bin. Raises Conflict while it is deployed."""
        who.require(Permission.EDIT)

        def write(session: TenantSession) -> bool:
            if deployment.of(session, id_):
                raise Conflict(
                    "This agent is deployed.",
                    code="blueprint.deployed",
                    fix="Stop its deployment first, then delete it.",
                )
            return rows.delete(session, id_, time.time())

        if not await self._db.write(who.tenant, write):
            raise _missing()
        self._listed(who, id_)

    async def undelete(self, who: Actor, id_: str) -> None:
        """Take a draft out of the bin."""
        who.require(Permission.EDIT)
        if not await self._db.write(who.tenant, lambda session: rows.undelete(session, id_)):
            raise _missing()
        self._listed(who, id_)

    def _listed(self, who: Actor, id_: str) -> None:
        """Lists of agents look different now."""
        self._bus.publish(who.tenant, ("blueprints",), {"blueprint": id_})

    async def snapshot(self, who: Actor, id_: str, note: str = "") -> VersionInfo:
        """Keep the draft as a numbered version; the last one again if nothing changed and there is no note."""
        who.require(Permission.EDIT)
        return await self._db.write(who.tenant, lambda session: keep_version(session, id_, note, who))

    async def versions(self, who: Actor, id_: str) -> Sequence[VersionInfo]:
        """All versions, newest first."""
        who.require(Permission.VIEW)
        await self._row(who, id_)
        found = await self._db.read(who.tenant, lambda session: version.listed(session, id_))
        return [version_info(row) for row in found]

    async def version(self, who: Actor, id_: str, number: int) -> VersionInfo:
        """One version with its document. Raises NotFound."""
        who.require(Permission.VIEW)

        def read(session: TenantSession) -> tuple[version.Version, str] | None:
            row = version.get(session, id_, number)
            return (row, version.text(session, row)) if row else None

        found = await self._db.read(who.tenant, read)
        if found is None:
            raise NotFound(f"There is no version {number} of this agent.", fix="Choose one from the list of versions.")
        return version_info(found[0], Blueprint.parse(found[1]))

    async def restore(self, who: Actor, id_: str, number: int) -> Draft:
        """Make a version the draft again; the present draft is kept as a version first, so nothing is lost."""
        who.require(Permission.EDIT)
        wanted = (await self.version(who, id_, number)).blueprint
        assert wanted is not None
        await self.snapshot(who, id_, f"Before going back to version {number}")
        draft = await self.get(who, id_)
        revision = await self.save(who, id_, wanted, revision=draft.revision)
        return Draft(id_, wanted, revision, time.time(), who.name)

    async def check(
        self, who: Actor, blueprint: Blueprint, *, id: str | None = None, environment: str = ""
    ) -> Sequence[Finding]:
        """Everything the tiers have to say about a document, errors first; for an environment, or as it is drawn."""
        who.require(Permission.VIEW)
        around = await self._known.around(who.tenant, id, environment)
        return await asyncio.to_thread(check, blueprint, self._types, around)

    async def python(self, who: Actor, blueprint: Blueprint) -> str:
        """A document and the agents that it calls as one Python module.

        Raises PlanError, or CannotCompile naming the node that has no Python.
        """
        who.require(Permission.VIEW)
        called = await self._db.read(who.tenant, lambda session: self._called(session, blueprint))
        return await asyncio.to_thread(
            compile_python, blueprint, self._types, called, lambda plan: self._known.variables_of(who.tenant, plan)
        )

    def _called(self, session: TenantSession, blueprint: Blueprint) -> Mapping[str, Blueprint]:
        """The agents that a document calls, and those that they call, as calls find them now."""
        found: dict[str, Blueprint] = {}
        todo = called_by(blueprint, self._types)
        while todo:
            id_ = todo.pop()
            if id_ not in found and (meant := meant_by_call(session, id_, LIVE)) is not None:
                found[id_] = Blueprint.parse(meant[0], kept=True)
                todo |= called_by(found[id_], self._types)
        return found

    async def _row(self, who: Actor, id_: str) -> rows.Blueprint:
        row = await self._db.read(who.tenant, lambda session: rows.get(session, id_))
        if row is None or row.deleted_at is not None:
            raise _missing()
        return row

    def _info(self, row: rows.Blueprint, live: deployment.Deployment | None) -> BlueprintInfo:
        document = Blueprint.parse(row.document)
        triggers = [
            node.name or self._types.get(node.type).title
            for node in document.nodes
            if node.type.startswith("trigger.") and node.type in self._types
        ]
        return BlueprintInfo(
            id=row.id,
            name=row.name,
            description=row.description,
            revision=row.revision,
            updated_at=row.updated_at,
            updated_by=row.updated_by,
            deployment="none" if live is None else "active" if live.state == "active" else "paused",
            deployed_version=live.version if live else None,
            triggers=tuple(triggers),
            deleted=row.deleted_at is not None,
        )


def meant_by_call(session: TenantSession, blueprint_id: str, environment: str) -> tuple[str, int | None] | None:
    """The document that a call of this agent means: the version deployed there, or its draft (version None)."""
    live = deployment.live(session, blueprint_id, environment)
    if live is not None and (kept := version.get(session, blueprint_id, live.version)) is not None:
        return version.text(session, kept), live.version
    row = rows.get(session, blueprint_id)
    return (row.document, None) if row is not None and row.deleted_at is None else None


class Installation:
    """What the checks may know besides the document: secrets, agents and files of the tenant, its model, the mail server."""

    def __init__(
        self, db: Database, llms: Llms, mailer: Mailer, variables: Variables, limits: Limits, fleet: Fleet
    ) -> None:
        self.limits = limits
        self._fleet = fleet
        self._db = db
        self._variables = variables
        self._llms = llms
        self._mailer = mailer

    def variables_of(self, tenant: str, plan: Plan) -> Mapping[str, Any]:
        """The team's variables that a plan reads in live."""
        return self._variables.used(tenant, LIVE, plan)

    async def around(self, tenant: str, blueprint_id: str | None, environment: str = "") -> Surroundings:
        """The surroundings of one agent in an environment; without one, as it is drawn: for live, and maybe for test."""
        place = environment or LIVE
        variables = dict(self._variables.of(tenant, place))
        if not environment:
            variables = {**self._variables.of(tenant, TEST), **variables}
        try:
            model = bool((await self._llms.settings(tenant)).model)
        except NodeError:
            model = True  # one is chosen; what is wrong with it is said where it is chosen

        lacks_node = self._fleet.lacks_node

        def read(session: TenantSession) -> Surroundings:
            calls = _calls(session)
            kept = secret.listed(session)
            known = frozenset(row.name for row in kept if row.environment in (SHARED, place))
            return Surroundings(
                environment=place,
                variables=variables,
                secrets=known,
                elsewhere=frozenset(row.name for row in kept) - known,
                blueprints=frozenset(rows.ids(session)),
                deployed=frozenset(row.blueprint_id for row in deployment.listed(session)),
                own_id=blueprint_id or "",
                files=frozenset(row.name for row in shelf.files(session)),
                model_configured=model,
                mail_configured=self._mailer.configured,
                lacks_node=lacks_node,
                inputs={id_: fields for id_, (fields, _) in calls.items()},
                returns={id_: fields for id_, (_, fields) in calls.items()},
            )

        return await self._db.read(tenant, read)


def _calls(session: TenantSession) -> dict[str, tuple[tuple[CalledField, ...], tuple[CalledField, ...]]]:
    """What agents ask of those that call them and give back, by their id: as it is deployed, or else as it is drawn."""
    live = {row.blueprint_id: row for row in deployment.listed(session)}
    found = {}
    for id_, document in rows.with_text(session, '"trigger.called"'):
        kept = version.get(session, id_, live[id_].version) if id_ in live else None
        text = document if kept is None else version.text(session, kept)
        for placed in orjson.loads(text)["nodes"]:
            if placed["type"] == "trigger.called" and not placed.get("disabled"):
                found[id_] = (_declared(placed["settings"], "fields"), _declared(placed["settings"], "returns"))
                break
    return found


def _declared(settings: Mapping[str, Any], name: str) -> tuple[CalledField, ...]:
    listed = settings.get(name)
    given = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(
        CalledField(str(one.get("name")), str(one.get("kind", "text")), one.get("required") is not False)
        for one in given
        if str(one.get("kind", "text")) in KINDS
    )


def keep_version(session: TenantSession, id_: str, note: str, who: Actor) -> VersionInfo:
    """Snapshot the draft within a transaction. Raises NotFound."""
    row = rows.get(session, id_)
    if row is None or row.deleted_at is not None:
        raise _missing()
    content_hash = Blueprint.parse(row.document).content_hash
    kept = version.add(
        session, id_, hash=content_hash, text=row.document, note=note[:2000], at=time.time(), by=who.name
    )
    return version_info(kept)


def version_info(row: version.Version, blueprint: Blueprint | None = None) -> VersionInfo:
    """The row as a view."""
    return VersionInfo(
        row.blueprint_id, row.number, row.content_hash, row.note, row.created_at, row.created_by, blueprint
    )


def _missing() -> NotFound:
    return NotFound("There is no such agent.", fix="It may have been deleted: look in the bin on the home page.")
