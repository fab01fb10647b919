"""Templates: finished agents to start from, read from `assets/templates`, and copies that have addresses of their own."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog

from app.assets import asset_path
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.errors import FactoryError, NotFound

log = structlog.get_logger("factory.templates")


@dataclass(frozen=True, slots=True)
class Template:
    """A finished agent with what the gallery says of it."""

    name: str
    title: str
    summary: str
    category: str
    icon: str
    blueprint: Blueprint
    sample: Any = None
    teaches: tuple[str, ...] = ()
    words: tuple[str, ...] = field(default=())

    def has(self, text: str) -> bool:
        """Whether all the words occur in what it says of itself."""
        about = " ".join((self.title, self.summary, self.category, *self.teaches, *self.words)).lower()
        return all(word in about for word in text.lower().split())


@functools.cache
def templates() -> tuple[Template, ...]:
    """Every template in the order of the index; one that cannot be read is left out and logged."""
    folder = asset_path("templates")
    found = []
    for entry in _index(folder):
        try:
            found.append(_read(folder, entry))
        except (FactoryError, OSError, KeyError) as problem:
            log.error("a template cannot be read", template=str(entry)[:200], problem=str(problem))
    return tuple(found)


def template(name: str) -> Template:
    """The template of that name. Raises NotFound."""
    for one in templates():
        if one.name == name:
            return one
    raise NotFound("There is no such template.", fix="Choose one from the gallery.")


def fresh(blueprint: Blueprint, types: Catalog, *, name: str = "") -> Blueprint:
    """A copy whose triggers have addresses of their own, so that it can be deployed beside the original."""
    placed = []
    for node in blueprint.nodes:
        made = types.get(node.type).first_settings() if node.type in types else {}
        own = {key: value for key, value in made.items() if key in node.settings}
        placed.append(node.model_copy(update={"settings": node.settings | own}) if own else node)
    changes: dict[str, Any] = {"nodes": placed}
    if name:
        changes["name"] = name[:120]
    return blueprint.model_copy(update=changes)


def _index(folder: Path) -> list[dict[str, Any]]:
    path = folder / "index.json"
    if path.is_file():
        data = orjson.loads(path.read_bytes())
        entries = data.get("templates", []) if isinstance(data, dict) else data
        return [dict(entry) for entry in entries]
    return [{"name": one.stem} for one in sorted(folder.glob("*.json"))]


def _read(folder: Path, entry: dict[str, Any]) -> Template:
    name = str(entry["name"])
    blueprint = Blueprint.parse((folder / f"{name}.json").read_bytes())
    return Template(
        name=name,
        title=str(entry.get("title") or blueprint.name),
        summary=str(entry.get("summary") or blueprint.description),
        category=str(entry.get("category") or "Other"),
        icon=str(entry.get("icon") or "account_tree"),
        blueprint=blueprint,
        sample=entry.get("sample"),
        teaches=tuple(str(one) for one in entry.get("teaches", ())),
        words=tuple(str(word) for word in entry.get("words", ())),
    )
