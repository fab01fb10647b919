"""Variables of a team: values by name that differ between environments. Formulas read them as `vars.name`.

An agent's own variables are defaults; those of the environment it runs in go before them. They are kept in memory, because
a run must not read the database before it starts.
"""

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from nodes.blueprint import check_json
from nodes.errors import FactoryError, NotFound
from runtime.environments import SHARED, check_place
from runtime.events import Bus
from runtime.plan import Plan
from runtime.policy import Actor, Permission
from storage import variable as rows
from storage.database import Database

MAX_VARIABLES = 200
MAX_VALUE = 64 * 1024  # bytes of JSON
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class VariableInfo:
    """A variable in an environment; the empty environment means both."""

    name: str
    environment: str
    value: Any
    description: str
    updated_at: float
    updated_by: str


class BadVariable(FactoryError):
    """A variable cannot be kept like this."""

    code = "variable.invalid"
    status = 422


class Variables:
    """The variables of every tenant."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus
        self._values: dict[str, dict[str, dict[str, Any]]] = {}
        """By tenant, environment and name; only tenants that have variables."""
        self._used: dict[tuple[str, str, str], Mapping[str, Any]] = {}

    async def load(self) -> None:
        """Read them all, at start."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in await self._db.read_all(rows.every):
            found.setdefault(row.tenant_id, defaultdict(dict))[row.environment][row.name] = row.value
        self._values = found
        self._used.clear()

    async def list(self, who: Actor) -> list[VariableInfo]:
        """All, by name and environment."""
        who.require(Permission.VIEW)
        found = await self._db.read(who.tenant, rows.listed)
        return [_info(row) for row in found]

    async def put(
        self, who: Actor, name: str, value: Any, *, environment: str = SHARED, description: str = ""
    ) -> VariableInfo:
        """Set a variable for one environment, or for both. Runs that go on keep the value they began with."""
        who.require(Permission.DEPLOY)
        check_place(environment)
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise BadVariable(
                f"“{name[:60]}” cannot be the name of a variable.",
                fix="Use up to 64 letters, digits and “_”, beginning with a letter, such as sender_address.",
            )
        check_json(value)
        if len(orjson.dumps(value)) > MAX_VALUE:
            raise BadVariable(
                f"A variable holds up to {MAX_VALUE // 1024} KB.", fix="Keep it as a file or in a table instead."
            )
        known = self._values.get(who.tenant, {}).get(environment, {})
        if name not in known and len(known) >= MAX_VARIABLES:
            raise BadVariable(
                f"There are {MAX_VARIABLES} variables already, which is the most.",
                code="limit.variables",
                fix="Delete some, or keep related values together in one record.",
            )
        now = time.time()
        await self._db.write(
            who.tenant,
            lambda session: rows.put(
                session, environment, name, value=value, description=description[:500], at=now, by=who.name
            ),
        )
        self._values.setdefault(who.tenant, defaultdict(dict))[environment][name] = value
        self._changed(who.tenant)
        return VariableInfo(name, environment, value, description[:500], now, who.name)

    async def delete(self, who: Actor, name: str, *, environment: str = SHARED) -> None:
        """Forget a variable in one environment, or the one for both. Raises NotFound."""
        who.require(Permission.DEPLOY)
        check_place(environment)
        if not await self._db.write(who.tenant, lambda session: rows.remove(session, environment, name)):
            raise NotFound(f"There is no variable “{name}” there.", fix="Look at the list of variables.")
        self._values.get(who.tenant, {}).get(environment, {}).pop(name, None)
        self._changed(who.tenant)

    def of(self, tenant: str, environment: str) -> Mapping[str, Any]:
        """What an environment sets, by name: its own values, and those for both."""
        values = self._values.get(tenant)
        if values is None:
            return _NONE
        return {**values.get(SHARED, {}), **values.get(environment, {})}

    def used(self, tenant: str, environment: str, plan: Plan) -> Mapping[str, Any]:
        """Those of an environment that a plan reads; a run keeps a copy of them."""
        if tenant not in self._values:
            return _NONE
        key = tenant, environment, plan.content_hash
        found = self._used.get(key)
        if found is None:
            text = plan.blueprint.canonical().decode()
            found = {}
            if "vars" in text:
                everything = "vars[" in text or "vars |" in text or "vars|" in text
                values = self.of(tenant, environment)
                found = {name: value for name, value in values.items() if everything or name in text}
            if len(self._used) > 1_000:
                self._used.clear()
            self._used[key] = found
        return found

    def _changed(self, tenant: str) -> None:
        self._used.clear()
        self._bus.publish(tenant, ("variables",), {})


def _info(row: rows.Variable) -> VariableInfo:
    return VariableInfo(row.name, row.environment, row.value, row.description, row.updated_at, row.updated_by)
