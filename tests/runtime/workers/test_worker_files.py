"""Files that go into a job and come out of it, and what a running job prints, seen while it runs. For every backend."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from textwrap import dedent
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.errors import FactoryError, NotFound
from runtime.workers.backend import Job, JobResult
from runtime.workers.protocol import ProtocolError
from runtime.workers.store import BadFile, Parcel, Store, checked_name


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
async def run(open_pool):
    async with open_pool() as pool:

        async def runs(code, parcel=None, on_output=None, timeout=10.0, tenant="acme", **inputs):
            job = Job(
                id=uuid4().hex, code=dedent(code), inputs=inputs, timeout=timeout, parcel=parcel, on_output=on_output
            )
            return await pool.run(job, tenant=tenant)

        runs.pool = pool
        yield runs


# --- the store -----------------------------------------------------------------------------------------------------------


def test_a_content_is_kept_once_under_its_hash(store, tmp_path):
    digest = store.put("acme", b"hello")
    assert digest == hashlib.sha256(b"hello").hexdigest() == store.put("acme", b"hello")
    assert store.read("acme", digest) == b"hello"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_hash_is_no_permission(store):
    digest = store.put("acme", b"hello")
    for tenant, name in (
        ("other", digest),
        ("acme", "0" * 64),
        ("acme", "../" + digest),
        ("acme", ""),
        ("acme", digest.upper()),
    ):
        with pytest.raises(NotFound):
            store.read(tenant, name)


def test_what_breaks_off_leaves_nothing(store, tmp_path):
    with store.receive("acme") as coming:
        coming.write(b"half")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_old_is_removed_for_every_tenant_whole_or_in_part(store, tmp_path):
    assert store.sweep(0) == 0
    digests = {tenant: store.put(tenant, b"content") for tenant in ("acme", "other")}
    coming = store.receive("acme")
    coming.write(b"half")
    assert store.sweep(60) == 0
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    new = store.put("acme", b"new")
    assert store.sweep(60) == 3
    assert store.read("acme", new) == b"new"
    for tenant, digest in digests.items():
        with pytest.raises(NotFound):
            store.read(tenant, digest)
    store.remove()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\x00b", "a\nb", "a\\b", "x" * 201, "‮cod.exe"]
)
def test_a_name_leads_nowhere_but_into_the_workspace(name):
    with pytest.raises(BadFile):
        checked_name(name)


@given(st.text(max_size=40))
def test_no_name_that_is_taken_leaves_the_workspace(name):
    try:
        taken = checked_name(name)
    except BadFile:
        return
    assert not taken.startswith("/")
    assert ".." not in taken.split("/")


def test_a_parcel_of_what_is_not_there_is_refused(store):
    with pytest.raises(NotFound):
        Parcel(store, "acme", {"a": "0" * 64})
    with pytest.raises(FactoryError):
        Parcel(store, "other", {"a": store.put("acme", b"x")})


@pytest.mark.parametrize(
    "frame",
    [
        {}, {"name": "a"}, {"name": "../a", "data": ""}, {"name": "/a", "data": ""}, {"name": "a", "data": "§"},
        {"name": 1, "data": ""}, {"name": "a", "data": base64.b64encode(b"x" * 11).decode()},
    ],
)  # fmt: skip
def test_pieces_that_no_worker_sends_are_refused(store, frame):
    with pytest.raises(ProtocolError):
        Parcel(store, "acme", fetch=("*",), most=10).take(frame)


@pytest.mark.parametrize("listed", [[["a", "0" * 64]], [["b", ""]], ["a"], [["a"]], "x", [[["a"], 1]]])
def test_a_file_that_is_not_what_the_result_says_does_not_count(store, listed):
    parcel = Parcel(store, "acme", fetch=("*",))
    parcel.take({"name": "a", "data": base64.b64encode(b"x").decode()})
    result = parcel.close(JobResult(ok=True, value=1), {"files": listed})
    assert (result.ok, result.files) == (False, {})


# --- in and out ------------------------------------------------------------------------------------------------------------


async def test_files_go_in_by_name_and_come_out_by_pattern(run, store):
    text = store.put("acme", b"a,b\n1,2\n")
    parcel = Parcel(store, "acme", {"table.csv": text, "deep/er/copy.csv": text}, fetch=("out/*", "note.txt"))
    done = await run(
        """
        import os
        os.mkdir("out")
        open("out/sum.txt", "w").write(open("deep/er/copy.csv").read().upper())
        open("out/empty", "w").close()
        open("out/large", "wb").write(bytes(range(256)) * 4096)
        open("left.txt", "w").write("not asked for")
        return open("table.csv").read()
        """,
        parcel,
    )
    assert (done.value, done.error) == ("a,b\n1,2\n", None)
    assert sorted(done.files) == ["out/empty", "out/large", "out/sum.txt"]
    assert store.read("acme", done.files["out/sum.txt"]) == b"A,B\n1,2\n"
    assert store.read("acme", done.files["out/empty"]) == b""
    assert store.read("acme", done.files["out/large"]) == bytes(range(256)) * 4096


async def test_what_was_brought_cannot_be_changed_and_is_gone_for_the_next_job(run, store):
    digest = store.put("acme", b"mine")
    done = await run(
        """
        try:
            open("a", "w")
        except OSError as error:
            return error.errno
        """,
        Parcel(store, "acme", {"a": digest}),
    )
    assert done.value in (13, 30)
    after = await run("import os\nreturn [os.path.exists('/factory/in'), os.listdir('/workspace')]")
    assert after.value == [False, []]
    assert store.read("acme", digest) == b"mine"


async def test_links_pipes_and_the_like_are_never_fetched(run, store):
    done = await run(
        """
        import os, socket
        os.symlink("/etc/passwd", "a"); os.symlink("/proc/1/environ", "b"); os.symlink("/etc", "c"); os.mkfifo("d")
        socket.socket(socket.AF_UNIX).bind("e")
        os.symlink("f", "g"); open("f", "w").write("real")
        open("x\\ny", "w").write("bad name")
        """,
        Parcel(store, "acme", fetch=("*",)),
    )
    assert (list(done.files), done.error) == (["f"], None)


async def test_more_than_may_be_kept_is_an_error_and_keeps_nothing(run, store):
    done = await run("open('a', 'wb').write(bytes(2000))\nreturn 1", Parcel(store, "acme", fetch=("*",), most=1000))
    assert (done.error.kind, done.files) == ("result", {})
    assert "more than" in done.error.message
    assert (await run("return 'still here'")).value == "still here"


async def test_a_job_that_fails_may_leave_files_for_those_who_look_into_it(run, store):
    done = await run(
        "open('log.txt', 'w').write('so far')\nraise ValueError('no')", Parcel(store, "acme", fetch=("log.txt",))
    )
    assert done.error.type == "ValueError"
    assert store.read("acme", done.files["log.txt"]) == b"so far"


# --- while it runs -----------------------------------------------------------------------------------------------------------


async def test_what_a_job_prints_is_heard_while_it_runs(run):
    heard = []
    first = asyncio.Event()

    def hear(stream, text):
        heard.append((stream, text))
        first.set()

    running = asyncio.create_task(
        run("import sys, time\nprint('begun ä')\ntime.sleep(20)", on_output=hear, timeout=30.0)
    )
    await asyncio.wait_for(first.wait(), 10)
    assert not running.done()
    assert heard == [("out", "begun ä\n")]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_all_of_it_is_heard_once_and_is_in_the_result_too(run):
    heard = {"out": "", "err": ""}

    def hear(stream, text):
        heard[stream] += text

    done = await run(
        "import sys\nfor n in range(500):\n    print(n, 'ä€😀')\n    print(n, file=sys.stderr)\nreturn 1",
        on_output=hear,
    )
    assert done.value == 1
    assert heard == {"out": done.stdout, "err": done.stderr}


async def test_who_hears_badly_does_not_disturb_the_job(run):
    def hear(stream, text):
        raise RuntimeError("deaf")

    assert (await run("print('x')\nreturn 1", on_output=hear)).value == 1


async def test_endless_output_is_passed_on_only_as_far_as_it_is_kept(run):
    size = 0

    def hear(stream, text):
        nonlocal size
        size += len(text)

    done = await run("for _ in range(300):\n    print('x' * 10_000)", on_output=hear, timeout=20)
    assert done.truncated
    assert size == 1024 * 1024
