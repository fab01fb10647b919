"""Formulas and templates read against what can arrive: what cannot be read is structure, what cannot be there is business."""

import re
from typing import Any, Final

from nodes.blueprint import Placed
from nodes.check.findings import Findings, Operation, Severity, Tier, asked
from nodes.check.reading import Reading
from nodes.check.scopes import Scopes
from nodes.check.written import Written
from nodes.formula import (
    Compiled,
    CompiledText,
    FormulaError,
    Problem,
    check_formula,
    check_text,
    compile_formula,
    compile_text,
)
from nodes.shape import Shape, record

_OF_DATA: Final = frozenset({"formula.unknown_name", "formula.may_be_missing", "formula.type", "formula.value"})
_MEANT: Final = re.compile(r"did you mean `([^`]+)`\?$")
_EMPTY: Final = record()


def read_formulas(reading: Reading, findings: Findings) -> None:
    """Say what is wrong with every formula of every step that is switched on."""
    for id_, _ in reading.working():
        for text in reading.texts[id_]:
            for kind, source in text.formulas():
                _read(reading, findings, id_, text, kind, source)


def _read(reading: Reading, findings: Findings, id_: str, text: Written, kind: str, source: str) -> None:
    try:
        compiled: Compiled | CompiledText = compile_formula(source) if kind == "formula" else compile_text(source)
    except FormulaError:
        # The checks name every place in a text that cannot be read, and the nearest name that was meant.
        for problem in _problems(kind, source, _EMPTY):
            if problem.code not in _OF_DATA:
                _say(reading, findings, id_, text, source, problem, "error", "structure")
        return
    if not compiled.names:
        wanted = _problems(kind, source, _EMPTY)
    else:
        wanted = _problems(kind, source, _scope(reading.expected, id_, text, compiled))
    if "steps" in compiled.names:
        _read_steps(reading, findings, id_, text, source, compiled)
    if not wanted:
        return
    surely = {
        (problem.code, _start(problem)): problem.severity
        for problem in _problems(kind, source, _scope(reading.certain, id_, text, compiled))
    }
    for problem in wanted:
        if problem.code == "formula.unknown_name" and problem.message.startswith("Unknown name `args`"):
            findings.add(
                "error",
                "tool.unused",
                f"{reading.name(id_)}, {text.label}: only a tool of an agent has `args`, and this step is none.",
                "Connect its “tool” port with “tools” of an agent, or use what arrives.",
                node=id_,
                field=text.field,
                tier="structure",
            )
            continue
        known: Severity | None = surely.get((problem.code, _start(problem)))
        guessed = known is None
        if guessed and problem.severity == "warning" and not _MEANT.search(problem.message):
            continue  # it has a default, and samples do not show everything
        severity: Severity = known or ("warning" if problem.severity == "error" else "hint")
        tier: Tier = "business" if problem.code in _OF_DATA else "structure"
        _say(reading, findings, id_, text, source, problem, severity, tier, guessed=guessed)


def _problems(kind: str, source: str, schema: Shape) -> list[Problem]:
    nothing: list[Problem] = []
    return asked(lambda: check_formula(source, schema) if kind == "formula" else check_text(source, schema), nothing)


def _keys(compiled: Compiled | CompiledText, scopes: Scopes) -> list[str] | None:
    """The steps that it reads; None when it takes any of them, or one that is not there, which needs all the names."""
    if "steps" not in compiled.names:
        return []
    paths = [path.split(".") for path in compiled.paths if path == "steps" or path.startswith("steps.")]
    if all(len(path) > 1 and path[1] in scopes.by_key for path in paths):
        return list(dict.fromkeys(path[1] for path in paths))
    return None


def _start(problem: Problem) -> int:
    return problem.position.start if problem.position else -1


def _scope(scopes: Scopes, id_: str, text: Written, compiled: Compiled | CompiledText) -> Shape:
    known = scopes.known(id_, steps=_keys(compiled, scopes))
    node = scopes.graph.nodes[id_]
    return asked(lambda: node.known_in(text.kind, known, scopes.arriving[id_]), known)


def _say(
    reading: Reading,
    findings: Findings,
    id_: str,
    text: Written,
    source: str,
    problem: Problem,
    severity: Severity,
    tier: Tier,
    *,
    guessed: bool = False,
) -> None:
    fix = problem.fix or "Correct the formula."
    sentence = f"{reading.name(id_)}, {text.label}: {problem.message}"
    if guessed and problem.code == "formula.unknown_name":
        fix += " If it does arrive, add it to the sample of the trigger."
    findings.add(
        severity,
        problem.code,
        sentence,
        fix,
        node=id_,
        field=text.field,
        repair=_rewritten(reading.graph.placed[id_], text, source, problem),
        tier=tier,
    )


def _rewritten(placed: Placed, text: Written, source: str, problem: Problem) -> list[Operation]:
    """The operation that writes the name that was meant, where the text is the setting itself."""
    meant, place = _MEANT.search(problem.message), problem.position
    if problem.code != "formula.unknown_name" or not meant or not place or source != text.text:
        return []
    new = source[: place.start] + meant[1] + source[place.end :]
    name, *path = text.field.split(".")
    value: Any = new
    if path:
        rows = placed.settings.get(name)
        if len(path) != 2 or not isinstance(rows, list) or int(path[0]) >= len(rows):
            return []
        value = [dict(row) if isinstance(row, dict) else row for row in rows]
        if not isinstance(value[int(path[0])], dict):
            return []
        value[int(path[0])][path[1]] = new
    return [{"op": "set", "id": placed.id, "patch": {"settings": {name: value}}}]


def _read_steps(
    reading: Reading, findings: Findings, id_: str, text: Written, source: str, compiled: Compiled | CompiledText
) -> None:
    """Say which steps it reads that have not run by then."""
    routes, scopes = reading.routes, reading.expected
    before = routes.before.get(id_, 0)
    around = set(reading.graph.loops_around(id_))
    for key in dict.fromkeys(path.split(".")[1] for path in compiled.paths if path.startswith("steps.")):
        other = scopes.by_key.get(key)
        if other is None or (before >> routes.place[other] & 1 and other not in around):
            continue
        name, read = reading.name(id_), reading.name(other)
        inside = reading.graph.scope.get(other)
        if other == id_:
            sentence, fix = f"{name} reads its own result.", "Read the result of a step before it."
        elif other in reading.graph.agents.heads and other in around:
            sentence = f"{name} is a tool of {read}, whose result is there only when it has ended."
            fix = "Use what the model gives: write `args.` and a name."
        elif inside in reading.graph.agents.heads and inside not in around and inside != id_:
            sentence = f"{name} reads {read}, which is a tool of {reading.name(inside)} and has no single result."
            fix = f"Read the port “steps” of {reading.name(inside)}: it holds every use of a tool."
        elif other in around:
            sentence = f"{name} is repeated by {read}, whose result is there only after the last item."
            fix = f"Read it behind “done” of {read}; within the loop use `item`."
        elif inside is not None and inside not in around and inside != id_:
            sentence = f"{name} reads {read}, which is repeated by {reading.name(inside)} and has no single result."
            fix = f"Connect {read} to “result” of {reading.name(inside)}, and read what comes out of “done”."
        elif id_ in routes.behind([other]) or other in routes.behind([id_]):
            sentence, fix = f"{name} reads {read}, which runs only after it.", "Read the result of a step before it."
        else:
            sentence = f"{name} reads {read}, which may not have run by then: nothing leads from it to {name}."
            fix = f"Connect {read} so that it comes before {name}."
            if "default(" not in source:
                findings.add(
                    "warning", "formula.may_not_have_run", sentence, fix, node=id_, field=text.field, tier="business"
                )
            continue
        findings.add("error", "formula.not_run_yet", sentence, fix, node=id_, field=text.field, tier="business")
