"""Runs one script of a person, inside a job's own process: what it sees, what its result is, what its errors say.

Beside `inside.py` in the worker, and like it of the standard library only. The script sees `inputs` and each input by
its name. Its result is what it returns (a `return` at the top level is allowed), or `result`, or what its `main` or
`run` function returns. Line numbers are always those that the person sees in the editor.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import gc
import json
import linecache
import os
import resource
import signal
import sys
import traceback
import types
from typing import Any, NoReturn

parcels: Any = None
"""The file `parcels.py` beside this one, when it has been loaded."""
libraries: Any = None
"""The file `libraries.py` beside this one, when it has been loaded."""
crew: Any = None
"""The file `crew.py` beside this one, when it has been loaded."""
CODE_NAME = "your code"
TOP = "<module>"
DEPTH = 64
LARGEST = sys.float_info.max
MESSAGE_LIMIT = 4_000
TRACEBACK_LIMIT = 16_000
YIELDS = (
    10  # what a job is nicer than the first process, which has to answer while a hundred processes want the processor
)
MEMORY_SPARE = 16 * 1024 * 1024  # to explain a lack of memory with
PR_SET_DUMPABLE = 4
JSON_HINTS = {
    "datetime": "Use `.isoformat()` to make it text.",
    "date": "Use `.isoformat()` to make it text.",
    "time": "Use `.isoformat()` to make it text.",
    "timedelta": "Use `.total_seconds()` to make it a number.",
    "Decimal": "Use `float(…)` or `str(…)`.",
    "Fraction": "Use `float(…)`.",
    "complex": "Use `abs(…)` or its `.real` part.",
    "set": "Use `sorted(…)` or `list(…)`.",
    "frozenset": "Use `sorted(…)` or `list(…)`.",
    "bytes": "Use `.decode()` to make it text.",
    "bytearray": "Use `.decode()` to make it text.",
    "generator": "Use `list(…)`.",
    "map": "Use `list(…)`.",
    "filter": "Use `list(…)`.",
    "zip": "Use `list(…)`.",
    "range": "Use `list(…)`.",
    "dict_keys": "Use `list(…)`.",
    "dict_values": "Use `list(…)`.",
    "dict_items": "Use `dict(…)`.",
    "UUID": "Use `str(…)`.",
    "function": "Did you forget to call it?",
}


def be_the_job(frame: dict[str, Any], limits: dict[str, Any], pipes: list[int], libc: ctypes.CDLL) -> None:
    """The forked child: take the limits on, run the code, leave the outcome in the pipe. Never returns."""
    try:
        itself = os.getpid()
        out, err, outcome = pipes
        os.setsid()
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        outcome = os.dup2(outcome, 63, inheritable=False)
        os.closerange(3, 63)
        os.umask(0o077)
        os.chdir("/workspace")
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
        os.nice(YIELDS)
        timeout = float(frame["timeout"])
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_NOFILE, limits["files"])
        limit(resource.RLIMIT_FSIZE, limits["disk"])
        if frame.get("bring"):
            parcels.bring(frame)
        javascript = frame.get("kind") == "javascript"
        if not javascript:  # its own limit is that of its heap
            limit(resource.RLIMIT_DATA, limits["memory"], spare=MEMORY_SPARE)
        if limits.get("processes"):
            limit(resource.RLIMIT_NPROC, limits["processes"])
        if limits.get("nice"):
            os.nice(limits["nice"])
        sys.modules["_thread"].stack_size(1 << 20)
        if javascript:
            run_javascript(frame, limits, outcome)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, lambda _signal, where: say_where(outcome, timeout, line_of(where)))
        signal.setitimer(signal.ITIMER_REAL, timeout)
        gc.enable()
        sys.argv = ["code"]
        try:
            names = {"crew": crew.sit_down(frame["seat"])} if frame.get("seat") else {}
            result = execute(frame["code"], json.loads(frame["inputs"]), names)
            answer = b"V" + to_json(result, limits["result"])
        except BaseException as error:  # whatever the code raises is its result
            said = failure(error)
            answer = b"E" + json.dumps(said).encode()
            if os.getpid() != itself:
                sys.stderr.write(said["traceback"])
        if os.getpid() != itself:  # the code forked, and this is not the process whose result was asked for
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        leave(outcome, answer)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(70)


def run_javascript(frame: dict[str, Any], limits: dict[str, Any], outcome: int) -> NoReturn:
    """Become Node.js, or say why not."""
    try:
        libraries.become_node(frame, limits, outcome)
    except Exception as error:
        leave(outcome, b"E" + json.dumps(failure(error) | {"traceback": ""}).encode())
    raise AssertionError


def limit(which: int, value: int, spare: int = 0) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value, spare = min(value, hard), 0
    resource.setrlimit(which, (value, value + spare))


def leave(outcome: int, answer: bytes) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the code may have closed or replaced it
            stream.flush()
    view = memoryview(answer)
    while view:
        view = view[os.write(outcome, view) :]
    os._exit(0)


def say_where(outcome: int, timeout: float, line: int | None) -> NoReturn:
    """The time is up: say at which line, and end."""
    at = f" It was at line {line}." if line else ""
    error = {
        "kind": "timeout",
        "message": f"The code ran longer than {timeout:g} seconds and was stopped.{at}",
        "line": line,
    }
    leave(outcome, b"E" + json.dumps(error).encode())


class NotJson(Exception):
    """The result cannot be carried on as JSON."""

    def __init__(self, message: str, type_name: str | None = None) -> None:
        super().__init__(message)
        self.type_name = type_name


class BadCode(Exception):
    """The code could not be read as Python; the reason is the cause."""


def execute(code: str, inputs: dict[str, Any], known: dict[str, Any] | None = None) -> Any:
    """Run the code and return its result: from a top-level `return`, from `result = …`, or from `main` or `run`."""
    linecache.cache[CODE_NAME] = (len(code), None, code.splitlines(True), CODE_NAME)
    try:
        program, returns = prepare(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadCode from error
    module = types.ModuleType("__main__")
    names = module.__dict__
    for name, value in inputs.items():
        if name.isidentifier() and not name.startswith("__") and name not in ("result", "main", "run"):
            names[name] = value
    names["inputs"] = inputs
    names.update(known or {})
    sys.modules["__main__"] = module
    value = None
    try:
        exec(program, names)  # noqa: S102
        if returns:
            value = names.pop(TOP)()
        if value is None:
            value = names["result"] if "result" in names else call_entry(names, inputs)
        if isinstance(value, types.CoroutineType):
            value = __import__("asyncio").run(value)
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
        value = names.get("result")
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        threading._shutdown()
    return value


def call_entry(names: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """Call `main(**inputs)` with the inputs it names, or `run(inputs)`, if the code defines one of them."""
    main_ = names.get("main")
    if isinstance(main_, types.FunctionType):
        code = main_.__code__
        if code.co_flags & 0x08:  # it takes **anything
            return main_(**inputs)
        known = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
        return main_(**{name: value for name, value in inputs.items() if name in known})
    run = names.get("run")
    if isinstance(run, types.FunctionType):
        return run(inputs) if run.__code__.co_argcount else run()
    return None


def prepare(code: str) -> tuple[types.CodeType, bool]:
    """Compile the code, and say whether it returns at the top level, in which case its body became a function."""
    tree = ast.parse(code, CODE_NAME)
    scope = TopLevel()
    for statement in tree.body:
        scope.visit(statement)
    if not scope.returns:
        return compile(tree, CODE_NAME, "exec", dont_inherit=True), False
    future = [s for s in tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    body = [Unannotated().visit(s) for s in tree.body if s not in future]
    # All names stay global, so the body means the same inside the function as it did outside.
    names = [ast.Global(names=sorted(scope.names))] if scope.names else []
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    function = ast.FunctionDef(name=TOP, args=arguments, body=names + body, decorator_list=[], returns=None)
    if sys.version_info >= (3, 12):
        function.type_params = []  # type: ignore[unreachable,unused-ignore]
    function.lineno, function.col_offset = 1, 0
    wrapped = ast.fix_missing_locations(ast.Module(body=[*future, function], type_ignores=[]))
    return compile(wrapped, CODE_NAME, "exec", dont_inherit=True), True


class TopLevel(ast.NodeVisitor):
    """Finds what the code does outside its functions and classes: the names it binds, and whether it returns."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.returns = False

    def visit_Return(self, node: Any) -> None:
        self.returns = True
        self.generic_visit(node)

    def visit_Name(self, node: Any) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.names.add(node.id)

    def visit_FunctionDef(self, node: Any) -> None:
        self.names.add(node.name)
        for outside in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if outside is not None:
                self.visit(outside)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the names are ast's

    def visit_ClassDef(self, node: Any) -> None:
        self.names.add(node.name)
        for outside in (*node.decorator_list, *node.bases):
            self.visit(outside)

    def visit_Lambda(self, node: Any) -> None:
        pass

    def visit_comprehension(self, node: Any) -> None:
        self.visit(node.iter)  # its target is its own; only a walrus inside binds out here
        for condition in node.ifs:
            self.visit(condition)

    def visit_alias(self, node: Any) -> None:
        if node.name != "*":
            self.names.add(node.asname or node.name.partition(".")[0])

    def visit_ExceptHandler(self, node: Any) -> None:
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    def visit_Global(self, node: Any) -> None:
        self.names.update(node.names)

    def generic_visit(self, node: Any) -> None:
        if type(node).__name__ in ("MatchAs", "MatchStar") and node.name:
            self.names.add(node.name)
        elif type(node).__name__ == "MatchMapping" and node.rest:
            self.names.add(node.rest)
        super().generic_visit(node)


class Unannotated(ast.NodeTransformer):
    """Turns `x: int = 1` into `x = 1`, since a name declared global cannot be annotated."""

    def visit_AnnAssign(self, node: Any) -> Any:
        if not isinstance(node.target, ast.Name):
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_Global(self, node: Any) -> Any:
        return ast.copy_location(ast.Pass(), node)

    def _leave(self, node: Any) -> Any:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = _leave  # noqa: N815


def to_json(value: Any, size_limit: int) -> bytes:
    fault = find_fault(value, 0)
    if fault:
        path, reason, kind = fault
        raise NotJson(f"`result{path if len(path) < 80 else path[:60] + '…'}` {reason}", kind)
    data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(data) > size_limit:
        size = f"{len(data) / 1_048_576:.1f} MiB, more than the {size_limit / 1_048_576:.1f} MiB"
        raise NotJson(f"The result is {size} that a worker may hand back.")
    return data


def find_fault(value: Any, depth: int) -> tuple[str, str, str] | None:
    """The first thing that JSON cannot hold: the path to it, what is wrong with it, and its type."""
    if value is None or value is True or value is False:
        return None
    kind = type(value).__name__
    if depth > DEPTH:
        return "", f"is nested more than {DEPTH} levels deep, or contains itself.", kind
    if isinstance(value, str):
        if value.isascii() or value.encode("utf-8", "ignore").decode() == value:
            return None
        return "", "is text with a broken character (half of a surrogate pair).", kind
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return None
        return "", "is a whole number too large for JSON. Use `str(…)` to keep its digits.", kind
    if isinstance(value, float):
        if -LARGEST <= value <= LARGEST:
            return None
        return "", f"is {value}, which JSON cannot hold. Use None instead.", kind
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                kind = type(key).__name__
                return "", f"has the key {short(key)} of type {kind}; keys must be text. Use `str(…)`.", kind
            fault = find_fault(item, depth + 1) or find_fault(key, depth + 1)
            if fault:
                return (f".{key}" if key.isidentifier() else f"[{key!r}]") + fault[0], *fault[1:]
        return None
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            fault = find_fault(item, depth + 1)
            if fault:
                return f"[{index}]{fault[0]}", *fault[1:]
        return None
    hint = JSON_HINTS.get(kind, "Turn it into text, numbers, lists or records first.")
    return "", f"is of type {kind}, which JSON cannot hold. {hint}", kind


def failure(error: BaseException) -> dict[str, Any]:
    """What went wrong, as the people who wrote the code want to read it: only their own lines."""
    if isinstance(error, BadCode):
        cause = error.__cause__
        text = "".join(traceback.format_exception_only(cause))
        message = getattr(cause, "msg", None) or str(cause) or "The code is too deeply nested."
        return _failure("syntax", cause, message, getattr(cause, "lineno", None), text)
    if isinstance(error, NotJson):
        return _failure("result", None, str(error), None, "") | {"type": error.type_name}
    if isinstance(error, MemoryError):
        resource.setrlimit(resource.RLIMIT_DATA, (resource.getrlimit(resource.RLIMIT_DATA)[1],) * 2)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if _is_own(frame.f_code.co_filename)]
    line = lines[-1] if lines else None
    if line is None and isinstance(error, TypeError):
        main_ = getattr(sys.modules["__main__"], "main", None)
        line = main_.__code__.co_firstlineno if isinstance(main_, types.FunctionType) else None
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)
        message = "The code needed more memory than a worker has."
        return _failure("memory", error, message, line, trimmed(error))
    if isinstance(error, SystemExit):
        return _failure("exception", error, f"The code ended itself with `exit({error.code!r})`.", line, trimmed(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG):
        room = resource.getrlimit(resource.RLIMIT_FSIZE)[0] // 1_048_576
        message = f"There is no room for more files: those of the code may take {room} MB."
        return _failure("exception", error, message, line, trimmed(error))
    return _failure("exception", error, message_of(error), line, trimmed(error))


def _failure(kind: str, error: BaseException | None, message: str, line: int | None, text: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "type": type(error).__name__ if error is not None else None,
        "message": message[:MESSAGE_LIMIT],
        "line": line,
        "traceback": text if len(text) <= TRACEBACK_LIMIT else text[:TRACEBACK_LIMIT] + "\n…",
    }


def _is_own(filename: str) -> bool:
    return filename == CODE_NAME


def message_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:
        return f"{type(error).__name__} (its message could not be read)"


def trimmed(error: BaseException) -> str:
    """The traceback with only the frames of the person's code, causes included."""
    try:
        whole = traceback.TracebackException.from_exception(error, limit=-50, lookup_lines=False)
        links = [whole]
        for link in links:
            own = [frame for frame in link.stack if _is_own(frame.filename)]
            link.stack = traceback.StackSummary.from_list(own)
            links += [before for before in (link.__cause__, link.__context__) if before is not None]
        return "".join(whole.format())
    except Exception:
        return f"{type(error).__name__}: {message_of(error)}"


def short(value: object) -> str:
    try:
        return repr(value)[:60]
    except Exception:
        return "?"


def line_of(frame: types.FrameType | None) -> int | None:
    """The line of the person's code that is running in this stack."""
    for inner, line in traceback.walk_stack(frame):
        if _is_own(inner.f_code.co_filename):
            return line
    return None


def exercise() -> None:
    """Run once what every job runs, so that first-use costs are paid before forking and not by each job."""
    main = sys.modules["__main__"]
    code = """
import json, re, datetime, decimal
if not inputs:
    return None
re.compile(r"(\\w+)@(\\w+)").sub(r"\\2", "a@b")
json.loads(json.dumps({"now": datetime.datetime.now().isoformat(), "n": decimal.Decimal(1).sqrt().__float__()}))
return inputs["n"] / 0
"""
    to_json(execute(code, {}), 100)
    try:
        execute(code, {"n": 1})
    except ArithmeticError as error:
        failure(error)
    linecache.clearcache()
    sys.modules["__main__"] = main
