"""Asking language models: the real client library against a server that speaks the protocol over HTTP."""

import asyncio
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import validate

from nodes.base import NodeError
from runtime.llm import LlmDoor, Llms, ModelSettings
from runtime.llm_sample import MARK, sample_value
from tests.fakes.openai_server import KEY, OpenAiServer

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "total": {"type": "number"}},
    "required": ["name", "total"],
    "additionalProperties": False,
}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def llms(server: OpenAiServer, model: str = "openai/gpt-4o-mini", key: str = KEY) -> Llms:
    return Llms(ModelSettings(model, server.base_url, key))


async def failure(door: LlmDoor, text: str, **more) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await door.ask(said(text), **more)
    return caught.value


async def test_an_answer_comes_with_its_tokens_cost_and_reason():
    async with OpenAiServer() as server:
        reply = await llms(server).door("t").ask(said("hello there"), temperature=0.2, max_tokens=50)
    assert reply.text == "You said: hello there"
    assert (reply.tokens_in, reply.tokens_out, reply.finish_reason) == (2, 4, "stop")
    assert reply.cost > 0, "the price of this model is known"
    assert not reply.canned
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o-mini", 0.2, 50)


async def test_a_model_of_ones_own_has_any_name_and_no_price():
    async with OpenAiServer() as server:
        reply = await llms(server, "our-model-7b").door("t").ask(said("hello"))
    assert server.bodies[0]["model"] == "our-model-7b"
    assert reply.cost == 0


async def test_a_node_may_ask_another_model_of_the_same_provider_only():
    async with OpenAiServer() as server:
        door = llms(server).door("t")
        await door.ask(said("hello"), model="openai/gpt-4o")
        await door.ask(said("hello"), model="gpt-4.1-mini")
        error = await failure(door, "hello", model="anthropic/claude-sonnet-4-5")
        assert [body["model"] for body in server.bodies] == ["gpt-4o", "gpt-4.1-mini"]
    assert error.category == "configuration"
    assert "anthropic" in error.message


async def test_the_environment_gives_no_key_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with OpenAiServer() as server:
        error = await failure(llms(server, key="").door("t"), "hello")
        assert KEY not in server.asked[0].headers["authorization"]
    assert error.category == "credential"


async def test_a_tenant_may_have_a_model_of_its_own():
    async with OpenAiServer("sk-a") as a, OpenAiServer("sk-b") as b:
        permitted: list[str] = []

        async def settings_of(tenant: str) -> ModelSettings | None:
            return ModelSettings("openai/gpt-4o", b.base_url, "sk-b") if tenant == "b" else None

        async def permit(url: str) -> None:
            permitted.append(url)

        operator = ModelSettings("openai/gpt-4o-mini", a.base_url, "sk-a")
        both = Llms(operator, settings_of=settings_of, permit=permit)
        await both.door("a").ask(said("hello"))
        await both.door("b").ask(said("hello"))
        assert (a.bodies[0]["model"], b.bodies[0]["model"]) == ("gpt-4o-mini", "gpt-4o")
        assert permitted == [b.base_url], "the operator's own address needs no permission"


async def test_a_tenants_address_that_is_not_permitted_is_not_called():
    async with OpenAiServer() as server:

        async def settings_of(tenant: str) -> ModelSettings:
            return ModelSettings("openai/x", server.base_url, KEY)

        async def permit(url: str) -> None:
            raise NodeError("No.", category="configuration")

        error = await failure(Llms(settings_of=settings_of, permit=permit).door("t"), "hello")
        assert (error.message, server.connections) == ("No.", 0)


# --- without a model --------------------------------------------------------------------------------------------------


async def test_without_a_model_a_live_run_says_where_to_set_one_up():
    error = await failure(Llms().door("t"), "hello")
    assert error.category == "configuration"
    assert error.fix == "Open Settings → Model and choose one."


async def test_without_a_model_the_sandbox_gives_a_marked_sample():
    door = Llms().door("t", sandbox=True)
    reply = await door.ask([{"role": "system", "content": "Be brief."}, *said("Summarise   this\norder.")])
    assert reply.canned
    assert reply.text == f"{MARK} Here a model would answer: Summarise this order."
    reply = await door.ask(said("Read the bill."), schema=SCHEMA)
    assert reply.canned
    assert reply.text.startswith(MARK)
    validate(reply.data, SCHEMA)


_SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "number", "maximum": 0.5},
            {"type": "integer", "minimum": 4},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["low", "high"]},
            {"const": 7},
            {"type": ["string", "null"]},
        ]
    ),
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items}, inner)
        | st.builds(
            lambda parts: {"type": "object", "properties": parts, "required": list(parts)},
            st.dictionaries(st.text(max_size=5), inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(_SCHEMAS)
def test_a_sample_fits_the_schema_it_was_made_from(schema):
    validate(sample_value(schema), schema)


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Ada", "total": 3}',
        '```json\n{"name": "Ada", "total": 3}\n```',
        'Here it is: {"name": "Ada", "total": 3}. Bye!',
    ],
)
async def test_fields_are_read_out_of_the_answer(answer: str):
    async with OpenAiServer() as server:
        reply = await llms(server).door("t").ask(said(f"#say {answer}"), schema=SCHEMA)
        assert reply.data == {"name": "Ada", "total": 3}
        body = server.bodies[0]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "JSON schema" in body["messages"][0]["content"]


async def test_a_model_that_does_not_know_schemas_is_told_in_words():
    async with OpenAiServer() as server:
        messages = [{"role": "system", "content": "Be exact."}, *said('#say {"name": "Ada", "total": 3}')]
        reply = await llms(server, "our-model-7b").door("t").ask(messages, schema=SCHEMA)
        body = server.bodies[0]
    assert reply.data == {"name": "Ada", "total": 3}
    assert "response_format" not in body
    assert body["messages"][0]["content"].startswith("Be exact.\n\nAnswer with JSON only")
    assert messages[0]["content"] == "Be exact.", "the caller's messages are left alone"


async def test_an_answer_that_does_not_fit_is_sent_back_once():
    async with OpenAiServer() as server:
        prompt = '#once {"name": "Ada"}|{"name": "Ada", "total": 3}'
        reply = await llms(server).door("t").ask(said(prompt), schema=SCHEMA)
        assert reply.data == {"name": "Ada", "total": 3}
        assert len(server.asked) == 2
        assert "'total' is a required property" in server.prompts[1]
        assert reply.tokens_out == 2 + 4, "both answers are paid for"
        error = await failure(llms(server).door("t"), "#say no JSON here", schema=SCHEMA)
        assert len(server.asked) == 4
    assert (error.category, error.retry) == ("model", True)


async def test_fields_of_an_answer_that_was_cut_off_are_an_error():
    async with OpenAiServer() as server:
        error = await failure(
            llms(server).door("t"), '#length #say {"name": "Ada", "total": 3}', schema=SCHEMA, max_tokens=9
        )
        assert len(server.asked) == 1
    assert error.category == "limit"
    assert "after 9 tokens" in error.message


async def test_a_text_that_was_cut_off_says_so():
    async with OpenAiServer() as server:
        assert (await llms(server).door("t").ask(said("#length one two three"))).finish_reason == "length"


# --- parts as they come -----------------------------------------------------------------------------------------------


async def test_an_answer_can_be_followed_as_it_comes():
    async with OpenAiServer() as server:
        parts: list[str] = []
        reply = await llms(server).door("t").ask(said("one two"), on_text=parts.append)
    assert parts == ["You", " said:", " one", " two"]
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("You said: one two", 2, 4)


@pytest.mark.parametrize("word", ["#cut", "#break"])
async def test_an_answer_that_breaks_off_is_an_error_not_a_short_answer(word: str):
    async with OpenAiServer() as server:
        error = await failure(llms(server).door("t"), f"{word} one two three", on_text=lambda text: None)
    assert (error.category, error.retry) == ("remote", True)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("word", "category", "retry"),
    [
        ("#429", "rate_limit", True),
        ("#quota", "credential", False),
        ("#403", "credential", False),
        ("#context", "limit", False),
        ("#policy", "model", False),
        ("#filter", "model", False),
        ("#400", "model", False),
        ("#500", "remote", True),
        ("#503", "remote", True),
        ("#wait", "timeout", True),
        ("#cut", "remote", True),
    ],
)
async def test_every_failure_has_its_kind_and_a_fix(word: str, category: str, retry: bool, stream: bool):
    async with OpenAiServer() as server:
        timeout = 0.4 if word == "#wait" else 20
        on_text = (lambda text: None) if stream else None
        door = llms(server).door("t")
        await door.ask(said("hello"))
        error = await failure(door, word, timeout=timeout, on_text=on_text)
        assert len(server.asked) == 2, "the library does not try again behind our back"
    assert (error.category, error.retry) == (category, retry)
    assert error.fix
    assert KEY not in f"{error.message} {error.fix}"


async def test_the_pause_that_the_provider_asks_for_is_passed_on():
    async with OpenAiServer() as server:
        assert (await failure(llms(server).door("t"), "#429")).after == 7


async def test_an_answer_that_is_no_answer_is_an_error():
    async with OpenAiServer() as server:
        assert (await failure(llms(server).door("t"), "#garbage")).category == "remote"


async def test_a_wrong_key_or_model_or_address_says_what_to_correct():
    async with OpenAiServer() as server:
        wrong = await failure(llms(server, key="sk-wrong-3141").door("t"), "hello")
        unknown = await failure(llms(server, "openai/unknown-model").door("t"), "hello")
        nowhere = Llms(ModelSettings("openai/gpt-4o", server.base_url, KEY))
    assert wrong.category == "credential"
    assert "sk-wrong" not in wrong.message
    assert (unknown.category, "unknown-model" in unknown.message) == ("configuration", True)
    assert (await failure(nowhere.door("t"), "hello")).category == "remote"


async def test_a_cancelled_question_leaves_a_door_that_works():
    async with OpenAiServer() as server:
        door = llms(server).door("t")
        question = asyncio.create_task(door.ask(said("#wait")))
        while not server.asked:
            await asyncio.sleep(0.01)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        assert (await door.ask(said("hello"))).text == "You said: hello"


# --- the library ------------------------------------------------------------------------------------------------------


def test_the_library_is_imported_only_when_asked_and_then_calls_nobody():
    program = """
import asyncio, socket, sys
from runtime.llm import Llms
assert "litellm" not in sys.modules and "openai" not in sys.modules
called = []
sys.addaudithook(lambda name, args: called.append(args) if name in ("socket.connect", "socket.getaddrinfo") else None)
asyncio.run(Llms().warm())
assert "litellm" in sys.modules and "litellm.proxy.proxy_server" not in sys.modules
print(called)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LITELLM", "HF_"))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_a_key_is_not_printed():
    assert "sk-1" not in repr(ModelSettings("openai/x", "", "sk-1"))


# --- tools ------------------------------------------------------------------------------------------------------------

WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


async def test_a_model_may_ask_for_tools_instead_of_answering():
    async with OpenAiServer() as server:
        asked = said('#turns #call weather {"city": "Oslo"} #call weather {"city": "Rome"} #then It is #tools.')
        door = llms(server).door("t")
        reply = await door.ask(asked, tools=[WEATHER])
        first, second = reply.calls
        assert (first.name, first.arguments, second.arguments) == ("weather", {"city": "Oslo"}, {"city": "Rome"})
        assert (reply.text, reply.finish_reason) == ("", "tool_calls")
        assert server.bodies[0]["tools"] == [{"type": "function", "function": WEATHER}]
        spoken = [
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.raw}}
                for call in reply.calls
            ]},
            {"role": "tool", "tool_call_id": first.id, "content": "cold"},
            {"role": "tool", "tool_call_id": second.id, "content": "warm"},
        ]  # fmt: skip
        reply = await door.ask([*asked, *spoken], tools=[WEATHER])
    assert (reply.text, reply.calls) == ("It is cold; warm.", ())


async def test_arguments_that_are_no_record_are_told_apart_from_none_at_all():
    async with OpenAiServer() as server:
        script = said('#turns #call weather {"city": #call weather [1] #call weather')
        reply = await llms(server).door("t").ask(script, tools=[WEATHER])
    assert [call.arguments for call in reply.calls] == [None, None, {}]
    assert reply.calls[0].raw == '{"city":'


async def test_with_tools_a_schema_is_a_wish_for_the_last_answer():
    async with OpenAiServer() as server:
        reply = await llms(server).door("t").ask(said("hello"), tools=[WEATHER], schema=SCHEMA)
        wish = server.bodies[0]["messages"][0]
        assert "response_format" not in server.bodies[0]
    assert wish["role"] == "system"
    assert wish["content"].startswith("When you need no more tools, answer with JSON only")
    assert (reply.text, reply.data) == ("You said: hello", None)


async def test_without_a_model_the_sandbox_tries_the_tools_once_and_then_answers():
    door = Llms().door("t", sandbox=True)
    reply = await door.ask(said("How is Oslo?"), tools=[WEATHER])
    assert (reply.canned, reply.text) == (True, MARK)
    assert [(call.name, call.arguments) for call in reply.calls] == [("weather", {"city": "(sample city)"})]
    reply = await door.ask([*said("How is Oslo?"), {"role": "tool", "content": "cold"}], tools=[WEATHER])
    assert reply.text.startswith(MARK)
    assert not reply.calls


async def test_what_models_take_in_one_run_has_an_end():
    async with OpenAiServer() as server:
        door = llms(server).door("t")
        door.spent = 99_999
        await door.ask(said("hello"))
        error = await failure(door, "hello")
        assert len(server.bodies) == 1
    assert (error.code, error.category) == ("limit.tokens", "limit")
    assert "100,000" in error.message
