"""A file arrived: somebody or an agent put one on the shelf."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, Label, Node, NodeError, Out, PortInfo
from nodes.compiling import Writer
from nodes.listen import FileArrived as Arrived
from nodes.shape import NUMBER, TEXT, Shape


class NewFile(Out):
    """The file; “Read a table” and its like open it by its name."""

    name: Annotated[str, PortInfo(help="Its name on the shelf.")]
    media_type: Annotated[str, PortInfo(help="What kind of file it is, such as text/csv.")]
    size: Annotated[float, PortInfo(help="In bytes.")]


class FileArrived(Node):
    """Starts when a file was put on the shelf, by a person or by an agent.

    Say which files by their name: `*` stands for anything, `?` for one character. A file that is replaced arrives anew.
    """

    family, title, icon, effect = Family.TRIGGER, "A file arrived", "upload_file", Effect.E0
    words = ("upload", "document", "new", "folder", "event", "csv", "trigger", "when")
    examples = (
        Example(
            "A price list",
            {"file": "prices-*.csv"},
            {"event": {"name": "prices-may.csv", "media_type": "text/csv", "size": 120}},
            {"name": "prices-may.csv", "media_type": "text/csv", "size": 120},
        ),
        Example(
            "Only its name, as typed in the sandbox",
            {},
            {"event": "prices.csv"},
            {"name": "prices.csv", "media_type": "application/octet-stream", "size": 0},
        ),
    )

    file: str = Field(
        default="*",
        min_length=1,
        max_length=200,
        title="Files",
        description="Which files, by name, as in `prices-*.csv`.",
    )

    async def run(self, ctx: Context, event: Any) -> NewFile:
        name, media_type, size = _new_file(event)
        return NewFile(name=name, media_type=media_type, size=size)

    def as_python(self, w: Writer) -> None:
        w.let("name, media_type, size", w.use(_new_file, "event"))
        w.gives(name="name", media_type="media_type", size="size")

    def listens(self) -> Arrived:
        return Arrived(self.file.strip())

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED})

    def sample(self) -> dict[str, Any]:
        name = self.file.replace("*", "sample").replace("?", "x")
        return {"name": name, "media_type": "text/csv" if name.endswith(".csv") else "text/plain", "size": 1200}

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"name": TEXT, "media_type": TEXT, "size": NUMBER}

    def describe(self) -> str:
        return "any file" if self.file.strip() == "*" else self.file


def _new_file(event: Any) -> tuple[str, str, float]:
    """The name of the file, its kind and its size."""
    told = event if isinstance(event, dict) else {"name": event}
    name = told.get("name")
    if not isinstance(name, str) or not name.strip():
        raise NodeError("There is no file.", fix="Start it with the name of a file.")
    size = told.get("size")
    counted = size if isinstance(size, int | float) and not isinstance(size, bool) else 0
    return name, str(told.get("media_type") or "application/octet-stream"), counted
