"""How much one evaluation may do: steps of work and size of what it makes, so that no formula can stop the server."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nodes.formula.problems import too_much

STEPS = 100_000
SIZE = 10_000_000
_ITEM = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one evaluation: list items and characters looked at, and characters and items made."""

    steps: int = STEPS
    size: int = SIZE


class Meter:
    """What is left of a budget. Plain arithmetic and paths cost nothing: a formula's own length bounds them."""

    # Class attributes are the defaults: making a meter must cost next to nothing, for every evaluation makes one.
    steps = STEPS
    size = SIZE
    moment: datetime | None = None

    def step(self, count: int = 1) -> None:
        """Pay for work before it is done."""
        self.steps -= count
        if self.steps < 0:
            raise too_much(
                "This formula does too much work for one evaluation.",
                "Work on fewer items: filter the list first, or use a for-each node.",
            )

    def make(self, size: int) -> None:
        """Pay for the size of a result before it is made."""
        self.size -= size
        if self.size < 0:
            raise too_much(
                "The result of this formula is too big.",
                "Make a smaller text or list, or use a code node for big data.",
            )

    def read(self, length: int) -> None:
        """Pay for looking through a text of this length."""
        if length > 4096:
            self.step(length >> 10)

    def weigh(self, value: Any) -> None:
        """Pay for a whole list or record with all that is in it, however often a part of it is shared."""
        pending = [value]
        while pending:
            part = pending.pop()
            kind = type(part)
            if kind is list or kind is tuple:
                self.make(_ITEM * len(part) + _ITEM)
                pending.extend(part)
            elif kind is dict:
                self.make(_ITEM * len(part) + _ITEM)
                pending.extend(part.values())
                pending.extend(part)
            elif kind is str:
                self.make(len(part))

    def now(self) -> datetime:
        """The present moment; the same one during a whole evaluation."""
        if self.moment is None:
            self.moment = datetime.now(UTC)
        return self.moment


def metered(budget: Budget | None, now: datetime | None) -> Meter:
    """A meter for one evaluation with other limits, or at a given moment."""
    meter = Meter()
    if budget is not None:
        meter.steps, meter.size = budget.steps, budget.size
    if now is not None:
        meter.moment = now if now.tzinfo else now.replace(tzinfo=UTC)
    return meter
