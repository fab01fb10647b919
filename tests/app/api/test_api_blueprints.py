"""Blueprints over HTTP: drafts with revisions, versions, differences, the bin, export and import, checks, deploying."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from nodes.blueprint import Blueprint, json_schema
from tests.app.api.conftest import MANUAL, Caller, error_of
from tests.app.conftest import House

HOOK: dict[str, Any] = {
    "name": "Hooked",
    "nodes": [
        {"id": "in", "type": "trigger.webhook", "settings": {"path": "orders"}},
        {"id": "out", "type": "action.respond", "settings": {"body": "text", "text": "thanks"}},
    ],
    "edges": [{"id": "e", "source": "in", "source_port": "body", "target": "out", "target_port": "value"}],
}


async def test_a_draft_is_made_read_changed_and_listed(api: Caller) -> None:
    made = await api.post("/blueprints", json=MANUAL)
    id = made.json()["id"]
    assert made.headers["location"] == f"/api/v1/blueprints/{id}"
    assert made.headers["etag"] == '"1"'
    got = await api.get(f"/blueprints/{id}")
    assert got.json() == made.json()
    assert Blueprint.parse(orjson.dumps(got.json()["blueprint"])) == Blueprint.parse(MANUAL)
    saved = await api.put(
        f"/blueprints/{id}", json={**MANUAL, "name": "Loud"}, headers={"If-Match": got.headers["etag"]}
    )
    assert (saved.json(), saved.headers["etag"]) == ({"revision": 2}, '"2"')
    listed = (await api.get("/blueprints")).json()["items"]
    assert [(one["id"], one["name"], one["revision"], one["triggers"]) for one in listed] == [
        (id, "Loud", 2, ["Run by hand"])
    ]


async def test_two_people_who_save_at_once_do_not_overwrite_each_other(api: Caller) -> None:
    id = await api.new()
    answers = await asyncio.gather(
        *(api.put(f"/blueprints/{id}?revision=1", json={**MANUAL, "name": f"Number {n}"}) for n in range(8))
    )
    assert sorted(one.status_code for one in answers) == [200] + [409] * 7
    won = next(n for n, one in enumerate(answers) if one.status_code == 200)
    draft = (await api.get(f"/blueprints/{id}")).json()
    assert (draft["revision"], draft["blueprint"]["name"]) == (2, f"Number {won}")


async def test_a_change_has_to_say_what_it_changes(api: Caller) -> None:
    id = await api.new()
    for headers in ({}, {"If-Match": ""}, {"If-Match": "*"}, {"If-Match": '"one"'}):
        answer = await api.put(f"/blueprints/{id}", json=MANUAL, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (428, "request.revision")
    for tag in ('"1"', 'W/"2"', "3"):
        assert (await api.put(f"/blueprints/{id}", json=MANUAL, headers={"If-Match": tag})).status_code == 200


async def test_versions_are_kept_compared_and_gone_back_to(api: Caller) -> None:
    id = await api.new()
    assert (await api.post(f"/blueprints/{id}/versions", json={"note": "first"})).json()["number"] == 1
    changed = {**MANUAL, "nodes": [MANUAL["nodes"][0]], "edges": []}
    await api.put(f"/blueprints/{id}?revision=1", json=changed)
    difference = (await api.get(f"/blueprints/{id}/diff", params={"from": "1"})).json()["changes"]
    assert {(one["what"], one["part"], one["id"]) for one in difference} == {
        ("removed", "nodes", "set"),
        ("removed", "edges", "e"),
    }
    back = await api.post(f"/blueprints/{id}/restore", json={"version": 1})
    assert back.headers["etag"] == '"3"'
    assert Blueprint.parse(orjson.dumps(back.json()["blueprint"])) == Blueprint.parse(MANUAL)
    numbers = [(one["number"], one["note"]) for one in (await api.get(f"/blueprints/{id}/versions")).json()["items"]]
    assert numbers == [(2, "Before going back to version 1"), (1, "first")]
    second = (await api.get(f"/blueprints/{id}/versions/2")).json()
    assert Blueprint.parse(orjson.dumps(second["blueprint"])).content_hash == second["content_hash"]
    same = (await api.get(f"/blueprints/{id}/diff", params={"from": "1", "to": "draft"})).json()
    assert same == {"changes": []}
    assert (await api.get(f"/blueprints/{id}/versions/3")).status_code == 404


async def test_what_is_deleted_lies_in_the_bin(api: Caller) -> None:
    id = await api.new()
    assert (await api.delete(f"/blueprints/{id}")).status_code == 204
    assert (await api.get(f"/blueprints/{id}")).status_code == 404
    assert (await api.get("/blueprints")).json()["items"] == []
    assert [one["id"] for one in (await api.get("/blueprints?deleted=true")).json()["items"]] == [id]
    assert (await api.post(f"/blueprints/{id}/undelete")).status_code == 204
    assert (await api.get(f"/blueprints/{id}")).status_code == 200


async def test_an_exported_document_can_be_imported_as_it_is(api: Caller) -> None:
    id = await api.new({**MANUAL, "name": 'Ümlaut "quoted"\r\nX: y'})
    file = await api.get(f"/blueprints/{id}/export")
    assert file.headers["content-disposition"] == 'attachment; filename="mlaut--quoted---x--y.json"'
    made = await api.post("/blueprints", content=file.content, headers={"Content-Type": "application/json"})
    assert made.status_code == 201
    again = await api.get(f"/blueprints/{made.json()['id']}/export")
    assert again.content == file.content
    await api.post(f"/blueprints/{id}/versions")
    assert (await api.get(f"/blueprints/{id}/export?version=1")).content == file.content


async def test_what_is_not_installed_here_survives_import_and_export(api: Caller) -> None:
    strange = {"name": "x", "nodes": [{"id": "a", "type": "their.node", "settings": {"deep": [{"k": 1}]}}]}
    id = await api.new(strange)
    node = (await api.get(f"/blueprints/{id}/export")).json()["nodes"][0]
    assert (node["type"], node["settings"]) == ("their.node", {"deep": [{"k": 1}]})
    assert (await api.get(f"/blueprints/{id}/check")).json()["ok"] is False


async def test_a_document_is_checked_without_being_kept(api: Caller) -> None:
    good = (await api.post("/check", json=MANUAL)).json()
    assert good["ok"] is True
    bad = {**MANUAL, "nodes": [MANUAL["nodes"][0], {**MANUAL["nodes"][1], "settings": {"fields": "none"}}]}
    found = (await api.post("/check", json=bad)).json()
    assert found["ok"] is False
    first = found["findings"][0]
    assert (first["severity"], first["node"]) == ("error", "set")
    assert first["sentence"] and first["fix"]
    assert (await api.get("/blueprints")).json()["items"] == []


async def test_the_checks_know_which_secrets_there_are(api: Caller) -> None:
    settings = {"url": "https://example.com", "auth": "bearer", "secret": "shop-key"}
    id = await api.new({"name": "x", "nodes": [{"id": "a", "type": "context.http_request", "settings": settings}]})

    async def missing() -> list[dict[str, Any]]:
        found = (await api.get(f"/blueprints/{id}/check")).json()["findings"]
        return [one for one in found if "shop-key" in one["sentence"]]

    before = await missing()
    await api.put("/secrets/shop-key", json={"value": "x"})
    assert (len(before), len(await missing())) == (1, 0), before


async def test_deploying_paused_resumed_rolled_back_and_stopped(house: House, api: Caller) -> None:
    id = await api.new(HOOK)
    live = (await api.post(f"/blueprints/{id}/deploy", json={"note": "go"})).json()
    assert (live["state"], live["version"], live["addresses"]) == ("active", 1, ["/hooks/orders"])
    called = await house.browser().post("/hooks/orders", json={"total": 1})
    assert called.status_code < 300
    assert (await api.delete(f"/blueprints/{id}")).status_code == 409
    await api.put(f"/blueprints/{id}?revision=1", json={**HOOK, "name": "Second"})
    assert (await api.post(f"/blueprints/{id}/deploy")).json()["version"] == 2
    address = f"/deployments/{live['id']}"
    assert (await api.post(f"{address}/pause")).json()["state"] == "paused"
    called = await house.browser().post("/hooks/orders", json={})
    assert (called.status_code, called.headers["retry-after"]) == (503, "5")
    refused = await api.post(f"{address}/pause")
    assert (refused.status_code, error_of(refused)["code"]) == (409, "deploy.state")
    assert (await api.post(f"{address}/resume")).json()["state"] == "active"
    assert (await api.post(f"{address}/rollback")).json()["version"] == 1
    assert (await api.get("/deployments")).json()["items"][0]["id"] == live["id"]
    assert (await api.post(f"{address}/stop")).json()["state"] == "stopped"
    assert (await house.browser().post("/hooks/orders", json={})).status_code == 404


async def test_what_keeps_an_agent_from_being_deployed_is_listed(api: Caller) -> None:
    id = await api.new({"name": "x", "nodes": [{"id": "a", "type": "no.such"}, {"id": "b", "type": "trigger.webhook"}]})
    answer = await api.post(f"/blueprints/{id}/deploy")
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (422, "deploy.checks")
    assert error["findings"][0]["node"] == "a"
    assert (await api.get("/deployments")).json()["items"] == []
    assert (await api.get(f"/blueprints/{id}/versions")).json()["items"] == []


async def test_the_schema_is_that_of_the_document(api: Caller) -> None:
    assert (await api.get("/blueprints/schema")).json() == json_schema()


@pytest.mark.parametrize("change", [{"nodes": [{"id": "a"}]}, {"nodes": [{"id": "a", "type": "x"}] * 2}, {"format": 2},
                                    {"edges": [{"id": "e", "source": "q", "source_port": "a", "target": "q", "target_port": "b"}]},
                                    {"name": " "}, {"tenant_id": "other"}])  # fmt: skip
async def test_a_document_that_is_none_is_refused_and_the_draft_stays(api: Caller, change: dict[str, Any]) -> None:
    id = await api.new()
    before = (await api.get(f"/blueprints/{id}")).text
    answer = await api.put(f"/blueprints/{id}?revision=1", json={**MANUAL, **change})
    assert answer.status_code == 422
    assert error_of(answer)["code"].startswith("blueprint.")
    assert (await api.get(f"/blueprints/{id}")).text == before


async def test_a_draft_and_a_version_can_be_had_as_python(api: Caller) -> None:
    id = await api.new(HOOK)
    await api.post(f"/blueprints/{id}/versions")
    for query in ("", "?version=1"):
        got = await api.get(f"/blueprints/{id}/python{query}")
        assert got.status_code == 200
        assert got.headers["content-type"] == "text/x-python; charset=utf-8"
        assert "def run(event: Any = None) -> Any:" in got.text
    call = {"id": "x", "type": "flow.call_blueprint", "settings": {"blueprint": id}}
    calling = await api.new({"name": "Other", "nodes": [call]})
    text = (await api.get(f"/blueprints/{calling}/python")).text
    assert "async def hooked(event: Any, calls: Calls, world: World) -> Any:" in text
    call["settings"] = {"blueprint": "bp_1"}
    again = await api.new({"name": "Other", "nodes": [call]})
    refused = await api.get(f"/blueprints/{again}/python")
    assert refused.status_code == 422
    assert error_of(refused)["code"] == "compile.refused"
    assert error_of(refused)["where"] == {"node": "x"}
