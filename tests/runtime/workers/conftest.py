"""Workers for the tests: the same behaviour is asked of every backend that this machine can have."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from runtime.workers.backend import Backend, Job, JobResult, NoWorker, Profile
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.local import LocalBackend
from runtime.workers.pool import Pool, PoolRules
from tests.conftest import unavailable

OpenPool = Callable[..., AbstractAsyncContextManager[Pool]]
RunCode = Callable[..., "object"]


@pytest.fixture
def home() -> str:
    """The name of an installation of its own for this test."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"])
async def backend(request: pytest.FixtureRequest, home: str) -> AsyncIterator[Backend]:
    """An opened backend, once each."""
    made: Backend
    if request.param == "docker":
        made = DockerBackend(
            home, url=request.getfixturevalue("docker_engine"), image=request.getfixturevalue("worker_image")
        )
    else:
        made = LocalBackend()
    try:
        await made.open()
    except NoWorker as error:
        unavailable(f"{error.message} {error.fix}")
    yield made
    await made.close()


@pytest.fixture
def rooms(home: str, backend: Backend) -> AsyncIterator[Path]:
    """The folder of the workers' sockets."""
    folder = rooms_for(home)
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_pool(backend: Backend, rooms: Path) -> OpenPool:
    """Opens a pool of this backend: `async with open_pool(size=2) as pool`."""

    @asynccontextmanager
    async def opened(
        *, profile: Profile | None = None, ready: int | None = None, **rules: object
    ) -> AsyncIterator[Pool]:
        settings = PoolRules(**{"size": 1, **rules})  # type: ignore[arg-type]
        async with Pool(backend, rooms, profile=profile or Profile(cpus=1), rules=settings) as pool:
            await pool.until_ready(settings.size if ready is None else ready)
            yield pool

    return opened


@pytest.fixture
async def run(open_pool: OpenPool) -> AsyncIterator[Callable[..., object]]:
    """Runs code in one warm worker: `result = await run("return a", a=1)`."""
    async with open_pool() as pool:

        async def runs(code: str, timeout: float = 10.0, **inputs: object) -> JobResult:
            return await pool.run(Job(id=uuid4().hex, code=code, inputs=inputs, timeout=timeout), tenant="acme")

        runs.pool = pool  # type: ignore[attr-defined]
        yield runs
