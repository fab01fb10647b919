"""What all routes of the API share: who asks comes before what is sent, JSON is read one strict way, errors have one shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticSerializationError
from starlette.requests import ClientDisconnect

from app.permissions import Actor, Permission, allow, declaration
from nodes.blueprint import Blueprint, BlueprintError, check_json
from nodes.errors import FactoryError

PREFIX = "/api/v1"
MANY = 2**31 - 1
"""No number of ours, such as a revision or a version, is larger."""
_INLINE = 32 * 1024
"""A larger document is read in a thread, so that nobody else waits for it."""

Viewer = Annotated[Actor, allow(Permission.VIEW)]
Editor = Annotated[Actor, allow(Permission.EDIT)]
Runner = Annotated[Actor, allow(Permission.RUN)]
Deployer = Annotated[Actor, allow(Permission.DEPLOY)]
Approver = Annotated[Actor, allow(Permission.APPROVE)]
SecretKeeper = Annotated[Actor, allow(Permission.SECRETS)]
Admin = Annotated[Actor, allow(Permission.ADMIN)]

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Number = Annotated[int, Field(ge=1, le=MANY)]

T = TypeVar("T")


class RequestError(FactoryError):
    """What was sent is not what the route takes."""

    code = "request.invalid"
    status = 422


# --- bodies ------------------------------------------------------------------------------------------------------


class Posted(BaseModel):
    """Base of everything that is sent to us: a field that we did not ask for is an error."""

    model_config = ConfigDict(extra="forbid")


class Shown(BaseModel):
    """Base of everything that we answer with."""

    model_config = ConfigDict(from_attributes=True)


class Listed(Shown, Generic[T]):
    """A list, or one page of it: `next` is what to send as `before` for the page after it, null on the last one."""

    items: list[T]
    next: str | None = None


class Made(Shown):
    """The id of what was made or started."""

    id: str = Field(examples=["run_01k9x2m4c7q8"])


class Problem(Shown):
    """What went wrong: a stable code, a sentence for people, what to do about it, and the place it is about."""

    code: str = Field(examples=["blueprint.conflict"])
    message: str = Field(examples=["Somebody else changed this agent in the meantime."])
    fix: str | None = Field(default=None, examples=["Open it again to see the newest state, then repeat your change."])
    where: dict[str, Any] = Field(default_factory=dict)


class Refusal(Shown):
    """The body of every answer that is not a success."""

    error: Problem


_WHY = {
    401: "Nobody is signed in, or the token is not valid.",
    403: "The role may not do this, or the request lacks its CSRF word.",
    404: "There is no such thing here.",
    409: "It is in a state in which this cannot be done, or somebody else changed it first.",
    413: "More was sent than the route takes.",
    415: "The body has another type than the route takes.",
    422: "What was sent is not right; `where` names the place.",
    428: "It has to be said which revision is meant.",
    429: "A limit was reached; the header Retry-After says when to come back.",
    503: "Something that this needs does not answer at the moment.",
}


def refuses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route can refuse, for the reference."""
    return {status: {"model": Refusal, "description": _WHY[status]} for status in statuses}


def resource(name: str, *, tag: str) -> APIRouter:
    """The router of one resource."""
    return APIRouter(
        prefix=f"{PREFIX}/{name}", tags=[tag], route_class=ApiRoute, responses=refuses(401, 403, 422, 429, 503)
    )


# --- reading -----------------------------------------------------------------------------------------------------


class _Read(Request):
    """A request whose JSON has been read and checked already."""

    value: Any = None

    async def json(self) -> Any:
        return self.value


class ApiRoute(APIRoute):
    """A route that asks for the permission first, then for the right kind of body, and only then reads it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        allowed = declaration(self)
        kinds = set((self.openapi_extra or {}).get("requestBody", {}).get("content", {}))
        plain = bool(kinds)
        """The function reads the body by itself."""
        if self.body_field is not None:
            kinds = {"application/json"}

        async def answered(request: Request) -> Response:
            if allowed is not None:
                allowed(request)
            read = _Read(request.scope, request.receive)
            try:
                if kinds:
                    await _take(read, kinds, plain=plain)
                return await handle(read)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            except PydanticSerializationError as error:
                raise RequestError(
                    "This holds values that cannot be written as JSON.",
                    code="answer.not_json",
                    fix="Look at it in the app instead.",
                ) from error

        return answered


async def _take(read: _Read, kinds: set[str], *, plain: bool) -> None:
    kind = read.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    fits = is_json if "application/json" in kinds else kind in kinds
    if plain and fits:
        return
    body = await read.body()
    if not body:
        return
    if not fits:
        wanted = " or ".join(sorted(kinds))
        raise RequestError(
            f"This takes {wanted}, and “{kind[:60]}” was sent." if kind else f"It was not said that this is {wanted}.",
            code="request.type",
            status=415,
            fix=f"Send the header Content-Type: {wanted}.",
        )
    read.value = await _in_thread(len(body), parse_json, body)


def parse_json(body: bytes) -> Any:
    """The value, which plain JSON can carry: not too deep, finite, valid Unicode. Raises RequestError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"This is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
            code="request.json",
            where={"line": error.lineno, "column": error.colno},
            fix="Correct the text at that place.",
        ) from None
    try:
        check_json(value)
    except BlueprintError as error:
        raise RequestError(error.message, code=error.code.replace("blueprint.", "request.")) from None
    return value


async def _in_thread(size: int, function: Callable[[bytes], T], body: bytes) -> T:
    return function(body) if size <= _INLINE else await asyncio.to_thread(function, body)


async def posted_blueprint(request: Request) -> Blueprint:
    """The document that is the body. Raises BlueprintError."""
    body = await request.body()
    return await _in_thread(len(body), Blueprint.parse, body)


Document = Annotated[Blueprint, Depends(posted_blueprint)]

EXAMPLE = {
    "format": 1,
    "name": "Big orders",
    "nodes": [
        {"id": "in", "type": "trigger.webhook", "settings": {"path": "orders"}, "x": 0, "y": 0},
        {"id": "big", "type": "validation.decide", "settings": {"condition": "total > 1000"}, "x": 260, "y": 0},
    ],
    "edges": [{"id": "e1", "source": "in", "source_port": "body", "target": "big", "target_port": "value"}],
}

document_body: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The document itself. `/api/v1/blueprints/schema` has its JSON Schema.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Blueprint"}, "example": EXAMPLE}},
    }
}
"""For the reference: this route's body is a document, which it reads by itself."""


def revision_of(if_match: str | None, revision: int | None) -> int:
    """Which revision a change is made to: the header If-Match, or the parameter `revision`. Raises RequestError."""
    if revision is not None:
        return revision
    tag = (if_match or "").strip().removeprefix("W/").strip('"')
    if not (tag.isascii() and tag.isdecimal() and 0 < int(tag[:11]) <= MANY):
        raise RequestError(
            "It was not said which revision was changed.",
            code="request.revision",
            status=428,
            fix='Send the header If-Match with the ETag that you got, as in If-Match: "7", or ?revision=7.',
        )
    return int(tag)


def etag(revision: int) -> dict[str, str]:
    """The header that names a revision."""
    return {"ETag": f'"{revision}"'}


def json_answer(value: Any, shape: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value in the shape of a model, as an answer with its own headers or status."""
    adapter: TypeAdapter[Any] = TypeAdapter(shape)
    made = adapter.validate_python(value, from_attributes=True)
    return Response(adapter.dump_json(made), status, media_type="application/json", headers=headers)
