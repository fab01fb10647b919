"""How `make test` deals with tests that fail: a few are tried again alone, and what passes then is named as unsteady."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import run as runner
from tests import services

UNSTEADY = """
import pathlib

def test_it():
    seen = pathlib.Path(__file__).with_suffix(".seen")
    if not seen.exists():
        seen.touch()
        raise AssertionError("the first time")

def test_other():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own for the tests that are run here."""
    monkeypatch.setattr(services, "ROOT", tmp_path)
    return tmp_path


def ended(run: runner.Run, *, again: bool) -> str:
    """The last line of a run of one phase."""
    try:
        run.pytest("Tests", [], again=again)
        run.end(0)
    except runner._Ended as end:
        return run.summary(end)


def test_what_passes_when_tried_again_is_no_failure_but_named(folder: Path) -> None:
    Path(folder, "test_sometimes.py").write_text(UNSTEADY)
    line = ended(runner.Run(), again=True)
    assert line.startswith("OK: 2 phases")
    assert line.endswith("2 passed, 0 failed; 1 only when tried again: test_sometimes.py::test_it")


def test_where_promises_are_tested_there_is_no_second_try(folder: Path) -> None:
    Path(folder, "test_sometimes.py").write_text(UNSTEADY)
    line = ended(runner.Run(), again=False)
    assert line.startswith("NOT OK: stopped at “Tests” after")
    assert line.endswith("1 passed, 1 failed")


def test_what_fails_twice_is_a_failure(folder: Path) -> None:
    Path(folder, "test_never.py").write_text("def test_it():\n    assert False\n")
    line = ended(runner.Run(), again=True)
    assert line.startswith("NOT OK: stopped at “Tests” after")
    assert line.endswith("0 passed, 1 failed")


def test_many_failures_are_not_put_down_to_the_machine(folder: Path) -> None:
    for number in range(runner.FEW + 1):
        Path(folder, f"test_sometimes_{number}.py").write_text(UNSTEADY)
    run = runner.Run()
    assert ended(run, again=True).startswith("NOT OK")
    assert run.phases == 1
