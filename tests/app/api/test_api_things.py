"""What a team keeps, over HTTP: files, tables, secrets, its model; and what there is: node types, workers, the reference."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from nodes.catalog import catalog
from runtime.policy import Permission
from tests.app.api.conftest import Caller, error_of
from tests.app.api.test_api_roles import entries
from tests.app.conftest import URL, House

MIB = 1024 * 1024

# --- files and tables --------------------------------------------------------------------------------------------

NAMES = ["prices.csv", "a;b.csv", "ümlaut ✓.txt", "..", "%2e%2e", "x" * 200, 'quo"te.txt', "a\u202eb.txt", "dot."]


async def test_a_file_comes_back_as_it_was_under_any_name(api: Caller) -> None:
    for name in NAMES:
        content = bytes(range(256)) * 8
        kept = await api.post("/files", files={"file": ("other", content, "text/csv")}, data={"name": name})
        assert (kept.status_code, kept.json()["name"], kept.json()["size"]) == (201, name, len(content))
        got = await api.get("/files/content", params={"name": name})
        assert got.content == content
        assert got.headers["content-disposition"].startswith("attachment;")
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in got.headers["content-security-policy"]
        assert (await api.delete("/files", params={"name": name})).status_code == 204
        gone = await api.get("/files/content", params={"name": name})
        assert (gone.status_code, error_of(gone)["code"]) == (404, "not_found")


async def test_a_name_that_could_be_a_path_is_refused(api: Caller) -> None:
    for name in ("", " ", "a/b", "../../etc/passwd", "a\\b", "\x00", "a\nb", "x" * 201):
        answer = await api.post("/files", files={"file": ("", b"x", "text/plain")}, data={"name": name})
        assert answer.status_code in (400, 422), answer.text
        error_of(answer)
        assert (await api.get("/files")).json()["items"] == []


async def test_a_file_is_as_large_as_it_may_be_and_no_larger(api: Caller) -> None:
    fits = await api.post("/files", files={"file": ("big", b"x" * (25 * MIB), "text/plain")})
    assert (fits.status_code, fits.json()["size"]) == (201, 25 * MIB)
    over = await api.post("/files", files={"file": ("big2", b"x" * (25 * MIB + 1), "text/plain")})
    assert (over.status_code, error_of(over)["code"]) == (413, "limit.upload_bytes")
    far = await api.post("/files", files={"file": ("big3", b"x" * (26 * MIB), "text/plain")})
    assert (far.status_code, error_of(far)["code"]) == (413, "request.too_large")
    assert [one["name"] for one in (await api.get("/files")).json()["items"]] == ["big"]


async def test_a_form_has_one_file_and_nothing_that_nobody_asked_for(api: Caller) -> None:
    file = ("a.txt", b"x", "text/plain")
    for bad in (
        {"files": {"other": file}},
        {"files": {"file": file}, "data": {"tenant_id": "x"}},
        {"files": {"file": file}, "data": {"hash": "x"}},
        {"files": [("file", file), ("file", file)]},
        {"files": {"file": file, "name": file}},
        {"files": {"file": file}, "data": {"name": "a", "more": "b"}},
        {"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"--x\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"--x--", "headers": {"Content-Type": "multipart/form-data"}},
    ):
        answer = await api.post("/files", **bad)  # type: ignore[arg-type]
        assert answer.status_code in (400, 422), (bad, answer.text)
        error_of(answer)
    assert (await api.get("/files")).json()["items"] == []


async def test_no_file_is_ever_shown_as_a_page(api: Caller) -> None:
    for kind in ("text/html", "image/svg+xml", "text/html; charset=x\r\nX-Evil: 1", "x", "", "a/b/c", "é/x"):
        content = b"<script>alert(1)</script>"
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="p.html"\r\nContent-Type: {kind}\r\n\r\n'
        answer = await api.post(
            "/files",
            content=head.encode() + content + b"\r\n--x--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert answer.status_code in (201, 400), answer.text
        if answer.status_code == 201:
            got = await api.get("/files/content?name=p.html")
            assert got.content == content
            assert got.headers["content-disposition"].startswith("attachment;")
            assert re.fullmatch(r"[a-z+.-]+/[a-z+.-]+(; charset=utf-8)?", got.headers["content-type"])
            assert "x-evil" not in got.headers


async def test_a_table_is_looked_into_and_deleted(house: House, api: Caller) -> None:
    tenant = await house.auth.first_tenant()
    await house.factory.shelves.append_rows(tenant, "orders; old", [{"n": n} for n in range(5)])
    assert (await api.get("/tables")).json()["items"] == [{"name": "orders; old", "rows": 5}]
    rows = await api.get("/tables/rows", params={"table": "orders; old", "limit": 2})
    assert rows.json() == {"items": [{"n": 0}, {"n": 1}]}
    assert (await api.delete("/tables", params={"table": "orders; old"})).status_code == 204
    assert (await api.get("/tables/rows", params={"table": "orders; old"})).status_code == 404
    assert (await api.delete("/tables", params={"table": "orders; old"})).status_code == 404


# --- secrets and settings ----------------------------------------------------------------------------------------


async def test_a_secret_can_be_written_and_never_read(house: House, api: Caller) -> None:
    value = "sk-canary-5d1f"
    assert (await api.put("/secrets/shop key", json={"value": value})).status_code == 204
    assert [one["name"] for one in (await api.get("/secrets")).json()["items"]] == ["shop key"]
    for method, path, _ in entries(house):
        if method == "GET":
            address = URL + re.sub(r"\{\w+\}", "shop key", path)
            assert value not in (await api.get(address)).text, path
    assert (await api.get("/secrets/shop key")).status_code == 405
    assert value.encode() not in b"".join(path.read_bytes() for path in house.settings.home.glob("factory.db*"))
    assert (await api.delete("/secrets/shop key")).status_code == 204
    assert (await api.delete("/secrets/shop key")).status_code == 404


async def test_a_value_that_is_refused_is_not_repeated(api: Caller) -> None:
    answer = await api.put("/secrets/key", json={"value": "s3cret" * 10_000})
    assert answer.status_code == 422
    assert "s3cret" not in answer.text
    answer = await api.post(
        "/people", json={"name": "A", "email": "no address", "password": "s3cret words here", "role": "x"}
    )
    assert answer.status_code == 422
    assert "s3cret" not in answer.text


async def test_the_model_is_chosen_by_the_name_of_its_secret(api: Caller) -> None:
    chosen = {"model": "openai/some", "base_url": "https://api.example.com/v1", "secret": "key"}
    assert (await api.put("/settings/model", json=chosen)).json() == chosen
    assert (await api.get("/settings/model")).json() == chosen
    wrong = await api.put("/settings/model", json={**chosen, "base_url": "ftp://x"})
    assert (wrong.status_code, error_of(wrong)["code"]) == (422, "model.invalid")
    assert (await api.put("/settings/model", json={})).json() == {"model": "", "base_url": "", "secret": ""}


async def test_people_are_added_once(api: Caller) -> None:
    new = {"name": "Bob", "email": "Bob@Example.com", "password": "three unrelated words", "role": "viewer"}
    made = await api.post("/people", json=new)
    assert (made.status_code, made.json()["email"], made.json()["role"]) == (201, "bob@example.com", "viewer")
    assert "password" not in made.text
    assert (await api.post("/people", json=new)).status_code == 409
    weak = await api.post("/people", json={**new, "email": "c@example.com", "password": "short"})
    assert (weak.status_code, error_of(weak)["where"]["field"]) == (422, "password")
    assert len((await api.get("/people")).json()["items"]) == 2


# --- what there is -----------------------------------------------------------------------------------------------


async def test_every_node_type_is_described(api: Caller) -> None:
    listed = (await api.get("/node-types")).json()["items"]
    assert [one["type"] for one in listed] == [cls.type for cls in catalog()]
    for one in listed:
        assert (await api.get(f"/node-types/{one['type']}")).json() == one
    assert (await api.get("/node-types/no.such")).status_code == 404


async def test_without_workers_the_pool_is_nothing(api: Caller) -> None:
    assert (await api.get("/workers")).json() == {"pool": None, "problem": None}


# --- the reference -----------------------------------------------------------------------------------------------


async def test_the_reference_names_every_route_with_what_it_asks_for(house: House, api: Caller) -> None:
    document = (await api.get(f"{URL}/api/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    described = {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    for method, path, permission in entries(house):
        if path == "/api/docs":
            continue
        operation = described.pop((method, path))
        assert operation["summary"] and operation["description"] and operation["tags"], path
        if permission == "anyone":
            assert operation["security"] == []
        else:
            assert operation["x-permission"] == permission
            assert {"token": []} in operation["security"]
            assert ({"session": [], "csrf": []} in operation["security"]) is (method != "GET")
            assert {"401", "422"} <= set(operation["responses"]) or path == "/api/openapi.json"
        good = [answer for status, answer in operation["responses"].items() if status < "300"]
        assert good
        for status, answer in operation["responses"].items():
            assert answer["description"]
            if status >= "400":
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}
        if "{id}" in path or "{name}" in path:
            assert "404" in operation["responses"] or method == "PUT"
    assert described == {}
    assert {
        Permission(one["x-permission"])
        for ops in document["paths"].values()
        for one in ops.values()
        if "x-permission" in one
    } == set(Permission)


async def test_every_reference_in_the_reference_leads_somewhere(api: Caller) -> None:
    answer = await api.get(f"{URL}/api/openapi.json")
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert names <= set(answer.json()["components"]["schemas"])
    assert {"Blueprint", "Placed", "Refusal"} <= names


async def test_a_definition_goes_in_only_through_routes_for_people_who_may(api: Caller) -> None:
    document = (await api.get(f"{URL}/api/openapi.json")).json()
    taking = {
        (method, path, operation.get("x-permission"))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "schemas/Blueprint" in str(operation.get("requestBody"))
    }
    assert taking == {
        ("post", "/api/v1/blueprints", "edit"),
        ("put", "/api/v1/blueprints/{id}", "edit"),
        ("post", "/api/v1/check", "view"),
    }


class _Page(HTMLParser):
    """What a page loads and links to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.scripts = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name == "src" or (tag == "link" and name == "href")]
        self.links += [found["href"] or ""] if tag == "a" and "href" in found else []
        self.ids |= {found["id"] or ""} if "id" in found else set()


async def test_the_page_of_the_reference_needs_no_script_and_no_other_server(house: House, api: Caller) -> None:
    answer = await api.get(f"{URL}/api/docs", headers={"Accept": "text/html"})
    page = _Page(answer.text)
    assert answer.status_code == 200
    assert page.scripts == 0
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for address in page.loads:
        assert (await house.browser().get(address)).status_code == 200, address
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    for method, path, _ in entries(house):
        if path != "/api/docs":
            assert path in answer.text, (method, path)


async def test_strangers_are_asked_to_sign_in_and_brought_back(house: House, api: Caller) -> None:
    answer = await house.browser().get("/api/docs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fapi%2Fdocs")
    assert (await Caller.of(house).get(f"{URL}/api/openapi.json")).status_code == 401
