"""Pays for the calls of one question to a model: sets aside what each can cost, and writes down what it did."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from nodes.base import NodeError
from runtime.ledger import LIMIT_OF, Ledger, Payer
from runtime.prices import Price, likely_tokens, longest_question, micro, price_unknown


class Call:
    """One exchange with a model, as far as it is paid for."""

    __slots__ = ("answered", "begun", "cost", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.answered = False
        self.begun = False
        """Whether some of the answer has come: then it is paid for, whatever happens."""
        self.tokens_in = self.tokens_out = 0
        self.cost = 0.0

    def took(self, tokens_in: int, tokens_out: int, cost: float) -> None:
        """The answer is there; what the provider counted."""
        self.answered, self.tokens_in, self.tokens_out, self.cost = True, tokens_in, tokens_out, cost


class Purse:
    """The money of one question. Without a ledger nothing is counted; without a price only that there was a call."""

    def __init__(self, ledger: Ledger | None, payer: Payer, model: str, price: Price | None) -> None:
        self._ledger = ledger
        self._payer = payer
        self._model = model
        self._price = price
        self._writing: list[asyncio.Future[None]] = []
        self.waits = False
        """Whether it waits for others to give back what they hold."""

    @asynccontextmanager
    async def call(self, options: Mapping[str, Any]) -> AsyncIterator[Call]:
        """One exchange. Raises NodeError when there is no money for it."""
        call, ledger, price = Call(), self._ledger, self._price
        if ledger is None:
            yield call
            return
        question = longest_question(
            options["messages"], tools=options.get("tools"), schema=options.get("response_format")
        )
        if price is None and any(ledger.limits.chosen(self._payer.tenant, name) for name in LIMIT_OF.values()):
            raise price_unknown(self._model)
        if price is None or price.free:
            yield call
            note = ledger.note(
                self._payer, tokens_in=call.tokens_in, tokens_out=call.tokens_out, priced=price is not None
            )
            self._writing.append(note)
            return
        self.waits = True
        held = await ledger.hold(self._payer, micro(price.of(question, options["max_tokens"])))
        self.waits = False
        asked = price.of(likely_tokens(question), 0)
        try:
            yield call
        except BaseException as error:
            if not call.answered:
                # Providers charge for a question that nobody waited for, and for an answer that broke off.
                unheard = isinstance(error, asyncio.CancelledError) or call.begun
                unheard = unheard or (isinstance(error, NodeError) and error.category == "timeout")
                self._writing.append(ledger.pay(held, micro(asked) if unheard else 0, calls=1 if unheard else 0))
                raise
            self._settle(held, call)
            raise
        self._settle(held, call)

    def _settle(self, held: Any, call: Call) -> None:
        assert self._ledger is not None
        self._writing.append(
            self._ledger.pay(held, micro(call.cost), tokens_in=call.tokens_in, tokens_out=call.tokens_out)
        )

    async def written(self) -> None:
        """Return when what was paid is on the disk."""
        writing, self._writing = self._writing, []
        if writing:
            await asyncio.wait(writing)
