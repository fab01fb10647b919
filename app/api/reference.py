"""The reference of the API: its OpenAPI document, and a page made from it that needs no script and no other server."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from html import escape
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic.json_schema import models_json_schema

from app.api.contract import ApiRoute, Viewer, refuses
from app.permissions import TheVisit, declaration
from app.plain import POLICY
from nodes.blueprint import Blueprint
from runtime.policy import PERMISSIONS

router = APIRouter(prefix="/api", tags=["Reference"], route_class=ApiRoute, responses=refuses(401))

_ABOUT = """Everything that the screens do. Sign in for a cookie, or send a token: `Authorization: Bearer af_…`.

Every answer that is not a success has the same body: `{"error": {"code", "message", "fix", "where"}}`. Codes are stable,
messages are for people. Lists answer `{"items": […], "next": …}`; send `next` as `before` to get the next page. A change made
with a cookie needs the header `X-CSRF-Token`, which `/api/v1/auth/me` tells you. Ids that are not yours do not exist: 404."""
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of a program, as in `af_…`."},
    "session": {"type": "apiKey", "in": "cookie", "name": "factory_session", "description": "A person who signed in."},
    "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token", "description": "Goes with the cookie."},
}


@router.get("/openapi.json", response_model=dict[str, Any], summary="The OpenAPI document")
async def openapi(request: Request, who: Viewer) -> Response:
    """This API in the form that tools read."""
    return Response(_document(request.app), media_type="application/json")


@router.get("/docs", response_class=Response, include_in_schema=False)
async def docs(request: Request, who: Viewer, visit: TheVisit) -> Response:
    """The same for people."""
    from app.theme import asset_url

    page = _PAGE.format(
        theme=visit.theme,
        style=asset_url("css", "theme.css"),
        own=asset_url("css", "reference.css"),
        body=_body(request.app),
    )
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@functools.lru_cache(maxsize=4)
def _document(server: FastAPI) -> bytes:
    return orjson.dumps(describe(server))


def describe(server: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: every route with what it asks for."""
    document = get_openapi(
        title=server.title,
        version=server.version,
        description=_ABOUT,
        routes=server.routes,
        separate_input_output_schemas=False,
    )
    schemas = document["components"]["schemas"]
    _, own = models_json_schema([(Blueprint, "validation")], ref_template="#/components/schemas/{model}")
    schemas.update(own["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = _SCHEMES
    for method, path, permission in _declared(server):
        operation = document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            continue
        answers = operation["responses"]
        for answer in answers.values():
            if answer["description"] == "Successful Response":
                answer["description"] = "Done."
        operation["responses"] = dict(sorted(answers.items()))
        if permission is None:
            operation["security"] = []
        else:
            changes = method != "GET"
            operation["security"] = [{"token": []}, {"session": [], "csrf": []} if changes else {"session": []}]
            operation["x-permission"] = permission
            roles = [role.value for role, may in PERMISSIONS.items() if permission in may]
            operation["description"] = f"{operation['description']}\n\nFor: {', '.join(roles)}."
    return document


def _declared(server: FastAPI) -> Iterator[tuple[str, str, Any]]:
    for context in iter_route_contexts(server.router.routes):
        declared = declaration(context)
        if declared is not None:
            for method in context.methods or ():
                yield method, context.path or "", declared.permission


# --- the page ----------------------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en" data-theme="{theme}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The API · Agent Factory</title>
<link rel="icon" href="/assets/icons/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{style}">
<link rel="stylesheet" href="{own}">
</head>
<body>
{body}
</body>
</html>
"""


@functools.lru_cache(maxsize=4)
def _body(server: FastAPI) -> str:
    document = describe(server)
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append((method, path, operation))
    links = "".join(f'<a href="#{_slug(tag)}">{escape(tag)}</a>' for tag in groups)
    about = "".join(f"<p>{_words(part)}</p>" for part in document["info"]["description"].split("\n\n"))
    sections = "".join(
        f'<section id="{_slug(tag)}"><h2>{escape(tag)}</h2>{"".join(_operation(*one, document) for one in found)}</section>'
        for tag, found in groups.items()
    )
    return (
        f'<header class="af-ref-head"><a class="af-brand" href="/"><span class="af-mark"></span>Agent Factory</a>'
        f'<a class="af-link" href="/api/openapi.json">openapi.json</a></header>'
        f'<div class="af-ref"><nav aria-label="Parts of the API">{links}</nav><main id="content"><h1>The API</h1>'
        f"{about}{sections}</main></div>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    parts = ["".join(f"<p>{_words(part)}</p>" for part in operation.get("description", "").split("\n\n"))]
    parts.append(_parameters(operation.get("parameters", [])))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        example = content.get("example", _example(content["schema"], document))
        parts.append(f"<h3>Send <code>{escape(kind)}</code></h3>{_code(example)}")
    for status, answer in operation["responses"].items():
        for kind, content in answer.get("content", {}).items() if status.startswith("2") else ():
            example = content.get("example", _example(content.get("schema", {}), document))
            parts.append(f"<h3>{status} <code>{escape(kind)}</code></h3>{_code(example)}")
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{_words(answer.get('description', ''))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    parts.append(f"<h3>Answers</h3><table>{rows}</table>")
    return (
        f'<details><summary><b class="is-{method}">{method.upper()}</b> <code>{escape(path)}</code> '
        f"<span>{escape(operation.get('summary', ''))}</span></summary>{''.join(parts)}</details>"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}{', required' if one.get('required') else ''}</td>"
        f"<td>{_words(one.get('description', ''))}</td></tr>"
        for one in parameters
    )
    return f"<h3>Parameters</h3><table>{rows}</table>"


def _example(schema: dict[str, Any], document: dict[str, Any], depth: int = 0) -> Any:
    """Something that fits the schema, for people to read."""
    if depth > 6:
        return "…"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _example(document["components"]["schemas"].get(name, {}), document, depth + 1)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    if "default" in schema:
        return schema["default"]
    for choice in schema.get("anyOf", ()):
        return _example(choice, document, depth + 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: _example(one, document, depth + 1) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_example(schema.get("items", {}), document, depth + 1)]
    return {"string": "…", "integer": 1, "number": 1764000000.0, "boolean": True}.get(str(kind))


def _code(example: Any) -> str:
    text = example if isinstance(example, str) else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
    return f"<pre><code>{escape(text)}</code></pre>"


def _words(text: str) -> str:
    """Text with its `code` marked up."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _slug(text: str) -> str:
    return text.lower().replace(" ", "-")
