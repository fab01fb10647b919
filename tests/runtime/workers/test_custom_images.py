"""Images of people's own: from packages with a lock, or by a Dockerfile that cannot reach out."""

from __future__ import annotations

import shutil
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.errors import FactoryError
from runtime.workers.backend import Job
from runtime.workers.choose import rooms_for
from runtime.workers.docker import DockerBackend
from runtime.workers.image.layers import ImageError, checked_dockerfile, checked_lock, checked_package
from runtime.workers.pool import Pool, PoolRules
from runtime.workers.profiles import custom

HASH = "--hash=sha256:" + "a" * 64


@pytest.mark.parametrize("package", ["httpx", "httpx>=0.28", "pydantic==2.*", "Flask[async]~=3.0, !=3.0.1", "a.b_c-d"])
def test_a_package_is_a_name_with_versions(package):
    assert checked_package(package) == package


@pytest.mark.parametrize(
    "package",
    [
        "", "-r /etc/passwd", "--index-url=http://evil.example", "git+https://evil.example/x", "./local", "/abs", "x @ file:///etc",
        "http://evil.example/x.whl", "x; os_name", "x\n--pre", "x --global-option=a", "$(id)", "a" * 200,
    ],
)  # fmt: skip
def test_what_is_more_than_that_is_refused(package):
    with pytest.raises(ImageError):
        checked_package(package)


@given(st.text(max_size=60))
def test_no_option_hides_in_a_package(text):
    try:
        taken = checked_package(text)
    except ImageError:
        return
    assert not taken.startswith("-")
    assert not set(taken) & set("\n\r\t;@/\\$`'\"|&")


def test_a_lock_has_versions_and_hashes_and_nothing_else():
    lock = f"# made by hand\nb==2 \\\n    {HASH} \\\n    {HASH}\na==1 {HASH}\n"
    assert checked_lock(lock) == f"a==1 {HASH}\nb==2 {HASH} {HASH}\n"
    for wrong in (
        "",
        "a==1",
        "a>=1 " + HASH,
        f"-r other {HASH}",
        f"--index-url x\na==1 {HASH}",
        "a @ http://x " + HASH,
    ):
        with pytest.raises(ImageError):
            checked_lock(wrong)


def test_a_dockerfile_stays_inside_its_image():
    assert checked_dockerfile("# mine\nFROM whatever\nENV A=1\nRUN echo \\\n  COPY\n") == "ENV A=1\nRUN echo \\\n  COPY"
    for wrong, says in (
        ("COPY /etc /x", "COPY"),
        ("ADD http://x /x", "ADD"),
        ("USER 0", "USER"),
        ("VOLUME /x", "VOLUME"),
        ("ENTRYPOINT x", "ENTRYPOINT"),
        ("ONBUILD RUN x", "ONBUILD"),
        ("RUN --mount=type=bind,from=x x", "option"),
        ("RUN --network=host x", "option"),
        ("RUN --security=insecure x", "option"),
        ("RUN x\nFROM y", "second FROM"),
        ("# syntax=evil/frontend\nRUN x", "how it is read"),
        ("# escape=`\nRUN x", "how it is read"),
        ("FROM x", "no steps"),
    ):
        with pytest.raises(ImageError) as caught:
            checked_dockerfile(wrong)
        assert says in caught.value.message


async def built(backend, **what):
    lines = [line async for line in backend.build(**what)]
    assert lines[-1].progress == 1
    assert all(0 <= line.progress <= 1 for line in lines)
    assert lines[-1].image.startswith("custom:")
    return lines


async def ran(backend, home, image, code):
    rooms = rooms_for(home)
    try:
        async with Pool(backend, rooms, profile=custom("mine", image=image), rules=PoolRules(size=1)) as pool:
            await pool.until_ready(1)
            return await pool.run(Job(id=uuid4().hex, code=code), tenant="acme")
    finally:
        shutil.rmtree(rooms, ignore_errors=True)


@pytest.fixture
async def backend(home, docker_engine, worker_image):
    made = DockerBackend(home, url=docker_engine)
    await made.open()
    yield made
    await made.close()


@pytest.mark.docker
async def test_packages_become_an_image_with_a_lock_that_makes_the_same_again(backend, home):
    first = await built(backend, packages=["typing-inspection"], preload=["typing_inspection"])
    assert "typing-inspection==" in first[-1].lock
    assert "typing_extensions==" in first[-1].lock.replace("-", "_")
    assert any("Step" in line.line for line in first) or len(first) > 1
    again = await built(backend, lock=first[-1].lock, preload=["typing_inspection"])
    assert again[-1].image == first[-1].image
    done = await ran(backend, home, first[-1].image, "import sys\nreturn 'typing_inspection' in sys.modules")
    assert (done.value, done.error) == (True, None)
    await backend.drop(first[-1].image)


@pytest.mark.docker
async def test_a_dockerfile_becomes_an_image_whose_workers_are_as_confined(backend, home):
    (*_, made) = await built(
        backend, dockerfile="FROM anything\nRUN echo hello > /greeting && chmod u+s /bin/true\nENV SECRET=1\n"
    )
    done = await ran(
        backend, home, made.image,
        "import os\nreturn [open('/greeting').read(), os.getuid(), 'SECRET' in os.environ, os.stat('/bin/true').st_mode & 0o6000]",
    )  # fmt: skip
    assert done.value[:2] == ["hello\n", 65534]
    assert done.value[3] == 0
    await backend.drop(made.image)


@pytest.mark.docker
async def test_steps_have_no_network_and_what_fails_says_its_last_words(backend):
    with pytest.raises(FactoryError) as caught:
        await built(
            backend, dockerfile="RUN python3 -c \"import socket; socket.create_connection(('172.17.0.1', 2375), 3)\"\n"
        )
    assert "Network is unreachable" in caught.value.message
    with pytest.raises(FactoryError) as caught:
        await built(backend, packages=["no-such-package-of-anybody-at-all"])
    assert caught.value.fix
    with pytest.raises(FactoryError):
        await built(backend, lock=f"typing-inspection==0.4.2 {HASH}")


@pytest.mark.docker
async def test_an_image_that_was_never_built_starts_no_worker(backend, home):
    with pytest.raises(FactoryError) as caught:
        await backend.have("custom:" + "0" * 12)
    assert "no image" in caught.value.message
