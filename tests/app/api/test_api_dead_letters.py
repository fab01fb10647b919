"""Failed runs over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.api.conftest import Caller, error_of

HALVES: dict[str, Any] = {
    "name": "Halves",
    "nodes": [
        {"id": "go", "type": "trigger.manual"},
        {"id": "set", "type": "action.transform", "settings": {"fields": [{"name": "half", "formula": "total / 2"}]}},
    ],
    "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "set", "target_port": "value"}],
}


@pytest.fixture
async def failed(api: Caller) -> list[str]:
    """Three runs that failed."""
    agent = await api.new(HALVES)
    runs = []
    for _ in range(3):
        run = (await api.post(f"/blueprints/{agent}/runs", json={"input": {"total": "x"}})).json()["id"]
        assert (await api.ended(run))["state"] == "failed"
        runs.append(run)
    return runs


async def test_failed_runs_are_listed_counted_and_told(api: Caller, failed: list[str]) -> None:
    first = (await api.get("/dead-letters?limit=2")).json()
    assert [one["run"]["id"] for one in first["items"]] == [failed[2], failed[1]]
    rest = (await api.get(f"/dead-letters?limit=2&before={first['next']}")).json()
    assert ([one["run"]["id"] for one in rest["items"]], rest["next"]) == ([failed[0]], None)
    category = first["items"][0]["category"]
    tally = (await api.get("/dead-letters/tally")).json()
    assert (tally["total"], tally["categories"], tally["agents"][0]["number"]) == (3, {category: 3}, 3)
    assert (await api.get("/dead-letters?category=rate_limit")).json()["items"] == []
    whole = (await api.get(f"/dead-letters/{failed[0]}")).json()
    assert whole["story"][-1].startswith("Then “")
    assert whole["step_input"] == {"value": {"total": "x"}}
    assert whole["ways"]["again"] == []


async def test_one_is_tried_again_on_other_data(api: Caller, failed: list[str]) -> None:
    answer = await api.post(f"/dead-letters/{failed[0]}/retry", json={"step_input": {"value": {"total": 8}}})
    assert answer.status_code == 202
    assert (await api.ended(answer.json()["id"]))["output"]["half"] == 4
    again = await api.post(f"/dead-letters/{failed[0]}/retry", json={})
    assert (again.status_code, error_of(again)["code"]) == (409, "dead_letter.done")
    answer = await api.post(f"/dead-letters/{failed[1]}/retry", json={"start": "beginning", "input": {"total": 6}})
    assert (await api.ended(answer.json()["id"]))["output"]["half"] == 3


async def test_several_are_dismissed_opened_and_tried_again(api: Caller, failed: list[str]) -> None:
    assert (await api.post("/dead-letters/dismiss", json={"runs": failed, "reason": "A test."})).json() == {
        "dismissed": 3
    }
    assert (await api.get("/dead-letters")).json()["items"] == []
    kept = (await api.get("/dead-letters?state=dismissed")).json()["items"]
    assert {one["reason"] for one in kept} == {"A test."}
    assert (await api.post(f"/dead-letters/{failed[0]}/open")).status_code == 204
    came = (await api.post("/dead-letters/retry", json={"runs": failed[:2], "start": "beginning"})).json()["items"]
    assert [one["error"] is None for one in came] == [True, False]
    await api.ended(came[0]["new_run"])


async def test_what_is_wrong_is_said(api: Caller, failed: list[str]) -> None:
    for body in ({"runs": failed, "reason": ""}, {"runs": [], "reason": "x"}, {"runs": failed, "reason": "x" * 501}):
        assert (await api.post("/dead-letters/dismiss", json=body)).status_code == 422
    assert error_of(await api.get("/dead-letters/run_gone"))["code"] == "not_found"
    answer = await api.post(f"/dead-letters/{failed[0]}/retry", json={"step_input": {"elsewhere": 1}})
    assert (answer.status_code, error_of(answer)["code"]) == (409, "dead_letter.not_editable")
    assert (await api.get("/dead-letters/tally")).json()["total"] == 3
