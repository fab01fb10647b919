"""Who may call what: every route of the API for everybody, as its declaration says; cookies, CSRF words and tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runtime.policy import PERMISSIONS, Permission, Role
from tests.app.api.conftest import Caller, error_of
from tests.app.conftest import URL, House


def entries(house: House) -> list[tuple[str, str, str]]:
    """(method, path, permission) of every declared route of the API."""
    register = house.door.outer.state.doors.entries
    return [entry for entry in register if entry[1].startswith("/api/")]


def at(path: str, id: str = "nothing_1") -> str:
    """An address of a route, with its parameters filled in."""
    return URL + re.sub(r"\{(\w+)\}", lambda found: "1" if found[1] == "number" else id, path)


def changes(method: str) -> dict[str, Any]:
    return {"json": {}} if method in ("POST", "PUT", "PATCH") else {}


async def test_every_route_is_open_to_exactly_the_roles_that_its_permission_names(
    house: House, callers: dict[str, Caller]
) -> None:
    register = entries(house)
    assert len(register) > 40
    wrong = []
    for method, path, permission in register:
        if path == "/api/v1/auth/logout":  # it would end the session of the one who asks
            continue
        for who, caller in callers.items():
            answer = await caller.request(method, at(path), **changes(method))
            open_to = permission == "anyone" or (
                who != "anonymous" and Permission(permission) in PERMISSIONS[Role(who)]
            )
            code = error_of(answer)["code"] if answer.status_code >= 400 else ""
            refused = code in ("auth.signed_out", "denied")
            if refused is open_to or answer.status_code >= 500 or (refused and answer.status_code not in (401, 403)):
                wrong.append((method, path, permission, who, answer.status_code, code))
    assert wrong == []


async def test_tokens_may_do_what_their_role_may(house: House, api: Caller) -> None:
    for role in Role:
        made = await api.post("/auth/tokens", json={"name": "build", "role": role, "days": 1})
        program = Caller.of(house, token=made.json()["token"])
        del program.headers["origin"]
        me = (await program.get("/auth/me")).json()
        assert (me["kind"], me["role"], me["csrf"]) == ("token", role, "")
        assert set(me["permissions"]) == set(PERMISSIONS[role])
        for method, path, permission in entries(house):
            answer = await program.request(method, at(path), **changes(method))
            denied = answer.status_code == 403 and error_of(answer)["code"] == "denied"
            assert denied is (permission != "anyone" and Permission(permission) not in PERMISSIONS[role]), (
                method,
                path,
            )


async def test_the_roles_differ_where_they_should(house: House, callers: dict[str, Caller]) -> None:
    """The matrix above follows the declarations; these are the declarations that must not change by accident."""
    declared = {(method, path.removeprefix("/api/v1")): permission for method, path, permission in entries(house)}
    expected = {
        ("GET", "/runs/{id}"): "view",
        ("POST", "/check"): "view",
        ("PUT", "/blueprints/{id}"): "edit",
        ("POST", "/blueprints/{id}/restore"): "edit",
        ("POST", "/files"): "edit",
        ("POST", "/blueprints/{id}/runs"): "run",
        ("POST", "/runs/{id}/retry"): "run",
        ("POST", "/runs/{id}/fork"): "run",
        ("POST", "/runs/{id}/cancel"): "run",
        ("POST", "/sandbox"): "run",
        ("POST", "/blueprints/{id}/deploy"): "deploy",
        ("POST", "/deployments/{id}/rollback"): "deploy",
        ("POST", "/approvals/{id}"): "approve",
        ("PUT", "/secrets/{name}"): "secrets",
        ("POST", "/auth/tokens"): "admin",
        ("PATCH", "/people/{id}"): "admin",
        ("PUT", "/settings/model"): "admin",
        ("POST", "/setup"): "anyone",
        ("POST", "/auth/login"): "anyone",
    }
    assert {route: declared[route] for route in expected} == expected
    assert {path for (_, path), permission in declared.items() if permission == "anyone"} == {"/setup", "/auth/login"}
    wrong = [path for (method, path), permission in declared.items() if method != "GET" and permission == "view"]
    assert sorted(wrong) == ["/auth/logout", "/check"]


async def test_who_may_not_call_is_told_so_before_the_body_is_looked_at(callers: dict[str, Caller]) -> None:
    for content in (b"{", b"", b"\xff" * 1000, b"[" * 5000):
        answer = await callers["viewer"].post("/blueprints", content=content, headers={"Content-Type": "text/plain"})
        assert (answer.status_code, error_of(answer)["code"]) == (403, "denied")
        answer = await callers["anonymous"].post("/blueprints", content=content)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "auth.signed_out")


async def test_every_change_with_a_cookie_needs_the_csrf_word(house: House, api: Caller) -> None:
    word = api.headers.pop("x-csrf-token")
    for method, path, permission in entries(house):
        if method == "GET" or permission == "anyone":
            continue
        for wrong in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": ""}):
            answer = await api.request(method, at(path), headers=wrong, **changes(method))
            assert (answer.status_code, error_of(answer)["code"]) == (403, "request.csrf"), (method, path)
    assert (await api.get("/auth/me")).json()["csrf"] == word
    assert (await api.post("/blueprints", json={}, headers={"X-CSRF-Token": word})).status_code == 201


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.2:8080"])
async def test_no_other_site_changes_or_reads_anything(house: House, api: Caller, origin: str) -> None:
    answer = await api.post("/blueprints", json={}, headers={"Origin": origin})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "request.origin")
    answer = await Caller.of(house, Origin=origin).post("/auth/login", json={})
    assert error_of(answer)["code"] == "request.origin"
    read = await api.get("/auth/me", headers={"Origin": origin})
    assert not [name for name in read.headers if name.startswith("access-control")]


async def test_a_password_change_and_signing_out_end_what_they_should(house: House, callers: dict[str, Caller]) -> None:
    viewer, admin = callers["viewer"], callers["admin"]
    me = (await viewer.get("/auth/me")).json()
    assert (await admin.patch(f"/people/{me['id']}", json={"password": "another long password"})).status_code == 204
    assert (await viewer.get("/auth/me")).status_code == 401
    stolen = Caller.of(house, Cookie=f"factory_session={admin.cookies['factory_session']}")
    assert (await stolen.get("/auth/me")).status_code == 200
    assert (await admin.post("/auth/logout")).status_code == 204
    assert (await stolen.get("/auth/me")).status_code == 401


async def test_a_token_stops_working_when_it_is_taken_back(house: House, api: Caller) -> None:
    made = (await api.post("/auth/tokens", json={"name": "build", "role": "viewer"})).json()["token"]
    program = Caller.of(house, token=made)
    assert (await program.get("/runs")).status_code == 200
    listed = (await api.get("/auth/tokens")).json()["items"]
    assert made not in str(listed)
    assert (await api.delete(f"/auth/tokens/{listed[0]['id']}")).status_code == 204
    assert error_of(await program.get("/runs"))["code"] == "auth.signed_out"
    assert (await api.delete(f"/auth/tokens/{listed[0]['id']}")).status_code == 404


async def test_a_changed_role_counts_from_the_next_call_on(callers: dict[str, Caller]) -> None:
    developer, admin = callers["developer"], callers["admin"]
    id = (await developer.get("/auth/me")).json()["id"]
    assert (await developer.post("/blueprints", json={})).status_code == 201
    assert (await admin.patch(f"/people/{id}", json={"role": "viewer"})).status_code == 204
    assert (await developer.post("/blueprints", json={})).status_code == 403
    assert (await admin.patch(f"/people/{id}", json={"disabled": True})).status_code == 204
    assert (await developer.get("/runs")).status_code == 401


async def test_a_team_keeps_somebody_in_charge(api: Caller) -> None:
    id = (await api.get("/auth/me")).json()["id"]
    assert (await api.patch(f"/people/{id}", json={"role": "viewer"})).status_code == 409
    assert (await api.patch(f"/people/{id}", json={"disabled": True})).status_code == 409


async def test_a_token_cannot_decide_what_a_person_must(house: House, api: Caller) -> None:
    made = (await api.post("/auth/tokens", json={"name": "bot", "role": "admin"})).json()["token"]
    answer = await Caller.of(house, token=made).post("/approvals/some", json={"approve": True})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "approval.person")


async def test_the_set_up_word_works_once(house: House, api: Caller) -> None:
    again = {"token": "x" * 43, "name": "Eve", "email": "eve@example.com", "password": "x" * 20, "team": "Other"}
    answer = await Caller.of(house).post("/setup", json=again)
    assert (answer.status_code, error_of(answer)["code"]) == (403, "auth.setup")


async def test_too_many_wrong_passwords_have_to_wait_and_are_told_how_long(house: House, api: Caller) -> None:
    wrong = {"email": "ada@example.com", "password": "guess guess"}
    answers = [await Caller.of(house).post("/auth/login", json=wrong) for _ in range(6)]
    assert [one.status_code for one in answers] == [401] * 5 + [429]
    assert answers[-1].headers["retry-after"] == "900"
    assert error_of(answers[-1])["code"] == "auth.locked"
