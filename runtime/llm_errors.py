"""What goes wrong with language models, in words: each failure with its category, a fix, and whether to try again."""

from typing import Any

from nodes.base import NodeError
from runtime.scrub import Scrubber

_SETTINGS = "Open Settings → Model and correct it."


def explain(error: Exception, library: Any, model: str, scrub: Scrubber) -> NodeError:
    """The library's exception as an error of ours. The order matters: its classes build on each other."""
    said = scrub.text(_said(error))
    status = getattr(error, "status_code", None)
    # By status too: some adapters raise a 403 as a bad request.
    if isinstance(error, library.AuthenticationError) or status in (401, 403):
        return NodeError(
            "The model's provider does not accept the key.",
            category="credential",
            fix="Open Settings → Model and enter a key that is valid and may use this model.",
        )
    if isinstance(error, library.RateLimitError):
        if "quota" in said.lower() or "billing" in said.lower():
            return NodeError(
                "The account at the model's provider has no credit left.",
                category="credential",
                fix="Top up the account at the provider, or enter the key of another.",
            )
        return NodeError(
            "The model's provider asks us to slow down.",
            category="rate_limit",
            retry=True,
            after=_after(error),
            fix="Try again later, or run fewer at a time.",
        )
    if isinstance(error, library.Timeout):
        return NodeError(
            "The model did not answer in time.",
            category="timeout",
            retry=True,
            fix="Try again, allow it more time, or ask for a shorter answer.",
        )
    if isinstance(error, library.ContextWindowExceededError):
        return NodeError(
            "The prompt is too long for this model.",
            category="limit",
            fix="Send less text, or choose a model that reads more.",
        )
    if isinstance(error, library.ContentPolicyViolationError):
        return content_refused()
    if isinstance(error, library.NotFoundError):
        return NodeError(f"The provider knows no model “{model}”.", category="configuration", fix=_SETTINGS)
    if isinstance(error, library.BadRequestError | library.UnprocessableEntityError):
        return NodeError(
            f"The model's provider refused the request: {said}", category="model", fix="Check the node's settings."
        )
    if isinstance(error, library.APIConnectionError | library.InternalServerError | library.ServiceUnavailableError):
        return _unreachable()
    if isinstance(error, library.APIError | library.BadGatewayError) or type(error).__module__.startswith(
        ("httpx", "openai", "aiohttp")
    ):
        return _unreachable()
    return NodeError(f"The model cannot be asked: {said}", category="model", fix=_SETTINGS)


def no_model() -> NodeError:
    """Nobody set up a model."""
    return NodeError(
        "No model is set up, so nothing can be asked.",
        category="configuration",
        fix="Open Settings → Model and choose one.",
        code="model.missing",
    )


def spent_all(spent: int, limit: int) -> NodeError:
    """The run has used up what models may take in it."""
    return NodeError(
        f"The models of this run took {spent:,} tokens; up to {limit:,} may be used in one run.",
        category="limit",
        code="limit.tokens",
        fix="Send less text, ask for fewer turns, or split the work over several runs.",
    )


def other_provider(model: str, provider: str) -> NodeError:
    """The node names a model of a provider whose key we do not have."""
    return NodeError(
        f"“{model}” is not a model of {provider}, and the key that is set up is for {provider}.",
        category="configuration",
        fix=f"Choose a model of {provider} in this node, or change the model in Settings → Model.",
    )


def content_refused() -> NodeError:
    """The provider's filter said no."""
    return NodeError(
        "The model's provider refused this content.",
        category="model",
        fix="Change the prompt; what it contains is against the provider's rules.",
    )


def cut_off(max_tokens: int) -> NodeError:
    """The answer ended at its limit, so its data is incomplete."""
    return NodeError(
        f"The model's answer was cut off after {max_tokens} tokens, so its fields are incomplete.",
        category="limit",
        fix="Raise “Longest answer” in the node's settings, or ask for less.",
    )


def misfit(wrong: str) -> NodeError:
    """Twice the answer did not have the wanted fields."""
    return NodeError(
        f"The model's answer does not have the fields asked for, also at the second try: {wrong}",
        category="model",
        retry=True,
        fix="Say more exactly in the prompt what to answer, or choose a stronger model.",
    )


def _unreachable() -> NodeError:
    return NodeError(
        "The model's provider cannot be reached or has a problem.",
        category="remote",
        retry=True,
        fix="Try again; if it stays, check the address in Settings → Model.",
    )


def _said(error: Exception) -> str:
    """The provider's own sentence, without the names of the layers that passed it on."""
    text = str(getattr(error, "message", "") or error).split("\n", 1)[0]
    for mark in ("Exception - ", "Error: "):
        text = text.rpartition(mark)[2] or text
    return text[:300].strip()


def _after(error: Any) -> float | None:
    for headers in (getattr(error, "litellm_response_headers", None), getattr(error.response, "headers", None)):
        try:
            return min(max(float((headers or {})["retry-after"]), 0.0), 3600.0)
        except (KeyError, ValueError):
            continue
    return None
