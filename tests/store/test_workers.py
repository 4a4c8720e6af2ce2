"""Heartbeats, and what a worker leaves."""

from typing import Any
from uuid import UUID

import pytest

from app import db
from app.models.orm import new_id
from app.models.workflow import Worker
from app.store import workers
from app.store.workflows import NOW, seconds
from tests.store.conftest import beat, columns, is_in, until, workflow

pytestmark = pytest.mark.usefixtures("database")


def silent_for(worker: UUID, age: float) -> None:
    with db.transaction() as session:
        session.execute(Worker.__table__.update().where(Worker.id == worker).values(beat_at=NOW - seconds(age)))


def test_a_heartbeat_is_one_row_per_incarnation_and_renewed_in_place() -> None:
    worker = new_id()
    beat(worker)
    silent_for(worker, 60)
    beat(worker)
    with db.transaction() as session:
        rows = session.query(Worker).filter_by(id=worker).all()
    assert len(rows) == 1
    assert is_in(rows[0].beat_at, 0)


def test_a_worker_that_leaves_frees_what_it_holds_and_nothing_else() -> None:
    mine, others = new_id(), new_id()
    row = workflow(worker=mine, fence=1, crashes=1, in_doubt=True, intent={"step": "create_claim"})
    other = workflow(worker=others)
    with db.transaction() as session:
        assert workers.let_go(session, mine) == 1
    after = columns(row)
    assert (after["worker"], after["fence"], after["crashes"], after["in_doubt"]) == (None, 2, 1, True)
    assert until(after["wake_at"]) <= 0
    assert columns(other)["worker"] == others


def test_workers_long_silent_are_forgotten_unless_they_hold_something() -> None:
    living, gone, holding = new_id(), new_id(), new_id()
    for worker in (living, gone, holding):
        beat(worker)
    for worker in (gone, holding):
        silent_for(worker, 4_000)
    workflow(worker=holding)
    with db.transaction() as session:
        assert workers.forget_silent(session, after=3_600) == 1
        left = {row.id for row in session.query(Worker).all()}
    assert {living, holding} <= left
    assert gone not in left


# Work that is long due


def long_due(*kinds: str) -> set[str]:
    with db.transaction() as session:
        return workers.long_due(session, kinds, again=5)


def test_of_each_kind_it_is_told_whether_work_is_long_due_whoever_waits_before_it() -> None:
    for age in range(60, 50, -1):
        workflow(due_at=NOW - seconds(age), wake_at=NOW - seconds(age))
    workflow(kind="notification", due_at=NOW - seconds(11), wake_at=NOW + seconds(4))
    workflow(kind="claim-callback", due_at=NOW - seconds(1), wake_at=NOW - seconds(1))
    workflow(kind="declaration", due_at=NOW - seconds(60), wake_at=NOW - seconds(60))
    assert long_due("claim", "notification", "claim-callback") == {"claim", "notification"}


@pytest.mark.parametrize(
    "not_free",
    [{"worker": new_id()}, {"for_release": "another"}, {"wake_at": NOW + seconds(60)}],
    ids=["held", "kept for a release", "put off"],
)
def test_what_nobody_may_take_now_is_not_long_due(not_free: dict[str, Any]) -> None:
    workflow(**{"due_at": NOW - seconds(60), "wake_at": NOW - seconds(60), **not_free})
    assert long_due("claim") == set()
