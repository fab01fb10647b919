"""A server that speaks the chat-completions protocol: what it answers is decided by words in the prompt."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from tests.fakes.http_server import Answer, Asked, HttpServer

KEY = "sk-test-8d1f0c"


class OpenAiServer(HttpServer):
    """Answers `You said: …`, unless the last message contains one of the words below.

    `#429`, `#500`, … answer that status; `#wait` never answers; `#length`, `#filter` end for that reason; `#cut` breaks off;
    `#turns <a> #then <b> …` answers a in the first turn of a conversation, b in the second and so on; a turn of
    `#call <tool> <JSON>`, once or more, asks for tools, and `#tools` in a text stands for what they gave. `#say <text>` answers
    the text; `#json <text>` too, but only where the caller asked for JSON; `#once <a>|<b>` answers a
    first and b after it.
    """

    def __init__(self, key: str = KEY) -> None:
        super().__init__(self._chat)
        self._key = key
        self._times = 0

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The requests as they came."""
        return [asked.json for asked in self.asked]

    @property
    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [str(body["messages"][-1]["content"]) for body in self.bodies]

    async def _chat(self, asked: Asked) -> Answer:
        if asked.path != "/v1/chat/completions":
            return _error(404, "no such path", "not_found")
        if asked.headers.get("authorization") != f"Bearer {self._key}":
            sent = asked.headers.get("authorization", "")
            return _error(401, f"Incorrect API key provided: {sent}", "invalid_api_key")
        body = asked.json
        prompt = "\n".join(str(message["content"]) for message in body["messages"] if message["role"] == "user")
        if body["model"] == "unknown-model":
            return _error(404, "The model `unknown-model` does not exist", "model_not_found")
        if "#wait" in prompt:
            await asyncio.Event().wait()
        if failed := _failure(prompt, self._key):
            return failed
        text, reason = self._text(prompt), "stop"
        if "#turns " in prompt and (said := _turn(body, prompt)):
            if isinstance(said, list):
                return Answer(body=_completion(body, "", "tool_calls", said))
            text = said
        if "#length" in prompt:
            text, reason = text[: len(text) // 2], "length"
        if "#filter" in prompt:
            text, reason = "", "content_filter"
        if body.get("stream"):
            return Answer(
                headers={"content-type": "text/event-stream"},
                pieces=_pieces(body, text, reason, "#cut" in prompt, "#break" in prompt),
                cut="#break" in prompt,
            )
        done = _completion(body, text, reason)
        if "#cut" in prompt:
            return Answer(body=orjson.dumps(done)[:60], headers={"content-length": "900"}, cut=True)
        return Answer(body=done)

    def _text(self, prompt: str) -> str:
        if "#say " in prompt:
            return prompt.partition("#say ")[2]
        if "#once " in prompt:
            self._times += 1
            first, _, second = prompt.partition("#once ")[2].partition("|")
            return first if self._times == 1 else second.partition("\n")[0]
        return f"You said: {prompt}"


def _turn(body: dict[str, Any], prompt: str) -> str | list[dict[str, Any]]:
    """What the conversation's script says next: a text, or calls of tools; without tools to call it says so."""
    script = prompt.partition("#turns ")[2].split("#then")
    asked = [message for message in body["messages"] if message["role"] == "assistant"]
    part = script[min(len(asked), len(script) - 1)].partition("\n")[0].strip()
    if "#call " not in part:
        given = "; ".join(str(message["content"]) for message in body["messages"] if message["role"] == "tool")
        return part.replace("#tools", given)
    if not body.get("tools"):
        return "Nothing to call with."
    calls = [call.strip().partition(" ") for call in part.split("#call ") if call.strip()]
    return [
        {
            "id": f"call_{len(asked)}_{number}",
            "type": "function",
            "function": {"name": name, "arguments": given.strip()},
        }
        for number, (name, _, given) in enumerate(calls)
    ]


def _failure(prompt: str, key: str) -> Answer | None:
    said = {
        "#context": (400, "This model's maximum context length is 128 tokens", "context_length_exceeded"),
        "#policy": (
            400,
            "Your request was rejected by our safety system: content_policy_violation",
            "content_policy_violation",
        ),
        "#quota": (429, "You exceeded your current quota, please check your plan and billing", "insufficient_quota"),
        "#400": (400, f"temperature is wrong for {key}", "invalid_value"),
        "#403": (403, "Not for you", "forbidden"),
        "#500": (500, "We broke", "server_error"),
        "#503": (503, "Overloaded", "overloaded"),
    }
    if "#429" in prompt:
        return _error(429, "Rate limit reached", "rate_limit_exceeded", {"retry-after": "7"})
    if "#garbage" in prompt:
        return Answer(body="<html>not what you think</html>", headers={"content-type": "text/html"})
    return next((_error(*answer) for word, answer in said.items() if word in prompt), None)


def _error(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> Answer:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Answer(status, {"error": {"message": message, "type": kind, "code": code}}, headers=headers or {})


def _completion(
    body: dict[str, Any], text: str, reason: str, calls: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    message = {"role": "assistant", "content": text} | ({"content": None, "tool_calls": calls} if calls else {})
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _usage(body, text),
    }


def _usage(body: dict[str, Any], text: str) -> dict[str, int]:
    asked = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    return {
        "prompt_tokens": asked,
        "completion_tokens": len(text.split()),
        "total_tokens": asked + len(text.split()),
    }


async def _pieces(body: dict[str, Any], text: str, reason: str, cut: bool, broken: bool) -> AsyncIterator[bytes]:
    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        return b"data: " + orjson.dumps({**chunk, "choices": choices, **more}) + b"\n\n"

    words = text.split(" ")
    for number, word in enumerate(words):
        if (cut or broken) and number == len(words) // 2:
            return
        content = word if number == 0 else f" {word}"
        yield event([{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": reason}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event([], usage=_usage(body, text))
    yield b"data: [DONE]\n\n"
