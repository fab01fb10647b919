"""What is left of a run in memory: nothing, as soon as it has ended or only rows wait."""

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.blueprint import Blueprint
from tests.runtime.engines import open_rig
from tests.runtime.small_nodes import drawn


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What only the collector would find stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


COMPUTES = drawn({"s": "start", "c": ("compute", {"formula": "input * 2"})}, "s.value > c.value")
REACHES_OUT = drawn({"s": "start", "e": "effect"}, "s.value > e.value")
LOOPS = drawn(
    {"s": "start", "l": "each", "c": "compute"}, "s.value > l.items", "l.item > c.value", "c.value > l.result"
)


@pytest.mark.parametrize("blueprint", [COMPUTES, REACHES_OUT, LOOPS])
async def test_a_run_that_has_ended_is_freed_at_once(tmp_path: Path, blueprint: Blueprint) -> None:
    async with open_rig(f"sqlite:///{tmp_path / 'factory.db'}") as rig:
        ex = await rig.begin(blueprint, [1, 2] if blueprint is LOOPS else 2)
        run_id, left = ex.id, weakref.ref(ex)
        del ex
        assert (await rig.ended(run_id)).info.state == "succeeded"
        await asyncio.sleep(0.05)  # the tasks that told of its end are gone
        assert left() is None


async def test_a_run_that_waits_is_only_rows(tmp_path: Path) -> None:
    sleeps = drawn({"s": "start", "z": ("sleep", {"until": time.time() + 3_600})}, "s.value > z.value")
    async with open_rig(f"sqlite:///{tmp_path / 'factory.db'}") as rig:
        ex = await rig.begin(sleeps, "x")
        run_id, left = ex.id, weakref.ref(ex)
        del ex
        await rig.waiting(run_id)
        await asyncio.sleep(0.05)
        assert left() is None
