"""Broken input gives a clear error, never a 500: mutated documents and mutated calls through the whole application.

They go through the real guard, routes and services onto a real database. FACTORY_FUZZ says how many documents: 2,000,
5,000 in `make test`, and 100,000 in `make soak`. One that fails is named by its number: `broken(number)` makes it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
import pytest
import structlog

from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from runtime.plan import compile_plan
from tests.app.api.conftest import ASKING, MANUAL, Caller, error_of, set_up
from tests.app.conftest import URL, House, running
from tests.promises.mutations import KEYS, ODD, broken, garbled, mutated

DOCUMENTS = int(os.environ.get("FACTORY_FUZZ", "2000"))
CALLS = max(200, DOCUMENTS // 10)
SHARDS = 4
AT_ONCE = 8
PATIENCE = 60  # seconds
LISTENS = 0.5  # seconds to a stream, which ends only with what it tells of
JSON = {"Content-Type": "application/json"}


@dataclass
class Watch:
    """What went wrong, and what the answers were."""

    wrong: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    logged: list[str] = field(default_factory=list)
    slow: int = 0
    slowest: float = 0.0

    async def ask(self, asked: Awaitable[httpx.Response], what: str, *, stream: bool = False) -> httpx.Response:
        """One call: no 5xx, every error in the one shape, its time counted. Of a stream only how it begins."""
        began = time.monotonic()
        try:
            answer = await asyncio.wait_for(asked, LISTENS if stream else PATIENCE)
        except TimeoutError:
            if not stream:
                raise AssertionError(f"{what}: no answer in {PATIENCE} s") from None
            answer = httpx.Response(200)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        self.slow += took > 1
        code = "ok"
        if answer.status_code >= 500:
            self.wrong.append(f"{what}: {answer.status_code} {answer.text[:300]}")
        elif answer.status_code >= 400:
            try:
                code = error_of(answer)["code"]
            except (AssertionError, ValueError) as error:
                self.wrong.append(f"{what}: an error of another shape: {error}")
        self.answers[f"{answer.status_code} {code}"] += 1
        return answer

    def expect(self, true: bool, what: str) -> None:
        if not true:
            self.wrong.append(what)

    def verdict(self) -> None:
        total = sum(self.answers.values())
        print(f"\n{total} answers, {AT_ONCE} at once; over 1 s: {self.slow}, slowest {self.slowest:.2f} s")
        for name, count in self.answers.most_common():
            print(f"  {count:7} {name}")
        assert self.wrong == [], f"{len(self.wrong)} wrong, such as\n" + "\n".join(self.wrong[:10])
        assert self.logged == [], f"{len(self.logged)} logged, such as\n" + "\n".join(self.logged[:5])


class _Errors(logging.Handler):
    """Hears what any library logs with a traceback."""

    def __init__(self, logged: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._logged = logged

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self._logged.append(f"{record.name}: {record.getMessage()} {record.exc_info}")


@asynccontextmanager
async def watched(home: Path) -> AsyncIterator[tuple[House, Caller, Watch]]:
    """The application, its admin, and an eye on everything that it logs."""
    watch = Watch()
    handler = _Errors(watch.logged)
    logging.getLogger().addHandler(handler)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: watch.logged.append(f"loop: {context}"))
    try:
        with structlog.testing.capture_logs() as lines:
            async with running(home, pool_size=0) as house:
                api = await set_up(house)
                yield house, api, watch
                watch.logged += [
                    str(line) for line in lines if line["log_level"] in ("error", "critical") or "exc_info" in line
                ]
                watch.verdict()
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(handler)


async def spread(numbers: range, do: Callable[[int], Awaitable[None]]) -> None:
    """Do it for every number, a few at once."""
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            await do(number)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


# --- documents ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(3600 if DOCUMENTS > 20_000 else 600)
@pytest.mark.parametrize("shard", range(SHARDS))
async def test_broken_documents_are_refused_in_words_or_kept_whole(tmp_path: Path, shard: int) -> None:
    async with watched(tmp_path / "home") as (_, api, watch):
        home = await api.new()

        async def document(number: int) -> None:
            body, what = broken(number), f"broken({number})"
            way = number % 5
            if way == 3:
                answer = await watch.ask(api.post("/check", content=body, headers=JSON), f"check of {what}")
                if answer.status_code == 200:
                    runs_if_it_is_said_to(watch, answer.json(), body, what)
                return
            if way == 4:
                revision = (await api.get(f"/blueprints/{home}")).headers["etag"]
                answer = await watch.ask(
                    api.put(f"/blueprints/{home}", content=body, headers={**JSON, "If-Match": revision}),
                    f"save of {what}",
                )
                if answer.status_code == 200:
                    await watch.ask(api.get(f"/blueprints/{home}"), f"get after save of {what}")
                return
            answer = await watch.ask(api.post("/blueprints", content=body, headers=JSON), f"import of {what}")
            if answer.status_code != 201:
                watch.expect(answer.status_code in (413, 422), f"{what}: {answer.status_code}")
                return
            await kept(api, watch, answer.json()["id"], body, what)

        await spread(range(shard, DOCUMENTS, SHARDS), document)


async def kept(api: Caller, watch: Watch, id: str, body: bytes, what: str) -> None:
    """What was accepted is there as it was sent, can be checked, saved again and looked at in every way."""
    sent = Blueprint.parse(body)
    got = await watch.ask(api.get(f"/blueprints/{id}"), f"get of {what}")
    exported = await watch.ask(api.get(f"/blueprints/{id}/export"), f"export of {what}")
    watch.expect(exported.content == sent.canonical(), f"{what} came back changed")
    watch.expect(Blueprint.parse(orjson.dumps(got.json()["blueprint"])) == sent, f"{what} was shown changed")
    checked = await watch.ask(api.get(f"/blueprints/{id}/check"), f"check of stored {what}")
    runs_if_it_is_said_to(watch, checked.json(), body, what)
    saved = await watch.ask(
        api.put(f"/blueprints/{id}", content=exported.content, headers={**JSON, "If-Match": got.headers["etag"]}),
        f"save again of {what}",
    )
    watch.expect(saved.json() == {"revision": 2}, f"{what} could not be saved again")
    await watch.ask(api.delete(f"/blueprints/{id}"), f"delete of {what}")


def runs_if_it_is_said_to(watch: Watch, checked: dict[str, Any], body: bytes, what: str) -> None:
    """Nothing passes the checks that the engine would then refuse; every finding is a sentence with a place."""
    for finding in checked.get("findings", ()):
        watch.expect(bool(finding["sentence"] and finding["code"]), f"{what}: a finding without words: {finding}")
    if checked.get("ok"):
        try:
            compile_plan(Blueprint.parse(body), catalog())
        except Exception as error:
            watch.wrong.append(f"{what} passed the checks and cannot run: {error!r}")


# --- every other call --------------------------------------------------------------------------------------------

BODIES: dict[str, Any] = {
    "/setup": {"token": "x" * 43, "name": "Eve", "email": "eve@example.com", "password": "x" * 20, "team": "Other"},
    "/auth/login": {"email": "eve@example.com", "password": "a wrong password"},
    "/auth/tokens": {"name": "build", "role": "viewer", "days": 1},
    "/people": {"name": "Bob", "email": "bob@example.com", "password": "short", "role": "viewer"},
    "/people/{id}": {"role": "developer", "disabled": False},
    "/blueprints/{id}/versions": {"note": "why"},
    "/blueprints/{id}/restore": {"version": 1},
    "/blueprints/{id}/deploy": {"note": "go", "version": None},
    "/blueprints/{id}/runs": {"input": {"total": 1, "deep": [{"a": [1, 2, {"b": None}]}]}, "trigger": "go"},
    "/sandbox": {"blueprint": "ID", "input": {"total": 1}, "until": "set", "allow": ["set"], "pretend": {"ask": {"approved": True}}},
    "/approvals/{id}": {"approve": False, "note": "no", "choice": ""},
    "/dead-letters/{id}/retry": {"start": "failure", "version": "same", "step_input": {"value": {"total": 1}}},
    "/dead-letters/retry": {"runs": ["ID"], "start": "beginning", "version": "newest"},
    "/dead-letters/dismiss": {"runs": ["ID"], "reason": "Known."},
    "/secrets/{name}": {"value": "sk-1"},
    "/settings/model": {"model": "openai/x", "base_url": "https://api.example.com", "secret": "key"},
}  # fmt: skip
QUERIES: dict[str, Any] = {
    "limit": "5", "before": "run_1", "state": "failed", "blueprint": "ID", "document": "true", "deleted": "true", "from": "1",
    "to": "draft", "version": "1", "revision": "1", "pending": "false", "run": "ID", "name": "a.txt", "table": "orders",
}  # fmt: skip
STRANGE = [
    "nothing",
    "..",
    "%00",
    "%2e%2e",
    "a b",
    "é",
    "x" * 3000,
    "'",
    "*",
    "-1",
    "null",
    "%ed%a0%80",
    "%ff",
    "{id}",
    "a%0ab",
]
NOT_ASKED = {"/auth/logout"}  # it would end the session of all the others


@pytest.mark.timeout(3600 if DOCUMENTS > 20_000 else 600)
async def test_broken_calls_of_every_other_route_are_refused_in_words(tmp_path: Path) -> None:
    async with watched(tmp_path / "home") as (house, api, watch):
        ids = await made(api)
        routes = [
            (method, path.removeprefix("/api/v1"))
            for method, path, _ in house.door.outer.state.doors.entries
            if path.startswith("/api/v1") and path.removeprefix("/api/v1") not in NOT_ASKED
        ]
        me = (await api.get("/auth/me")).json()["id"]

        async def call(number: int) -> None:
            dice = Random(f"call {number}")
            method, path = routes[number % len(routes)]
            known = [id for id in ids if id != me]
            id = dice.choice(known if dice.random() < 0.5 else STRANGE)
            address = re.sub(
                r"\{(\w+)\}", lambda one: str(dice.choice((1, 2, -1, 2**40, "x"))) if one[1] == "number" else id, path
            )
            body: Any = mutated(dice, with_id(BODIES.get(path, {}), dice.choice(ids)))
            content = sloppy(body)
            content = garbled(dice, content) if dice.random() < 0.15 else content
            headers = (
                dict(JSON)
                if dice.random() < 0.9
                else {"Content-Type": dice.choice(("text/plain", "x", "multipart/form-data"))}
            )
            if dice.random() < 0.2:
                headers |= {
                    "If-Match": dice.choice(('"1"', "*", '"x"', "9" * 500)),
                    "Last-Event-ID": dice.choice(("1", "x", "9" * 9)),
                }
            if path == "/files" and method == "POST":
                content, headers = form(dice)
            query = {key: dice.choice((value, odd_text(dice))) for key, value in QUERIES.items() if dice.random() < 0.3}
            answer = await watch.ask(
                api.request(
                    method,
                    f"{URL}/api/v1{address}",
                    params=with_id(query, dice.choice(ids)),
                    content=content if method != "GET" else None,
                    headers=headers,
                ),
                f"call {number}: {method} {path}",
                stream=path.endswith("/events"),
            )
            watch.expect("Traceback" not in answer.text, f"call {number} shows a traceback")

        await spread(range(CALLS), call)
        rest = await api.get("/runs?limit=200")
        for run in rest.json()["items"][:50]:
            await watch.ask(api.get(f"/runs/{run['id']}?document=true"), f"run {run['id']}")


async def made(api: Caller) -> list[str]:
    """Ids of things that are there, so that calls get further than to a 404."""
    echo, asks = await api.new(MANUAL), await api.new(ASKING)
    await api.post(f"/blueprints/{echo}/versions", json={"note": "first"})
    run = (await api.post(f"/blueprints/{echo}/runs", json={"input": {"total": 1}})).json()["id"]
    asked = (await api.post(f"/blueprints/{asks}/runs", json={"input": {"total": 1}})).json()["id"]
    await api.ended(run)
    await api.ended(asked)
    approval = (await api.get("/approvals")).json()["items"][0]["id"]
    # The one that waits is cancelled: whoever follows its events would wait for ever.
    await api.post(f"/runs/{asked}/cancel")
    live = (await api.post(f"/blueprints/{echo}/deploy")).json()["id"]
    me = (await api.get("/auth/me")).json()["id"]
    return [echo, run, asked, approval, live, me]


def with_id(value: Any, id: str) -> Any:
    """The value with a real id where one belongs."""
    return orjson.loads(orjson.dumps(value).replace(b'"ID"', orjson.dumps(id)))


def sloppy(value: Any) -> bytes:
    """JSON text of anything, as careless programs write it."""
    return json.dumps(value, allow_nan=True).encode()


def odd_text(dice: Random) -> str:
    return str(dice.choice([*ODD, *KEYS])).encode("utf-8", "replace").decode()[:2000]


def form(dice: Random) -> tuple[bytes, dict[str, str]]:
    """A multipart form, mostly a damaged one."""
    name, file = (
        dice.choice(("file", "file", "other", "")),
        dice.choice(("a.txt", "../x", "", "a\\b", "é.csv", "x" * 300)),
    )
    text = (
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: text/plain\r\n\r\nhello\r\n'
        f'--b\r\nContent-Disposition: form-data; name="{dice.choice(("name", "tenant_id", "file"))}"\r\n\r\n'
        f"{dice.choice(('b.txt', '', 'a/b', 'x' * 500))}\r\n--b--\r\n"
    ).encode()
    body = garbled(dice, text) if dice.random() < 0.5 else text
    return body, {
        "Content-Type": dice.choice(("multipart/form-data; boundary=b", "multipart/form-data", "multipart/mixed"))
    }
