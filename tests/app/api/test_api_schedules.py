"""Schedules over HTTP: what comes next, what came, and holding one."""

from __future__ import annotations

from typing import Any

from tests.app.api.conftest import Caller, error_of

DAILY: dict[str, Any] = {
    "name": "Daily",
    "nodes": [
        {
            "id": "at",
            "type": "trigger.schedule",
            "settings": {"mode": "every", "every": 1, "unit": "days", "at": "09:00", "time_zone": "Europe/Berlin"},
        }
    ],
}


async def test_a_schedule_tells_what_comes_and_is_held(api: Caller) -> None:
    agent = await api.new(DAILY)
    deployed = await api.post(f"/blueprints/{agent}/deploy", json={})
    assert deployed.status_code in (200, 201), deployed.text
    [found] = (await api.get("/schedules", params={"deployment": deployed.json()["id"]})).json()["items"]
    assert found["words"] == "Every day at 09:00, Berlin time"
    assert len(found["upcoming"]) == 10 and all(words.endswith("09:00") for words in found["upcoming"])
    assert (found["held"], found["history"]) == (False, [])
    held = await api.post(f"/schedules/{found['id']}/hold", json={})
    assert (held.status_code, held.json()["held"]) == (200, True)
    assert (await api.post(f"/schedules/{found['id']}/resume", json={})).json()["held"] is False
    unknown = await api.post("/schedules/sch_none/hold", json={})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "not_found")


async def test_what_else_starts_an_agent_is_told_with_its_deployment(api: Caller) -> None:
    nodes = [{"id": "in", "type": "trigger.row_added", "settings": {"table": "orders"}}]
    agent = await api.new({"name": "Follows", "nodes": nodes})
    deployed = await api.post(f"/blueprints/{agent}/deploy", json={})
    assert deployed.json()["events"] == ["A row was added: to “orders”"]
