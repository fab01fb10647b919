"""What workers of the sizes `data` and `node` can do beyond Python's standard library."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from textwrap import dedent
from typing import TypeAlias
from uuid import uuid4

import pytest
import pytest_asyncio

from runtime.workers.backend import Job, JobResult, NoWorker
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.profiles import PROFILES, Profile
from tests.conftest import unavailable

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

Run: TypeAlias = Callable[..., Awaitable[JobResult]]


@asynccontextmanager
async def worker(engine: str, profile: Profile) -> AsyncIterator[Run]:
    """One warm worker of this size."""
    home = f"test-{uuid4().hex[:12]}"
    backend = DockerBackend(home, url=engine)
    try:
        await backend.open()
        await backend.have(profile.image)
    except NoWorker as error:
        unavailable(error.message)
    rooms = rooms_for(home)
    try:
        async with Pool(backend, rooms, profile=profile, rules=PoolRules(size=1)) as pool:
            await pool.until_ready(1)

            async def run(code: str, timeout: float = 10.0, kind: str = "python", **inputs: object) -> JobResult:
                job = Job(id=uuid4().hex, code=dedent(code), inputs=inputs, timeout=timeout, kind=kind)  # type: ignore[arg-type]
                return await pool.run(job, tenant="acme")

            yield run
            assert pool.stats().lost == 0
    finally:
        await backend.close()
        shutil.rmtree(rooms, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def data(docker_engine: str, worker_image: str) -> AsyncIterator[Run]:
    """Python with libraries for data."""
    async with worker(docker_engine, PROFILES["data"]) as run:
        yield run


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(docker_engine: str, worker_image: str) -> AsyncIterator[Run]:
    """Node.js."""
    async with worker(docker_engine, PROFILES["node"]) as made:

        async def run(code: str, timeout: float = 10.0, **inputs: object) -> JobResult:
            return await made(code, timeout, "javascript", **inputs)

        run.python = made  # type: ignore[attr-defined]
        yield run


# --- data ------------------------------------------------------------------------------------------------------------------


async def test_the_libraries_are_there_before_the_first_line_of_a_job(data: Run) -> None:
    done = await data("import sys\nreturn [name in sys.modules for name in ('numpy', 'pandas', 'httpx', 'pydantic')]")
    assert done.value == [True] * 4


async def test_what_forks_the_jobs_has_one_thread_only(data: Run) -> None:
    done = await data("return open('/proc/1/status').read().partition('Threads:')[2].split()[0]")
    assert done.value == "1"


async def test_a_table_is_computed(data: Run) -> None:
    done = await data(
        """
        import io, pandas as pd, numpy as np
        table = pd.read_csv(io.StringIO(text))
        table["total"] = table.price * table["count"]
        return {"sum": float(table.total.sum()), "by": table.groupby("name").total.sum().to_dict(), "mean": float(np.mean(table.price))}
        """,
        text="name,price,count\na,2.5,2\nb,1,3\na,0.5,10\n",
    )
    assert done.error is None
    assert done.value == {"sum": 13.0, "by": {"a": 10.0, "b": 3.0}, "mean": 4 / 3}


async def test_records_are_checked_and_requests_are_built_but_go_nowhere(data: Run) -> None:
    done = await data(
        """
        import httpx
        from pydantic import BaseModel, ValidationError
        class Order(BaseModel):
            amount: int
        try:
            Order(amount="many")
        except ValidationError as error:
            said = error.errors()[0]["type"]
        try:
            httpx.get("http://169.254.169.254/")
        except httpx.ConnectError:
            return [Order(amount="3").amount, said, "no way out"]
        """
    )
    assert (done.value, done.error) == ([3, "int_parsing", "no way out"], None)


# --- node ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return a + inputs.b", 5),
        ("const result = [a, b].map((n) => n * 2)", [4, 6]),
        ("function main(inputs) { return { sum: inputs.a + inputs.b, text: 'é' } }", {"sum": 5, "text": "é"}),
        ("async function main() { await new Promise((done) => setTimeout(done, 5)); return 'later' }", "later"),
        (
            "const crypto = require('crypto')\nreturn crypto.createHash('sha256').update('').digest('hex').slice(0, 8)",
            "e3b0c442",
        ),
        ("return new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("for (const n of [1, 2, 3]) if (n > 1) return n", 2),
        ("let x = 1", None),
        ("", None),
    ],
)
async def test_the_result_is_what_the_script_returns_or_calls_result(node: Run, code: str, expected: object) -> None:
    done = await node(code, a=2, b=3)
    assert done.error is None
    assert done.value == expected


async def test_what_a_script_prints_is_kept_apart(node: Run) -> None:
    done = await node("console.log('hello')\nconsole.error('ouch')\nreturn 1")
    assert (done.value, done.stdout, done.stderr) == (1, "hello\n", "ouch\n")


async def test_an_error_names_type_message_and_line(node: Run) -> None:
    done = await node("const a = 1\nfunction read(x) {\n  return x.name.first\n}\nreturn read({})")
    assert (done.error.kind, done.error.type, done.error.line) == ("exception", "TypeError", 3)
    assert "your code:3" in done.error.traceback
    assert "script.js" not in done.error.traceback
    later = await node(
        "setTimeout(() => { throw new RangeError('late') }, 1)\nawait new Promise(() => setTimeout(() => {}, 500))"
    )
    assert (later.error.type, later.error.message, later.error.line) == ("RangeError", "late", 1)


async def test_a_syntax_error_names_the_line(node: Run) -> None:
    done = await node("const a = 1\nconst b = = 2\n")
    assert (done.error.kind, done.error.line) == ("syntax", 2)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("return { a: [1, NaN] }", "`result.a[1]` is NaN"),
        ("return 10n", "is of type bigint"),
        ("return { f() {} }", "`result.f` is of type function"),
        ("const x = {}\nx.x = x\nreturn x", "contains itself"),
        ("return new Map()", "of type Map"),
        ("return 'x'.repeat(5 * 1024 * 1024)", "more than the 4.0 MiB"),
    ],
)
async def test_a_result_that_is_not_json_is_refused_with_its_place(node: Run, code: str, says: str) -> None:
    done = await node(code)
    assert done.error.kind == "result"
    assert says in done.error.message


async def test_a_script_that_does_not_end_is_ended(node: Run) -> None:
    assert (await node("while (true) {}", timeout=0.4)).error.kind == "timeout"
    assert (await node("await new Promise(() => setInterval(() => {}, 10))", timeout=0.4)).error.kind == "timeout"
    assert (await node("process.exit(3)")).error.kind == "killed"
    assert (await node("return 'still here'")).value == "still here"


async def test_a_script_gets_no_further_than_python_does(node: Run) -> None:
    done = await node(
        """
        const fs = require('fs'), net = require('net'), { spawnSync } = require('child_process')
        const reached = []
        const tried = (name, deed) => { try { deed(); reached.push(name) } catch {} }
        for (const file of ['/x', '/etc/passwd', '/factory/script.js', '/usr/local/bin/node', '/proc/sys/kernel/hostname', '/proc/1/mem'])
          tried(file, () => fs.closeSync(fs.openSync(file, 'a')))
        tried('/proc/1/environ', () => fs.readFileSync('/proc/1/environ'))
        for (const signal of ['SIGKILL', 'SIGSTOP', 'SIGTERM', 'SIGHUP']) process.kill(1, signal)
        fs.copyFileSync('/bin/true', '/workspace/tool'); fs.chmodSync('/workspace/tool', 0o700)
        if (!spawnSync('/workspace/tool').error) reached.push('tool')
        fs.writeFileSync('/workspace/addon.node', fs.readFileSync('/bin/true'))
        tried('addon', () => require('/workspace/addon.node'))
        tried('setuid', () => process.setuid(0))
        for (const [host, port] of [['169.254.169.254', 80], ['172.17.0.1', 2375], ['1.1.1.1', 443], ['/var/run/docker.sock'], ['/factory/door']])
          await new Promise((done) => {
            const end = port ? net.connect(port, host) : net.connect(host)
            end.on('connect', () => { reached.push(host); done() }).on('error', done)
          })
        return reached
        """
    )
    assert (done.value, done.error) == ([], None)


async def test_a_script_that_takes_all_memory_ends_alone(node: Run) -> None:
    done = await node("const x = []\nwhile (true) x.push(new Array(100_000).fill(Math.random()))", timeout=30)
    assert done.error.kind in ("memory", "killed")
    bytes_ = await node("const x = []\nwhile (true) x.push(Buffer.alloc(8_000_000, 1))", timeout=30)
    assert bytes_.error.kind in ("memory", "killed", "exception")
    assert (await node("return 1")).value == 1


async def test_the_next_job_sees_nothing_of_a_script(node: Run) -> None:
    await node(
        """
        const fs = require('fs'), { spawn } = require('child_process')
        globalThis.left = 1
        fs.writeFileSync('/workspace/left', 'x'); fs.writeFileSync('/dev/shm/left', 'x')
        spawn('/bin/sleep', ['60'], { detached: true, stdio: 'ignore' }).unref()
        """
    )
    done = await node(
        "const fs = require('fs')\nreturn [typeof left, fs.readdirSync('/workspace'), fs.readdirSync('/dev/shm'), fs.readdirSync('/proc').filter((n) => /^\\d+$/.test(n)).length]"
    )
    assert done.value == ["undefined", [], [], 2]


async def test_python_runs_there_as_well(node: Run) -> None:
    assert (await node.python("return 6 * 7")).value == 42  # type: ignore[attr-defined]


async def test_a_worker_without_node_says_so(data: Run) -> None:
    done = await data("return 1", kind="javascript")
    assert done.error is not None
    assert "size “node”" in done.error.message
