"""Updates of one row: built once, right with each run."""

from dataclasses import replace

import pytest

from app import db
from app.store import updates, workflows
from app.store.workflows import W
from tests.store.conftest import columns, is_in, seen, workflow

pytestmark = pytest.mark.usefixtures("database")


def test_values_sql_and_times_reach_their_columns() -> None:
    row = workflow()
    values = {"attempt": 3, "fence": W.c.fence + 2, "intent": {"step": "a"}, "wake_at": updates.In(60)}
    with db.transaction() as session:
        assert updates.run(session, W, row, **values)
    now = columns(row)
    assert (now["attempt"], now["fence"], now["intent"]) == (3, 2, {"step": "a"})
    assert is_in(now["wake_at"], 60)


def test_none_is_null_also_where_the_column_holds_json() -> None:
    row = workflow(intent={"step": "a"})
    with db.transaction() as session:
        assert updates.run(session, W, row, intent=None)
        assert session.scalar(W.select().where(W.c.id == row, W.c.intent.is_(None)).with_only_columns(W.c.id)) == row


def test_a_row_that_does_not_pass_the_guard_is_left_alone() -> None:
    row = workflow()
    before = columns(row)
    with db.transaction() as session:
        assert not updates.run(session, W, row, W.c.worker.is_not(None), attempt=3)
    assert columns(row) == before


def test_a_second_run_takes_its_own_values_and_builds_nothing() -> None:
    first, second = seen(workflow()), seen(workflow())
    with db.transaction() as session:
        assert workflows.renew(session, first, lease=10)
        built = updates._built.cache_info().misses
        assert workflows.renew(session, second, lease=100)
        assert not workflows.renew(session, replace(second, fence=7), lease=1_000)
    assert updates._built.cache_info().misses == built
    assert is_in(columns(first.id)["wake_at"], 10)
    assert is_in(columns(second.id)["wake_at"], 100)


def test_every_write_of_the_engine_is_found_again_when_it_runs_again() -> None:
    intent = {"step": "create_claim", "index": 0, "verb": "do"}

    def all_of_them() -> None:
        row = seen(workflow(state="appointment-found"))
        with db.transaction() as session:
            workflows.intend(session, row, intent, lease=5, anyway=False)
            workflows.progress(session, row, lease=5)
            workflows.settle(session, row, lease=5)
            workflows.later(session, row, after=1, attempt=1, intent=None)
            workflows.later(session, row, after=1, attempt=1, intent=intent)
            workflows.hold(session, replace(row, in_doubt=True), after=1)
            workflows.release(session, row, after=1, attempt=1)
            workflows.wake(session, row)
            workflows.ask(session, replace(row, in_doubt=True), "cancel")
            workflows.move(session, row, "created", actor="worker", lead=5, deadline=9)

    all_of_them()
    built = updates._built.cache_info().misses
    all_of_them()
    assert updates._built.cache_info().misses == built
