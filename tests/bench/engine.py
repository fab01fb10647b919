"""The engine alone, without HTTP in front: runs a second, what a step costs, big loops, slow neighbours, many that wait.

Each figure is measured in a process of its own, on a new SQLite file with `synchronous=FULL`:
`python -m tests.bench.engine <figure> <folder>` prints its values as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from nodes.check import check
from nodes.ids import new_id
from runtime.execution import Order
from runtime.factory import Factory
from runtime.plan import Plan, compile_plan
from tests.fakes.http_server import Answer, Asked, HttpServer
from tests.runtime.factories import ADMIN, agent, new_factory
from tests.services import ROOT

RUNS, AT_ONCE = 6_000, 200
ITEMS = 1_000
AGENTS, SLOW = 100, 1.0
WAITING, WOKEN = 10_000, 1_000
SIZES = (50, 200, 1_000)
HISTORY = 100_000

THROUGHPUT = f"engine runs/s@{AT_ONCE}"
FAN_OUT = "W4"
NEIGHBOURS = "W5"
STEP_P50, STEP_P95 = "step overhead p50 ms", "step overhead p95 ms"
MEMORY, WAKING = f"{WAITING} waiting runs MB", f"wake {WOKEN} of {WAITING} s"
CHECKS = tuple(f"check+plan {size} nodes ms" for size in SIZES)
GROWTH = "cost of a step, 1000 nodes to 10"
START = f"start on {HISTORY} finished runs ms"
UNITS = {
    THROUGHPUT: "runs/s",
    FAN_OUT: f"ms for {ITEMS} items",
    NEIGHBOURS: f"s for {AGENTS} calls of {SLOW:g} s",
    STEP_P50: "ms",
    STEP_P95: "ms",
    MEMORY: "MB",
    WAKING: "s",
    **dict.fromkeys(CHECKS, "ms"),
    GROWTH: "ratio",
    START: "ms",
}
GOALS = {THROUGHPUT: "≥ 4000", STEP_P50: "≤ 0.3", CHECKS[-1]: "≤ 250", MEMORY: "≤ 50", GROWTH: "flat"}


def engine(wanted: set[str], folder: Path, rounds: int) -> dict[str, list[float]]:
    """The figures that are wanted, one value for each round."""
    figures: dict[str, list[float]] = {name: [] for name in UNITS if name in wanted}
    for number in range(rounds):
        for at, (names, _) in enumerate(MEASURED):
            if not wanted & set(names):
                continue
            command = [sys.executable, "-m", "tests.bench.engine", str(at), str(folder / f"{number}-{at}")]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            values = json.loads(done.stdout.splitlines()[-1])
            said = ", ".join(f"{name} {value:,.3g}" for name, value in values.items())
            print(f"  round {number + 1}: {said}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            for name in set(names) & figures.keys():
                figures[name].append(values[name])
    return figures


# --- the agents ------------------------------------------------------------------------------------------------------------


def light() -> Blueprint:
    """Five light steps."""
    fields = {"fields": [{"name": "total", "formula": "total + 1"}, {"name": "name", "formula": "name"}]}
    return agent(
        {
            "go": "trigger.manual",
            "decide": ("validation.decide", {"condition": "total > 0"}),
            "a": ("action.transform", fields),
            "b": ("action.transform", fields),
            "c": ("action.text_template", {"template": "{{ name }}: {{ total }}"}),
        },
        "go.value > decide.value",
        "decide.yes > a.value",
        "a.value > b.value",
        "b.value > c.value",
    )


def chain(length: int) -> Blueprint:
    """So many steps one after the other."""
    fields = {"fields": [{"name": "total", "formula": "total + 1"}]}
    steps = {f"s{number}": ("action.transform", fields) for number in range(length)}
    wires = [f"s{number}.value > s{number + 1}.value" for number in range(length - 1)]
    return agent({"go": "trigger.manual", **steps}, "go.value > s0.value", *wires, kept=True)


def fan_out() -> Blueprint:
    """A list, a small step for each member, and the sum."""
    return agent(
        {
            "go": "trigger.manual",
            "each": ("flow.for_each", {"over": "numbers"}),
            "double": ("action.transform", {"fields": [{"name": "v", "formula": "item * 2 + 1"}]}),
            "sum": ("action.aggregate", {"results": [{"name": "sum", "do": "sum", "of": "v"}]}),
        },
        "go.value > each.items",
        "each.item > double.value",
        "double.value > each.result",
        "each.done > sum.items",
    )


def caller(url: str) -> Blueprint:
    """One call to somebody slow."""
    call = {"method": "GET", "url": url}
    return agent({"go": "trigger.manual", "call": ("context.http_request", call)}, "go.value > call.value")


def sleeper() -> Blueprint:
    """Waits long before its last step."""
    wait = {"mode": "for", "amount": 100, "unit": "days"}
    return agent(
        {"go": "trigger.manual", "wait": ("flow.wait", wait), "end": ("action.transform", {"fields": [{"name": "a", "formula": "1"}]})},
        "go.value > wait.value",
        "wait.value > end.value",
    )  # fmt: skip


def large(size: int) -> Blueprint:
    """Rows of a decision with two ways each, as big agents look; 1,000 nodes are twice what an agent may have."""
    nodes: dict[str, object] = {"go": "trigger.manual"}
    wires, before = [], "go.value"
    for number in range((size - 1) // 4):
        d, yes, no, m = (f"{kind}{number}" for kind in ("d", "y", "n", "m"))
        nodes |= {
            d: ("validation.decide", {"condition": f"total > {number}"}),
            yes: ("action.transform", {"fields": [{"name": "total", "formula": "total + 1"}]}),
            no: ("context.set_values", {"values": [{"name": "total", "value": "{{ total }}"}]}),
            m: "flow.merge",
        }
        wires += [f"{before} > {d}.value", f"{d}.yes > {yes}.value", f"{d}.no > {no}.value"]
        wires += [f"{yes}.value > {m}.values", f"{no}.value > {m}.values"]
        before = f"{m}.value"
    return agent(nodes, *wires, kept=True)


# --- the figures ------------------------------------------------------------------------------------------------------------


async def run(factory: Factory, plan: Plan, given: object) -> None:
    """One run to its durable end."""
    order = Order(new_id("run"), ADMIN.tenant, plan, plan.triggers()[0].id, given, blueprint_id="bench")
    answer = await factory.engine.attend(factory.engine.begin(order), 600)
    if answer is None or answer.status != 200:
        raise RuntimeError((await factory.runs.get(ADMIN, order.run_id)).info.error)


async def crowd(factory: Factory, plan: Plan, count: int, at_once: int) -> float:
    """Seconds for so many runs, so many at once."""
    left = iter(range(count))

    async def one() -> None:
        for number in left:
            await run(factory, plan, {"name": "Ada", "total": number + 1})

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(at_once)))
    return time.perf_counter() - began


async def throughput(home: Path) -> dict[str, float]:
    async with opened(home) as factory:
        plan = factory.plans.of(ADMIN.tenant, light())
        await crowd(factory, plan, 500, AT_ONCE)
        return {THROUGHPUT: RUNS / await crowd(factory, plan, RUNS, AT_ONCE)}


async def looping(home: Path) -> dict[str, float]:
    async with opened(home) as factory:
        plan, given = factory.plans.of(ADMIN.tenant, fan_out()), {"numbers": list(range(ITEMS))}
        await run(factory, plan, given)
        return {FAN_OUT: 1000 * statistics.median([await timed(run(factory, plan, given)) for _ in range(15)])}


async def neighbours(home: Path) -> dict[str, float]:
    async def slow(_: Asked) -> Answer:
        await asyncio.sleep(SLOW)
        return Answer(body={"ok": True})

    async with HttpServer(slow) as server, opened(home, allow_private_hosts=(server.place,)) as factory:
        plan = factory.plans.of(ADMIN.tenant, caller(f"http://127.0.0.1:{server.port}/"))
        await run(factory, plan, {})
        return {NEIGHBOURS: await crowd(factory, plan, AGENTS, AGENTS)}


async def stepping(home: Path) -> dict[str, float]:
    """What a light step takes in all, its own work with it: from the end of the one before to its own."""
    async with opened(home) as factory:
        plan = factory.plans.of(ADMIN.tenant, chain(50))
        costs: list[float] = []
        for _ in range(200):
            order = Order(new_id("run"), ADMIN.tenant, plan, "go", {"total": 1}, blueprint_id="bench")
            await factory.engine.attend(factory.engine.begin(order), 600)
            _, _, facts = await factory.engine.journal.load(ADMIN.tenant, order.run_id)
            ends = [fact["at"] for fact in facts if fact["kind"] == "step.succeeded"]
            costs += [1000 * (after - before) for before, after in pairwise(ends)]
        costs.sort()
        return {STEP_P50: costs[len(costs) // 2], STEP_P95: costs[int(len(costs) * 0.95)]}


async def waiting(home: Path) -> dict[str, float]:
    async with opened(home) as factory:
        plan = factory.plans.of(ADMIN.tenant, sleeper())
        engine, ids = factory.engine, []

        async def begin() -> None:
            order = Order(new_id("run"), ADMIN.tenant, plan, "go", {"total": 1}, blueprint_id="bench")
            ids.append((await engine.accept(order)).id)

        async def begin_some(count: int) -> None:
            for _ in range(count // 100):
                await asyncio.gather(*(begin() for _ in range(100)))
            while engine.active:
                await asyncio.sleep(0.01)

        await begin_some(200)
        before = memory()
        await begin_some(WAITING)
        used = memory() - before
        later = time.time() + 200 * 86_400
        engine.clock = lambda: later
        chosen = ids[-WOKEN:]
        began = time.perf_counter()
        await asyncio.gather(*(engine.wake(ADMIN.tenant, id_) for id_ in chosen))
        while engine.active:
            await asyncio.sleep(0.005)
        return {MEMORY: used / 1e6, WAKING: time.perf_counter() - began}


async def reading(home: Path) -> dict[str, float]:
    types = catalog()
    found = {}
    for size, name in zip(SIZES, CHECKS, strict=True):
        text = large(size).canonical()
        times = []
        for _ in range(7):
            document = Blueprint.parse(text, kept=True)
            began = time.perf_counter()
            check(document, types)
            compile_plan(document, types)
            times.append(1000 * (time.perf_counter() - began))
        found[name] = statistics.median(times)
    return found


async def growing(home: Path) -> dict[str, float]:
    async with opened(home) as factory:
        cost = {}
        for size in (10, 1_000):
            plan = factory.plans.of(ADMIN.tenant, chain(size - 1))
            count = 20_000 // size
            await crowd(factory, plan, max(10, count // 10), 50)
            cost[size] = await crowd(factory, plan, count, 50) / (count * size)
        # What a run costs by itself is spread over its steps: over a hundred times more of them in the larger graph.
        return {GROWTH: cost[1_000] / cost[10]}


async def starting(home: Path) -> dict[str, float]:
    """From nothing to ready on a database with a long history, when what is imported once is imported."""
    async with opened(home) as factory:
        plan = factory.plans.of(ADMIN.tenant, chain(2))
        await crowd(factory, plan, HISTORY, AT_ONCE)
    times = []
    for _ in range(5):
        factory = opened(home, ticking=True)
        began = time.perf_counter()
        await factory.start()
        times.append(1000 * (time.perf_counter() - began))
        await factory.stop()
    return {START: statistics.median(times[1:])}


async def timed(work: Awaitable[None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def opened(home: Path, **options: object) -> Factory:
    home.mkdir(parents=True, exist_ok=True)
    return new_factory(f"sqlite:///{home / 'factory.db'}", **options)


def memory() -> int:
    """Bytes of memory in use by this process, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


Measure = Callable[[Path], Awaitable[dict[str, float]]]
MEASURED: tuple[tuple[tuple[str, ...], Measure], ...] = (
    ((THROUGHPUT,), throughput),
    ((FAN_OUT,), looping),
    ((NEIGHBOURS,), neighbours),
    ((STEP_P50, STEP_P95), stepping),
    ((MEMORY, WAKING), waiting),
    (CHECKS, reading),
    ((GROWTH,), growing),
    ((START,), starting),
)


async def measure(at: int, home: Path) -> dict[str, float]:
    # The server does the same once it has started: what it then holds is not looked through again and again.
    gc.collect()
    gc.freeze()
    return await MEASURED[at][1](home)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]), Path(sys.argv[2])))))
