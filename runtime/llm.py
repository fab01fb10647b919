"""Language models, through the one library that speaks to all of them; nothing else in the product imports it.

The library takes seconds to import, so it is imported at the first call, or by `warm` before the doors open when a model
is set up. Its import runs in a thread with the garbage collector at rest: the event loop then stands still for at most
0.2 s once (measured; 0.2 to 0.5 s otherwise). A process of its own would avoid that too, at 180 MB and a hop for each call.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema
import orjson

from nodes.base import LlmReply, NodeError, ToolCall
from runtime.ledger import Ledger, Payer, held_by_others
from runtime.limits import Limits
from runtime.llm_errors import content_refused, cut_off, explain, misfit, no_model, other_provider, spent_all
from runtime.llm_sample import sample_reply
from runtime.prices import Price, likely_tokens, listed, named
from runtime.purse import Call, Purse
from runtime.scrub import Scrubber

MAX_TIMEOUT: Final = 600.0

_PARTS = (
    "acompletion",
    "completion_cost",
    "get_llm_provider",
    "provider_list",
    "stream_chunk_builder",
    "supports_response_schema",
    "RateLimitError",
)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which model to ask: its name as `provider/model`, where it is when not at its provider's, the key, and its price."""

    model: str = ""
    base_url: str = ""
    key: str = field(default="", repr=False)
    price: Price | None = None


SettingsOf = Callable[[str], Awaitable[ModelSettings | None]]
Permit = Callable[[str], Awaitable[None]]
PricesOf = Callable[[str], Awaitable[Mapping[str, Price]]]
OnText = Callable[[str], None]


class Llms:
    """The models of all tenants: the operator's, or a tenant's own where `settings_of` knows one.

    `permit` is asked before a tenant's own address is called; the operator's is trusted. What is asked is paid for through
    `ledger`; `prices_of` knows the prices that a tenant entered.
    """

    def __init__(
        self,
        operator: ModelSettings | None = None,
        *,
        settings_of: SettingsOf | None = None,
        permit: Permit | None = None,
        limits: Limits | None = None,
        ledger: Ledger | None = None,
        prices_of: PricesOf | None = None,
    ) -> None:
        self.operator = operator or ModelSettings()
        self.limits = limits or Limits()
        self.ledger = ledger
        self._prices_of = prices_of
        self._listed: dict[tuple[str, str], Price | None] = {}
        self._settings_of = settings_of
        self._permit = permit
        self._library: Any = None
        self._lock = asyncio.Lock()

    @property
    def configured(self) -> bool:
        """Whether the operator set up a model."""
        return bool(self.operator.model)

    async def warm(self) -> None:
        """Import the library now; worth it before serving when a model is set up."""
        await self.library()

    async def stop(self) -> None:
        """Close what the library holds open."""
        if self._library is not None:
            await self._library.close_litellm_async_clients()
            self._library.in_memory_llm_clients_cache.flush_cache()  # or the next to start here would be given closed ones

    def door(self, tenant: str, sandbox: bool = False, *, run: str = "", agent: str = "") -> LlmDoor:
        """A tenant's way to its model; in the sandbox it answers with a marked sample when no model is set up.

        What it costs counts for the tenant, and for the run and the agent where they are named.
        """
        return LlmDoor(self, Payer(tenant, run, agent), sandbox)

    def trial(self, tenant: str, settings: ModelSettings) -> LlmDoor:
        """A way to a model that the tenant has not chosen yet; what it costs counts for the tenant."""
        return LlmDoor(self, Payer(tenant), False, settings)

    async def settings(self, tenant: str) -> ModelSettings:
        """The tenant's model, else the operator's. Asks permission for an address that is the tenant's own."""
        own = await self._settings_of(tenant) if self._settings_of else None
        return await self.permitted(own) if own is not None and own.model else self.operator

    async def permitted(self, own: ModelSettings) -> ModelSettings:
        """A tenant's own settings, if their address may be called. Raises NodeError."""
        if own.base_url and own.base_url != self.operator.base_url and self._permit:
            await self._permit(own.base_url)
        return own

    async def price(self, tenant: str, settings: ModelSettings, override: str = "") -> Price | None:
        """What the model costs; None: nobody knows. What we know of the operator's model a tenant cannot make cheaper."""
        library = await self.library()
        model, provider = _named(library, settings, override)
        operators = settings is self.operator
        if operators and settings.price is not None and (not override or override == settings.model):
            return settings.price
        if operators and (found := self._in_list(library, model, provider)) is not None:
            return found
        given = await self._prices_of(tenant) if self._prices_of else {}
        return named(given, model, provider) or self._in_list(library, model, provider)

    def _in_list(self, library: Any, model: str, provider: str) -> Price | None:
        key = model, provider
        if key not in self._listed:
            self._listed[key] = listed(library, model, provider)
        return self._listed[key]

    async def library(self) -> Any:
        """The library, imported once."""
        if self._library is None:
            async with self._lock:
                if self._library is None:
                    self._library = await asyncio.to_thread(_import)
        return self._library


def _import() -> Any:
    # Read at import: without them it fetches a price list and tokenizers from the internet.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["HF_HUB_OFFLINE"] = "1"
    collecting = gc.isenabled()
    gc.disable()
    try:
        library: Any = importlib.import_module("litellm")
        # Its parts are imported at first use; better now, in this thread, than in the first call.
        for name in _PARTS:
            getattr(library, name)
        importlib.import_module("openai.resources")
        gc.freeze()  # its half a million objects stay; looking through them would take 0.3 s now and then
    finally:
        if collecting:
            gc.enable()
    library.telemetry = False
    library.suppress_debug_info = True
    library.drop_params = True  # a model without, say, a temperature is asked without it
    library.num_retries = 0
    return library


class LlmDoor:
    """One tenant's `ctx.llm`."""

    def __init__(self, llms: Llms, payer: Payer, sandbox: bool, trial: ModelSettings | None = None) -> None:
        self._llms = llms
        self._trial = trial
        self._payer = payer
        self._tenant = payer.tenant
        self._sandbox = sandbox
        self.spent = 0
        """Tokens that the models of this run took so far."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str = "",
        temperature: float | None = None,
        max_tokens: int = 1024,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        timeout: float = 60.0,
        on_text: OnText | None = None,
    ) -> LlmReply:
        """Ask and wait for the whole answer; `on_text` is given its parts as they come. Raises NodeError.

        With a schema the answer's `data` fits it; a first answer that does not is sent back once with what is wrong. With
        tools it is one exchange, and whether the last answer fits is for the caller to see.
        """
        settings = await (self._llms.permitted(self._trial) if self._trial else self._llms.settings(self._tenant))
        if not settings.model:
            if self._sandbox:
                return sample_reply(messages, schema, tools or ())
            raise no_model()
        most = self._llms.limits.of(self._tenant, "model_run_tokens")
        if self.spent >= most:
            raise spent_all(self.spent, most)
        library = await self._llms.library()
        limit = min(max_tokens, self._llms.limits.of(self._tenant, "model_output_tokens"))
        ambient = settings is self._llms.operator
        price = await self._llms.price(self._tenant, settings, model)
        purse = Purse(self._llms.ledger, self._payer, model or settings.model, price)
        asking = _Asking(library, settings, model, temperature, limit, on_text, purse, price, ambient=ambient)
        try:
            async with asyncio.timeout(min(timeout, MAX_TIMEOUT)):
                if tools is not None:
                    reply = await asking.with_tools(messages, tools, schema)
                elif schema is None:
                    reply = await asking.once(messages)
                else:
                    reply = await asking.fitting(messages, schema)
        except TimeoutError:
            if purse.waits:
                raise held_by_others(timeout) from None
            await purse.written()
            raise NodeError(
                f"The model did not answer within {timeout:g} seconds.",
                category="timeout",
                retry=True,
                fix="Try again, allow it more time, or ask for a shorter answer.",
            ) from None
        except NodeError:
            await purse.written()
            raise
        await purse.written()
        self.spent += reply.tokens_in + reply.tokens_out
        return reply


class _Asking:
    """One question to one model."""

    def __init__(
        self,
        library: Any,
        settings: ModelSettings,
        override: str,
        temperature: float | None,
        max_tokens: int,
        on_text: OnText | None,
        purse: Purse,
        price: Price | None,
        *,
        ambient: bool,
    ) -> None:
        self._purse = purse
        self._price = price
        self._library = library
        self._settings = settings
        self._on_text = on_text
        self._max_tokens = max_tokens
        self._model, self._provider = _named(library, settings, override)
        self._options: dict[str, Any] = {
            "model": self._model,
            "custom_llm_provider": self._provider,
            "max_tokens": max_tokens,
            "max_retries": 0,
        }
        # Without a key the library takes one out of the server's environment: for the operator's model at its provider
        # that is meant so, for anybody else it would be a gift.
        if settings.key or settings.base_url or not ambient:
            self._options["api_key"] = settings.key or "none"
        if settings.base_url:
            self._options["api_base"] = settings.base_url
        if temperature is not None:
            self._options["temperature"] = temperature

    async def once(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> LlmReply:
        """One exchange with the model."""
        options = {**self._options, "messages": [dict(message) for message in messages], **more}
        async with self._purse.call(options) as call:
            try:
                if self._on_text is not None:
                    response = await self._streamed(options, call)
                else:
                    response = await self._library.acompletion(**options)
            except NodeError:
                raise
            except Exception as error:  # whatever a provider's adapter raises; told apart by its kind
                raise explain(error, self._library, self._model, Scrubber((self._settings.key,))) from None
            return self._reply(response, options, call)

    async def with_tools(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        schema: Mapping[str, Any] | None,
    ) -> LlmReply:
        """One exchange in which the model may ask for tools instead of answering."""
        more: dict[str, Any] = {}
        if tools:
            more["tools"] = [{"type": "function", "function": dict(tool)} for tool in tools]
        return await self.once(messages if schema is None else _told(messages, schema, bool(tools)), **more)

    async def fitting(self, messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> LlmReply:
        """An answer whose data fits the schema, with one chance to correct it."""
        more: dict[str, Any] = {}
        if self._library.supports_response_schema(self._model, self._provider):
            more["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(schema), "strict": False},
            }
        told = _told(messages, schema)
        reply = await self.once(told, **more)
        data, wrong = fit(reply.text, schema)
        if wrong and reply.finish_reason != "length":
            asked_again = [
                *told,
                {"role": "assistant", "content": reply.text},
                {"role": "user", "content": f"That does not fit: {wrong} Answer again, with JSON only."},
            ]
            reply = _sum(reply, await self.once(asked_again, **more))
            data, wrong = fit(reply.text, schema)
        if wrong:
            raise cut_off(self._max_tokens) if reply.finish_reason == "length" else misfit(wrong)
        return LlmReply(
            reply.text, reply.model, reply.tokens_in, reply.tokens_out, reply.cost, reply.finish_reason, data=data
        )

    async def _streamed(self, options: dict[str, Any], call: Call) -> Any:
        assert self._on_text is not None
        stream = await self._library.acompletion(**options, stream=True, stream_options={"include_usage": True})
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            call.begun = True
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text:
                self._on_text(text)
        # The library itself says "stop" when the stream ended without a reason.
        if stream.received_finish_reason is None and stream.intermittent_finish_reason is None:
            raise NodeError(
                "The model's answer broke off in the middle.", category="remote", retry=True, fix="Try again."
            )
        return self._library.stream_chunk_builder(chunks, messages=options["messages"])

    def _reply(self, response: Any, options: Mapping[str, Any], call: Call) -> LlmReply:
        usage = getattr(response, "usage", None)
        tokens_in = int(getattr(usage, "prompt_tokens", 0) or 0)
        tokens_out = int(getattr(usage, "completion_tokens", 0) or 0)
        cost = self._cost(response, options, tokens_in, tokens_out)
        call.took(tokens_in, tokens_out, cost)
        if not response.choices:
            raise NodeError("The model gave no answer.", category="model", retry=True, fix="Try again.")
        choice = response.choices[0]
        reason = str(choice.finish_reason or "stop")
        if reason == "content_filter":
            raise content_refused()
        return LlmReply(
            text=choice.message.content or "",
            model=self._model,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=cost,
            finish_reason=reason,
            calls=tuple(_call(call) for call in getattr(choice.message, "tool_calls", None) or ()),
        )

    def _cost(self, response: Any, options: Mapping[str, Any], tokens_in: int, tokens_out: int) -> float:
        """In dollars; 0 where nobody knows the price."""
        if self._price is None or self._price.free:
            return 0.0
        if not tokens_in and not tokens_out:  # a server that does not count; by length then
            asked = len(orjson.dumps(options["messages"], default=str))
            said = sum(len(str(choice.message).encode()) for choice in response.choices)
            return self._price.of(likely_tokens(asked), likely_tokens(said))
        if self._price.listed:
            try:  # it knows of cached and of long prompts
                names = {"model": self._model, "custom_llm_provider": self._provider}
                if (cost := self._library.completion_cost(response, **names)) is not None:
                    return float(cost)
            except Exception:  # the price list does not know every model, and says so in many ways
                return self._price.of(tokens_in, tokens_out)
        return self._price.of(tokens_in, tokens_out)


def _named(library: Any, settings: ModelSettings, override: str) -> tuple[str, str]:
    """The model's name and provider. The key goes to the provider it was given for and to no other."""
    model, provider = _split(library, settings.model, settings.base_url)
    if not override or override == settings.model:
        return model, provider
    other, its_provider = _split(library, override, settings.base_url, provider)
    if its_provider != provider:
        raise other_provider(override, provider)
    return other, provider


def _split(library: Any, model: str, base_url: str, otherwise: str = "openai") -> tuple[str, str]:
    provider, slash, rest = model.partition("/")
    if slash and provider in library.provider_list:
        return rest, provider
    if base_url:
        return model, otherwise  # a server of one's own knows models by any name
    try:
        name, provider, _, _ = library.get_llm_provider(model)
    except Exception:  # an unknown name; the provider will say so
        return model, otherwise
    return name, provider


def _call(call: Any) -> ToolCall:
    raw = str(call.function.arguments or "")
    try:
        arguments = orjson.loads(raw) if raw.strip() else {}
    except orjson.JSONDecodeError:
        arguments = None
    return ToolCall(
        str(call.id or ""), str(call.function.name or ""), arguments if type(arguments) is dict else None, raw
    )


def _told(
    messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any], with_tools: bool = False
) -> list[dict[str, Any]]:
    """The messages with the wish for JSON in front, for models that know no other way."""
    when = "When you need no more tools, answer" if with_tools else "Answer"
    wish = (
        f"{when} with JSON only, without any other text. It must fit this JSON schema:\n"
        + orjson.dumps(schema).decode()
    )
    told = [dict(message) for message in messages]
    if told and told[0].get("role") == "system":
        told[0]["content"] = f"{told[0]['content']}\n\n{wish}"
        return told
    return [{"role": "system", "content": wish}, *told]


def fit(text: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """The data in the answer, and what is wrong with it."""
    inner = text.strip()
    if inner.startswith("```"):
        inner = inner.partition("\n")[2].rpartition("```")[0].strip()
    try:
        data = orjson.loads(inner)
    except orjson.JSONDecodeError:
        first, last = inner.find("{"), inner.rfind("}")
        try:
            data = orjson.loads(inner[first : last + 1])
        except orjson.JSONDecodeError:
            return None, "It is not JSON."
    error = next(iter(jsonschema.Draft202012Validator(dict(schema)).iter_errors(data)), None)
    if error is None:
        return data, ""
    place = ".".join(str(step) for step in error.absolute_path)
    return data, f"{f'{place}: ' if place else ''}{error.message[:300]}."


def _sum(first: LlmReply, second: LlmReply) -> LlmReply:
    return LlmReply(
        second.text,
        second.model,
        first.tokens_in + second.tokens_in,
        first.tokens_out + second.tokens_out,
        first.cost + second.cost,
        second.finish_reason,
    )
