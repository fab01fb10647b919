"""The endpoint that every throughput is a ratio to: the same work on bare FastAPI, with one row kept for each request.

`python -m tests.bench.reference PORT DATABASE` serves it with uvicorn on uvloop and httptools, in one process.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
import uuid
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


def application(database: str) -> FastAPI:
    """The endpoint, keeping its history in that file."""
    history = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    history.execute("PRAGMA journal_mode = WAL")
    history.execute("PRAGMA synchronous = NORMAL")
    history.execute(
        "CREATE TABLE IF NOT EXISTS execution"
        " (id TEXT PRIMARY KEY, workflow TEXT, status TEXT, started REAL, finished REAL, data TEXT)"
    )
    app = FastAPI()

    def keep(workflow: str, started: float, data: Any) -> None:
        row = (uuid.uuid4().hex, workflow, "success", started, time.time(), json.dumps(data))
        history.execute("INSERT INTO execution VALUES (?, ?, ?, ?, ?, ?)", row)

    @app.get("/healthz")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/w1")
    async def w1(request: Request) -> JSONResponse:
        started, given = time.time(), await request.json()
        middle = sized(given)
        out = {"label": middle["name"].upper() + "-" + middle["size"], "total": middle["double"] + 1}
        keep("w1", started, {"in": given, "mid": middle, "out": out})
        return JSONResponse(out)

    @app.post("/w2")
    async def w2(request: Request) -> JSONResponse:
        started, given = time.time(), await request.json()
        middle = sized(given)
        total = sum(i * i for i in range(middle["n"])) + middle["double"]
        out = {"label": middle["name"].upper() + "-" + middle["size"], "total": total}
        keep("w2", started, {"in": given, "mid": middle, "out": out})
        return JSONResponse(out)

    @app.post("/w3")
    async def w3(request: Request) -> JSONResponse:
        started, given = time.time(), await request.json()
        rows = [{"i": i, "v": i * 2 + 1} for i in given["items"]]
        out = {"count": len(rows), "sum": sum(row["v"] for row in rows)}
        keep("w3", started, {"in": given, "rows": rows, "out": out})
        return JSONResponse(out)

    return app


def sized(given: dict[str, Any]) -> dict[str, Any]:
    """What the decision and the two set fields come to."""
    return {**given, "size": "big" if given["n"] > 5 else "small", "double": given["n"] * 2}


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
