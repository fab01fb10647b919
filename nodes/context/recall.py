"""Recall: what was remembered."""

from typing import Any, Final

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Label, Node, Out, Text
from nodes.compiling import Writer
from nodes.context.remember import checked_key, memory_key

_NOTHING: Final = object()


class Recalled(Out):
    """What was remembered, and whether anything was."""

    value: Any
    found: bool


class Recall(Node):
    """Finds what was remembered under a name.

    When there is nothing, it gives the value you choose here, and “found” says no.
    """

    family, title, icon, effect = Family.CONTEXT, "Recall", "bookmark", Effect.E1
    words = ("memory", "read", "load", "state", "get", "stored", "remember")
    examples = (
        Example(
            "The last order of a customer",
            {"key": "last order of {{ customer }}"},
            {"value": {"customer": "Ada"}},
            {"value": 7, "found": True},
            given={"memory": {"last order of Ada": 7}},
        ),
        Example(
            "Nothing there yet", {"key": "runs", "default": "{{ 0 }}"}, {"value": None}, {"value": 0, "found": False}
        ),
    )

    key: Text = Field(
        min_length=1,
        max_length=1_000,
        title="Name",
        description="The name it was remembered by.",
        json_schema_extra={"placeholder": "last order of {{ customer }}"},
    )
    default: Text = Field(
        default="{{ none }}",
        title="If there is nothing",
        description="What to give then; `{{ none }}` is nothing, `{{ 0 }}` the number 0, `{{ [] }}` an empty list.",
    )

    async def run(self, ctx: Context, value: Any = None) -> Recalled:
        found = await ctx.memory.get(memory_key(ctx, self.key), _NOTHING)
        if found is _NOTHING:
            return Recalled(ctx.render(self.default), False)
        return Recalled(found, True)

    def as_python(self, w: Writer) -> None:
        w.let("nothing", "object()")
        w.let("found", w.world("memory.get", w.use(checked_key, w.text(self.key)), "nothing"))
        with w.when("found is nothing"):
            w.gives(value=w.text(self.default), found="False")
        w.gives(value="found", found="True")

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.PRIVATE})

    def describe(self) -> str:
        return self.key[:200]
