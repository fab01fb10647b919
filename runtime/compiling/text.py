"""The beginning and the end of a compiled module: what it says of itself, its imports, its world and its command line."""

from collections.abc import Iterable

from nodes.blueprint import Blueprint
from nodes.compiling import Library
from nodes.compiling.layout import identifier

_NOTE = """Compiled by `factory compile` from the agent “{name}”, content {hash}.
It runs on its own, without the factory and so without its safeguards: steps reach outside with the rights of whoever
starts it, code steps run in this very process, nothing is journaled, approved or limited. Made, not written: change the
agent and compile it again."""

_MAIN = '''def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\\n")[0] if __doc__ else None)
    parser.add_argument("--input", default="null", help="what starts it, as JSON")
    given = parser.parse_args()
    print(json.dumps({run}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()'''


def opening(blueprint: Blueprint, content_hash: str, library: Library, names: Iterable[str]) -> list[str]:
    """The docstring and the imports."""
    title = " ".join(blueprint.name.split())
    lines = [f"{title}{'' if title.endswith('.') else '.'}", ""]
    if blueprint.description.strip():
        lines += [*(" ".join(line.split()) for line in blueprint.description.strip().splitlines()), ""]
    lines += [*_NOTE.format(name=title, hash=content_hash[:16]).splitlines(), ""]
    packages = library.packages()
    lines.append(f"Needs: {', '.join(packages)}." if packages else "Needs nothing but Python 3.11 or later.")
    if library.secrets:
        lines += ["", "Secrets come from environment variables:"]
        lines += [f"  “{name}” from {variable}" for name, variable in sorted(library.secrets.items())]
    if library.notes:
        lines += ["", *sorted(library.notes)]
    module = identifier(blueprint.name)
    lines += ["", f"    python {module}.py --input '{{}}'"]
    text = "\n".join(lines).replace("\\", "/").replace('"""', "”””")
    imports = "\n".join(["from __future__ import annotations", "", *library.import_lines()])
    return [f'"""{text}\n"""\n\n{imports}']


def closing(library: Library, *, waits: bool) -> list[str]:
    """The world that the steps reach, when they reach one, and the command line."""
    for line in ("import argparse", "import json"):
        library.need(line)
    found = []
    if waits:
        library.need("import asyncio")
        found.append(_world(library))
    call = "run(json.loads(given.input))"
    return [*found, _MAIN.replace("{run}", f"asyncio.run({call})" if waits else call)]


def _world(library: Library) -> str:
    doors = [f"        self.{name} = {library.place(*place)}()" for name, place in sorted(library.doors.items())]
    start = ["    def __init__(self) -> None:", *doors, ""] if doors else []
    library.need("from datetime import UTC, datetime")
    return "\n".join(
        [
            "class World:",
            '    """What the steps reach outside. Give `run` another one with the same methods to test it."""',
            "",
            *start,
            "    def now(self) -> datetime:",
            '        """The present moment."""',
            "        return datetime.now(UTC)",
        ]
    )
