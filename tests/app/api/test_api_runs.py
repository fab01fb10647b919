"""Runs over HTTP: start, look, follow live, page through, cancel, retry, try out, decide."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import uvicorn

from tests.app.api.conftest import ASKING, MANUAL, Caller, error_of
from tests.app.conftest import House


async def test_a_run_is_started_and_told_step_by_step(api: Caller) -> None:
    id = await api.new()
    started = await api.post(f"/blueprints/{id}/runs", json={"input": {"total": 21}})
    run = started.json()["id"]
    assert (started.status_code, started.headers["location"]) == (202, f"/api/v1/runs/{run}")
    told = await api.ended(run)
    assert (told["state"], told["input"], told["output"]) == ("succeeded", {"total": 21}, {"double": 42})
    assert [(step["node"], step["state"]) for step in told["steps"]] == [("go", "succeeded"), ("set", "succeeded")]
    assert told["seconds"] >= 0
    assert told["blueprint"] is None
    assert (await api.get(f"/runs/{run}?document=true")).json()["blueprint"]["name"] == "Echo"


async def test_a_run_without_an_order_takes_the_triggers_own_sample(api: Caller) -> None:
    id = await api.new()
    assert (await api.post(f"/blueprints/{id}/runs")).status_code == 202
    missing = await api.post(f"/blueprints/{id}/runs", json={"trigger": "nope"})
    assert (missing.status_code, error_of(missing)["code"]) == (404, "run.no_trigger")


async def test_what_cannot_run_says_why(api: Caller) -> None:
    id = await api.new({"name": "x", "nodes": [{"id": "a", "type": "no.such"}]})
    answer = await api.post(f"/blueprints/{id}/runs")
    assert (answer.status_code, error_of(answer)["code"]) == (422, "plan.invalid")


async def test_runs_are_listed_page_by_page_newest_first(api: Caller) -> None:
    id, other = await api.new(), await api.new({**MANUAL, "name": "Other"})
    runs = [(await api.post(f"/blueprints/{id}/runs", json={"input": {"total": n}})).json()["id"] for n in range(7)]
    await api.post(f"/blueprints/{other}/runs", json={"input": {"total": 1}})
    for run in runs:
        await api.ended(run)
    seen: list[str] = []
    before: dict[str, str] = {}
    while True:
        page = (await api.get("/runs", params={"blueprint": id, "limit": 3, **before})).json()
        seen += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == runs[::-1]
    assert (await api.get("/runs?state=failed")).json() == {"items": [], "next": None}
    assert len((await api.get("/runs?state=succeeded&limit=200")).json()["items"]) >= 7
    assert (await api.get("/runs?state=lost")).status_code == 422


async def test_a_run_is_repeated_and_cancelled(api: Caller) -> None:
    id = await api.new(ASKING)
    run = (await api.post(f"/blueprints/{id}/runs", json={"input": {"total": 1}})).json()["id"]
    assert (await api.ended(run))["state"] == "waiting"
    going_on = await api.post(f"/runs/{run}/retry")
    assert (going_on.status_code, error_of(going_on)["code"]) == (409, "run.going_on")
    assert (await api.post(f"/runs/{run}/cancel")).status_code == 204
    assert (await api.get(f"/runs/{run}")).json()["state"] == "cancelled"
    again = (await api.post(f"/runs/{run}/retry")).json()["id"]
    assert (await api.ended(again))["input"] == {"total": 1}
    assert (await api.post(f"/runs/{run}/cancel")).status_code == 204


async def test_what_waits_is_decided_once(api: Caller) -> None:
    id = await api.new(ASKING)
    run = (await api.post(f"/blueprints/{id}/runs", json={"input": {"total": 1}})).json()["id"]
    await api.ended(run)
    waiting = (await api.get("/approvals")).json()["items"]
    assert [(one["run_id"], one["title"], one["state"]) for one in waiting] == [(run, "Send it?", "pending")]
    address = f"/approvals/{waiting[0]['id']}"
    for wrong in ({}, {"approve": "yes"}, {"approve": 1}, {"approve": None}):
        assert (await api.post(address, json=wrong)).status_code == 422
    assert (await api.get(address)).status_code == 405
    answers = await asyncio.gather(*(api.post(address, json={"approve": True, "note": "fine"}) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [200] + [409] * 4
    assert (await api.ended(run))["state"] == "succeeded"
    assert (await api.get("/approvals")).json()["items"] == []
    decided = (await api.get("/approvals", params={"run": run})).json()["items"]
    assert [(one["state"], one["decided_by"], one["note"]) for one in decided] == [("approved", "Ada", "fine")]
    assert (await api.get("/approvals?pending=false")).json()["items"] == decided


# --- the sandbox -------------------------------------------------------------------------------------------------


async def test_a_stored_draft_is_tried_out_and_nothing_is_kept(api: Caller) -> None:
    id = await api.new()
    test = (await api.post("/sandbox", json={"blueprint": id, "input": {"total": 4}})).json()["id"]
    told = await api.ended(test)
    assert (told["state"], told["output"]) == ("succeeded", {"double": 8})
    assert (await api.get("/runs")).json()["items"] == []
    first = (await api.post("/sandbox", json={"blueprint": id, "until": "go"})).json()["id"]
    assert [step["node"] for step in (await api.ended(first))["steps"]] == ["go"]
    assert (await api.post("/sandbox", json={"blueprint": id, "until": "gone"})).status_code == 404


async def test_the_sandbox_tells_what_would_be_done_outside(api: Caller) -> None:
    document = {
        "name": "Sends",
        "nodes": [
            {"id": "go", "type": "trigger.manual"},
            {
                "id": "send",
                "type": "action.send_webhook",
                "settings": {"url": "https://example.com/x"},
            },
        ],
        "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "send", "target_port": "value"}],
        "allowed_hosts": ["example.com"],
    }
    id = await api.new(document)
    test = (await api.post("/sandbox", json={"blueprint": id, "input": {"total": 4}})).json()["id"]
    told = await api.ended(test)
    assert told["state"] == "succeeded", told
    assert len(told["effects"]) == 1
    assert "example.com" in told["effects"][0]


async def test_the_sandbox_takes_ids_and_never_a_document(api: Caller) -> None:
    answer = await api.post("/sandbox", json={"blueprint": MANUAL})
    assert (answer.status_code, error_of(answer)["code"]) == (422, "request.invalid")


async def test_a_value_too_big_for_json_numbers_does_not_break_the_story(api: Caller) -> None:
    for formula in ("2 ** 80", "10 ** 400", "1e308 * 10", "-1e308 * 10"):
        fields = {"fields": [{"name": "n", "formula": formula}]}
        id = await api.new({**MANUAL, "nodes": [MANUAL["nodes"][0], {**MANUAL["nodes"][1], "settings": fields}]})
        for run in (
            (await api.post("/sandbox", json={"blueprint": id, "input": {}})).json()["id"],
            (await api.post(f"/blueprints/{id}/runs", json={"input": {}})).json().get("id", "none"),
        ):
            if run != "none":
                assert (await api.ended(run))["state"] in ("succeeded", "failed")
                events = await api.get(f"/runs/{run}/events")
                assert "run.finished" in events.text


# --- following ---------------------------------------------------------------------------------------------------


def told(stream: str) -> list[tuple[int, str, dict[str, Any]]]:
    """(id, event, data) of a stream of events."""
    found = []
    for block in stream.replace("\r\n", "\n").split("\n\n"):
        parts = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if parts:
            found.append((int(parts["id"]), parts["event"], orjson.loads(parts["data"])))
    return found


async def test_the_events_of_a_run_are_its_facts_in_order(api: Caller) -> None:
    id = await api.new()
    run = (await api.post(f"/blueprints/{id}/runs", json={"input": {"total": 2}})).json()["id"]
    stream = await api.get(f"/runs/{run}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = told(stream.text)
    assert [id for id, _, _ in events] == list(range(1, len(events) + 1))
    assert (events[0][1], events[-1][1]) == ("run.accepted", "run.finished")
    assert all(data["kind"] == kind and data["seq"] == id for id, kind, data in events)
    for seen in range(len(events)):
        rest = await api.get(f"/runs/{run}/events", headers={"Last-Event-ID": str(seen)})
        assert told(rest.text) == events[seen:]
    over = await api.get(f"/runs/{run}/events", headers={"Last-Event-ID": str(len(events))})
    assert (over.status_code, over.content) == (204, b"")
    for odd in ("-1", "x", "1.5", "", "9" * 40):
        assert told((await api.get(f"/runs/{run}/events", headers={"Last-Event-ID": odd})).text) == events


@pytest.fixture
async def served(house: House, api: Caller) -> AsyncIterator[httpx.AsyncClient]:
    """The same application behind a real server, and its admin's client: a stream arrives piece by piece only there."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(house.door, lifespan="off", log_level="warning", timeout_graceful_shutdown=2)
        )
        serving = asyncio.ensure_future(server.serve([listening]))
        url = f"http://127.0.0.1:{port}"
        headers = {name: value for name, value in api.headers.items() if name in ("x-csrf-token", "accept")}
        async with httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers={**headers, "Origin": url}, timeout=20
        ) as client:
            client.cookies = httpx.Cookies({cookie.name: cookie.value or "" for cookie in api.cookies.jar})
            yield client
        server.should_exit = True
        await serving


async def test_a_run_is_followed_while_it_happens_and_after_a_lost_connection(served: httpx.AsyncClient) -> None:
    id = (await served.post("/blueprints", json=ASKING)).json()["id"]
    run = (await served.post(f"/blueprints/{id}/runs", json={"input": {"total": 1}})).json()["id"]
    first: list[tuple[int, str, dict[str, Any]]] = []
    async with served.stream("GET", f"/runs/{run}/events") as stream:
        async for event in arriving(stream):
            first.append(event)
            if event[1] == "step.waiting":
                break  # the connection is lost here
    rest: list[tuple[int, str, dict[str, Any]]] = []
    headers = {"Last-Event-ID": str(first[-1][0])}
    async with served.stream("GET", f"/runs/{run}/events", headers=headers) as stream:
        waiting = (await served.get("/approvals")).json()["items"][0]["id"]
        assert (await served.post(f"/approvals/{waiting}", json={"approve": True})).status_code == 200
        rest = [event async for event in arriving(stream)]
    assert rest[-1][1] == "run.finished"
    seen = [event[0] for event in first + rest]
    assert seen == list(range(1, len(seen) + 1))


async def test_a_stream_ends_when_its_session_does(served: httpx.AsyncClient) -> None:
    id = (await served.post("/blueprints", json=ASKING)).json()["id"]
    run = (await served.post(f"/blueprints/{id}/runs", json={"input": {"total": 1}})).json()["id"]
    async with served.stream("GET", f"/runs/{run}/events") as stream:
        events = arriving(stream)
        while (await anext(events))[1] != "step.waiting":
            pass
        assert (await served.post("/auth/logout")).status_code == 204
        assert [event async for event in events] == []
    assert (await served.get(f"/runs/{run}/events")).status_code == 401


async def arriving(stream: httpx.Response) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
    """The events of a stream as they come."""
    assert stream.status_code == 200
    block: list[str] = []
    async for line in stream.aiter_lines():
        if line:
            block.append(line)
        elif block:
            for event in told("\n".join(block)):
                yield event
            block = []


async def test_a_run_is_forked_from_a_step_and_retried_from_what_failed(api: Caller) -> None:
    id = await api.new()
    failed = (await api.post(f"/blueprints/{id}/runs", json={"input": {"nobody": 1}})).json()["id"]
    assert (await api.ended(failed))["state"] == "failed"
    answer = await api.post(f"/runs/{failed}/retry", json={"from_failed": True})
    again = await api.ended(answer.json()["id"])
    assert (again["state"], [step["note"] for step in again["steps"]]) == (
        "failed",
        ["used the result of an earlier run", ""],
    )
    mended = await api.ended((await api.post(f"/runs/{failed}/retry", json={"input": {"total": 4}})).json()["id"])
    assert mended["output"]["double"] == 8
    forked = await api.post(f"/runs/{mended['id']}/fork", json={"node": "set"})
    assert (forked.status_code, forked.headers["location"]) == (202, f"/api/v1/runs/{forked.json()['id']}")
    assert (await api.ended(forked.json()["id"]))["output"] == mended["output"]
    nothing_failed = await api.post(f"/runs/{mended['id']}/retry", json={"from_failed": True})
    assert (nothing_failed.status_code, error_of(nothing_failed)["code"]) == (409, "fork.nothing_failed")
    nowhere = await api.post(f"/runs/{mended['id']}/fork", json={"node": "nowhere"})
    assert (nowhere.status_code, error_of(nowhere)["code"]) == (404, "fork.no_step")
