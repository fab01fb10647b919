"""Requests that lie about what they are: only the route decides what a body is, and no path ever comes from a request.

A canary lies where attackers look, in a file of the server. Whatever is sent, by whatever type, none of its bytes may turn
up in a run, and every refusal is a plain sentence.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.app.api.conftest import Caller, set_up
from tests.app.conftest import URL, House, running
from tests.runtime.factories import agent

CANARY = "canary-8d1f0c77"
MEGABYTE = 1024 * 1024
AGENT = agent(
    {
        "hook": ("trigger.webhook", {"path": "in", "respond": "end", "method": "ANY"}),
        "form": ("trigger.form", {"path": "form", "respond": "end", "fields": [{"name": "name", "label": "Name"}]}),
        "chat": ("trigger.chat", {"path": "talk"}),
        "all": ("flow.merge", {"mode": "first"}),
        "out": "action.respond",
    },
    "hook.body > all.values", "form.answers > all.values", "chat.text > all.values", "all.value > out.value",
)  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running(tmp_path / "home", pool_size=0) as house:
        yield house


@pytest.fixture
async def api(house: House) -> Caller:
    """The admin, with an agent deployed that a webhook, a form and a conversation start."""
    api = await set_up(house)
    id_ = await api.new(AGENT.model_dump())
    answer = await api.post(f"/blueprints/{id_}/deploy")
    assert answer.status_code == 200, answer.text
    return api


def hostile_bodies(canary: Path) -> list[tuple[str, bytes]]:
    """Bodies by the type that they really have."""
    place = str(canary)
    file = {"filepath": place, "path": place, "originalFilename": "a.txt", "mimetype": "text/plain", "newFilename": "b"}
    record = {
        "files": {"name": [file], "data": file},
        "filepath": place,
        "name": {"filepath": place},
        "$ref": f"file://{place}",
    }
    pairs = [("files[0][filepath]", place), ("files.name.filepath", place), ("filepath", place), ("name", f"@{place}")]
    parts = "".join(
        f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="{place}"\r\nContent-Type: {kind}\r\n\r\n{place}\r\n'
        for name, kind in (
            ("name", "text/plain"),
            ("files", "message/external-body; access-type=local-file"),
            ("x", "../.."),
        )
    )
    return [
        ("application/json", json.dumps(record).encode()),
        ("application/json", json.dumps([record, place]).encode()),
        ("application/x-www-form-urlencoded", urlencode(pairs).encode()),
        ("multipart/form-data; boundary=B", f"{parts}--B--\r\n".encode()),
        ("text/plain", f"@{place}\n<!ENTITY x SYSTEM 'file://{place}'>{{{{ '{place}' }}}}".encode()),
        ("application/xml", f"<!DOCTYPE x [<!ENTITY c SYSTEM 'file://{place}'>]><x>&c;</x>".encode()),
        ("application/octet-stream", b"\x00\xff\xfe" + place.encode()),
        ("", place.encode()),
    ]


TYPES = [
    "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=B", "multipart/form-data", "text/plain",
    "application/xml", "application/octet-stream", "", "application/json, multipart/form-data; boundary=B", "APPLICATION/JSON",
    "message/external-body; access-type=local-file; name=/etc/passwd", "multipart/mixed; boundary=B", "x" * 3_000,
]  # fmt: skip


async def test_no_type_and_no_body_makes_the_server_read_a_file(house: House, api: Caller, tmp_path: Path) -> None:
    canary = tmp_path / "canary.txt"
    canary.write_text(CANARY)
    outside = house.browser()
    state = house.door.outer.state
    answers = []
    for path in ("/hooks/in", "/forms/form", "/chat/talk"):
        for _, body in hostile_bodies(canary):
            # Pages for anybody take two calls a second from one address.
            for kind in TYPES if path == "/hooks/in" else TYPES[1:6]:
                headers = {"content-type": kind} if kind else {}
                answers.append(await outside.post(path, content=body, headers=headers))
                if hasattr(state, "hosted"):
                    del state.hosted  # with it goes the memory of how often somebody sent
    assert {answer.status_code for answer in answers} <= {200, 303, 400, 413, 415, 422}
    assert sum(answer.status_code == 200 for answer in answers) > 40
    for answer in answers:
        assert CANARY not in answer.text and "root:" not in answer.text and "Traceback" not in answer.text
    after, told = None, 0
    while True:
        page = (await api.get("/runs", params={"limit": 100} | ({"before": after} if after else {}))).json()
        for run in page["items"]:
            view = await api.get(f"/runs/{run['id']}")
            assert CANARY not in view.text and "root:" not in view.text
            assert view.json()["state"] in ("succeeded", "failed")
            told += 1
        if not (after := page["next"]):
            break
    assert told > 40


async def test_ten_megabytes_are_refused_wherever_they_arrive(house: House, api: Caller) -> None:
    big = b"x" * (10 * MEGABYTE)
    outside = house.browser()
    routes: list[tuple[httpx.AsyncClient, str, str, str]] = [
        (outside, "POST", f"{URL}/hooks/in", "application/json"),
        (outside, "POST", f"{URL}/hooks/in", "text/plain"),
        (outside, "POST", f"{URL}/forms/form", "application/x-www-form-urlencoded"),
        (outside, "POST", f"{URL}/chat/talk", "application/x-www-form-urlencoded"),
        (outside, "POST", f"{URL}/login", "application/x-www-form-urlencoded"),
        (api, "POST", "/blueprints", "application/json"),
        (api, "POST", "/check", "application/json"),
        (api, "POST", "/sandbox", "application/json"),
        (api, "POST", "/auth/login", "application/json"),
        (api, "PUT", "/secrets/key", "application/json"),
    ]
    for client, method, url, kind in routes:
        for body in (big, b'{"a": "' + big + b'"}', b"name=" + big):
            answer = await client.request(method, url, content=body, headers={"content-type": kind})
            assert answer.status_code == 413, (url, kind, answer.status_code, answer.text[:200])
            assert "Traceback" not in answer.text and len(answer.text) < 20_000
    assert (await api.get("/runs")).json()["items"] == []


async def test_a_graph_that_is_too_large_says_how_large_one_may_be(api: Caller) -> None:
    nodes: list[dict[str, Any]] = [{"id": f"n{number}", "type": "trigger.manual"} for number in range(2_000)]
    answer = await api.post("/blueprints", json={"name": "Large", "nodes": nodes})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "blueprint.too_large")
    assert "2,000" in error["message"] and "500" in error["message"]
    fits = {"name": "Large", "nodes": [{**node, "type": "flow.merge"} for node in nodes[:500]]}
    made = await api.post("/blueprints", json=fits)
    assert made.status_code == 201
    checked = await api.get(f"/blueprints/{made.json()['id']}/check")
    assert checked.status_code == 200 and checked.json()
