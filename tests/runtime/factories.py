"""A whole Factory on a database, with the product's own node types, and a way to draw for it."""

from collections.abc import Mapping
from typing import Any

from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from runtime.factory import Factory, Options
from runtime.policy import Actor, Role
from tests.databases import laid_out

ADMIN = Actor("team", "usr_1", "Ada", Role.ADMIN)
DEVELOPER = Actor("team", "usr_2", "Dev", Role.DEVELOPER)
VIEWER = Actor("team", "usr_3", "Vic", Role.VIEWER)
STRANGER = Actor("others", "usr_4", "Eve", Role.ADMIN)


def new_factory(url: str, *, types: Catalog | None = None, **options: Any) -> Factory:
    """A Factory without workers whose clock moves only when a test ticks it, and whose lease no busy machine makes it lose."""
    quiet = {"docker": "off", "pool_size": 0, "ticking": False, "lease_seconds": 60.0}
    return Factory(Options(laid_out(url), bytes(32), **quiet | options), types=types)


def agent(nodes: Mapping[str, Any], *wires: str, kept: bool = False, name: str = "Agent", **more: Any) -> Blueprint:
    """A blueprint from `{"id": ("family.type", settings)}` and wires `a.port > b.port`; `kept`: of any size."""
    placed = []
    for number, (id_, what) in enumerate(nodes.items()):
        type_, settings = (what, {}) if isinstance(what, str) else what
        placed.append({"id": id_, "type": type_, "name": id_, "settings": settings, "x": 260 * number, "y": 0})
    edges = []
    for number, wire in enumerate(wires):
        (source, out), (target, into) = (end.strip().split(".") for end in wire.split(">"))
        edges.append({"id": f"e{number}", "source": source, "source_port": out, "target": target, "target_port": into})
    return Blueprint.parse({"name": name, "nodes": placed, "edges": edges, **more}, kept=kept)
