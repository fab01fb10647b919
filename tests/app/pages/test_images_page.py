"""Settings → Worker images: one is built while somebody watches, and what cannot be built is said in a sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from nicegui.testing import User

from nodes.errors import Denied
from runtime.policy import Actor, Role
from storage import tenant
from tests.app.conftest import House, running
from tests.app.pages.conftest import sees


@pytest.fixture
async def docked(tmp_path: Path, docker_engine: str, worker_image: str) -> AsyncIterator[User]:
    """An admin of a factory whose workers are containers."""
    async with running(tmp_path / "home", docker=docker_engine, pool_size=0) as house:
        browser = house.browser()
        await house.set_up(browser)
        yield User(browser)


@pytest.mark.docker
async def test_an_image_is_built_from_packages_while_one_watches(docked: User) -> None:
    await docked.open("/settings/images")
    docked.find(marker="image-packages").type("typing-extensions")
    docked.find(marker="image-build").click()
    await sees(docked, "is ready.", seconds=60)
    await docked.should_see("FACTORY_WORKER_SIZES=mine:like=medium,image=custom:")
    await docked.should_see("typing_extensions==")
    await docked.should_see("Locked 1 packages")


@pytest.mark.docker
async def test_what_is_no_package_is_refused_in_words(docked: User) -> None:
    await docked.open("/settings/images")
    docked.find(marker="image-packages").type("--index-url=http://evil.example")
    docked.find(marker="image-build").click()
    await sees(docked, "is no package", seconds=30)


async def test_without_docker_it_says_what_to_install(house: House, admin: User) -> None:
    await admin.open("/settings/images")
    admin.find(marker="image-packages").type("httpx")
    admin.find(marker="image-build").click()
    await sees(admin, "Images are made by a Docker engine, and there is none.", seconds=30)


async def test_it_is_an_admins_business(house: House, person: Callable[[Role], Awaitable[User]]) -> None:
    developer = await person(Role.DEVELOPER)
    await developer.open("/settings/limits")
    await developer.should_not_see("Worker images")


async def test_only_the_team_that_runs_the_installation_makes_images(house: House, admin: User) -> None:
    await house.factory.db.write_all(lambda session: tenant.add(session, "later", name="Later", at=4e9))
    stranger = Actor("later", "usr_9", "Mallory", Role.ADMIN)
    with pytest.raises(Denied, match="the team that runs this installation"):
        async for _ in house.factory.fleet_desk.build_image(stranger, dockerfile="RUN true"):
            pass
