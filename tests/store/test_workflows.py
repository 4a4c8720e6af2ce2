"""The guarded statements on workflows: each hits the row exactly as its caller saw it, or nothing at all."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from app import db, states, steps
from app.db import Session
from app.models.orm import new_id
from app.store import workflows
from app.store.workflows import NOW, Seen, seconds
from tests.store.conftest import columns, history, is_in, seen, until, workflow

pytestmark = pytest.mark.usefixtures("database")

S = states.Claim
INTENT = {"step": "create_claim", "index": 0, "verb": "do"}
Write = Callable[[Session, Seen], bool]
HOLDERS: dict[str, Write] = {
    "renew": lambda session, row: workflows.renew(session, row, lease=65),
    "intend": lambda session, row: workflows.intend(session, row, INTENT, lease=65, anyway=False),
    "progress": lambda session, row: workflows.progress(session, row, lease=65),
    "settle": lambda session, row: workflows.settle(session, row, lease=65),
    "later": lambda session, row: workflows.later(session, row, after=9, attempt=7, intent=None),
    "hold": lambda session, row: workflows.hold(session, row, after=9),
    "release": lambda session, row: workflows.release(session, row, after=9, attempt=1),
    "move": lambda session, row: workflows.move(session, row, S.CREATED, actor="worker"),
}
STRANGERS: dict[str, Write] = {
    "move": lambda session, row: workflows.move(session, row, S.CANCELLED, actor="client", holder=False),
    "ask": lambda session, row: workflows.ask(session, row, "cancel"),
}


def write(action: Write, row: Seen) -> bool:
    with db.transaction() as session:
        return action(session, row)


def held(**values: Any) -> Seen:
    """A claim before its create call, taken."""
    claim = workflow(state=S.APPOINTMENT_FOUND, **values)
    with db.transaction() as session:
        taken = workflows.take(
            session, "claim", claim, among={S.APPOINTMENT_FOUND}, release="test", worker=new_id(), lease=65
        )
    assert taken
    return taken


@pytest.mark.parametrize("name", HOLDERS)
def test_a_write_of_the_holder_hits_the_row_as_it_was_read(name: str) -> None:
    row = held()
    before = columns(row.id)
    assert write(HOLDERS[name], row)
    assert columns(row.id) != before


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("stale", [{"fence": 1}, {"state": S.CREATED}], ids=["fence", "state"])
def test_a_write_of_a_former_holder_hits_nothing(name: str, stale: dict[str, Any]) -> None:
    row = held()
    changed = {"fence": row.fence + stale["fence"]} if "fence" in stale else stale
    with db.transaction() as session:
        session.execute(workflows.W.update().where(workflows.W.c.id == row.id).values(**changed))
    before = columns(row.id)
    assert not write(HOLDERS[name], row)
    assert (columns(row.id), history(row.id)) == (before, [])


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("stale", ["fence", "state", "in_doubt"])
def test_who_writes_without_the_lease_guards_on_state_fence_and_doubt(name: str, stale: str) -> None:
    claim = workflow(state=S.APPOINTMENT_FOUND)
    row = seen(claim)
    old = {"fence": row.fence + 1, "state": S.CREATED, "in_doubt": True}[stale]
    before = columns(claim)
    assert not write(STRANGERS[name], replace(row, **{stale: old}))
    assert (columns(claim), history(claim)) == (before, [])
    assert write(STRANGERS[name], row)


def test_a_move_without_the_lease_shuts_the_holder_out() -> None:
    row = held()
    assert write(STRANGERS["move"], row)
    assert columns(row.id)["fence"] == row.fence + 1
    assert not write(HOLDERS["renew"], row)


def test_a_move_of_the_holder_frees_the_lease_and_is_looked_at_again_when_its_message_should_have_come() -> None:
    row = held()
    with db.transaction() as session:
        workflows.move(session, row, S.CREATED, actor="worker", reason="create_claim", lead=5, attempt=0)
    after = columns(row.id)
    assert (after["state"], after["worker"], after["fence"]) == (S.CREATED, None, row.fence)
    assert is_in(after["due_at"], 0)
    assert is_in(after["wake_at"], 5)
    assert after["updated_at"] > after["created_at"]
    assert history(row.id) == [(S.APPOINTMENT_FOUND, S.CREATED, "worker", "create_claim")]


def test_a_move_gives_a_new_deadline_only_where_one_is_asked_for() -> None:
    row = held(deadline_at=NOW + seconds(100))
    with db.transaction() as session:
        workflows.move(session, row, S.ROLLING_BACK, actor="worker", deadline=1_000)
    assert is_in(columns(row.id)["deadline_at"], 1_000)
    other = held(deadline_at=NOW + seconds(100))
    write(HOLDERS["move"], other)
    assert is_in(columns(other.id)["deadline_at"], 100)


def test_a_move_that_rolls_back_leaves_no_history() -> None:
    row = held()
    with contextlib.suppress(ZeroDivisionError), db.transaction() as session:
        assert workflows.move(session, row, S.CREATED, actor="worker")
        raise ZeroDivisionError
    assert (columns(row.id)["state"], history(row.id)) == (S.APPOINTMENT_FOUND, [])


@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED, S.DUPLICATE])
def test_a_finished_row_keeps_its_slot_unless_its_state_frees_it(state: str) -> None:
    row = held(slot="claim:visit")
    with db.transaction() as session:
        workflows.move(session, row, state, actor="worker")
    after = columns(row.id)
    assert after["slot"] == (None if state in {S.FAILED, S.CANCELLED} else "claim:visit")
    assert (after["due_at"], after["wake_at"]) == (None, None)
    assert is_in(after["finished_at"], 0)


def test_two_rows_cannot_hold_one_slot() -> None:
    workflow(slot="claim:visit")
    with pytest.raises(IntegrityError, match="uq_workflows_slot"):
        workflow(slot="claim:visit")


# Taking


def take(claim: UUID, *, state: str = S.ACCEPTED) -> Seen | None:
    with db.transaction() as session:
        return workflows.take(session, "claim", claim, among={state}, release="test", worker=new_id(), lease=65)


def test_a_take_holds_the_row_and_moves_the_fence() -> None:
    claim = workflow(fence=4)
    taken = take(claim)
    after = columns(claim)
    assert taken
    assert (taken.fence, after["fence"], after["due_at"]) == (5, 5, after["due_at"])
    assert after["worker"]
    assert is_in(after["wake_at"], 65)


@pytest.mark.parametrize(
    "values",
    [
        {"state": S.AUTHORIZED},
        {"state": S.SUBMITTED},
        {"worker": new_id()},
        {"due_at": NOW + seconds(60)},
    ],
    ids=["another step", "finished", "held", "not yet due"],
)
def test_a_take_touches_no_row_that_is_not_its_own_to_take(values: dict[str, Any]) -> None:
    claim = workflow(**values)
    before = columns(claim)
    assert take(claim) is None
    assert columns(claim) == before


# Letting go


def test_later_counts_the_attempt_and_forgets_deaths() -> None:
    row = held(crashes=2)
    with db.transaction() as session:
        workflows.later(session, row, after=30, attempt=3, intent=None)
    after = columns(row.id)
    assert (after["attempt"], after["crashes"], after["worker"], after["state"]) == (3, 0, None, row.state)
    assert is_in(after["due_at"], 30)
    assert is_in(after["wake_at"], 30)


def test_later_never_waits_beyond_the_deadline() -> None:
    row = held(deadline_at=NOW + seconds(10))
    write(lambda session, mine: workflows.later(session, mine, after=90, attempt=1, intent=None), row)
    assert is_in(columns(row.id)["due_at"], 10)


def test_later_comes_at_once_where_a_stop_is_asked_for_and_nothing_is_in_doubt() -> None:
    row = held(asked="cancel")
    write(lambda session, mine: workflows.later(session, mine, after=90, attempt=1, intent=None), row)
    assert until(columns(row.id)["due_at"]) <= 0


def test_later_lets_a_doubt_settle_even_where_a_stop_is_asked_for() -> None:
    row = held(asked="cancel")
    write(lambda session, mine: workflows.later(session, mine, after=90, attempt=1, intent=INTENT), row)
    after = columns(row.id)
    assert is_in(after["due_at"], 90)
    assert (after["in_doubt"], after["intent"]) == (True, INTENT)


def test_hold_moves_the_deadline_along_and_uses_no_attempt() -> None:
    row = held(deadline_at=NOW + seconds(100), attempt=2, crashes=1)
    deadline = columns(row.id)["deadline_at"]
    write(lambda session, mine: workflows.hold(session, mine, after=15), row)
    after = columns(row.id)
    assert (after["attempt"], after["crashes"], after["worker"]) == (2, 1, None)
    assert (after["deadline_at"] - deadline).total_seconds() == 15
    assert is_in(after["due_at"], 15)


def test_release_lets_go_with_intent_and_doubt_as_they_stand() -> None:
    row = held()
    write(HOLDERS["intend"], row)
    doubted = columns(row.id)
    write(HOLDERS["release"], row)
    after = columns(row.id)
    assert after["worker"] is None
    assert (after["in_doubt"], after["intent"]) == (True, doubted["intent"])
    assert is_in(after["due_at"], 9)


# Intent and its end


def test_an_intent_is_stamped_by_postgres_puts_the_row_in_doubt_and_renews_the_lease() -> None:
    row = held(wake_at=NOW)
    write(HOLDERS["intend"], row)
    after = columns(row.id)
    assert after["in_doubt"] is True
    assert {name: after["intent"][name] for name in INTENT} == INTENT
    assert is_in(datetime.fromisoformat(after["intent"]["at"]), 0)
    assert is_in(after["wake_at"], 65)


def test_no_intent_once_a_stop_is_asked_for_unless_it_undoes() -> None:
    row = held(asked="cancel")
    assert not write(HOLDERS["intend"], row)
    assert columns(row.id)["in_doubt"] is False
    assert write(lambda session, mine: workflows.intend(session, mine, INTENT, lease=65, anyway=True), row)


def test_progress_forgets_doubt_attempts_and_deaths_but_keeps_state_and_lease() -> None:
    row = held(attempt=3, crashes=2)
    write(HOLDERS["intend"], row)
    write(HOLDERS["progress"], row)
    after = columns(row.id)
    assert (after["intent"], after["in_doubt"], after["attempt"], after["crashes"]) == (None, False, 0, 0)
    assert (after["state"], after["worker"] is None) == (row.state, False)


def test_settle_forgets_the_doubt_alone() -> None:
    row = held(attempt=3, crashes=2)
    write(HOLDERS["intend"], row)
    write(HOLDERS["settle"], row)
    after = columns(row.id)
    assert (after["intent"], after["in_doubt"], after["attempt"], after["crashes"]) == (None, False, 3, 2)


def test_asking_changes_neither_state_nor_fence() -> None:
    row = held()
    write(STRANGERS["ask"], row)
    after = columns(row.id)
    assert (after["asked"], after["state"], after["fence"]) == ("cancel", row.state, row.fence)


# The timeline


def test_the_timeline_shows_moves_events_and_calls_in_the_order_in_which_they_happened() -> None:
    row = held()
    call = steps.Call(
        upstream="travel-pay", name="create-claim", method="POST", path="claims", status=None, outcome="unknown",
        milliseconds=45_000,
    )  # fmt: skip
    with db.transaction() as session:
        workflows.add_event(session, row.id, "holder died", actor="sweep")
        workflows.add_calls(session, row, "create_claim", "do", [call])
        workflows.move(session, row, S.CREATED, actor="worker", reason="create_claim adopted")
    with db.transaction() as session:
        shown = [(entry["what"], entry["actor"]) for entry in workflows.timeline(session, row.id)]
    assert shown == [
        ("holder died", "sweep"),
        ("create_claim do", "travel-pay"),
        ("appointment-found -> created", "worker"),
    ]
