"""Blueprints over HTTP: drafts with their revisions, versions and what differs between them, checks, deploying, running."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Header, Path, Query, Response
from pydantic import Field, JsonValue

from app.api.checks import Checked, checked
from app.api.contract import (
    MANY,
    Deployer,
    Document,
    Editor,
    Listed,
    Made,
    Number,
    Posted,
    RequestError,
    Runner,
    Shown,
    Viewer,
    document_body,
    etag,
    json_answer,
    refuses,
    resource,
    revision_of,
)
from app.api.deployments import DeploymentShown
from app.permissions import IMPORT_LIMIT, Actor, Permission, TheFactory, allow
from nodes.blueprint import Blueprint, diff, json_schema

router = resource("blueprints", tag="Blueprints")

Importer = Annotated[Actor, allow(Permission.EDIT, limit=IMPORT_LIMIT)]
VersionNumber = Annotated[int, Path(ge=1, le=MANY, description="The number of a version.")]
Revision = Annotated[
    int | None, Query(ge=1, le=MANY, description="The revision that was changed, instead of If-Match.")
]
IfMatch = Annotated[str | None, Header(description="The ETag of the revision that was changed.", examples=['"7"'])]


class BlueprintShown(Shown):
    """One agent of the list. Times are seconds since 1970, UTC."""

    id: str = Field(examples=["bp_01k9x2m4c7q8"])
    name: str = Field(examples=["Big orders"])
    description: str
    revision: int
    updated_at: float
    updated_by: str
    deployment: Literal["none", "active", "paused"]
    deployed_version: int | None
    triggers: list[str]
    deleted: bool


class DraftShown(Shown):
    """The one state of a blueprint that can be changed. Its revision is also the answer's ETag."""

    id: str
    revision: int
    updated_at: float
    updated_by: str
    blueprint: Blueprint


class Saved(Shown):
    """The revision that a change made; send it with the next one."""

    revision: int = Field(examples=[8])


class VersionShown(Shown):
    """A numbered snapshot, which never changes."""

    blueprint_id: str
    number: int
    content_hash: str
    note: str
    created_at: float
    created_by: str


class WholeVersion(VersionShown):
    """A version with its document."""

    blueprint: Blueprint


class NewVersion(Posted):
    """Keep the draft as a version."""

    note: str = Field(default="", max_length=2000, examples=["Before the summer prices"])


class Back(Posted):
    """Make a version the draft again."""

    version: Number


class Deploy(Posted):
    """What is deployed, and where: the draft, or a version of it."""

    note: str = Field(default="", max_length=2000)
    version: Number | None = Field(default=None, description="Empty: the draft, which is kept as a version.")
    environment: Literal["live", "test"] = Field(
        default="live", description="`test` has addresses, variables and secrets of its own."
    )
    anyway: str = Field(default="", max_length=500, description="Why an admin deploys it although a case fails.")


class Start(Posted):
    """What a run begins with."""

    input: JsonValue = Field(
        default=None, description="What the trigger gets; its own sample if empty.", examples=[{"total": 1200}]
    )
    trigger: str | None = Field(default=None, max_length=64, description="The id of the trigger; the first if empty.")
    environment: Literal["live", "test"] = Field(default="live", description="Whose version and values it uses.")


class ChangeShown(Shown):
    """One difference between two documents."""

    what: Literal["added", "removed", "changed"]
    part: str = Field(examples=["nodes"])
    id: str
    label: str
    fields: list[str]


class Differences(Shown):
    """What changed, in the order of the document. Moves on the canvas do not count."""

    changes: list[ChangeShown]


@router.get("", response_model=Listed[BlueprintShown], summary="List the agents")
async def listed(who: Viewer, factory: TheFactory, deleted: bool = False) -> Any:
    """All agents, last changed first; with `deleted` those in the bin."""
    return {"items": await factory.blueprints.list(who, deleted=deleted)}


@router.post(
    "",
    status_code=201,
    response_model=DraftShown,
    openapi_extra=document_body,
    responses=refuses(413, 415),
    summary="Make or import an agent",
)
async def create(who: Importer, factory: TheFactory, document: Document) -> Response:
    """A new draft from a document. Importing is the same: nothing in it runs, connects or is looked up.

    `{"name": "My agent"}` is a document too: an empty one.
    """
    draft = await factory.blueprints.create(who, document)
    return json_answer(
        draft, DraftShown, status=201, headers=etag(draft.revision) | {"Location": f"{router.prefix}/{draft.id}"}
    )


@router.get("/schema", response_model=dict[str, Any], summary="The document's JSON Schema")
async def schema(who: Viewer) -> Any:
    """For editors and other tools."""
    return json_schema()


@router.get("/{id}", response_model=DraftShown, responses=refuses(404), summary="Get a draft")
async def get(id: str, who: Viewer, factory: TheFactory) -> Response:
    """The draft, with its revision as ETag."""
    draft = await factory.blueprints.get(who, id)
    return json_answer(draft, DraftShown, headers=etag(draft.revision))


@router.put(
    "/{id}",
    response_model=Saved,
    openapi_extra=document_body,
    responses=refuses(404, 409, 413, 415, 428),
    summary="Save a draft",
)
async def save(
    id: str,
    who: Importer,
    factory: TheFactory,
    document: Document,
    if_match: IfMatch = None,
    revision: Revision = None,
) -> Response:
    """Save the document that was read at a revision. 409 when somebody else saved in between."""
    new = await factory.blueprints.save(who, id, document, revision=revision_of(if_match, revision))
    return json_answer({"revision": new}, Saved, headers=etag(new))


@router.delete("/{id}", status_code=204, responses=refuses(404, 409), summary="Put an agent in the bin")
async def delete(id: str, who: Editor, factory: TheFactory) -> None:
    """It can be taken out again. 409 while it is deployed."""
    await factory.blueprints.delete(who, id)


@router.post("/{id}/undelete", status_code=204, responses=refuses(404), summary="Take an agent out of the bin")
async def undelete(id: str, who: Editor, factory: TheFactory) -> None:
    """It is back as it was."""
    await factory.blueprints.undelete(who, id)


@router.get("/{id}/export", response_model=Blueprint, responses=refuses(404), summary="Export the document")
async def export(
    id: str, who: Viewer, factory: TheFactory, version: Annotated[int | None, Query(ge=1, le=MANY)] = None
) -> Response:
    """The canonical JSON text of the draft or of a version, as a file. Secrets are in it by name only."""
    document = await document_of(who, factory, id, version)
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in document.name.lower())[:60].strip("-") or "agent"
    return Response(
        document.canonical(),
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}.json"'},
    )


@router.get(
    "/{id}/python",
    response_class=Response,
    responses=refuses(404) | {200: {"content": {"text/x-python": {}}, "description": "The module."}},
    summary="The agent as Python",
)
async def python(
    id: str, who: Viewer, factory: TheFactory, version: Annotated[int | None, Query(ge=1, le=MANY)] = None
) -> Response:
    """The draft or a version as one Python module that runs without the factory, and without its safeguards.

    422 `compile.refused` names the step that has no Python of its own, and says why.
    """
    text = await factory.blueprints.python(who, await document_of(who, factory, id, version))
    return Response(text, media_type="text/x-python; charset=utf-8")


@router.get("/{id}/check", response_model=Checked, responses=refuses(404), summary="Check the draft")
async def check(id: str, who: Viewer, factory: TheFactory) -> Any:
    """What the tiers have to say about it, errors first."""
    draft = await factory.blueprints.get(who, id)
    return checked(await factory.blueprints.check(who, draft.blueprint, id=id))


@router.get("/{id}/versions", response_model=Listed[VersionShown], responses=refuses(404), summary="List the versions")
async def versions(id: str, who: Viewer, factory: TheFactory) -> Any:
    """Newest first."""
    return {"items": await factory.blueprints.versions(who, id)}


@router.post(
    "/{id}/versions",
    status_code=201,
    response_model=VersionShown,
    responses=refuses(404, 415),
    summary="Keep a version",
)
async def keep(id: str, who: Editor, factory: TheFactory, posted: NewVersion | None = None) -> Any:
    """The draft as a numbered version; the last one again if nothing changed and there is no note."""
    return await factory.blueprints.snapshot(who, id, posted.note if posted else "")


@router.get("/{id}/versions/{number}", response_model=WholeVersion, responses=refuses(404), summary="Get a version")
async def version(id: str, number: VersionNumber, who: Viewer, factory: TheFactory) -> Any:
    """A version with its document."""
    return await factory.blueprints.version(who, id, number)


@router.post(
    "/{id}/restore", response_model=DraftShown, responses=refuses(404, 409, 415), summary="Go back to a version"
)
async def restore(id: str, who: Editor, factory: TheFactory, posted: Back) -> Response:
    """The version becomes the draft. The present draft is kept as a version first, so nothing is lost."""
    draft = await factory.blueprints.restore(who, id, posted.version)
    return json_answer(draft, DraftShown, headers=etag(draft.revision))


@router.get("/{id}/diff", response_model=Differences, responses=refuses(404), summary="Compare two versions")
async def compare(
    id: str,
    who: Viewer,
    factory: TheFactory,
    before: Annotated[
        str, Query(alias="from", max_length=10, description="A version's number, or `draft`.", examples=["3"])
    ],
    after: Annotated[str, Query(alias="to", max_length=10, description="The same.", examples=["draft"])] = "draft",
) -> Any:
    """What changed from one to the other."""

    documents = [await document_of(who, factory, id, _number(which)) for which in (before, after)]
    return {"changes": diff(*documents)}


@router.post(
    "/{id}/deploy",
    response_model=DeploymentShown,
    responses=refuses(404, 409, 415),
    summary="Deploy the draft or a version",
)
async def deploy(id: str, who: Deployer, factory: TheFactory, posted: Deploy | None = None) -> Any:
    """It answers its addresses and schedules from now on.

    422 `deploy.checks` lists what keeps it from being deployed, `deploy.cases` the cases that fail.
    """
    order = posted or Deploy()
    return await factory.deployments.deploy(
        who, id, note=order.note, version=order.version, environment=order.environment, anyway=order.anyway
    )


@router.post(
    "/{id}/runs", status_code=202, response_model=Made, responses=refuses(404, 409, 415), summary="Start a run"
)
async def start(id: str, who: Runner, factory: TheFactory, posted: Start | None = None) -> Response:
    """A run of the deployed version, or of the draft when nothing is deployed. The answer comes when it is durable."""
    order = posted or Start()
    run = await factory.runs.start(who, id, order.input, trigger=order.trigger, environment=order.environment)
    return json_answer({"id": run}, Made, status=202, headers={"Location": f"/api/v1/runs/{run}"})


async def document_of(who: Actor, factory: TheFactory, id: str, number: int | None) -> Blueprint:
    """The document of a version, or of the draft."""
    if number is None:
        return (await factory.blueprints.get(who, id)).blueprint
    kept = (await factory.blueprints.version(who, id, number)).blueprint
    assert kept is not None
    return kept


def _number(which: str) -> int | None:
    """The number of a version; None for the draft. Raises RequestError."""
    if which == "draft":
        return None
    if not (which.isascii() and which.isdecimal() and 0 < int(which) <= MANY):
        raise RequestError(f"“{which}” is no version.", fix="Send the number of a version, or “draft”.")
    return int(which)
