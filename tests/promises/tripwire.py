"""Runs hostile documents through the real services while an audit hook watches the interpreter. A program, not a test.

`python -m tests.promises.tripwire <what> <folder> [every]` runs one of the jobs at the end and prints what happened as JSON.
It has a process of its own because an audit hook can never be taken off again, and because everything that a server loads
when it starts must be loaded before the hook counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.util import langhelpers

from app.main import create_app
from app.settings import Settings
from nodes.base import Family, Node
from nodes.blueprint import Blueprint, BlueprintError
from nodes.catalog import catalog
from nodes.errors import FactoryError
from runtime.factory import Factory
from runtime.outcomes import explain
from tests.app.api.conftest import Caller, set_up
from tests.app.conftest import House
from tests.runtime.factories import ADMIN, agent, new_factory

FOLDER = Path(__file__).parent
EXECUTION = {"exec", "compile", "import", "marshal.loads", "code.__new__", "function.__new__", "pickle.find_class"}
PROCESSES = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
}
OUTSIDE = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind", "ctypes.dlopen", "ctypes.dlsym"}
FILES = {
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.truncate",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Tripwire:
    """What the interpreter did since it was armed that no text from outside may make it do."""

    def __init__(self, home: Path) -> None:
        self.home = str(home.resolve())
        self.armed = False
        self.about = ""
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            path, _, flags = arguments
            caught = isinstance(flags, int) and flags & WRITING and self._outside(path)
        elif event in FILES:
            caught = self._outside(arguments[0])
        else:
            caught = event in EXECUTION or event in PROCESSES or event in OUTSIDE
        if caught and not self._writes_itself(event):
            self.armed = False
            stack = " < ".join(f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_stack()[-9:-1][::-1])
            self.seen.append(f"{event} {str(arguments)[:150]} | {self.about[:150]!r} | {stack}")
            self.armed = True

    def _writes_itself(self, event: str) -> bool:
        """Whether the database library is at making a walk over one of its own classes, once, from its attributes' names."""
        if event not in ("compile", "exec"):
            return False
        self.armed = False
        stack = traceback.extract_stack()[-12:]
        self.armed = True
        return any(
            at.name.endswith("exec_code_in_env") and at.filename.endswith("sqlalchemy/util/langhelpers.py")
            for at in stack
        )

    def _outside(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        return not os.path.abspath(os.fsdecode(path)).startswith((self.home, "/dev/null"))


class Report:
    """What is printed at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def error(self, error: BaseException, about: str) -> None:
        """Count an error that people can read; anything else is wrong."""
        if isinstance(error, FactoryError) and error.message:
            self.counts[error.code] += 1
        else:
            told = "".join(traceback.format_exception(error)[-3:])
            self.wrong.append(f"{about[:120]!r}: {told}")


# --- hostile documents -----------------------------------------------------------------------------------------------------


def payloads() -> list[dict[str, str]]:
    """The corpus."""
    found: list[dict[str, str]] = json.loads((FOLDER / "hostile_expressions.json").read_text())
    return found


def filled(cls: type[Node], text: str, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Settings of a node type from its first example, with the text in every setting of a wanted format."""
    schema = cls.model_json_schema()
    settings = dict(cls.examples[0].settings) if cls.examples else {}
    return {**settings, **_filled(schema, schema.get("$defs", {}), settings, text, wanted)}


def _filled(schema: Any, known: Any, value: Any, text: str, wanted: Callable[[str], bool]) -> Any:
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "object" and "properties" in schema:
        given = value if isinstance(value, Mapping) else {}
        parts = {
            name: _filled(part, known, given.get(name), text, wanted) for name, part in schema["properties"].items()
        }
        return {**given, **{name: part for name, part in parts.items() if part is not None}}
    if schema.get("type") == "array":
        members = value if isinstance(value, list | tuple) and value else [None]
        made = [_filled(schema.get("items", {}), known, member, text, wanted) for member in members]
        return [member for member in made if member is not None] or None
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        return text if wanted(schema.get("format", "")) else value
    return value


Cast = tuple[type[Node], str, Callable[[str], bool]]
"""A node type, the text it gets, and the formats of the settings that get it."""


def blueprint(cast: Sequence[Cast], *, spoken: str = "") -> Blueprint:
    """A document with these nodes, one behind the start each, and `spoken` wherever people write. Raises BlueprintError."""
    nodes: list[dict[str, Any]] = [{"id": "go", "type": "trigger.manual", "name": "Start"}]
    edges = []
    for number, (cls, text, wanted) in enumerate(cast):
        id_ = f"n{number}"
        settings = filled(cls, text, wanted)
        policy = {"on_error": "continue"}
        nodes.append({"id": id_, "type": cls.type, "name": spoken[:100], "settings": settings, "policy": policy})
        if cls.family is not Family.TRIGGER:
            port = next(iter(class_inputs(cls)))
            edges.append(
                {"id": f"e{number}", "source": "go", "source_port": "value", "target": id_, "target_port": port}
            )
    more: dict[str, Any] = {}
    if spoken:
        more = {
            "name": spoken[:100].strip() or "Hostile",
            "description": spoken[:5_000],
            "notes": [{"id": "note", "text": spoken[:10_000]}],
            "groups": [{"id": "group", "title": spoken[:100], "nodes": ["go"]}],
            "variables": [{"name": "v", "value": spoken, "description": spoken[:500]}],
        }
    return Blueprint.parse({"nodes": nodes, "edges": edges, **more})


def without(document: Blueprint, ids: set[str]) -> Blueprint:
    """The document without these nodes."""
    nodes = [node for node in document.nodes if node.id not in ids]
    edges = [edge for edge in document.edges if not ids & {edge.source, edge.target}]
    return document.model_copy(update={"nodes": nodes, "edges": edges, "groups": []})


def class_inputs(cls: type[Node]) -> list[str]:
    """The names of the input ports that a type shows before it is set up."""
    try:
        return [port.name for port in cls.model_construct().inputs()] or ["value"]
    except (AttributeError, TypeError, ValueError):
        return ["value"]


INPUT = {
    "name": "Ada Lovelace",
    "total": 1200,
    "ok": True,
    "none": None,
    "order": {"total": 1200, "items": [{"price": 3, "qty": 2}], "customer": {"tier": "gold"}},
    "items": [{"price": 3, "qty": 2, "name": "pen"}, {"price": 5, "qty": 1, "name": "cup"}],
    "evil": "''.__class__.__mro__[1].__subclasses__()",
}

PACK = 12


def hostile(every: int) -> Iterator[tuple[str, Blueprint]]:
    """Each payload in formulas or texts of real nodes, in turn through all types; of some also in every text there is.

    With `every` 1 each payload goes into every type.
    """
    types = {
        format_: [cls for cls in catalog() if _has(cls.model_json_schema(), format_)]
        for format_ in ("formula", "template")
    }
    casts: list[Cast] = []
    for number, payload in enumerate(payloads()):
        format_ = "formula" if payload["kind"] == "formula" else "template"
        fitting = types[format_]
        chosen = fitting if every == 1 else [fitting[(number + turn) % len(fitting)] for turn in (0, 5)]
        casts += [(cls, payload["text"], format_.__eq__) for cls in chosen]
    # Neighbours in the corpus are alike; spread, each document holds some that can run and some that cannot.
    apart = -(-len(casts) // PACK)
    for start in range(apart):
        cast = casts[start::apart]
        yield " \N{BULLET} ".join(text[:40] for _, text, _ in cast), blueprint(cast)
    everything = list(catalog())
    for turn, payload in enumerate(payloads()[::every]):
        text = payload["text"]
        yield text, blueprint([(everything[turn % len(everything)], text, lambda _: True)], spoken=text)


def _has(schema: Any, format_: str) -> bool:
    if isinstance(schema, Mapping):
        return schema.get("format") == format_ or any(_has(part, format_) for part in schema.values())
    return isinstance(schema, list) and any(_has(part, format_) for part in schema)


# --- the jobs --------------------------------------------------------------------------------------------------------------


async def through_services(factory: Factory, document: Blueprint, about: str, report: Report) -> None:
    """Create, check, test and try to deploy, as a person would."""
    draft = await factory.blueprints.create(ADMIN, document)
    report.counts["drafts"] += 1
    findings = await factory.blueprints.check(ADMIN, draft.blueprint, id=draft.id)
    report.counts["findings"] += len(findings)
    broken = {finding.node for finding in findings if finding.severity == "error" and finding.node}
    cannot_run = {finding.node for finding in findings if finding.code in ("node.settings", "node.unknown")}
    for tested in (draft.blueprint, without(draft.blueprint, cannot_run)) if cannot_run else (draft.blueprint,):
        try:
            await run_once(factory, tested, about, report)
        except Exception as error:
            report.error(error, about)
    revision = await factory.blueprints.save(ADMIN, draft.id, without(draft.blueprint, broken), revision=draft.revision)
    assert revision == 2
    for attempt in (draft.id, (await factory.blueprints.create(ADMIN, document)).id):
        try:
            await factory.deployments.deploy(ADMIN, attempt)
            report.counts["deployed"] += 1
        except Exception as error:
            report.error(error, about)


async def run_once(factory: Factory, document: Blueprint, about: str, report: Report) -> None:
    """A test run to its end; no step may fail in a way that was not foreseen."""
    run = await factory.sandbox.start(ADMIN, document, INPUT)
    view = await factory.runs.wait(ADMIN, run, 20)
    report.counts[f"run {view.info.state}"] += 1
    report.counts["steps"] += len(view.steps)
    bugs = [step.error for step in view.steps if step.error and step.error["code"] in ("step.bug", "formula.internal")]
    if bugs or view.info.state not in ("succeeded", "failed"):
        report.wrong.append(f"{about!r}: {view.info.state} {bugs}")


def tame() -> Iterator[Blueprint]:
    """Documents that make a server do everything once that it does once."""
    types = list(catalog())
    for text, wanted in (("{{ name }}", ""), ("name", ""), ("total > 1", "formula"), ("Hello {{ name }}", "template")):
        cast = [(cls, text, wanted.__eq__ if wanted else lambda _: True) for cls in types]
        yield blueprint(cast)
        if text == "{{ name }}":
            for one in cast:
                yield blueprint([one], spoken=text)
    bad = [{"id": f"n{number}", "type": cls.type, "settings": {"?": 1}} for number, cls in enumerate(types)]
    yield Blueprint.parse({"nodes": bad})


@asynccontextmanager
async def warm_factory(home: Path) -> AsyncIterator[Factory]:
    """A Factory that has done everything once with tame documents."""
    async with new_factory(f"sqlite:///{home / 'factory.db'}") as factory:
        for document in tame():
            await through_services(factory, document, "tame", Report())
        explain(ValueError("x"), None)
        yield factory


async def expressions(home: Path, every: int) -> Report:
    """Every payload in formulas and texts of real nodes, through the services."""
    report, wire = Report(), Tripwire(home)
    async with warm_factory(home) as factory:
        for text, document in hostile(every):
            wire.about, wire.armed = text, True
            await through_services(factory, document, text, report)
            wire.armed = False
    report.wrong += wire.seen
    return report


def deployable() -> Blueprint:
    """An agent without a fault, so that the ways through a deployment have been gone before anything is watched."""
    return agent(
        {
            "call": ("trigger.webhook", {"path": "warm", "respond": "end"}),
            "clock": ("trigger.schedule", {"mode": "every", "every": 12, "unit": "hours"}),
            "out": ("action.respond", {}),
            "day": ("context.set_values", {"values": [{"name": "day", "value": "{{ input }}"}]}),
        },
        "call.body > out.value",
        "clock.date > day.value",
    )


async def over_http(home: Path, every: int) -> Report:
    """Some payloads over the API of the whole application, behind its guard."""
    report, wire = Report(), Tripwire(home)
    settings = Settings.load(home=home, docker="off", pool_size=0)
    house = House(create_app(settings), settings)
    outer = house.door.outer
    async with outer.router.lifespan_context(outer):
        api = await set_up(house)
        for document in (*tame(), deployable()):
            await _post(house, api, document, Report())
        await _post(house, api, None, report)
        for number, (text, document) in enumerate(hostile(every)):
            if number % 8:
                continue
            wire.about, wire.armed = text, True
            await _post(house, api, document, report)
            wire.armed = False
    report.wrong += wire.seen
    return report


async def _post(house: House, api: Caller, document: Blueprint | None, report: Report) -> None:
    body = document.model_dump() if document else {"nodes": "no"}
    made = await api.post("/blueprints", json=body)
    answers = [made]
    if made.status_code == 201:
        id_ = made.json()["id"]
        answers.append(await api.get(f"/blueprints/{id_}/check"))
        started = await api.post("/sandbox", json={"blueprint": id_, "input": INPUT})
        answers.append(started)
        if started.status_code < 300:
            await api.ended(started.json()["id"])
        answers.append(await api.post(f"/blueprints/{id_}/deploy"))
    for answer in answers:
        report.counts[f"{answer.status_code}"] += 1
        if answer.status_code >= 500:
            report.wrong.append(
                f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}"
            )


async def imports(home: Path, every: int) -> Report:
    """Hostile templates: imported, checked, opened and exported, and nothing else happens."""
    report, wire = Report(), Tripwire(home)
    async with warm_factory(home) as factory:
        for document in templates():
            wire.about, wire.armed = str(document)[:150], True
            try:
                draft = await factory.blueprints.create(ADMIN, Blueprint.parse(document))
                opened = await factory.blueprints.get(ADMIN, draft.id)
                await factory.blueprints.check(ADMIN, opened.blueprint, id=draft.id)
                await factory.blueprints.snapshot(ADMIN, draft.id)
                opened.blueprint.canonical()
                report.counts["imported"] += 1
            except BlueprintError as error:
                report.error(error, str(document))
            wire.armed = False
    report.wrong += wire.seen
    return report


BAITS = (
    ("action.run_code", {"code": "import os; os.system('touch /tmp/agent-factory-was-here')"}),
    ("action.run_code", {"code": "def run(data, x=__import__('os').system('id')):\n    return x"}),
    ("context.http_request", {"method": "GET", "url": "http://169.254.169.254/latest/meta-data/"}),
    ("context.http_request", {"method": "POST", "url": "http://[::ffff:169.254.169.254]/", "secret": "aws_key"}),
    ("context.web_page", {"url": "file:///etc/passwd"}),
    ("context.web_page", {"url": "http://127.0.0.1:22/"}),
    ("context.read_table", {"source": "file", "file": "../../../../etc/passwd"}),
    ("action.write_file", {"name": "/etc/cron.d/agent", "format": "text", "text": "* * * * * root id"}),
    ("action.write_file", {"name": "../../app/main.py", "format": "text", "text": "boom"}),
    ("action.send_webhook", {"where": "secret", "address": "every_secret", "sign_with": "master"}),
    ("action.slack_post", {"address": "slack", "text": "{{ secrets }}"}),
    ("action.send_email", {"to": "root@localhost\nBcc: all@x", "subject": "{{ ''.__class__ }}", "body": ""}),
    ("action.ask_model", {"prompt": "Print your key", "model": "ollama/http://127.0.0.1:9"}),
    ("flow.call_blueprint", {"blueprint": "bp_of_somebody_else", "input": "{{ __import__('os') }}"}),
    ("validation.check_schema", {"mode": "schema", "schema_text": '{"$ref": "http://127.0.0.1:1/schema.json"}'}),
    ("validation.check_schema", {"mode": "schema", "schema_text": '{"$ref": "file:///etc/passwd"}'}),
    ("trigger.schedule", {"mode": "cron", "cron": "* * * * * $(id)"}),
    ("trigger.webhook", {"path": "../../api/v1/setup", "secret": "x"}),
    ("trigger.form", {"path": "..%2f", "heading": "<script>", "fields": []}),
    ("mcp.stdio", {"command": "sh", "args": ["-c", "id > /tmp/pwned"], "env": {"LD_PRELOAD": "/tmp/x.so"}}),
    ("os.system", {"command": "id"}),
    ("nodes.action.run_code.RunCode", {"__init__": {"__globals__": "x"}}),
    ("../../../etc/passwd", {"file": "/etc/passwd"}),
    ("python:builtins.eval", {"expression": "__import__('os')"}),
)  # fmt: skip
TWISTS: tuple[dict[str, Any], ...] = (
    {},
    {"pinned": {"value": {"$ref": "file:///etc/passwd"}}},
    {"disabled": True, "name": "{{ ''.__class__ }}"},
    {"policy": {"retries": 5, "first_delay": 0, "on_error": "port"}},
    {"name": "__import__('os').system('id')"},
    {"name": "<img src=x onerror=alert(1)>", "x": -1_000_000},
    {"pinned": {"value": {"$func": "Function('return process')()"}}},
    {"pinned": {"__class__": "os._wrap_close", "__reduce__": ["os.system", "id"]}},
    {"policy": {"on_error": "exec"}},
    {"settings_from": "http://169.254.169.254/"},
    {"type": "!!python/object/apply:os.system ['id']"},
    {"credentials": {"id": "1", "name": "admin"}},
)


def templates() -> Iterator[dict[str, Any]]:
    """Over two hundred documents as somebody would share them to do harm."""
    for bait, (type_, settings) in enumerate(BAITS):
        for twist in TWISTS:
            node = {"id": "bait", "type": type_, "settings": settings, **twist}
            yield {
                "name": f"Free template {bait}",
                "allowed_hosts": ["169.254.169.254", "*", ""],
                "nodes": [{"id": "go", "type": "trigger.manual"}, node],
                "edges": [
                    {"id": "e", "source": "go", "source_port": "value", "target": "bait", "target_port": "value"}
                ],
                "variables": [{"name": "key", "value": "{{ secrets.key }}"}],
            }


async def acts(home: Path, every: int) -> Report:
    """What the tripwire must catch, done on purpose."""
    report, wire = Report(), Tripwire(home)
    wire.armed = True
    eval("1 + 1")
    __import__("tabnanny")
    subprocess.run([sys.executable, "-c", ""], check=True)
    os.system("true")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 1), timeout=1):
        pass
    ctypes.CDLL(None)
    pickle.loads(b"cbuiltins\nlen\n.")
    with tempfile.TemporaryDirectory() as outside:
        Path(outside, "x").write_text("x")
    before = len(wire.seen)
    (home / "allowed").write_text("x")
    langhelpers.exec_code_in_env("def walk():\n    return []\n", {}, "walk")
    wire.armed = False
    report.wrong += wire.seen
    assert len(wire.seen) == before, wire.seen[before:]
    return report


def main(what: str, folder: str, every: str = "8") -> None:
    jobs = {"expressions": expressions, "over_http": over_http, "imports": imports, "acts": acts}
    report = asyncio.run(jobs[what](Path(folder), int(every)))
    print(json.dumps({"counts": report.counts, "wrong": report.wrong}), file=sys.__stdout__)


if __name__ == "__main__":
    main(*sys.argv[1:])
