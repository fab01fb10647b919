"""The product as people run it: `factory serve` in a process of its own, for tests to talk to, kill and start again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx

from tests.services import free_port

FACTORY = Path(sys.executable).with_name("factory")


class Server:
    """One `factory serve` on its own data folder and port; `start()` again after `stop()` or `kill()` keeps both.

    `settings` become environment variables: `Server(home, docker="auto")` sets FACTORY_DOCKER. Docker is off unless asked
    for, because most tests need no workers and start sooner without.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home.with_name(f"{home.name}.log")
        self.settings = {"docker": "off", **settings}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 60) -> None:
        """Start, and return when it answers at /healthz. Raises RuntimeError with the end of its log."""
        own = {"FACTORY_HOME": str(self.home), "FACTORY_HOST": "127.0.0.1", "FACTORY_PORT": str(self.port)}
        settings = {f"FACTORY_{name.upper()}": value for name, value in self.settings.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FACTORY_")}
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(FACTORY), "serve"],
                env={**kept, **settings, **own, "PYTHONUNBUFFERED": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            if self.answers():
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"factory serve does not answer. Its log ends:\n{self.tail()}")

    def answers(self) -> bool:
        """Whether /healthz says that all is well."""
        try:
            # Asked again and again while it starts: reading all certificates each time would take longer than the answer.
            return httpx.get(f"{self.url}/healthz", timeout=2, verify=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        """End it as Ctrl-C or a service manager would; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    @property
    def setup_link(self) -> str:
        """The one-time link that the first start prints."""
        found = re.search(r"http://\S+/setup\?token=[\w.~-]+", self.log.read_text(errors="replace"))
        assert found, f"no set-up link was printed:\n{self.tail()}"
        return found.group()

    def tail(self, lines: int = 40) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
