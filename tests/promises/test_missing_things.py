"""What an agent needs is missing, broken, slow or dies: each run ends with a sentence that says so and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from runtime.factory import Factory
from runtime.views import RunView
from runtime.workers.backend import NoWorker
from runtime.workers.choose import open_backend
from tests.conftest import unavailable
from tests.fakes.openai_server import KEY, OpenAiServer
from tests.runtime.factories import ADMIN, agent, new_factory


async def both(
    factory: Factory, blueprint: Blueprint, given: Any = None, seconds: float = 60
) -> tuple[RunView, RunView]:
    """The same document run in the sandbox and live."""
    draft = await factory.blueprints.create(ADMIN, blueprint)
    test = await factory.sandbox.start(ADMIN, blueprint, given)
    live = await factory.runs.start(ADMIN, draft.id, given)
    return await factory.runs.wait(ADMIN, test, seconds), await factory.runs.wait(ADMIN, live, seconds)


def code(text: str, **policy: Any) -> Blueprint:
    """An agent that runs a piece of code and makes a text of its result."""
    blueprint = agent(
        {"go": "trigger.manual", "code": ("action.run_code", {"code": text, "timeout": 20}), "back": "action.respond"},
        "go.value > code.value",
        "code.result > back.value",
    )
    placed = [node.model_copy(update={"policy": node.policy.model_copy(update=policy)}) for node in blueprint.nodes]
    return blueprint.model_copy(update={"nodes": [placed[0], placed[1], blueprint.nodes[2]]})


def asking(**policy: Any) -> Blueprint:
    """An agent that asks a model what it was given."""
    blueprint = agent(
        {"go": "trigger.manual", "ask": ("action.ask_model", {"prompt": "{{ input }}"})}, "go.value > ask.value"
    )
    placed = blueprint.nodes[1]
    changed = placed.model_copy(update={"policy": placed.policy.model_copy(update=policy)})
    return blueprint.model_copy(update={"nodes": [blueprint.nodes[0], changed]})


def error_of(view: RunView) -> dict[str, Any]:
    """Why a run failed, after checking that a person can read it."""
    assert view.info.state == "failed"
    error = view.info.error
    assert error is not None
    assert error["message"] and error["fix"], error
    assert error["code"] != "step.bug" and "Traceback" not in error["message"] + error["fix"]
    assert {step.state for step in view.steps} <= {"succeeded", "failed", "skipped", "cancelled"}
    return error


# --- nothing to isolate code with --------------------------------------------------------------------------------------------


async def test_code_never_runs_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    canary = tmp_path / "canary"
    started: list[Any] = []

    async def refuse(*arguments: Any, **_: Any) -> Any:
        started.append(arguments)
        raise AssertionError(f"a process was started: {arguments}")

    for name in ("create_subprocess_exec", "create_subprocess_shell"):
        monkeypatch.setattr(asyncio, name, refuse)
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    async with new_factory(url, docker="auto", pool_size=1, home="test-nothing") as factory:
        for view in await both(factory, code(f"open({str(canary)!r}, 'w').write('x')\nreturn 1")):
            error = error_of(view)
            assert error["category"] == "worker"
            assert "bubblewrap" in error["message"] + error["fix"]
    assert started == [] and not canary.exists()


# --- workers -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def isolating(tmp_path: Path) -> AsyncIterator[Factory]:
    """A Factory whose workers are bubblewrap's."""
    try:
        await (await open_backend("off", home="test-probe")).close()
    except NoWorker as error:
        unavailable(f"{error.message} {error.fix}")
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    async with new_factory(url, docker="off", pool_size=1, home=HOME) as factory:
        yield factory


HOME = f"test-{os.getpid()}-missing"
DYING = "import time\ntime.sleep(3)\nreturn 'done'"


def workers() -> list[int]:
    """The processes of this Factory that hold its workers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if HOME.encode() in command:
                found.append(int(process.name))
    return found


ODD = {
    "return float('nan')": ("failed", "step.input"),
    "return {'a': [1, float('-inf')]}": ("failed", "step.input"),
    "return 2 ** 70": ("failed", "step.input"),
    "return '\\ud800'": ("failed", "step.input"),
    "return {1: 'a', None: 'b'}": ("failed", "step.input"),
    "return object()": ("failed", "step.input"),
    "return {1, 2}": ("failed", "step.input"),
    "a = []\na.append(a)\nreturn a": ("failed", "step.input"),
    "return 'x' * 50_000_000": ("failed", "step.input"),
    "for _ in range(500):\n    print('y' * 100_000)\nreturn 1": ("succeeded", ""),
    "return b'bytes'": ("failed", "step.input"),
    "import os\nos._exit(3)": ("failed", "step.worker"),
    "raise KeyError('no such')": ("failed", "step.input"),
}


async def test_code_may_give_whatever_it_likes(isolating: Factory) -> None:
    seen = {}
    for text in ODD:
        for view in await both(isolating, code(text)):
            if view.info.state == "failed":
                error_of(view)
            seen[text] = (view.info.state, (view.info.error or {}).get("code", ""))
            assert len(str(view)) < 20_000_000
    assert seen == ODD


async def test_workers_that_die_in_mid_job_cost_an_attempt_and_not_the_run(isolating: Factory) -> None:
    """Without a second try the run ends and says so; with one it goes on as if nothing had been."""
    told = {}
    for retries in (0, 2):
        draft = await isolating.blueprints.create(ADMIN, code(DYING, retries=retries, first_delay=0.01))
        run = await isolating.runs.start(ADMIN, draft.id, {})
        async with asyncio.timeout(60):
            while not ((stats := isolating.fleet.stats()) and stats.busy):
                await asyncio.sleep(0.05)
            for pid in workers():
                os.kill(pid, 9)
        view = await isolating.runs.wait(ADMIN, run, 60)
        told[retries] = view.info.state
        if retries == 0:
            assert error_of(view)["category"] == "worker"
        else:
            # Every worker there was is killed: the second try may meet one that is dying of the same blow.
            assert [step.attempt for step in view.steps if step.node == "code"] in ([2], [3])
    assert told == {0: "failed", 2: "succeeded"}


# --- models ------------------------------------------------------------------------------------------------------------------


async def test_without_a_model_the_sandbox_shows_a_sample_and_a_live_run_says_what_to_do(tmp_path: Path) -> None:
    async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}") as factory:
        test, live = await both(factory, asking(), {"body": "hello"})
        assert test.info.state == "succeeded"
        assert (
            "sample"
            in str(test.steps[-1].output).lower() + " ".join(test.effects).lower() + test.steps[-1].note.lower()
        )
        error = error_of(live)
        assert error["category"] == "configuration" and "Settings" in error["fix"]


async def test_a_model_that_fails_or_dawdles_ends_the_step_not_the_server(tmp_path: Path) -> None:
    async with OpenAiServer() as server:
        options = {
            "model": "openai/gpt-test",
            "model_base_url": server.base_url,
            "model_key": KEY,
            "allow_private_hosts": (server.place,),
        }
        async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}", **options) as factory:
            for word, category, state in (
                ("#500", "remote", "failed"),
                ("#429", "rate_limit", "failed"),
                ("#wait", "timeout", "failed"),
                ("#length", "", "succeeded"),
                ("hello", "", "succeeded"),
            ):
                draft = await factory.blueprints.create(ADMIN, asking(timeout=1.5 if word == "#wait" else 30))
                run = await factory.runs.start(ADMIN, draft.id, word)
                view = await factory.runs.wait(ADMIN, run, 60)
                assert view.info.state == state, (word, view.info.error)
                if state == "failed":
                    error = error_of(view)
                    assert error["category"] == category, (word, error)
                    assert KEY not in str(view)
