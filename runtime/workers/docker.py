"""Workers in hardened Docker containers: no network, nothing to write to but memory, no rights, hard limits.

All calls to the engine run in a few threads of our own, one more than there are processors: starting a container is
work for the processor, and starting more at once only makes the first one late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nodes.errors import FactoryError
from runtime.workers.backend import MIB, NOBODY, ROOM, Box, NoWorker, Profile, command_line

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

LABEL: Final = "agent-factory.home"
ANSWER_TIME: Final = 2.0  # for the first question; an engine that hangs must not hang us
WORK_TIME: Final = 20.0
_log = logging.getLogger(__name__)


class DockerBackend:
    """Boxes are containers of one engine, labelled with `home`, so that a later start finds and removes them."""

    name = "docker"
    room_owner: int | None = None

    def __init__(self, home: str, *, url: str | None = None, image: str | None = None) -> None:
        self._home = home
        self._url = url
        self._image = image
        self._api: APIClient | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Reach the engine, have the image, remove leftovers. Raises NoWorker."""
        self._threads = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="docker")
        try:
            self._api = await self._in_thread(self._connect)
            self._image = await self._in_thread(self._have_image)
            await self._in_thread(self._sweep)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Remove what is still there and let go of the engine."""
        if self._api is not None:
            with contextlib.suppress(NoWorker):
                await self._in_thread(self._sweep)
            self._api.close()
            self._api = None
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def start(self, box_id: str, room: Path, profile: Profile) -> Box:
        """Create and start a container. Raises NoWorker."""
        making = asyncio.ensure_future(self._in_thread(lambda: self._create(box_id, room, profile)))
        try:
            return Box(box_id, room, await asyncio.shield(making))
        except asyncio.CancelledError:  # the thread goes on: what it makes must not be left behind
            with contextlib.suppress(NoWorker):
                await self.destroy(Box(box_id, room, await making))
            raise

    async def destroy(self, box: Box) -> None:
        """Kill and remove the container, whatever state it is in."""
        try:
            await self._in_thread(lambda: self._remove(box.ref))
        except NoWorker as error:
            _log.warning("the container %s could not be removed now: %s", box.ref[:12], error.message)

    async def rest(self, box: Box) -> None:
        """Kill what runs in the container and keep the container: pausing it would free no memory."""
        await self._in_thread(lambda: self._engine.kill(box.ref))

    async def wake(self, box: Box, profile: Profile) -> Box:
        """Start the container again. Raises NoWorker."""
        await self._in_thread(lambda: self._engine.start(box.ref))
        return box

    async def alive(self, box: Box) -> bool:
        """Whether the container runs, as far as the engine says."""
        try:
            found = await self._in_thread(lambda: self._engine.inspect_container(box.ref))
        except NoWorker:
            return False
        return bool(found["State"].get("Running"))

    async def last_words(self, box: Box) -> str:
        """The end of the container's own log."""
        try:
            return await self._in_thread(
                lambda: self._engine.logs(box.ref, tail=20).decode("utf-8", "replace")[-2_000:]
            )
        except NoWorker as error:
            return error.message

    async def ran_out_of_memory(self, box: Box) -> bool:
        """Whether the engine says so."""
        try:
            found = await self._in_thread(lambda: self._engine.inspect_container(box.ref))
        except NoWorker:
            return False
        return bool(found["State"].get("OOMKilled"))

    def owns(self, box: Box, pid: int) -> bool:
        """Whether the process is in the container's control group; yes where it cannot be seen from here."""
        if pid <= 0:
            return True
        try:
            return box.ref in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return not Path("/proc/self/cgroup").exists()

    @property
    def _engine(self) -> APIClient:
        if self._api is None:
            raise NoWorker("The connection to the Docker engine is closed.")
        return self._api

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            raise NoWorker("The connection to the Docker engine is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, _explained, work)

    def _connect(self) -> APIClient:
        import docker

        try:
            if self._url:
                client = docker.DockerClient(base_url=self._url, timeout=int(ANSWER_TIME))
            else:
                client = docker.from_env(timeout=int(ANSWER_TIME))
            client.ping()
        except Exception as error:
            where = f" at {self._url}" if self._url else ""
            raise NoWorker(
                f"No Docker engine answers{where}.",
                fix="Install and start Docker (on Debian or Ubuntu: apt-get install docker.io), "
                "or set FACTORY_DOCKER to the address of an engine.",
            ) from error
        api: APIClient = client.api
        api.timeout = int(WORK_TIME)
        return api

    def _have_image(self) -> str:
        from runtime.workers.image.build import ensure_image, image_tag

        tag = self._image or image_tag()
        if self._engine.images(name=tag, quiet=True):
            return tag
        if self._image:
            raise NoWorker(f"The Docker engine has no image named {tag}.", fix="Build or load it first.")
        return ensure_image(self._url)

    def _sweep(self) -> None:
        for found in self._engine.containers(all=True, quiet=True, filters={"label": f"{LABEL}={self._home}"}):
            self._remove(found["Id"])

    def _create(self, box_id: str, room: Path, profile: Profile) -> str:
        from docker.types import LogConfig, Mount, Ulimit

        api = self._engine
        host = api.create_host_config(
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
            nano_cpus=int(profile.cpus * 1e9),
            ulimits=[Ulimit(name="core", soft=0, hard=0)],
            log_config=LogConfig(type="json-file", config={"max-size": str(MIB), "max-file": "1"}),
            init=False,
        )
        made = api.create_container(
            self._image,
            command=command_line(profile, mounts=False),
            entrypoint=["python3"],
            name=f"agent-factory-{box_id}",
            user=f"{NOBODY}:{NOBODY}",
            working_dir="/workspace",
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/workspace"},
            labels={LABEL: self._home, "agent-factory.worker": box_id},
            network_disabled=True,
            host_config=host,
        )
        ref: str = made["Id"]
        try:
            api.start(ref)
        except Exception:
            self._remove(ref)
            raise
        return ref

    def _remove(self, ref: str) -> None:
        from docker.errors import APIError, NotFound

        try:
            self._engine.remove_container(ref, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # somebody is removing it already
                raise


def _explained(work: Callable[[], T]) -> T:
    """Do the work; whatever the client library raises becomes an error of ours."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        return work()
    except FactoryError as error:
        if isinstance(error, NoWorker):
            raise
        raise NoWorker(error.message, fix=error.fix) from error
    except (DockerException, RequestException, OSError) as error:
        said: Any = getattr(error, "explanation", None) or error
        raise NoWorker(
            f"The Docker engine did not do what it was asked: {str(said)[:300]}",
            fix="See whether it is running and has room: docker info.",
        ) from error
