"""Actions that do something: models, code, e-mail, webhooks, Slack, tables and files."""

import csv
import hashlib
import hmac
import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.base import Effect, Label, LlmReply, NodeError, PortType
from runtime.egress import Egress
from tests.fakes.http_server import Answer, Asked, HttpServer
from tests.nodes.fakes import FakeContext, fired, make, run


async def wrong(type_: str, arriving: Any, context: FakeContext | None = None, **settings: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await run(make(f"action.{type_}", **settings), {"value": arriving}, context)
    return caught.value


def refused(type_: str, **settings: Any) -> str:
    with pytest.raises(ValueError) as caught:
        make(f"action.{type_}", **settings)
    return str(caught.value)


async def pretended(type_: str, arriving: Any, **settings: Any) -> tuple[str, dict[str, Any], FakeContext]:
    node = make(f"action.{type_}", **settings)
    context = FakeContext(sandbox=True)
    context.bind(node, {"value": arriving})
    simulated = await node.simulate(context, value=arriving)
    return simulated.sentence, fired(simulated.out), context


# --- ask a model ------------------------------------------------------------------------------------------------------


async def test_the_model_gets_role_prompt_and_settings():
    context = FakeContext({"llm": "Fine."})
    node = make(
        "action.ask_model",
        prompt="{{ n }}",
        system="Be {{ how }}.",
        model=" m/x ",
        temperature=0,
        max_tokens=9,
        timeout=5,
    )
    got = await run(node, {"value": {"n": 3, "how": "brief"}}, context)
    assert got["text"] == "Fine."
    assert context.llm.asked == [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3"}],
            "model": "m/x",
            "temperature": 0,
            "max_tokens": 9,
            "schema": None,
            "tools": None,
            "timeout": 5,
        }
    ]
    assert "data" not in got


async def test_fields_become_a_schema_in_which_everything_is_required():
    context = FakeContext({"llm": {"mood": "good", "tags": []}})
    choice = {"name": "mood", "kind": "choice", "choices": ["good", "bad"], "description": "how it feels"}
    node = make(
        "action.ask_model", prompt="x", answer="fields", fields=[choice, {"name": "tags", "kind": "list of texts"}]
    )
    got = await run(node, {"value": None}, context)
    assert got["data"] == {"mood": "good", "tags": []}
    assert context.llm.asked[0]["schema"] == {
        "type": "object",
        "properties": {
            "mood": {"type": "string", "enum": ["good", "bad"], "description": "how it feels"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["mood", "tags"],
        "additionalProperties": False,
    }


async def test_samples_and_cut_off_answers_say_so_in_the_log():
    context = FakeContext({"llm": LlmReply("(sample)", "sample", canned=True)})
    got = await run(make("action.ask_model", prompt="x"), {"value": None}, context)
    assert got["usage"]["sample"] is True
    assert "sample" in context.logged[0][0]
    context = FakeContext({"llm": LlmReply("half an", "m", finish_reason="length")})
    await run(make("action.ask_model", prompt="x", max_tokens=7), {"value": None}, context)
    assert "cut off after 7 tokens" in context.logged[0][0]


def test_ports_follow_the_kind_of_answer():
    assert [port.name for port in make("action.ask_model", prompt="x").outputs()] == ["text", "usage"]
    node = make("action.ask_model", prompt="x", answer="fields", fields=[{"name": "a"}])
    assert [port.name for port in node.outputs()] == ["data", "text", "usage"]
    assert list(node.shapes({})["data"].fields) == ["a"]


def test_fields_that_make_no_sense_are_refused():
    assert "at least one field" in refused("ask_model", prompt="x", answer="fields")
    assert "twice" in refused("ask_model", prompt="x", answer="fields", fields=[{"name": "a"}, {"name": "a"}])
    assert "needs choices" in refused(
        "ask_model", prompt="x", answer="fields", fields=[{"name": "a", "kind": "choice"}]
    )
    assert "pattern" in refused("ask_model", prompt="x", answer="fields", fields=[{"name": "a b"}])


async def test_an_answer_without_fields_is_the_models_fault():
    context = FakeContext({"llm": LlmReply("hm", "m", data=None)})
    error = await wrong("ask_model", None, context, prompt="x", answer="fields", fields=[{"name": "a"}])
    assert (error.category, error.retry) == ("model", True)


# --- run code ---------------------------------------------------------------------------------------------------------


async def test_code_gets_what_arrived_whole_and_by_field():
    context = FakeContext({"worker": 1})
    await run(make("action.run_code", code="x", timeout=2), {"value": {"a": 1, "not a name": 2, "input": 3}}, context)
    arriving = {"a": 1, "not a name": 2, "input": 3}
    assert context.worker.jobs == [("x", {"a": 1, "input": arriving})]
    context = FakeContext({"worker": 1})
    await run(make("action.run_code"), {"value": [1]}, context)
    assert context.worker.jobs[0][1] == {"input": [1]}


async def test_javascript_is_given_to_a_worker_that_has_it():
    context = FakeContext({"worker": 1})
    node = make("action.run_code", language="javascript", javascript="// js\nreturn a", code="python", size="large")
    await run(node, {"value": {"a": 1}}, context)
    assert context.worker.jobs == [("// js\nreturn a", {"a": 1, "input": {"a": 1}})]
    assert context.worker.asked == [{"language": "javascript", "timeout": 30, "size": "node", "reads": [], "keeps": []}]
    assert (node.worker_size(), node.describe()) == ("node", "return a")


async def test_files_change_what_code_is_and_does():
    plain, reads, keeps = make("action.run_code"), {"reads": ["a.csv"]}, {"keeps": ["b.csv", "*.png"]}
    assert [port.name for port in plain.outputs()] == ["result", "printed"]
    assert (plain.effect_here(), plain.labels()) == (Effect.E1, frozenset())
    assert make("action.run_code", **reads).labels() == {Label.PRIVATE}
    node = make("action.run_code", **keeps)
    assert [port.name for port in node.outputs()] == ["result", "printed", "files"]
    assert node.effect_here() == Effect.E2
    assert fired(await node.run(FakeContext({"worker": 1}))) == {"result": 1, "printed": "", "files": []}


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "/etc/passwd", "a\\b", "a\nb", "x" * 201])
def test_a_file_of_the_code_has_a_plain_name(name: str):
    for field in ("reads", "keeps"):
        assert field in refused("run_code", **{field: [name]})


async def test_an_error_of_the_code_is_passed_on_as_it_is():
    error = await wrong(
        "run_code", None, FakeContext({"worker": NodeError("Line 3: no.", category="worker")}), code="x"
    )
    assert error.message == "Line 3: no."


# --- e-mail -----------------------------------------------------------------------------------------------------------


async def test_an_email_is_filled_in():
    context = FakeContext()
    settings = {
        "to": "{{ list }}",
        "subject": "N {{ n }}",
        "body": "{{ n }}",
        "html": "<b>{{ n }}</b>",
        "sender": "a@b.c",
    }
    node = make("action.send_email", **settings)
    got = await run(node, {"value": {"list": ["x@y.z", " x@y.z", "q@y.z"], "n": 3}}, context)
    assert got["to"] == ["x@y.z", "q@y.z"]
    assert context.mail.sent == [
        {"to": ["x@y.z", "q@y.z"], "subject": "N 3", "text": "3", "html": "<b>3</b>", "sender": "a@b.c"}
    ]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("{{ nobody }}", "no recipient"),
        (" , ;", "no recipient"),
        ("Ada", "not an e-mail"),
        ("{{ many }}", "at most 50"),
    ],
)
async def test_recipients_that_cannot_be_are_refused(to: str, said: str):
    arriving = {"nobody": None, "many": [f"a{n}@b.c" for n in range(51)]}
    assert said in (await wrong("send_email", arriving, to=to)).message


async def test_the_sandbox_says_what_it_would_mail():
    sentence, out, context = await pretended(
        "send_email", {"who": "ada@b.c"}, to="{{ who }}", subject="Hi", body="Text"
    )
    assert sentence == "would e-mail ada@b.c: “Hi”"
    assert out == {"id": "<sample@sandbox.invalid>", "to": ["ada@b.c"]}
    assert context.logged == [("The message", {"text": "Text"})]


# --- webhook ----------------------------------------------------------------------------------------------------------

URL = "https://api.example.com/orders"


async def sent(arriving: Any, reply: Any = "ok", **settings: Any) -> Any:
    context = FakeContext({"http": {f"{settings.get('method', 'POST')} {URL}": reply}})
    await run(make("action.send_webhook", url=URL, **settings), {"value": arriving}, context)
    return context.http.requests[0]


async def test_a_webhook_sends_what_arrived_or_what_was_written():
    request = await sent({"a": 1})
    assert orjson.loads(request.content) == {"a": 1}
    assert request.headers["Content-Type"] == "application/json"
    request = await sent({"a": 1}, send="json", json_body='{"b": "{{ a }}"}', method="PATCH")
    assert orjson.loads(request.content) == {"b": 1}
    request = await sent({"a": 1}, send="text", text="a={{ a }}")
    assert (request.content, request.headers["Content-Type"]) == (b"a=1", "text/plain; charset=utf-8")
    request = await sent({"a": 1}, send="nothing")
    assert request.content == b""
    assert "Content-Type" not in request.headers


async def test_a_webhook_carries_a_key_that_stays_the_same_and_cannot_be_replaced():
    request = await sent({}, headers=[{"name": "Idempotency-Key", "value": "mine"}])
    assert request.headers["Idempotency-Key"] == request.headers["X-Factory-Event"] == "k" * 64


async def test_tokens_are_sent_by_name():
    request = await sent({}, headers=[{"name": "Authorization", "value": "Bearer ", "secret": "token"}])
    assert request.headers["Authorization"] == "Bearer [token]"


async def test_a_signed_webhook_can_be_checked_by_its_receiver():
    async def answer(asked: Asked) -> Answer:
        return Answer(202, {"taken": True})

    async def reveal(name: str) -> str:
        return {"key": "s1gning-key"}[name]

    async with HttpServer(answer) as server, Egress(exceptions=[server.place]) as egress:
        context = FakeContext()
        context.http = egress.door("t", ["127.0.0.1"], reveal)  # type: ignore[assignment]
        got = await run(make("action.send_webhook", url=server.url, sign_with="key"), {"value": {"ü": 1}}, context)
        asked = server.asked[0]
    assert (got["status"], got["body"]) == (202, {"taken": True})
    stamp = asked.headers["x-factory-timestamp"]
    digest = hmac.new(b"s1gning-key", b"v1." + stamp.encode() + b"." + asked.body, hashlib.sha256).hexdigest()
    assert asked.headers["x-factory-signature"] == f"v1={digest}"
    assert stamp == f"{context.now().timestamp():.6f}"


@pytest.mark.parametrize(
    ("status", "headers", "category", "retry", "after"),
    [
        (400, {}, "remote", False, None),
        (401, {}, "credential", False, None),
        (404, {}, "remote", False, None),
        (429, {"retry-after": "12"}, "rate_limit", True, 12),
        (429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "rate_limit", True, None),
        (503, {}, "remote", True, None),
    ],
)
async def test_a_refusal_says_what_it_is(status: int, headers: dict[str, str], category: str, retry: bool, after: Any):
    context = FakeContext({"http": {URL: {"status": status, "headers": headers, "body": "no " * 900}}})
    error = await wrong("send_webhook", {}, context, url=URL)
    assert (error.category, error.retry, error.after) == (category, retry, after)
    assert error.details["status"] == status
    assert len(error.message) < 400
    assert error.fix


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("https://api.example.com/a/{{ id }}", "api.example.com"),
        ("https://api.example.com?q={{ id }}", "api.example.com"),
        ("http://API.example.com:8080", "api.example.com"),
        ("https://api.example.com{{ path }}", ""),
        ("https://{{ host }}/a", ""),
        ("{{ url }}", ""),
        ("ftp://example.com/", ""),
        ("https://[broken/", ""),
    ],
)
def test_the_host_is_known_when_no_formula_can_change_it(written: str, host: str):
    assert make("action.send_webhook", url=written).hosts() == (host,)


@given(st.text(max_size=40))
async def test_no_field_can_lead_the_call_to_another_host(path: str):
    context = FakeContext()
    node = make("action.send_webhook", url="https://api.example.com/{{ path }}")
    with pytest.raises(NodeError):
        await run(node, {"value": {"path": path}}, context)
    for request in context.http.requests:
        assert request.url.startswith("https://api.example.com/")


async def test_an_address_that_is_none_is_refused():
    assert "not a web address" in (await wrong("send_webhook", {"u": "file:///etc/passwd"}, url="{{ u }}")).message
    assert "still empty" in refused("send_webhook")
    assert "choose the secret" in refused("send_webhook", where="secret")


async def test_the_sandbox_says_what_it_would_call():
    sentence, out, _ = await pretended("send_webhook", {"a": 1}, url=URL)
    assert sentence == f'would call {URL} with POST: {{"a":1}}'
    assert out["status"] == 200
    sentence, _, _ = await pretended(
        "send_webhook", {}, where="secret", address="hook", send="nothing", method="DELETE"
    )
    assert sentence == "would call the address in “hook” with DELETE"


# --- Slack ------------------------------------------------------------------------------------------------------------


async def test_a_message_goes_to_the_secret_address():
    context = FakeContext({"http": {"POST [slack]": "ok"}})
    got = await run(make("action.slack_post", address="slack", text="Hi {{ n }}"), {"value": {"n": 1}}, context)
    assert got == {"text": "Hi 1"}
    assert context.http.requests[0].json == {"text": "Hi 1"}
    assert not context.http.requests[0].follow_redirects


@pytest.mark.parametrize(
    ("status", "category"),
    [(403, "credential"), (404, "remote"), (429, "rate_limit"), (500, "remote"), (302, "configuration")],
)
async def test_a_message_that_was_not_taken_is_an_error_and_not_sent_twice(status: int, category: str):
    context = FakeContext({"http": {"[slack]": {"status": status, "body": "no_service"}}})
    error = await wrong("slack_post", {}, context, address="slack", text="Hi")
    assert error.category == category
    assert error.retry == (status == 429)


async def test_messages_that_cannot_be_posted_are_refused():
    assert "empty" in (await wrong("slack_post", {"t": " "}, address="s", text="{{ t }}")).message
    assert (await wrong("slack_post", {"t": "x" * 40_001}, address="s", text="{{ t }}")).category == "limit"


async def test_the_sandbox_says_what_it_would_post():
    sentence, out, context = await pretended(
        "slack_post", {"n": 3}, address="s", channel="#support", text="{{ n }}\nnew"
    )
    assert sentence == "would post to #support: “3 new”"
    assert out == {"text": "3\nnew"}
    assert not context.http.requests


# --- tables and files -------------------------------------------------------------------------------------------------


async def test_rows_are_added_to_the_table():
    context = FakeContext({"tables": {"t": [{"a": 0}]}})
    assert await run(make("action.write_row", table="t"), {"value": {"a": 1}}, context) == {
        "rows": [{"a": 1}],
        "count": 1,
    }
    await run(make("action.write_row", table="t"), {"value": [{"a": 2}, {"b": 3}]}, context)
    columns = [{"name": "n", "value": "{{ a }}"}, {"name": "t", "value": "no. {{ a }}"}]
    await run(make("action.write_row", table="t", write="columns", columns=columns), {"value": {"a": 4}}, context)
    assert context.tables.tables["t"] == [{"a": 0}, {"a": 1}, {"a": 2}, {"b": 3}, {"n": 4, "t": "no. 4"}]


async def test_no_rows_make_no_table():
    context = FakeContext()
    assert await run(make("action.write_row", table="t"), {"value": []}, context) == {"rows": [], "count": 0}
    assert context.tables.tables == {}


async def test_what_is_no_row_says_which():
    assert "what arrived is a text" in (await wrong("write_row", "x", table="t")).message
    assert "item 2 is a number" in (await wrong("write_row", [{}, 1], table="t")).message
    assert (await wrong("write_row", [{}] * 10_001, table="t")).category == "limit"
    assert "at least one column" in refused("write_row", table="t", write="columns")


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b", "a\nb", " a", "x" * 101])
def test_a_table_has_a_plain_name(name: str):
    refused("write_row", table=name)


async def written(arriving: Any, **settings: Any) -> tuple[dict[str, Any], bytes]:
    context = FakeContext()
    got = await run(make("action.write_file", **settings), {"value": arriving}, context)
    return got["file"], next(iter(context.tables.files.values()))


async def test_a_file_holds_text_or_json():
    file, content = await written({"n": "ü"}, name="{{ n }}.md", text="# {{ n }}")
    assert (file["name"], file["media_type"], content) == ("ü.md", "text/markdown; charset=utf-8", "# ü".encode())
    file, content = await written({"a": {"b": [1]}}, name="x.json", format="json", what="a")
    assert (file["media_type"], orjson.loads(content)) == ("application/json", {"b": [1]})
    assert make("action.write_file", name="x").outputs()[0].type is PortType.FILE


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))),
        min_size=1,
    )
)
async def test_a_table_reads_back_as_it_was(rows: list[dict[str, str]]):
    _, content = await written(rows, name="t.csv", format="csv", safe=False)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    back = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert back[0] == columns
    assert [row for row in back[1:] if row or not columns] == [[row.get(name, "") for name in columns] for row in rows]


async def test_a_spreadsheet_gets_no_formula_from_outside():
    row = {"a": "=1+1", "b": "@x", "c": "-1", "d": -1, "e": "1", "=f": 1.0, "g": None, "h": [1], "i": True}
    _, content = await written([row], name="t.csv", format="csv")
    assert content == b"a,b,c,d,e,'=f,g,h,i\r\n'=1+1,'@x,'-1,-1,1,1,,[1],true\r\n"


async def test_what_is_no_table_says_why():
    assert "this is a text" in (await wrong("write_file", "x", name="t.csv", format="csv")).message
    assert "item 2 is a list" in (await wrong("write_file", [{}, []], name="t.csv", format="csv")).message


@pytest.mark.parametrize("name", ["", "  ", "../x", "a/b", "a\\b", "..", "x\ny", "n" * 201])
async def test_a_file_has_a_plain_name(name: str):
    error = await wrong("write_file", {"n": name}, name="{{ n }}", text="x")
    assert "cannot be the name of a file" in error.message


async def test_a_file_has_a_limit():
    error = await wrong("write_file", {"t": "x" * 26_300_000}, name="x", format="json")
    assert error.category == "limit"


# --- what checks must know --------------------------------------------------------------------------------------------


def test_only_what_reaches_people_and_systems_outside_is_an_external_effect():
    outside = {
        "send_email": {"to": "a@b.c"},
        "send_webhook": {"url": URL},
        "slack_post": {"address": "s", "text": "x"},
    }
    inside = {
        "ask_model": {"prompt": "x"},
        "run_code": {},
        "respond": {},
        "write_row": {"table": "t"},
        "write_file": {"name": "x"},
        "transform": {},
        "aggregate": {},
        "split_list": {},
        "text_template": {"template": "x"},
    }
    for name, settings in outside.items():
        node = make(f"action.{name}", **settings)
        assert (node.effect_here(), node.labels()) == (Effect.E4, frozenset({Label.EXTERNAL})), name
    for name, settings in inside.items():
        node = make(f"action.{name}", **settings)
        assert node.effect_here() <= Effect.E2, name
        assert not node.labels(), name
        assert node.hosts() is None, name
    assert make("action.send_webhook", url=URL).keyed
    assert not make("action.send_email", to="a@b.c").keyed
