"""What every test may ask for: a Docker engine with the worker image, databases, a browser; and how hypothesis behaves.

Without CI a test whose service is missing is skipped with the reason. With CI=true it fails: a green run has run it all.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import hypothesis
import pytest

from runtime.workers.image.build import ensure_image
from tests import services
from tests.databases import laid_out, postgres_template

hypothesis.settings.register_profile("dev", max_examples=60, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("deep", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if services.IN_CI else "dev"))

# A developer's own settings must not decide what a test sees.
for _name in [name for name in os.environ if name.startswith("FACTORY_")]:
    if not _name.startswith(("FACTORY_TEST_", "FACTORY_SHOTS", "FACTORY_SOAK", "FACTORY_FUZZ")):
        del os.environ[_name]


def unavailable(reason: str) -> None:
    """This test cannot run here: a failure in CI, else skipped."""
    if services.IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """The address of a Docker engine that answers."""
    if not services.docker_answers():
        unavailable("No Docker engine answers; `make test` starts one.")
    return services.docker_url()


@pytest.fixture(scope="session")
def worker_image(docker_engine: str) -> str:
    """The tag of the worker image, made if this engine does not have it yet."""
    return ensure_image(docker_engine)


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The Chromium that Playwright drives."""
    path = services.chromium()
    if path is None:
        unavailable("Chromium is not installed; `make test` says how.")
    assert path
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server: that of `make test`, else one of our own for this session."""
    if url := os.environ.get("FACTORY_TEST_DATABASE_URL"):
        yield url
        return
    try:
        with services.postgres_server() as url:
            yield url
    except services.Missing as missing:
        unavailable(str(missing))


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The address of a PostgreSQL database for this test alone: all tables, and nothing in them."""
    async with _postgres_database(postgres_server, postgres_template(postgres_server)) as url:
        yield url


@pytest.fixture
async def bare_postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The same without tables."""
    async with _postgres_database(postgres_server, "template1") as url:
        yield url


@asynccontextmanager
async def _postgres_database(postgres_server: str, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex}"
    server, _, database = postgres_server.rpartition("/")
    plain = f"{server.replace('+asyncpg', '')}/{database}"
    connection = await asyncpg.connect(plain)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield f"{server}/{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The address of a Redis server of our own for this session."""
    try:
        with services.redis_server() as url:
            yield url
    except services.Missing as missing:
        unavailable(str(missing))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database with all tables and nothing in them; a test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return laid_out(f"sqlite:///{tmp_path / 'factory.db'}")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def bare_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same without tables."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("bare_postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'factory.db'}"
