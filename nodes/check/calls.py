"""Calls of other agents: whether they bring what the called agent says that it needs."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from nodes.called import KINDS, fits_kind
from nodes.check.findings import Findings, Severity
from nodes.check.reading import Reading
from nodes.listen import CalledField
from nodes.shape import Shape

CALLS: Final = ("flow.call_blueprint", "flow.start_blueprint")
_NOT_ONE: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"number", "yes/no", "list", "record", "nothing"}),
    "number": frozenset({"text", "moment", "yes/no", "list", "record", "nothing"}),
    "yes/no": frozenset({"text", "moment", "number", "list", "record", "nothing"}),
    "list": frozenset({"text", "moment", "number", "yes/no", "record", "nothing"}),
    "record": frozenset({"text", "moment", "number", "yes/no", "list", "nothing"}),
}
"""Kinds of values that surely are not of a declared kind."""


def read_calls(reading: Reading, findings: Findings) -> None:
    """Hold the input of every call against what the called agent declares, where that is known."""
    if reading.around is None:
        return
    for id_, node in reading.working():
        if type(node).type not in CALLS:
            continue
        wanted = reading.around.inputs.get(str(getattr(node, "blueprint", "")).strip())
        if not wanted:
            continue
        text = str(getattr(node, "input", "")).strip()
        if text:
            _read_written(reading, findings, id_, text, wanted)
        else:
            _read_arriving(reading, findings, id_, wanted)


def _read_written(reading: Reading, findings: Findings, id_: str, text: str, wanted: tuple[CalledField, ...]) -> None:
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        return  # one formula, or no JSON, which is said elsewhere
    if not isinstance(given, dict):
        return
    for field in wanted:
        if field.name not in given:
            if field.required:
                _missing(reading, findings, id_, field, "error")
        elif wrong := _wrong_literal(field, given[field.name]):
            _wrong(reading, findings, id_, field, wrong, "error")
    known = {field.name for field in wanted}
    for name in given:
        if name not in known:
            findings.add(
                "warning",
                "call.unknown_input",
                f"{reading.name(id_)} gives “{name[:60]}”, which the called agent does not ask for; it is not used.",
                f"Leave it out, or give one of: {', '.join(sorted(known))}."[:300],
                node=id_,
                field="input",
            )


def _read_arriving(reading: Reading, findings: Findings, id_: str, wanted: tuple[CalledField, ...]) -> None:
    main: Shape | None = reading.certain.main(id_)
    if main is None or main.kind != "record":
        return
    for field in wanted:
        shape = main.fields.get(field.name)
        if shape is None:
            if field.required and not main.open:
                _missing(reading, findings, id_, field, "error")
        elif shape.kind in _NOT_ONE.get(field.kind, ()) and (field.required or shape.kind != "nothing"):
            _wrong(reading, findings, id_, field, shape.describe(), "warning")


def _wrong_literal(field: CalledField, value: Any) -> str:
    """What a value is that can be read from the settings and does not fit; empty when it fits or only a run can tell."""
    if isinstance(value, str) and "{{" in value:
        whole = value.strip()
        alone = whole.startswith("{{") and whole.endswith("}}") and whole.count("{{") == 1
        return "" if alone or field.kind in ("text", "any") else "a text"
    if value is None:
        return "" if not field.required else "empty"
    return "" if fits_kind(field.kind, value) else "something else"


def _missing(reading: Reading, findings: Findings, id_: str, field: CalledField, severity: Severity) -> None:
    findings.add(
        severity,
        "call.missing_input",
        f"{reading.name(id_)} does not give “{field.name}”, which the called agent needs.",
        f"Give it in the input: {KINDS[field.kind]} called “{field.name}”.",
        node=id_,
        field="input",
    )


def _wrong(reading: Reading, findings: Findings, id_: str, field: CalledField, found: str, severity: Severity) -> None:
    findings.add(
        severity,
        "call.wrong_input",
        f"{reading.name(id_)} gives “{field.name}” as {found}, and the called agent takes {KINDS[field.kind]}.",
        f"Give {KINDS[field.kind]} as “{field.name}”.",
        node=id_,
        field="input",
    )
