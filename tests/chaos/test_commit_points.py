"""The process dies just before and just after every commit that an agent's run needs: it is there after all, and done once.

The points are found by letting one run go to its end and listening to the database, so a new kind of commit is a new point here
by itself. One agent passes through all there is: webhook → row (E2) → call of another system (E4, with a key) → wait →
approval → another agent → loop → answer.
"""

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint, Edge, Placed
from tests.chaos.nursery import Nursery
from tests.chaos.orders import Receiver
from tests.chaos.report import note
from tests.fakes.http_server import HttpServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


def drawn(name: str, nodes: list[tuple[str, str, dict[str, Any]]], wires: list[str]) -> Blueprint:
    """A blueprint from (id, type, settings) and wires `a.port b.port`."""
    edges = []
    for number, wire in enumerate(wires):
        (source, out), (target, into) = (end.split(".") for end in wire.split())
        edges.append(Edge(id=f"e{number}", source=source, source_port=out, target=target, target_port=into))
    placed = [Placed(id=id_, type=type_, settings=settings) for id_, type_, settings in nodes]
    return Blueprint(name=name, nodes=placed, edges=edges, allowed_hosts=["127.0.0.1"])


HELPER = drawn(
    "Helper",
    [
        ("start", "trigger.manual", {}),
        ("note", "action.write_row", {"table": "helped", "write": "columns", "columns": [{"name": "order", "value": "{{ order }}"}]}),
    ],
    ["start.value note.value"],
)  # fmt: skip


def whole(receiver: str, helper: str) -> Blueprint:
    column = [{"name": "order", "value": "{{ order }}"}]
    return drawn(
        "Everything",
        [
            ("hook", "trigger.webhook", {"path": "orders", "respond": "now"}),
            ("keep", "action.write_row", {"table": "kept", "write": "columns", "columns": column}),
            ("tell", "action.send_webhook", {"url": f"{receiver}/orders"}),
            ("nap", "flow.wait", {"mode": "for", "amount": 0.05, "unit": "seconds"}),
            ("ask", "validation.approve", {"question": "Go on with {{ order }}?"}),
            ("call", "flow.call_blueprint", {"blueprint": helper}),
            ("each", "flow.for_each", {"over": "[1, 2, 3]", "parallel": 2}),
            ("line", "action.write_row", {"table": "lines", "write": "columns",
                                          "columns": [{"name": "line", "value": "{{ item }}"}]}),
            ("answer", "action.respond", {}),
        ],
        [
            "hook.body keep.value", "hook.body tell.value", "tell.body nap.value", "nap.value ask.value",
            "ask.approved call.value", "call.value each.items", "each.item line.value", "line.rows each.result",
            "each.done answer.value",
        ],
    )  # fmt: skip


class Ground:
    """A database with the agents deployed, to be copied for each death."""

    def __init__(self, nursery: Nursery, receiver: Receiver, folder: Path, exceptions: str) -> None:
        self.nursery, self.receiver, self.folder, self.exceptions = nursery, receiver, folder, exceptions
        self.number = 0

    async def prepare(self, url: str) -> None:
        home = self.folder / "ground"
        home.mkdir()
        [helper] = [line["agent"] for line in await self.live(home, "deploys", [HELPER]) if "agent" in line]
        await self.live(home, "deploys", [whole(url, helper)])

    async def live(self, home: Path, what: str, documents: list[Blueprint]) -> list[dict[str, Any]]:
        texts = [document.canonical().decode() for document in documents]
        said = await self.nursery.life(what, home=str(home), documents=texts, exceptions=self.exceptions)
        assert said[-1]["ended"] == 0, said
        return said

    def copy(self) -> Path:
        self.number += 1
        home = self.folder / f"death{self.number}"
        home.mkdir()
        with (
            sqlite3.connect(self.folder / "ground" / "factory.db") as source,
            sqlite3.connect(home / "factory.db") as to,
        ):
            source.backup(to)
        return home

    async def carry(self, home: Path, order: str, **death: Any) -> list[dict[str, Any]]:
        return await self.nursery.life("carries", home=str(home), orders=[order], exceptions=self.exceptions, **death)

    def check(self, home: Path, order: str, accepted: list[str]) -> None:
        """Everything that was accepted has ended well, and each effect is there once for each run."""
        with sqlite3.connect(home / "factory.db") as database:
            runs = dict(database.execute("SELECT id, state FROM run").fetchall())
            rows = Counter(name for (name,) in database.execute("SELECT name FROM table_row"))
            asked = Counter(state for (state,) in database.execute("SELECT state FROM approval"))
            whole_runs = [row[0] for row in database.execute("SELECT id FROM run WHERE parent_run IS NULL")]
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert set(runs.values()) == {"succeeded"}
        assert set(accepted) <= set(whole_runs)
        assert len(runs) == 2 * len(whole_runs), "each called the other agent once"
        assert rows == {"kept": len(whole_runs), "helped": len(whole_runs), "lines": 3 * len(whole_runs)}
        assert asked == {"approved": len(whole_runs)}
        keys = [key for key, calls in self.receiver.by_key.items() if order in calls]
        assert len(keys) == len(whole_runs), "each run told of it under one key"


async def test_a_death_at_any_commit_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    receiver = Receiver()
    async with HttpServer(receiver) as other, Nursery() as nursery:
        ground = Ground(nursery, receiver, tmp_path, other.place)
        await ground.prepare(other.url)
        home = ground.copy()
        said = await ground.carry(home, "whole")
        assert said[-1]["ended"] == 0, said
        ground.check(home, "whole", [line["run"] for line in said if "accepted" in line])
        points = {line["point"]: line["label"] for line in said if "point" in line}
        assert len(points) > 20

        died: Counter[str] = Counter()
        for number in points:
            for before in (True, False):
                home, order = ground.copy(), f"{number}{'b' if before else 'a'}"
                said = await ground.carry(home, order, die_at=number, before=before)
                reached = [line["label"] for line in said if "point" in line]
                assert said[-1]["ended"] in (-9, 0), said
                if said[-1]["ended"] == -9:
                    died[reached[-1]] += 1
                accepted = [line["run"] for line in said if "accepted" in line]
                # Whoever was not answered asks again; whoever was does not.
                again = await nursery.life(
                    "carries", home=str(home), orders=[] if accepted else [order], exceptions=other.place
                )
                assert again[-1]["ended"] == 0, (points[number], before, again)
                accepted += [line["run"] for line in again if "accepted" in line]
                try:
                    ground.check(home, order, accepted)
                except AssertionError as error:
                    raise AssertionError(f"dying {'before' if before else 'after'} “{points[number]}”") from error
    missed = set(points.values()) - set(died)
    print("\n".join(f"{count:3} × {label}" for label, count in sorted(died.items())))
    assert len(missed) <= len(points) // 5, f"nobody died at {missed}"
    note("death before and after each commit", points=len(points), deaths=sum(died.values()), kinds=len(died))
