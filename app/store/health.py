"""Questions about the system's health: schema, workers, work that waits."""

import functools
from collections.abc import Collection
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.store.workflows import NOW, W


def postgres_version(session: Session) -> str:
    """Such as `PostgreSQL 18.1`."""
    return "PostgreSQL " + str(session.execute(text("SHOW server_version")).scalar_one()).split()[0]


def schema_version(session: Session) -> str | None:
    """The migration this database is at; None before the first."""
    if not session.execute(text("SELECT to_regclass('alembic_version')")).scalar():
        return None
    version: str | None = session.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version


@functools.cache
def schema_head() -> str | None:
    """The newest migration that this code brings along."""
    return _scripts().get_current_head()


@functools.cache
def schema_serves(version: str | None) -> bool:
    """Whether this code can work on a schema of that version: its own newest, or one newer than this code knows.

    Migrations expand before they contract, so code that is one release behind goes on during a roll-out.
    """
    known = {script.revision for script in _scripts().walk_revisions()}
    return version is not None and (version == schema_head() or version not in known)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(str(Path(__file__).parents[2] / "alembic.ini")))


def overdue(session: Session, but: Collection[str] = ()) -> tuple[int, float]:
    """How many workflows are due, and for how many seconds the oldest has been; `but` those of these kinds."""
    age = func.coalesce(func.extract("epoch", NOW - func.min(W.c.due_at)), 0)
    due = (W.c.due_at <= NOW, W.c.worker.is_(None), W.c.kind.not_in(but))
    row = session.execute(select(func.count(), age).where(*due)).one()
    return int(row[0]), float(row[1])
