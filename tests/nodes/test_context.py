"""What brings data into a run: values, tables, the web, moments and memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nodes.base import Effect, Label, NodeError
from nodes.calls import failure, literal_host
from nodes.filling import check_filling, fill
from nodes.formula import FormulaError
from nodes.page import read_page
from nodes.rows import decode, read_csv, read_json
from nodes.shape import shape_of
from tests.nodes.fakes import FakeContext, FakeHttp, make, run

# --- JSON with formulas ------------------------------------------------------------------------------------------------


def filled(text: str, **names: Any) -> Any:
    context = FakeContext()
    context.names.update(names)
    return fill(context, text)


def test_a_single_formula_keeps_its_kind_and_a_mixed_one_is_a_text() -> None:
    text = '{"total": "{{ total }}", "note": "{{ total }} EUR", "tags": ["{{ tags }}", "x"], "n": 1}'
    assert filled(text, total=12, tags=["a"]) == {"total": 12, "note": "12 EUR", "tags": [["a"], "x"], "n": 1}


def test_what_arrives_cannot_change_the_structure() -> None:
    assert filled('{"name": "{{ name }}"}', name='x", "admin": "yes') == {"name": 'x", "admin": "yes'}


def test_a_formula_without_quotes_is_explained() -> None:
    with pytest.raises(ValueError, match="between quotes"):
        check_filling('{"total": {{ total }}}')


@given(value=st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner)))  # fmt: skip
def test_json_without_formulas_is_itself(value: Any) -> None:
    import orjson

    if "{{" not in (text := orjson.dumps(value).decode()):
        assert filled(text) == value


# --- set values --------------------------------------------------------------------------------------------------------


async def values(value: Any, *rows: dict[str, Any], **settings: Any) -> Any:
    return (await run(make("context.set_values", values=list(rows), **settings), {"value": value}))["value"]


async def test_lines_do_not_see_each_other() -> None:
    swapped = await values({"a": 1, "b": 2}, {"name": "a", "value": "{{ b }}"}, {"name": "b", "value": "{{ a }}"})
    assert swapped == {"a": 2, "b": 1}


async def test_what_arrived_is_never_changed() -> None:
    arrived = {"customer": {"name": "Ada", "tags": []}}
    assert await values(arrived, {"name": "customer.city", "value": "London"}) == {
        "customer": {"name": "Ada", "tags": [], "city": "London"}
    }
    assert arrived == {"customer": {"name": "Ada", "tags": []}}


async def test_a_field_inside_something_else_than_a_record_is_refused() -> None:
    with pytest.raises(NodeError, match="not a record"):
        await values({"customer": "Ada"}, {"name": "customer.city", "value": "London"})


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("any", "{{ items }}", [1, 2]),
        ("text", "{{ total }}", "12"),
        ("number", "{{ total }}.5", 12.5),
        ("yes/no", "yes", True),
        ("formula", "total * 2", 24),
        ("json", '{"all": "{{ items }}"}', {"all": [1, 2]}),
    ],
)
async def test_a_value_becomes_the_kind_it_is_set_to(kind: str, text: str, expected: Any) -> None:
    found = await values({"items": [1, 2], "total": 12}, {"name": "x", "value": text, "kind": kind}, keep=False)
    assert found == {"x": expected}


async def test_what_is_no_number_is_said() -> None:
    with pytest.raises(FormulaError, match="number"):
        await values({}, {"name": "x", "value": "many", "kind": "number"})


async def test_a_text_that_arrives_is_kept_as_a_field() -> None:
    assert await values("hello", {"name": "x", "value": "{{ input | upper }}"}) == {"value": "hello", "x": "HELLO"}


@pytest.mark.parametrize("row", [{"name": "a..b"}, {"name": ""}, {"name": "a", "value": "{", "kind": "json"}, {"name": "a", "kind": "formula"}])  # fmt: skip
def test_wrong_lines_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make("context.set_values", values=[row])


def test_checks_know_what_a_record_holds_afterwards() -> None:
    node = make(
        "context.set_values",
        values=[
            {"name": "customer.city", "value": "x"},
            {"name": "gross", "value": "total * 2", "kind": "formula"},
            {"name": "all", "value": "{{ items }}"},
        ],
    )
    arriving = shape_of({"total": 1, "items": ["a"], "customer": {"name": "Ada"}})
    assert node.shapes({"value": arriving})["value"] == shape_of(
        {"total": 1, "items": ["a"], "customer": {"name": "Ada", "city": "x"}, "gross": 2, "all": ["a"]}
    )


# --- tables ------------------------------------------------------------------------------------------------------------


def rows(text: str, **settings: Any) -> list[Any]:
    return read_csv(text, **{"limit": 1000, **settings})


@pytest.mark.parametrize("text", ["a,b\n1,x\n", "a;b\r\n1;x", "a\tb\n1\tx\n\n", "a|b\n\n1|x", "\ufeffa,b\n1,x", "sep=;\na;b\n1;x", '"a","b"\n"1","x"', "a,b,\n1,x,\n"])  # fmt: skip
def test_csv_is_read_however_it_was_written(text: str) -> None:
    assert rows(text) == [{"a": 1, "b": "x"}]


def test_cells_may_hold_separators_quotes_and_lines() -> None:
    assert rows('a,b\n"x, ""y""","one\ntwo"\n') == [{"a": 'x, "y"', "b": "one\ntwo"}]


def test_a_ragged_row_names_its_line() -> None:
    with pytest.raises(NodeError, match="Line 4 of the CSV has 3 cells, but there are 2 columns") as caught:
        rows('a,b\n"1\n1",2\n1,2,3\n')
    assert caught.value.details == {"line": 4}


@pytest.mark.parametrize(("text", "said"), [('a,b\n1,"2\n', "never closed"), ('a,b\n"1"x,2\n', "closing quote"), ("a,a\n1,2", "two columns")])  # fmt: skip
def test_a_broken_csv_is_explained(text: str, said: str) -> None:
    with pytest.raises(NodeError, match=said):
        rows(text, delimiter="comma")


def test_only_whole_columns_of_numbers_become_numbers() -> None:
    found = rows("zip,n,mixed,ok,big\n01067,1.5,1,Yes,9999999999999999\n10115,,x,no,1\n")
    assert [row["zip"] for row in found] == ["01067", "10115"]
    assert [row["n"] for row in found] == [1.5, None]
    assert [row["mixed"] for row in found] == ["1", "x"]
    assert [row["ok"] for row in found] == [True, False]
    assert found[0]["big"] == "9999999999999999"


def test_cells_stay_texts_when_asked() -> None:
    assert rows("a\n1\n", typed=False) == [{"a": "1"}]


def test_without_names_rows_are_lists() -> None:
    assert rows("1,x\n2,y\n", header=False) == [[1, "x"], [2, "y"]]


def test_a_table_without_rows_is_empty() -> None:
    assert rows("") == rows("a,b\n") == []


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(NodeError, match="more than 2 rows"):
        rows("a\n1\n2\n3\n", limit=2)


@pytest.mark.parametrize("content", ["a;ü".encode(), "a;ü".encode("utf-8-sig"), "a;ü".encode("utf-16"), "a;ü".encode("cp1252")])  # fmt: skip
def test_files_are_read_in_the_usual_encodings(content: bytes) -> None:
    assert decode(content) == "a;ü"


@given(st.text(st.sampled_from('ab1,;"\n\r\t|\0 ') | st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_as_csv_or_explained(text: str) -> None:
    for header in (True, False):
        try:
            found = rows(text, header=header)
        except NodeError as error:
            assert error.message.endswith(".")
        else:
            assert len({len(row) for row in found}) <= 1


_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@given(st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=6))
def test_what_a_csv_writer_wrote_comes_back(table: list[tuple[str, str]]) -> None:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["first", "second"])
    writer.writerows(table)
    kept = [list(row) for row in table if any(row)]
    found = rows(out.getvalue(), typed=False, delimiter="comma")
    assert [list(row.values()) for row in found] == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a": 1}]', [{"a": 1}]),
        ('{"rows": [{"a": 1}], "total": 1}', [{"a": 1}]),
        ('{"a": 1}', [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
    ],
)
def test_json_gives_rows_in_each_usual_form(text: str, expected: list[Any]) -> None:
    assert read_json(text, limit=10) == expected


def test_broken_json_lines_name_the_record() -> None:
    with pytest.raises(NodeError, match="Record 2"):
        read_json('{"a": 1}\n{"a": }\n', limit=10)


async def test_a_spreadsheet_is_turned_away_with_advice() -> None:
    with pytest.raises(NodeError) as caught:
        await run(make("context.read_table", source="file", file="Budget.XLSX"))
    assert "CSV" in (caught.value.fix or "")


@pytest.mark.parametrize("settings", [{"source": "file"}, {"source": "table"}, {"source": "json", "text": "{"}])
def test_a_table_from_nowhere_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make("context.read_table", **settings)


def test_only_stored_data_is_private() -> None:
    assert make("context.read_table", source="table", table="t").labels() == {Label.PRIVATE}
    assert make("context.read_table", text="a\n1").labels() == frozenset()
    assert make("context.read_table", text="a\n1").effect_here() == Effect.E0


# --- HTTP --------------------------------------------------------------------------------------------------------------

URL = "https://api.example.com/orders"


async def ask(reply: Any = "ok", value: Any = None, **settings: Any) -> tuple[dict[str, Any], FakeHttp]:
    context = FakeContext({"http": {URL: reply}})
    out = await run(make("context.http_request", **{"url": URL, **settings}), {"value": value}, context)
    return out, context.http


async def test_values_in_the_query_are_sent_apart_from_the_address() -> None:
    _, http = await ask(
        value={"name": "a&b=c"}, query=[{"name": "q", "value": "{{ name }}"}, {"name": "n", "value": "{{ 3 }}"}]
    )
    assert http.requests[0].url == URL
    assert http.requests[0].params == {"q": "a&b=c", "n": "3"}


async def test_changing_requests_carry_the_key_of_the_step() -> None:
    _, http = await ask(method="POST")
    assert http.requests[0].headers["Idempotency-Key"] == "k" * 64
    _, http = await ask(method="GET")
    assert "Idempotency-Key" not in http.requests[0].headers


@pytest.mark.parametrize(
    ("settings", "header", "sent"),
    [
        ({"auth": "bearer", "secret": "key"}, "Authorization", "Bearer [key]"),
        ({"auth": "basic", "secret": "key", "user": "ada"}, "Authorization", "Basic base64(ada:[key])"),
        ({"auth": "header", "secret": "key", "key_header": "X-Shop"}, "X-Shop", "[key]"),
        ({"headers": [{"name": "X-A", "value": "Token ", "secret": "key"}]}, "X-A", "Token [key]"),
    ],
)
async def test_secrets_go_out_by_name_and_make_the_step_private(
    settings: dict[str, Any], header: str, sent: str
) -> None:
    _, http = await ask(**settings)
    assert http.requests[0].headers[header] == sent
    assert Label.PRIVATE in make("context.http_request", url=URL, **settings).labels()


async def test_bodies() -> None:
    _, http = await ask(method="POST", body_kind="json", body='{"n": "{{ n }}"}', value={"n": 5})
    assert http.requests[0].json == {"n": 5}
    _, http = await ask(method="POST", body_kind="form", body='{"n": "{{ n }}", "t": "a b&c"}', value={"n": 5})
    assert http.requests[0].content == b"n=5&t=a+b%26c"
    assert http.requests[0].headers["Content-Type"] == "application/x-www-form-urlencoded"
    _, http = await ask(method="PUT", body_kind="text", text="Hi {{ n }}", value={"n": 5})
    assert http.requests[0].content == b"Hi 5"


async def test_an_answer_is_data_when_it_says_so() -> None:
    out, _ = await ask({"a": 1})
    assert out["body"] == {"a": 1}
    out, _ = await ask({"a": 1}, answer="text")
    assert out["body"] == '{"a":1}'
    with pytest.raises(NodeError, match="it is not"):
        await ask({"status": 200, "headers": {"content-type": "application/json"}, "body": "<html>"})


@pytest.mark.parametrize(
    ("status", "headers", "retry", "after", "category"),
    [
        (429, {"retry-after": "7"}, True, 7.0, "rate_limit"),
        (503, {"retry-after": "Mon, 02 Mar 2026 09:31:00 GMT", "date": "Mon, 02 Mar 2026 09:30:00 GMT"}, True, 60.0, "remote"),
        (500, {"retry-after": "soon"}, True, None, "remote"),
        (401, {}, False, None, "credential"),
        (404, {}, False, None, "remote"),
        (422, {}, False, None, "remote"),
    ],
)  # fmt: skip
async def test_a_refusal_says_whether_to_try_again(
    status: int, headers: dict[str, str], retry: bool, after: float | None, category: str
) -> None:
    with pytest.raises(NodeError) as caught:
        await ask({"status": status, "headers": headers, "body": "no"})
    error = caught.value
    assert (error.retry, error.after, error.category) == (retry, after, category)
    assert error.details == {"status": status, "body": "no"}


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_wish_to_wait_is_read(after: str, date: str) -> None:
    from nodes.base import HttpReply

    error = failure(HttpReply(503, {"retry-after": after, "date": date}, b"", URL))
    assert error.after is None or 0 <= error.after <= 86_400


async def test_another_status_can_count_as_success() -> None:
    out, _ = await ask({"status": 404, "body": ""}, success="200-299, 404")
    assert out["status"] == 404


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.example.com/{{ id }}", "api.example.com"),
        ("https://API.example.com:8443?q={{ id }}", "api.example.com"),
        ("https://api.example.com", "api.example.com"),
        ("https://api.example.com{{ rest }}", ""),
        ("https://user@{{ host }}/x", ""),
        ("https://api.example.com\\{{ rest }}", ""),
        ("https://api.example.com\\@evil.example/{{ rest }}", ""),
        ("{{ url }}", ""),
        ("https://{{ host }}.example.com/", ""),
        ("ftp://example.com/", ""),
        ("https://[::1", ""),
    ],
)
def test_the_host_is_known_only_when_no_formula_can_change_it(url: str, host: str) -> None:
    assert literal_host(url) == host


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "example.com"},
        {"url": "file:///etc/passwd"},
        {"url": "https://"},
        {"url": URL, "auth": "bearer"},
        {"url": URL, "auth": "basic", "secret": "x"},
        {"url": URL, "success": "2xx"},
        {"url": URL, "success": "299-200"},
        {"url": URL, "headers": [{"name": "a b"}]},
        {"url": URL, "method": "POST", "body_kind": "json", "body": "{{{"},
        {"url": URL, "sample_answer": "{"},
    ],
)
def test_a_wrong_request_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make("context.http_request", **settings)


async def test_an_address_that_a_formula_broke_is_said() -> None:
    with pytest.raises(NodeError, match="not a web address"):
        await run(make("context.http_request", url="{{ input }}"), {"value": "javascript:alert(1)"})


def test_reading_is_harmless_and_changing_is_an_outside_effect() -> None:
    get, post = make("context.http_request", url=URL), make("context.http_request", url=URL, method="POST")
    assert (get.effect_here(), post.effect_here()) == (Effect.E1, Effect.E4)
    assert get.labels() == {Label.UNTRUSTED}
    assert post.labels() == {Label.UNTRUSTED, Label.EXTERNAL}


# --- web page ----------------------------------------------------------------------------------------------------------


def test_a_page_is_read_as_people_see_it() -> None:
    page = read_page(
        "<title>A &amp; B</title><nav><a href='#top'>Top</a></nav><script>var x = '<p>no</p>'</script>"
        "<h1>Title</h1><p>One\n two<br>three</p><table><tr><td>a</td><td>b</td></tr></table><svg><text>no</text></svg>"
        "<p hidden>x</p><a href='/y'>y</a><a href='mailto:a@b.c'>mail</a><a href='javascript:x'>js</a>",
        "https://example.com/dir/page",
    )
    assert page.title == "A & B"
    assert page.text == "Top\n\nTitle\n\nOne two\nthree\n\na b\n\nx\n\nymailjs"
    assert page.links == [
        {"text": "Top", "url": "https://example.com/dir/page"},
        {"text": "y", "url": "https://example.com/y"},
    ]


@given(st.lists(st.sampled_from(["<p>", "</p>", "<a href='x'>", "</a>", "<!--", "-->", "<script>", "</script>", "<head>", "</head>", "<title>", "<base href='//y'>", "<", ">", "&", "&#x110000;", "text", "\n", "<svg/>", '"', "<a href='http://[x'>"]), max_size=40).map("".join))  # fmt: skip
def test_any_page_is_read(html: str) -> None:
    page = read_page(html, "https://example.com/")
    assert "\n\n\n" not in page.text
    assert all(link["url"].startswith("http") for link in page.links)


@pytest.mark.parametrize("piece", ["<!--", "<a b ", "<a href='", "<svg>", "<svg></p>", "<a/", "</", "&#", "<![CDATA["])
def test_a_hostile_page_takes_no_more_time_than_its_length(piece: str) -> None:
    assert len(read_page(piece * (1_000_000 // len(piece)), "https://example.com/").text) <= 1_000_000


async def test_a_page_in_an_old_encoding_is_read() -> None:
    body = '<meta charset="windows-1252"><p>Straße'.encode("cp1252")
    reply = {"status": 200, "headers": {"content-type": "text/html"}, "body": body}
    out = await run(make("context.web_page", url=URL), context=FakeContext({"http": {URL: reply}}))
    assert out["text"] == "Straße"


async def test_what_is_no_page_is_said() -> None:
    reply = {"status": 200, "headers": {"content-type": "image/png"}, "body": b"\x89PNG"}
    with pytest.raises(NodeError, match="image/png"):
        await run(make("context.web_page", url=URL), context=FakeContext({"http": {URL: reply}}))


# --- moments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do": "add", "moment": "2026-01-31", "amount": "1", "unit": "months"}, "2026-02-28"),
        ({"do": "add", "moment": "2026-03-02T08:00:00Z", "amount": "-30", "unit": "minutes"}, "2026-03-02T08:30:00+01:00"),
        ({"do": "difference", "moment": "2026-03-02", "other": "2026-02-23", "unit": "weeks"}, 1),
        ({"do": "start", "moment": "2026-03-04", "start": "week"}, "2026-03-02"),
        ({"do": "weekday"}, "Monday"),
        ({"do": "write", "style": "time"}, "10:30"),
        ({"do": "write", "moment": "2026-03-02", "style": "pattern", "pattern": "D.M.YY"}, "2.3.26"),
        ({"do": "read", "moment": "2026-03-02 08:00"}, "2026-03-02T08:00:00+01:00"),
        ({"do": "read", "moment": "{{ 1772438400 }}"}, "2026-03-02T09:00:00+01:00"),
    ],
)  # fmt: skip
async def test_calculations_with_moments(settings: dict[str, Any], expected: Any) -> None:
    context = FakeContext({"time_zone": "Europe/Berlin"})
    assert (await run(make("context.date_time", **settings), context=context))["value"] == expected


async def test_what_is_no_date_is_said() -> None:
    with pytest.raises(FormulaError, match="date"):
        await run(make("context.date_time", do="read", moment="soon"))


# --- memory ------------------------------------------------------------------------------------------------------------


async def test_what_is_remembered_is_found_again() -> None:
    context = FakeContext()
    await run(make("context.remember", key="k {{ id }}", value="{{ input }}"), {"value": {"id": 1}}, context)
    assert await run(make("context.recall", key="k 1"), {}, context) == {"value": {"id": 1}, "found": True}


async def test_nothing_remembered_differs_from_nothing_there() -> None:
    context = FakeContext({"memory": {"k": None}})
    recall = make("context.recall", key="k", default="else")
    assert await run(recall, {}, context) == {"value": None, "found": True}
    assert await run(recall, {}, FakeContext()) == {"value": "else", "found": False}


@pytest.mark.parametrize("value", ["", None, {"a": 1}, True, "x" * 300])
async def test_a_name_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(NodeError):
        await run(make("context.remember", key="{{ input }}"), {"value": value})


async def test_appending_to_something_else_than_a_list_is_refused() -> None:
    with pytest.raises(NodeError, match="no list"):
        await run(make("context.remember", key="k", mode="append"), {"value": 1}, FakeContext({"memory": {"k": 5}}))
