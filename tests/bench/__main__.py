"""`python -m tests.bench [--only W1@64] [--rounds 3]`: every figure as one JSON line, then as a table.

The machine should do nothing else meanwhile; the load average beside each round says whether it did.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.canvas import UNITS, canvas
from tests.bench.engine import GOALS as ENGINE_GOALS
from tests.bench.engine import UNITS as ENGINE_UNITS
from tests.bench.engine import engine
from tests.bench.fleet import GOALS as FLEET_GOALS
from tests.bench.fleet import UNITS as FLEET_UNITS
from tests.bench.fleet import fleet
from tests.bench.rounds import POINTS, WORKERS, throughput, workers
from tests.bench.starting import first_page

START = "make run to first page"
GOALS = {
    "W1@64": "≥ 0.55",
    "W2 runs/s": "≥ 150",
    "W3@64": "≥ 0.2",
    START: "< 6",
    **ENGINE_GOALS,
    **FLEET_GOALS,
    **dict(zip(UNITS, ("< 1500", "< 50", "", ""), strict=True)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", help="one figure, or the beginning of several: W1@64, W2, canvas")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    names = [name for point in POINTS for name in (point.ratio, point.runs) if name] + [
        *ENGINE_UNITS,
        *FLEET_UNITS,
        START,
        *UNITS,
    ]
    chosen = [name for name in names if name == given.only] or [name for name in names if name.startswith(given.only)]
    if not chosen:
        parser.error(f"there is no figure “{given.only}”; there are {', '.join(names)}")
    print(f"{time.strftime('%Y-%m-%d %H:%M')} · {machine()} · workers: {WORKERS} in {workers()}", file=sys.stderr)
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="factory-bench-") as folder:
        points = [point for point in POINTS if {point.ratio, point.runs} & set(chosen)]
        if points:
            measured |= throughput(Path(folder, "home"), points, given.rounds)
        if set(chosen) & set(ENGINE_UNITS):
            measured |= engine(set(chosen), Path(folder), given.rounds)
        if set(chosen) & set(FLEET_UNITS):
            measured |= fleet(set(chosen), Path(folder), given.rounds)
        if START in chosen:
            measured[START] = first_page(Path(folder, "first"), given.rounds)
        if set(chosen) & set(UNITS):
            measured |= canvas(given.rounds)
    show({name: measured[name] for name in chosen})


def show(measured: Mapping[str, Sequence[float]]) -> None:
    """Print the figures, each the median of its rounds: for programs, then for people."""
    rows = [(name, shortened(statistics.median(values)), unit(name), values) for name, values in measured.items()]
    for name, value, of, values in rows:
        print(json.dumps({"figure": name, "value": value, "unit": of, "rounds": [shortened(v) for v in values]}))
    width = max(len(name) for name in measured)
    print(f"\n{'figure':<{width}}  {'median':>8}  {'unit':<18}  {'goal':<8}  rounds")
    for name, value, of, values in rows:
        every = " ".join(f"{shortened(v):g}" for v in values)
        print(f"{name:<{width}}  {value:>8g}  {of:<18}  {GOALS.get(name, ''):<8}  {every}")


def unit(name: str) -> str:
    """What a figure is counted in."""
    return (UNITS | ENGINE_UNITS | FLEET_UNITS).get(name) or {"W2 runs/s": "runs/s", START: "s"}.get(
        name, "ratio to reference"
    )


def shortened(value: float) -> float:
    """Three digits say as much as such a figure can."""
    return float(f"{value:.3g}")


def machine() -> str:
    """The machine, in a few words."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{os.cpu_count()} × {names[0] if names else platform.machine()}, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()
