"""Two teams in one database: whatever one asks for, of the other it gets nothing, not even that something is there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest

from nodes.blueprint import Blueprint
from runtime.policy import Actor
from tests.app.api.conftest import ASKING, MANUAL, Caller, error_of
from tests.app.api.test_api_roles import entries
from tests.app.conftest import URL, House

CANARY = "canary"


@pytest.fixture
async def theirs(house: House, neighbour: Callable[[str], Awaitable[Actor]]) -> dict[str, str]:
    """Everything that another team can have, marked so that it can be recognised anywhere; the ids of it."""
    who = await neighbour(CANARY)
    factory = house.factory
    text = orjson.dumps({**MANUAL, "name": f"{CANARY} agent"}).decode().replace("double", CANARY)
    draft = await factory.blueprints.create(who, Blueprint.parse(text))
    await factory.blueprints.snapshot(who, draft.id, CANARY)
    live = await factory.deployments.deploy(who, draft.id, note=CANARY)
    run = await factory.runs.start(who, draft.id, {CANARY: 1})
    test = await factory.sandbox.start(who, draft.blueprint, {CANARY: 1}, trigger="go")
    asking = await factory.blueprints.create(who, Blueprint.parse({**ASKING, "name": f"{CANARY} asks"}))
    asked = await factory.runs.start(who, asking.id, {CANARY: 2})
    for id in (run, test, asked):
        await factory.runs.wait(who, id, 10)
    await factory.vault.put(who, CANARY, f"{CANARY} value")
    await factory.shelves.put_file(who, f"{CANARY}.txt", CANARY.encode(), "text/plain")
    await factory.shelves.append_rows(who.tenant, CANARY, [{CANARY: 1}])
    await house.door.outer.state.people.make_token(who, name=CANARY, role=who.role)
    approval = (await factory.approvals.list(who))[0].id
    crew = await factory.crews.assemble(who, {"id": CANARY, "members": [{"role": CANARY, "blueprint": asking.id}]})
    await settled(factory, who)
    return {
        "blueprint": draft.id,
        "asking": asking.id,
        "run": run,
        "test": test,
        "asked": asked,
        "deployment": live.id,
        "approval": approval,
        "crew": crew.id,
        "person": who.id,
        "token": (await house.door.outer.state.people.tokens(who))[0].id,
        "secret": CANARY,
        "file": f"{CANARY}.txt",
        "table": CANARY,
    }


BODIES: dict[str, Any] = {
    "/sandbox": {"blueprint": "ID"},
    "/approvals/{id}": {"approve": True},
    "/blueprints/{id}/restore": {"version": 1},
    "/people/{id}": {"role": "viewer"},
    "/secrets/{name}": {"value": "mine"},
    "/blueprints/{id}/cases": {"name": "mine", "input": 1},
    "/blueprints/{id}/cases/{case}": {"name": "mine", "input": 1},
    "/deployments/{id}/clocks": {"on": True},
    "/crews/{id}/members": {"role": "mine", "code": "pass"},
    "/crews/{id}/members/{member}": {"role": "mine", "code": "pass"},
    "/dead-letters/{id}/retry": {"start": "beginning"},
    "/dead-letters/retry": {"runs": ["ID"]},
    "/dead-letters/dismiss": {"runs": ["ID"], "reason": "mine"},
}


async def call(api: Caller, method: str, path: str, id: str) -> httpx.Response:
    """A call of a route that is right but for whose id it is."""
    address = re.sub(r"\{(\w+)\}", lambda found: "1" if found[1] == "number" else id, path)
    body = orjson.loads(orjson.dumps(BODIES.get(path.removeprefix("/api/v1"), {})).replace(b"ID", id.encode()))
    if path.endswith("/blueprints/{id}") and method == "PUT":
        body = MANUAL
    query = {"name": id, "table": id, "revision": "1", "from": "1", "blueprint": id, "run": id, "before": id}
    return await api.request(
        method, URL + address, params=query, **({"json": body} if method in ("POST", "PUT", "PATCH") else {})
    )


async def test_of_another_team_nothing_is_there_through_any_route(
    house: House, api: Caller, theirs: dict[str, str]
) -> None:
    await api.new()
    told: list[Any] = []
    for method, path, _ in entries(house):
        if path == "/api/v1/auth/logout":
            continue
        for what, id in theirs.items():
            answer = await call(api, method, path, id)
            own = answer.text.replace(id, "")
            if CANARY in own and not (what in ("secret", "file", "table") and CANARY in id):
                told.append((method, path, what, answer.text[:200]))
            if answer.status_code >= 500:
                told.append((method, path, what, answer.status_code))
    assert told == []


async def test_an_id_of_another_team_looks_like_one_that_never_was(
    house: House, api: Caller, theirs: dict[str, str]
) -> None:
    fits = {
        "blueprints": ("blueprint", "asking"), "runs": ("run", "test", "asked"), "deployments": ("deployment",),
        "approvals": ("approval",), "dead-letters": ("run",), "people": ("person",), "auth": ("token",), "secrets": ("secret",),
        "crews": ("crew",),
    }  # fmt: skip
    for method, path, _ in entries(house):
        kind = path.split("/")[3] if path.count("/") > 2 else ""
        if "{" not in path or kind not in fits or (kind == "secrets" and method == "PUT"):
            continue
        for what in fits[kind]:
            id = theirs[what]
            nowhere = id[:-4] + "0000" if "_" in id else "nowhere"
            real, never = await call(api, method, path, id), await call(api, method, path, nowhere)
            assert real.status_code == 404, (method, path, what, real.text)
            assert error_of(real)["code"] == "not_found"
            assert real.text.replace(id, "ID") == never.text.replace(nowhere, "ID"), (method, path)
            assert dict(real.headers) == dict(never.headers) | {"content-length": real.headers["content-length"]}


async def test_what_is_theirs_is_untouched_after_all_that(house: House, api: Caller, theirs: dict[str, str]) -> None:
    who = await actor_of(house, theirs["person"])
    factory = house.factory
    before = await everything(factory, who, theirs)
    for method, path, _ in entries(house):
        if path != "/api/v1/auth/logout":
            for id in theirs.values():
                await call(api, method, path, id)
    assert await everything(factory, who, theirs) == before


async def test_answers_do_not_depend_on_what_others_have(
    house: House, api: Caller, neighbour: Callable[[str], Awaitable[Actor]]
) -> None:
    paths = [path for method, path, _ in entries(house) if method == "GET" and "{" not in path]
    before = {path: (await api.get(URL + path)).text for path in paths}
    who = await neighbour("other")
    draft = await house.factory.blueprints.create(who, Blueprint.parse(MANUAL))
    await house.factory.runs.start(who, draft.id, {"total": 1})
    assert {path: (await api.get(URL + path)).text for path in paths} == before


async def test_the_same_names_are_two_things(house: House, api: Caller, theirs: dict[str, str]) -> None:
    assert (await api.put(f"/secrets/{CANARY}", json={"value": "mine"})).status_code == 204
    upload = await api.post("/files", files={"file": (theirs["file"], b"mine", "text/plain")})
    assert upload.status_code == 201
    assert (await api.get("/files/content", params={"name": theirs["file"]})).content == b"mine"
    who = await actor_of(house, theirs["person"])
    assert await house.factory.shelves.file(who, theirs["file"]) == CANARY.encode()
    assert await house.factory.vault.reveal(who.tenant, CANARY) == f"{CANARY} value"


async def actor_of(house: House, person: str) -> Actor:
    found = await house.auth._accounts.person(f"tenant_{CANARY}", person)
    assert found is not None
    return found.actor


async def settled(factory: Any, who: Actor) -> None:
    """Return once no run of a team moves by itself any more: each has ended, or waits for somebody; the crew's too."""
    async with asyncio.timeout(30):
        while len(runs := await factory.runs.list(who)) < 3 or any(
            run.state in ("accepted", "running") for run in runs
        ):
            await asyncio.sleep(0.02)


async def everything(factory: Any, who: Actor, ids: dict[str, str]) -> list[Any]:
    """All that a team has."""
    return [
        await factory.blueprints.list(who),
        await factory.blueprints.versions(who, ids["blueprint"]),
        await factory.deployments.list(who),
        await factory.runs.list(who),
        await factory.approvals.list(who),
        [(crew.id, crew.state, len(crew.members)) for crew in await factory.crews.list(who)],
        await factory.vault.names(who),
        await factory.shelves.files(who),
        await factory.shelves.tables(who),
        await factory.preferences.model(who),
    ]
