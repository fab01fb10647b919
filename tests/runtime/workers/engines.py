"""Docker engines of the tests' own, with everything of theirs apart: to be stopped, killed and frozen without harm to others.

Their data stays in the cache folder, so that the worker image is loaded into each only once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests import services

FOLDER = services.CACHE / "engines"


class DockerHost:
    """One dockerd: no bridge, no rules in the firewall, its own socket, data and containerd."""

    def __init__(self, name: str, options: str = "") -> None:
        self.name = name
        self._options = options
        self.url = f"unix:///run/factory-{name}/docker.sock"
        self._data = FOLDER / name
        self._run = Path(f"/run/factory-{name}")
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run.mkdir(mode=0o700, exist_ok=True)
        self._data.mkdir(parents=True, exist_ok=True)
        (self._run / "docker.pid").unlink(missing_ok=True)
        options = f"""
            --host {self.url} --data-root {self._data} --exec-root {self._run}/exec --pidfile {self._run}/docker.pid
            --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --storage-driver overlay2
            --live-restore --containerd {self._run}/containerd.sock {self._options}
        """
        with (self._data / "log").open("ab") as log:
            if self._containerd is None:
                self._containerd = self._start_containerd(log)
            self._process = subprocess.Popen(
                ["dockerd", *options.split()], stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            if self.docker("version").returncode == 0:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        last = (self._data / "log").read_text(errors="replace").splitlines()[-1:]
        raise services.Missing(f"A second dockerd cannot be had here: {' '.join(last)}")

    def _start_containerd(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """A containerd of its own, which outlives the engine as it does in an installed Docker."""
        settings = self._run / "containerd.toml"
        settings.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        options = f"--config {settings} --address {self._run}/containerd.sock --root {self._data}/containerd"
        command = ["containerd", *options.split(), "--state", f"{self._run}/containerd", "--log-level", "warn"]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Ask it by its own command."""
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def containers(self, home: str) -> list[str]:
        """The ids of all containers of an installation, whether they run or not."""
        return self.docker("ps", "-aq", "--no-trunc", "--filter", f"label=agent-factory.home={home}").stdout.split()

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT, SIGTERM or SIGKILL to the engine, not to what runs in it."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._process.wait(30)

    def clear(self) -> None:
        """Remove all containers."""
        if found := self.docker("ps", "-aq").stdout.split():
            self.docker("rm", "-f", *found)

    def have(self, image: str) -> None:
        """Have an image of the usual engine."""
        if self.docker("image", "inspect", image).returncode == 0:
            return
        saving = subprocess.Popen(["docker", "--host", services.docker_url(), "save", image], stdout=subprocess.PIPE)
        subprocess.run(["docker", "--host", self.url, "load"], stdin=saving.stdout, check=True, capture_output=True)
        saving.wait()

    def end(self) -> None:
        """Leave nothing that runs, and nothing in /run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.clear()
            self.signal(signal.SIGTERM)
        if self._containerd is not None:
            self._containerd.terminate()
            self._containerd.wait(10)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if b"containerd-shim" in (line := process.read_bytes()) and f"{self._run}/".encode() in line:
                    os.kill(int(process.parent.name), signal.SIGKILL)
        # An engine makes a mount of its folder, and leaves it when it could not end in order.
        subprocess.run(["umount", "--lazy", str(FOLDER / self.name)], capture_output=True, check=False)
        shutil.rmtree(self._run, ignore_errors=True)


@contextmanager
def docker_hosts(*names: str, image: str, options: str = "") -> Iterator[tuple[DockerHost, ...]]:
    """So many engines, each with the image. Raises Missing."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise services.Missing("Engines of one's own need root and dockerd.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lock = stack.enter_context((FOLDER / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)  # one session at a time
        hosts = tuple(DockerHost(name, options) for name in names)
        for host in hosts:
            stack.callback(host.end)
            host.start()
            host.clear()
            host.have(image)
        yield hosts
