"""What the guide to the fleet says is so: its crew comes up and ends as told, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from app.metrics import exposition
from app.settings import Settings
from runtime.factory import Factory
from runtime.fleet import Fleet
from runtime.workers.profiles import MIB, PROFILES
from tests.runtime.crews.conftest import VIEWER, WHO, ended, nothing_left

GUIDE = (Path(__file__).parents[3] / "docs" / "fleet.md").read_text()


async def test_the_crew_of_the_guide_does_what_the_guide_says(factory: Factory) -> None:
    given = GUIDE.split("## Crews")[1].split("```json")[1].split("```")[0]
    view = await factory.crews.assemble(WHO, orjson.loads(given))
    over = await ended(factory, view.id)
    assert (over.state, over.why) == ("finished", "")
    told = re.search(r"The editor’s result is `(.*)`", GUIDE)
    assert told is not None and over.members[0].result == orjson.loads(told[1])
    await nothing_left(factory)


async def test_the_metrics_of_the_guide_are_those_that_there_are(factory: Factory) -> None:
    text = exposition(factory, VIEWER)[0].decode()
    there = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    named = set()
    for row in re.findall(r"^\| (`factory_.*?) \|", GUIDE, re.MULTILINE):
        first, *others = re.findall(r"`(\w+)`", row)
        stem = re.match(r"factory_[a-z]+", first)
        assert stem is not None
        named |= {first, *(stem[0] + other if other.startswith("_") else other for other in others)}
    assert named == there


def test_the_settings_of_the_guide_are_settings() -> None:
    named = {name.lower() for name in re.findall(r"FACTORY_([A-Z_]+)", GUIDE)} - {"debian_mirror"}
    assert named <= set(Settings.model_fields) and "pool_ceiling" in named


def test_the_sizes_of_the_guide_are_the_sizes_that_there_are() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \| (\d+) (\wB) \| (\d+) \| (\d+) MB \| `(\w+)` \| (\d+) min \|$", GUIDE, re.M
    )
    told = {
        name: (float(cpus), int(memory) * (1024 if unit == "GB" else 1), int(processes), int(disk), image, int(minutes))
        for name, cpus, memory, unit, processes, disk, image, minutes in rows
    }
    assert told == {
        one.name: (one.cpus, one.memory // MIB, one.processes, one.disk // MIB, one.image, one.longest / 60)
        for one in PROFILES.values()
    }


def test_the_doors_for_programs_are_there() -> None:
    for method in ("drain_host", "plan_drain", "plan_scale"):
        assert f"`{method}(" in GUIDE or f"`Fleet.{method}(" in GUIDE
        assert callable(getattr(Fleet, method))
