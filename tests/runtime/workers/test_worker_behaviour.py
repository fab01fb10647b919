"""What people may rely on when their code runs in a worker. Every test holds for every backend."""

from __future__ import annotations

import asyncio
from textwrap import dedent

import pytest


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("result = inputs['a'] + 1", 3),
        ("result = a * 10", 20),
        ("return {'sum': a + b, 'list': (1, None, True, 2.5, 'é')}", {"sum": 5, "list": [1, None, True, 2.5, "é"]}),
        ("for n in range(9):\n    if n > b:\n        return n", 4),
        ("def main(a, **rest):\n    return [a, sorted(rest)]", [2, ["b"]]),
        ("def main(b):\n    return b", 3),
        ("def run(inputs):\n    return inputs", {"a": 2, "b": 3}),
        ("async def main(**inputs):\n    return inputs['a']", 2),
        ("x: int = a\ndef twice():\n    return x * 2\nreturn twice()", 4),
        ("import json, re, datetime, decimal, statistics\nreturn statistics.mean([a, b])", 2.5),
        ("import collections\nreturn collections.Counter('aab')", {"a": 2, "b": 1}),
        ("from dataclasses import dataclass, asdict\n@dataclass\nclass P:\n    x: int\nreturn asdict(P(a))", {"x": 2}),
        ("pass", None),
        ("", None),
    ],
)
async def test_the_result_is_what_the_code_returns_or_calls_result(run, code, expected):
    done = await run(code, a=2, b=3)
    assert done.error is None
    assert done.ok
    assert done.value == expected


async def test_what_the_code_prints_is_kept_apart_from_its_result(run):
    done = await run("import sys\nprint('hello', end='')\nprint('ouch', file=sys.stderr)\nreturn 1")
    assert (done.value, done.stdout, done.stderr, done.truncated) == (1, "hello", "ouch\n", False)


async def test_an_exception_names_type_message_and_line_and_shows_only_the_persons_frames(run):
    code = dedent("""
        import json

        def read(text):
            return json.loads(text)

        print("before")
        return read(broken)
    """).strip()
    done = await run(code, broken="{oops")
    assert not done.ok
    assert done.stdout == "before\n"
    assert (done.error.kind, done.error.type, done.error.line) == ("exception", "JSONDecodeError", 4)
    assert "line 7, in <module>" in done.error.traceback
    assert "line 4, in read" in done.error.traceback
    assert "json.loads(text)" in done.error.traceback
    assert "inside.py" not in done.error.traceback
    assert "decoder.py" not in done.error.traceback


async def test_a_syntax_error_names_the_line_also_when_the_code_returns(run):
    done = await run("a = 1\nreturn a\nb = = 2")
    assert (done.error.kind, done.error.line) == ("syntax", 3)


async def test_an_exception_that_cannot_even_be_printed_is_still_told(run):
    done = await run("class Evil(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Evil")
    assert (done.error.kind, done.error.type, done.error.line) == ("exception", "Evil", 4)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import datetime\nreturn {'order': {'at': [datetime.date(2026, 1, 2)]}}",
            "`result.order.at[0]` is of type date",
        ),
        ("return {1: 'a'}", "keys must be text"),
        ("return float('nan')", "is nan"),
        ("return {'a b': {1, 2}}", "`result['a b']` is of type set"),
        ("return 2 ** 70", "too large"),
        ("x = []\nx.append(x)\nreturn x", "contains itself"),
        ("return '\\ud800'", "broken character"),
        ("return open", "type builtin_function_or_method"),
        ("return 'x' * (5 * 1024 * 1024)", "more than the 4.0 MiB"),
    ],
)
async def test_a_result_that_is_not_json_is_refused_with_its_place(run, code, says):
    done = await run(code)
    assert done.error.kind == "result"
    assert says in done.error.message


async def test_endless_code_is_stopped_at_its_time_and_the_line_is_told(run):
    done = await run("print('started')\nwhile True:\n    pass", timeout=0.5)
    assert (done.error.kind, done.stdout) == ("timeout", "started\n")
    assert done.error.line in (2, 3)
    assert (await run("return 'still here'")).value == "still here"


@pytest.mark.parametrize(
    "code",
    [
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import threading, time\nt = threading.Thread(target=time.sleep, args=(99,))\nt.start()",
    ],
)
async def test_code_that_does_not_want_to_end_is_ended(run, code):
    done = await run(code, timeout=0.4)
    assert done.error.kind == "timeout"
    assert (await run("import os\nreturn [p for p in os.listdir('/proc') if p.isdigit()].__len__()")).value == 2


async def test_a_cancelled_job_is_ended_and_the_worker_serves_on(run):
    task = asyncio.create_task(run("import subprocess\nsubprocess.run(['sleep', '60'])", timeout=60.0))
    while not run.pool.stats().busy:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = await run("import os\nreturn [p for p in os.listdir('/proc') if p.isdigit()].__len__()")
    assert done.value == 2
    assert run.pool.stats().lost == 0


@pytest.mark.parametrize(
    "code",
    [
        "x = []\nwhile True:\n    x.append('x' * 100_000)",
        "x = []\nwhile True:\n    x.append(object())",
        "import os\nhold = []\nfor _ in range(12):\n    if os.fork() == 0:\n        break\nwhile True:\n    hold.append(bytearray(5_000_000))\n    hold[-1][::4096] = b'x' * len(hold[-1][::4096])\n    if len(hold) > 18:\n        __import__('time').sleep(9)",
    ],
    ids=["one large", "many small", "many processes"],
)
async def test_a_memory_bomb_stops_the_job_and_not_the_worker(run, code):
    done = await run(code, timeout=8.0)
    assert done.error.kind in ("memory", "timeout")
    assert (await run("return 1")).value == 1
    assert run.pool.stats().lost == 0


async def test_a_memory_error_names_the_line(run):
    done = await run("x = []\nwhile True:\n    x.append('x' * 100_000)")
    assert (done.error.kind, done.error.line) == ("memory", 3)


async def test_a_fork_bomb_is_held_and_leaves_nothing_behind(run):
    await run("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", timeout=1.0)
    done = await run("import os\nreturn [p for p in os.listdir('/proc') if p.isdigit()].__len__()")
    assert done.value == 2
    assert run.pool.stats().lost == 0


@pytest.mark.parametrize("folder", ["/workspace", "/tmp", "/dev/shm"])
async def test_a_disk_bomb_fills_only_its_own_small_disk(run, folder):
    done = await run(
        "import os\n"
        "size = 0\n"
        "try:\n"
        "    for n in range(10_000):\n"
        "        with open(f'{folder}/{n}', 'wb') as file:\n"
        "            size += file.write(b'x' * 100_000)\n"
        "except OSError as error:\n"
        "    return [size, error.errno]",
        folder=folder,
    )
    size, number = done.value
    assert size <= 16 * 1024 * 1024
    assert number == 28


async def test_a_job_cannot_make_files_without_end(run):
    done = await run(
        "n = 0\ntry:\n    while True:\n        open(f'/workspace/{n}', 'w').close()\n        n += 1\nexcept OSError:\n    return n"
    )
    assert 0 < done.value <= 2_048


async def test_the_next_job_sees_nothing_of_the_last_one(run):
    await run(
        dedent("""
        import os, subprocess, pathlib
        for folder in ("/workspace", "/tmp", "/dev/shm"):
            deep = pathlib.Path(folder, "a/b/c")
            deep.mkdir(parents=True)
            (deep / "secret").write_text("of the last job")
            os.symlink("/etc", f"{folder}/link")
            os.chmod(deep, 0)
            os.chmod(f"{folder}/a", 0)
        os.chmod("/workspace", 0)
        if os.fork() == 0:
            os.setsid()
            os.execv("/bin/sleep", ["sleep", "60"])
        subprocess.Popen(["sleep", "60"], start_new_session=True)
    """)
    )
    done = await run(
        dedent("""
        import os
        left = [name for folder in ("/workspace", "/tmp", "/dev/shm") for name in os.listdir(folder)]
        return [left, len([p for p in os.listdir("/proc") if p.isdigit()]), os.getcwd()]
    """)
    )
    assert done.value == [[], 2, "/workspace"]
    assert run.pool.stats().lost == 0


async def test_there_is_no_network(run):
    done = await run(
        dedent("""
        import socket
        seen = {}
        for where in ("172.17.0.1", "8.8.8.8", "169.254.169.254", "10.0.0.1"):
            with socket.socket() as s:
                s.settimeout(1)
                seen[where] = s.connect_ex((where, 80))
        names = [name for _, name in socket.if_nameindex()]
        return [seen, names]
    """)
    )
    seen, names = done.value
    assert all(number == 101 for number in seen.values()), seen
    assert names == ["lo"]


@pytest.mark.parametrize(
    "path",
    ["/x", "/usr/x", "/etc/x", "/bin/x", "/dev/x", "/factory/x", "/factory/inside.py", "/proc/sys/kernel/hostname"],
)
async def test_the_file_system_is_read_only(run, path):
    done = await run("try:\n    open(path, 'w')\nexcept OSError as error:\n    return error.errno", path=path)
    assert done.value in (1, 2, 13, 30)


async def test_nothing_of_the_host_can_be_seen(run, home):
    done = await run(
        dedent("""
        import os
        commands = [open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit()]
        found = [p for p in ("/root/.ssh", "/work", "/var/run/docker.sock", "/run/docker.sock", "/etc/shadow-")
                 if os.path.exists(p)]
        return [len(commands), found, dict(os.environ), os.getuid(), sorted(os.listdir("/factory"))]
    """)
    )
    processes, found, environment, user, factory = done.value
    assert processes == 2
    assert found == []
    assert set(environment) <= {"PATH", "LANG", "HOME", "HOSTNAME", "PWD", "LC_CTYPE"}
    assert user == 65534
    assert factory == [
        "crew.py",
        "door",
        "inside.py",
        "libraries.py",
        "parcels.py",
        "script.js",
        "script.py",
        "vital.py",
    ]


async def test_files_of_the_workspace_cannot_be_executed(run):
    done = await run(
        "import shutil, subprocess\n"
        "shutil.copy('/bin/true', '/workspace/tool')\n"
        "import os\nos.chmod('/workspace/tool', 0o700)\n"
        "try:\n    subprocess.run(['/workspace/tool'])\nexcept PermissionError:\n    return 'refused'"
    )
    assert done.value == "refused"


async def test_signals_and_tracing_do_not_reach_the_first_process(run):
    done = await run(
        dedent("""
        import ctypes, os
        for number in range(1, 65):
            try:
                os.kill(1, number)
            except OSError:
                pass
        libc = ctypes.CDLL(None, use_errno=True)
        traced = libc.ptrace(16, 1, 0, 0)
        try:
            memory = open("/proc/1/mem", "rb")
        except OSError:
            memory = None
        try:
            doors = os.listdir("/proc/1/fd")
        except OSError:
            doors = None
        return [traced, memory, doors]
    """)
    )
    assert done.value == [-1, None, None]
    assert (await run("return 1")).value == 1
    assert run.pool.stats().lost == 0


async def test_a_job_has_no_rights_and_cannot_get_any(run):
    done = await run(
        dedent("""
        import ctypes, os
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        libc = ctypes.CDLL(None, use_errno=True)
        refused = {}
        for name, call in {
            "mount": lambda: libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None),
            "unshare user": lambda: libc.unshare(0x10000000),
            "setuid": lambda: libc.setuid(0),
            "keyctl": lambda: libc.syscall(250, 0, 0, 0),
            "io_uring": lambda: libc.syscall(425, 8, 0),
            "shared memory": lambda: libc.shmget(0, 4096, 0o1600),
            "vsock": lambda: libc.socket(40, 1, 0),
        }.items():
            refused[name] = call() == -1
        return [status["CapEff"], status["CapPrm"], status["CapAmb"], status["NoNewPrivs"], status["Seccomp"], refused]
    """)
    )
    effective, permitted, ambient, no_new, filtered, refused = done.value
    assert {effective, permitted, ambient} == {"0" * 16}
    assert (no_new, filtered) == ("1", "2")
    assert all(refused.values()), refused


async def test_a_job_cannot_speak_in_the_name_of_its_worker(run):
    done = await run(
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect('/factory/door')\nexcept OSError as error:\n    return type(error).__name__"
    )
    assert done.value in ("ConnectionRefusedError", "FileNotFoundError", "PermissionError")


async def test_huge_output_is_cut_and_says_so(run):
    done = await run("for _ in range(300):\n    print('x' * 10_000)\nreturn 'done'")
    assert (done.value, done.truncated) == ("done", True)
    assert 1024 * 1024 <= len(done.stdout) < 1024 * 1024 + 200
    assert "cut here" in done.stdout


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os\nos._exit(3)", "exit code 3"),
        ("import os\nos.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os\nos.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
async def test_a_process_that_ends_itself_is_told_from_one_that_returns(run, code, says):
    done = await run(code)
    assert done.error.kind == "killed"
    assert says in done.error.message


async def test_a_forged_outcome_harms_nobody(run):
    done = await run(
        "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'V{broken')\n    except OSError: pass\nos._exit(0)"
    )
    assert done.error.kind == "result"
    assert (await run("return 1")).value == 1


async def test_jobs_do_not_share_their_randomness(run):
    seen = {(await run("import random\nreturn random.random()")).value for _ in range(5)}
    assert len(seen) == 5
