"""Workers whose kernel is gVisor's, where an engine has it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from runtime.workers.backend import Job, NoWorker, Profile
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.pool import Pool, PoolRules
from tests.conftest import unavailable
from tests.runtime.workers.engines import docker_hosts
from tests.services import Missing

pytestmark = pytest.mark.docker
GVISOR = Profile(runtime="runsc")  # as small as workers usually are


@pytest.fixture
async def engine(worker_image: str, tmp_path: Path) -> AsyncIterator[str]:
    """An engine of our own that has gVisor."""
    found = shutil.which("runsc")
    if found is None:
        # The product does without it, and not every system has it as a package: this one thing may be missing in CI.
        pytest.skip("gVisor is not installed (Debian: apt-get install runsc).")
    # The door of a worker is a socket of ours: without this gVisor lets nobody dial it.
    runtime = tmp_path / "runsc"
    runtime.write_text(f'#!/bin/sh\nexec {found} --host-uds=open --network=none "$@"\n')
    runtime.chmod(0o755)
    try:
        with docker_hosts("gvisor", image=worker_image, options=f"--add-runtime runsc={runtime}") as (host,):
            yield host.url
    except Missing as missing:
        unavailable(str(missing))


async def test_jobs_run_in_a_kernel_of_their_own(engine: str, worker_image: str) -> None:
    home = f"test-{uuid4().hex[:12]}"
    backend = DockerBackend(home, url=engine, image=worker_image)
    await backend.open()
    assert "runsc" in backend.facts["runtimes"]
    rooms = rooms_for(home)
    try:
        async with Pool(backend, rooms, profile=GVISOR, rules=PoolRules(size=1, start_limit=40)) as pool:
            await pool.until_ready(1, timeout=15)
            code = "import os, sys\nreturn [open('/proc/version').read(), os.getuid(), sum(range(10))]"
            done = await pool.run(Job(id="a", code=code), tenant="acme")
            assert done.error is None
            assert "gvisor" in done.value[0].lower() or "4.4.0" in done.value[0]
            assert done.value[1:] == [65534, 45]
            spun = await pool.run(Job(id="b", code="while True: pass", timeout=0.5), tenant="acme")
            assert spun.error is not None
            assert spun.error.kind == "timeout"
            left = await pool.run(Job(id="c", code="import os\nreturn os.listdir('/workspace')"), tenant="acme")
            assert left.value == []
            assert pool.stats().lost == 0
    finally:
        await backend.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(rooms)


async def test_an_engine_without_it_says_how_to_get_it(docker_engine: str, worker_image: str, home: str) -> None:
    backend = DockerBackend(home, url=docker_engine, image=worker_image)
    await backend.open()
    if "runsc" in backend.facts["runtimes"]:
        await backend.close()
        pytest.skip("this engine has gVisor")
    rooms = rooms_for(home)
    try:
        await backend.prepare(rooms / "w")
        with pytest.raises(NoWorker) as caught:
            await backend.start("w", rooms / "w", replace(GVISOR))
        assert "has no runsc" in caught.value.message
        assert caught.value.fix
    finally:
        await backend.close()
        shutil.rmtree(rooms, ignore_errors=True)
