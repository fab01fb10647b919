"""Values that JSON, a database or a page cannot carry: the run ends in a way that can be read, and everybody can look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from tests.app.api.conftest import Caller, set_up
from tests.app.conftest import House, running
from tests.fakes.http_server import Answer, Asked, HttpServer
from tests.runtime.factories import agent

CSV = "a,b\n99999999999999999999999,1e999\nNaN,-inf\n\U0001f600,1_000\n0x10,٣\n"
FORMULAS = {
    "beyond 64 bits": "9223372036854775807 * 4",
    "far beyond": "2 ** 4000",
    "below": "0 - 9223372036854775807 * 9",
    "infinite": "1e308 * 10",
    "not a number": "1e308 * 10 - 1e308 * 10",
    "long": "'x' * 900000",
    "a key that is a number": "{1: 2}",
    "half a character": "'\\ud800'",
    "no character": "'a\\u0000b'",
    "deep": "[[[[[[[[[[1]]]]]]]]]]",
}  # fmt: skip


@pytest.fixture
async def outside() -> AsyncIterator[HttpServer]:
    """A service that answers at /0, /1 … what stands in REPLIES, and calls all of it JSON."""
    replies = list(REPLIES.values())

    async def answer(asked: Asked) -> Answer:
        return Answer(200, replies[int(asked.path[1:])], {"content-type": "application/json"})

    async with HttpServer(answer) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, outside: HttpServer) -> AsyncIterator[House]:
    async with running(tmp_path / "home", pool_size=0, allow_private_hosts=outside.place) as house:
        yield house


@pytest.fixture
async def api(house: House) -> Caller:
    return await set_up(house)


async def shown_everywhere(api: Caller, about: str, blueprint: Blueprint, given: Any = None) -> None:
    """The run in the sandbox and live, each asked for over the API as the pages ask; both have ended alike."""
    document = blueprint.model_dump()
    id_ = await api.new(document)
    seen = []
    for answer in (
        await api.post("/sandbox", json={"blueprint": id_, "input": given}),
        await api.post(f"/blueprints/{id_}/runs", json={"input": given}),
    ):
        assert answer.status_code == 202, (about, answer.text)
        view = await api.ended(answer.json()["id"])
        assert view["state"] in ("succeeded", "failed"), about
        if view["error"]:
            assert view["error"]["code"] != "step.bug", (about, view["error"])
            assert view["error"]["message"]
        events = await api.get(f"/runs/{view['id']}/events")
        assert events.status_code == 200 and "run.finished" in events.text, about
        seen.append(view)
    assert seen[0]["state"] == seen[1]["state"], (about, [view["error"] for view in seen])
    listed = await api.get("/runs")
    assert listed.status_code == 200
    return seen


async def test_a_formula_that_gives_something_odd(api: Caller) -> None:
    for about, formula in FORMULAS.items():
        blueprint = agent(
            {
                "go": "trigger.manual",
                "made": ("action.transform", {"fields": [{"name": "x", "formula": formula}]}),
                "said": ("action.text_template", {"template": "It is {{ x }}"}),
                "back": "action.respond",
            },
            "go.value > made.value", "made.value > said.value", "made.value > back.value",
        )  # fmt: skip
        await shown_everywhere(api, about, blueprint)


async def test_a_table_with_odd_cells(api: Caller) -> None:
    blueprint = agent(
        {
            "go": "trigger.manual",
            "read": ("context.read_table", {"source": "csv", "text": "{{ csv }}", "typed": True}),
            "sum": ("action.aggregate", {"results": [{"name": "n", "do": "sum", "of": "a"}]}),
        },
        "go.value > read.value", "read.rows > sum.items",
    )  # fmt: skip
    await shown_everywhere(api, "table", blueprint, {"csv": CSV})


REPLIES = {
    "half a character": b'{"x": "\\ud800"}',
    "not a number": b'{"x": NaN}',
    "beyond 64 bits": b'{"x": 99999999999999999999999999}',
    "infinite": b'{"x": 1e999}',
    "deep": b"[" * 20_000 + b"]" * 20_000,
    "no UTF-8": b'{"x": "\xff\xfe"}',
    "cut off": b'{"x": ',
    "twice": b'{"x": 1}{"x": 2}',
    "nothing": b"",
}


async def test_an_answer_from_outside_that_is_odd(api: Caller, outside: HttpServer) -> None:
    for number, about in enumerate(REPLIES):
        blueprint = agent(
            {
                "go": "trigger.manual",
                "ask": ("context.http_request", {"method": "GET", "url": f"{outside.url}/{number}"}),
                "keep": ("context.remember", {"key": "last", "value": "{{ input }}"}),
                "back": "action.respond",
            },
            "go.value > ask.value", "ask.body > keep.value", "ask.body > back.value",
            allowed_hosts=["127.0.0.1"],
        )  # fmt: skip
        await shown_everywhere(api, about, blueprint)
    assert len(outside.asked) == 2 * len(REPLIES)


INPUTS = {
    "beyond 64 bits": b'{"input": 99999999999999999999999999}',
    "half a character": b'{"input": "\\ud800"}',
    "deep": b'{"input": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "no character": b'{"input": {"a\\u0000": "\\u0000"}}',
    "a long name": b'{"input": {"' + b"k" * 200_000 + b'": 1}}',
    "names of ours": b'{"input": {"input": 1, "steps": 2, "vars": 3, "run": 4, "item": 5, "__proto__": {"a": 1}}}',
}


async def test_an_input_that_is_odd(api: Caller) -> None:
    blueprint = agent(
        {"go": "trigger.manual", "said": ("action.text_template", {"template": "{{ input }}"})}, "go.value > said.value"
    )
    id_ = await api.new(blueprint.model_dump())
    for about, body in INPUTS.items():
        answer = await api.post(f"/blueprints/{id_}/runs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (202, 400, 413, 422), (about, answer.text)
        if answer.status_code == 202:
            view = await api.ended(answer.json()["id"])
            assert view["state"] == "succeeded", about
            assert (await api.get(f"/runs/{view['id']}/events")).status_code == 200, about
