"""A secret goes where it is meant to, and stands nowhere else: not in what comes back, is kept, shown, exported or logged.

Agents send it to a server that sends everything back in many spellings, with every kind of end; afterwards all that people,
programs and whoever has the disk can read is searched for it.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
import structlog

from tests.app.api.conftest import Caller, set_up
from tests.app.conftest import URL, running
from tests.fakes.http_server import Answer, Asked, HttpServer

CANARY = 'c4n/ARY "välue"+=7f'
NAMES = ("key", "address", "signing", "model")


def spellings(text: str) -> set[bytes]:
    """How a secret may be written: as it is, in addresses, in JSON, and in the usual codes for bytes."""
    raw = text.encode()
    return {
        raw, text.encode("latin-1", "ignore"), quote(text, safe="").encode(), quote(text).encode(), quote_plus(text).encode(),
        orjson.dumps(text)[1:-1], text.encode("unicode_escape"), raw.hex().encode(), raw.hex().upper().encode(),
        base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"="),
    }  # fmt: skip


async def echo(asked: Asked) -> Answer:
    """Everything back, as a page, an error or another address, in each spelling of each header's last word."""
    said = {"headers": dict(asked.headers), "target": asked.target, "body": asked.body.decode("utf-8", "replace")}
    for name in ("authorization", "x-key"):
        text = asked.headers.get(name, "").encode("latin-1").decode("utf-8", "replace").partition(" ")[2]
        said[name] = [one.decode("latin-1") for one in spellings(text)] if text else []
    if "moved" in asked.target:
        return Answer(302, headers={"location": f"/200?k={quote(asked.headers.get('x-key', ''))}"})
    if "v1/chat" in asked.target:
        words = f"Incorrect API key provided: {asked.headers.get('authorization')}"
        return Answer(401, {"error": {"message": words, "type": "invalid_request_error", "code": "invalid_api_key"}})
    return Answer(500 if "500" in asked.target else 200, said)


def agents(url: str) -> Iterator[dict[str, Any]]:
    """Agents that use secrets in each way there is, and end well or badly."""
    http = {"url": f"{url}/200", "headers": [{"name": "X-Key", "value": "Key ", "secret": "key"}]}
    for name, settings in {
        "in a header": http,
        "as a bearer": {"url": f"{url}/200", "auth": "bearer", "secret": "key"},
        "as a password": {"url": f"{url}/200", "auth": "basic", "secret": "key", "user": "ada"},
        "to an error": {**http, "url": f"{url}/500"},
        "to another address": {**http, "url": f"{url}/moved"},
        "to nobody": {**http, "url": "http://127.0.0.1:9/"},
    }.items():
        yield agent(name, "context.http_request", settings)
    yield agent("a secret address", "action.slack_post", {"address": "address", "text": "hello"})
    signed = {"where": "secret", "address": "address", "sign_with": "signing", "send": "nothing"}
    yield agent("a signed call", "action.send_webhook", signed)
    yield agent("a model that refuses", "action.ask_model", {"prompt": "hello"})


def agent(name: str, type_: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "allowed_hosts": ["127.0.0.1"],
        "nodes": [{"id": "go", "type": "trigger.manual"}, {"id": "out", "type": type_, "settings": settings}],
        "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "out", "target_port": "value"}],
    }


async def test_a_secret_stands_nowhere_but_where_it_was_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: dict[str, bytes] = {}
    home = tmp_path / "home"
    async with HttpServer(echo) as server:
        with structlog.testing.capture_logs() as lines:
            async with running(home, pool_size=0, allow_private_hosts=(server.place, "127.0.0.1:9")) as house:
                api = await set_up(house)
                values = dict.fromkeys(NAMES, CANARY) | {"address": f"{server.url}/500/{quote(CANARY, safe='')}"}
                for name, value in values.items():
                    assert (await api.put(f"/secrets/{name}", json={"value": value})).status_code == 204
                chosen = {"model": "openai/some", "base_url": f"{server.url}/v1", "secret": "model"}
                assert (await api.put("/settings/model", json=chosen)).status_code == 200
                states = [await used(api, document, seen) for document in agents(server.url)]
                for path in ("", "runs", "attention", "settings", "settings/secrets", "settings/model", "metrics"):
                    page = await api.get(f"{URL}/{path}", headers={"Accept": "text/html"})
                    assert page.status_code == 200, path
                    seen[f"/{path}"] = page.content
        sent = b"".join(repr((dict(asked.headers), asked.target)).encode() for asked in server.asked)
    assert {"succeeded", "failed"} == set(states)
    assert all(spelling in sent for spelling in (quote(CANARY, safe="").encode(), b"Key c4n/ARY")), (
        "it was not even sent"
    )
    seen["log"] = orjson.dumps(lines, default=str) + caplog.text.encode()
    seen["environment"] = repr(dict(os.environ)).encode()
    for file in home.rglob("*"):
        if file.is_file():
            seen[str(file)] = file.read_bytes()
    assert len(seen) > 60 and any(name.endswith(".db") for name in seen)
    shown = {name: one for name, text in seen.items() for one in spellings(CANARY) if one in text}
    assert shown == {}, "\n".join(f"{name}: {one!r}" for name, one in shown.items())


async def used(api: Caller, document: dict[str, Any], seen: dict[str, bytes]) -> str:
    """Try it in the sandbox and run it; keep every answer that tells of it. How the run ended."""
    id_, name = await api.new(document), document["name"]
    test = await api.post("/sandbox", json={"blueprint": id_, "input": {"n": 1}, "allow": ["out"]})
    assert test.status_code < 300, test.text
    seen[f"test of {name}"] = test.content
    run = (await api.post(f"/blueprints/{id_}/runs", json={"input": {"n": 1}})).json()["id"]
    state: str = (await api.ended(run))["state"]
    for path in (
        f"/runs/{run}", f"/runs/{run}?document=true", f"/runs/{run}/events", f"/dead-letters/{run}", f"/blueprints/{id_}",
        f"/blueprints/{id_}/export", f"/blueprints/{id_}/check", f"/blueprints/{id_}/python", "/dead-letters", "/secrets",
    ):  # fmt: skip
        seen[f"{name}: {path}"] = (await api.get(path)).content
    return state
