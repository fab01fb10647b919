"""Repeat until: the same steps again and again, each time with what came of the last time."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nodes.base import SKIP, Context, Effect, Example, Family, Formula, Loop, NodeError, Out, PortInfo
from nodes.compiling import Writer, literal, quoted
from nodes.shape import ANY, RESERVED, Shape, record, with_member

MOST = 1_000


class Rounds(Out):
    """One round after the other, and in the end the last result."""

    item: Annotated[Any, PortInfo(title="each round", help="Fires in every round; connect the steps to repeat.")] = SKIP
    done: Annotated[Any, PortInfo(help="Fires once, with the result of the last round.")] = SKIP


class Repeat(Loop):
    """Repeats steps until a condition holds, each time with the result of the time before.

    Connect the steps to repeat behind “each round”, and the last of them back to “result”. After every round the condition is
    looked at: it knows the `result` and its fields, and the number of the round as `index`, counted from 0. The steps run at
    least once. To look again later, put “Wait” among the steps. A round that gives nothing leaves the value as it was.
    """

    family, title, icon, effect = Family.FLOW, "Repeat until", "loop", Effect.E0
    rounds = True
    words = ("loop", "until", "while", "again", "poll", "condition", "retry", "pages", "improve")
    examples = (
        Example(
            "Ask until the order is ready",
            {"until": 'result.status == "ready"'},
            {"value": {"status": "ready"}},
            {"item": {"status": "ready"}, "done": {"status": "ready"}},
        ),
        Example(
            "At most five times, then go on with the last result",
            {"until": "score >= 8", "most": 5, "at_most": "go on"},
            {"value": {"score": 9}},
            {"item": {"score": 9}, "done": {"score": 9}},
        ),
    )

    until: Formula = Field(
        min_length=1,
        title="Until",
        description='When it is enough, such as `status == "ready"`. It is looked at after every round.',
        json_schema_extra={"placeholder": 'result.status == "ready"'},
    )
    most: int = Field(default=100, ge=1, le=MOST, title="At most", description="How many rounds there may be.")
    at_most: Literal["stop", "go on"] = Field(
        default="stop",
        title="If that is not enough",
        description="When the condition still does not hold: stop with an error, or go on with the last result.",
    )
    on_round_error: Literal["stop", "again"] = Field(
        default="stop",
        title="If a round fails",
        description="Stop the run, or take it as a round that gave nothing.",
        json_schema_extra={"words": {"stop": "Stop", "again": "Go into the next round"}},
    )

    @field_validator("until")
    @classmethod
    def _says_when(cls, until: str) -> str:
        if not until.strip():
            raise ValueError("say when it is enough")
        return until

    async def run(
        self,
        ctx: Context,
        value: Annotated[Any, PortInfo(help="What the first round begins with.")],
        result: Annotated[Any, PortInfo(back=True, help="Connect the last of the repeated steps here.")] = None,
    ) -> Rounds:
        # The engine runs the body; without one, what arrives is the result.
        return Rounds(done=value)

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        return [items]

    def again(self, ctx: Context, result: Any, index: int) -> bool:
        fields = result if isinstance(result, dict) else {}
        if ctx.evaluate(self.until, **{**fields, "result": result, "item": result, "index": index}):
            return False
        if index + 1 < self.most:
            return True
        if self.at_most == "go on":
            return False
        raise _not_enough(self.most, self.until)

    def as_python(self, w: Writer) -> None:
        w.give(w.arrived("value"))

    def until_as_python(self, w: Writer) -> None:
        w.answers_yes_no()
        with w.when(w.formula(self.until, over="result")):
            w.line("True", "return ")
        if self.at_most == "go on":
            w.line(f"index + 1 >= {self.most}", "return ")
            return
        with w.when(f"index + 1 < {self.most}"):
            w.line("False", "return ")
        w.fail(w.use(_not_enough, literal(self.most), quoted(self.until)))

    def when_item_fails(self) -> Literal["stop", "continue", "drop"]:
        return "drop" if self.on_round_error == "again" else "stop"

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        # What a round gives is known only when the steps behind it are read.
        return {"item": ANY, "done": ANY}

    def known_in(self, field: str, known: Shape, arriving: Mapping[str, Shape]) -> Shape:
        if field != "until":
            return known
        result = arriving.get("result", ANY)
        ours = {name: known.fields[name] for name in (*RESERVED, "value") if name in known.fields}
        own = with_member(record(ours), result)
        # Of a result that may be of several kinds not all fields are known.
        return record(
            {**own.fields, "result": result}, optional=own.optional - {"result"}, open=own.open or not result.fields
        )

    def describe(self) -> str:
        return f"until {self.until}, at most {self.most:,} times"[:200]


def _not_enough(most: int, until: str) -> NodeError:
    """The error for a condition that does not hold after all the rounds there may be."""
    return NodeError(
        f"After {most:,} rounds it is still not so that {until}."[:500],
        category="limit",
        fix="Look at what the last round gave, correct the condition, or raise “At most”.",
    )
