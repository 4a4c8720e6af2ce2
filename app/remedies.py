"""What an error of Postgres means to whoever runs Throughline: one sentence that says what to do."""

import sys
from collections.abc import Callable

from app import db, errors
from app.store import health

_SENTENCES = {
    "55P03": "A lock that others hold was not free in time; run the command again.",
    "40P01": "Postgres ended this, for it and others waited for each other (a deadlock); run the command again.",
}
_NOT_IN_SCHEMA = {"42P01", "42703"}  # no such table, no such column


def against(error: BaseException) -> str:
    """The sentence; empty where the error is a bug of ours and wants its traceback."""
    state = db.sqlstate(error)
    if state in _SENTENCES:
        return _SENTENCES[state]
    if state in _NOT_IN_SCHEMA and not _schema_serves():
        return "The schema is not the one that this version needs; run `throughline migrate`."
    if said := db.refusal(error):
        return f"Postgres refuses the connection: {said}. User, password and database are those of DATABASE_URL."
    return "Postgres cannot be reached at DATABASE_URL; is it running?" if db.unreachable(error) else ""


def _schema_serves() -> bool:
    with db.transaction() as session:
        return health.schema_serves(health.schema_version(session))


def or_exit(begin: Callable[[], None]) -> None:
    """Run a part of a process's start. Where people can mend what fails, the process ends with that sentence alone."""
    try:
        begin()
    except errors.BadSettings as error:
        sys.exit(str(error))
    except Exception as error:
        if sentence := against(error):
            sys.exit(sentence)
        raise
