"""Make a reply address: a link that lets this run go on."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Node, Out, PortInfo
from nodes.compiling import Writer, atom, led
from nodes.shape import ANY, TEXT, Shape

_SECONDS = {"minutes": 60, "hours": 3_600, "days": 86_400}
_YEAR = 366 * 86_400


class Made(Out):
    """What arrived, and the new address."""

    value: Annotated[Any, PortInfo(help="What arrived, unchanged.")]
    address: Annotated[str, PortInfo(help="The address; it works once, and only for this run.")]


class ReplyAddress(Node):
    """Makes an address for this run alone that nobody can guess, to send to somebody outside.

    Send it, then put “Wait for an event” behind and choose “call” there: the run goes on when the address is called, with what the
    call brings. It may be called before the run waits. Whoever opens it in a browser is asked to press a button, so that
    programs which only look at links do not use it up. It works once.
    """

    # E2: it keeps the address inside the product.
    family, title, icon, effect = Family.FLOW, "Make a reply address", "add_link", Effect.E2
    keyed = True
    words = ("link", "url", "webhook", "callback", "resume", "confirm", "reply", "click")
    examples = (
        Example(
            "A link for the customer",
            {},
            {"value": {"customer": "Ada"}},
            {"value": {"customer": "Ada"}, "address": "https://factory.example/hooks/resume/1"},
        ),
        Example(
            "Good for an hour",
            {"amount": 1, "unit": "hours"},
            {"value": None},
            {"value": None, "address": "https://factory.example/hooks/resume/1"},
        ),
    )

    amount: float = Field(
        default=30,
        gt=0,
        le=10_000,
        title="Good for",
        description="How long it can be called; while a step waits for it, as long as that step waits.",
    )
    unit: Literal["minutes", "hours", "days"] = Field(default="days", title="Unit", description="What is counted.")

    async def run(self, ctx: Context, value: Any = None) -> Made:
        return Made(value, await ctx.events.address(seconds=self._seconds()))

    def as_python(self, w: Writer) -> None:
        seconds = led("seconds=", atom(repr(self._seconds())))
        w.gives(value=w.arrived("value"), address=w.world("events.address", seconds))

    def _seconds(self) -> float:
        return min(_YEAR, self.amount * _SECONDS[self.unit])

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"value": arriving.get("value", ANY), "address": TEXT}

    def describe(self) -> str:
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        return f"good for {self.amount:g} {unit}"
