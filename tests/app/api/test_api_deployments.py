"""Deployments over HTTP: environments, cases, variables, holding calls, and the stream that says how one is doing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from app.api import deployments as module
from tests.app.api.conftest import Caller, error_of
from tests.app.conftest import URL, House

HOOK: dict[str, Any] = {
    "name": "Hook",
    "nodes": [
        {"id": "in", "type": "trigger.webhook", "settings": {"path": "orders", "respond": "end"}},
        {
            "id": "say",
            "type": "context.set_values",
            "settings": {"values": [{"name": "by", "value": "{{ vars.sender }}"}]},
        },
    ],
    "edges": [{"id": "e", "source": "in", "source_port": "body", "target": "say", "target_port": "value"}],
}


async def call(house: House, path: str, body: Any = None) -> httpx.Response:
    return await house.browser().post(f"{URL}/hooks/{path}", json=body or {})


async def deployed(api: Caller, **where: str) -> tuple[str, dict[str, Any]]:
    await api.put("/variables/sender", json={"value": "everybody"})
    id_ = await api.new(HOOK)
    answer = await api.post(f"/blueprints/{id_}/deploy", json=where)
    assert answer.status_code == 200, answer.text
    return id_, answer.json()


async def test_test_and_live_answer_at_two_addresses_with_their_own_values(house: House, api: Caller) -> None:
    id_, live = await deployed(api)
    test = (await api.post(f"/blueprints/{id_}/deploy", json={"environment": "test"})).json()
    assert (live["environment"], live["addresses"]) == ("live", ["/hooks/orders"])
    assert (test["environment"], test["addresses"], test["clocks"]) == ("test", ["/hooks/test/orders"], False)
    kept = await api.put("/variables/sender", json={"value": "a tester", "environment": "test"})
    assert (kept.json()["environment"], kept.json()["value"]) == ("test", "a tester")
    assert (await call(house, "orders")).json()["by"] == "everybody"
    assert (await call(house, "test/orders")).json()["by"] == "a tester"
    runs = (await api.get("/runs")).json()["items"]
    assert sorted(run["environment"] for run in runs) == ["live", "test"]
    assert [(one["name"], one["environment"]) for one in (await api.get("/variables")).json()["items"]] == [
        ("sender", "both"),
        ("sender", "test"),
    ]
    assert (await api.delete("/variables/sender?environment=test")).status_code == 204
    assert (await call(house, "test/orders")).json()["by"] == "everybody"


async def test_secrets_say_where_they_count(api: Caller) -> None:
    for environment in ("live", "test", "both"):
        body = {"value": "s3cret", "environment": environment}
        assert (await api.put("/secrets/key", json=body)).status_code == 204
    found = (await api.get("/secrets")).json()["items"]
    assert sorted(one["environment"] for one in found) == ["both", "live", "test"]
    assert "s3cret" not in json.dumps(found)
    assert (await api.delete("/secrets/key?environment=test")).status_code == 204
    assert (await api.delete("/secrets/key?environment=test")).status_code == 404
    assert (await api.delete("/secrets/key")).status_code == 204
    assert (await api.get("/secrets")).json()["items"] == []


async def test_a_paused_agent_holds_calls_when_it_is_asked_to(house: House, api: Caller) -> None:
    _, live = await deployed(api)
    at = f"/deployments/{live['id']}"
    assert (await api.post(f"{at}/pause")).json()["hold"] is False
    assert (await call(house, "orders")).status_code == 503
    assert (await api.post(f"{at}/pause", json={"hold": True})).json()["hold"] is True
    held = await call(house, "orders", {"number": 1})
    assert (held.status_code, held.json()["state"]) == (202, "held")
    assert (await api.get(at)).json()["held"] == 1
    refused = await api.post(f"{at}/stop")
    assert (refused.status_code, error_of(refused)["code"]) == (409, "deploy.held")
    assert (await api.post(f"{at}/resume")).json()["state"] == "active"
    async with asyncio.timeout(10):
        while (await api.get(f"/runs/{held.json()['run']}")).status_code != 200:
            await asyncio.sleep(0.01)
    assert (await api.post(f"{at}/stop", json={"drop_held": True})).json()["state"] == "stopped"


async def test_cases_keep_an_agent_from_going_live(api: Caller) -> None:
    id_, _ = await deployed(api, environment="test")
    case = {"name": "Who", "input": {"body": {}, "query": {}, "headers": {}, "method": "POST"}, "formula": 'by == "me"'}
    kept = await api.post(f"/blueprints/{id_}/cases", json=case)
    assert kept.status_code == 201, kept.text
    report = (await api.post(f"/blueprints/{id_}/cases/run")).json()
    assert (report["passed"], report["results"][0]["why"]) == (False, 'The result is not as expected: “by == "me"”.')
    refused = await api.post(f"/blueprints/{id_}/deploy")
    assert (refused.status_code, error_of(refused)["code"]) == (422, "deploy.cases")
    assert error_of(refused)["cases"][0]["name"] == "Who"
    anyway = await api.post(f"/blueprints/{id_}/deploy", json={"anyway": "Only the words differ"})
    assert "Only the words differ" in anyway.json()["waiver"]
    changed = await api.put(f"/blueprints/{id_}/cases/{kept.json()['id']}", json=case | {"formula": ""})
    assert changed.json()["formula"] == ""
    assert (await api.post(f"/blueprints/{id_}/cases/run")).json()["passed"] is True
    assert (await api.delete(f"/blueprints/{id_}/cases/{kept.json()['id']}")).status_code == 204
    assert (await api.get(f"/blueprints/{id_}/cases")).json()["items"] == []


async def test_the_stream_tells_how_it_is_doing_until_it_is_stopped(house: House, api: Caller) -> None:
    house.factory.statuses.pause = 0
    _, live = await deployed(api)
    at = f"/deployments/{live['id']}"
    await call(house, "orders")
    assert (await api.get(f"{at}/status")).json()["succeeded"] == 1
    reading = asyncio.ensure_future(api.get(f"{at}/events"))
    async with asyncio.timeout(10):
        while not house.factory.bus.watched((await who(house)).tenant, ("deployments",)):
            await asyncio.sleep(0)
        await api.post(f"{at}/pause", json={"hold": True})
        await api.post(f"{at}/stop")
        answer = await reading
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert set(module.StatusShown.model_fields) == set(told[0])
    assert (told[0]["state"], told[0]["succeeded"], told[0]["success_share"]) == ("active", 1, 1.0)
    assert told[-1]["state"] == "stopped"


async def who(house: House) -> Any:
    tenant = await house.auth.first_tenant()
    return type("Who", (), {"tenant": tenant})


async def test_a_stream_of_what_is_not_there_is_refused(api: Caller) -> None:
    for part in ("", "/status", "/events"):
        assert (await api.get(f"/deployments/dep_none{part}")).status_code == 404
