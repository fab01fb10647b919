"""Rules of the house that no linter knows: what code may do where, what locks may hold, where a file belongs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from app.settings import Settings
from nodes.base import Family
from nodes.catalog import catalog

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("app", "nodes", "runtime", "storage")
OURS = (*PRODUCT, "assets", "deploy", "tests")
LOCKS = ("requirements.lock", "requirements-dev.lock", "deploy/requirements-uv.lock", "deploy/requirements-build.lock")

# What the product may never do, and the few places that may, with the reason. A folder's name ends with a slash. A place
# that no longer needs its exception loses it here.
ALLOWED = {
    ("runtime/workers/image/build.py", "subprocess"): "starts docker and debootstrap, for the operator",
    ("runtime/workers/image/common.py", "subprocess"): "asks docker for an image",
    ("runtime/workers/image/layers.py", "subprocess"): "starts docker and pip, with arguments that were checked",
    ("runtime/workers/broker/process.py", "subprocess"): "starts the broker, our own program, as its own user",
    ("runtime/workers/broker/process.py", "os.fork"): "the broker, which is started anew when it dies",
    ("nodes/catalog.py", "importlib.import_module"): "imports our own family folders by their names in the code",
    ("app/main.py", "importlib.import_module"): "imports our own pages and routers, found by walking their folders",
    ("runtime/workers/local.py", "subprocess"): "starts bubblewrap with a fixed command line",
    ("app/theme.py", "add_head_html of something put together"): "our own style sheet and script, no word of a person",
    ("nodes/formula/", "jinja2"): "its lexer and parser only; our own evaluator walks the tree",
}
# These are never imported by the server: they are the inside of a worker, whose purpose is to run people's code.
INSIDE_A_WORKER = {
    "runtime/workers/inside.py",
    "runtime/workers/script.py",
    "runtime/workers/crew.py",
    "runtime/workers/libraries.py",
    "runtime/workers/parcels.py",
}
MODULES = {
    "code", "codeop", "ctypes", "dill", "imp", "jinja2", "joblib", "marshal", "multiprocessing", "pickle", "pty", "runpy",
    "shelve", "subprocess", "yaml",
}  # fmt: skip
BUILTINS = {"__import__", "breakpoint", "compile", "eval", "exec"}
CALLS = {
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "concurrent.futures.ProcessPoolExecutor",
    "importlib.import_module",
    "os.fork",
    "os.popen",
    "os.posix_spawn",
    "os.startfile",
    "os.system",
}
CALL_PREFIXES = ("os.exec", "os.spawn")
PATTERN_FUNCTIONS = {"compile", "findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"}
SCRIPT_FUNCTIONS = {"add_body_html", "add_head_html", "run_javascript"}


def files(*suffixes: str, rooms: tuple[str, ...] = OURS) -> list[Path]:
    """Our own files in these rooms."""
    found = (path for room in rooms for path in (ROOT / room).rglob("*") if path.suffix in suffixes)
    return sorted(path for path in found if "vendor" not in path.parts and "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    """A file's name as we write it."""
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    """A Python file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


# --- files -------------------------------------------------------------------------------------------------------------


def test_no_file_is_longer_than_600_lines() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in files(".py", ".js")}
    assert {name: size for name, size in sizes.items() if size > 600} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path) for path in files(".py") if path.read_text().strip() and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


def test_every_room_of_the_product_is_known() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == {*PRODUCT, "tests"}


def test_tests_mirror_the_product() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*PRODUCT, "bench", "chaos", "e2e", "fakes", "promises"}


def test_a_node_type_stands_on_the_shelf_of_its_family() -> None:
    shelves = {cls.type: cls.__module__.split(".")[1] for cls in catalog() if cls.__module__.startswith("nodes.")}
    assert shelves == {cls.type: cls.family.value for cls in catalog() if cls.__module__.startswith("nodes.")}
    on_shelves = {path for family in Family for path in files(".py", rooms=(f"nodes/{family.value}",))}
    modules = {ROOT / f"{cls.__module__.replace('.', '/')}.py" for cls in catalog()}
    without_a_node = {name_of(path) for path in on_shelves - modules if not path.name.startswith("_")}
    assert without_a_node == set()


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/ARCHITECTURE.md"])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text) + re.findall(
        r'src="(?!https?://)([^"]+)"', text
    )
    assert [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()] == []


def test_the_readme_names_every_setting() -> None:
    documented = set(re.findall(r"^\| `(FACTORY_\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert documented == {f"FACTORY_{name.upper()}" for name in Settings.model_fields}


# --- what code may do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deed:
    """Something forbidden that a file does."""

    file: str
    line: int
    what: str


def deeds(path: Path, tree: ast.Module) -> Iterator[Deed]:
    """Everything in a file that the rules forbid, allowed or not."""
    names = imported_names(tree)
    literals = literal_names(tree)
    for node in ast.walk(tree):
        found = None
        if isinstance(node, ast.Import):
            found = next((a.name.split(".")[0] for a in node.names if a.name.split(".")[0] in MODULES), None)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = (node.module or "").split(".")[0]
            if found == "re":
                found = "from re import"
            elif found not in MODULES:
                found = next(
                    (f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in CALLS), None
                )
        elif isinstance(node, ast.Call):
            found = forbidden_call(node, names, literals)
        if found and isinstance(node, ast.stmt | ast.expr):
            yield Deed(name_of(path), node.lineno, found)


def forbidden_call(node: ast.Call, names: dict[str, str], literals: set[str]) -> str | None:
    """What is wrong with one call, if anything."""
    called = dotted(node.func, names)
    last = called.rpartition(".")[2]
    first = node.args[0] if node.args else None
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    if called == "importlib.import_module" and is_literal(first, literals):
        return None
    if called in BUILTINS or called in CALLS or called.startswith(CALL_PREFIXES):
        return called
    if called.startswith("re.") and last in PATTERN_FUNCTIONS and not is_literal(first, literals):
        return f"{called} of a pattern that is not written there"
    if last in ("format", "format_map") and called.startswith("?") and not is_literal(receiver, literals):
        return "str.format of a text that is not written there"
    if last in SCRIPT_FUNCTIONS and not is_literal(first, literals):
        return f"{last} of something put together"
    if last in ("restructured_text", "from_string", "compile_expression"):
        return last
    if any(
        key.arg == "sanitize" and isinstance(key.value, ast.Constant) and not key.value.value for key in node.keywords
    ):
        return "sanitize=False"
    return None


def imported_names(tree: ast.Module) -> dict[str, str]:
    """What the names at hand were imported as: `from os import path as p` gives `p: os.path`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (a.asname or a.name.split(".")[0]): (a.name if a.asname else a.name.split(".")[0]) for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
    return names


def literal_names(tree: ast.Module) -> set[str]:
    """Names given to a literal text at the top of a file."""
    known: set[str] = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if targets and is_literal(getattr(node, "value", None), known):
            known |= {target.id for target in targets if isinstance(target, ast.Name)}
    return known


def is_literal(node: ast.AST | None, known: set[str]) -> bool:
    """Whether a text is written in the code, perhaps in pieces."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in known
        case ast.Dict(values=texts) | ast.Tuple(elts=texts) | ast.List(elts=texts):
            return all(is_literal(text, known) for text in texts)
        case ast.DictComp():
            return all(is_literal(each.iter, known) for each in node.generators)
        case ast.Subscript(value=ast.Name(id=name)):
            return name in known
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            return is_literal(left, known) and is_literal(right, known)
        case ast.JoinedStr(values=values):
            return all(
                is_literal(value.value if isinstance(value, ast.FormattedValue) else value, known) for value in values
            )
        case _:
            return False


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """A called thing as a dotted name; what is not a plain name is a question mark, a literal text nothing."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=ast.Constant(), attr=name):
            return f".{name}"
        case ast.Attribute(value=value, attr=name):
            owner = dotted(value, names)
            imported = owner.split(".")[0] in {path.split(".")[0] for path in names.values()}
            return f"{owner}.{name}" if imported or owner.startswith("?") else f"?{owner}.{name}"
        case _:
            return "?"


def all_deeds() -> list[Deed]:
    """Everything forbidden that the product does, allowed or not."""
    product = [path for path in files(".py", rooms=PRODUCT) if name_of(path) not in INSIDE_A_WORKER]
    return [deed for path in product for deed in deeds(path, tree_of(path))]


def exception_for(deed: Deed) -> tuple[str, str] | None:
    """The exception that covers a deed."""
    covers = (key for key in ALLOWED if key[1] == deed.what)
    return next((key for key in covers if deed.file == key[0] or deed.file.startswith(key[0].rstrip("/") + "/")), None)


def test_nothing_in_the_product_runs_text_as_code() -> None:
    assert [deed for deed in all_deeds() if not exception_for(deed)] == []


def test_every_exception_to_that_is_still_needed() -> None:
    assert set(ALLOWED) - {exception_for(deed) for deed in all_deeds()} == set()


def test_the_server_does_not_import_what_runs_inside_a_worker() -> None:
    inside = {name.removesuffix(".py").replace("/", ".") for name in INSIDE_A_WORKER}
    importers = {
        name_of(path)
        for path in files(".py", rooms=PRODUCT)
        if name_of(path) not in INSIDE_A_WORKER and inside & set(imported_names(tree_of(path)).values())
    }
    assert importers == set()


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "import pickle",
        "from subprocess import run",
        "import os as o; o.system('ls')",
        "from os import system; system('ls')",
        "import os; os.execv('/bin/sh', [])",
        "import re; re.compile(pattern)",
        "import re as r; r.sub(f'{x}', '', y)",
        "from re import compile",
        "import importlib; importlib.import_module(name)",
        "template.format(a=1)",
        "ui.run_javascript(f'alert({x})')",
        "ui.html(text, sanitize=False)",
        "import asyncio; asyncio.create_subprocess_exec('ls')",
    ],
)
def test_the_rule_sees(line: str) -> None:
    assert list(deeds(ROOT / "app" / "example.py", ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "import re\nA = 'a'\nB = f'{A}b'\nre.compile(A + B)",
        "'{} {}'.format(a, b)",
        "PAGE = '<p>{}'\nPAGE.format(a)",
        "THEMES = {'dark': 1}\nSET = {name: f'set({name})' for name in THEMES}\nui.run_javascript(SET[name])",
        "session.execute(query)",
        "ui.run_javascript('location.reload()')",
        "condition.compile(plan)",
    ],
)
def test_the_rule_passes(line: str) -> None:
    assert list(deeds(ROOT / "app" / "example.py", ast.parse(line))) == []


def test_no_task_is_started_and_forgotten() -> None:
    """A task that nobody holds may vanish halfway. In pages NiceGUI's background_tasks holds it."""
    loose: list[str] = []
    for path in files(".py", rooms=PRODUCT):
        tree = tree_of(path)
        names = imported_names(tree)
        dropped = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        tasks = (call for call in calls if dotted(call.func, names).endswith((".create_task", ".ensure_future")))
        bare = (
            call for call in tasks if call in dropped or (path.is_relative_to(ROOT / "app") and is_bare(call, names))
        )
        loose += [f"{name_of(path)}:{call.lineno}" for call in bare]
    assert loose == []


def is_bare(call: ast.Call, names: dict[str, str]) -> bool:
    """Whether it is asyncio's own function."""
    return dotted(call.func, names).startswith("asyncio.")


def test_starting_up_imports_nothing_heavy() -> None:
    program = "import sys, app.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"litellm", "plotly", "docker", "pandas", "matplotlib", "apprise"} & set(done.stdout.split()) == set()


def test_only_the_door_to_the_models_names_litellm() -> None:
    """Import contracts do not see it: it is imported by name, late, because it takes seconds and 170 MB."""
    named = {
        name_of(path)
        for path in files(".py", rooms=PRODUCT)
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Constant) and node.value == "litellm")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "litellm" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "litellm")
    }
    assert named <= {"runtime/llm.py"}


def test_no_row_of_a_clock_can_be_code() -> None:
    """APScheduler keeps jobs as pickles wherever it is given a place for them; ours are rows, and its are in memory."""
    named, given = set(), set()
    for path in files(".py", rooms=PRODUCT):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names if alias.name.startswith("apscheduler")}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("apscheduler"):
                named.add(node.module)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and "Scheduler" in node.func.id:
                given |= {keyword.arg for keyword in node.keywords} | ({"positional"} if node.args else set())
            elif isinstance(node, ast.Attribute):
                assert node.attr not in ("add_jobstore", "add_executor"), name_of(path)
    assert named == {"apscheduler.schedulers.asyncio"}
    assert given == {"timezone"}


# --- what is installed -------------------------------------------------------------------------------------------------


def locked(lock: str) -> dict[str, str]:
    """Names and versions in a lock file."""
    lines = (ROOT / lock).read_text().splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if line and line[0].isalnum()]
    return {f"{pin.name} {pin.marker or ''}".strip(): str(pin.specifier).removeprefix("==") for pin in pins}


@pytest.mark.parametrize("lock", [*LOCKS, "assets/web/package-lock.json"])
def test_no_lock_file_holds_an_address(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_its_hashes(lock: str) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / lock).read_text().strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_file_holds_a_version_on_the_deny_list(lock: str) -> None:
    denied = tomllib.loads((ROOT / "deploy" / "denylist.toml").read_text())
    wrong = []
    for name, version in locked(lock).items():
        rule = denied.get(name.split(" ")[0].lower())
        if rule and not SpecifierSet(rule["allowed"]).contains(version, prereleases=True):
            wrong.append(f"{name}=={version}: {rule['reason']}")
    assert wrong == []


def test_nothing_runs_at_the_start_of_python_but_what_we_know() -> None:
    """A stolen package once hid in a .pth file: whatever stands there runs in every process, imported or not."""
    for folder in {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}:
        assert {path.name for path in folder.glob("*.pth")} <= {"_agent_factory.pth", "distutils-precedence.pth"}
        assert [*folder.glob("sitecustomize*"), *folder.glob("usercustomize*")] == []


def test_tests_run_on_the_versions_that_people_get() -> None:
    developer = locked("requirements-dev.lock")
    assert {
        name: version for name, version in locked("requirements.lock").items() if developer.get(name) != version
    } == {}


def test_the_build_is_locked_as_the_project_asks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = locked("deploy/requirements-build.lock")
    for line in project["build-system"]["requires"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[wanted.name])
