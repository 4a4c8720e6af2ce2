"""What is taken from whom, and in which order due work is picked."""

import math
import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app import db
from app.models.orm import new_id
from app.models.workflow import Worker
from app.store import due, workers
from app.store.due import UnderWay, Wanted
from app.store.workflows import NOW, seconds
from tests.store.conftest import beat, columns, is_in, until, workflow

pytestmark = pytest.mark.usefixtures("database")

DEAD, GONE = 40.0, 20.0


def silent_for(worker: UUID, age: float) -> None:
    with db.transaction() as session:
        session.execute(Worker.__table__.update().where(Worker.id == worker).values(beat_at=NOW - seconds(age)))


def take_away(dead: float = DEAD) -> dict[UUID, bool]:
    with db.transaction() as session:
        return {row.id: died for row, died in due.take_away(session, dead=dead, gone=GONE)}


def pick(urgent: int = 100, other: int = 100, *, most: int | None = None, probing: bool = False) -> list[UUID]:
    wanted = [
        Wanted(kind="claim", priority=0, entry="accepted", room=urgent, most=urgent),
        Wanted(
            kind="claim",
            priority=1,
            entry="accepted",
            room=other,
            most=other if most is None else most,
            probing=probing,
        ),
    ]
    with db.transaction() as session:
        return [one.id for one in due.pick_due(session, wanted, again=5)]


def due_since(age: float, *, of: str = "test", priority: int = 1, **columns: Any) -> UUID:
    return workflow(of=of, priority=priority, wake_at=NOW - seconds(age), updated_at=NOW - seconds(age), **columns)


@pytest.mark.parametrize("died", [True, False])
def test_what_is_taken_away_is_free_at_once_under_a_new_fence(died: bool) -> None:
    worker = new_id()
    beat(worker)
    silent_for(worker, 60 if died else 0)
    row = workflow(worker=worker, fence=3, crashes=1, wake_at=NOW + seconds(60 if died else -1))
    assert take_away() == {row: died}
    after = columns(row)
    assert (after["worker"], after["fence"], after["crashes"]) == (None, 4, 2 if died else 1)
    assert until(after["wake_at"]) <= 0


def test_nothing_is_taken_from_a_living_holder_in_time() -> None:
    worker = new_id()
    beat(worker)
    workflow(worker=worker, wake_at=NOW + seconds(60))
    assert take_away() == {}


@pytest.mark.parametrize(("silent", "closed", "dies"), [(30, True, True), (30, False, False), (10, True, False)])
def test_who_is_silent_and_whose_connection_is_closed_is_dead_sooner(silent: float, closed: bool, dies: bool) -> None:
    worker = new_id()
    with db.kept() as session:
        workers.beat(session, worker, host="host", pid=1, release="test")
    silent_for(worker, silent)
    with db.transaction() as session:
        backend = session.execute(select(Worker.backend).where(Worker.id == worker)).scalar_one()
        if closed:
            session.execute(text("SELECT pg_terminate_backend(:one, 1000)"), {"one": backend})
    row = workflow(worker=worker, wake_at=NOW + seconds(60))
    assert take_away() == ({row: True} if dies else {})


def test_a_holder_without_any_heartbeat_is_dead() -> None:
    row = workflow(worker=new_id(), wake_at=NOW + seconds(60))
    assert take_away() == {row: True}


def test_where_nobody_is_taken_for_dead_leases_run_out_all_the_same() -> None:
    row, late = workflow(worker=new_id(), wake_at=NOW + seconds(60)), workflow(worker=new_id())
    assert take_away(dead=math.inf) == {late: False}
    assert columns(row)["worker"]


def test_the_first_of_a_client_of_which_nothing_is_sent_is_told() -> None:
    def picked(most: int) -> list[tuple[UUID, bool]]:
        with db.transaction() as session:
            wanted = [Wanted(kind="claim", priority=1, entry="accepted", room=9, most=most)]
            return [(one.id, one.first) for one in due.pick_due(session, wanted, again=5)]

    many = [due_since(age, of="many") for age in (60, 50, 40)]
    assert picked(2) == [(many[0], True), (many[1], False)]
    small = due_since(1, of="small")
    assert sorted(picked(2), key=lambda one: one[1]) == [
        (many[2], False),
        (small, True),
    ]  # two of the first client's wait for a worker


def test_what_is_waited_for_again_after_a_death_is_not_new() -> None:
    new = due_since(60, state="accepted")
    crashed, doubted = due_since(5, state="accepted", crashes=1), due_since(4, state="accepted", in_doubt=True)
    tried = due_since(3, state="accepted", attempt=1)
    with db.transaction() as session:
        wanted = [Wanted(kind="claim", priority=1, entry="accepted", room=9, most=9)]
        picked = due.pick_due(session, wanted, again=5)
    assert [(one.id, one.new) for one in picked] == [(crashed, False), (doubted, False), (tried, False), (new, True)]


def test_what_another_sweep_has_locked_is_left_to_it() -> None:
    row = workflow(worker=new_id())
    with db.transaction() as session:
        assert due.take_away(session, dead=DEAD, gone=GONE)
        assert take_away() == {}
    assert columns(row)["worker"] is None


def test_what_somebody_waits_for_comes_first() -> None:
    later, sooner = due_since(60), due_since(1, priority=0)
    assert pick() == [sooner, later]


def test_clients_take_turns_and_each_has_its_oldest_first() -> None:
    flood = [due_since(100 - age, of="flood") for age in range(10)]
    one = due_since(1, of="small")
    assert set(pick(0, 2)) == {flood[0], one}
    assert set(pick(0, 3)) == set(flood[1:4])


def test_of_one_client_the_oldest_come_first() -> None:
    rows = [due_since(age) for age in (5, 30, 10, 20)]
    assert set(pick(0, 2)) == {rows[1], rows[3]}


def test_where_one_may_go_at_a_time_nobody_waits_for_the_end_of_another_s_backlog() -> None:
    """By chance, so that it may fail once in millions of runs."""
    for _ in range(26):
        due_since(60, of="many")
    small = due_since(1, of="small")
    assert small in [one for _ in range(25) for one in pick(0, 1)]


def test_of_one_client_what_is_begun_comes_before_what_is_new() -> None:
    new = due_since(60, state="accepted")
    begun = due_since(1, state="created")
    assert pick() == [begun, new]


def test_what_the_upstream_does_not_take_stays_due_as_a_row() -> None:
    rows = [due_since(age) for age in (30, 20, 10)]
    assert pick(most=0) == []
    assert until(columns(rows[0])["wake_at"]) <= -30
    assert pick(most=2) == rows[:2]


def test_what_must_go_goes_though_the_upstream_takes_nothing() -> None:
    due_since(60)
    late, stopped = due_since(10, deadline_at=NOW - seconds(1)), due_since(5, asked="cancel")
    due_since(50, deadline_at=NOW + seconds(60))
    assert pick(most=0) == [late, stopped]


def test_the_probe_is_the_one_with_the_fewest_attempts() -> None:
    due_since(60, attempt=2, of="one")
    due_since(50, attempt=2, of="two")
    fewest = due_since(5, attempt=1, of="two")
    assert pick(most=1, probing=True) == [fewest]


def test_each_kind_has_room_of_its_own() -> None:
    due_since(60)
    with db.transaction() as session:
        wanted = [Wanted(kind=kind, priority=1, entry="pending", room=5, most=5) for kind in ("notification", "claim")]
        assert len(due.pick_due(session, wanted[:1], again=5)) == 0
        assert len(due.pick_due(session, wanted, again=5)) == 1


def test_what_is_held_is_counted_by_kind() -> None:
    with db.transaction() as session:
        before = due.under_way(session).get("claim", UnderWay())
    workflow(worker=new_id())
    workflow(worker=new_id(), in_doubt=True, intent={"step": "create_claim"})
    workflow()
    with db.transaction() as session:
        assert due.under_way(session) == {"claim": UnderWay(before.held + 2, before.calling + 1)}


def test_what_is_held_beyond_its_lease_takes_no_room_from_what_is_free() -> None:
    workflow(worker=new_id(), wake_at=NOW - seconds(60))
    free = due_since(1)
    assert pick(0, 1) == [free]


@pytest.mark.parametrize("room", [0, -3])
def test_without_room_nothing_is_picked(room: int) -> None:
    due_since(1)
    assert pick(room, room) == []


def test_held_finished_and_later_rows_are_not_picked() -> None:
    workflow(worker=new_id())
    workflow(state="submitted")
    workflow(wake_at=NOW + seconds(60))
    assert pick() == []


def test_what_is_picked_is_looked_at_again_later() -> None:
    row = due_since(10)
    assert pick() == [row]
    assert is_in(columns(row)["wake_at"], 5)
    assert pick() == []


def test_what_lost_its_holder_is_looked_at_again_sooner() -> None:
    """Who has the message may be dead as well."""
    row = due_since(10, crashes=1)
    assert pick() == [row]
    assert is_in(columns(row)["wake_at"], 2)
    assert pick() == []


def test_one_transaction_sweeps_at_a_time() -> None:
    holds, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with db.transaction() as session:
            assert due.only_one_sweeps(session)
            holds.set()
            may_end.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert holds.wait(60)
        with db.transaction() as session:
            assert not due.only_one_sweeps(session)
    finally:
        may_end.set()
        other.join()
    with db.transaction() as session:
        assert due.only_one_sweeps(session)
