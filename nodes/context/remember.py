"""Remember: keep a value for later runs."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out, Text
from nodes.compiling import Writer
from nodes.shape import ANY, NUMBER, Shape, list_of


class Kept(Out):
    """What arrived, unchanged, and what is remembered now."""

    value: Any
    stored: Any


def memory_key(ctx: Context, text: str) -> str:
    """The key that a template gives. Raises NodeError when it cannot be one."""
    return checked_key(ctx.render(text))


def checked_key(key: Any) -> str:
    """The same as a text, when it can be a key. Raises NodeError."""
    if isinstance(key, bool) or not isinstance(key, str | int | float) or not str(key).strip():
        raise NodeError("The name to remember by is empty.", fix="Check that its `{{ … }}` has a value.")
    name = str(key).strip()
    if len(name) > 200:
        raise NodeError(
            f"The name to remember by has {len(name):,} characters; up to 200 can be used.", category="limit"
        )
    return name


class Remember(Node):
    """Keeps a value under a name, for later steps and later runs.

    All agents of your organisation see the same names. “Add” keeps a sum, such as a counter; “append” keeps the last
    entries of a list. What arrived leaves unchanged.
    """

    family, title, icon, effect = Family.CONTEXT, "Remember", "bookmark_add", Effect.E2
    words = ("memory", "store", "save", "counter", "state", "keep", "set")
    examples = (
        Example(
            "The last order of a customer",
            {"key": "last order of {{ customer }}", "value": "{{ order }}"},
            {"value": {"customer": "Ada", "order": 7}},
            {"value": {"customer": "Ada", "order": 7}, "stored": 7},
        ),
        Example(
            "Count the runs",
            {"key": "runs", "mode": "add"},
            {"value": "x"},
            {"value": "x", "stored": 5},
            given={"memory": {"runs": 4}},
        ),
        Example(
            "Keep the last two names",
            {"key": "names", "mode": "append", "value": "{{ name }}", "longest": 2},
            {"value": {"name": "Cy"}},
            {"value": {"name": "Cy"}, "stored": ["Bo", "Cy"]},
            given={"memory": {"names": ["Ada", "Bo"]}},
        ),
    )

    key: Text = Field(
        min_length=1,
        max_length=1_000,
        title="Name",
        description="The name to find it by; `{{ … }}` makes one for each customer, day or whatever arrives.",
        json_schema_extra={"placeholder": "last order of {{ customer }}"},
    )
    mode: Literal["set", "add", "append"] = Field(
        default="set", title="How", description="Replace the value, add a number to it, or append to a list."
    )
    value: Text = Field(
        default="{{ input }}",
        title="Value",
        description="What to remember; `{{ input }}` is all that arrives.",
        json_schema_extra={"show_when": {"mode": ["set", "append"]}},
    )
    amount: Formula = Field(
        default="1",
        min_length=1,
        title="Amount",
        description="The number to add; a negative one takes away.",
        json_schema_extra={"show_when": {"mode": "add"}},
    )
    longest: int = Field(
        default=100,
        ge=1,
        le=1_000,
        title="Keep at most",
        description="How many entries the list keeps; the oldest go first.",
        json_schema_extra={"show_when": {"mode": "append"}},
    )

    async def run(self, ctx: Context, value: Any = None) -> Kept:
        key = memory_key(ctx, self.key)
        if self.mode == "add":
            return Kept(value, await ctx.memory.add(key, _checked_amount(ctx.evaluate(self.amount))))
        new = ctx.render(self.value)
        if self.mode == "append":
            return Kept(value, await ctx.memory.append(key, new, self.longest))
        await ctx.memory.set(key, new)
        return Kept(value, new)

    def as_python(self, w: Writer) -> None:
        w.let("key", w.use(checked_key, w.text(self.key)))
        if self.mode == "add":
            w.let("stored", w.world("memory.add", "key", w.use(_checked_amount, w.formula(self.amount))))
        elif self.mode == "append":
            w.let("stored", w.world("memory.append", "key", w.text(self.value), str(self.longest)))
        else:
            w.let("stored", w.text(self.value))
            w.line(w.world("memory.set", "key", "stored"))
        w.gives(value=w.arrived("value"), stored="stored")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        stored = {"add": NUMBER, "append": list_of()}
        return {"value": arriving.get("value", ANY), "stored": stored.get(self.mode, ANY)}

    def describe(self) -> str:
        return {"set": "", "add": "add to ", "append": "append to "}[self.mode] + self.key[:180]


def _checked_amount(amount: Any) -> float:
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise NodeError(f"The amount to add is not a number: {amount!r:.100}.", fix="Write for example `1`.")
    return amount
