"""The way into Postgres: one engine per process, `transaction()`, and what runs after a commit.

Every session has `idle_in_transaction_session_timeout` and `lock_timeout`, so that a holder that hangs cannot hold a
row for long. Nothing connects at import.
"""

import functools
import logging
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from app import config

__all__ = [
    "Session",
    "after_commit",
    "close",
    "engine",
    "kept",
    "persistent",
    "refusal",
    "sqlstate",
    "statements",
    "transaction",
    "unreachable",
]
_SESSION = "-c idle_in_transaction_session_timeout=5000 -c lock_timeout=5000 -c timezone=UTC"
_AFTER_COMMIT = "after_commit"
_PERSIST_SECONDS = 10.0
_LAST = datetime.max.replace(tzinfo=UTC)
P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def engine() -> Engine:
    """The connection pool of this process. Its threads may be more: each has a connection only while it asks."""
    threads = config.settings().worker_concurrency
    made = _engine(pool_size=min(threads, 16), max_overflow=2 * threads, pool_timeout=5, pool_recycle=1800)
    event.listen(made, "checkout", _drop_if_dead)
    return made


def _engine(**pool: Any) -> Engine:
    url = make_url(config.settings().database_url).set(drivername="postgresql+psycopg")
    made = create_engine(
        url,
        **pool,
        hide_parameters=True,  # they hold personal data, and errors are logged
        connect_args={
            "connect_timeout": 3,
            "options": _SESSION,
            "application_name": "throughline",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        },
    )
    event.listen(made, "connect", _read_infinity)
    return made


class _Timestamp(TimestamptzLoader):
    """`infinity`, the time of what waits for somebody else, is read as the largest datetime."""

    def load(self, data: Buffer) -> datetime:
        return _LAST if bytes(data) == b"infinity" else super().load(data)


def _read_infinity(connection: Any, _record: Any) -> None:
    connection.adapters.register_loader("timestamptz", _Timestamp)


def _drop_if_dead(connection: Any, _record: Any, _proxy: Any) -> None:
    """Do not hand out a connection that the server has closed."""
    if _is_closed(connection):
        raise DisconnectionError


def _is_closed(connection: Any) -> bool:
    """Whether the server has closed it: its socket has something to read, which is the end.

    Costs no round trip while all is well, unlike a ping before each use.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except connection.Error:
            return True
    return False


@functools.cache
def _autocommitting() -> Engine:
    return engine().execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def statements() -> Iterator[Session]:
    """Statements that are each a transaction of their own: one round trip for a single guarded write, or for reads."""
    with Session(_autocommitting(), expire_on_commit=False) as session:
        yield session


_kept: list[Connection] = []


@contextmanager
def kept() -> Iterator[Session]:
    """As `statements`, on one connection beside the pool, kept until it fails. For one thread at a time."""
    if _kept and _is_closed(_kept[0].connection.driver_connection):
        _drop_kept()
    if not _kept:
        _kept.append(_engine(poolclass=NullPool, isolation_level="AUTOCOMMIT").connect())
    try:
        with Session(_kept[0], expire_on_commit=False) as session:
            yield session
    except Exception:
        _drop_kept()
        raise


def close() -> None:
    """Close the connections of this process that nobody uses."""
    if _kept:
        _drop_kept()
    engine().dispose()


def _drop_kept() -> None:
    dropped = _kept.pop()
    dropped.invalidate()
    dropped.close()


@contextmanager
def transaction() -> Iterator[Session]:
    """One transaction; the only way in. Commits at the end, then runs what was left with `after_commit`."""
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        for action in session.info.pop(_AFTER_COMMIT, []):
            _run(action)


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Run `action` once the transaction has committed; best effort, never if it rolls back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


def unreachable(error: BaseException) -> bool:
    """Whether this error means that Postgres cannot be reached now (down, restarting, or no connection free)."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, PoolTimeout)


def sqlstate(error: BaseException) -> str:
    """Postgres's code for it, such as 40P01; empty where there is none, as for a connection that was not made."""
    return getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""


def refusal(error: BaseException) -> str:
    """Why a Postgres that is there lets nobody in, in its words, such as a wrong password; empty for all else."""
    if not isinstance(error, OperationalError) or sqlstate(error):
        return ""
    found = re.search(r"connection to server .* failed: FATAL: +(.+)", str(error.orig))
    return found[1] if found else ""


def persistent(action: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that is one guarded transaction: while Postgres is away, try again for 10 s.

    For writing down what cannot be learned anew cheaply (the outcome of a call). Repeating is safe because of the
    guard: if the lost attempt had committed, the next one hits no row.
    """

    @functools.wraps(action)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        give_up = time.monotonic() + _PERSIST_SECONDS
        while True:
            try:
                return action(*args, **kwargs)
            except (DBAPIError, PoolTimeout) as error:
                if not unreachable(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.2)

    return wrapped


def _run(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:  # the commit stands; whatever was to follow is found by the sweep
        logging.getLogger(__name__).exception("db.after-commit-failed")
