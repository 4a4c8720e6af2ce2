"""The way into Postgres: transactions, what follows a commit, and what counts as not reachable."""

import contextlib
import types
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing?connect_timeout=2"


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    passing = Clock()
    monkeypatch.setattr(db, "time", types.SimpleNamespace(monotonic=passing.monotonic, sleep=passing.sleep))
    return passing


@pytest.fixture
def away() -> OperationalError:
    """What a Postgres that is not there is told by."""
    engine = create_engine(NOWHERE)
    with pytest.raises(OperationalError) as raised:
        engine.connect()
    engine.dispose()
    return raised.value


def names() -> list[str]:
    with db.transaction() as session:
        return list(session.scalars(text("SELECT name FROM clients ORDER BY name")))


def add(session: db.Session, name: str) -> None:
    session.execute(
        text("INSERT INTO clients (id, name, scopes) VALUES (gen_random_uuid(), :name, '{}')"), {"name": name}
    )


def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_error(database: None) -> None:
    with db.transaction() as session:
        add(session, "kept")
    with contextlib.suppress(ZeroDivisionError), db.transaction() as session:
        add(session, "lost")
        raise ZeroDivisionError
    assert names() == ["kept"]


def test_what_follows_a_commit_runs_after_it_in_order_and_outside_of_it(database: None) -> None:
    seen: list[object] = []
    with db.transaction() as session:
        add(session, "new")
        db.after_commit(session, lambda: seen.append(names()))
        db.after_commit(session, lambda: seen.append("second"))
        assert seen == []
    assert seen == [["new"], "second"]


def test_nothing_follows_a_rollback(database: None) -> None:
    seen: list[str] = []
    with contextlib.suppress(ZeroDivisionError), db.transaction() as session:
        db.after_commit(session, lambda: seen.append("followed"))
        raise ZeroDivisionError
    with db.transaction():
        pass
    assert seen == []


def test_an_error_after_the_commit_stops_neither_the_caller_nor_what_else_follows(
    database: None, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def fails() -> None:
        raise ZeroDivisionError

    with db.transaction() as session:
        add(session, "kept")
        db.after_commit(session, fails)
        db.after_commit(session, lambda: seen.append("followed"))
    assert (names(), seen) == (["kept"], ["followed"])
    assert "db.after-commit-failed" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value"),
    [("idle_in_transaction_session_timeout", "5s"), ("lock_timeout", "5s"), ("TimeZone", "UTC")],
)
def test_no_session_can_hold_a_row_for_long(database: None, setting: str, value: str) -> None:
    db.engine().dispose()  # migrating has changed the settings of a session that is in the pool
    with db.transaction() as session:
        assert session.scalar(text(f"SHOW {setting}")) == value


def test_a_statement_of_its_own_is_committed_at_once(database: None) -> None:
    with db.statements() as session:
        add(session, "kept")
        assert names() == ["kept"]


def test_a_connection_that_the_server_has_closed_is_not_handed_out(database: None) -> None:
    with db.transaction() as session:
        mine = session.scalar(text("SELECT pg_backend_pid()"))
    engine = create_engine(db.engine().url)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "  # waits until it is gone
                "WHERE pid <> pg_backend_pid() AND datname = :name"
            ),
            {"name": "throughline"},
        )
    engine.dispose()
    for _ in range(db.engine().pool.checkedin()):  # type: ignore[attr-defined]
        with db.transaction() as session:
            assert session.scalar(text("SELECT pg_backend_pid()")) != mine


def test_a_postgres_that_is_not_there_is_not_reachable(away: OperationalError) -> None:
    assert db.unreachable(away)
    assert db.unreachable(PoolTimeout())


def test_a_connection_that_breaks_is_not_reachable_and_a_wrong_statement_is_something_else(database: None) -> None:
    with pytest.raises(DBAPIError) as broken, db.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert db.unreachable(broken.value)
    with pytest.raises(DBAPIError) as wrong, db.transaction() as session:
        session.execute(text("SELECT nonsense"))
    assert not db.unreachable(wrong.value)
    assert not db.unreachable(ZeroDivisionError())


def test_a_write_that_cannot_be_lost_is_tried_again_until_postgres_is_back(
    clock: Clock, away: OperationalError
) -> None:
    answers = [away, away, None]

    @db.persistent
    def write(name: str) -> str:
        if error := answers.pop(0):
            raise error
        return name

    assert write("written") == "written"
    assert len(clock.waits) == 2


def test_it_is_given_up_after_ten_seconds(clock: Clock, away: OperationalError) -> None:
    @db.persistent
    def write() -> None:
        raise away

    with pytest.raises(OperationalError):
        write()
    assert 10 <= clock.now < 11


@pytest.mark.parametrize("kind", ["statement", "bug"])
def test_any_other_error_is_not_tried_again(database: None, clock: Clock, kind: str) -> None:
    @db.persistent
    def write() -> None:
        if kind == "bug":
            raise ZeroDivisionError
        with db.transaction() as session:
            session.execute(text("SELECT nonsense"))

    with pytest.raises((DBAPIError, ZeroDivisionError)):
        write()
    assert clock.waits == []


def test_the_pool_serves_every_thread(environment: dict[str, str], set_settings: Callable[..., None]) -> None:
    pool = db.engine().pool
    assert pool.size() + pool._max_overflow >= 32  # type: ignore[attr-defined]
