"""What a model's tokens cost, and what a question can cost at most before it is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import orjson

from nodes.base import NodeError

MILLION: Final = 1_000_000
MICRO: Final = 1_000_000
"""Our unit of money: a millionth of a dollar."""

_FRAME: Final = 16  # tokens that a provider puts around each message
_TOOLS: Final = 600  # tokens with which a provider explains tools to its model
_ASKS_A_SERVER: Final = frozenset(
    {"ollama", "ollama_chat", "huggingface", "petals", "lm_studio", "hosted_vllm", "llamafile"}
)
"""Providers whose price the library would look for on the network."""
_LONG: Final = (
    "_above_128k_tokens",
    "_above_200k_tokens",
    "_above_256k_tokens",
    "_above_272k_tokens",
    "_above_512k_tokens",
)


@dataclass(frozen=True, slots=True)
class Price:
    """In dollars for a million tokens."""

    tokens_in: float
    tokens_out: float
    listed: bool = False
    """Whether it is the library's and no person's: then the library knows more exactly what a call did cost."""

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """What so many tokens cost, in dollars."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / MILLION

    @property
    def free(self) -> bool:
        """Whether nothing has to be held for it."""
        return not self.tokens_in and not self.tokens_out


def micro(dollars: float) -> int:
    """In our unit, rounded up so that nothing is lost by many small calls."""
    return ceil(round(dollars * MICRO, 6))


def named(prices: Mapping[str, Price], model: str, provider: str) -> Price | None:
    """The price that people gave a model, by its name with or without its provider."""
    return prices.get(f"{provider}/{model}") or prices.get(model)


def listed(library: Any, model: str, provider: str) -> Price | None:
    """The price in the library's list; None: nobody knows it. A longer prompt may be dearer; the dearest counts."""
    entry = library.model_cost.get(f"{provider}/{model}") or library.model_cost.get(model)
    if entry is None and provider not in _ASKS_A_SERVER:
        try:
            entry = library.get_model_info(model, custom_llm_provider=provider)
        except Exception:  # it does not know every model, and says so in many ways
            return None
    if entry is None:
        return None
    costs = [_dearest(entry, f"{way}_cost_per_token") for way in ("input", "output")]
    if costs[0] is None or costs[1] is None:
        return None
    return Price(costs[0] * MILLION, costs[1] * MILLION, listed=True)


def _dearest(entry: Mapping[str, Any], name: str) -> float | None:
    found = [entry.get(name), *(entry.get(name + suffix) for suffix in _LONG)]
    costs = [float(each) for each in found if isinstance(each, int | float) and each >= 0]
    return max(costs) if costs else None


def longest_question(messages: Sequence[Mapping[str, Any]], **more: Any) -> int:
    """Tokens that a question has at most: every token is at least one byte of what is sent."""
    size = len(orjson.dumps([messages, more], default=str)) + _FRAME * (len(messages) + 1)
    return size + (_TOOLS if more.get("tools") else 0)


def likely_tokens(size: int) -> int:
    """About how many tokens a text of so many bytes has, where nobody counted them."""
    return ceil(size / 3)


def price_unknown(model: str) -> NodeError:
    """A budget is set, and whether a model keeps to it cannot be told."""
    return NodeError(
        f"What “{model}” costs is not known, so your team's budget could not be kept; nothing was asked.",
        category="limit",
        code="limit.price_unknown",
        fix="Let an admin enter its price under Settings → Limits, 0 if it costs nothing. Then try the run again.",
    )
