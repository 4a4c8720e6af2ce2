"""The way into Postgres: one engine per process, `transaction()`, and what runs after a commit.

Every session has `idle_in_transaction_session_timeout` and `lock_timeout`, so that a holder that hangs cannot hold a
row for long. Nothing connects at import.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app import config

__all__ = ["Session", "after_commit", "engine", "persistent", "transaction", "unreachable"]
_SESSION = "-c idle_in_transaction_session_timeout=5000 -c lock_timeout=5000 -c timezone=UTC"
_AFTER_COMMIT = "after_commit"
_PERSIST_SECONDS = 10.0
P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def engine() -> Engine:
    """The connection pool of this process; big enough for every thread of a worker or web process."""
    settings = config.settings()
    threads = max(settings.worker_concurrency, settings.web_threads)
    url = make_url(settings.database_url).set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        pool_size=min(threads, 16),
        max_overflow=threads,
        pool_timeout=5,
        pool_pre_ping=True,
        pool_recycle=1800,
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
