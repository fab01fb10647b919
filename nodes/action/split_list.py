"""Split: batches out of a list, parts out of a text."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Out
from nodes.compiling import Writer, quoted
from nodes.formula.values import a_kind
from nodes.shape import ANY, NUMBER, TEXT, Shape, list_of
from nodes.texts import shape_by

_MOST = 100_000


class Parts(Out):
    """The parts and how many there are."""

    parts: list[Any]
    count: int


class SplitList(Node):
    """Cuts a list into batches, or a text into its parts.

    Batches help where another system takes only so many at a time. A text is cut into lines, into paragraphs or at a
    separator of your own.
    """

    family, title, icon, effect = Family.ACTION, "Split", "splitscreen", Effect.E0
    words = ("batch", "chunk", "split", "lines", "separator", "parts", "divide", "list", "paragraphs")
    examples = (
        Example(
            "Batches of two",
            {"size": 2},
            {"value": [1, 2, 3, 4, 5]},
            {"parts": [[1, 2], [3, 4], [5]], "count": 3},
        ),
        Example(
            "Lines of a text",
            {"by": "lines", "what": "body"},
            {"value": {"body": "first\n\n second \n"}},
            {"parts": ["first", "second"], "count": 2},
        ),
        Example(
            "Addresses with commas",
            {"by": "separator", "separator": ","},
            {"value": "a@example.com, b@example.com"},
            {"parts": ["a@example.com", "b@example.com"], "count": 2},
        ),
    )

    what: Formula = Field(
        default="input",
        min_length=1,
        title="What",
        description="The list or text to cut: `input` is all that arrived, or name a field.",
        json_schema_extra={"placeholder": "input"},
    )
    by: Literal["size", "lines", "paragraphs", "separator"] = Field(
        default="size",
        title="Cut",
        description="A list into batches of a “size”; a text at its lines, paragraphs or a separator.",
    )
    size: int = Field(
        default=10,
        ge=1,
        le=10_000,
        title="Size of a batch",
        description="How many items come together; the last batch may be smaller.",
        json_schema_extra={"show_when": {"by": "size"}},
    )
    separator: str = Field(
        default=",",
        min_length=1,
        max_length=100,
        title="Separator",
        description="The text to cut at.",
        json_schema_extra={"show_when": {"by": "separator"}},
    )
    tidy: bool = Field(
        default=True,
        title="Tidy up",
        description="Without spaces around the parts, and without empty parts.",
        json_schema_extra={"show_when": {"by": ["lines", "paragraphs", "separator"]}},
    )

    async def run(self, ctx: Context, value: Any) -> Parts:
        what = value if self.what.strip() == "input" else ctx.evaluate(self.what)
        parts = _batches(what, self.size) if self.by == "size" else _cut(what, self.by, self.separator, self.tidy)
        return Parts(parts, len(parts))

    def as_python(self, w: Writer) -> None:
        what = w.arrived("value") if self.what.strip() == "input" else w.formula(self.what)
        settings = (quoted(self.by), quoted(self.separator), repr(self.tidy))
        w.let("parts", w.use(_batches, what, str(self.size)) if self.by == "size" else w.use(_cut, what, *settings))
        w.gives(parts="parts", count="len(parts)")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        what = shape_by(self.what, arriving.get("value", ANY))
        part = TEXT if self.by != "size" else what if what.kind == "list" else list_of()
        return {"parts": list_of(part), "count": NUMBER}

    def describe(self) -> str:
        how = {"size": f"batches of {self.size}", "separator": f"at “{self.separator}”"}
        return how.get(self.by, f"into {self.by}")


def _batches(what: Any, size: int) -> list[Any]:
    """A list in batches of a size."""
    if not isinstance(what, list):
        raise NodeError(
            f"Batches are made of a list, and this is {a_kind(what)}.",
            fix="Name the field that holds the list in “What”, or cut the text in another way.",
        )
    return _few([what[start : start + size] for start in range(0, len(what), size)])


def _cut(what: Any, by: str, separator: str, tidy: bool) -> list[Any]:
    """A text in its lines, its paragraphs, or the parts between a separator."""
    if not isinstance(what, str):
        raise NodeError(
            f"Only a text can be cut so, and this is {a_kind(what)}.",
            fix="Name the field that holds the text in “What”.",
        )
    if by == "lines":
        parts = what.splitlines()
    elif by == "paragraphs":
        blocks: list[list[str]] = [[]]
        for line in what.splitlines():
            if line.strip():
                blocks[-1].append(line)
            elif blocks[-1]:
                blocks.append([])
        parts = ["\n".join(block) for block in blocks if block]
    else:
        parts = what.split(separator)
    return _few([part.strip() for part in parts if part.strip()] if tidy else parts)


def _few(parts: list[Any]) -> list[Any]:
    if len(parts) > _MOST:
        raise NodeError(
            f"These would be {len(parts):,} parts, and at most {_MOST:,} are possible.",
            category="limit",
            fix="Cut into bigger parts.",
        )
    return parts
