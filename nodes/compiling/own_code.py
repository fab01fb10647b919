"""Code that people wrote, as a function of a compiled module: it runs there with the rights of whoever starts the module."""

import ast
import builtins
import textwrap

from nodes.compiling.layout import identifier
from nodes.compiling.writer import CannotCompile, Writer


def own_function(w: Writer, code: str) -> tuple[str, list[str]]:
    """Copy the code into the module as a function; its name, and the names that it wants of what arrives.

    Raises CannotCompile when the code cannot be read, or would mean something else inside of a function.
    """
    body = textwrap.indent(code.strip("\n"), "    ")
    try:
        tree = ast.parse(f"def own():\n{body}\n")
    except SyntaxError as error:
        raise CannotCompile(
            f"line {(error.lineno or 2) - 1} of its code cannot be read.", fix="Correct the code."
        ) from None
    own = tree.body[0]
    assert isinstance(own, ast.FunctionDef)
    for node in ast.walk(own):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.end_lineno != node.lineno:
            raise CannotCompile("its code has a text over several lines.", fix="Join the lines with `\\\\n`.")
        if isinstance(node, ast.Global) or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            raise CannotCompile("its code uses `global` or `__future__`.", fix="Write it without.")
    names = _wanted(own)
    end = _end(own)
    if end:
        body += f"\n    {end}"
    w.library.need("from typing import no_type_check")
    for line in ("import contextlib", "import io"):
        w.library.need(line)
    name = identifier("own_code", w.library.taken)
    w.library.taken.add(name)
    given = ", ".join(["input", *(one for one in names if one != "input")])
    w.library.texts.append(f"# fmt: off\n@no_type_check\ndef {name}({given}):\n{body}\n# fmt: on")
    return name, names


def _wanted(own: ast.FunctionDef) -> list[str]:
    """Names that the code uses and neither makes itself nor finds in Python."""
    made = {part.arg for part in ast.walk(own) if isinstance(part, ast.arg)}
    used: dict[str, None] = {}
    for part in ast.walk(own):
        if isinstance(part, ast.Name):
            if isinstance(part.ctx, ast.Load):
                used[part.id] = None
            else:
                made.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(part.name)
        elif isinstance(part, ast.alias):
            made.add((part.asname or part.name).partition(".")[0])
        elif isinstance(part, ast.ExceptHandler) and part.name:
            made.add(part.name)
    return [name for name in used if name == "input" or (name not in made and not hasattr(builtins, name))]


def _end(own: ast.FunctionDef) -> str:
    """What the code gives that returns nothing itself: its `main` or `run`, or its variable `result`."""
    defined = {part.name: part for part in own.body if isinstance(part, ast.FunctionDef)}
    for name in ("main", "run"):
        if name in defined:
            wanted = [each.arg for each in defined[name].args.args]
            return f"return {name}({', '.join('input' for _ in wanted[:1])})"
    stored = {part.id for part in ast.walk(own) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return "return result" if "result" in stored and not isinstance(own.body[-1], ast.Return) else ""
