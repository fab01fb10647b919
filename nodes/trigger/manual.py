"""Manual: somebody presses “Run”."""

from typing import Any, Literal

from pydantic import Field

from nodes.answers import NAME, read_number, read_yes_no
from nodes.base import Context, Effect, Example, Family, Node, Out, Row
from nodes.compiling import Writer, literal, stiff
from nodes.listen import Manual as Pressed


class SampleField(Row):
    """One field of what the run is started with."""

    name: str = Field(pattern=NAME, max_length=64, title="Field", description="Its name, as formulas use it.")
    kind: Literal["text", "number", "yes/no"] = Field(
        default="text", title="Kind", description="What is filled in for it."
    )
    value: str = Field(
        default="", max_length=10_000, title="Sample", description="What the form for a run shows at first."
    )


class Start(Out):
    """What the run was started with."""

    value: Any


class Manual(Node):
    """Starts when somebody presses “Run”.

    List the fields that a person fills in before a run; leave the list empty when nothing is needed. The samples are what
    the sandbox uses, and what the form shows at first.
    """

    family, title, icon, effect = Family.TRIGGER, "Run by hand", "play_circle", Effect.E0
    words = ("manual", "start", "button", "press", "begin", "trigger", "test")
    examples = (
        Example(
            "Started with an order",
            {"fields": [{"name": "total", "kind": "number", "value": "1200"}]},
            {"event": {"total": 950}},
            {"value": {"total": 950}},
        ),
        Example(
            "A field left out gets its sample",
            {"fields": [{"name": "total", "kind": "number", "value": "1200"}, {"name": "customer", "value": "Ada"}]},
            {"event": {"customer": "Bo"}},
            {"value": {"total": 1200, "customer": "Bo"}},
        ),
        Example("Started with nothing", {}, {"event": None}, {"value": {}}),
    )

    fields: list[SampleField] = Field(
        default_factory=list, max_length=50, title="Fields", description="What a person fills in to start a run."
    )

    async def run(self, ctx: Context, event: Any) -> Start:
        if event is None:
            return Start(self.sample())
        if isinstance(event, dict) and self.fields:
            return Start({**self.sample(), **event})
        return Start(event)

    def listens(self) -> Pressed:
        return Pressed()

    def sample(self) -> dict[str, Any]:
        return {field.name: _typed(field) for field in self.fields}

    def as_python(self, w: Writer) -> None:
        sample = literal(self.sample())
        if not self.fields:
            w.give(stiff("{} if event is None else event", 2))
            return
        w.let("sample: dict[str, Any]", sample)
        with w.when("event is None"):
            w.give("sample")
        w.give(stiff("{**sample, **event} if isinstance(event, dict) else event", 2))

    def describe(self) -> str:
        names = ", ".join(field.name for field in self.fields)
        return f"asks for {names}"[:200] if names else ""


def _typed(field: SampleField) -> Any:
    if field.kind == "text":
        return field.value
    typed = read_number(field.value) if field.kind == "number" else read_yes_no(field.value)
    return field.value if typed is None and field.value.strip() else typed
