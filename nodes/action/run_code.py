"""Run code: Python or JavaScript of one's own, in isolation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nodes.base import (
    SKIP,
    Code,
    Context,
    Effect,
    Example,
    Family,
    FileName,
    Label,
    Node,
    Out,
    Port,
    PortInfo,
    class_ports,
)
from nodes.compiling import CannotCompile, Writer, call
from nodes.compiling.own_code import own_function
from nodes.shape import NUMBER, TEXT, Shape, list_of, record

MOST_FILES = 20
Kept = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra={"placeholder": "report.csv"})]
SNIPPET = """\
# What arrived is `input`; the fields of a record are names of their own.
# Give back a result with `return`, and print what you want to see in the run.
print("arrived:", input)

return input
"""
JAVASCRIPT = """\
// What arrived is `input`; the fields of a record are names of their own.
// Give back a result with `return`, and print with console.log what you want to see in the run.
console.log("arrived:", input)

return input
"""


class Ran(Out):
    """What the code left behind."""

    result: Annotated[Any, PortInfo(help="What the code returned, or its variable `result`.")]
    printed: Annotated[str, PortInfo(help="Everything that the code printed.")]
    files: Annotated[list[Any], PortInfo(help="The files that were kept: name, kind and size of each.")] = SKIP


class RunCode(Node):
    """Runs Python or JavaScript of your own, shut off from the network and from this server.

    What arrived is `input`, and the fields of a record are names of their own. The result is what the code returns. It may
    use what comes with Python or Node.js, and leaves nothing behind: every run starts anew.
    """

    family, title, icon, effect = Family.ACTION, "Run code", "code", Effect.E1
    words = ("python", "javascript", "node", "script", "program", "function", "custom", "calculate", "code")
    examples = (
        Example(
            "Count words",
            {"code": "words = text.split()\nprint(len(words))\nreturn {'words': len(words)}"},
            {"value": {"text": "to be or not to be"}},
            {"result": {"words": 6}, "printed": ""},
            given={"worker": {"words": 6}},
        ),
        Example(
            "A function of its own",
            {"code": "def main(input):\n    return sorted(input)", "timeout": 5},
            {"value": [3, 1, 2]},
            {"result": [1, 2, 3], "printed": ""},
            given={"worker": [1, 2, 3]},
        ),
        Example(
            "JavaScript",
            {"language": "javascript", "javascript": "return text.split(' ').reverse()"},
            {"value": {"text": "one two"}},
            {"result": ["two", "one"], "printed": ""},
            given={"worker": ["two", "one"]},
        ),
        Example(
            "From one file to another",
            {
                "code": "text = open('names.txt').read()\nopen('loud.txt', 'w').write(text.upper())",
                "reads": ["names.txt"],
                "keeps": ["loud.txt"],
            },
            {"value": None},
            {
                "result": None,
                "printed": "",
                "files": [{"name": "loud.txt", "media_type": "text/plain", "size": 3}],
            },
            given={"files": {"names.txt": "Ada"}, "worker_files": {"loud.txt": "ADA"}},
        ),
    )

    language: Literal["python", "javascript"] = Field(
        default="python",
        title="Language",
        description="What the code is written in. Each language keeps its own code.",
        json_schema_extra={"words": {"javascript": "JavaScript"}},
    )
    code: Code = Field(
        default=SNIPPET,
        min_length=1,
        title="Code",
        description="Python. What arrived is `input`; `return` gives the result.",
        json_schema_extra={"language": "python", "show_when": {"language": "python"}},
    )
    javascript: Code = Field(
        default=JAVASCRIPT,
        min_length=1,
        title="Code",
        description="JavaScript with Node.js. What arrived is `input`; `return` gives the result, `await` may be used.",
        json_schema_extra={"language": "javascript", "show_when": {"language": "javascript"}},
    )
    timeout: float = Field(
        default=30, gt=0, le=300, title="Time limit", description="Seconds after which the code is stopped."
    )

    size: Literal["small", "medium", "large", "data"] = Field(
        default="small",
        title="Worker size",
        description="How much it may use: small 128 MB, medium 384 MB, large 1 GB; data is medium with numpy and pandas.",
        json_schema_extra={"show_when": {"language": "python"}},
    )

    reads: list[FileName] = Field(
        default_factory=list,
        max_length=MOST_FILES,
        title="Files it reads",
        description="Files of your team that lie beside the code: open them by their name. 64 MB together at most.",
        json_schema_extra={"section": "Files", "format": "file"},
    )
    keeps: list[Kept] = Field(
        default_factory=list,
        max_length=MOST_FILES,
        title="Files to keep",
        description="What the code writes, such as report.csv, or *.png for all of a kind; 25 MB together at most. They become "
        "files of your team under Settings → Files & tables, in place of those of the same name.",
    )

    @field_validator("reads", "keeps")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not name.strip() or name in (".", "..") or not name.isprintable() or "/" in name or "\\" in name:
                raise ValueError("write the names of files, without folders")
        return names

    async def run(self, ctx: Context, value: Any = None) -> Ran:
        inputs = {name: part for name, part in value.items() if name.isidentifier()} if isinstance(value, dict) else {}
        inputs["input"] = value
        reply = await ctx.worker.run(
            self.written,
            inputs,
            language=self.language,
            timeout=self.timeout,
            size=self.worker_size(),
            reads=self.reads,
            keeps=self.keeps,
        )
        if reply.stderr:
            ctx.log("The code wrote to its error output.", text=reply.stderr[:2000])
        files = [dict(one) for one in reply.files] if self.keeps else SKIP
        return Ran(result=reply.value, printed=reply.stdout, files=files)

    def outputs(self) -> tuple[Port, ...]:
        ports = class_ports(type(self))[1]
        return ports if self.keeps else tuple(port for port in ports if port.name != "files")

    def effect_here(self) -> Effect:
        return Effect.E2 if self.keeps else Effect.E1

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.PRIVATE}) if self.reads else frozenset()

    @property
    def written(self) -> str:
        """The code in the language that was chosen."""
        return self.javascript if self.language == "javascript" else self.code

    def as_python(self, w: Writer) -> None:
        if self.language == "javascript":
            raise CannotCompile(
                "its code is JavaScript, and a Python module cannot run it.",
                fix="Write the step in Python, or run this agent in the factory.",
            )
        if self.reads or self.keeps:
            raise CannotCompile(
                "its code reads or keeps files, which only the factory gives it.",
                fix="Read the file with “Read a table” before and write it with “Write a file” after, or run this agent in the factory.",
            )
        name, names = own_function(w, self.code)
        if set(names) - {"input"}:
            w.let("known", "value if isinstance(value, dict) else {}" if "value" in w.ports else "{}")
        w.let("printed", "io.StringIO()")
        given = [f"{one}=known[{one!r}]".replace("'", '"') for one in names if one != "input"]
        with w.block("with contextlib.redirect_stdout(printed):"):
            w.let("result", call(name, f"input={w.arrived('value')}", *given))
        w.gives(result="result", printed="printed.getvalue()")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        file = record({"name": TEXT, "media_type": TEXT, "size": NUMBER}, open=True)
        return {"printed": TEXT, "files": list_of(file)} if self.keeps else {"printed": TEXT}

    def worker_size(self) -> str:
        return "node" if self.language == "javascript" else self.size

    def forecast_seconds(self) -> float:
        return 0.05

    def describe(self) -> str:
        lines = (line.strip() for line in self.written.splitlines())
        return next((line[:80] for line in lines if line and not line.startswith(("#", "//"))), "")
