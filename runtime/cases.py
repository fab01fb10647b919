"""Cases: kept inputs with an expectation, run in the sandbox; an agent goes live only when all of its own pass."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from nodes.blueprint import Blueprint, check_json
from nodes.errors import FactoryError, NotFound
from nodes.formula import compile_formula
from nodes.ids import new_id
from runtime.environments import LIVE
from runtime.policy import Actor, Permission
from runtime.runs import Runs
from runtime.sandbox import Sandbox
from runtime.views import RunView
from storage import blueprint as blueprints
from storage import case as rows
from storage.database import Database
from storage.tenancy import TenantSession

MAX_CASES = 100
MAX_INPUT = 256 * 1024  # bytes of JSON
AT_ONCE = 4
SECONDS = 120.0
"""How long one case may take."""

Expected = Literal["succeeded", "failed"]


class BadCase(FactoryError):
    """A case cannot be kept like this."""

    code = "case.invalid"
    status = 422


@dataclass(frozen=True, slots=True)
class CaseInfo:
    """One case. `formula` is asked of `output`, its fields and `input`, and has to be true; empty asks nothing."""

    id: str
    blueprint_id: str
    name: str
    trigger: str
    input: Any
    expects: Expected
    formula: str
    pretend: dict[str, Any]
    updated_at: float
    updated_by: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case went; `why` is a sentence when it failed. `run_id` is its test run, while the process lives."""

    id: str
    name: str
    passed: bool
    why: str = ""
    run_id: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CaseReport:
    """How all cases of an agent went."""

    results: tuple[CaseResult, ...] = field(default=())

    @property
    def failing(self) -> tuple[CaseResult, ...]:
        """Those that did not come to what was expected."""
        return tuple(result for result in self.results if not result.passed)


class Cases:
    """The cases of every agent."""

    def __init__(self, db: Database, sandbox: Sandbox, runs: Runs) -> None:
        self._db = db
        self._sandbox = sandbox
        self._runs = runs

    async def list(self, who: Actor, blueprint_id: str) -> Sequence[CaseInfo]:
        """The cases of an agent, oldest first."""
        who.require(Permission.VIEW)
        return [
            _info(row) for row in await self._db.read(who.tenant, lambda session: rows.listed(session, blueprint_id))
        ]

    async def put(
        self,
        who: Actor,
        blueprint_id: str,
        *,
        name: str,
        input: Any,
        trigger: str = "",
        expects: Expected = "succeeded",
        formula: str = "",
        pretend: dict[str, Any] | None = None,
        id: str = "",
    ) -> CaseInfo:
        """Keep a case, or replace the one with that id. Raises BadCase, NotFound."""
        who.require(Permission.EDIT)
        name = name.strip()[:80]
        if not name:
            raise BadCase("A case needs a name.", fix="Say what it shows, such as “A large order”.")
        check_json(input)
        if len(orjson.dumps(input)) > MAX_INPUT:
            raise BadCase(f"The input of a case has up to {MAX_INPUT // 1024} KB.", fix="Use a smaller example.")
        formula = formula.strip()
        if formula:
            compile_formula(formula)
        now = time.time()
        kept = id or new_id("case")
        values = {
            "blueprint_id": blueprint_id,
            "name": name,
            "trigger": trigger,
            "input": input,
            "expects": expects,
            "formula": formula,
            "pretend": pretend or {},
            "updated_at": now,
            "updated_by": who.name,
        }

        def write(session: TenantSession) -> None:
            drawn = blueprints.get(session, blueprint_id)
            if drawn is None or drawn.deleted_at is not None:
                raise NotFound("There is no such agent.", fix="Choose an agent from the list.")
            if id and ((old := rows.get(session, id)) is None or old.blueprint_id != blueprint_id):
                raise NotFound("There is no such case.", fix="Look at the list of cases.")
            if not id and rows.count(session, blueprint_id) >= MAX_CASES:
                raise BadCase(f"An agent has up to {MAX_CASES} cases.", code="limit.cases", fix="Delete some first.")
            rows.put(session, kept, values)

        await self._db.write(who.tenant, write)
        return CaseInfo(kept, blueprint_id, name, trigger, input, expects, formula, pretend or {}, now, who.name)

    async def delete(self, who: Actor, id_: str) -> None:
        """Forget a case. Raises NotFound."""
        who.require(Permission.EDIT)
        if not await self._db.write(who.tenant, lambda session: rows.remove(session, id_)):
            raise NotFound("There is no such case.", fix="Look at the list of cases.")

    async def run(
        self, who: Actor, blueprint_id: str, blueprint: Blueprint | None = None, *, environment: str = LIVE
    ) -> CaseReport:
        """Run every case of an agent on a document (its draft if none is given) in the sandbox."""
        who.require(Permission.RUN)
        cases = await self.list(who, blueprint_id)
        if not cases:
            return CaseReport()
        if blueprint is None:
            drawn = await self._db.read(who.tenant, lambda session: blueprints.get(session, blueprint_id))
            if drawn is None or drawn.deleted_at is not None:
                raise NotFound("There is no such agent.", fix="Choose an agent from the list.")
            blueprint = Blueprint.parse(drawn.document)
        document = blueprint
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(case: CaseInfo) -> CaseResult:
            async with gate:
                return await self._run(who, document, case, environment)

        return CaseReport(tuple(await asyncio.gather(*(one(case) for case in cases))))

    async def _run(self, who: Actor, blueprint: Blueprint, case: CaseInfo, environment: str) -> CaseResult:
        began = time.monotonic()
        run_id = ""
        try:
            run_id = await self._sandbox.start(
                who,
                blueprint,
                case.input,
                trigger=case.trigger or None,
                pretend=case.pretend,
                environment=environment,
            )
            async with asyncio.timeout(SECONDS):
                async for fact in self._runs.watch(who, run_id):
                    if fact["kind"] == "run.finished":
                        break
            why = judge(case, await self._runs.get(who, run_id))
        except TimeoutError:
            await self._runs.cancel(who, run_id)
            why = f"It took longer than {SECONDS:g} seconds."
        except FactoryError as error:
            why = error.message
        return CaseResult(case.id, case.name, not why, why, run_id, time.monotonic() - began)


def judge(case: CaseInfo, run: RunView) -> str:
    """Why a run is not what the case expects; empty when it is."""
    if run.info.state != case.expects:
        said = str((run.info.error or {}).get("message", ""))
        wanted = "go well" if case.expects == "succeeded" else "fail"
        return f"It should {wanted}, but it {_ENDED.get(run.info.state, run.info.state)}{': ' + said if said else '.'}"
    if not case.formula:
        return ""
    output = run.output
    names = {**(output if isinstance(output, dict) else {}), "output": output, "input": case.input}
    try:
        holds = compile_formula(case.formula).evaluate(names)
    except FactoryError as error:
        return f"What is expected of the result cannot be read: {error.message}"
    return "" if holds is True else f"The result is not as expected: “{case.formula}”."


_ENDED = {"succeeded": "went well", "failed": "failed", "cancelled": "was cancelled"}


def _info(row: rows.Case) -> CaseInfo:
    expects: Expected = "failed" if row.expects == "failed" else "succeeded"
    return CaseInfo(
        row.id,
        row.blueprint_id,
        row.name,
        row.trigger,
        row.input,
        expects,
        row.formula,
        dict(row.pretend or {}),
        row.updated_at,
        row.updated_by,
    )
