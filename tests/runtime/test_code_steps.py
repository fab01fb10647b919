"""Code as a step of a run, in a real worker: what it prints while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from nodes.blueprint import Blueprint
from runtime.events import Bus
from runtime.factory import Factory
from runtime.fleet import PoolRules
from runtime.printing import SHOWN, Printing
from runtime.views import RunView
from runtime.workers.backend import NoWorker
from runtime.workers.choose import open_backend
from runtime.workers.docker import DockerBackend
from runtime.workers.image.build import make_image
from runtime.workers.local import LocalBackend
from tests.conftest import unavailable
from tests.runtime.factories import ADMIN, STRANGER, VIEWER, agent, new_factory

LONG = "import time\nprint('begun')\ntime.sleep(60)"


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"])
async def factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Factory]:
    docker = "off"
    if request.param == "docker":
        docker = request.getfixturevalue("docker_engine")
        request.getfixturevalue("worker_image")
    home = f"test-{uuid4().hex[:12]}"
    try:
        await (await open_backend(docker, home=home)).close()
    except NoWorker as error:
        unavailable(f"{error.message} {error.fix}")
    async with new_factory(f"sqlite:///{tmp_path}/f.db", home=home, docker=docker) as factory:
        yield factory


def code(text: str, **settings: Any) -> Blueprint:
    """An agent that runs a piece of code."""
    nodes = {"go": "trigger.manual", "code": ("action.run_code", {"code": text, "timeout": 60, **settings})}
    return agent(nodes, "go.value > code.value")


async def eventually(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


# --- while it runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False])
async def test_what_code_prints_is_seen_while_it_runs_and_only_by_its_team(factory: Factory, live: bool) -> None:
    draft = await factory.blueprints.create(ADMIN, code(LONG))
    start = factory.runs.start(ADMIN, draft.id) if live else factory.sandbox.start(ADMIN, code(LONG))
    run = await start
    told = asyncio.Event()
    factory.bus.subscribe(ADMIN.tenant, ("printing", run), lambda _: told.set())
    seen = await eventually(lambda: factory.printing.of(VIEWER, run))
    assert seen == {("code", ""): "begun\n"}
    assert factory.printing.of(STRANGER, run) == {}
    await factory.runs.cancel(ADMIN, run)
    await eventually(lambda: not factory.printing.of(ADMIN, run))
    await eventually(told.is_set)
    kinds = {fact["kind"] async for fact in factory.runs.watch(ADMIN, run)}
    assert not {kind for kind in kinds if "print" in kind or "log" in kind}, "nothing of it is kept line by line"


async def test_the_kept_result_holds_all_of_it_as_before(factory: Factory) -> None:
    run = await factory.sandbox.start(ADMIN, code("for n in range(9_000):\n    print(n, 'ä')\nreturn n"))
    done = await factory.runs.wait(ADMIN, run, 60)
    assert done.steps[-1].output == {"result": 8_999, "printed": "".join(f"{n} ä\n" for n in range(9_000))}
    assert factory.printing.of(ADMIN, run) == {}


# --- JavaScript --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def javascript(request: pytest.FixtureRequest, factory: Factory) -> Factory:
    """A factory that has Node.js."""
    if factory.options.docker != "off":
        await asyncio.to_thread(make_image, "node", factory.options.docker)
    elif LocalBackend().lacks("node"):
        unavailable("Node.js is not installed; on Debian or Ubuntu: apt-get install nodejs.")
    return factory


async def test_javascript_keeps_the_same_contract(javascript: Factory) -> None:
    async def tried(text: str, **settings: Any) -> RunView:
        document = code("unused", language="javascript", javascript=text, **settings)
        run = await javascript.sandbox.start(ADMIN, document, {"total": 3})
        return await javascript.runs.wait(ADMIN, run, 60)

    done = await tried("console.log('got', total)\nreturn { twice: total * 2, all: input }")
    assert done.info.error is None
    assert done.steps[-1].output == {"result": {"twice": 6, "all": {"total": 3}}, "printed": "got 3\n"}
    failed = (await tried("const a = 1\nreturn a.b.c")).info.error
    assert failed is not None
    assert failed["message"] == "Line 2 of the code: Cannot read properties of undefined (reading 'c')"
    assert (failed["code"], failed["category"]) == ("step.input", "input")
    late = (await tried("for (;;) {}", timeout=0.3)).info.error
    assert late is not None
    assert late["message"] == "The code ran longer than 0.3 seconds and was stopped."
    full = (await tried("const x = []\nfor (;;) x.push(new Array(100000).fill(Math.random()))")).info.error
    assert full is not None
    assert "more memory" in full["message"]


async def test_without_node_the_error_and_the_check_say_what_to_install(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if factory.options.docker == "off":
        monkeypatch.setattr("runtime.workers.local.SYSTEM_PATH", "/nowhere")
        said, fix = "JavaScript is run by Node.js, and there is none on this machine.", "Install Node.js"
    else:
        lacking = partial(DockerBackend, images={"node": "agent-factory/nobody:made"})
        monkeypatch.setattr("runtime.workers.choose.DockerBackend", lacking)
        monkeypatch.setitem(factory.fleet._rules, "node", PoolRules(size=0, ceiling=1, wait_limit=0.2))
        said, fix = "The Docker engine does not have the worker image “node”.", "Build or load it first."
    document = code("unused", language="javascript")
    draft = await factory.blueprints.create(ADMIN, document)
    await factory.runs.wait(ADMIN, await factory.runs.start(ADMIN, draft.id, 1), 60)
    await eventually(lambda: factory.fleet.lacks_node)
    run = await factory.runs.start(ADMIN, draft.id, 1)
    error = (await factory.runs.wait(ADMIN, run, 60)).info.error
    assert error is not None
    assert error["message"].startswith(said)
    assert fix in error["fix"]
    assert error["category"] == "worker"
    found = await factory.blueprints.check(ADMIN, document, id=draft.id)
    assert "node.missing" in {finding.code for finding in found}


# --- files -------------------------------------------------------------------------------------------------------------------


COPY = """
import os
os.mkdir("deep")
open("deep/no.csv", "w").write("in a folder")
for name in ("a.csv", "b.csv", "note.txt"):
    open(name, "w").write(open("prices.csv").read().upper())
return open("prices.csv").read()
"""
COPY_IN_JAVASCRIPT = """
const fs = require('fs')
const text = fs.readFileSync('prices.csv', 'utf8')
for (const name of ['a.csv', 'b.csv', 'note.txt']) fs.writeFileSync(name, text.toUpperCase())
return text
"""


async def test_files_of_the_team_go_in_and_what_is_kept_is_a_file_of_the_team(factory: Factory) -> None:
    await factory.shelves.put_file(ADMIN, "prices.csv", b"tea,3\n", "text/csv")
    document = code(COPY, reads=["prices.csv"], keeps=["*.csv", "note.txt"])
    draft = await factory.blueprints.create(ADMIN, document)
    done = await factory.runs.wait(ADMIN, await factory.runs.start(ADMIN, draft.id), 60)
    assert done.info.error is None
    output = done.steps[-1].output
    assert output["result"] == "tea,3\n"
    assert [(file["name"], file["media_type"], file["size"]) for file in output["files"]] == [
        ("a.csv", "text/csv", 6),
        ("b.csv", "text/csv", 6),
        ("note.txt", "text/plain", 6),
    ]
    assert await factory.shelves.file(ADMIN, "b.csv") == b"TEA,3\n"
    assert [file.name for file in await factory.shelves.files(ADMIN)] == ["a.csv", "b.csv", "note.txt", "prices.csv"]
    assert await factory.shelves.files(STRANGER) == []


async def test_a_test_reads_files_and_keeps_none(factory: Factory) -> None:
    await factory.shelves.put_file(ADMIN, "prices.csv", b"tea,3\n", "text/csv")
    nodes = {
        "go": "trigger.manual",
        "write": ("action.run_code", {"code": COPY, "reads": ["prices.csv"], "keeps": ["a.csv"]}),
        "read": ("action.run_code", {"code": "return open('a.csv').read()", "reads": ["a.csv"]}),
    }
    document = agent(nodes, "go.value > write.value", "write.files > read.value")
    done = await factory.runs.wait(ADMIN, await factory.sandbox.start(ADMIN, document), 60)
    assert done.info.error is None
    assert done.steps[-1].output["result"] == "TEA,3\n", "within the test it is there"
    assert [file.name for file in await factory.shelves.files(ADMIN)] == ["prices.csv"]


@pytest.mark.parametrize(
    ("text", "settings", "says"),
    [
        ("return 1", {"reads": ["gone.csv"]}, "There is no file “gone.csv”."),
        ("return 1", {"keeps": ["report.csv"]}, "The code did not write the file “report.csv”, which is to be kept."),
        (
            "for n in range(3):\n    open(f'{n}.bin', 'wb').write(bytes(10 * 1024 * 1024))",
            {"keeps": ["*.bin"], "size": "medium"},
            "The files that the code leaves are more than the 25 MB that may be kept.",
        ),
        (
            "open('a', 'wb').write(bytes(17 * 1024 * 1024))",
            {},
            "Line 1 of the code: There is no room for more files: those of the code may take 16 MB.",
        ),
    ],
)
async def test_what_is_wrong_with_files_is_said_in_words(
    factory: Factory, text: str, settings: dict[str, Any], says: str
) -> None:
    run = await factory.sandbox.start(ADMIN, code(text, **settings))
    error = (await factory.runs.wait(ADMIN, run, 60)).info.error
    assert error is not None
    assert error["message"] == says
    assert error["fix"]
    assert await factory.shelves.files(ADMIN) == []


async def test_javascript_reads_and_writes_files_too(javascript: Factory) -> None:
    await javascript.shelves.put_file(ADMIN, "prices.csv", b"tea,3\n", "text/csv")
    files = {"reads": ["prices.csv"], "keeps": ["b.csv"]}
    document = code("unused", language="javascript", javascript=COPY_IN_JAVASCRIPT, **files)
    done = await javascript.runs.wait(ADMIN, await javascript.sandbox.start(ADMIN, document), 60)
    assert done.info.error is None
    assert done.steps[-1].output["files"] == [{"name": "b.csv", "media_type": "text/csv", "size": 6}]
    too_much = "const fs = require('fs')\nfs.writeFileSync('a', Buffer.alloc(70_000_000))"
    document = code("unused", language="javascript", javascript=too_much)
    done = await javascript.runs.wait(ADMIN, await javascript.sandbox.start(ADMIN, document), 60)
    assert done.info.error is not None
    said = "Line 2 of the code: There is no room for more files: those of the code may take 64 MB."
    assert done.info.error["message"] == said


async def test_what_the_code_reads_is_limited_together(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.code_files.MOST_READ", 10)
    for name in ("a", "b"):
        await factory.shelves.put_file(ADMIN, name, bytes(6), "text/plain")
    run = await factory.sandbox.start(ADMIN, code("return 1", reads=["a", "b"]))
    error = (await factory.runs.wait(ADMIN, run, 60)).info.error
    assert error is not None
    assert (error["code"], "together" in error["message"]) == ("step.limit", True)


async def test_a_full_disk_is_said(factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setattr(factory.store, "_folder", tmp_path / "no-folder")
    await factory.shelves.put_file(ADMIN, "a.csv", b"x", "text/csv")
    run = await factory.sandbox.start(ADMIN, code("return 1", reads=["a.csv"]))
    error = (await factory.runs.wait(ADMIN, run, 60)).info.error
    assert error is not None
    assert "The server cannot put the file “a.csv” on its disk" in error["message"]
    assert error["category"] == "worker"


# --- in memory only ----------------------------------------------------------------------------------------------------------


def test_only_the_end_of_a_long_text_is_kept_while_it_grows() -> None:
    printing = Printing(Bus())
    with printing.heard("team", "run", ("code", "0")) as hear, printing.heard("team", "run", ("code", "1")) as other:
        for n in range(50_000):
            hear("out", f"{n}\n")
        other("err", "x" * 100_000)
        other("out", "")
        first, second = printing.of(ADMIN, "run").values()
        assert len(first) == len(second) == SHOWN
        assert first.endswith("\n49999\n")
    assert printing.of(ADMIN, "run") == {}


def test_a_second_try_begins_with_nothing() -> None:
    printing = Printing(Bus())
    with printing.heard("team", "run", ("code", "")) as first:
        first("out", "old")
        with printing.heard("team", "run", ("code", "")) as second:
            assert printing.of(ADMIN, "run") == {}
            second("out", "new")
        assert printing.of(ADMIN, "run") == {}
