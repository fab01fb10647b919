"""Does what the verbs say, with one Docker engine: the only module that knows the `docker` package.

What every container gets is fixed here: no network, a read-only root, no rights, hard limits, its own room mounted
read-only. A verb reaches only containers that carry this installation's label. All methods block; `client.py` and
`process.py` call them in threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from nodes.errors import FactoryError
from runtime.workers.backend import MIB, NOBODY, ROOM, NoWorker, command_line
from runtime.workers.broker import verbs
from runtime.workers.broker.verbs import Answer, Stream, Verb
from runtime.workers.image.build import ImageError, image_tag, make_image
from runtime.workers.image.layers import can_remake, make_custom

if TYPE_CHECKING:
    from docker import APIClient

LABEL: Final = "agent-factory.home"
WORKER_LABEL: Final = "agent-factory.worker"
SIZE_LABEL: Final = "agent-factory.size"
ANSWER_TIME: Final = 2  # for questions; an engine that hangs must not hang us
WORK_TIME: Final = 20
SEEN: Final = ("start", "die", "oom", "kill", "pause", "unpause", "destroy")
_HOME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

Tell = Callable[[Answer], None]


class Cancel:
    """Ends a stream from another thread: whoever blocks says how it is woken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self.wanted = False

    def by(self, end: Callable[[], None] | None) -> None:
        """This is how the blocking call is ended from now on."""
        with self._lock:
            self._end = end
            now = self.wanted
        if now and end is not None:
            end()

    def __call__(self) -> None:
        with self._lock:
            self.wanted, end = True, self._end
        if end is not None:
            with contextlib.suppress(Exception):
                end()


class Engine:
    """One Docker engine, as far as the verbs reach. `rooms` is the folder of the workers' rooms; it must be ours alone.

    `url` is where the engine is (None: where the environment says), `images` replaces images by others of the engine's,
    `group` is who else may write into a room.
    """

    def __init__(
        self,
        home: str,
        rooms: Path,
        *,
        url: str | None = None,
        images: Mapping[str, str] | None = None,
        group: int | None = None,
    ) -> None:
        if not _HOME.fullmatch(home):
            raise ValueError(f"{home!r} is no name for an installation")
        self.home = home
        self.rooms = rooms
        self._url = url
        self._images = dict(images or {})
        self._group = group
        self._refs: dict[str, str] = {}
        self._made: dict[str, str] = {}
        self._slow: APIClient | None = None
        self._quick: APIClient | None = None
        self._facts: Answer = {}
        self._closed = False

    # --- coming and going

    def open(self) -> Answer:
        """Reach the engine. Raises NoWorker."""
        self._slow, self._quick = self._connect(WORK_TIME), self._connect(ANSWER_TIME)
        return self._look()

    def close(self) -> None:
        """Let go of the engine; what runs goes on."""
        self._closed = True
        for api in (self._slow, self._quick):
            if api is not None:
                api.close()
        self._slow = self._quick = None

    def _connect(self, timeout: int) -> APIClient:
        import docker

        try:
            if self._url:
                client = docker.DockerClient(base_url=self._url, timeout=ANSWER_TIME)
            else:
                client = docker.from_env(timeout=ANSWER_TIME)
            client.ping()
        except Exception as error:
            where = f" at {self._url}" if self._url else ""
            raise NoWorker(
                f"No Docker engine answers{where}.",
                fix="Install and start Docker (on Debian or Ubuntu: apt-get install docker.io), "
                "or set FACTORY_DOCKER to the address of an engine.",
            ) from error
        api: APIClient = client.api
        api.timeout = timeout
        return api

    def _look(self) -> Answer:
        found = self._asks.info()
        self._facts = {
            "id": found.get("ID", ""),
            "version": found.get("ServerVersion", ""),
            "cpus": found.get("NCPU", 1),
            "memory": found.get("MemTotal", 0),
            "machine": found.get("Architecture", ""),
            "rooms": str(self.rooms),
            "runtimes": sorted(found.get("Runtimes") or {}),
        }
        return self._facts

    @property
    def _works(self) -> APIClient:
        if self._slow is None:
            raise NoWorker("The connection to the Docker engine is closed.")
        return self._slow

    @property
    def _asks(self) -> APIClient:
        if self._quick is None:
            raise NoWorker("The connection to the Docker engine is closed.")
        return self._quick

    # --- verbs

    def answer(self, verb: Verb) -> Answer:
        """Do it. Raises NoWorker with what the engine said."""
        return _explained(lambda: self._opened()._do(verb))

    def follow(self, verb: Stream, tell: Tell, cancel: Cancel) -> Answer:
        """Do it, and tell of each step, until it is done or cancelled. Raises NoWorker."""
        return _explained(lambda: self._opened()._stream(verb, tell, cancel))

    def _opened(self) -> Engine:
        """Ourselves with a connection: a broker that was started anew hears verbs before it is asked whether it is ready."""
        if not self._facts and not self._closed:
            self.open()
        return self

    @singledispatchmethod
    def _do(self, verb: Verb) -> Answer:
        raise verbs.BadVerb("The broker does not do this.")

    @_do.register
    def _(self, verb: verbs.Ready) -> Answer:
        self._asks.ping()  # asked each second: all that it is would be too much to ask for
        return self._facts

    @_do.register
    def _(self, verb: verbs.Prepare) -> Answer:
        room = self._room(verb.worker)
        try:
            self.rooms.mkdir(mode=0o700, parents=True, exist_ok=True)  # something may have tidied it up
            room.mkdir(mode=0o755)
        except OSError as error:
            raise NoWorker(
                f"There can be no room for a worker in {self.rooms}: {error.strerror}.",
                fix="Let nothing tidy up that folder, and start the server again.",
            ) from error
        if self._group is not None:
            os.chown(room, -1, self._group)
            room.chmod(0o2775)
        else:
            room.chmod(0o755)
        return {"room": str(room)}

    @_do.register
    def _(self, verb: verbs.Create) -> Answer:
        room = self._room(verb.worker)
        found = room.lstat() if room.exists() else None
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise NoWorker(f"There is no room for the worker {verb.worker}.")
        made = self._works.create_container(**self._container(verb, room))
        self._refs[verb.worker] = ref = made["Id"]
        return {"ref": ref}

    @_do.register
    def _(self, verb: verbs.Start) -> Answer:
        self._works.start(self._ref(verb.worker))
        return {}

    @_do.register
    def _(self, verb: verbs.Stop) -> Answer:
        self._works.stop(self._ref(verb.worker), timeout=verb.patience)
        return {}

    @_do.register
    def _(self, verb: verbs.Kill) -> Answer:
        with _unless(409):  # it does not run
            self._works.kill(self._ref(verb.worker))
        return {}

    @_do.register
    def _(self, verb: verbs.Pause) -> Answer:
        self._asks.pause(self._ref(verb.worker))
        return {}

    @_do.register
    def _(self, verb: verbs.Unpause) -> Answer:
        self._asks.unpause(self._ref(verb.worker))
        return {}

    @_do.register
    def _(self, verb: verbs.Remove) -> Answer:
        try:
            ref = self._ref(verb.worker)
        except NoWorker:
            ref = ""
        if ref:
            with _unless(404, 409):  # it is gone, or somebody is removing it already
                self._works.remove_container(ref, force=True, v=True)
            self._refs.pop(verb.worker, None)
        shutil.rmtree(self._room(verb.worker), ignore_errors=True)
        return {"removed": bool(ref)}

    @_do.register
    def _(self, verb: verbs.List) -> Answer:
        found = []
        for container in self._asks.containers(all=True, filters={"label": f"{LABEL}={self.home}"}):
            labels = container.get("Labels") or {}
            worker, size = labels.get(WORKER_LABEL, ""), orjson.loads(labels.get(SIZE_LABEL) or "null")
            self._refs[worker] = container["Id"]
            found.append(
                {
                    "worker": worker,
                    "ref": container["Id"],
                    "state": container.get("State", ""),
                    "size": size,
                    # Its image may have been made by the recipe of an earlier version.
                    "current": bool(size) and container.get("Image") == self.tag(size["image"]),
                    "created": container.get("Created", 0),
                }
            )
        return {"workers": found}

    @_do.register
    def _(self, verb: verbs.Inspect) -> Answer:
        found = self._asks.inspect_container(self._ref(verb.worker))
        state = found["State"]
        return {
            "ref": found["Id"],
            "running": bool(state.get("Running")),
            "paused": bool(state.get("Paused")),
            "out_of_memory": bool(state.get("OOMKilled")),
            "code": state.get("ExitCode"),
            "pid": state.get("Pid", 0),
        }

    @_do.register
    def _(self, verb: verbs.Logs) -> Answer:
        said = self._asks.logs(self._ref(verb.worker), tail=verb.lines)
        return {"text": said.decode("utf-8", "replace")[-64 * 1024 :]}

    @_do.register
    def _(self, verb: verbs.Stats) -> Answer:
        found: Any = self._asks.stats(self._ref(verb.worker), stream=False, one_shot=True)
        memory = found.get("memory_stats") or {}
        details = memory.get("stats") or {}
        cache = details.get("total_inactive_file", details.get("inactive_file", 0))
        return {
            "cpu_seconds": (found.get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9,
            "memory": max(0, memory.get("usage", 0) - cache),
            "processes": (found.get("pids_stats") or {}).get("current", 0),
        }

    @_do.register
    def _(self, verb: verbs.DropImage) -> Answer:
        with _unless(404):
            self._works.remove_image(self.tag(verb.image))
        self._made.pop(verb.image, None)
        return {}

    # --- streams

    @singledispatchmethod
    def _stream(self, verb: Stream, tell: Tell, cancel: Cancel) -> Answer:
        raise verbs.BadVerb("The broker does not do this.")

    @_stream.register
    def _(self, verb: verbs.Events, tell: Tell, cancel: Cancel) -> Answer:
        api = self._connect(ANSWER_TIME)  # one of its own: closing it ends nothing else
        try:
            happening = api.events(
                decode=True,
                filters={"label": f"{LABEL}={self.home}", "type": "container", "event": list(SEEN)},
            )
            cancel.by(happening.close)
            tell({"what": "listening"})
            for event in happening:
                actor = event.get("Actor", {}).get("Attributes", {})
                tell(
                    {
                        "what": event.get("Action", ""),
                        "worker": actor.get(WORKER_LABEL, ""),
                        "code": int(actor["exitCode"]) if actor.get("exitCode", "").isdigit() else None,
                        "at": event.get("timeNano", 0) / 1e9,
                    }
                )
        finally:
            cancel.by(None)
            api.close()
        if cancel.wanted:
            return {}
        raise NoWorker("The Docker engine went away.", fix="Start it again.")

    @_stream.register
    def _(self, verb: verbs.HaveImage, tell: Tell, cancel: Cancel) -> Answer:
        if verb.image in self._made:
            return {"tag": self._made[verb.image]}
        tag = self.tag(verb.image)
        if not self._asks.images(name=tag, quiet=True):
            if verb.image in self._images or (verb.image.startswith("custom:") and not can_remake(verb.image)):
                raise NoWorker(f"The Docker engine has no image named {tag}.", fix="Build or load it first.")
            make_image(verb.image, self._url, _telling(tell, cancel))
        self._made[verb.image] = tag
        return {"tag": tag}

    @_stream.register
    def _(self, verb: verbs.BuildImage, tell: Tell, cancel: Cancel) -> Answer:
        below = self._stream(verbs.HaveImage(image=verb.like), tell, cancel)["tag"]
        made = make_custom(
            verb.like,
            below,
            self._url,
            _telling(tell, cancel),
            packages=verb.packages,
            lock=verb.lock,
            dockerfile=verb.dockerfile,
            preload=verb.preload,
        )
        self._made[made.image] = self.tag(made.image)
        return {"image": made.image, "lock": made.lock}

    # --- what a container is

    def tag(self, image: str) -> str:
        """An image's full name. The list of what may be run is this function."""
        if image in self._images:
            return self._images[image]
        if image.startswith("custom:"):
            return f"agent-factory/{image}"
        return image_tag(image)

    def _room(self, worker: str) -> Path:
        return self.rooms / worker

    def _ref(self, worker: str) -> str:
        """The engine's id of one of our containers. Raises NoWorker: there is no other way to any container."""
        ref = self._refs.get(worker)
        if ref is None:
            filters = {"label": [f"{LABEL}={self.home}", f"{WORKER_LABEL}={worker}"]}
            found = self._asks.containers(all=True, quiet=True, filters=filters)
            if not found:
                raise NoWorker(f"The Docker engine has no worker {worker}.")
            ref = self._refs[worker] = found[0]["Id"]
        return ref

    def _container(self, verb: verbs.Create, room: Path) -> dict[str, Any]:
        from docker.types import LogConfig, Mount, Ulimit

        profile = verb.size.profile()
        if profile.runtime and profile.runtime not in self._facts.get("runtimes", ()):
            raise NoWorker(
                f"The Docker engine has no {profile.runtime}.",
                fix=f"Install {profile.runtime} and name it in the engine's settings, or use the engine's own runtime.",
            )
        host = self._works.create_host_config(
            network_mode="none",
            ipc_mode="private",
            read_only=True,
            tmpfs={folder: f"rw,noexec,nosuid,nodev,{options}" for folder, options in profile.scratch().items()},
            shm_size=profile.shared_memory,
            mounts=[Mount(ROOM, str(room), type="bind", read_only=True)],
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=profile.processes,
            mem_limit=profile.memory,
            memswap_limit=profile.memory,
            nano_cpus=int(min(profile.cpus, self._facts.get("cpus") or profile.cpus) * 1e9),
            ulimits=[Ulimit(name="core", soft=0, hard=0)],
            log_config=LogConfig(type="json-file", config={"max-size": str(MIB), "max-file": "1"}),
            init=False,
            runtime=profile.runtime or None,
        )
        return {
            "image": self.tag(profile.image),
            "command": command_line(profile, mounts=False),
            "entrypoint": ["python3"],
            "name": f"agent-factory-{self.home}-{verb.worker}",
            "user": f"{NOBODY}:{NOBODY}",
            "working_dir": "/workspace",
            "environment": {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/workspace"},
            "labels": {LABEL: self.home, WORKER_LABEL: verb.worker, SIZE_LABEL: verb.size.model_dump_json()},
            "network_disabled": True,
            "host_config": host,
        }


def _telling(tell: Tell, cancel: Cancel) -> Callable[[str, float], None]:
    """Passes the lines of a maker of images on; ends it when nobody wants its image any more."""

    def told(line: str, progress: float) -> None:
        if cancel.wanted:
            raise ImageError("The making of the image was stopped.")
        tell({"line": line, "progress": progress})

    return told


@contextlib.contextmanager
def _unless(*statuses: int) -> Iterator[None]:
    """The engine's answers with these numbers are fine."""
    from docker.errors import APIError

    try:
        yield
    except APIError as error:
        if error.status_code not in statuses:
            raise


def _explained(work: Callable[[], Answer]) -> Answer:
    """Do the work; whatever the client library raises becomes an error of ours."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        return work()
    except FactoryError:
        raise
    except (DockerException, RequestException, OSError) as error:
        said: Any = getattr(error, "explanation", None) or error
        raise NoWorker(
            f"The Docker engine did not do what it was asked: {str(said)[:300]}",
            fix="See whether it is running and has room: docker info.",
        ) from error
