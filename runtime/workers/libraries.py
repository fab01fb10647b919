"""What an image brings besides Python's standard library, loaded and exercised once before the first job.

Beside `inside.py` in the worker, and like it of the standard library only. The image says in a file what it has: where its
libraries lie, which of them are loaded beforehand, and where Node.js is. A library that was only imported makes each job
pay for its first use; so the well-known ones are also used here, once.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, NoReturn

FACTS = "/opt/factory/image.json"
SYSTEM = "/usr/local/bin:/usr/bin:/bin"
ROOM = os.path.dirname(os.path.abspath(__file__))
SPARE = 96 * 1024 * 1024  # what Node.js needs besides the data of the script
# One thread only: who forks with more than one may fork a lock that nobody will ever release.
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

facts: dict[str, Any] = {}


def load() -> None:
    """Make the image's libraries importable, import those that it names, and use them once."""
    try:
        with open(FACTS) as file:
            facts.update(json.load(file))
    except OSError:
        return  # an image with nothing more than Python
    sys.path += facts.get("libraries", ())
    wanted = facts.get("preload", ())
    if wanted:
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    for name in wanted:
        try:
            __import__(name)
            EXERCISES.get(name, bool)()
        except Exception as error:  # a job that does not need it shall run all the same
            sys.stderr.write(f"{name} could not be loaded: {type(error).__name__}: {error}\n")


def _numpy() -> None:
    numpy: Any = sys.modules["numpy"]
    numbers = numpy.arange(6.0).reshape(2, 3)
    (numbers @ numbers.T).sum().item()
    numpy.linalg.inv(numpy.eye(2))
    numpy.random.default_rng(1).normal(size=2).tolist()


def _pandas() -> None:
    pandas: Any = sys.modules["pandas"]
    io: Any = sys.modules["io"]
    table = pandas.read_csv(
        io.StringIO("name,value,day\na,1,2026-01-02\nb,2,2026-01-03\na,3,2026-01-04\n"), parse_dates=["day"]
    )
    table.groupby("name")["value"].sum().to_dict()
    table.merge(table, on="name").sort_values("value_x").to_json(orient="records", date_format="iso")
    table.describe()


def _httpx() -> None:
    httpx: Any = sys.modules["httpx"]
    with httpx.Client(verify=False) as client:
        client.build_request("POST", "http://example.invalid/a?b=c", json={"a": 1}, headers={"x": "y"})
    httpx.Response(200, json={"a": 1}).json()


def _pydantic() -> None:
    pydantic: Any = sys.modules["pydantic"]
    inner = pydantic.create_model("Inner", name=(str, ...), size=(int, 0))
    outer = pydantic.create_model("Outer", items=(list[inner], ...), note=(str | None, None))  # type: ignore[valid-type]
    outer.model_validate({"items": [{"name": "a", "size": "1"}]}).model_dump_json()
    outer.model_json_schema()
    try:
        outer.model_validate({})
    except pydantic.ValidationError as error:
        str(error)


EXERCISES = {"numpy": _numpy, "pandas": _pandas, "httpx": _httpx, "pydantic": _pydantic}


class NoNode(Exception):
    """The image has no Node.js."""


def become_node(frame: dict[str, Any], limits: dict[str, Any], outcome: int) -> NoReturn:
    """From here on this process is Node.js, running the job's script. Raises NoNode.

    Without an image it is the machine's own, which a sandbox sees as it sees the machine's Python.
    """
    node = facts.get("node") or shutil.which("node", path=SYSTEM)
    if not node:
        raise NoNode("This worker cannot run JavaScript. Choose a worker of the size “node”.")
    path = f"/workspace/.job-{os.getpid()}"
    with open(path, "x+b") as file:
        os.unlink(path)
        job = {key: frame[key] for key in ("code", "inputs")} | {key: limits[key] for key in ("result", "disk")}
        job["outcome"] = outcome
        file.write(json.dumps(job).encode())
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        os.dup2(file.fileno(), 0)
    os.set_inheritable(outcome, True)
    heap = max(32, (limits["memory"] - SPARE) // (1024 * 1024))
    options = [f"--max-old-space-size={heap}", "--no-addons", "--disable-proto=delete", "--no-warnings"]
    os.execve(  # noqa: S606 - there is no shell, and the path is the image's
        node, ["node", *options, os.path.join(ROOM, "script.js")], {**os.environ, "NODE_NO_WARNINGS": "1"}
    )
