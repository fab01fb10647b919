"""Limits over HTTP: what holds, who may lower it, and what a request meets then."""

from __future__ import annotations

from runtime.ledger import Payer
from runtime.limits import LIMITS
from tests.app.api.conftest import Caller, error_of
from tests.app.conftest import House


async def test_a_team_sees_its_limits_and_lowers_one(api: Caller) -> None:
    found = {one["name"]: one for one in (await api.get("/settings/limits")).json()["items"]}
    assert set(found) == set(LIMITS) and found["concurrent_runs"]["used"] == 0
    lowered = await api.put("/settings/limits/graph_nodes", json={"value": 1})
    assert (lowered.status_code, lowered.json()["value"], lowered.json()["lowered"]) == (200, 1, True)
    nodes = [{"id": id_, "type": "trigger.manual"} for id_ in "ab"]
    refused = await api.post("/blueprints", json={"name": "Two", "nodes": nodes})
    assert (refused.status_code, error_of(refused)["code"]) == (422, "limit.graph_nodes")
    assert "2 nodes" in error_of(refused)["message"] and error_of(refused)["fix"]
    back = await api.put("/settings/limits/graph_nodes", json={"value": None})
    assert back.json()["lowered"] is False


async def test_what_cannot_be_lowered_says_why(api: Caller) -> None:
    for name, value, status in (
        ("graph_nodes", 501, 422),
        ("graph_nodes", -1, 422),
        ("nesting", 3, 422),
        ("happiness", 3, 404),
    ):
        answer = await api.put(f"/settings/limits/{name}", json={"value": value})
        assert answer.status_code == status and error_of(answer)["message"]


async def test_a_request_brings_as_much_as_the_team_lets_it(api: Caller) -> None:
    most = 3_000
    assert (await api.put("/settings/limits/request_bytes", json={"value": most})).status_code == 200
    for size in (most, most + 1, most * 100):
        body = b'{"value": "' + b"x" * (size - 13) + b'"}'
        answer = await api.put("/settings/limits/retries", content=body, headers={"content-type": "application/json"})
        if size > most:
            assert (answer.status_code, error_of(answer)["code"]) == (413, "request.too_large")
            assert "2.93 KiB" in error_of(answer)["message"]
        else:
            assert len(body) == most and answer.status_code == 422, "read, and found to be no number"


async def test_too_many_runs_are_refused_with_the_time_to_come_again(house: House, api: Caller) -> None:
    agent = await api.new()
    for name in ("concurrent_runs", "queue_depth"):
        await api.put(f"/settings/limits/{name}", json={"value": 1})
    queue, [tenant] = house.factory.engine.queue, {tenant for tenant, _ in house.factory.limits._lowered}
    assert queue.reserve(tenant) and queue.reserve(tenant)
    refused = await api.post(f"/blueprints/{agent}/runs", json={"input": {"total": 1}})
    assert (refused.status_code, error_of(refused)["code"]) == (429, "limit.queue")
    assert int(refused.headers["retry-after"]) > 0 and error_of(refused)["fix"]
    assert (await api.get("/runs")).json()["items"] == []
    queue.withdraw(tenant)
    assert (await api.post(f"/blueprints/{agent}/runs", json={"input": {"total": 1}})).status_code in (201, 202)


async def test_a_team_sees_what_its_models_cost_and_sets_budgets(house: House, api: Caller) -> None:
    lowered = await api.put("/settings/limits/day_money", json={"value": 2_000_000})
    assert (lowered.json()["value"], lowered.json()["unit"], lowered.json()["used"]) == (2_000_000, "micro-dollars", 0)
    refused = await api.put("/settings/limits/day_money", json={"value": 51_000_000})
    assert refused.status_code == 422 and "between $0.00 and $50.00" in error_of(refused)["message"]
    [tenant] = {tenant for tenant, _ in house.factory.limits._lowered}
    held = await house.factory.ledger.hold(Payer(tenant, agent="bp_1"), 1_000_000)
    assert (await api.get("/settings/spending")).json()["today"]["held"] == 1.0
    await house.factory.ledger.pay(held, 250_000, tokens_in=7)
    shown = (await api.get("/settings/spending")).json()
    assert (shown["today"]["spent"], shown["today"]["limit"], shown["today"]["held"]) == (0.25, 2.0, 0)
    assert shown["agents"] == [{"blueprint_id": "bp_1", "spent": 0.25, "answers": 1}]


async def test_prices_of_own_models_are_entered_and_forgotten(api: Caller) -> None:
    price = {"model": "ollama/llama3.2", "tokens_in": 0.1, "tokens_out": 0.2}
    assert (await api.put("/settings/prices", json=price)).json()["items"] == [price]
    assert (await api.get("/settings/prices")).json()["items"] == [price]
    assert (await api.put("/settings/prices", json=price | {"tokens_in": -1})).status_code == 422
    gone = await api.put("/settings/prices", json=price | {"tokens_in": None, "tokens_out": None})
    assert gone.json()["items"] == []
