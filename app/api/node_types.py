"""Node types over HTTP: everything that a graph can be made of, with its settings as JSON Schema."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.api.contract import Listed, Shown, Viewer, refuses, resource
from app.permissions import TheFactory
from nodes.catalog import describe
from nodes.errors import NotFound

router = resource("node-types", tag="Node types")


class PortShown(Shown):
    """Where a value comes in or goes out."""

    name: str
    type: str
    label: str
    help: str
    required: bool
    many: bool
    back: bool


class ExampleShown(Shown):
    """Settings and inputs, and what comes out."""

    title: str
    settings: dict[str, Any]
    inputs: dict[str, Any]
    out: dict[str, Any]


class NodeTypeShown(Shown):
    """A node type. `effect` is what it may do at most, from E0 (nothing outside) to E4 (cannot be undone)."""

    type: str = Field(examples=["validation.decide"])
    family: str
    title: str
    icon: str
    summary: str
    help: str
    words: list[str]
    effect: str
    inputs: list[PortShown]
    outputs: list[PortShown]
    settings: dict[str, Any] = Field(description="The JSON Schema of its settings.")
    examples: list[ExampleShown]


@router.get("", response_model=Listed[NodeTypeShown], summary="List the node types")
async def listed(who: Viewer, factory: TheFactory) -> Any:
    """Family by family."""
    return {"items": factory.catalog.describe()}


@router.get("/{type}", response_model=NodeTypeShown, responses=refuses(404), summary="Get a node type")
async def get(type: str, who: Viewer, factory: TheFactory) -> Any:
    """Its words, ports, settings and examples."""
    if type not in factory.catalog:
        raise NotFound("There is no such node type here.", fix="Look at the list of node types.")
    return describe(factory.catalog.get(type))
