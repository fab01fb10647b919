"""The texts in a node's settings that mean more than they say: formulas, templates, names of secrets and files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from nodes.base import Node


@dataclass(frozen=True, slots=True)
class Written:
    """One such text. `field` is where it stands (`values.2.value`), `kind` of which setting it is (`values.value`)."""

    field: str
    kind: str
    label: str
    format: str
    text: str

    def formulas(self) -> "Iterator[tuple[Literal['formula', 'template'], str]]":
        """The formulas and templates in it, each to be read by itself."""
        if self.format == "formula":
            if self.text.strip():
                yield "formula", self.text
        elif self.format == "template":
            if "{{" in self.text or "{%" in self.text or "{#" in self.text:
                yield "template", self.text
        elif self.format == "json" and "{{" in self.text:
            whole = self.text.strip()
            if whole.startswith("{{") and whole.endswith("}}") and whole.count("{{") == 1:
                yield "template", whole
                return
            try:
                todo = [orjson.loads(whole)]
            except (orjson.JSONDecodeError, UnicodeEncodeError):
                return
            while todo:
                value = todo.pop()
                if isinstance(value, str):
                    if "{{" in value:
                        yield "template", value
                elif isinstance(value, dict):
                    todo += reversed(value.values())
                elif isinstance(value, list):
                    todo += reversed(value)


@dataclass(frozen=True, slots=True)
class _Setting:
    name: str
    label: str
    format: str
    show_when: Mapping[str, Any]
    format_when: Mapping[str, Mapping[str, str]]


@cache
def _settings(cls: type[BaseModel]) -> tuple[_Setting, ...]:
    found = []
    for name, field in cls.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        format_, shown, formats = extra.get("format"), extra.get("show_when"), extra.get("format_when")
        found.append(
            _Setting(
                name,
                field.title or name.replace("_", " "),
                format_ if isinstance(format_, str) else "",
                shown if isinstance(shown, dict) else {},
                formats if isinstance(formats, dict) else {},  # type: ignore[arg-type]
            )
        )
    return tuple(found)


def written(node: Node) -> Iterator[Written]:
    """Every text with a format in the settings that count: those that the form hides at present do nothing."""
    yield from _walk(node, "", "", "")


def _walk(model: BaseModel, field: str, kind: str, label: str) -> Iterator[Written]:
    for setting in _settings(type(model)):
        value = getattr(model, setting.name, None)
        if not value or not all(_is(getattr(model, key, None), wanted) for key, wanted in setting.show_when.items()):
            continue
        if isinstance(value, str):
            format_ = setting.format
            for key, formats in setting.format_when.items():
                format_ = formats.get(str(getattr(model, key, "")), format_)
            if format_:
                yield Written(field + setting.name, kind + setting.name, label + setting.label, format_, value)
        elif isinstance(value, list):
            for number, row in enumerate(value):
                if isinstance(row, BaseModel):
                    place = f"{field}{setting.name}.{number}."
                    yield from _walk(row, place, f"{kind}{setting.name}.", f"{label}{setting.label} {number + 1}: ")
                elif isinstance(row, str) and setting.format:
                    place, name = f"{field}{setting.name}.{number}", f"{label}{setting.label} {number + 1}"
                    yield Written(place, kind + setting.name, name, setting.format, row)
        elif isinstance(value, BaseModel):
            yield from _walk(value, f"{field}{setting.name}.", f"{kind}{setting.name}.", f"{label}{setting.label}: ")


def _is(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else bool(value == wanted)
