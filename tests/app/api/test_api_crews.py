"""Crews over HTTP: assembled by a manifest, followed as a stream, refused in words and never with an accident."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.errors import FactoryError
from runtime.crews.manifest import CrewManifest, ManifestError, read_manifest
from runtime.policy import Role
from tests.app.api.conftest import Caller, error_of
from tests.app.conftest import House
from tests.conftest import unavailable

CODE: dict[str, Any] = {"role": "writer", "code": "crew.set('said', topic)\nreturn topic", "inputs": {"topic": "tea"}}
WAITS: dict[str, Any] = {"role": "reader", "code": "crew.next()"}
PRESS: dict[str, Any] = {"id": "press", "members": [CODE]}


@pytest.fixture
async def workers(house: House) -> None:
    """Something that can isolate code."""
    try:
        await (await house.factory.fleet.hold("nobody")).release()
    except FactoryError as error:
        unavailable(f"{error.message} {error.fix}")


async def over(api: Caller, crew: str) -> dict[str, Any]:
    """The crew when it has ended."""
    async with asyncio.timeout(20):
        while (now := (await api.get(f"/crews/{crew}/status")).json())["ended_at"] is None:
            await asyncio.sleep(0.02)
    return now  # type: ignore[no-any-return]


def told(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: name and what it says."""
    blocks = [block for block in text.replace("\r\n", "\n").split("\n\n") if block.startswith("event:")]
    return [(block.split("\n")[0][7:], orjson.loads(block.split("\n")[1][6:])) for block in blocks]


async def test_a_crew_is_assembled_looked_at_and_ends(api: Caller, workers: None) -> None:
    made = await api.post("/crews/assemble", json=PRESS)
    assert made.status_code == 201, made.text
    crew = made.json()
    assert (crew["name"], crew["bus"], crew["health"], crew["budgets"]["seconds"]) == ("press", "memory", "ok", 900)
    assert crew["endpoints"]["status"] == f"/api/v1/crews/{crew['id']}/status"
    ended = await over(api, crew["id"])
    assert (ended["state"], ended["members"][0]["result"]) == ("finished", "tea")
    listed = (await api.get("/crews")).json()
    assert [one["id"] for one in listed["items"]] == [crew["id"]]
    history = (await api.get(f"/crews/{crew['id']}/history")).json()["items"]
    assert [event["what"] for event in history] == ["finished", "done", "assembled", "asked for"]
    assert history[-1]["by"] == "Ada"


async def test_who_asks_for_a_stream_sees_it_come_together(api: Caller, workers: None) -> None:
    answer = await api.post("/crews/assemble", json=PRESS, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = told(answer.text)
    assert events[0][0] == "status"
    assert events[0][1]["state"] == "assembling"
    assert events[-1][0] == "assembled"
    assert events[-1][1]["id"] == events[0][1]["id"]
    await over(api, events[0][1]["id"])


async def test_a_stream_of_an_assembly_that_fails_says_why(
    house: House, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: Any, **__: Any) -> Any:
        raise FactoryError("There is no worker left.", fix="Wait.", status=503)

    monkeypatch.setattr(house.factory.fleet, "hold", none)
    streamed = told((await api.post("/crews/assemble", json=PRESS, headers={"Accept": "text/event-stream"})).text)
    assert streamed[-1][0] == "failed"
    assert streamed[-1][1]["error"]["message"] == "There is no worker left."
    plain = await api.post("/crews/assemble", json=PRESS)
    assert plain.status_code == 503
    assert error_of(plain)["fix"] == "Wait."
    assert {one["state"] for one in (await api.get("/crews")).json()["items"]} == {"failed"}
    # What is wrong from the start is no stream.
    wrong = await api.post("/crews/assemble", json={"id": "x"}, headers={"Accept": "text/event-stream"})
    assert wrong.status_code == 422


async def test_a_crew_is_paused_changed_and_stopped(api: Caller, workers: None) -> None:
    crew = (await api.post("/crews/assemble", json={"id": "press", "members": [WAITS]})).json()["id"]
    twice = await api.post("/crews/assemble", json={"id": "press", "members": [WAITS]})
    assert (twice.status_code, error_of(twice)["code"]) == (409, "crew.exists")
    assert (await api.post(f"/crews/{crew}/pause")).json()["state"] == "paused"
    assert (await api.post(f"/crews/{crew}/pause")).status_code == 409
    assert (await api.post(f"/crews/{crew}/resume")).json()["state"] == "running"
    more = await api.post(f"/crews/{crew}/members", json={**WAITS, "role": "editor"})
    assert [member["role"] for member in more.json()["members"]] == ["reader", "editor"]
    changed = await api.put(f"/crews/{crew}/members/m2", json={**WAITS, "role": "boss"})
    assert changed.json()["members"][1]["role"] == "boss"
    gone = await api.delete(f"/crews/{crew}/members/m1")
    assert gone.json()["members"][0]["state"] == "stopped"
    assert (await api.delete(f"/crews/{crew}/members/m7")).status_code == 404
    stopped = await api.post(f"/crews/{crew}/stop")
    assert (stopped.json()["state"], stopped.json()["why"]) == ("stopped", "Ada stopped it.")
    streamed = told((await api.get(f"/crews/{crew}/events")).text)
    assert [event["state"] for _, event in streamed] == ["stopped"]
    assert (await api.post(f"/crews/{crew}/resume")).status_code == 409


async def test_a_members_token_is_worth_nothing_in_the_browser_or_the_api(
    house: House, api: Caller, workers: None
) -> None:
    crew = (await api.post("/crews/assemble", json={"id": "press", "members": [WAITS]})).json()["id"]
    token = house.factory.crews._live[crew].members["m1"].token
    assert token.count(".") == 2
    thief = Caller.of(house, token=token)
    for path in ("/crews", f"/crews/{crew}/status", "/auth/me"):
        assert (await thief.get(path)).status_code == 401
    browser = Caller.of(house)
    for name in list(api.cookies):
        browser.cookies.set(name, token)
    assert (await browser.get("/crews")).status_code == 401
    assert (await browser.get(f"/crews?token={token}")).status_code == 401
    await api.post(f"/crews/{crew}/stop")


async def test_viewers_look_and_nothing_more(house: House, callers: dict[str, Caller]) -> None:
    viewer = callers[str(Role.VIEWER)]
    assert (await viewer.get("/crews")).status_code == 200
    assert (await viewer.post("/crews/assemble", json=PRESS)).status_code == 403
    schema = (await viewer.get("/crews/schema")).json()
    assert schema["title"] == "CrewManifest"
    assert set(schema["required"]) == {"id", "members"}


WRONG: list[dict[str, Any]] = [
    {},
    {"id": "Press!", "members": [CODE]},
    {"id": "press", "members": []},
    {"id": "press", "members": [{"role": "a"}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "blueprint": "bp_1"}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "starts": "on request"}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "count": 51}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "count": 30}] * 2},
    {"id": "press", "members": [{"role": "a", "code": "x", "count": "2"}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "tools": ["root"]}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "tools": ["http"]}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "environment": {"LD_PRELOAD": "x"}}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "environment": {"CREW_ID": "x"}}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "environment": {"A": 1}}]},
    {"id": "press", "members": [{"role": "a", "code": "x", "tenant": "other"}]},
    {"id": "press", "members": [CODE], "network": {"allow": ["http://x/"]}},
    {"id": "press", "members": [CODE], "budgets": {"seconds": 0}},
    {"id": "press", "members": [CODE], "topics": {"t": {"type": 7}}},
    {"id": "press", "members": [CODE], "topics": {"t": {"$ref": "http://evil.example/s"}}},
    {"id": "press", "members": [CODE], "ends_with": "nobody"},
    {"id": "press", "members": [CODE], "tenant_id": "other"},
    {"id": "press", "members": [CODE], "state": "running"},
]


@pytest.mark.parametrize("given_", WRONG)
async def test_a_manifest_that_is_not_right_is_refused_at_its_place(api: Caller, given_: dict[str, Any]) -> None:
    answer = await api.post("/crews/assemble", json=given_)
    assert (answer.status_code, error_of(answer)["code"]) == (422, "request.invalid"), answer.text
    with pytest.raises(ManifestError):
        read_manifest(given_)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [*CrewManifest.model_fields, *CrewManifest.model_json_schema()["$defs"]["MemberSpec"]["properties"]]
)
MEMBER = st.fixed_dictionaries(
    {"role": st.just("a") | ANY, "code": st.just("pass") | ANY},
    optional={
        "tools": st.lists(st.sampled_from(["talk", "http", "files"])) | ANY,
        "count": st.integers(-1, 60) | ANY,
        "environment": st.dictionaries(st.text(max_size=6), ANY, max_size=2),
        "inputs": ANY,
        "seconds": ANY,
        "tier": ANY,
    },
)
MANIFEST = st.fixed_dictionaries(
    {"id": st.just("press") | ANY, "members": st.lists(MEMBER, max_size=3) | ANY},
    optional={"context": ANY, "topics": ANY, "network": ANY, "budgets": ANY, "on_restart": ANY},
)


@settings(max_examples=300)
@given(MANIFEST | st.dictionaries(NAMES, ANY, max_size=4) | ANY)
def test_whatever_is_given_is_a_manifest_or_refused_in_words(given_: Any) -> None:
    try:
        manifest = read_manifest(given_)
    except ManifestError as error:
        assert error.status == 422
        assert error.message
        return
    # What was taken is the same when it is read again, as after a restart of the server.
    assert read_manifest(orjson.loads(orjson.dumps(manifest.model_dump(mode="json")))) == manifest


async def test_odd_bodies_are_refused_and_break_nothing(api: Caller) -> None:
    deep = (
        b'{"id": "press", "members": [{"role": "a", "code": "x", "inputs": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}]}"
    )
    big = orjson.dumps({**PRESS, "members": [{"role": "a", "code": "x" * 300_000}]})
    odd = [
        b"", b"{", b"[]", b"null", b'"press"', b"\xff\xfe", b'{"id": "\\ud800"}', deep, big,
        b'{"id": 1e999}', b'{"id": "press", "members": [' + b'{"role": "a", "code": "x"},' * 100 + b"{}]}",
    ]  # fmt: skip
    for body in odd:
        answer = await api.post("/crews/assemble", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (body[:80], answer.status_code)
        assert error_of(answer)["message"]
