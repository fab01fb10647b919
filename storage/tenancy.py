"""The one session that product code gets: bound to a tenant, blind to the rows of every other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NoReturn, TypeVar

from sqlalchemy import Connection, Table, column, event, func, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import ORMExecuteState, UOWTransaction, with_loader_criteria
from sqlalchemy.sql.dml import UpdateBase
from sqlmodel import Field, Session, SQLModel

from storage.errors import WrongTenant


class _Owner:
    """The column to compare with the tenant. The criteria ask the base too, which is no table and has no columns."""

    def __get__(self, _: object, table: Any) -> Any:
        return column("tenant_id") if table is Owned else table.tenant_id


class Owned(SQLModel):
    """Base of every table: the tenant is part of the key, so that no foreign key can lead out of it."""

    owner: ClassVar[Any] = _Owner()

    tenant_id: str = Field(default=None, primary_key=True)


O = TypeVar("O", bound=Owned)  # noqa: E741


class TenantSession(Session):
    """Sees, changes and adds only rows of its tenant; SQL written by hand is refused."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        if not tenant:
            raise WrongTenant("A session needs a tenant.")
        super().__init__(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        self.tenant = tenant

    def find(self, table: type[O], *key: Any) -> O | None:
        """The row with that key (without its tenant), or None."""
        return self.get(table, (self.tenant, *key))

    def change(self, statement: UpdateBase) -> int:
        """Run an update or delete; how many rows it changed. None means that a race was lost, or the row is not there."""
        return self.exec(statement).rowcount

    def upsert(self, table: type[Owned], keys: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Add a row, or set the values of the one with these keys."""
        self._insert(table, keys, values, update=values)

    def put_once(self, table: type[Owned], keys: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> bool:
        """Add a row unless one with these keys is there; whether it was added."""
        return self._insert(table, keys, values or {}, update=None) == 1

    def hold(self, *key: str) -> None:
        """Until this transaction ends no other server gets past here with the same key."""
        connection = super().connection()
        if connection.dialect.name == "postgresql":  # in SQLite nobody writes beside us
            name = "\n".join((self.tenant, *key))
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))

    def _insert(
        self, table: type[Owned], keys: Mapping[str, Any], values: Mapping[str, Any], update: Mapping[str, Any] | None
    ) -> int:
        _same_tenant(self.tenant, keys.get("tenant_id"))
        _same_tenant(self.tenant, values.get("tenant_id"))
        self.flush()
        connection = super().connection()
        made: Table = table.__table__  # type: ignore[attr-defined]
        own = {"tenant_id": self.tenant, **keys}
        dialect = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
        statement: Any = dialect(made).values({**own, **values})
        if update is None:
            statement = statement.on_conflict_do_nothing(index_elements=list(own))
        else:
            statement = statement.on_conflict_do_update(index_elements=list(own), set_=dict(update))
        return connection.execute(statement).rowcount

    def connection(self, *_: Any, **__: Any) -> NoReturn:
        raise WrongTenant("A tenant's session does not hand out its connection.")

    def bulk_save_objects(self, *_: Any, **__: Any) -> NoReturn:
        raise WrongTenant("Rows are added one by one or by upsert, so that their tenant is checked.")

    def bulk_insert_mappings(self, *_: Any, **__: Any) -> NoReturn:
        raise WrongTenant("Rows are added one by one or by upsert, so that their tenant is checked.")

    def bulk_update_mappings(self, *_: Any, **__: Any) -> NoReturn:
        raise WrongTenant("Rows are changed one by one or by update(), so that their tenant is checked.")


@event.listens_for(TenantSession, "do_orm_execute")
def _only_own_rows(state: ORMExecuteState) -> None:
    if not state.is_orm_statement or not (state.is_select or state.is_update or state.is_delete):
        raise WrongTenant("A tenant's session takes only select, update and delete of our tables.")
    if state.is_update and "tenant_id" in _set_columns(state):
        raise WrongTenant("A row cannot be given to another tenant.")
    session = state.session
    assert isinstance(session, TenantSession)
    tenant = session.tenant
    state.statement = state.statement.options(
        with_loader_criteria(Owned, lambda table: table.owner == tenant, include_aliases=True)
    )


def _set_columns(state: ORMExecuteState) -> set[str]:
    given = list(getattr(state.statement, "_values", None) or ())
    rows = state.parameters or {}
    for row in rows if isinstance(rows, list | tuple) else (rows,):
        given.extend(row)
    return {str(getattr(column, "key", column)) for column in given}


@event.listens_for(TenantSession, "before_flush")
def _rows_carry_the_tenant(session: TenantSession, _: UOWTransaction, __: Any) -> None:
    _stamp(session.tenant, session.new)
    _stamp(session.tenant, session.dirty)
    for row in session.deleted:
        _same_tenant(session.tenant, getattr(row, "tenant_id", ""))


def _stamp(tenant: str, rows: Iterable[object]) -> None:
    for row in rows:
        if not isinstance(row, Owned):
            raise WrongTenant("A tenant's session holds only rows that have a tenant.")
        if row.tenant_id is None:
            row.tenant_id = tenant
        _same_tenant(tenant, row.tenant_id)


def _same_tenant(tenant: str, found: str | None) -> None:
    if found is not None and found != tenant:
        raise WrongTenant("A row of another tenant was handed to this tenant's session.")
