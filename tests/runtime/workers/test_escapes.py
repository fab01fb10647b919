"""The escape battery: what code does to get out of its worker, or to harm others from inside, on every size of worker.

Each attempt tells what it reached; the answer must be: nothing. After each one the same worker must still serve.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
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
from tests.runtime.workers.telling import telling

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

Attempt: TypeAlias = Callable[..., Awaitable[JobResult]]

LOOK = """
import os
left = [os.listdir(place) for place in ("/workspace", "/tmp", "/dev/shm", "/dev/mqueue") if os.path.isdir(place)]
return [sum(left, []), len([name for name in os.listdir("/proc") if name.isdigit()]), os.getcwd()]
"""
CLEAN = [[], 2, "/workspace"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(PROFILES))
async def profile(request: pytest.FixtureRequest) -> Profile:
    """Every size that comes with the product."""
    return PROFILES[request.param]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(profile: Profile, docker_engine: str, worker_image: str) -> AsyncIterator[Pool]:
    """Two warm workers of this size."""
    home = f"test-{uuid4().hex[:12]}"
    backend = DockerBackend(home, url=docker_engine)
    try:
        await backend.open()
        await backend.have(profile.image)
    except NoWorker as error:
        unavailable(error.message)
    rooms = rooms_for(home)
    try:
        async with Pool(backend, rooms, profile=profile, rules=PoolRules(size=2, start_limit=60)) as made:
            await made.until_ready(2, timeout=110)
            yield made
    finally:
        await backend.close()
        shutil.rmtree(rooms, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module")
async def attempt(pool: Pool) -> AsyncIterator[Attempt]:
    """Runs an attempt in a worker, which must be there and clean afterwards."""

    async def run(code: str, *, tenant: str = "acme", timeout: float = 10.0, **inputs: object) -> JobResult:
        return await pool.run(Job(id=uuid4().hex, code=dedent(code), inputs=inputs, timeout=timeout), tenant=tenant)

    lost = pool.stats().lost
    yield run
    assert (await run(LOOK)).value == CLEAN
    assert pool.stats().lost == lost


# --- files -----------------------------------------------------------------------------------------------------------------


async def test_nothing_of_the_root_file_system_can_be_written(attempt: Attempt) -> None:
    done = await attempt(
        telling("""
        for folder in ("/", "/bin", "/usr/bin", "/usr/local/bin", "/etc", "/lib", "/var", "/run", "/home", "/root", "/opt",
                       "/srv", "/mnt", "/media", "/boot", "/factory", "/dev", "/proc", "/sys"):
            tried(folder, lambda: open(folder + "/mark", "w"))
            tried(folder, lambda: os.mkdir(folder + "/mark"))
            tried(folder, lambda: os.symlink("/etc/passwd", folder + "/mark"))
        for file in ("/etc/passwd", "/usr/bin/python3", "/factory/inside.py", "/factory/script.py", "/etc/ld.so.preload"):
            tried(file, lambda: open(file, "a"))
            tried(file, lambda: os.unlink(file))
            tried(file, lambda: os.rename(file, "/workspace/taken"))
            tried(file, lambda: os.chmod(file, 0o777))
            tried(file, lambda: os.link(file, "/workspace/linked"))
        tried("remount", lambda: libc.mount(None, b"/", None, 32, None))
        tried("remount room", lambda: libc.mount(None, b"/factory", None, 32 | 4096, None))
        tried("unmount", lambda: libc.umount2(b"/factory", 2))
        tried("mount", lambda: libc.mount(b"tmpfs", b"/workspace", b"tmpfs", 0, None))
        tried("pivot", lambda: libc.syscall(155, b"/workspace", b"/workspace"))
        tried("chroot", lambda: os.chroot("/workspace"))
        tried("device", lambda: os.mknod("/workspace/disk", 0o60666, os.makedev(8, 0)))
        tried("handle", lambda: libc.syscall(304, -100, None, 0))
        """)
    )
    assert (done.value, done.error) == ([], None)


async def test_proc_and_sys_cannot_be_written(attempt: Attempt) -> None:
    done = await attempt(
        telling("""
        for file in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname",
                     "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sys/net/ipv4/ip_forward",
                     "/proc/sys/fs/binfmt_misc/register", "/proc/1/oom_score_adj", "/proc/1/mem", "/proc/1/comm",
                     "/proc/1/uid_map", "/proc/kcore", "/proc/kmem", "/proc/irq/0/smp_affinity", "/proc/bus/pci/00/00.0",
                     "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state", "/sys/class/net/lo/mtu",
                     "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max",
                     "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max",
                     "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/rdma/release_agent",
                     "/dev/mem", "/dev/kmsg", "/dev/port", "/dev/sda", "/dev/fuse", "/dev/kvm", "/dev/net/tun"):
            tried(file, lambda: os.open(file, os.O_WRONLY))
        for file in ("/proc/kcore", "/proc/kmsg", "/proc/1/environ", "/proc/1/maps", "/proc/1/root/etc/passwd",
                     "/proc/sched_debug", "/proc/timer_list", "/proc/keys", "/sys/firmware/acpi/tables/DSDT"):
            tried("read " + file, lambda: open(file, "rb").read(1)[0])
        tried("less for the killer", lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1"))
        for place, _, files in os.walk("/sys"):
            for file in files:
                path = os.path.join(place, file)
                if os.access(path, os.W_OK):
                    tried(path, lambda: os.open(path, os.O_WRONLY))
        """)
    )
    assert (done.value, done.error) == ([], None)


async def test_symbolic_links_lead_nowhere_also_when_the_place_is_emptied(attempt: Attempt, pool: Pool) -> None:
    done = await attempt(
        telling("""
        for number, target in enumerate(("/", "/factory", "/factory/door", "/proc/1/root", "/proc/1/cwd", "/proc/1/fd/3",
                                         "/etc", "/usr/bin", "../../../../etc", "/proc/self/root")):
            os.symlink(target, f"/workspace/{number}")
            os.symlink(target, f"/tmp/{number}")
            tried(target, lambda: open(f"/workspace/{number}/mark", "w"))
        os.makedirs("/workspace/a/b")
        for number in range(200):
            os.symlink("/workspace/a", f"/workspace/a/b/{number}")
        tried("place", lambda: os.rename("/workspace", "/workspace2"))
        tried("place", lambda: os.rmdir("/workspace"))
        """)
    )
    assert (done.value, done.error) == ([], None)
    kept = await attempt(
        "import os\nreturn [os.path.exists(p) for p in ('/factory/inside.py', '/etc/passwd', '/usr/bin/python3')]"
    )
    assert kept.value == [True, True, True]


async def test_nothing_in_the_places_for_files_can_be_executed(attempt: Attempt) -> None:
    done = await attempt(
        telling("""
        import shutil, subprocess
        for place in ("/workspace", "/tmp", "/dev/shm"):
            shutil.copy("/bin/true", place + "/tool")
            with open(place + "/script", "w") as script:
                script.write("#!/bin/sh\\nexit 0\\n")
            for name in ("tool", "script"):
                os.chmod(f"{place}/{name}", 0o700)
                tried(f"{place}/{name}", lambda: subprocess.run([f"{place}/{name}"]))
            for loader in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"):
                if os.path.exists(loader):
                    tried("by the loader", lambda: -1 if subprocess.run([loader, place + "/tool"], stderr=-3).returncode else 0)
            tried("as a library", lambda: ctypes.CDLL(place + "/tool"))
            tried("remount", lambda: libc.mount(None, place.encode(), None, 32, None))
        tried("from memory", lambda: os.memfd_create("tool"))
        """)
    )
    assert (done.value, done.error) == ([], None)


# --- bombs -----------------------------------------------------------------------------------------------------------------


async def test_a_fork_bomb_is_held(attempt: Attempt, profile: Profile) -> None:
    done = await attempt(
        """
        import os, time
        count = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(60)
                count += 1
        except OSError:
            return count
        """,
    )
    assert 0 < done.value < profile.processes


async def test_a_storm_of_forks_costs_at_most_the_worker_it_blew_in(pool: Pool) -> None:
    """It may keep a worker from answering, which the watchdog then takes for hanging; whoever comes next finds a clean one."""
    lost = pool.stats().lost
    code = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    assert not (await pool.run(Job(uuid4().hex, code, {}, timeout=0.7), tenant="acme")).ok
    assert (await pool.run(Job(uuid4().hex, LOOK, {}, timeout=10), tenant="acme")).value == CLEAN
    assert pool.stats().lost <= lost + 1


async def test_a_bomb_of_threads_is_held(attempt: Attempt, profile: Profile) -> None:
    done = await attempt(
        """
        import threading, time
        count = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                count += 1
        except RuntimeError:
            return count
        """,
    )
    assert 0 < done.value < profile.processes


async def test_a_memory_bomb_ends_the_job_alone(attempt: Attempt) -> None:
    grown = await attempt("x = []\nwhile True:\n    x.append(bytearray(4_000_000))", timeout=20)
    assert grown.error.kind == "memory"
    spread = await attempt(
        """
        import mmap, os
        for _ in range(8):
            if os.fork() == 0:
                break
        held = []
        while True:
            held.append(mmap.mmap(-1, 8_000_000))
            held[-1].write(b"x" * 8_000_000)
        """,
        timeout=6,
    )
    assert spread.error.kind in ("memory", "timeout", "killed", "exception")


async def test_a_disk_bomb_fills_only_its_own_place(attempt: Attempt, profile: Profile) -> None:
    done = await attempt(
        """
        import os
        sizes = {}
        for place in ("/workspace", "/tmp", "/dev/shm"):
            total = 0
            try:
                for number in range(100_000):
                    with open(f"{place}/{number}", "wb", buffering=0) as file:
                        for _ in range(64):
                            total += file.write(b"x" * 262_144)
            except OSError as error:
                sizes[place] = [total, error.errno]
        return sizes
        """,
        timeout=30,
    )
    assert {number for _, number in done.value.values()} == {28}
    assert done.value["/workspace"][0] <= profile.disk
    assert done.value["/tmp"][0] <= profile.disk // 4
    assert done.value["/dev/shm"][0] <= profile.shared_memory


async def test_files_without_end_and_without_size_are_held(attempt: Attempt, profile: Profile) -> None:
    done = await attempt(
        """
        count = 0
        try:
            while True:
                open(f"/workspace/{count}", "w").close()
                count += 1
        except OSError:
            return count
        """,
        timeout=30,
    )
    assert 0 < done.value <= profile.files
    sparse = await attempt("file = open('/workspace/sparse', 'wb')\nfile.truncate(1 << 40)")
    assert not sparse.ok


async def test_a_cpu_bomb_is_stopped_at_its_time(attempt: Attempt) -> None:
    done = await attempt("import os\nfor _ in range(6):\n    os.fork()\nwhile True:\n    pass", timeout=0.6)
    assert done.error.kind in ("timeout", "exception")
    deaf = await attempt(
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nos.nice(-20) if False else None\nwhile True: pass",
        timeout=0.4,
    )
    assert deaf.error.kind == "timeout"


async def test_a_zip_bomb_bursts_inside(attempt: Attempt, profile: Profile) -> None:
    done = await attempt(
        """
        import zlib
        piece = zlib.compress(bytes(1 << 22))
        try:
            with open("/workspace/out", "wb") as out:
                for _ in range(1 << 10):
                    out.write(zlib.decompress(piece))
        except OSError as error:
            return error.errno
        """,
        timeout=60,
    )
    assert done.value in (27, 28)  # too large for a file, or no space
    whole = await attempt(
        "import zlib\npiece = zlib.compress(bytes(1 << 22))\nreturn len([zlib.decompress(piece) for _ in range(1 << 10)])",
        timeout=60,
    )
    assert whole.error.kind == "memory"


async def test_huge_output_is_cut(attempt: Attempt, profile: Profile) -> None:
    done = await attempt(
        "import os\nfor _ in range(64):\n    os.write(1, b'x' * 1_000_000)\n    os.write(2, b'y' * 1_000_000)\nreturn 1",
        timeout=30,
    )
    assert (done.value, done.truncated) == (1, True)
    assert len(done.stdout) < profile.output_limit + 200
    assert len(done.stderr) < profile.output_limit + 200
    large = await attempt("return 'x' * size", size=profile.result_limit + 1, timeout=30)
    assert large.error.kind == "result"
    deep = await attempt("x = []\nfor _ in range(100_000):\n    x = [x]\nreturn x")
    assert deep.error is not None


# --- the world outside ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listeners() -> Iterator[tuple[int, str, list[str]]]:
    """What a careless host offers: a service on all its addresses, and a socket without a path."""
    name = f"\0agent-factory-{uuid4().hex}"
    with socket.socket() as everywhere, socket.socket(socket.AF_UNIX) as nameless:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        nameless.bind(name)
        nameless.listen()
        listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
        yield everywhere.getsockname()[1], name, [address for address in listed if ":" not in address]


async def test_no_network_leads_anywhere(attempt: Attempt, listeners: tuple[int, str, list[str]]) -> None:
    port, nameless, own = listeners
    with contextlib.closing(socket.create_connection((own[0] if own else "127.0.0.1", port), 2)):
        pass  # it could be reached, from out here
    done = await attempt(
        telling("""
        hosts = [*own, "172.17.0.1", "172.18.0.1", "127.0.0.1", "127.0.0.11", "10.0.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200",
                 "1.1.1.1", "8.8.8.8", "255.255.255.255", "224.0.0.1"]
        def connect(family, kind, where):
            with socket.socket(family, kind) as end:
                end.settimeout(0.5)
                end.connect(where)
                if kind == socket.SOCK_DGRAM:
                    end.send(b"x")
        for host in hosts:
            for number in {port, 22, 53, 80, 443, 2375, 2376, 6379, 5432}:
                tried(f"{host}:{number}", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, (host, number)))
            if not host.startswith("127."):
                tried(f"{host} by datagram", lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, (host, 53)))
        for host in ("fe80::1", "fd00:ec2::254", "2606:4700:4700::1111", "ff02::1"):
            tried(host, lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, (host, 80)))
        tried("a name", lambda: socket.getaddrinfo("host.docker.internal", 80))
        tried("a name", lambda: socket.getaddrinfo("example.com", 80))
        tried("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
        tried("packet", lambda: socket.socket(17, socket.SOCK_RAW))
        tried("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
        tried("alg", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
        tried("bluetooth", lambda: socket.socket(31, socket.SOCK_STREAM))
        tried("a socket without a path", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, nameless))
        tried("another interface", lambda: -1 if [n for _, n in socket.if_nameindex()] == ["lo"] else 0)
        tried("a network of its own", lambda: libc.unshare(0x40000000))
        tried("the network of the first process", lambda: libc.setns(os.open("/proc/1/ns/net", os.O_RDONLY), 0))
        """),
        port=port,
        nameless=nameless,
        own=own,
        timeout=20,
    )
    assert (done.value, done.error) == ([], None)


async def test_the_engines_socket_is_nowhere(attempt: Attempt) -> None:
    done = await attempt(
        telling("""
        import stat
        for name in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/agent-factory",
                     "/var/lib/docker", "/work", "/host"):
            tried(name, lambda: os.stat(name))
        for place, folders, files in os.walk("/"):
            folders[:] = [f for f in folders if os.path.join(place, f) not in ("/proc", "/sys")]
            for file in files:
                path = os.path.join(place, file)
                try:
                    if stat.S_ISSOCK(os.lstat(path).st_mode) and path != "/factory/door":
                        reached.append(path)
                except OSError:
                    pass
        end = socket.socket(socket.AF_UNIX)
        tried("its own door", lambda: end.connect("/factory/door"))
        """)
    )
    assert (done.value, done.error) == ([], None)


async def test_other_workers_can_neither_be_seen_nor_reached(attempt: Attempt, pool: Pool) -> None:
    secret = uuid4().hex
    other = await attempt(
        """
        import os, socket
        for place in ("/workspace", "/tmp", "/dev/shm"):
            with open(f"{place}/{secret}", "w") as file:
                file.write(secret)
        end = socket.socket(socket.AF_UNIX)
        end.bind("\\0" + secret)
        return [os.listdir("/factory"), os.uname().nodename]
        """,
        tenant="other",
        secret=secret,
    )
    assert other.ok
    done = await attempt(
        telling("""
        for place, folders, files in os.walk("/"):
            folders[:] = [f for f in folders if os.path.join(place, f) not in ("/proc", "/sys")]
            reached += [name for name in (*folders, *files) if secret in name]
        end = socket.socket(socket.AF_UNIX)
        tried("its socket", lambda: end.connect("\\0" + secret))
        tried("its process", lambda: os.kill(3, 0))
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (1, os.getpid()):
                reached.append(name)
        tried("its name", lambda: -1 if os.uname().nodename != nodename else 0)
        """),
        secret=secret,
        nodename=other.value[1],
    )
    assert (done.value, done.error) == ([], None)


# --- other processes ---------------------------------------------------------------------------------------------------------


async def test_the_first_process_hears_no_signal(attempt: Attempt) -> None:
    done = await attempt(
        """
        import os, signal
        for number in range(1, 65):
            try:
                os.kill(1, number)
                os.kill(-1, 0)
            except OSError:
                pass
        descriptor = os.pidfd_open(1)
        for number in (signal.SIGSTOP, signal.SIGKILL, signal.SIGTSTP):
            try:
                signal.pidfd_send_signal(descriptor, number)
            except OSError:
                pass
        state = open("/proc/1/stat").read().rpartition(")")[2].split()[0]
        return state in ("S", "R")
        """
    )
    assert (done.value, done.error) == (True, None)


async def test_the_first_process_cannot_be_traced_or_looked_into(attempt: Attempt) -> None:
    done = await attempt(
        telling("""
        for request in (16, 0x4206, 0x4207):  # attach, seize, interrupt
            tried("ptrace", lambda: libc.ptrace(request, 1, 0, 0))
        buffer = ctypes.create_string_buffer(8)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
        tried("read its memory", lambda: libc.process_vm_readv(1, vector, 1, vector, 1, 0))
        tried("write its memory", lambda: libc.process_vm_writev(1, vector, 1, vector, 1, 0))
        for name in ("mem", "environ", "maps", "auxv", "stack", "syscall", "io", "pagemap"):
            tried(name, lambda: open(f"/proc/1/{name}", "rb").read(1)[0])
        for name in ("exe", "cwd", "root", "ns/pid"):
            tried(name, lambda: os.readlink(f"/proc/1/{name}"))
        tried("fd", lambda: os.listdir("/proc/1/fd"))
        tried("a descriptor of it", lambda: libc.syscall(438, os.pidfd_open(1), 3, 0))
        tried("its limits", lambda: __import__("resource").prlimit(1, __import__("resource").RLIMIT_NOFILE, (0, 0)))
        tried("its place with the killer", lambda: os.open("/proc/1/oom_score_adj", os.O_WRONLY))
        tried("its affinity", lambda: os.sched_setaffinity(1, {0}))
        tried("its turn", lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
        tried("everybody's turn", lambda: os.setpriority(os.PRIO_USER, 0, 19))
        tried("its scheduler", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
        tried("its turn at the disk", lambda: libc.syscall(251 if os.uname().machine == "x86_64" else 30, 1, 1, 3 << 13))
        os.nice(1)
        """)
    )
    assert (done.value, done.error) == ([], None)


async def test_no_right_can_be_had(attempt: Attempt) -> None:
    done = await attempt(
        telling("""
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"):
            tried(name, lambda: -1 if int(status[name], 16) == 0 else 0)
        tried("NoNewPrivs", lambda: -1 if status["NoNewPrivs"] == "1" else 0)
        tried("Seccomp", lambda: -1 if status["Seccomp"] == "2" else 0)
        tried("setuid", lambda: os.setuid(0))
        tried("setgid", lambda: os.setgid(0))
        tried("setgroups", lambda: os.setgroups([0]))
        for name, flag in {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000}.items():
            tried("namespace " + name, lambda: libc.unshare(flag))
            tried("clone " + name, lambda: libc.syscall(56, flag | 17, 0, 0, 0, 0))
        for name, number in {"io_uring": 425, "keyctl": 250, "add_key": 248, "bpf": 321, "perf": 298, "userfaultfd": 323,
                             "module": 175, "kexec": 246, "swapon": 167, "reboot": 169, "fanotify": 300, "quotactl": 179,
                             "acct": 163, "syslog": 103, "settimeofday": 164, "clone3": 435, "open_by_handle": 304}.items():
            tried(name, lambda: libc.syscall(number, 0, 0, 0, 0, 0))
        for place, _, files in os.walk("/usr"):
            for file in files:
                if os.lstat(os.path.join(place, file)).st_mode & 0o6000:
                    reached.append(file)
        """),
        timeout=20,
    )
    if os.uname().machine != "x86_64":  # the numbers are those of one kind of machine
        done.value[:] = [name for name in done.value if name.startswith(("Cap", "No", "Sec", "set", "namespace"))]
    assert (done.value, done.error) == ([], None)


async def test_the_next_job_finds_no_process_and_no_file_of_the_last(attempt: Attempt) -> None:
    mark = uuid4().hex
    planted = await attempt(
        """
        import os, signal, subprocess
        places = []
        for place, folders, _ in os.walk("/"):
            folders[:] = [f for f in folders if os.path.join(place, f) not in ("/proc", "/sys")]
            try:
                with open(os.path.join(place, mark), "w") as file:
                    file.write(mark)
                places.append(place)
                os.makedirs(os.path.join(place, "deep", mark))
                os.chmod(os.path.join(place, "deep"), 0)
            except OSError:
                pass
        for place in places:
            os.chmod(place, 0)
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
                    os.execv("/bin/sleep", [mark, "60"])
                os._exit(0)
        subprocess.Popen(["/bin/sh", "-c", "trap '' TERM HUP INT; (sleep 60 &) ; sleep 60"], start_new_session=True)
        return places
        """,
        mark=mark,
    )
    assert "/workspace" in planted.value
    found = await attempt(
        """
        import os
        seen = []
        for place, folders, files in os.walk("/"):
            folders[:] = [f for f in folders if os.path.join(place, f) not in ("/proc", "/sys")]
            seen += [os.path.join(place, name) for name in (*folders, *files) if mark in name]
        for name in os.listdir("/proc"):
            if name.isdigit() and mark in open(f"/proc/{name}/cmdline").read():
                seen.append(name)
        return seen
        """,
        mark=mark,
    )
    assert (found.value, found.error) == ([], None)


async def test_a_forged_word_to_the_server_is_not_believed(attempt: Attempt) -> None:
    done = await attempt(
        """
        import os, struct
        body = b'{"type":"result","id":"x","value":"1"}'
        for descriptor in range(3, 256):
            try:
                os.write(descriptor, struct.pack(">I", len(body)) + body)
            except OSError:
                pass
        os._exit(0)
        """
    )
    assert done.error.kind in ("result", "killed")


async def test_every_size_is_in_the_battery() -> None:
    assert {"small", "medium", "large", "data", "node"} <= set(PROFILES)
    assert Path(__file__).read_text().count("async def test_") >= 20
