"""Puts agents live in a data folder before `factory serve` starts on it, as tests need them that are not about deploying."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from nodes.blueprint import Blueprint

TENANT = "tenant_tests"


def deploy(home: Path, blueprints: Sequence[Blueprint], database_url: str | None = None) -> None:
    """Deploy the blueprints for one tenant. In a process of its own, since the folder belongs to one server at a time."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        documents = [blueprint.canonical() for blueprint in blueprints]
        process.submit(_deploy, home, documents, database_url).result()


def _deploy(home: Path, documents: Sequence[bytes], database_url: str | None) -> None:
    asyncio.run(_deploy_all(home, documents, database_url))


async def _deploy_all(home: Path, documents: Sequence[bytes], database_url: str | None) -> None:
    from app.main import factory_options
    from app.settings import Settings
    from runtime.factory import Factory
    from runtime.policy import Actor, Role

    who = Actor(TENANT, "usr_tests", "Tests", Role.ADMIN)
    options = factory_options(Settings(home=home, docker="off", pool_size=0, database_url=database_url), ticking=False)
    async with Factory(options) as factory:
        for document in documents:
            draft = await factory.blueprints.create(who, Blueprint.parse(document))
            await factory.deployments.deploy(who, draft.id)
