"""Updates of one row, built once and given their values with each run: building one costs more than running it."""

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, Update, bindparam, func, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

NOW = func.clock_timestamp()
Sql = tuple[tuple[str, ColumnElement[Any]], ...]


@dataclass(frozen=True)
class In:
    """The value of a column: so many seconds from Postgres's now."""

    seconds: float


@functools.cache
def from_now(name: str) -> ColumnElement[datetime]:
    """SQL: the time that lies the interval bound to `name` from Postgres's now."""
    return NOW + bindparam(name, type_=INTERVAL)


def run(session: Session, table: Table, row_id: UUID, *guard: ColumnElement[bool], **values: Any) -> bool:
    """Update the row if it passes the guards. False: it does not, or there is none.

    `values`: by column a value, SQL, or In; and by name what is bound in that SQL and in the guards. Guards and SQL
    have to be the same objects each time for the statement to be found again.
    """
    sql: dict[str, ColumnElement[Any]] = {}
    bound: dict[str, Any] = {"row_id": row_id}
    for name, value in values.items():
        if isinstance(value, In):
            sql[name], bound[f"{name}_in"] = from_now(f"{name}_in"), timedelta(seconds=value.seconds)
        elif isinstance(value, ColumnElement):
            sql[name] = value
        else:
            bound[name] = value
    return session.execute(_built(table, guard, tuple(sql.items())), bound).rowcount == 1  # type: ignore[attr-defined,no-any-return]


@functools.lru_cache(maxsize=256)
def _built(table: Table, guard: tuple[ColumnElement[bool], ...], sql: Sql) -> Update:
    return update(table).where(table.c.id == bindparam("row_id"), *guard).values(dict(sql))
