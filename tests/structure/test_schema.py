"""The schema: one line of migrations that ends where the models are, and CHECKs that refuse what they should."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

from app import db, states
from app.models.orm import Table
from app.states import Machine
from app.store.workflows import NOW
from local import services
from tests.store.conftest import workflow

CONFIG = Config(str(Path(__file__).parents[2] / "alembic.ini"))
MACHINES = list(states.MACHINES.values())
# What both ways of building the schema must agree on; `alembic check` does not compare CHECKs.
SHAPE = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
        WHERE table_schema = 'public'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}
# A default that only the rows of before a migration needed; the models bring their own.
ONLY_FOR_OLD_ROWS = {("claims", "callback_wanted")}


@pytest.fixture
def empty(postgres: services.Postgres, environment: dict[str, str]) -> Iterator[Callable[[str], Engine]]:
    """`empty("name")` is a database of that name with nothing in it."""
    engines: list[Engine] = []

    def create(name: str) -> Engine:
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        engine = create_engine(postgres.url_of(name).replace("postgresql:", "postgresql+psycopg:"))
        engines.append(engine)
        return engine

    yield create
    for engine in engines:
        engine.dispose()


@pytest.fixture
def migrated(empty: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A database of its own that the migrations act upon."""
    engine = empty("migrated")
    monkeypatch.setattr(db, "engine", lambda: engine)
    return engine


def shape(engine: Engine) -> dict[str, set[Any]]:
    with engine.connect() as connection:
        found = {part: {tuple(row) for row in connection.execute(text(query))} for part, query in SHAPE.items()}
    return {part: {row for row in rows if row[0] != "alembic_version"} for part, rows in found.items()}


def without_defaults_for_old_rows(found: dict[str, set[Any]]) -> dict[str, set[Any]]:
    columns = {row[:4] if row[:2] in ONLY_FOR_OLD_ROWS else row for row in found["columns"]}
    return {**found, "columns": columns}


def test_the_migrations_are_one_line_with_one_head() -> None:
    scripts = ScriptDirectory.from_config(CONFIG)
    line = list(scripts.walk_revisions())
    assert len(scripts.get_heads()) == len(scripts.get_bases()) == 1
    assert [script.revision for script in reversed(line)] == [f"{number:04}" for number in range(1, len(line) + 1)]


def test_the_models_ask_for_no_further_migration(schema: None) -> None:
    command.check(CONFIG)


def test_models_and_migrations_make_the_same_schema(migrated: Engine, empty: Callable[[str], Engine]) -> None:
    command.upgrade(CONFIG, "head")
    modelled = empty("modelled")
    Table.metadata.create_all(modelled)
    made, wanted = without_defaults_for_old_rows(shape(migrated)), without_defaults_for_old_rows(shape(modelled))
    for part in SHAPE:
        assert made[part] ^ wanted[part] == set(), part


def test_every_migration_can_be_taken_back_and_made_again(migrated: Engine) -> None:
    command.upgrade(CONFIG, "head")
    first = shape(migrated)
    command.downgrade(CONFIG, "base")
    assert shape(migrated) == {part: set() for part in SHAPE}
    for script in reversed(list(ScriptDirectory.from_config(CONFIG).walk_revisions())):
        command.upgrade(CONFIG, script.revision)
        after = shape(migrated)
        command.downgrade(CONFIG, "-1")
        command.upgrade(CONFIG, script.revision)
        assert shape(migrated) == after, script.revision
    assert shape(migrated) == first


# What the CHECKs on workflows refuse


def all_states() -> list[Any]:
    return [
        pytest.param(machine, state, id=f"{machine.kind}-{state}") for machine in MACHINES for state in machine.states
    ]


@pytest.mark.parametrize(("machine", "state"), all_states())
def test_every_state_of_a_kind_is_taken_and_only_as_busy_or_finished_as_it_is(
    database: None, machine: Machine, state: str
) -> None:
    workflow(kind=machine.kind, state=state)
    finished = machine.is_finished(state)
    for name in ("due_at", "wake_at"):
        with pytest.raises(IntegrityError, match="ck_workflows_time_to_look_again"):
            workflow(kind=machine.kind, state=state, **{name: NOW if finished else None})


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_no_kind_takes_the_states_of_others(database: None, machine: Machine) -> None:
    others = {str(state) for other in MACHINES for state in other.states} - {str(state) for state in machine.states}
    for state in sorted(others | {"nowhere", ""}):
        with pytest.raises(IntegrityError, match="ck_workflows_legal_state"):
            write(machine, state=state)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_a_kind_that_is_none_has_no_states(database: None, machine: Machine) -> None:
    with pytest.raises(IntegrityError, match="ck_workflows_legal_state"):
        write(machine, kind="nothing")


def write(machine: Machine, **values: str) -> None:
    """Change a good row, as somebody would who goes past the code."""
    row = workflow(kind=machine.kind, slot=None)
    with db.transaction() as session:
        assignments = ", ".join(f"{name} = :{name}" for name in values)
        session.execute(text(f"UPDATE workflows SET {assignments} WHERE id = :id"), {**values, "id": row})  # noqa: S608


@pytest.mark.parametrize("asked", ["cancel", "withdraw", None])
def test_only_what_is_known_can_be_asked_for(database: None, asked: str | None) -> None:
    workflow(asked=asked)
    with pytest.raises(IntegrityError, match="ck_workflows_asked"):
        workflow(asked="dance")
