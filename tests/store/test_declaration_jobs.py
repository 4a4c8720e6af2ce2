"""The numbers of declarations: the sequence of charge references, and what the gauges show."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from app import clock, db
from app.store import declaration_jobs
from tests.flows.declared import S, declared


@pytest.fixture(autouse=True)
def _empty(database: None) -> None:
    """No rows; the sequence starts anew."""
    restart(1)


def restart(number: int) -> None:
    with db.transaction() as session:
        session.execute(text(f"ALTER SEQUENCE charge_reference_seq RESTART WITH {number}"))


def drawn() -> int:
    with db.transaction() as session:
        return int(session.execute(text("SELECT nextval('charge_reference_seq')")).scalar_one())


def start(least: int) -> None:
    with db.transaction() as session:
        declaration_jobs.start_charge_references(session, least)


def test_the_sequence_goes_forward_to_the_start() -> None:
    start(1_000)
    assert [drawn(), drawn()] == [1_000, 1_001]


@pytest.mark.parametrize("least", [1, 500, 1_002])
def test_the_sequence_never_goes_back_and_leaves_no_gap(least: int) -> None:
    start(1_000)
    assert [drawn(), drawn()] == [1_000, 1_001]
    start(least)
    assert drawn() == 1_002


def test_a_fresh_sequence_starts_at_one() -> None:
    start(1)
    assert drawn() == 1


def test_the_last_number_can_be_the_start() -> None:
    start(9_999_999_999)
    assert drawn() == 9_999_999_999


def test_the_numbers_tell_where_the_declarations_are_and_how_old_the_work_is() -> None:
    declared(S.PENDING_PAYMENT)
    for age in (10, 4_000, 5_000):
        declared(S.PAID, age=age)
    declared(S.FAILED, age=700)
    declared(S.SUBMITTED, age=9_000)
    with db.transaction() as session:
        found = declaration_jobs.standing(session, overdue_before=clock.now() - timedelta(hours=1))
    assert found.states == {"pending-payment": 1, "paid": 3, "failed": 1, "submitted": 1}
    assert (int(found.oldest_unsent // 60), int(found.oldest_failed // 60), found.overdue) == (83, 11, 2)


def test_where_there_is_nothing_nothing_is_old() -> None:
    with db.transaction() as session:
        found = declaration_jobs.standing(session, overdue_before=clock.now())
    assert found == declaration_jobs.Standing(states={}, oldest_unsent=0, oldest_failed=0, overdue=0)
