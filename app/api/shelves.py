"""Files and tables over HTTP. They live in the database; a name is never a path."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.datastructures import UploadFile

from app.api.contract import Editor, Limit, Listed, RequestError, Shown, Viewer, refuses, resource
from app.permissions import UPLOAD_LIMIT, Actor, Permission, TheFactory, allow
from nodes.errors import NotFound

router = APIRouter()
files = resource("files", tag="Files and tables")
tables = resource("tables", tag="Files and tables")

_AROUND = 64 * 1024
"""What a form may take besides the file in it."""
Uploader = Annotated[Actor, allow(Permission.EDIT, limit=UPLOAD_LIMIT + _AROUND)]
FileName = Annotated[str, Query(max_length=200, description="The file's name.", examples=["prices.csv"])]
TableName = Annotated[str, Query(max_length=120, description="The table's name.", examples=["orders"])]
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

upload_body: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                        "name": {"type": "string", "maxLength": 200, "description": "Instead of the file's own name."},
                    },
                }
            }
        },
    }
}


class FileShown(Shown):
    """A file without its content; its size in bytes."""

    name: str
    size: int
    media_type: str
    updated_at: float
    updated_by: str


class TableShown(Shown):
    """A table by name."""

    name: str
    rows: int


class Rows(Shown):
    """Rows in the order they were added."""

    items: list[dict[str, Any]] = Field(examples=[[{"name": "Ada", "total": 1200}]])


@files.get("", response_model=Listed[FileShown], summary="List files")
async def list_files(who: Viewer, factory: TheFactory) -> Any:
    """By name."""
    return {"items": await factory.shelves.files(who)}


@files.post(
    "",
    status_code=201,
    response_model=FileShown,
    openapi_extra=upload_body,
    responses=refuses(413, 415),
    summary="Upload a file",
)
async def upload(request: Request, who: Uploader, factory: TheFactory) -> Any:
    """Keep or replace a file of up to 25 MiB."""
    async with request.form(max_files=1, max_fields=1, max_part_size=_AROUND) as form:
        file, name = form.get("file"), form.get("name", "")
        if not isinstance(file, UploadFile):
            raise RequestError(
                "There is no file in the form.", fix="Send it as the part `file`.", where={"path": "file"}
            )
        if strange := sorted(set(form) - {"file", "name"}):
            raise RequestError(
                f"The form has a part “{strange[0][:60]}” that nobody asked for.", where={"path": strange[0]}
            )
        if not isinstance(name, str):
            raise RequestError("The part `name` is a text.", where={"path": "name"})
        content = await file.read()
        return await factory.shelves.put_file(
            who, name or file.filename or "", content, media_type(file.content_type or "")
        )


@files.get(
    "/content",
    response_class=Response,
    responses={**refuses(404), 200: {"content": {"application/octet-stream": {}}, "description": "The file."}},
    summary="Download a file",
)
async def download(name: FileName, who: Viewer, factory: TheFactory) -> Response:
    """The content, always as an attachment."""
    kinds = {one.name: one.media_type for one in await factory.shelves.files(who)}
    content = await factory.shelves.file(who, name)
    return Response(
        content,
        media_type=media_type(kinds.get(name, "")),
        headers={"Content-Disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}"},
    )


@files.delete("", status_code=204, responses=refuses(404), summary="Delete a file")
async def delete_file(name: FileName, who: Editor, factory: TheFactory) -> None:
    """Steps that read it will fail and say so."""
    await factory.shelves.delete_file(who, name)


@tables.get("", response_model=Listed[TableShown], summary="List tables")
async def list_tables(who: Viewer, factory: TheFactory) -> Any:
    """With how many rows they have."""
    return {"items": await factory.shelves.tables(who)}


@tables.get("/rows", response_model=Rows, responses=refuses(404), summary="Look into a table")
async def rows(table: TableName, who: Viewer, factory: TheFactory, limit: Limit = 100) -> Any:
    """The first rows."""
    found = await factory.shelves.rows(who, table, limit=limit)
    if not found:
        raise NotFound(f"There is no table “{table}”.")
    return {"items": found}


@tables.delete("", status_code=204, responses=refuses(404), summary="Delete a table")
async def clear(table: TableName, who: Editor, factory: TheFactory) -> None:
    """With all its rows."""
    await factory.shelves.clear(who, table)


def media_type(said: str) -> str:
    """The type of a file if it is written as one, without parameters; else that it is just bytes."""
    kind, slash, rest = said.partition(";")[0].strip().lower().partition("/")
    fits = slash and kind and rest and _TOKEN.issuperset(kind) and _TOKEN.issuperset(rest) and len(said) <= 100
    return f"{kind}/{rest}" if fits else "application/octet-stream"


router.include_router(files)
router.include_router(tables)
