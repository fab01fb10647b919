"""Copies definitions of the product into a compiled module: a function with all that it needs, and no more.

Sources are read, never run: each definition is found in its file by the parser, and so are the names that it uses.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from nodes.compiling import kit

_KIT = kit.__name__
DOORS = "nodes.compiling.doors"
CALLS = "nodes.compiling.calls"
_OURS = ("nodes", "runtime")
_PACKAGES = {"re2": "google-re2"}
_UNTYPED = frozenset({"re2"})

RESERVED = (
    frozenset(dir(builtins)) | sys.stdlib_module_names | {name for name in vars(kit) if not name.startswith("__")}
)
"""Names that steps cannot have in a compiled module."""

Place = tuple[str, str]


@dataclass(slots=True)
class Library:
    """What a compiled module carries along, in the order in which it must stand."""

    names: dict[Place, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: set(dir(builtins)))
    texts: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    foreign: dict[str, str] = field(default_factory=dict)
    """What is imported of others, by the names that it has here."""
    doors: dict[str, Place] = field(default_factory=dict)
    """What the world outside is made of: by its name there, where its class is defined."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Each secret with the environment variable that it comes from."""
    late: set[str] = field(default_factory=set)
    """Packages that are imported only when they are used."""
    notes: set[str] = field(default_factory=set)
    """Sentences for the top of the module."""
    tools: bool = False
    """Whether models may ask for tools."""

    def use(self, thing: Callable[..., Any] | type) -> str:
        """The name by which a function or class can be used; it is copied with all that it needs."""
        return self.place(thing.__module__, thing.__name__)

    def kit(self, name: str) -> str:
        """The same for a definition of the kit."""
        return self.place(_KIT, name)

    def need(self, line: str) -> None:
        """An import line."""
        head, is_from, names = line.partition(" import ")
        lines = {f"{head} import {name}": name for name in names.split(", ")} if is_from else {line: line.split()[-1]}
        for one, name in lines.items():
            self.imports.add(one)
            self.foreign.setdefault(one, name)
            self.taken.add(name)

    def packages(self) -> list[str]:
        """What must be installed for it to run."""
        roots = {line.split()[1].partition(".")[0] for line in self.imports} | self.late
        return sorted(_PACKAGES.get(root, root) for root in roots - set(sys.stdlib_module_names))

    def model(self, *, tools: bool = False) -> None:
        """The door to language models, which may ask for tools."""
        self.tools = self.tools or tools
        self.doors["llm"] = (DOORS, "Llm")
        self.names[DOORS, "Llm"] = "Llm"
        self.taken.add("Llm")

    def finish(self) -> None:
        """Add the door to language models, once it is known what is asked of it."""
        if "llm" not in self.doors:
            return
        from nodes.compiling.doors import model

        for name in ("LlmReply", "NodeError"):
            self.place("nodes.base", name)
        for line in ("import json", "import os", "from collections.abc import Mapping, Sequence"):
            self.need(line)
        text = model(tools=self.tools)
        if self.tools:
            self.need("from typing import Any")
            told, read = self.place("runtime.llm", "_told"), self.place("runtime.llm", "_call")
            text = text.replace("told(", f"{told}(").replace("read_call(", f"{read}(")
        self.late |= {line.split()[1] for line in text.splitlines() if line.strip().startswith("import ")}
        self.texts.append(text)

    def import_lines(self) -> list[str]:
        """The imports as they stand at the top of a file."""
        stdlib = [line for line in self.imports if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
        groups = [_sorted(stdlib), _sorted([line for line in self.imports if line not in stdlib])]
        return [line for group in groups if group for line in ("", *group)][1:]

    def place(self, module: str, name: str, wish: str = "") -> str:
        """Copy a definition of one of our modules; the name that it has in the compiled one."""
        if (module, name) in kit.INSTEAD:
            module, name, wish = _KIT, kit.INSTEAD[module, name], name
        if (known := self.names.get((module, name))) is not None:
            return known
        home = _home(module)
        bound = home.bindings.get(name)
        if isinstance(bound, Elsewhere):
            return self.place(bound.module, bound.name, wish)
        if isinstance(bound, str):
            return self._foreign(bound, name)
        assert isinstance(bound, ast.stmt), f"{module} has no {name}"
        emitted = self._free(wish or name, module)
        self.names[module, name] = emitted
        self.taken.add(emitted)
        text = self._copied(home, bound, name, emitted)
        self.texts.append(text)
        return emitted

    def _foreign(self, line: str, name: str) -> str:
        """Import something of somebody else's, by another name when its own is taken."""
        if line in self.foreign:
            return self.foreign[line]
        alias = name
        if name in self.taken:
            alias = f"{line.split()[1].rpartition('.')[2]}_{name}"
            line_here = f"{line.partition(' as ')[0]} as {alias}"
        else:
            line_here = line
        self.imports.add(_typed(line_here))
        self.taken.add(alias)
        self.foreign[line] = alias
        return alias

    def _free(self, name: str, module: str) -> str:
        if name not in self.taken:
            return name
        last = module.rpartition(".")[2]
        longer = f"_{last}{name}" if name.startswith("_") else f"{last}_{name}"
        while longer in self.taken:
            longer += "_"
        return longer

    def _copied(self, home: _Home, node: ast.stmt, name: str, emitted: str) -> str:
        edits: list[tuple[int, int, int, str]] = []
        first = node.lineno
        decorators: list[str] = []
        visited: list[ast.AST] = [node]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.lineno
            own = [one for one in node.decorator_list if _is_entry(one)]
            if own:
                decorators = [self._entry(own[0], name)]
                visited = [part for part in ast.iter_child_nodes(node) if part not in node.decorator_list]
            elif node.decorator_list:
                first = node.decorator_list[0].lineno
        bound = _bound_inside(node)
        for root in visited:
            self._refer(home, root, bound, edits)
        lines = home.lines[first - 1 : node.end_lineno]
        for row, start, end, text in sorted(edits, reverse=True):
            line = lines[row - first].encode()
            lines[row - first] = (line[:start] + text.encode() + line[end:]).decode()
        if emitted != name:
            head = node.lineno - first
            lines[head] = lines[head].replace(name, emitted, 1)
        return "\n".join(decorators + lines)

    def _refer(self, home: _Home, root: ast.AST, bound: set[str], edits: list[tuple[int, int, int, str]]) -> None:
        whole = {id(part.value) for part in ast.walk(root) if isinstance(part, ast.Attribute)}
        for part in ast.walk(root):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                module = home.bindings.get(part.value.id)
                if isinstance(module, ModuleType) and part.value.id not in bound:
                    found = self.place(module.__name__, part.attr, f"{part.value.id}_{part.attr}")
                    edits.append((part.lineno, part.col_offset, part.end_col_offset or 0, found))
            elif isinstance(part, ast.Name) and part.id not in bound and part.id in home.bindings:
                if id(part) in whole and isinstance(home.bindings[part.id], ModuleType):
                    continue
                found = self.place(home.module, part.id)
                if found != part.id:
                    edits.append((part.lineno, part.col_offset, part.end_col_offset or 0, found))

    def _entry(self, decorator: ast.expr, name: str) -> str:
        assert isinstance(decorator, ast.Call)
        kinds = decorator.args[1]
        taken = kinds.value if isinstance(kinds, ast.Constant) else None
        wanted = taken.split(" or ") if isinstance(taken, str) else []
        shown = ", ".join(f'"{one}"' for one in (name.rstrip("_"), *wanted))
        return f"@{self.kit('function')}({shown})"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where an imported name of ours is defined."""

    module: str
    name: str


@dataclass(slots=True)
class _Home:
    """One of our modules, read."""

    module: str
    lines: list[str]
    bindings: dict[str, ast.stmt | Elsewhere | ModuleType | str]
    """What its names mean: a definition, a name of another module, one of our modules, or an import of somebody else's."""


@functools.cache
def _home(name: str) -> _Home:
    # They bring libraries along that only compiling needs.
    if name == DOORS:
        import nodes.compiling.doors
    elif name == CALLS:
        import nodes.compiling.calls  # noqa: F401
    source = inspect.getsource(sys.modules[name])
    bindings: dict[str, ast.stmt | Elsewhere | ModuleType | str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bindings[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            bindings[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bindings[node.target.id] = node
        elif isinstance(node, ast.Import):
            for one in node.names:
                bindings[one.asname or one.name] = f"import {one.name}" + (f" as {one.asname}" if one.asname else "")
        elif isinstance(node, ast.ImportFrom) and node.module:
            ours = {*_OURS, name.partition(".")[0]}
            for one in node.names:
                bindings[one.asname or one.name] = _imported(node.module, one, ours)
    return _Home(name, source.splitlines(), bindings)


def _imported(module: str, one: ast.alias, ours: set[str]) -> Elsewhere | ModuleType | str:
    if module.partition(".")[0] not in ours:
        return f"from {module} import {one.name}" + (f" as {one.asname}" if one.asname else "")
    found = getattr(sys.modules[module], one.name, None)
    return found if isinstance(found, ModuleType) else Elsewhere(module, one.name)


def _is_entry(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "function"


def _bound_inside(node: ast.stmt) -> set[str]:
    """Names that the definition itself gives a meaning to."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    found = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    return found | {
        part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


def _typed(line: str) -> str:
    root = line.split()[1].partition(".")[0]
    return f"{line}  # type: ignore[import-untyped]" if root in _UNTYPED else line


def _sorted(lines: list[str]) -> list[str]:
    plain = sorted(line for line in lines if line.startswith("import "))
    by_module: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("from "):
            _, module, _, name = line.split(maxsplit=3)
            by_module.setdefault(module, []).append(name)
    joined = []
    for module, names in sorted(by_module.items()):
        ordered = sorted(names, key=_case)
        line = f"from {module} import {', '.join(ordered)}"
        if len(line) > 120:
            line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"
        joined.append(line)
    return plain + joined


def _case(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as a sorter of imports puts them."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name
