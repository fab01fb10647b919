"""How requests are read and refused: one shape for all errors, types decided by the route, no field that nobody asked for."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from app.api.contract import Refusal
from app.api.reference import describe
from storage.tables import metadata
from tests.app.api.conftest import MANUAL, Caller, error_of
from tests.app.api.test_api_roles import at, entries
from tests.app.conftest import URL, House

JSON = {"Content-Type": "application/json"}
COLUMNS = sorted({column.name for table in metadata.tables.values() for column in table.columns})
NOT_FOR_CLIENTS = {"tenant_id", "tenant", "owner", "password_hash", "token_hash", "hash", "revoked_at", "started_by"}


# --- addresses and methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v2/runs", "/api/v1/nothing", "/api/v1/runs/a/b/c",
                                  "/api/v1/blueprints/", "/api/openapi.yaml", "/api/docs/"])  # fmt: skip
async def test_an_address_that_is_not_there_says_so(api: Caller, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        for accept in ("application/json", "text/html", "*/*"):
            answer = await api.request(method, URL + path, headers={"Accept": accept})
            assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


async def test_a_method_that_an_address_does_not_take_is_refused_with_those_that_it_takes(
    house: House, api: Caller
) -> None:
    takes: dict[str, set[str]] = {}
    for method, path, _ in entries(house):
        takes.setdefault(at(path), set()).add(method)
    for address in takes:
        known = {method for path in takes for method in takes[path] if path == address}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - known:
            answer = await api.request(method, address)
            if answer.status_code == 405:
                error = error_of(answer)
                assert error["code"] == "method"
                assert set(answer.headers["allow"].split(", ")) >= known
            else:  # the address also is another route's, with a parameter in its place: /blueprints/{id}, /blueprints/schema
                assert any(method in found for path, found in takes.items() if path.count("/") == address.count("/"))


# --- types -------------------------------------------------------------------------------------------------------


async def json_routes(house: House) -> list[tuple[str, str]]:
    """(method, path) of the routes that take a JSON body."""
    return [
        (method.upper(), path)
        for path, operations in describe(house.door.outer)["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


LYING = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "", "json",
         "application/json-patch", "text/json", "image/png", "application/xml", "*/*"]  # fmt: skip


async def test_a_route_decides_the_type_of_its_body_not_the_client(house: House, api: Caller) -> None:
    for kind in LYING:
        content = b'{"files": [{"filepath": "/etc/passwd"}], "name": "x"}'
        routes = await json_routes(house)
        assert len(routes) > 12
        for method, path in routes:
            answer = await api.request(
                method, at(path), content=content, headers={"Content-Type": kind} if kind else {}
            )
            assert (answer.status_code, error_of(answer)["code"]) == (415, "request.type"), (method, path)
            assert "application/json" in error_of(answer)["fix"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_an_upload_is_a_multipart_form_and_never_a_path(api: Caller, kind: str) -> None:
    content = b'{"file": {"filepath": "/etc/passwd", "filename": "x"}}'
    answer = await api.post("/files", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "request.type")
    assert (await api.get("/files")).json()["items"] == []


async def test_json_with_a_charset_or_a_vendor_type_is_json(api: Caller) -> None:
    for kind in ("application/json; charset=utf-8", "application/vnd.agent+json", "APPLICATION/JSON"):
        answer = await api.post("/blueprints", content=b'{"name": "x"}', headers={"Content-Type": kind})
        assert answer.status_code == 201, answer.text


# --- values ------------------------------------------------------------------------------------------------------

NOT_JSON = {
    "cut off": b'{"name": "x',
    "empty": b" ",
    "not UTF-8": b'{"name": "\xff"}',
    "half a character": b'{"name": "\\ud800"}',
    "NaN": b'{"input": NaN}',
    "infinity": b'{"input": 1e999}',
    "two values": b"{} {}",
    "a comment": b"{} // yes",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "far too deep": b"[" * 100_000,
    "deep": b'{"input": ' + b"[" * 80 + b"]" * 80 + b"}",
}


async def test_what_is_not_plain_json_is_refused_with_the_place(house: House, api: Caller) -> None:
    for content in NOT_JSON.values():
        for method, path in await json_routes(house):
            answer = await api.request(method, at(path), content=content, headers=JSON)
            error = error_of(answer)
            assert answer.status_code == 422, (method, path, answer.text)
            assert error["code"].partition(".")[2] in ("json", "depth", "invalid"), error


async def test_a_body_that_is_no_record_of_the_right_fields_is_refused(house: House, api: Caller) -> None:
    for value in (None, 1, "text", [], True, [{}], {"": ""}):
        for method, path in await json_routes(house):
            answer = await api.request(method, at(path), content=orjson.dumps(value), headers=JSON)
            fine = value is None and answer.status_code in (200, 201, 202, 404)  # no order is an order like any other
            assert fine or answer.status_code in (422, 428), (method, path, answer.status_code, answer.text)
            assert fine or error_of(answer)["code"] in ("request.invalid", "blueprint.invalid", "blueprint.json")


async def test_a_field_that_nobody_asked_for_is_an_error_whatever_its_name(house: House, api: Caller) -> None:
    """Mass assignment: the name of every column of every table, in every body that is taken."""
    assert {"tenant_id", "password_hash", "role", "revision", "content_hash"} <= set(COLUMNS)
    document = describe(house.door.outer)
    tried = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None:
                continue
            known = fields(body["schema"], document)
            for column in set(COLUMNS) | NOT_FOR_CLIENTS:
                if column in known:
                    continue
                answer = await api.request(method.upper(), at(path), content=orjson.dumps({column: "x"}), headers=JSON)
                assert answer.status_code == 422, (method, path, column, answer.text)
                assert column in error_of(answer)["message"] or column in str(error_of(answer)["where"])
                tried += 1
    assert tried > 800


async def test_no_body_has_a_field_for_what_only_we_decide(house: House) -> None:
    document = describe(house.door.outer)
    roles = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                known = fields(content["schema"], document)
                assert not known & NOT_FOR_CLIENTS, (method, path)
                if "role" in known and "/crews/" not in path:  # there it is a word of the crew's, and no right
                    roles.add((method, path.removeprefix("/api/v1")))
    assert roles == {("post", "/auth/tokens"), ("post", "/people"), ("patch", "/people/{id}")}


def fields(schema: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """The names of the fields that a body may have."""
    if "$ref" in schema:
        return fields(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    return set(schema.get("properties", {})).union(*(fields(one, document) for one in schema.get("anyOf", ())))


async def test_numbers_beyond_ours_are_refused(api: Caller) -> None:
    id = await api.new()
    for number in ("0", "-1", "2147483648", "9" * 30, "1.5", "x", "１"):
        for address in (f"/blueprints/{id}/versions/{number}", f"/blueprints/{id}/diff?from={number}", f"/runs?limit={number}",
                        f"/blueprints/{id}/export?version={number}"):  # fmt: skip
            answer = await api.get(address)
            assert answer.status_code in (404, 422), (address, answer.text)
            error_of(answer)
        answer = await api.put(f"/blueprints/{id}?revision={number}", json=MANUAL)
        assert answer.status_code in (422, 409), answer.text
        answer = await api.put(f"/blueprints/{id}", json=MANUAL, headers={"If-Match": f'"{number}"'.encode()})
        assert answer.status_code in (428, 409), answer.text


# --- sizes -------------------------------------------------------------------------------------------------------


async def test_every_route_has_a_largest_body(house: House, api: Caller) -> None:
    doors = house.door.outer.state.doors
    for method, path, permission in entries(house):
        if method == "GET" or path.endswith("/logout"):
            continue
        limit = doors.limit(method, path.replace("{", "").replace("}", ""))
        assert limit <= 26 * 1024 * 1024
        if permission == "anyone" or limit > 3 * 1024 * 1024:
            continue
        answer = await api.request(method, at(path), content=b" " * (limit + 1), headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "request.too_large"), (method, path)


async def test_ten_megabytes_are_too_much_announced_or_not(api: Caller) -> None:
    document = orjson.dumps({"name": "x", "description": "y" * 10_000_000})
    for address in ("/blueprints", "/check"):
        answer = await api.post(address, content=document, headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "request.too_large")

        async def pieces() -> Any:
            for place in range(0, len(document), 65536):
                yield document[place : place + 65536]

        answer = await api.post(address, content=pieces(), headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "request.too_large")


async def test_a_document_between_its_own_limit_and_the_routes_is_refused_in_words(api: Caller) -> None:
    node = {"type": "action.text_template", "settings": {"text": "y" * 100_000}}
    document = {"name": "x", "nodes": [{"id": f"n{place}", **node} for place in range(22)]}
    answer = await api.post("/blueprints", json=document)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "blueprint.size")


# --- the shape of errors -----------------------------------------------------------------------------------------


async def test_a_database_that_is_gone_is_said_in_words_with_when_to_come_back(house: House, api: Caller) -> None:
    await house.factory.db.stop()
    for address in ("/blueprints", "/runs", "/approvals"):
        answer = await api.get(address)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "storage.stopped")
        assert int(answer.headers["retry-after"]) > 0
    await house.factory.db.start()
    assert (await api.get("/blueprints")).status_code == 200


async def test_every_refusal_is_one_that_the_reference_names(house: House, api: Caller) -> None:
    answers: list[httpx.Response] = [
        await api.get("/runs/none"),
        await api.get("/runs?limit=x"),
        await api.post("/check"),
    ]
    for answer in answers:
        Refusal.model_validate(answer.json())
